"""Observers of an inner loop: optax transformations that leave its updates alone, and keep values in their state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._types import PyTree


class _Sum(NamedTuple):
    """State of `sum_values`."""

    step: jax.Array
    """Number of updates so far."""
    total: jax.Array
    """Weighted sum of the values so far."""


def sum_values(value_of: Callable[[PyTree], jax.Array], weights: Any) -> optax.GradientTransformation:
    """Leaves updates alone, and sums `weights[i] * value_of(params)` after each step `i` but the last in its state.

    The parameters after a step are those before the next one.
    """
    weights = jnp.roll(weights, 1).at[0].set(0)

    def init(params: PyTree) -> Any:
        return _Sum(jnp.zeros([], jnp.int32), jnp.zeros([], jax.eval_shape(value_of, params).dtype))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        weight = weights[state.step].astype(state.total.dtype)
        # With a checkpoint, a value keeps nothing but the parameters for its derivative.
        value = jax.lax.cond(weight != 0, jax.checkpoint(value_of), lambda _: jnp.zeros_like(state.total), params)
        return updates, _Sum(state.step + 1, state.total + weight * value)

    return optax.GradientTransformation(init, update)


class _Record(NamedTuple):
    """State of `record_values`."""

    step: jax.Array
    """Number of updates so far."""
    values: PyTree
    """Values before each update, `[steps]` each."""


def record_values(values_of: Callable[[PyTree], PyTree], steps: int) -> optax.GradientTransformation:
    """Leaves updates alone, and keeps `values_of(params)` of the parameters before each of them in its state."""

    def init(params: PyTree) -> Any:
        shapes = jax.eval_shape(values_of, params)
        return _Record(jnp.zeros([], jnp.int32), jax.tree.map(lambda x: jnp.zeros(steps, x.dtype), shapes))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        kept = jax.tree.map(lambda x, value: x.at[state.step].set(value), state.values, values_of(params))
        return updates, _Record(state.step + 1, kept)

    return optax.GradientTransformation(init, update)
