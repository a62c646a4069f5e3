"""Bandits: environments with one state, whose arms have different rewards in each task."""

import abc
import dataclasses

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_integer
from jaxmeta._types import PyTree
from jaxmeta.envs._base import BaseEnv, Outcome
from jaxmeta.envs._meta_env import State


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Bandit(BaseEnv):
    """Bandit with a task `{"means": [arms]}`."""

    arms: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(arms=self.arms)

    @property
    def observation_size(self) -> int:
        """Length of an observation, which is always zero."""
        return 1

    @property
    def action_size(self) -> int:
        """Number of arms."""
        return self.arms

    @property
    def discrete(self) -> bool:
        """Flag of discrete actions: an action is the index of an arm."""
        return True

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Name of the regret, the mean reward of the best arm minus that of the pulled arm."""
        return ("regret",)

    @abc.abstractmethod
    def draw_reward(self, key: jax.Array, mean: jax.Array) -> jax.Array:
        """Draws the reward of an arm, `[]`."""

    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, jax.Array]:
        """Starts an episode, whose state is only a random key."""
        return key, jnp.zeros(1)

    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Pulls an arm."""
        key, key_reward = jax.random.split(pipeline_state)
        mean = task["means"][action]
        regret = jnp.max(task["means"]) - mean
        return Outcome(key, jnp.zeros(1), self.draw_reward(key_reward, mean), jnp.array(False), {"regret": regret})

    def floor_return(self, task: PyTree) -> jax.Array:
        """Returns the mean return of random pulls, `[]`."""
        return self.horizon * jnp.mean(task["means"])

    def oracle_action(self, state: State) -> jax.Array:
        """Returns the best arm, `[]`."""
        return jnp.argmax(state.info["task"]["means"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class BernoulliBandit(_Bandit):
    """Bandit whose arms pay 1 with a probability that is uniform in [0, 1].

    The task is `{"means": [arms]}`. An observation is one zero, so a policy can only learn from its past actions and
    rewards.

    Args:
        horizon: number of pulls in an episode.
        arms: number of arms.

    Example:
        >>> env = BernoulliBandit(arms=2)
        >>> state = env.reset(jax.random.key(0), {"means": jnp.array([0.0, 1.0])})
        >>> float(env.step(state, jnp.array(1)).reward)
        1.0

    References:
        Duan, Schulman, Chen, Bartlett, Sutskever & Abbeel, *RL^2: Fast Reinforcement Learning via Slow Reinforcement
        Learning*, 2016, https://arxiv.org/abs/1611.02779
    """

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draws the probabilities."""
        return {"means": jax.random.uniform(key, (self.arms,))}

    def draw_reward(self, key: jax.Array, mean: jax.Array) -> jax.Array:
        """Draws 0 or 1."""
        return jax.random.bernoulli(key, mean).astype(mean.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianBandit(_Bandit):
    """Bandit whose arms pay a mean drawn from N(0, 1) plus noise from N(0, 1).

    The task is `{"means": [arms]}`. An observation is one zero.

    Args:
        horizon: number of pulls in an episode.
        arms: number of arms.

    Example:
        >>> env = GaussianBandit(arms=10)
        >>> env.sample_tasks(jax.random.key(0), 3)["means"].shape
        (3, 10)

    References:
        Sutton & Barto, *Reinforcement Learning: An Introduction*, 2nd edition, section 2.3, 2018,
        http://incompleteideas.net/book/the-book-2nd.html
    """

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draws the means."""
        return {"means": jax.random.normal(key, (self.arms,))}

    def draw_reward(self, key: jax.Array, mean: jax.Array) -> jax.Array:
        """Draws a number around the mean."""
        return mean + jax.random.normal(key)
