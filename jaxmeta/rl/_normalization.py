"""Normalization of what policies of trials and latent policies see, and of rewards, by running statistics."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta._types import PyTree
from jaxmeta.display import short_repr
from jaxmeta.envs import MetaEnv
from jaxmeta.rl._moments import Moments, add_moments, empty_moments, standardize
from jaxmeta.rl._observations import example_observations
from jaxmeta.rl._replay import Transition
from jaxmeta.rl._returns import discounted_returns
from jaxmeta.rl._rollout import Trajectory


class Normalization(NamedTuple):
    """Running statistics by which a recurrent policy sees observations, and by which rewards are scaled."""

    observations: Moments
    """Statistics of the observations."""
    returns: Moments
    """Statistics of the discounted returns."""

    __repr__ = short_repr


def seen(state: PyTree, obs: PyTree) -> PyTree:
    """Returns what a policy sees of observations: all as they are, unless the state has their statistics."""
    moments = state.observations if isinstance(state, Normalization) else state
    return standardize(moments, obs) if isinstance(moments, Moments) else obs


def seen_steps(state: PyTree, steps: Transition) -> Transition:
    """Returns what a latent policy's networks see of transitions, see `seen`."""
    return steps._replace(obs=seen(state, steps.obs), next_obs=seen(state, steps.next_obs))


def scaled(state: PyTree, reward: jax.Array) -> jax.Array:
    """Divides rewards by the deviation of the returns, if the state is a `Normalization`."""
    if not isinstance(state, Normalization):
        return reward
    return reward / jnp.sqrt(jnp.maximum(state.returns.variance, 1e-8))


def no_observations(env: MetaEnv) -> Moments:
    """Returns the statistics of observations before the first one of an environment."""
    return empty_moments(jax.tree.map(lambda x: x[0], example_observations(env)))


def learn_observations(state: PyTree, obs: PyTree, valid: jax.Array) -> PyTree:
    """Returns the statistics after more observations `[...]`, or the state as it is if it has none."""
    return add_moments(state, obs, valid) if isinstance(state, Moments) else state


def no_normalization(env: MetaEnv) -> Normalization:
    """Returns the statistics before the first step in an environment."""
    return Normalization(no_observations(env), empty_moments(jnp.zeros(())))


def learn_normalization(state: PyTree, data: Trajectory, discount: float | jax.Array) -> PyTree:
    """Returns the statistics after more steps, `[T, ...]`, or the state as it is if it is no `Normalization`."""
    if not isinstance(state, Normalization):
        return state
    returns = discounted_returns(data.reward, data.terminated | data.truncated, discount=discount)
    observations = add_moments(state.observations, data.obs, data.valid)
    return Normalization(observations, add_moments(state.returns, returns, data.valid))
