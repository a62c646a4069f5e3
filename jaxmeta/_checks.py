"""Checks of arguments: one function and one text for each kind of complaint, used by every package.

Integers are whatever `operator.index` accepts, except booleans. Numbers may also be arrays or tracers, so that rates
can be swept under `jax.vmap` or learned. The range of a traced value is not checked, because it is not known yet.
"""

import contextlib
import importlib.util
import inspect
import math
import numbers
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import nnx
from jax.core import Tracer
from jax.sharding import Mesh

from jaxmeta._types import MetaLearner
from jaxmeta.display import brief

_CLASSES: ContextVar[tuple[int, tuple[Any, ...]]] = ContextVar("_CLASSES", default=(0, ()))
"""The number of classes of what is being traced, and its labels."""


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
            raise ValueError(f"{name} must be an integer of at least {least}, got {brief(value)}")
        found.append(number)
    return tuple(found)


def check_integers(*, least: int = 1, **values: Any) -> None:
    """Raises ValueError unless every value is a sequence of integers of at least `least`."""
    for name, value in values.items():
        if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
            raise ValueError(f"{name} must be a sequence of integers, such as (64, 64), got {brief(value)}")
        check_integer(least=least, **{f"{name}[{i}]": number for i, number in enumerate(value)})


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
            raise ValueError(f"{name} must be {kind}, got {brief(value)}")


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray | jax.Array) and not isinstance(value, Tracer):
        return bool(jax.numpy.issubdtype(value.dtype, jax.numpy.number)) and value.size > 0
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def channels_first(shape: tuple[int, ...]) -> bool:
    """Returns whether an array has the shape of images `[n, channels, height, width]`, and of no other images."""
    return len(shape) == 4 and shape[1] in (1, 3) and shape[2] == shape[3] > 4


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises ValueError unless `value` is among `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {brief(value)}")


def check_labels(labels: Any, ways: int, weight: Any = None, shape: tuple[int, ...] | None = None) -> None:
    """Checks the labels of examples.

    Args:
        labels: the labels.
        ways: number of outputs for the classes, which are `0 ... ways - 1`.
        weight: weight of each example. Where it is 0, the label does not matter.
        shape: the shape that the labels must have, if it is known.

    Raises:
        TypeError: if the labels are not integers.
        ValueError: if they have another shape, a concrete label is out of range, or the task has more classes than
            `ways` (see `labels_of`).
    """
    if weight is not None and jnp.shape(weight) != jnp.shape(labels)[:1]:
        raise ValueError(f"weight must have shape {jnp.shape(labels)[:1]}, as the labels, got {jnp.shape(weight)}")
    if shape is not None and jnp.shape(labels) != shape:
        hint = ""
        if jnp.ndim(labels) > len(shape):
            hint = ": labels[..., 0]" if jnp.shape(labels)[-1] == 1 else ": jnp.argmax(labels, -1) of one-hot rows"
        raise ValueError(f"labels must have shape {shape}, one for each row of outputs, got {jnp.shape(labels)}{hint}")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers from 0 to {ways - 1}, got {brief(labels)}")
    classes, known = _CLASSES.get()
    if classes > ways and any(labels is of_task for of_task in known):
        raise ValueError(
            f"labels go up to {classes - 1}, but there are only {ways} outputs: give the model out={classes} or "
            f"ways={classes}, or the learner ways={classes}, or number the classes of each task from 0"
        )
    if isinstance(labels, Tracer) or isinstance(weight, Tracer):
        return
    labels = np.asarray(labels)
    wrong = (labels < 0) | (labels >= ways)
    if weight is not None:
        wrong &= np.asarray(weight) != 0
    if wrong.any():
        found = sorted(set(labels[wrong].tolist()))
        raise ValueError(f"labels must be integers from 0 to {ways - 1}, got {brief(found)}")


@contextlib.contextmanager
def labels_of(parts: Sequence[Any], source: Any) -> Iterator[None]:
    """Tells `check_labels` how many classes some traced labels have, which their type does not say.

    Args:
        parts: batches, whose labels are recognized as long as nothing makes other arrays of them.
        source: where they come from, with a number or a pair `ways`, or a number `num_classes`, if it knows that.
    """
    classes = getattr(source, "ways", getattr(source, "num_classes", None))
    most = max(classes) if isinstance(classes, tuple) else classes
    labels = tuple(getattr(part, "y", None) for part in parts)
    token = _CLASSES.set((most, labels) if isinstance(most, int) else (0, ()))
    try:
        yield
    finally:
        _CLASSES.reset(token)


def check_learner(learner: Any, *, changes: bool = False) -> None:
    """Raises TypeError unless a value is a `MetaLearner`, or with `changes` a function of the update to one."""
    if isinstance(learner, MetaLearner):
        return
    what = "a MetaLearner, such as maml(loss_fn, inner)"
    if not changes:
        raise TypeError(f"learner must be {what}, got {brief(learner)}")
    if not callable(learner) or isinstance(learner, tuple | type | nn.Module | nnx.Module):
        raise TypeError(f"learner must be {what}, or a function of the update to one, got {brief(learner)}")
    check_takes(1, f", or it must be {what}", learner=learner)


def check_mesh(mesh: Any) -> None:
    """Raises TypeError unless a value is a mesh or None."""
    if mesh is not None and not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, such as task_mesh(), got {brief(mesh)}")


def check_sampler(**values: Any) -> None:
    """Raises TypeError unless every value can be called with a key."""
    for name, value in values.items():
        if callable(value) and not isinstance(value, type):
            check_takes(1, ", a random key", **{name: value})
            continue
        hint = ""
        if hasattr(value, "train") and hasattr(value, "test"):
            hint = ": pass one of its parts, such as tasksets.train"
        elif isinstance(value, type):
            hint = ": make one, for example with its method create"
        raise TypeError(f"{name} must be a sampler, a function of a key to a Task, got {brief(value)}{hint}")


def as_path(**values: Any) -> Path:
    """Returns the one value as a path.

    Raises:
        TypeError: if it is something else.
    """
    ((name, value),) = values.items()
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {brief(value)}")
    return Path(value)


def check_meta_gradient(meta_gradient: Any) -> None:
    """Raises TypeError unless a value is a `MetaGradient` or None."""
    if meta_gradient is None or hasattr(meta_gradient, "value_and_grad"):
        return
    hint = ": call it" if inspect.isfunction(meta_gradient) else ""
    raise TypeError(f"meta_gradient must be a value such as first_order(), got {brief(meta_gradient)}{hint}")


def check_through_steps(meta_gradient: Any) -> None:
    """Raises ValueError unless a `MetaGradient`, if it is not None, is a derivative through each inner step."""
    check_meta_gradient(meta_gradient)
    if meta_gradient is not None and (meta_gradient.end_only or meta_gradient.values_only):
        raise ValueError(
            "meta_gradient must go through the inner steps here, as reverse(), mixed(), first_order() and truncated(n) "
            "do, and implicit() and evolution() do not"
        )


def check_function(**values: Any) -> None:
    """Raises TypeError unless every value can be called."""
    for name, value in values.items():
        if not callable(value):
            raise TypeError(f"{name} must be a function, got {brief(value)}")


def as_functions(**values: Any) -> Sequence[Callable[..., Any]]:
    """Returns the one value, a function or some, as a sequence.

    Raises:
        TypeError: if one of them cannot be called.
    """
    ((name, value),) = values.items()
    found = value if isinstance(value, Sequence) else [value]
    for function in found:
        check_function(**{name: function})
    return found


def check_takes(count: int, meaning: str = "", /, **values: Any) -> None:
    """Raises TypeError unless every value can be called with so many arguments.

    Args:
        count: number of arguments.
        meaning: text that follows the number in the message.
        values: functions, by the names of their arguments.
    """
    check_function(**values)
    for name, value in values.items():
        try:
            signature = inspect.signature(value)
        except ValueError:  # of a function in C
            continue
        try:
            signature.bind(*range(count))
        except TypeError:
            arguments = f"{count} argument{'s' * (count > 1)}{meaning}"
            takes = ", ".join(signature.parameters)
            raise TypeError(f"{name} must take {arguments}, but {brief(value)} takes ({takes})") from None


def check_transformation(**values: Any) -> None:
    """Raises TypeError unless every value is an `optax.GradientTransformation`."""
    for name, value in values.items():
        if isinstance(value, optax.GradientTransformation):
            continue
        hint = f"such as optax.sgd(0.1), got {brief(value)}"
        if isinstance(value, optax.MultiSteps):
            hint = "got optax.MultiSteps: call MultiSteps(...).gradient_transformation()"
        elif inspect.isfunction(value):
            hint += ": call it"
        raise TypeError(f"{name} must be an optax.GradientTransformation, {hint}")


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
