"""What the families of regression tasks share."""

import math

import jax
import jax.numpy as jnp

from jaxmeta._types import Batch, Task


def check_ranges(**ranges: tuple[float, float]) -> None:
    """Raise ValueError unless each argument is a pair (low, high) of finite numbers with low <= high."""
    for name, bounds in ranges.items():
        if len(bounds) != 2 or not -math.inf < bounds[0] <= bounds[1] < math.inf:
            raise ValueError(f"{name} must be a pair (low, high) with low <= high, got {bounds!r}")


def check_noise(noise: float) -> None:
    """Raise ValueError unless the standard deviation of the noise is a number of at least 0."""
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise must be a number of at least 0, got {noise!r}")


def uniform(key: jax.Array, bounds: tuple[float, float], shape: tuple[int, ...] = ()) -> jax.Array:
    """Draw uniform numbers from a range."""
    return jax.random.uniform(key, shape, minval=bounds[0], maxval=bounds[1])


def add_noise(key: jax.Array, y: jax.Array, noise: float) -> jax.Array:
    """Return targets with normal noise of a standard deviation; as they are if it is 0."""
    return y + noise * jax.random.normal(key, y.shape) if noise else y


def regression_task(x: jax.Array, y: jax.Array, shots: int) -> Task:
    """Return a task of inputs and targets, the first `shots` of them for support."""
    return Task(support=Batch(x[:shots], y[:shots]), query=Batch(x[shots:], y[shots:]))


def one_input() -> jax.Array:
    """Return one input of zeros, for `model.init`: `[1, 1]`."""
    return jnp.zeros((1, 1))
