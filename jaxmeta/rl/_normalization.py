"""Normalization of what a recurrent policy sees, and of its rewards, by running statistics."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta._types import PyTree
from jaxmeta.display import short_repr
from jaxmeta.envs import MetaEnv
from jaxmeta.rl._moments import Moments, add_moments, empty_moments, standardize
from jaxmeta.rl._observations import example_observations
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
    """Returns what a policy sees of observations: all of them, unless the state is a `Normalization`."""
    return standardize(state.observations, obs) if isinstance(state, Normalization) else obs


def scaled(state: PyTree, reward: jax.Array) -> jax.Array:
    """Divides rewards by the deviation of the returns, if the state is a `Normalization`."""
    if not isinstance(state, Normalization):
        return reward
    return reward / jnp.sqrt(jnp.maximum(state.returns.variance, 1e-8))


def no_normalization(env: MetaEnv) -> Normalization:
    """Returns the statistics before the first step in an environment."""
    example = jax.tree.map(lambda x: x[0], example_observations(env))
    return Normalization(empty_moments(example), empty_moments(jnp.zeros(())))


def learn_normalization(state: PyTree, data: Trajectory, discount: float | jax.Array) -> PyTree:
    """Returns the statistics after more steps, `[T, ...]`, or the state as it is if it is no `Normalization`."""
    if not isinstance(state, Normalization):
        return state
    returns = discounted_returns(data.reward, data.terminated | data.truncated, discount=discount)
    observations = add_moments(state.observations, data.obs, data.valid)
    return Normalization(observations, add_moments(state.returns, returns, data.valid))
