"""The folder of a run, which one training at a time holds."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxmeta.locks import Lock
from jaxmeta.training._preemption import anywhere

LOCK_FILE = ".lock"
_HELD: dict[tuple[int, int, str], Lock] = {}
"""Locks by the process, the thread and the folder: a run holds its folder around its training, which asks again."""


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[Lock | None]:
    """Holds the folder of a run in the block, and makes it if it does not exist.

    Of several processes that run together the first one holds it, and the others get `None`.

    Raises:
        BlockingIOError: if another training has the folder.
        NotADirectoryError: if it is a file.
        OSError: if it cannot be written.
    """
    name = os.getpid(), threading.get_ident(), os.path.realpath(folder)
    if name in _HELD:
        yield _HELD[name]
        return
    lock = Lock(folder / LOCK_FILE)
    error = _take(lock, folder) if jax.process_index() == 0 else None
    if anywhere(error is not None) != (False,):
        raise error or BlockingIOError(f"folder {folder} cannot be used, as the first of the processes says")
    if jax.process_index() > 0:
        yield None
        return
    _HELD[name] = lock
    try:
        yield lock
    finally:
        del _HELD[name]
        lock.release()


def cannot_write(folder: Path, code: int) -> str:
    """Returns the complaint about a folder that cannot be written."""
    return f"folder {folder} cannot be written: {os.strerror(code)}"


def _take(lock: Lock, folder: Path) -> OSError | None:
    """Takes the lock, or returns the error that tells why not."""
    try:
        owner = lock.take()
    except (FileExistsError, NotADirectoryError):
        file = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
        return NotADirectoryError(f"folder must be a folder, but {file} is a file")
    except OSError as error:
        return OSError(error.errno, cannot_write(folder, error.errno or 0))
    if owner is None:
        return None
    who = "another thread of this process" if owner.pid == os.getpid() else "another process"
    told = f"{who} trains in folder {folder} ({owner}). Wait until it has ended, or choose another folder"
    return BlockingIOError(told)
