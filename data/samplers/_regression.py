"""Functions that the families of regression tasks share."""

import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxmeta._types import Batch, Task

Range: TypeAlias = tuple[float, float]
"""The lowest and the highest value of a uniform distribution."""


def check_ranges(**ranges: Range) -> None:
    """Checks that each argument is a pair `(low, high)` of finite numbers. Tracers are not compared.

    Raises:
        ValueError: if it is not, or `low` is greater than `high`.
    """
    for name, bounds in ranges.items():
        if len(bounds) == 2 and any(isinstance(bound, Tracer) for bound in bounds):
            continue
        if len(bounds) != 2 or not -math.inf < bounds[0] <= bounds[1] < math.inf:
            raise ValueError(f"{name} must be a pair (low, high) with low <= high, got {bounds!r}")


def uniform(key: jax.Array, bounds: Range, shape: tuple[int, ...] = ()) -> jax.Array:
    """Draws uniform numbers from a range."""
    return jax.random.uniform(key, shape, minval=bounds[0], maxval=bounds[1])


def add_noise(key: jax.Array, y: jax.Array, noise: float | jax.Array) -> jax.Array:
    """Adds normal noise with the standard deviation `noise` to targets."""
    if isinstance(noise, float | int) and noise == 0:
        return y
    return y + noise * jax.random.normal(key, y.shape)


def regression_task(x: jax.Array, y: jax.Array, shots: int) -> Task:
    """Returns a task of inputs and targets, the first `shots` of them for support."""
    return Task(support=Batch(x[:shots], y[:shots]), query=Batch(x[shots:], y[shots:]))


def one_input() -> jax.Array:
    """Returns one input of zeros, for `model.init`: `[1, 1]`."""
    return jnp.zeros((1, 1))
