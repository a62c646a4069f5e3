"""Running statistics of observations and rewards, as part of a learner's state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta._types import PyTree
from jaxmeta.display import short_repr


class Moments(NamedTuple):
    """Mean and variance of all numbers seen so far, for each entry of a pytree."""

    number: jax.Array
    """Number of examples, `[]`."""
    mean: PyTree
    """Their mean."""
    variance: PyTree
    """Their variance, 1 before the first example."""

    __repr__ = short_repr


def empty_moments(example: PyTree) -> Moments:
    """Returns the statistics of no examples, each of which has the shapes of `example`."""
    mean = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x)), example)
    return Moments(jnp.zeros(()), mean, jax.tree.map(jnp.ones_like, mean))


def add_moments(moments: Moments, xs: PyTree, valid: jax.Array) -> Moments:
    """Adds the examples `xs: [..., *shape]` of which `valid: [...]` count.

    The two groups are joined by the formula of Chan, Golub & LeVeque (1983), which does not subtract large squares.
    """
    new = jnp.sum(valid).astype(moments.number.dtype)
    count = moments.number + new
    share = new / jnp.maximum(count, 1)

    def join(mean: jax.Array, variance: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        axes = tuple(range(valid.ndim))
        counts = valid.reshape(*valid.shape, *[1] * (x.ndim - valid.ndim))
        seen = jnp.maximum(new, 1)
        here = jnp.sum(jnp.where(counts, x, 0), axis=axes) / seen
        spread = jnp.where(counts, x - jnp.broadcast_to(here, x.shape), 0)
        offset = here - mean
        both = (1 - share) * variance + share * jnp.sum(spread**2, axis=axes) / seen + share * (1 - share) * offset**2
        return mean + share * offset, jnp.where(count > 0, both, variance)

    joined = jax.tree.map(join, moments.mean, moments.variance, jax.lax.stop_gradient(xs))
    outer, inner = jax.tree.structure(moments.mean), jax.tree.structure((0, 0))
    mean, variance = jax.tree.transpose(outer, inner, joined)
    return jax.tree.map(lambda new, old: new.astype(old.dtype), Moments(count, mean, variance), moments)


def standardize(moments: Moments, xs: PyTree) -> PyTree:
    """Scales examples `[..., *shape]` to mean 0 and variance 1, and clips them to [-10, 10]."""

    def scale(mean: jax.Array, variance: jax.Array, x: Any) -> jax.Array:
        deviation = jnp.sqrt(jnp.maximum(variance, 1e-8))
        mean, deviation = (jnp.broadcast_to(a, x.shape) for a in (mean, deviation))
        return jnp.clip((x - mean) / deviation, -10, 10)

    return jax.tree.map(scale, moments.mean, moments.variance, xs)
