"""Checks of data that samplers and task transforms share."""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

ArrayLike: TypeAlias = np.ndarray | jax.Array


class TaskSizes(NamedTuple):
    """Number of classes of a task, and of examples of each class."""

    ways: int
    """Number of classes in a task."""
    per_class: tuple[int, ...]
    """Number of examples of each class: support, then query."""
    replacement: bool = False
    """True if an example may be drawn twice."""
    name: str = "shots + queries"
    """Name of `per_class` in error messages."""


def check_inputs(inputs: ArrayLike) -> ArrayLike:
    """Returns inputs as an array.

    Raises:
        ValueError: if they are not numbers of shape `[M, ...]`, or there are none.
    """
    inputs = inputs if isinstance(inputs, jax.Array) else np.asarray(inputs)
    if inputs.ndim < 1 or inputs.size == 0:
        raise ValueError(f"inputs must be a non-empty [M, ...], got shape {inputs.shape}")
    if not (jnp.issubdtype(inputs.dtype, jnp.number) or inputs.dtype == np.bool_):
        raise ValueError(f"inputs must be numbers, got {inputs.dtype}")
    return inputs


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
    if sizes.ways > classes:
        raise ValueError(f"ways must be at most the number of classes, got ways={sizes.ways} for {classes} classes")
    smallest = int(counts.argmin())
    if counts[smallest] < (1 if sizes.replacement else sum(sizes.per_class)):
        raise ValueError(
            f"{sizes.name} must be at most the size of the smallest class, "
            f"got {' + '.join(map(str, sizes.per_class))}, but class {names[smallest]} has {counts[smallest]} examples"
        )
