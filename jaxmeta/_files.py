"""Files that are whole or absent, that say what they are and know when a byte has changed; the folders of caches."""

import contextlib
import errno
import json
import os
import platform
import re
import secrets
import stat
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxmeta.bounded import load_json

try:
    import fcntl
except ImportError:  # Windows, where a file that is open is not removed
    fcntl = None

_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_UNFINISHED = re.compile(r"\.jaxmeta-([0-9a-f]{8})-[0-9a-f]{16}\.tmp")
_LONGEST = 24 * 3600.0  # seconds that a writer rests at most
_NAME, _SUM = 32, 8  # bytes of a seal: what the file is, and the checksum
SEAL_BYTES = _NAME + _SUM
"""Bytes that `seal` appends."""
_BLOCK = 1 << 20


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that it is either the old one or the new one, never half of it; leaves nothing if it cannot.

    See `replacing`.
    """
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a new file that takes the place of another at the end, or is removed if something fails.

    The file keeps its mode and its owner, and a symbolic link stays one. The content is written beside the file, under
    a name that nobody else has. What writers left that were killed is removed.

    Args:
        path: path of the file. Its folder must exist.

    Yields:
        The new file, for writing and reading.

    Raises:
        ValueError: if something else than a file is there, such as a device.
        OSError: if the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    try:
        old = _status(path, target)
        _remove_leftovers(target.parent)
        handle, temporary = _new_file(target.parent)
        try:
            with contextlib.ExitStack() as held:  # the lock, until the file has its name
                held.callback(os.close, handle)
                with open(handle, "w+b", closefd=False) as file:
                    yield file
                _make_like(temporary, old)
                if fcntl is None:
                    held.close()
                os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        if error.errno is None or error.filename == str(path):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _status(path: Path, target: Path) -> os.stat_result | None:
    """Returns the status of the file that is to be replaced, or `None` if there is none."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is a device, a pipe or a socket, which no file can replace")
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return status


def _new_file(folder: Path) -> tuple[int, Path]:
    """Makes a file with a name of its own, and locks it, so that others know that its writer lives."""
    while True:
        path = folder / f".jaxmeta-{_HOST}-{secrets.token_hex(8)}.tmp"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        with contextlib.suppress(OSError):  # of folders that know no locks
            _lock(handle)
        if os.path.lexists(path):  # and not removed before it was locked
            return handle, path
        os.close(handle)


def _make_like(path: Path, old: os.stat_result | None) -> None:
    if old is not None:
        if (old.st_uid, old.st_gid) != (path.stat().st_uid, path.stat().st_gid):
            with contextlib.suppress(OSError):  # that only the root user may
                os.chown(path, old.st_uid, old.st_gid)
        path.chmod(stat.S_IMODE(old.st_mode))


def _remove_leftovers(folder: Path) -> None:
    """Removes what writers that were killed left in a folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries if _UNFINISHED.fullmatch(entry.name)]:
            with contextlib.suppress(OSError), open(folder / name, "rb") as file:
                if time.time() - os.fstat(file.fileno()).st_mtime < _LONGEST:
                    if name.split("-")[1] != _HOST:
                        continue  # locks may not reach another host
                    _lock(file.fileno())
                os.unlink(folder / name)


def _lock(handle: int) -> None:
    """Locks a file until it is closed, or raises OSError."""
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def seal(file: BinaryIO, kind: str, version: int) -> None:
    """Appends to a file what it is, and a checksum of all of it.

    Args:
        file: the file, open for writing and reading.
        kind: kind of the content.
        version: version of its format.
    """
    file.seek(0, os.SEEK_END)
    file.write(f"jaxmeta {kind} {version}".encode().ljust(_NAME))
    found = _sum_of(file, file.tell())
    file.seek(0, os.SEEK_END)
    file.write(found)


def check_seal(file: BinaryIO, kind: str, version: int, made_by: str) -> int:
    """Checks that a file is what it should be, and that no byte has changed.

    Args:
        file: the file, open for reading.
        kind: kind of the content.
        version: version of the format.
        made_by: name of what writes such files.

    Returns:
        The number of bytes before the seal.

    Raises:
        ValueError: if the file is damaged, of something else, or of a version that this one does not read.
    """
    size = file.seek(0, os.SEEK_END) - SEAL_BYTES
    file.seek(max(0, size))
    name, checked = file.read(_NAME), file.read(_SUM)
    told, found, number = (*name.decode(errors="replace").split(), "", "", "")[:3]
    if size < 0 or told != "jaxmeta":
        raise ValueError(
            f"{file.name} is damaged, or was not made by {made_by}. Files of versions without checksums are not read"
        )
    if _sum_of(file, size + _NAME) != checked:
        raise ValueError(f"{file.name} is damaged: its checksum does not fit its content. Make or copy it again")
    if found != kind:
        raise ValueError(f"{file.name} was not made by {made_by}: it is a file of {found!r}, not of {kind!r}")
    if number != str(version):
        raise ValueError(
            f"{file.name} has format {number} of {kind}, and this version of jaxmeta reads format {version}. "
            "Use the version that wrote it"
        )
    return size


def _sum_of(file: BinaryIO, size: int) -> bytes:
    """Returns the CRC-32 of the first bytes of a file, in letters."""
    value = 0
    file.seek(0)
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        value = zlib.crc32(block, value)
        size -= len(block)
    return f"{value:08x}".encode()


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a record as JSON, with a checksum of its values."""
    write_atomically(path, json.dumps(with_checksum(record), indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads what `write_json` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or was edited.
    """
    return without_checksum(path.read_bytes(), str(path))


def with_checksum(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a record as JSON has them, and their checksum."""
    plain = json.loads(json.dumps(record))
    return {**plain, "checksum": _checksum_of(plain)}


def without_checksum(content: str | bytes, name: str) -> dict[str, Any]:
    """Returns the values of a record `with_checksum` that was written as JSON.

    Raises:
        ValueError: if they are not those that were written. It names `name`, where the record stood.
    """
    try:
        record = load_json(content)
        found = record.pop("checksum")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{name} is damaged, or was not made by this version of jaxmeta ({error!r})") from error
    if found != _checksum_of(record):
        raise ValueError(f"{name} is damaged or was edited: its checksum does not fit its content")
    return record


def _checksum_of(record: Any) -> str:
    return f"{zlib.crc32(json.dumps(record, sort_keys=True).encode()):08x}"


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
