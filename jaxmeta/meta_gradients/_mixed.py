"""Forward over reverse (Kemaev et al. 2025, https://arxiv.org/abs/2505.00793)."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta._types import LossFn, PyTree
from jaxmeta.display import described
from jaxmeta.meta_gradients._unrolling import MetaGradient, by_autodiff, explicit_arguments


@described
def mixed(*, remat: bool | int = False) -> MetaGradient:
    """Forward over reverse: exact, and usually leaner in memory than `reverse`; deep models gain the most.

    The Hessian is symmetric, so the vector-Jacobian product of an inner gradient is a Jacobian-vector product of it:
    each inner step stores its parameters and nothing of its backward pass. Where the parameters are larger than the
    activations (wide layers, few examples), `reverse` can need less, so compare them with `jaxmeta.cost`. Values that
    `loss_fn` closes over are differentiated too. The loss must support forward mode: functions with a `jax.custom_vjp`
    only (some fused attention kernels) need `reverse`.

    Args:
        remat: also recompute the inner optimizer's update in the backward pass, see `reverse`.

    Returns:
        A `MetaGradient`.

    Raises:
        ValueError: if `remat` is a number less than 1.

    References:
        Kemaev et al., *Scalable Meta-Learning via Mixed-Mode Differentiation*, 2025, https://arxiv.org/abs/2505.00793
    """
    return by_autodiff(_mixed_value_and_grad, remat)


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
