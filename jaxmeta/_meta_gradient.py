"""The ways to obtain a meta-gradient: one argument that every learner with an inner loop takes.

A `MetaGradient` says how the inner loop is run, and how the derivative of what follows it is taken. `reverse` and
`mixed` are exact and differ in memory and time; `first_order` drops the derivative of the inner gradients.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._types import LossFn, Metrics, PyTree

Objective = Callable[[PyTree, jax.Array], tuple[jax.Array, Metrics]]


class Unrolled(NamedTuple):
    """The end of an inner loop."""

    params: PyTree
    """The adapted parameters."""
    state: optax.OptState
    """The inner optimizer's last state."""
    losses: jax.Array
    """The loss before each step, `[steps]`."""


class MetaGradient(NamedTuple):
    """How a meta-gradient is computed, as two pure functions."""

    unroll: Callable[[LossFn, optax.GradientTransformation, PyTree, optax.OptState, Any, PyTree], Unrolled]
    """`(loss_fn, inner, params, state, batch, xs) -> Unrolled`: the inner loop. `xs` holds one entry per step (leading
    axis `[steps]`), and step `i` minimises `loss_fn(params, batch, xs[i])`; usually `xs` are the steps' keys."""
    value_and_grad: Callable[[Objective], Callable[[PyTree, jax.Array], tuple[tuple[jax.Array, Metrics], PyTree]]]
    """Turns `(meta, key) -> (loss, metrics)` into `(meta, key) -> ((loss, metrics), gradient)`."""


ValueAndGrad = Callable[[LossFn], Callable[[PyTree, Any, Any], tuple[jax.Array, PyTree]]]


def _differentiated(value_and_grad: ValueAndGrad, remat: bool) -> MetaGradient:
    """A meta-gradient by automatic differentiation through the loop, given how the inner gradient is made."""

    def unroll(
        loss_fn: LossFn,
        inner: optax.GradientTransformation,
        params: PyTree,
        state: optax.OptState,
        batch: Any,
        xs: PyTree,
    ) -> Unrolled:
        update = optax.with_extra_args_support(inner).update
        loss_and_grads = value_and_grad(loss_fn)

        def step(carry: tuple[PyTree, optax.OptState], x: Any) -> tuple[tuple[PyTree, optax.OptState], jax.Array]:
            params, state = carry
            loss, grads = loss_and_grads(params, batch, x)
            updates, state = update(grads, state, params, value=loss)
            return (optax.apply_updates(params, updates), state), loss

        if remat:
            step = jax.checkpoint(step)
        (params, state), losses = jax.lax.scan(step, (params, state), xs)
        return Unrolled(params, state, losses)

    return MetaGradient(unroll, partial(jax.value_and_grad, has_aux=True))


def reverse(*, remat: bool = False) -> MetaGradient:
    """Plain reverse mode through the unrolled inner loop: exact, memory grows with the number of steps.

    Args:
        remat: recompute each inner step in the backward pass instead of storing its intermediate values; memory then
            grows by one copy of the parameters per step, for about a third more work.

    Returns:
        A `MetaGradient`.
    """

    def value_and_grad(loss_fn: LossFn) -> Callable[[PyTree, Any, Any], tuple[jax.Array, PyTree]]:
        def apply(params: PyTree, batch: Any, x: Any) -> tuple[jax.Array, PyTree]:
            (loss, _), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, batch, x)
            return loss, grads

        return apply

    return _differentiated(value_and_grad, remat)


def first_order() -> MetaGradient:
    """Treats the inner gradients as constants: first-order MAML (Finn et al. 2017, https://arxiv.org/abs/1703.03400).

    The derivative with respect to the inner optimizer's own learned values (a learned rate, say) is kept.

    Returns:
        A `MetaGradient`: biased, about half the time of an exact one, memory independent of the number of steps.
    """

    def value_and_grad(loss_fn: LossFn) -> Callable[[PyTree, Any, Any], tuple[jax.Array, PyTree]]:
        def apply(params: PyTree, batch: Any, x: Any) -> tuple[jax.Array, PyTree]:
            (loss, _), grads = jax.value_and_grad(loss_fn, has_aux=True)(jax.lax.stop_gradient(params), batch, x)
            return jax.lax.stop_gradient((loss, grads))

        return apply

    return _differentiated(value_and_grad, remat=False)


def mixed(*, remat: bool = False) -> MetaGradient:
    """Forward over reverse: exact, and the cheapest exact choice in memory and usually in time.

    The Hessian is symmetric, so the vector-Jacobian product of an inner gradient is a Jacobian-vector product of it:
    each inner step stores its parameters and nothing of its backward pass. Values that `loss_fn` closes over are
    differentiated too. The loss must support forward mode: functions with a `jax.custom_vjp` only (some fused
    attention kernels) need `reverse`.

    Args:
        remat: also recompute the inner optimizer's update in the backward pass.

    Returns:
        A `MetaGradient`.

    References:
        Kemaev et al., *Scalable Meta-Learning via Mixed-Mode Differentiation*, 2025, https://arxiv.org/abs/2505.00793
    """
    return _differentiated(_mixed_value_and_grad, remat)


def _mixed_value_and_grad(loss_fn: LossFn) -> Callable[[PyTree, Any, Any], tuple[jax.Array, PyTree]]:
    """`jax.value_and_grad` of the first argument whose own reverse-mode derivative is a forward-mode one."""

    def apply(params: PyTree, batch: Any, x: Any) -> tuple[jax.Array, PyTree]:
        leaves, structure = jax.tree.flatten((batch, x))

        def scalar_loss(params: PyTree, *leaves: jax.Array) -> jax.Array:
            batch, x = structure.unflatten(leaves)
            return loss_fn(params, batch, x)[0]

        # What the loss closes over becomes an explicit argument: a custom derivative sees arguments only.
        loss, closed_over = jax.closure_convert(scalar_loss, params, *leaves)
        rest = (*leaves, *closed_over)
        smooth = [i for i, leaf in enumerate(rest) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]

        @jax.custom_vjp
        def value_and_grad(params: PyTree, rest: Sequence[jax.Array]) -> tuple[jax.Array, PyTree]:
            return jax.value_and_grad(loss)(params, *rest)

        def forward(params: PyTree, rest: Sequence[jax.Array]) -> tuple[Any, Any]:
            return value_and_grad(params, rest), (params, rest)

        def backward(residuals: Any, cotangents: Any) -> tuple[PyTree, tuple[Any, ...]]:
            params, rest = residuals
            value_cotangent, grad_cotangent = cotangents

            def joint_grad(params: PyTree) -> tuple[PyTree, ...]:
                return jax.grad(loss, argnums=(0, *(i + 1 for i in smooth)))(params, *rest)

            grads, hessian_products = jax.jvp(joint_grad, (params,), (grad_cotangent,))
            total = jax.tree.map(lambda g, h: (value_cotangent * g + h).astype(h.dtype), grads, hessian_products)
            rest_cotangents: list[Any] = [None] * len(rest)
            for i, cotangent in zip(smooth, total[1:], strict=True):
                rest_cotangents[i] = cotangent
            return total[0], tuple(rest_cotangents)

        value_and_grad.defvjp(forward, backward)
        return value_and_grad(params, rest)

    return apply
