"""Trust region policy optimization (TRPO, Schulman et al. 2015, https://arxiv.org/abs/1502.05477) for optax."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_integer, check_number
from jaxmeta._types import PyTree
from jaxmeta.meta_gradients import cg


class TRPOState(NamedTuple):
    """What the last update of `trpo` did."""

    accepted: jax.Array
    """Whether the line search found a step: 1.0 or 0.0."""
    kl: jax.Array
    """The divergence after the step, 0 if there was none."""
    backtracks: jax.Array
    """How often the step was made shorter, float."""


def trpo(
    max_kl: float = 0.01,
    *,
    cg_steps: int = 10,
    damping: float = 1e-5,
    backtrack: float = 0.8,
    max_backtracks: int = 15,
) -> optax.GradientTransformationExtraArgs:
    """TRPO: the natural gradient step to the border of a trust region, and a line search back from there.

    Conjugate gradients solve with the Hessian of the divergence, which is only ever multiplied with vectors. A step is
    taken if loss and divergence after it are finite, the loss is lower and the divergence at most `max_kl`; otherwise
    the parameters stay.

    Args:
        max_kl: the largest divergence from the old policy, in nats.
        cg_steps: conjugate gradient iterations, one Hessian-vector product each.
        damping: added to the diagonal of the Hessian.
        backtrack: factor of the step's length from try to try, in (0, 1).
        max_backtracks: tries after the first.

    Returns:
        A transformation whose `update(grads, state, params, *, value_fn, kl_fn)` needs two functions of the parameters:
        the loss, and the mean divergence from the policy of `params`, which is 0 there. Its state is a `TRPOState`.

    Raises:
        ValueError: if a number is out of its range.

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
    check_number(max_kl=max_kl, damping=damping, backtrack=backtrack)
    check_integer(max_backtracks=max_backtracks)
    if max_kl <= 0:
        raise ValueError(f"max_kl must be positive, got {max_kl}")
    if not 0 < backtrack < 1:
        raise ValueError(f"backtrack must be between 0 and 1, got {backtrack}")
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
        _, hessian_product = jax.linearize(jax.grad(kl_fn), params)
        direction = solve(hessian_product, updates)
        curvature = optax.tree.vdot(direction, hessian_product(direction))
        # No positive curvature along the direction: a NaN here makes every try fail, and no step is taken.
        full = optax.tree.scale(-jnp.sqrt(2 * max_kl / curvature), direction)
        return _line_search(params, full, value_fn, kl_fn, max_kl, backtrack, max_backtracks)

    # optax's type has no word for a transformation that needs its extra arguments.
    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _line_search(
    params: PyTree,
    full: PyTree,
    value_fn: Callable[[PyTree], jax.Array],
    kl_fn: Callable[[PyTree], jax.Array],
    max_kl: float,
    backtrack: float,
    max_backtracks: int,
) -> tuple[PyTree, TRPOState]:
    """The longest step along `full`, of lengths `backtrack**i`, that is good; or none."""
    before = value_fn(params)

    def shortened(tries: jax.Array) -> PyTree:
        return jax.tree.map(lambda x: (backtrack**tries * x).astype(x.dtype), full)

    def attempt(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        tries = carry[0] + 1
        moved = optax.tree.add(params, shortened(tries))
        loss, kl = value_fn(moved), kl_fn(moved)
        return tries, jnp.isfinite(loss) & (loss < before) & (kl <= max_kl), kl

    def going(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        tries, accepted, _ = carry
        return ~accepted & (tries < max_backtracks)

    start = (jnp.array(-1.0), jnp.array(False), jnp.zeros_like(before))
    tries, accepted, kl = jax.lax.while_loop(going, attempt, start)
    updates = jax.tree.map(lambda x: jnp.where(accepted, x, 0), shortened(tries))
    return updates, TRPOState(accepted.astype(float), jnp.where(accepted, kl, 0).astype(float), tries)
