"""Forward-mode meta-gradients (Franceschi et al. 2017, https://arxiv.org/abs/1703.01785)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.custom_derivatives import SymbolicZero

from jaxmeta._checks import check_integer
from jaxmeta._types import LossFn, PyTree
from jaxmeta.display import described
from jaxmeta.meta_gradients._explicit import explicit_closure
from jaxmeta.meta_gradients._forward_update import update_with_tangents
from jaxmeta.meta_gradients._reverse import reverse_value_and_grad
from jaxmeta.meta_gradients._unrolling import MetaGradient, Unrolled, run_inner_loop


@described
def forward(limit: int = 1000) -> MetaGradient:
    """Forward mode: exact, for a few hyper-parameters through any number of inner steps.

    With the inner state `s` and the hyper-parameters `lambda`, each step `s <- phi(s, lambda)` also moves the tangents
    `Z = ds / dlambda`::

        Z <- (dphi / ds) Z + dphi / dlambda

    Memory is that of `Z`, one copy of the parameters and of the optimizer's state for each hyper-parameter, and of one
    step for all of them side by side. It does not depend on the number of steps. Time grows with the number of
    hyper-parameters. All numbers that the loop is differentiated in count as hyper-parameters: what the loss or the
    inner optimizer closes over, learned values, and the initial parameters where they depend on what is learned.

    Args:
        limit: largest number of hyper-parameters (default: 1,000), as a guard against a loop that is differentiated in
            the initial parameters by mistake.

    Returns:
        A `MetaGradient`. Its derivative raises a ValueError where there are more hyper-parameters than `limit`. The
        losses of the steps are differentiable too, at the price of one number per step and hyper-parameter.

    Raises:
        ValueError: if `limit` is less than 1.

    Example:
        >>> import jaxmeta
        >>> def loss_after(rate):
        ...     loss_fn = lambda w, batch, key: (0.5 * w**2, {})
        ...     steps = jax.random.split(jax.random.key(0), 1000)
        ...     w = jaxmeta.unroll(loss_fn, optax.sgd(rate), 1.0, None, steps, meta_gradient=forward()).params
        ...     return jnp.log(w)  # 1000 log(1 - rate)
        >>> round(float(jax.grad(loss_after)(0.001)))
        -1001

    References:
        Franceschi, Donini, Frasconi & Pontil, *Forward and Reverse Gradient-Based Hyperparameter Optimization*, ICML
        2017, https://arxiv.org/abs/1703.01785
    """
    check_integer(limit=limit)
    return MetaGradient(partial(_unroll, limit), partial(jax.value_and_grad, has_aux=True))


def _unroll(
    limit: int,
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    params: PyTree,
    state: optax.OptState,
    batch: Any,
    xs: PyTree,
) -> Unrolled:
    """Runs the inner loop as a function of everything that it depends on, whose derivative is a stored Jacobian."""
    by_tangents = partial(run_inner_loop, reverse_value_and_grad, update=update_with_tangents)
    run, inputs = explicit_closure(lambda: by_tangents(loss_fn, inner, params, state, batch, xs))

    @jax.custom_vjp
    def loop(inputs: tuple[jax.Array, ...]) -> Unrolled:
        return run(inputs)

    def forward_pass(marked: tuple[Any, ...]) -> tuple[Unrolled, dict[int, list[jax.Array]]]:
        # A number of Python, of which `jax.grad` takes the derivative, is one still.
        inputs = tuple(x.value if isinstance(x.value, jax.Array) else jnp.asarray(x.value) for x in marked)
        moving = {i: x for i, x in enumerate(inputs) if marked[i].perturbed and _is_smooth(x)}
        count = sum(x.size for x in moving.values())
        if count > limit:
            shapes = ", ".join(str(x.shape) for x in moving.values())
            raise ValueError(
                f"forward() carries a tangent for each hyper-parameter, and the loop is differentiated in {count:,} "
                f"numbers (arrays {shapes}). It must be at most limit={limit:,}. For more take mixed() or reverse()"
            )
        if not moving:
            return run(inputs), {}

        def end(moving: dict[int, jax.Array]) -> tuple[list[jax.Array], Unrolled]:
            result = run(tuple(moving.get(i, x) for i, x in enumerate(inputs)))
            return [leaf for leaf in jax.tree.leaves(result) if _is_smooth(leaf)], result

        def push(tangent: dict[int, jax.Array]) -> tuple[Unrolled, list[jax.Array]]:
            _, tangents, result = jax.jvp(end, (moving,), (tangent,), has_aux=True)
            return result, tangents

        result, jacobian = jax.vmap(push, out_axes=(None, 0))(_basis(moving, count))
        parts = np.cumsum([x.size for x in moving.values()])[:-1]
        divided = [jnp.split(leaf, parts) for leaf in jacobian]
        return result, {i: [leaf[place] for leaf in divided] for place, i in enumerate(moving)}

    def backward_pass(jacobian: dict[int, list[jax.Array]], cotangent: Unrolled) -> tuple[tuple[Any, ...]]:
        leaves = jax.tree.leaves(cotangent, is_leaf=lambda leaf: isinstance(leaf, SymbolicZero))
        smooth = [leaf for leaf in leaves if _is_smooth(leaf)]

        def pulled(i: int) -> jax.Array | None:
            if i not in jacobian:
                return None
            flat = jnp.zeros(jacobian[i][0].shape[0], inputs[i].dtype)
            for weight, tangents in zip(smooth, jacobian[i], strict=True):
                if not isinstance(weight, SymbolicZero):
                    flat += jnp.tensordot(tangents, weight, weight.ndim, precision="highest").astype(flat.dtype)
            return flat.reshape(inputs[i].shape)

        return (tuple(pulled(i) for i in range(len(inputs))),)

    loop.defvjp(forward_pass, backward_pass, symbolic_zeros=True)
    return loop(inputs)


def _basis(moving: dict[int, jax.Array], count: int) -> dict[int, jax.Array]:
    """Returns the unit vectors of all numbers, as arrays `[count, ...]` of the shapes and types of `moving`."""
    basis, begin = {}, 0
    for i, x in moving.items():
        rows = jnp.eye(count, x.size, -begin, x.dtype)
        basis[i], begin = rows.reshape(count, *x.shape), begin + x.size
    return basis


def _is_smooth(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)
