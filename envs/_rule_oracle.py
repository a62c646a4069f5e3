"""Best actions in a rule world for a policy that knows the rules."""

import jax
import jax.numpy as jnp

from jaxmeta._types import PyTree
from jaxmeta.envs._grid import toward

_TAKE, _PUT = 4, 5


def best_action(world: PyTree, task: PyTree, depth: int) -> jax.Array:
    """Returns the action on a shortest way to the next product, or to the goal if it is an object, `[]`.

    Args:
        world: `{"agent": [2], "grid": [size, size], "held": []}`, see `RuleWorld`.
        task: the rule set.
        depth: number of its rules that lead to the goal, in their order.
    """
    grid, held, agent = world["grid"], world["held"], world["agent"]
    if depth == 0:
        return _fetch(grid, held, agent, task["goal"])
    pairs = task["rules"][:depth, :2]
    there = jnp.isin(pairs, jnp.append(grid.ravel(), held))
    step = depth - 1 - jnp.argmax(jnp.all(there, axis=-1)[::-1])  # the last rule whose two kinds are there
    first, second = pairs[step]
    holds_first, holds_second = held == first, held == second
    near, far = _distance(grid, agent, first), _distance(grid, agent, second)
    fetch = _fetch(grid, held, agent, jnp.where(near <= far, first, second))
    bring = _walk(agent, _cell(grid, jnp.where(holds_first, second, first)), _PUT)
    return jnp.where(holds_first | holds_second, bring, fetch)


def _fetch(grid: jax.Array, held: jax.Array, agent: jax.Array, kind: jax.Array) -> jax.Array:
    """Returns the action that leads to taking a kind. Another object in the hand is first put down."""
    put = _walk(agent, _nearest_empty(grid, agent), _PUT)
    return jnp.where(held >= 0, put, _walk(agent, _cell(grid, kind), _TAKE))


def _walk(agent: jax.Array, target: jax.Array, then: int) -> jax.Array:
    """Returns the move toward a cell, or the action to do there."""
    move = toward(agent, target)
    return jnp.where(move == 0, then, move - 1)


def _cell(grid: jax.Array, kind: jax.Array) -> jax.Array:
    """Returns the cell of a kind, `[2]`."""
    return jnp.stack(jnp.divmod(jnp.argmax(grid == kind), grid.shape[1]))


def _distance(grid: jax.Array, agent: jax.Array, kind: jax.Array) -> jax.Array:
    return jnp.sum(jnp.abs(_cell(grid, kind) - agent))


def _nearest_empty(grid: jax.Array, agent: jax.Array) -> jax.Array:
    """Returns the empty cell that is nearest to the agent, `[2]`."""
    rows, columns = jnp.indices(grid.shape)
    steps = jnp.abs(rows - agent[0]) + jnp.abs(columns - agent[1])
    return jnp.stack(jnp.divmod(jnp.argmin(jnp.where(grid < 0, steps, grid.size)), grid.shape[1]))
