"""What the processes of one run do together, and what one does when it is asked to end."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
import numpy as np


def anywhere(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether it is set in any process of the run; all of them have to ask."""
    if jax.process_count() == 1:
        return flags
    from jax.experimental import multihost_utils

    return tuple(map(bool, multihost_utils.process_allgather(np.array(flags)).any(axis=0)))


@contextlib.contextmanager
def deferred_sigterm() -> Iterator[threading.Event]:
    """Keeps a SIGTERM (preemption) back until the end of the block, where it is sent again if the event is set.

    Only in the main thread: Python gives signals to no other.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
        if asked.is_set():
            signal.raise_signal(signal.SIGTERM)
