"""Where data is looked for, and where what was made of it is kept."""

import contextlib
import os
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np


def data_folder(root: str | Path | None) -> Path:
    """Return the folder to look for data in: the one given, else `JAXMETA_DATA`, else the user's cache folder."""
    return Path(root or os.environ.get("JAXMETA_DATA") or _user_cache()).expanduser().absolute()


def cached(name: str, arrays: list[str], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return arrays that were made before, or make and keep them.

    They are kept in the folder that the environment variable `JAXMETA_CACHE` names, else in the user's cache folder. A
    file that is damaged or holds something else is made again; readers see a whole file or none.

    Args:
        name: What names the content, fingerprint and version of the making included.
        arrays: The arrays' names.
        make: Makes them.

    Returns:
        The arrays by name.
    """
    path = Path(os.environ.get("JAXMETA_CACHE") or _user_cache()).expanduser() / f"{name}.npz"
    damage = (OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
    with contextlib.suppress(*damage), open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
        return {array: stored[array] for array in arrays}
    made = make()
    try:
        _write(path, made)
    except OSError as error:
        warnings.warn(f"{name} will be read anew the next time: no cache at {path} ({error})", stacklevel=2)
    return made


def _user_cache() -> Path:
    import pooch

    return Path(pooch.os_cache("jaxmeta"))


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
