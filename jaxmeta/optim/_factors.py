"""Learned linear maps along one axis of a tensor, for the factored transformations."""

from typing import Any

import jax
import jax.numpy as jnp


def identity(size: int, dtype: Any, max_size: int | None) -> jax.Array:
    """Returns the identity matrix `[size, size]`, or its diagonal `[size]` if `size` exceeds `max_size`."""
    return jnp.ones(size, dtype) if max_size is not None and size > max_size else jnp.eye(size, dtype=dtype)


def multiply(factor: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    """Returns the mode product of `x: [..., n, ...]` and `factor: [n, n]`, or a diagonal `[n]`, along `axis`.

    The result is `y[..., i, ...] = sum_j factor[i, j] * x[..., j, ...]`.
    """
    axis = axis % x.ndim
    if factor.ndim == 1:
        return x * factor.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return jnp.moveaxis(jnp.tensordot(factor, x, (1, axis)), 0, axis)
