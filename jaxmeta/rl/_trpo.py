"""Trust region policy optimization (TRPO, Schulman et al. 2015, https://arxiv.org/abs/1502.05477) for optax."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_fraction, check_integer, check_not_negative, check_positive
from jaxmeta._types import PyTree
from jaxmeta.display import described, short_repr
from jaxmeta.meta_gradients import cg


class TRPOState(NamedTuple):
    """Record of the last update of `trpo`."""

    accepted: jax.Array
    """Success of the line search, 1.0 or 0.0."""
    kl: jax.Array
    """KL divergence after the step in nats, 0 if no step was taken."""
    backtracks: jax.Array
    """Number of times that the step was shortened, as a float."""

    __repr__ = short_repr


@described
def trpo(
    max_kl: float | jax.Array = 0.01,
    *,
    cg_steps: int = 10,
    damping: float = 1e-5,
    backtrack: float | jax.Array = 0.8,
    max_backtracks: int = 15,
) -> optax.GradientTransformationExtraArgs:
    """TRPO: a natural gradient step to the border of a trust region, followed by a backtracking line search.

    With the gradient `g` of the loss and the Hessian `H` of the mean KL divergence, conjugate gradients solve
    `H x = g`, and the full step is::

        -sqrt(2 * max_kl / (x @ H @ x)) * x

    `H` is never formed, only multiplied with vectors. The line search tries the full step times `backtrack**i` for
    `i = 0, 1, ...` and takes the first step after which loss and divergence are finite, the loss is lower and the
    divergence is at most `max_kl`. If there is no such step, the parameters stay as they are.

    Args:
        max_kl: `delta`, the largest KL divergence from the old policy, in nats.
        cg_steps: number of conjugate gradient iterations, each with one Hessian-vector product.
        damping: number that is added to the diagonal of `H`.
        backtrack: factor by which each try shortens the step, between 0 and 1.
        max_backtracks: largest number of tries after the first one.

    Returns:
        A transformation with `update(grads, state, params, *, value_fn, kl_fn)`. `value_fn` maps parameters to the
        loss. `kl_fn` maps them to the mean KL divergence from the policy of `params`, so it is 0 at `params`. The state
        is a `TRPOState`.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> optimizer, params = trpo(max_kl=0.5), jnp.array([1.0, 1.0])
        >>> def loss(x):
        ...     return x[0] + x[1]
        >>> def kl(x):
        ...     return 0.5 * (x - params) @ jnp.diag(jnp.array([1.0, 4.0])) @ (x - params)
        >>> updates, state = optimizer.update(
        ...     jax.grad(loss)(params), optimizer.init(params), params, value_fn=loss, kl_fn=kl)
        >>> bool(state.accepted), bool(kl(params + updates) <= 0.5), round(float(updates[0] / updates[1]), 3)
        (True, True, 4.0)

    References:
        Schulman, Levine, Moritz, Jordan & Abbeel, *Trust Region Policy Optimization*, ICML 2015,
        https://arxiv.org/abs/1502.05477
    """
    check_positive(max_kl=max_kl, backtrack=backtrack)
    check_fraction(below_one=True, backtrack=backtrack)
    check_not_negative(damping=damping)
    check_integer(cg_steps=cg_steps, max_backtracks=max_backtracks)
    solve = cg(cg_steps, damping=damping)

    def init(params: PyTree) -> Any:
        del params
        return TRPOState(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree = None,
        *,
        value_fn: Callable[[PyTree], jax.Array],
        kl_fn: Callable[[PyTree], jax.Array],
        **extra_args: Any,
    ) -> tuple[PyTree, Any]:
        del state, extra_args
        if params is None:
            raise ValueError("params must be given to the update of trpo, got None")
        _, hessian_product = jax.linearize(jax.grad(kl_fn), params)  # v -> H v
        direction = solve(hessian_product, updates)  # x = H^-1 g
        curvature = optax.tree.vdot(direction, hessian_product(direction))  # x @ H @ x
        # Without positive curvature this is NaN. Then every try fails, and no step is taken.
        full = optax.tree.scale(-jnp.sqrt(2 * max_kl / curvature), direction)
        return _line_search(params, full, value_fn, kl_fn, max_kl, backtrack, max_backtracks)

    # optax has no type for a transformation whose extra arguments are required.
    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _line_search(
    params: PyTree,
    full: PyTree,
    value_fn: Callable[[PyTree], jax.Array],
    kl_fn: Callable[[PyTree], jax.Array],
    max_kl: float | jax.Array,
    backtrack: float | jax.Array,
    max_backtracks: int,
) -> tuple[PyTree, TRPOState]:
    """Returns the first acceptable step `backtrack**i * full`, or a step of zeros if there is none."""
    before = value_fn(params)

    def step_after(tries: jax.Array) -> PyTree:
        return jax.tree.map(lambda x: (backtrack**tries * x).astype(x.dtype), full)

    def attempt(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        tries = carry[0] + 1
        moved = optax.tree.add(params, step_after(tries))
        loss, kl = value_fn(moved), kl_fn(moved)
        return tries, jnp.isfinite(loss) & (loss < before) & (kl <= max_kl), kl

    def is_searching(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        tries, accepted, _ = carry
        return ~accepted & (tries < max_backtracks)

    start = (-jnp.ones(()), jnp.zeros((), bool), jnp.zeros_like(before))
    tries, accepted, kl = jax.lax.while_loop(is_searching, attempt, start)
    updates = jax.tree.map(lambda x: jnp.where(accepted, x, 0), step_after(tries))
    return updates, TRPOState(accepted.astype(float), jnp.where(accepted, kl, 0).astype(float), tries)
