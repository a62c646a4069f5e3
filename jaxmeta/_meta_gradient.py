"""The ways to obtain a meta-gradient: one argument that every learner with an inner loop takes.

A `MetaGradient` says how the inner loop is run, and how the derivative of what follows it is taken. `reverse` and
`mixed` are exact and differ in memory and time; `first_order` and `truncated` drop the derivative of some or all inner
gradients. `implicit` and `evolution` are in files of their own.
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


def _unroll(
    value_and_grad: ValueAndGrad,
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    params: PyTree,
    state: optax.OptState,
    batch: Any,
    xs: PyTree,
    remat: bool | int = False,
) -> Unrolled:
    """Runs the inner loop, given how the inner gradient is made; see `MetaGradient.unroll` for the other arguments.

    `remat` recomputes each step in the backward pass; a number also keeps the parameters of every so many steps only.
    """
    update = optax.with_extra_args_support(inner).update
    loss_and_grads = value_and_grad(loss_fn)

    def step(carry: tuple[PyTree, optax.OptState], x: Any) -> tuple[tuple[PyTree, optax.OptState], jax.Array]:
        params, state = carry
        loss, grads = loss_and_grads(params, batch, x)
        updates, state = update(grads, state, params, value=loss)
        return (optax.apply_updates(params, updates), state), loss

    body = jax.checkpoint(step) if remat else step
    steps = jax.tree.leaves(xs)[0].shape[0]
    if steps == 1:
        # In a scan `vmap` would copy the initial parameters, which tasks share, for each of them.
        (params, state), loss = body((params, state), jax.tree.map(lambda x: x[0], xs))
        return Unrolled(params, state, loss[None])
    scan = partial(jax.lax.scan, body)
    if isinstance(remat, bool):
        (params, state), losses = scan((params, state), xs)
        return Unrolled(params, state, losses)

    # Checkpoints of checkpoints: whole segments of `remat` steps, then what is left over.
    whole = steps - steps % remat
    segments = jax.tree.map(lambda x: x[:whole].reshape(whole // remat, remat, *x.shape[1:]), xs)
    rest = jax.tree.map(lambda x: x[whole:], xs)
    carry, losses = jax.lax.scan(jax.checkpoint(scan), (params, state), segments)
    (params, state), last = scan(carry, rest)
    return Unrolled(params, state, jnp.concatenate([losses.reshape(-1), last]))


def _by_autodiff(value_and_grad: ValueAndGrad, remat: bool | int = False) -> MetaGradient:
    _check_remat(remat)
    return MetaGradient(partial(_unroll, value_and_grad, remat=remat), partial(jax.value_and_grad, has_aux=True))


def _check_remat(remat: bool | int) -> None:
    if not isinstance(remat, bool) and remat < 1:
        raise ValueError(f"remat must be a bool or a number of steps of at least 1, got {remat}")


def reverse(*, remat: bool | int = False) -> MetaGradient:
    """Plain reverse mode through the unrolled inner loop: exact, memory grows with the number of steps.

    Args:
        remat: recompute each inner step in the backward pass instead of storing its intermediate values; memory then
            grows by one copy of the parameters per step, for about a third more work. A number `n` nests this: only
            every `n`-th copy is kept, and memory is least for `n` near the square root of the number of steps.

    Returns:
        A `MetaGradient`.

    Raises:
        ValueError: if `remat` is a number less than 1.
    """
    return _by_autodiff(_reverse_value_and_grad, remat)


def first_order() -> MetaGradient:
    """Treats the inner gradients as constants: first-order MAML (Finn et al. 2017, https://arxiv.org/abs/1703.03400).

    The derivative with respect to the inner optimizer's own learned values (a learned rate, say) is kept.

    Returns:
        A `MetaGradient`: biased, about half the time of an exact one, memory independent of the number of steps.
    """
    return _by_autodiff(_constant_value_and_grad)


def truncated(steps: int, *, remat: bool | int = False) -> MetaGradient:
    """Differentiates through the last inner steps only; earlier inner gradients are constants.

    `truncated(0)` is `first_order()`, and `truncated(n)` for `n` inner steps or more is `reverse()`.

    Args:
        steps: through how many of the last steps to differentiate.
        remat: see `reverse`.

    Returns:
        A `MetaGradient`: biased, memory independent of the number of earlier steps.

    Raises:
        ValueError: if `steps` is negative, or `remat` a number less than 1.

    References:
        Shaban, Cheng, Hatch & Boots, *Truncated Back-propagation for Bilevel Optimization*, 2019,
        https://arxiv.org/abs/1810.10667
    """
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    _check_remat(remat)

    def run(
        loss_fn: LossFn,
        inner: optax.GradientTransformation,
        params: PyTree,
        state: optax.OptState,
        batch: Any,
        xs: PyTree,
    ) -> Unrolled:
        cut = max(0, jax.tree.leaves(xs)[0].shape[0] - steps)
        early, late = (jax.tree.map(lambda x, part=part: x[part], xs) for part in (slice(cut), slice(cut, None)))
        first = _unroll(_constant_value_and_grad, loss_fn, inner, params, state, batch, early)
        last = _unroll(_reverse_value_and_grad, loss_fn, inner, first.params, first.state, batch, late, remat)
        return last._replace(losses=jnp.concatenate([first.losses, last.losses]))

    return MetaGradient(run, partial(jax.value_and_grad, has_aux=True))


def _reverse_value_and_grad(loss_fn: LossFn) -> Callable[[PyTree, Any, Any], tuple[jax.Array, PyTree]]:
    def apply(params: PyTree, batch: Any, x: Any) -> tuple[jax.Array, PyTree]:
        (loss, _), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, batch, x)
        return loss, grads

    return apply


def _constant_value_and_grad(loss_fn: LossFn) -> Callable[[PyTree, Any, Any], tuple[jax.Array, PyTree]]:
    def apply(params: PyTree, batch: Any, x: Any) -> tuple[jax.Array, PyTree]:
        # Stopping the parameters too spares the trace of a derivative that is dropped.
        (loss, _), grads = jax.value_and_grad(loss_fn, has_aux=True)(jax.lax.stop_gradient(params), batch, x)
        return jax.lax.stop_gradient((loss, grads))

    return apply


def mixed(*, remat: bool | int = False) -> MetaGradient:
    """Forward over reverse: exact, and the leanest exact choice in memory; deep models gain the most.

    The Hessian is symmetric, so the vector-Jacobian product of an inner gradient is a Jacobian-vector product of it:
    each inner step stores its parameters and nothing of its backward pass. Values that `loss_fn` closes over are
    differentiated too. The loss must support forward mode: functions with a `jax.custom_vjp` only (some fused
    attention kernels) need `reverse`.

    Args:
        remat: also recompute the inner optimizer's update in the backward pass, see `reverse`.

    Returns:
        A `MetaGradient`.

    Raises:
        ValueError: if `remat` is a number less than 1.

    References:
        Kemaev et al., *Scalable Meta-Learning via Mixed-Mode Differentiation*, 2025, https://arxiv.org/abs/2505.00793
    """
    return _by_autodiff(_mixed_value_and_grad, remat)


def explicit_arguments(
    loss_fn: LossFn, params: PyTree, batch: Any, x: Any
) -> tuple[Callable[..., jax.Array], tuple[jax.Array, ...]]:
    """The loss as a function `(params, *rest) -> scalar` of all that it depends on, and that `rest`.

    What `loss_fn` closes over becomes an argument too: a custom derivative sees arguments only.
    """
    leaves, structure = jax.tree.flatten((batch, x))

    def scalar_loss(params: PyTree, *leaves: jax.Array) -> jax.Array:
        batch, x = structure.unflatten(leaves)
        return loss_fn(params, batch, x)[0]

    loss, closed_over = jax.closure_convert(scalar_loss, params, *leaves)
    return loss, (*leaves, *closed_over)


def _mixed_value_and_grad(loss_fn: LossFn) -> Callable[[PyTree, Any, Any], tuple[jax.Array, PyTree]]:
    """`jax.value_and_grad` of the first argument whose own reverse-mode derivative is a forward-mode one."""

    def apply(params: PyTree, batch: Any, x: Any) -> tuple[jax.Array, PyTree]:
        loss, rest = explicit_arguments(loss_fn, params, batch, x)
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
