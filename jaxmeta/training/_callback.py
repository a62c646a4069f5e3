"""Functions of the user that are called with the records of a training."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from jaxmeta._checks import as_functions

Callback: TypeAlias = Callable[[dict[str, float]], Any]
"""`(record) -> None`, or `True` to end the training."""


class Callbacks:
    """Calls functions with each record, in the first of several processes.

    Args:
        functions: one function or some.

    Raises:
        TypeError: if one is no function.
    """

    def __init__(self, functions: Callback | Sequence[Callback]):
        self._functions = as_functions(callback=functions)
        self.ended = False
        """True if a function has asked the training to end."""
        self.error: Exception | None = None
        """The error of a function, or `None`."""

    def __call__(self, record: dict[str, float]) -> None:
        """Calls all functions, until one raises."""
        if jax.process_index() > 0:
            return
        try:
            for function in self._functions:
                self.ended |= _asks_to_end(function(dict(record)))
        except Exception as error:  # raised by `raise_error`, when the state is saved
            self.error = error

    def raise_error(self) -> None:
        """Raises in every process what a function has raised in the first one."""
        raise self.error or RuntimeError("callback has raised an error in the first process, which shows it")


def _asks_to_end(answer: Any) -> bool:
    if answer is None:
        return False
    if not isinstance(answer, bool | np.bool_):
        raise TypeError(f"callback must return None, or True to end the training, got {answer!r}")
    return bool(answer)
