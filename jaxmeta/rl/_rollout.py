"""Episodes of a policy in one task of an environment."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_integer, check_optional_integer
from jaxmeta._types import PyTree
from jaxmeta.envs import MetaEnv, State
from jaxmeta.rl._distributions import Distribution

Policy = Callable[[PyTree, jax.Array], Any]
"""`(params, obs [..., observation_size]) -> Distribution`, such as the `apply` of a Flax module."""


class Trajectory(NamedTuple):
    """Episodes side by side, `T` steps of `E` episodes. What follows the end of an episode is not `valid`."""

    obs: jax.Array
    """What the policy saw, `[T, E, observation_size]`."""
    action: jax.Array
    """What it drew, before the environment clips it: `[T, E, action_size]`, or integers `[T, E]`."""
    dist: Any
    """The `Distribution` that it drew from, leading axes `[T, E]`."""
    log_prob: jax.Array
    """Of the action, `[T, E]`."""
    reward: jax.Array
    """Of the step, 0 where not valid, `[T, E]`."""
    next_obs: jax.Array
    """After the step; at the end of an episode its last observation, `[T, E, observation_size]`."""
    terminated: jax.Array
    """Whether the episode ended by itself in this step, bool `[T, E]`."""
    truncated: jax.Array
    """Whether it was cut off after this step, bool `[T, E]`."""
    valid: jax.Array
    """Whether the episode was still on before the step, bool `[T, E]`."""


def rollout(
    env: MetaEnv,
    policy: Callable[..., Any],
    params: PyTree,
    task: PyTree,
    key: jax.Array,
    *,
    episodes: int,
    length: int | None = None,
    memory: PyTree = None,
    mode: bool = False,
) -> Trajectory:
    """Plays episodes of one task side by side, each from a reset of its own.

    A scan of fixed length; an episode that is over stands still. No derivative goes through it: the trajectory is data.

    Args:
        env: the environment.
        policy: `(params, obs) -> Distribution`; with a `memory`, `(params, obs, memory) -> (Distribution, memory)`.
        params: of the policy.
        task: of the environment.
        key: of resets, actions and the environment's noise.
        episodes: how many.
        length: steps after which episodes are cut off; the environment's horizon if `None`.
        memory: what a recurrent policy starts every episode with, leading axis `[episodes]`; `None` for one without.
        mode: take the most probable actions, not random ones.

    Returns:
        A `Trajectory`; batch over tasks with `jax.vmap`.

    Raises:
        ValueError: if `episodes` or `length` is less than 1.

    Example:
        >>> from jaxmeta import envs
        >>> env, policy = envs.make("particles2d"), lambda still, obs: DiagonalGaussian(obs * 0, obs * 0)
        >>> from jaxmeta.rl import DiagonalGaussian
        >>> goal = {"goal": jnp.array([0.3, 0.4])}
        >>> data = rollout(env, policy, None, goal, jax.random.key(0), episodes=2, length=5, mode=True)
        >>> data.reward.shape, round(float(data.reward[0, 0]), 3), data.truncated[:, 0].tolist()
        ((5, 2), -0.5, [False, False, False, False, True])
    """
    check_integer(episodes=episodes)
    check_optional_integer(length=length)
    length = length or env.horizon
    params, task = jax.lax.stop_gradient((params, task))
    reset_key, key = jax.random.split(key)

    def act(obs: jax.Array, memory: PyTree) -> tuple[Distribution, PyTree]:
        return (policy(params, obs), None) if memory is None else policy(params, obs, memory)

    def step(carry: tuple[State, PyTree, jax.Array], key: jax.Array) -> tuple[Any, Trajectory]:
        state, memory, valid = carry
        dist, memory = act(state.obs, memory)
        action = dist.mode() if mode else dist.sample(key)
        after, reward, done, truncation = jax.vmap(partial(_step_if, env))(state, action, valid)
        data = Trajectory(
            obs=state.obs,
            action=action,
            dist=dist,
            log_prob=dist.log_prob(action),
            reward=reward,
            next_obs=after.obs,
            terminated=done & ~truncation,
            truncated=truncation,
            valid=valid,
        )
        return (after, memory, valid & ~done), data

    start = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, episodes), task)
    carry = (start, memory, jnp.ones(episodes, bool))
    (_, _, going), data = jax.lax.scan(step, carry, jax.random.split(key, length))
    return jax.lax.stop_gradient(data._replace(truncated=data.truncated.at[-1].max(going)))


def _step_if(
    env: MetaEnv, state: State, action: jax.Array, valid: jax.Array
) -> tuple[State, jax.Array, jax.Array, jax.Array]:
    """One step if the episode is still on: `(state, reward, done, truncation)`."""
    after = env.step(state, action)
    # `where`, not a product: whatever the physics makes of an episode that is over, even NaN, must not come through.
    after = jax.tree.map(lambda new, old: jnp.where(valid, new, old), after, state)
    done, truncation = (valid & (x > 0) for x in (after.done, after.info["truncation"]))
    return after, jnp.where(valid, after.reward, 0), done, truncation


def episode_returns(trajectory: Trajectory) -> jax.Array:
    """The sum of rewards of each episode, undiscounted, `[E]`.

    Args:
        trajectory: from `rollout`.
    """
    return jnp.sum(trajectory.reward, axis=0)
