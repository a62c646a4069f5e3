"""Checks of arguments: one function and one text for each kind of complaint, used by every package.

Integers are whatever `operator.index` accepts, except booleans. Numbers may also be arrays or tracers, so that rates
can be swept under `jax.vmap` or learned. The range of a traced value is not checked, because it is not known yet.
"""

import importlib.util
import math
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.core import Tracer


def check_integer(*, least: int = 1, **values: Any) -> tuple[int, ...]:
    """Returns the values as Python integers.

    Raises:
        ValueError: if a value is not an integer of at least `least`.
    """
    found = []
    for name, value in values.items():
        try:
            number = None if isinstance(value, bool | np.bool_) else operator.index(value)
        except TypeError:
            number = None
        if number is None or number < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        found.append(number)
    return tuple(found)


def check_optional_integer(*, least: int = 1, **values: Any) -> None:
    """Raises ValueError unless every value is None or an integer of at least `least`."""
    check_integer(least=least, **{name: value for name, value in values.items() if value is not None})


def check_number(**values: Any) -> None:
    """Raises ValueError unless every value is a finite number."""
    _check_numbers(values, math.isfinite, "a finite number")


def check_positive(**values: Any) -> None:
    """Raises ValueError unless every value is a positive number."""
    _check_numbers(values, lambda value: 0 < value < math.inf, "a positive number")


def check_not_negative(**values: Any) -> None:
    """Raises ValueError unless every value is a number of at least 0."""
    _check_numbers(values, lambda value: 0 <= value < math.inf, "a number of at least 0")


def check_fraction(*, below_one: bool = False, **values: Any) -> None:
    """Raises ValueError unless every value is a number from 0 to 1, with `below_one` less than 1."""
    if below_one:
        _check_numbers(values, lambda value: 0 <= value < 1, "a number of at least 0 and less than 1")
    else:
        _check_numbers(values, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def _check_numbers(values: dict[str, Any], holds: Callable[[float], bool], kind: str) -> None:
    for name, value in values.items():
        if isinstance(value, Tracer) and jax.numpy.issubdtype(value.dtype, jax.numpy.number):
            continue
        if not _is_number(value) or not all(holds(float(x)) for x in np.ravel(np.asarray(value, np.float64))):
            raise ValueError(f"{name} must be {kind}, got {value!r}")


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray | jax.Array) and not isinstance(value, Tracer):
        return bool(jax.numpy.issubdtype(value.dtype, jax.numpy.number)) and value.size > 0
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises ValueError unless `value` is among `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_labels(labels: Any, ways: int, weight: Any = None) -> None:
    """Raises ValueError if a concrete label is not one of `0 ... ways - 1`, except where the weight is 0."""
    if isinstance(labels, Tracer) or isinstance(weight, Tracer):
        return
    labels = np.asarray(labels)
    wrong = (labels < 0) | (labels >= ways)
    if weight is not None:
        wrong &= np.asarray(weight) != 0
    if wrong.any():
        raise ValueError(f"labels must be integers from 0 to {ways - 1}, got {sorted(set(labels[wrong].tolist()))}")


def check_through_steps(meta_gradient: Any) -> None:
    """Raises ValueError unless a `MetaGradient`, if it is not None, is a derivative through each inner step."""
    if meta_gradient is not None and (meta_gradient.end_only or meta_gradient.values_only):
        raise ValueError(
            "meta_gradient must go through the inner steps here, as reverse(), mixed(), first_order() and truncated(n) "
            "do, and implicit() and evolution() do not"
        )


def check_function(**values: Any) -> None:
    """Raises TypeError unless every value can be called."""
    for name, value in values.items():
        if not callable(value):
            raise TypeError(f"{name} must be a function, got {value!r}")


def check_transformation(**values: Any) -> None:
    """Raises TypeError unless every value is an `optax.GradientTransformation`."""
    for name, value in values.items():
        if isinstance(value, optax.MultiSteps):
            raise TypeError(
                f"{name} must be an optax.GradientTransformation: call MultiSteps(...).gradient_transformation()"
            )
        if not isinstance(value, optax.GradientTransformation):
            raise TypeError(f"{name} must be an optax.GradientTransformation such as optax.sgd(0.1), got {value!r}")


def check_installed(package: str, needed_by: str, extra: str, note: str = "") -> None:
    """Raises ModuleNotFoundError with the command that installs a package, if it is missing.

    Args:
        package: name of the package.
        needed_by: name of whatever needs it.
        extra: extra of jaxmeta that contains the package.
        note: words that follow the command.
    """
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(f'{needed_by} needs {package}: pip install "jaxmeta[{extra}]"{note}', name=package)
