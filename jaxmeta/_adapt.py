"""The one inner loop: gradient steps of any optax transformation on a task's support set."""

from typing import Any

import jax
import optax

from jaxmeta._learned import combine
from jaxmeta._meta_gradient import MetaGradient, reverse
from jaxmeta._types import LossFn, PyTree


def adapt(
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    params: PyTree,
    batch: Any,
    key: jax.Array,
    *,
    steps: int,
    learned: PyTree = None,
    meta_gradient: MetaGradient | None = None,
) -> PyTree:
    """Takes `steps` steps of `inner` on `loss_fn(params, batch, key)`, differentiably.

    Args:
        loss_fn: `(params, batch, key) -> (scalar, metrics)`.
        inner: any optax transformation. Second order through a square root (`optax.adam`) needs `eps_root > 0`.
        params: where to start; any pytree of float arrays.
        batch: handed to `loss_fn` in every step.
        key: split over the steps.
        steps: how many, at least 1.
        learned: the learned part of the initial optimizer state (`MetaParams.learned`); `None` keeps what `inner.init`
            gives.
        meta_gradient: how derivatives go through the loop; `reverse()` if `None`.

    Returns:
        The adapted parameters, shaped like `params`.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> def loss_fn(w, target, key):
        ...     return 0.5 * (w - target) ** 2, {}
        >>> w = adapt(loss_fn, optax.sgd(0.5), jnp.array(0.0), 1.0, jax.random.key(0), steps=2)
        >>> float(w)
        0.75
    """
    meta_gradient = reverse() if meta_gradient is None else meta_gradient
    state = combine(learned, inner.init(params))
    return meta_gradient.unroll(loss_fn, inner, params, state, batch, jax.random.split(key, steps)).params
