"""Scalable meta-gradients of the last inner step: SAMA (Choe et al. 2023, https://arxiv.org/abs/2310.05674)."""

from functools import partial
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_positive
from jaxmeta._learned import no_value_fn, update_with
from jaxmeta._types import LossFn, PyTree
from jaxmeta.display import described
from jaxmeta.meta_gradients._explicit import explicit_closure
from jaxmeta.meta_gradients._reverse import reverse
from jaxmeta.meta_gradients._unrolling import MetaGradient, Unrolled, explicit_arguments


@described
def sama(scale: float = 0.01) -> MetaGradient:
    """SAMA: the derivative of the last inner step by first derivatives alone, for hyper-parameters of the inner loss.

    Where the inner loop ends, the inverse Hessian of the implicit function theorem is replaced by the identity, and the
    optimizer's step by its Jacobian. With the parameters `theta` before the last step, its gradient `g`, the update
    `u(g)` and the outer loss `L_out`, the derivative of the inner loss `L_in` is a central difference::

        v = (du / dg)^T dL_out / dtheta
        eps = scale / |v|
        dL_out / dlambda = [dL_in / dlambda (theta + eps v) - dL_in / dlambda (theta - eps v)] / (2 eps)

    This is the derivative of one step from constant parameters, up to an error of order `eps^2`. It costs three
    gradients of the inner loss, whatever the number of steps, and no second derivative. It is meant for an inner loop
    that goes on where it stood, as in `jaxmeta.bilevel`.

    Args:
        scale: length of the difference, the paper's `alpha` (default: 0.01).

    Returns:
        A `MetaGradient`: biased, because it sees one step. The initial parameters and what the inner optimizer learns
        have no derivative. The paper also moves the parameters along `v` after each outer update, which is left out.

    Raises:
        ValueError: if `scale` is not a positive number.
        TypeError: from the derivative, if the initial parameters depend on what is learned, as in MAML.

    Example:
        >>> import jaxmeta
        >>> def outer_loss(pull, w):  # one step of rate 0.1 on pull w^2 / 2, so the derivative is -0.1 w_before w_after
        ...     inner_loss = lambda w, batch, key: (0.5 * pull * w**2, {})
        ...     w = jaxmeta.adapt(inner_loss, optax.sgd(0.1), w, None, jax.random.key(0), steps=1, meta_gradient=sama())
        ...     return 0.5 * w**2
        >>> round(float(jax.grad(outer_loss)(1.0, 2.0)), 3)
        -0.36

    References:
        Choe, Mehta, Ahn, Neiswanger, Xie, Strubell & Xing, *Making Scalable Meta Learning Practical*, NeurIPS 2023,
        https://arxiv.org/abs/2310.05674
    """
    check_positive(scale=scale)
    return MetaGradient(partial(_unroll, scale), partial(jax.value_and_grad, has_aux=True), end_only=True)


def _unroll(
    scale: float,
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    params: PyTree,
    state: optax.OptState,
    batch: Any,
    xs: PyTree,
) -> Unrolled:
    params = jax.lax.stop_gradient(_constant_start(params))
    early = jax.tree.map(lambda x: x[:-1], xs)
    last = jax.tree.map(lambda x: x[-1:], xs)
    run = reverse().unroll
    before = jax.lax.stop_gradient(run(loss_fn, inner, params, jax.lax.stop_gradient(state), batch, early))
    end = jax.lax.stop_gradient(run(loss_fn, inner, before.params, before.state, batch, last))
    loss, hyper = explicit_arguments(loss_fn, before.params, batch, jax.tree.map(lambda x: x[0], last))

    def step(grads: PyTree, params: PyTree, state: optax.OptState, value: jax.Array) -> PyTree:
        return update_with(inner, grads, state, params, value=value, value_fn=no_value_fn("sama"))[0]

    explicit_step, constants = explicit_closure(step, before.params, before.params, before.state, end.losses[0])
    smooth = tuple(i for i, x in enumerate(hyper) if jnp.issubdtype(x.dtype, jnp.floating))

    @jax.custom_vjp
    def attach(end: PyTree, hyper: tuple[jax.Array, ...], rest: Any) -> PyTree:
        return end

    def forward_pass(end: PyTree, hyper: tuple[jax.Array, ...], rest: Any) -> tuple[PyTree, Any]:
        return end, (hyper, rest)

    def backward_pass(residuals: Any, cotangent: PyTree) -> tuple[None, tuple[Any, ...], None]:
        hyper, (constants, params, state) = residuals
        value, grads = jax.value_and_grad(loss)(params, *hyper)
        _, pull_back = jax.vjp(lambda grads: explicit_step(constants, grads, params, state, value), grads)
        (direction,) = pull_back(cotangent)
        norm = optax.tree.norm(direction)
        epsilon = scale / jnp.where(norm > 0, norm, 1)

        def hyper_grads(sign: float) -> tuple[jax.Array, ...]:
            moved = jax.tree.map(lambda p, d: p + (sign * epsilon * d).astype(p.dtype), params, direction)
            return jax.grad(loss, argnums=tuple(i + 1 for i in smooth))(moved, *hyper)

        cotangents: list[Any] = [None] * len(hyper)
        for i, more, less in zip(smooth, hyper_grads(1.0), hyper_grads(-1.0), strict=True):
            cotangents[i] = ((more - less) / (2 * epsilon)).astype(more.dtype)
        return None, tuple(cotangents), None

    attach.defvjp(forward_pass, backward_pass)
    attached = attach(end.params, hyper, (constants, before.params, before.state))
    return end._replace(params=attached, losses=jnp.concatenate([before.losses, end.losses]))


@partial(jax.custom_jvp)
def _constant_start(params: PyTree) -> PyTree:
    return params


@partial(_constant_start.defjvp, symbolic_zeros=True)
def _raise(primals: Any, tangents: Any) -> NoReturn:
    raise TypeError(
        "meta_gradient=sama() has no derivative for the initial parameters of the inner loop, which depend on what is "
        "learned here, as in maml. Take another one, such as truncated(1), or parameters that go on as in "
        "jaxmeta.bilevel"
    )
