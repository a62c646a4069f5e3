"""Learned learning rates (Li et al. 2017, Meta-SGD, https://arxiv.org/abs/1707.09835)."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._learned import Learned
from jaxmeta._types import PyTree


class LearnedRateState(NamedTuple):
    """State of `scale_by_learned_rate`."""

    rate: Learned
    """One rate per weight: shaped like the parameters."""


def scale_by_learned_rate(learning_rate: float = 0.1) -> optax.GradientTransformation:
    """Multiplies the gradient of every weight by minus a learned rate of its own.

    It ends a chain, as `optax.scale_by_learning_rate` does: it turns a gradient into a descent step.

    Args:
        learning_rate: where every rate starts, in units of step per gradient.

    Returns:
        A transformation whose state holds the rates as `Learned`.

    Raises:
        ValueError: if `learning_rate` is not a finite number.

    Example:
        >>> transform = scale_by_learned_rate(0.5)
        >>> weights = jnp.array([1.0, 2.0])
        >>> updates, _ = transform.update(jnp.array([2.0, 4.0]), transform.init(weights))
        >>> updates.tolist()
        [-1.0, -2.0]

    References:
        Li et al., *Meta-SGD: Learning to Learn Quickly for Few-Shot Learning*, 2017, https://arxiv.org/abs/1707.09835
    """
    if not math.isfinite(learning_rate):
        raise ValueError(f"learning_rate must be a finite number, got {learning_rate!r}")

    def init(params: PyTree) -> Any:
        return LearnedRateState(Learned(jax.tree.map(lambda p: jnp.full_like(p, learning_rate), params)))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        del params
        return jax.tree.map(lambda u, rate: -rate * u, updates, state.rate.value), state

    return optax.GradientTransformation(init, update)
