"""Files that are whole or absent, numbers that are those that were written, and the folders of caches."""

import contextlib
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that it is either the old one or the new one, never half of it; leaves nothing if it cannot."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def open_file(path: Path) -> BinaryIO:
    """Opens a file for reading.

    Raises:
        ValueError: if something else is there, such as a pipe, which could keep the reader for ever.
        OSError: if it cannot be opened.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a device, a pipe or a socket instead of a file: move it away")
    return open(path, "rb")


def expanded(path: str | Path) -> Path:
    """Returns a path with the user's home folder in the place of `~`.

    Raises:
        OSError: if there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise OSError(f"{path} is in a home folder that does not exist: name another folder") from error


def user_cache() -> Path:
    """Returns the folder of jaxmeta among the user's caches.

    Raises:
        OSError: if the user has no home folder.
    """
    import pooch

    try:
        return Path(pooch.os_cache("jaxmeta"))
    except RuntimeError as error:
        raise OSError("there is no home folder: set JAXMETA_CACHE, and JAXMETA_DATA or --root for data") from error


def cache_folder() -> Path:
    """Returns the folder of what can be made again: the variable `JAXMETA_CACHE`, else the user's cache folder."""
    return expanded(os.environ.get("JAXMETA_CACHE") or user_cache())


def checksum(arrays: Iterable[Any]) -> int:
    """CRC-32 of the bytes of arrays, one after the other."""
    value = 0
    for array in arrays:
        value = zlib.crc32(np.asarray(array).tobytes(), value)
    return value
