"""Checks of arguments that algorithms, transformations and meta-gradients share."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import optax


def check_finite(**values: float) -> None:
    """Raises ValueError unless every value is a finite number."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value!r}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises ValueError unless `value` is among `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_size(**values: int) -> None:
    """Raises ValueError unless every value is an integer of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


def check_optional_size(**values: int | None) -> None:
    """Raises ValueError unless every value is None or an integer of at least 1."""
    check_size(**{name: value for name, value in values.items() if value is not None})


def check_transformation(**values: Any) -> None:
    """Raises TypeError unless every value is an `optax.GradientTransformation`."""
    for name, value in values.items():
        if not isinstance(value, optax.GradientTransformation):
            raise TypeError(f"{name} must be an optax.GradientTransformation such as optax.sgd(0.1), got {value!r}")
