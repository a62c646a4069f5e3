"""A lock between processes: a file that says who holds it, and that is free as soon as its holder has ended.

The lock is one of the operating system, which gives it back whatever ends a process. Where machines share a disk and
not their locks, a file that a process of another machine has left is looked at for a while: its holder changes its time
every few seconds, and nobody holds it if that does not happen.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Self

from jaxmeta.display import progress_bar

_BEAT = 5.0  # seconds between two signs of life
_PATIENCE = 20.0  # seconds without one until the holder on another machine is taken for dead
_POLL = 0.2

if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        os.lseek(file, 1 << 20, os.SEEK_SET)  # beyond the text, which others read
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Owner(NamedTuple):
    """The process that holds a lock."""

    pid: int
    """Number of the process, 0 if it is not known."""
    host: str
    """Name of its machine."""
    since: str
    """Time at which it took the lock."""

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}, since {self.since}" if self.pid else "its name is not known"


class Lock:
    """A lock that one process at a time holds.

    Args:
        path: file of the lock. It is removed when the lock is released, and so are the folders that were made for it
            if nothing else is in them.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file: int | None = None
        self._made: list[Path] = []
        self._ended = threading.Event()

    @property
    def is_whole(self) -> bool:
        """True if the lock is held and its file is still where it was made."""
        return self._file is not None and _is_at(self._path, self._file)

    def take(self) -> Owner | None:
        """Takes the lock and returns `None`, or returns the process that holds it.

        Raises:
            OSError: if the file or its folder cannot be made.
        """
        file = self._opened()
        try:
            shared = _try_lock(file)
            if shared is None:
                return _read(file) or Owner(0, "", "")
            if _is_at(self._path, file):
                other = self._other(file, shared)
                if other is None:
                    self._file = file
                    threading.Thread(target=self._beat, daemon=True).start()
                return other
        finally:
            if self._file is None:
                os.close(file)
        return self.take()  # its holder has just removed the file

    def release(self) -> None:
        """Gives the lock back, if it is held."""
        self._ended.set()
        file, self._file = self._file, None
        if file is None:
            return
        with contextlib.suppress(OSError):
            if _is_at(self._path, file):
                os.ftruncate(file, 0)  # Windows does not remove a file that is open
                self._path.unlink()
                for folder in self._made:
                    folder.rmdir()
        os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _opened(self, tries: int = 5) -> int:
        """Opens the file, and makes it if it is not there."""
        self._made += [folder for folder in self._path.parents if not folder.exists()]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another process may have removed its empty folder
            if not tries:
                raise
            return self._opened(tries - 1)

    def _other(self, file: int, shared: bool) -> Owner | None:
        """Writes this process into the file, unless it names another one that lives, which is returned."""
        other, own = _read(file), Owner(os.getpid(), socket.gethostname(), f"{datetime.now():%Y-%m-%d %H:%M:%S}")
        if other is not None and not (shared and other.host == own.host) and self._is_alive():
            return other
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, json.dumps(own._asdict()).encode())
        if shared:
            return None
        time.sleep(_POLL)  # of several processes that begin together, the last one that wrote goes on
        return None if (last := _read(file)) == own else last

    def _is_alive(self) -> bool:
        """Tells whether the holder of the file gives a sign of life."""
        first, end = self._changed(), time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            time.sleep(_POLL)
            if self._changed() != first:
                return True
        return False

    def _changed(self) -> int:
        """Returns the time of the file, which must be opened for it: network disks remember old answers."""
        with contextlib.suppress(OSError), open(self._path, "rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
        return 0

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT) and self.is_whole:
            with contextlib.suppress(OSError):
                os.utime(self._path)


@contextlib.contextmanager
def waiting(path: Path, work: str, shown: bool = True) -> Iterator[None]:
    """Holds a lock in the block, and waits for the process that holds it before.

    Args:
        path: file of the lock.
        work: what the other process does, such as "reads the images".
        shown: whether to say that this one waits.

    Raises:
        OSError: if the file cannot be made.
    """
    with Lock(path) as lock:
        owner = lock.take()
        if owner is not None:
            with progress_bar(f"Waiting for another process, which {work} ({owner})", shown=shown, delay=0.0):
                while lock.take() is not None:
                    time.sleep(_POLL)
        yield


def _try_lock(file: int) -> bool | None:
    """Locks a file; returns `None` if another process has, and False if the file system has no locks."""
    try:
        _lock(file)
    except (BlockingIOError, PermissionError):
        return None
    except OSError:  # only signs of life count
        return False
    return True


def _is_at(path: Path, file: int) -> bool:
    """Tells whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except OSError:
        return False


def _read(file: int) -> Owner | None:
    """Returns the owner that a file names, if it names one."""
    os.lseek(file, 0, os.SEEK_SET)
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        found = json.loads(os.read(file, 4096))
        return Owner(int(found["pid"]), str(found["host"]), str(found["since"]))
    return None
