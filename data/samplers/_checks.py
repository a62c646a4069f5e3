"""Checks of data that samplers and task transforms share."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Self, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._checks import check_integer
from jaxmeta.data.containers import Examples, advice_on_text, as_array, as_labels

_NAMED = 20  # classes in an error message
ArrayLike: TypeAlias = np.ndarray | jax.Array
Size: TypeAlias = int | tuple[int, int]
"""A number, or the least and the most of a number that is drawn for each task."""


class TaskSizes(NamedTuple):
    """Number of classes of a task, and of examples of each class."""

    ways: Size
    """Number of classes in a task."""
    per_class: tuple[Size, ...]
    """Number of examples of each class: support, then query."""
    replacement: bool = False
    """True if an example may be drawn twice."""
    name: str = "shots + queries"
    """Name of `per_class` in error messages."""
    of: str = "class"
    """Name of the thing that has examples, in error messages."""


class Created:
    """Base of samplers that are made by methods such as `create`, and whose constructor takes prepared arrays."""

    def __new__(cls, *args: Any, **fields: Any) -> Self:
        """Checks the number of fields. None at all is what `copy` and `pickle` give.

        Raises:
            TypeError: if there are too few.
        """
        needed = [field for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]  # pyright: ignore[reportArgumentType]
        if 0 < len(args) + len(fields) < len(needed):
            made = [f"{cls.__name__}.{name}" for name in ("create", "from_classes", "from_tasks") if hasattr(cls, name)]
            raise TypeError(f"{cls.__name__} is made by {' or '.join(made)}, which check and prepare the data")
        return super().__new__(cls)


def check_sizes(**sizes: Size) -> tuple[Size, ...]:
    """Returns the sizes as Python integers and pairs of them.

    Raises:
        ValueError: if a size is neither an integer of at least 1, nor a pair of such integers in order.
    """
    found: list[Size] = []
    for name, size in sizes.items():
        if not isinstance(size, tuple):
            found += check_integer(**{name: size})
            continue
        bounds = check_integer(**{f"{name}[{i}]": bound for i, bound in enumerate(size)})
        if len(bounds) != 2 or bounds[0] > bounds[1]:
            raise ValueError(f"{name} must be an integer or a pair (least, most), got {size!r}")
        found.append((bounds[0], bounds[1]))
    return tuple(found)


def largest(size: Size) -> int:
    """Returns the most that a size can be, to which tasks are padded."""
    return size[1] if isinstance(size, tuple) else size


def check_inputs(inputs: Any, name: str = "inputs") -> ArrayLike:
    """Returns inputs as an array.

    Raises:
        TypeError: if they are in no container, or have several parts.
        ValueError: if they are not numbers of shape `[M, ...]`, or there are none.
    """
    inputs = as_array(inputs, name)
    if inputs.ndim < 1 or inputs.size == 0:
        raise ValueError(f"{name} must be a non-empty [M, ...], got shape {inputs.shape}")
    if inputs.dtype.kind == "U":
        raise ValueError(f"{name} must be numbers, got {inputs.dtype}: {advice_on_text(inputs)}")
    if not (jnp.issubdtype(inputs.dtype, jnp.number) or inputs.dtype == np.bool_):
        raise ValueError(f"{name} must be numbers, got {inputs.dtype}")
    return inputs


def check_examples(inputs: Any, labels: Any) -> tuple[ArrayLike, np.ndarray]:
    """Returns inputs and labels as arrays.

    Args:
        inputs: container of the examples, or `Examples` or a `MetaDataset`, which have labels of their own.
        labels: container of integers or strings, or `None` with these.

    Raises:
        TypeError: if one of them is no container, the labels are neither integers nor strings, or they are missing.
        ValueError: if they do not match, or the inputs are not numbers.
    """
    if isinstance(inputs, Examples):
        if labels is not None:
            raise TypeError("labels must not be given with Examples, which have their own")
        inputs, labels = inputs.inputs, np.array(inputs.names)[inputs.labels]
    elif labels is None and hasattr(inputs, "named_targets"):
        inputs, labels = inputs.take_all(), inputs.named_targets
    elif labels is None:
        columns = list(inputs) if isinstance(inputs, Mapping) else getattr(inputs, "column_names", None)
        hint = f": pass its columns of inputs and of labels, among {columns}" if columns else ""
        raise TypeError(f"labels must be given, one for each example{hint}")
    inputs, labels = check_inputs(inputs), as_labels(labels)
    if inputs.shape[0] != labels.shape[0]:
        raise ValueError(f"labels must match inputs: got {labels.shape[0]} labels for {inputs.shape[0]} inputs")
    return inputs, labels


def check_enough(sizes: TaskSizes, counts: np.ndarray, names: np.ndarray, rotations: int = 1) -> None:
    """Checks that the data has enough classes and examples for a task.

    Args:
        sizes: sizes of a task.
        counts: number of examples of each class: `[classes]`.
        names: name of each class in error messages: `[classes]`.
        rotations: number of times that each class counts.

    Raises:
        ValueError: if there are too few classes, or a class has too few examples.
    """
    classes = rotations * len(counts)
    if largest(sizes.ways) > classes:
        raise ValueError(f"ways must be at most the number of classes, got ways={sizes.ways} for {classes} classes")
    small = np.flatnonzero(counts < (1 if sizes.replacement else sum(map(largest, sizes.per_class))))
    if small.size:
        found = [f"{sizes.of} {names[i]} has {counts[i]} examples" for i in small[:_NAMED]]
        rest = [f"{small.size - _NAMED} other classes have too few"] if small.size > _NAMED else []
        raise ValueError(
            f"{sizes.name} must be at most the size of the smallest {sizes.of}, "
            f"got {' + '.join(map(str, sizes.per_class))}, but {', '.join([*found, *rest])}"
        )
