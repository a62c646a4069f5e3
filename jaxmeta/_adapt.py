"""The one inner loop: gradient steps of any optax transformation on a task's support set."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_integer, check_meta_gradient, check_transformation
from jaxmeta._learned import combine
from jaxmeta._types import LossFn, Metrics, PyTree, check_key
from jaxmeta._variables import merge, split
from jaxmeta.display import brief
from jaxmeta.losses import checked_loss
from jaxmeta.meta_gradients import MetaGradient, Unrolled, reverse


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
        params: where to start, any variables of a model (see `jaxmeta.split`). What is only carried does not change.
        batch: handed to `loss_fn` in every step.
        key: split over the steps.
        steps: how many. With 0, `params` come back.
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
    check_integer(least=0, steps=steps)
    check_key(key)
    xs = jax.random.split(key, steps)
    return unroll(loss_fn, inner, params, batch, xs, learned=learned, meta_gradient=meta_gradient).params


def unroll(
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    params: PyTree,
    batch: Any,
    xs: PyTree,
    *,
    state: PyTree = None,
    learned: PyTree = None,
    meta_gradient: MetaGradient | None = None,
) -> Unrolled:
    """The inner loop in full: `adapt` with the steps' losses, the optimizer's state and something for each step.

    The result is differentiable in everything that goes in. With the `state` of one call a next one goes on, so a long
    loop can be run, and differentiated, in windows.

    Args:
        loss_fn: step `i` minimizes `loss_fn(params, batch, xs[i])`, which returns `(scalar, metrics)`.
        inner: see `adapt`.
        params: see `adapt`.
        batch: what all steps share, `None` for nothing.
        xs: one entry per step, leading axis `[steps]`: the steps' keys, `jax.random.split(key, steps)`, or minibatches,
            or both in a tuple.
        state: the optimizer's state to start with; `inner.init(params)` if `None`.
        learned: see `adapt`; it takes the place of the learned part of `state`.
        meta_gradient: see `adapt`.

    Returns:
        The adapted parameters, the optimizer's last state and the loss before each step.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> def loss_fn(w, batch, target):
        ...     return 0.5 * (w - target) ** 2, {}
        >>> end = unroll(loss_fn, optax.sgd(0.5), jnp.array(0.0), None, jnp.array([1.0, 2.0]))
        >>> float(end.params), end.losses.tolist()
        (1.25, [0.5, 1.125])
    """
    check_transformation(inner=inner)
    check_meta_gradient(meta_gradient)
    loss_fn = checked_loss(loss_fn)
    meta_gradient = reverse() if meta_gradient is None else meta_gradient
    trained, carried = split(params)
    state = combine(learned, inner.init(trained) if state is None else state)

    if not all(jnp.ndim(leaf) for leaf in jax.tree.leaves(xs)):
        raise TypeError(f"xs must have one entry per step, such as jax.random.split(key, steps), got {brief(xs)}")
    if not jax.tree.leaves(xs)[0].shape[0]:
        return Unrolled(params, state, jnp.zeros(0))

    def loss_of_trained(trained: PyTree, batch: Any, x: Any) -> tuple[jax.Array, Metrics]:
        return loss_fn(merge(trained, carried), batch, x)

    end = meta_gradient.unroll(loss_of_trained, inner, trained, state, batch, xs)
    return end._replace(params=merge(end.params, carried))


def check_through_loss(meta_gradient: MetaGradient | None) -> None:
    """Raises ValueError if a `MetaGradient` has no derivative for what the inner loss depends on."""
    check_meta_gradient(meta_gradient)
    if meta_gradient is not None and meta_gradient.inner_constant:
        raise ValueError(
            "meta_gradient must have a derivative through the inner gradients here, as reverse(), mixed() and "
            "truncated(1) have, and first_order() and truncated(0) have not: the inner loss would never learn"
        )
