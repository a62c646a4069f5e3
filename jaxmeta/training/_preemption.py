"""Agreement among the processes of a run, and the answer to signals that ask it to end."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

SIGNALS = tuple(signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if name in signal.Signals.__members__)
"""Signals that ask a process to end: before a preemption, and when its terminal is closed."""


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
def on_signals(handler: Callable[[int, Any], object]) -> Iterator[None]:
    """Calls `handler` for `SIGNALS` in the block; only in the main thread: Python gives signals to no other.

    A signal that the process ignores stays ignored, as SIGHUP after `nohup`.
    """
    if not _in_main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    changed = {number: old for number, old in before.items() if old != signal.SIG_IGN}
    for number in changed:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in changed.items():
            signal.signal(number, old if old is not None else signal.SIG_DFL)


@contextlib.contextmanager
def deferred_signals() -> Iterator[threading.Event]:
    """Keeps a signal back until the end of the block, where it is sent again if the event is set."""
    asked = threading.Event()
    last = [int(signal.SIGTERM)]

    def keep(number: int, _: Any) -> None:
        last.append(number)
        asked.set()

    try:
        with on_signals(keep):
            yield asked
    finally:
        if asked.is_set() and _in_main_thread():
            if jax.distributed.is_initialized() and signal.getsignal(last[-1]) == signal.SIG_DFL:
                jax.distributed.shutdown()  # else the others take this process for a failed one, and abort
            signal.raise_signal(last[-1])


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
