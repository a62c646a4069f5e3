"""Checks of arguments that samplers share."""

import operator
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

ArrayLike: TypeAlias = np.ndarray | jax.Array


def check_positive(**sizes: int) -> tuple[int, ...]:
    """Return the given sizes as a tuple of `int`; raise ValueError for one that is not a positive integer."""
    for name, size in sizes.items():
        try:
            positive = operator.index(size) >= 1
        except TypeError:
            positive = False
        if not positive:
            raise ValueError(f"{name} must be a positive integer, got {size!r}")
    return tuple(operator.index(size) for size in sizes.values())


def check_inputs(inputs: ArrayLike) -> ArrayLike:
    """Return inputs as an array; raise ValueError unless they are a non-empty `[M, ...]` of numbers."""
    inputs = inputs if isinstance(inputs, jax.Array) else np.asarray(inputs)
    if inputs.ndim < 1 or inputs.size == 0:
        raise ValueError(f"inputs must be a non-empty [M, ...], got shape {inputs.shape}")
    if not (jnp.issubdtype(inputs.dtype, jnp.number) or inputs.dtype == np.bool_):
        raise ValueError(f"inputs must be numbers, got {inputs.dtype}")
    return inputs


class Request(NamedTuple):
    """What a task takes of the data."""

    ways: int
    """Classes in a task."""
    sizes: tuple[int, ...]
    """Examples of each class: support, then query."""
    replacement: bool = False
    """Whether an example may come twice."""
    name: str = "shots + queries"
    """What the user calls `sizes`."""


def check_enough(request: Request, counts: np.ndarray, names: np.ndarray, rotations: int = 1) -> None:
    """Raise ValueError unless the data has classes and examples enough.

    Args:
        request: What a task takes.
        counts: Number of examples of each class: `[classes]`.
        names: What to call each class in a message: `[classes]`.
        rotations: How often each class counts.
    """
    classes = rotations * len(counts)
    if request.ways > classes:
        raise ValueError(f"ways must be at most the number of classes, got ways={request.ways} for {classes} classes")
    smallest = int(counts.argmin())
    if counts[smallest] < (1 if request.replacement else sum(request.sizes)):
        raise ValueError(
            f"{request.name} must be at most the size of the smallest class, "
            f"got {' + '.join(map(str, request.sizes))}, but class {names[smallest]} has {counts[smallest]} examples"
        )
