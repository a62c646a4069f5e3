"""Scores of policies: returns between that of a policy that does nothing useful and that of one that knows the task."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy.typing as npt

from jaxmeta._checks import check_integer
from jaxmeta._types import PyTree
from jaxmeta.display import short_repr
from jaxmeta.envs import MetaEnv, State
from jaxmeta.rl._rollout import check_env


class ScoreScale(NamedTuple):
    """Returns in each task between which a score is measured."""

    floor: jax.Array | None
    """Return of a policy that does nothing useful, `[num_tasks]`. `None` if the environment does not know it."""
    oracle: jax.Array | None
    """Mean return of a policy that knows the task, `[num_tasks]`. `None` if the environment does not know it."""

    __repr__ = short_repr

    def score(self, returns: npt.ArrayLike) -> jax.Array | None:
        """Returns `(return - floor) / (oracle - floor)`, which is 0 for the floor and 1 for the oracle.

        Args:
            returns: returns in the tasks, `[num_tasks, ...]`.

        Returns:
            The scores in the shape of `returns`, NaN in a task whose oracle is not above its floor, where there is
            nothing to measure. `None` without a floor or without an oracle.
        """
        if self.floor is None or self.oracle is None:
            return None
        returns = jnp.asarray(returns)
        floor, gap = (jnp.expand_dims(x, tuple(range(1, returns.ndim))) for x in (self.floor, self.oracle - self.floor))
        return jnp.where(gap > 0, (returns - floor) / jnp.where(gap > 0, gap, 1), jnp.nan)


def score_scale(env: MetaEnv, tasks: PyTree, key: jax.Array, *, episodes: int = 100) -> ScoreScale:
    """Measures the floor and the oracle of tasks, so that returns in different tasks and environments can be compared.

    Args:
        env: the environment. The floor is its `floor_return(task)`, and the oracle plays its `oracle_action(state)`.
        tasks: tasks of the environment, stacked on the first axis.
        key: a random key for the oracle's episodes.
        episodes: number of episodes of each task of which the oracle's return is the mean.

    Returns:
        A `ScoreScale`, whose method `score` scales returns.

    Raises:
        TypeError: if `env` is no environment.
        ValueError: if `episodes` is less than 1.

    Example:
        >>> from jaxmeta import envs
        >>> env = envs.make("particles2d", horizon=50)
        >>> tasks = {"goal": jnp.array([[0.3, 0.0], [0.0, 0.5]])}
        >>> scale = score_scale(env, tasks, jax.random.key(0), episodes=1)
        >>> print(scale.floor.round(1), scale.oracle.round(1), scale.score([-15.0, -7.0]).round(2))
        [-15. -25.] [-0.3 -1. ] [0.   0.75]
    """
    check_env(env)
    check_integer(episodes=episodes)
    known: Any = env  # the two methods are not part of the protocol
    floor = jax.vmap(known.floor_return)(tasks) if hasattr(env, "floor_return") else None
    if not hasattr(env, "oracle_action"):
        return ScoreScale(floor, None)
    keys = jax.random.split(key, (jax.tree.leaves(tasks)[0].shape[0], episodes))

    def episode(task: PyTree, key: jax.Array) -> jax.Array:
        def step(carry: tuple[State, jax.Array, jax.Array], _: None) -> tuple[Any, None]:
            state, going, total = carry
            after = env.step(state, known.oracle_action(state))
            return (after, going & (after.done == 0), total + jnp.where(going, after.reward, 0)), None

        start = env.reset(key, task)
        first = (start, jnp.array(True), jnp.zeros_like(start.reward))
        return jax.lax.scan(step, first, length=env.horizon)[0][2]

    return ScoreScale(floor, jnp.mean(jax.vmap(jax.vmap(episode, (None, 0)))(tasks, keys), axis=1))
