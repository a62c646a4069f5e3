"""Learned linear maps along one axis of a tensor: what the factored transformations are made of."""

from typing import Any

import jax
import jax.numpy as jnp


def identity(size: int, dtype: Any, max_size: int | None) -> jax.Array:
    """The identity on an axis: a matrix `[size, size]`, or its diagonal `[size]` where `size` exceeds `max_size`."""
    return jnp.ones(size, dtype) if max_size is not None and size > max_size else jnp.eye(size, dtype=dtype)


def multiply(factor: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    """The mode product of `x: [..., n, ...]` with `factor: [n, n]`, or with a diagonal `[n]`, along `axis`.

    `y[..., i, ...] = sum_j factor[i, j] * x[..., j, ...]`.
    """
    axis = axis % x.ndim
    if factor.ndim == 1:
        return x * factor.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return jnp.moveaxis(jnp.tensordot(factor, x, (1, axis)), 0, axis)
