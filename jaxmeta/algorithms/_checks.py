"""Checks of arguments that several algorithms share."""

from typing import Any

import optax


def check_inner(inner: Any) -> None:
    """Raises `TypeError` unless `inner` is an optax transformation."""
    if not isinstance(inner, optax.GradientTransformation):
        raise TypeError(f"inner must be an optax.GradientTransformation such as optax.sgd(0.1), got {inner!r}")


def check_steps(**steps: int | None) -> None:
    """Raises `ValueError` unless every given number of steps is `None` or an integer of at least 1."""
    for name, value in steps.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
