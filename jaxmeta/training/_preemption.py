"""Agreement among the processes of a run, and the answer to SIGTERM."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
import numpy as np


def greatest(*values: float) -> tuple[float, ...]:
    """Returns the greatest of each value among the processes of the run; all of them have to ask."""
    if jax.process_count() == 1:
        return values
    from jax.experimental import multihost_utils

    return tuple(map(float, multihost_utils.process_allgather(np.array(values, np.float32)).max(axis=0)))


def anywhere(*flags: bool) -> tuple[bool, ...]:
    """Returns for each flag whether it is set in any process of the run; all of them have to ask."""
    return tuple(map(bool, greatest(*flags)))


@contextlib.contextmanager
def on_sigterm(handler: Callable[..., object]) -> Iterator[None]:
    """Calls `handler` for a SIGTERM in the block; only in the main thread: Python gives signals to no other."""
    if not _in_main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextlib.contextmanager
def deferred_sigterm() -> Iterator[threading.Event]:
    """Keeps a SIGTERM (preemption) back until the end of the block, where it is sent again if the event is set."""
    asked = threading.Event()
    try:
        with on_sigterm(lambda *_: asked.set()):
            yield asked
    finally:
        if asked.is_set() and _in_main_thread():
            if jax.distributed.is_initialized() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
                jax.distributed.shutdown()  # else the others take this process for a failed one, and abort
            signal.raise_signal(signal.SIGTERM)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
