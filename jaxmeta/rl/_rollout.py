"""Rollouts: episodes of a policy in one task of an environment."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_integer, check_optional_integer
from jaxmeta._types import PyTree
from jaxmeta.display import brief, short_repr
from jaxmeta.envs import MetaEnv, State
from jaxmeta.rl._distributions import Categorical, Distribution
from jaxmeta.rl._observations import over_observation

Policy = Callable[[PyTree, jax.Array], Any]
"""Signature `(params, obs [..., observation_size]) -> Distribution`, such as the `apply` of a Flax module."""


class Trajectory(NamedTuple):
    """Batch of episodes, `T` steps of `E` episodes, in which steps after the end of an episode are not `valid`."""

    obs: jax.Array
    """Observation before the step, `[T, E, observation_size]`."""
    action: jax.Array
    """Sampled action, before the environment clips it, `[T, E, action_size]` or integers `[T, E]`."""
    dist: Any
    """`Distribution` that the action was sampled from, leading axes `[T, E]`."""
    log_prob: jax.Array
    """Log-probability of the action, `[T, E]`."""
    reward: jax.Array
    """Reward of the step, 0 where not valid, `[T, E]`."""
    next_obs: jax.Array
    """Observation after the step, before any reset, `[T, E, observation_size]`."""
    terminated: jax.Array
    """Flag of a step with which the episode ended by itself, bool `[T, E]`."""
    truncated: jax.Array
    """Flag of a step after which the episode was cut off, bool `[T, E]`."""
    valid: jax.Array
    """Flag of a step that belongs to the episode, bool `[T, E]`."""
    states: Any = None
    """State of the environment after the step, leading axes `[T, E]`, or `None` if it was not asked for."""

    __repr__ = short_repr


def check_env(env: Any) -> None:
    """Raises TypeError unless a value is an environment."""
    if env is None or isinstance(env, str | type):
        raise TypeError(f"env must be an environment, such as envs.make('particles2d'), got {brief(env)}")


def _call(env: MetaEnv, policy: Callable[..., Any], params: PyTree, obs: jax.Array, *memory: PyTree) -> Any:
    """Calls a policy, and says in its errors what it was given."""
    name = type(env).__name__
    found = jax.tree.map(lambda x: x.shape[1:], obs)
    if found != over_observation(lambda shape, _: shape, env.observation_size, found):
        one = found if isinstance(found, dict) else list(found)
        raise ValueError(
            f"observation_size of {name} must be the length of its observations, or their shape, "
            f"got {env.observation_size} and observations {one}"
        )
    try:
        return policy(params, obs, *memory)
    except Exception as error:
        whose = f"{name}, whose observation_size is {env.observation_size}"
        error.add_note(f"The policy was called with {len(jax.tree.leaves(obs)[0])} observations of {whose}.")
        raise


def _check_action(env: MetaEnv, dist: Any, action: jax.Array) -> None:
    """Raises ValueError unless a policy draws actions that an environment takes."""
    size = env.action_size
    wanted = f"integers below {size}" if env.discrete else f"vectors of {size} numbers"
    if isinstance(dist, Categorical):
        fits, found = env.discrete and dist.logits.shape[-1] == size, f"integers below {dist.logits.shape[-1]}"
    elif jnp.issubdtype(action.dtype, jnp.integer):
        fits, found = env.discrete and action.ndim == 1, f"integers {list(action.shape[1:])}"
    else:
        fits, found = not env.discrete and action.shape[1:] == (size,), f"numbers {list(action.shape[1:])}"
    if not fits:
        raise ValueError(f"policy must draw the actions of {type(env).__name__}, {wanted}, got {found}")


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
    states: bool = False,
) -> Trajectory:
    """Plays a batch of episodes in one task, each from its own reset.

    The program is a scan of fixed length. An episode that is over keeps its last state. The trajectory is data: no
    derivative flows through it.

    Args:
        env: the environment.
        policy: `(params, obs) -> Distribution`, or with a `memory`
            `(params, obs, memory) -> (Distribution, memory)`.
        params: the policy's parameters.
        task: the environment's task.
        key: a random key for resets, actions and the environment's noise.
        episodes: number of episodes.
        length: number of steps after which episodes are cut off; the environment's horizon if `None`.
        memory: a recurrent policy's memory at the start of every episode, leading axis `[episodes]`; `None` for a
            policy without memory.
        mode: whether to take the most probable actions instead of sampled ones.
        states: whether to keep the environment's states, such as for `jaxmeta.envs.save_html`.

    Returns:
        A `Trajectory`. Use `jax.vmap` to batch over tasks.

    Raises:
        TypeError: if `env` is no environment, or the policy returns no distribution.
        ValueError: if `episodes` or `length` is less than 1, if the policy's actions are not those of the environment,
            or if the environment's observations are not those that it names.

    Example:
        >>> from jaxmeta import envs
        >>> env, policy = envs.make("particles2d"), lambda params, obs: DiagonalGaussian(obs * 0, obs * 0)
        >>> from jaxmeta.rl import DiagonalGaussian
        >>> goal = {"goal": jnp.array([0.3, 0.4])}
        >>> data = rollout(env, policy, None, goal, jax.random.key(0), episodes=2, length=5, mode=True)
        >>> data.reward.shape, round(float(data.reward[0, 0]), 3), data.truncated[:, 0].tolist()
        ((5, 2), -0.5, [False, False, False, False, True])

        A film of the first of some episodes:

        >>> data = rollout(env, policy, None, goal, jax.random.key(0), episodes=2, length=5, states=True)
        >>> envs.save_video(env, jax.tree.map(lambda x: x[:, 0], data.states), "particle.gif")
    """
    check_env(env)
    check_integer(episodes=episodes)
    check_optional_integer(length=length)
    length = length or env.horizon
    params, task = jax.lax.stop_gradient((params, task))
    reset_key, key = jax.random.split(key)

    call = partial(_call, env, policy, params)

    def act(obs: jax.Array, memory: PyTree) -> tuple[Distribution, PyTree]:
        dist, memory = (call(obs), None) if memory is None else call(obs, memory)
        if not (hasattr(dist, "sample") and hasattr(dist, "log_prob")):
            raise TypeError(f"policy must return a distribution, such as rl.Categorical(logits), got {brief(dist)}")
        return dist, memory

    def step(carry: tuple[State, PyTree, jax.Array], key: jax.Array) -> tuple[Any, Trajectory]:
        state, memory, valid = carry
        dist, memory = act(state.obs, memory)
        action = dist.mode() if mode else dist.sample(key)
        _check_action(env, dist, action)
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
            states=after if states else None,
        )
        return (after, memory, valid & ~done), data

    start = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, episodes), task)
    carry = (start, memory, jnp.ones(episodes, bool))
    (_, _, going), data = jax.lax.scan(step, carry, jax.random.split(key, length))
    return jax.lax.stop_gradient(data._replace(truncated=data.truncated.at[-1].max(going)))


def _step_if(
    env: MetaEnv, state: State, action: jax.Array, valid: jax.Array
) -> tuple[State, jax.Array, jax.Array, jax.Array]:
    """Takes a step if the episode is not over, and returns `(state, reward, done, truncation)`."""
    after = env.step(state, action)
    # `where` instead of a product: after the end of an episode the physics may give NaN, which must not come through.
    after = jax.tree.map(lambda new, old: jnp.where(valid, new, old), after, state)
    done, truncation = (valid & (x > 0) for x in (after.done, after.info["truncation"]))
    return after, jnp.where(valid, after.reward, 0), done, truncation


def episode_returns(trajectory: Trajectory) -> jax.Array:
    """Returns the undiscounted sum of the rewards of each episode, `[E]`.

    Args:
        trajectory: a result of `rollout`.
    """
    return jnp.sum(trajectory.reward, axis=0)
