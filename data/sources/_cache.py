"""The folder of the data, and the cache of decoded arrays."""

import contextlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxmeta._files import cache_folder, expanded, user_cache
from jaxmeta.data.containers import read_arrays, write_arrays
from jaxmeta.locks import waiting


def data_folder(root: str | Path | None) -> Path:
    """Returns the data folder: `root`, else the variable `JAXMETA_DATA`, else the user's cache folder."""
    return expanded(root or os.environ.get("JAXMETA_DATA") or user_cache()).absolute()


def cached(name: str, arrays: list[str], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns arrays from the cache, or makes and stores them.

    The cache is the folder that the environment variable `JAXMETA_CACHE` names, else the user's cache folder. A file
    that is damaged or holds something else is made again. If another process makes the same arrays, this one waits for
    them.

    Args:
        name: name of the content, which includes its fingerprint and the version of `make`.
        arrays: names of the arrays.
        make: function that makes the arrays.

    Returns:
        The arrays by name.
    """
    try:
        path = cache_folder() / f"{name}.npz"
    except OSError as error:
        warnings.warn(f"{name} will be read again next time ({error})", stacklevel=2)
        return make()
    stored = _read(path, arrays)
    if stored is not None:
        return stored
    with contextlib.ExitStack() as alone:
        with contextlib.suppress(OSError):  # a folder that cannot be written: each process makes its own
            alone.enter_context(waiting(path.with_suffix(".lock"), "makes the same cache"))
        stored = _read(path, arrays)
        if stored is not None:
            return stored
        made = make()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_arrays(path, made, "cache")
        except OSError as error:
            warnings.warn(f"{name} will be read again next time: no cache at {path} ({error})", stacklevel=2)
        return made


def _read(path: Path, arrays: list[str]) -> dict[str, np.ndarray] | None:
    """Returns the arrays of a file, or `None` if it is not there, damaged, or holds something else."""
    with contextlib.suppress(OSError, ValueError):
        return read_arrays(path, *arrays, kind="cache", others=False)
    return None
