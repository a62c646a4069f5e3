"""Bandits: one state, and arms that pay differently in each task."""

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
    arms: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(arms=self.arms)

    @property
    def observation_size(self) -> int:
        """One number that says nothing."""
        return 1

    @property
    def action_size(self) -> int:
        """The arms."""
        return self.arms

    @property
    def discrete(self) -> bool:
        """An action is an arm."""
        return True

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What the best arm pays more on average than the one pulled."""
        return ("regret",)

    @abc.abstractmethod
    def pay(self, key: jax.Array, mean: jax.Array) -> jax.Array:
        """Draw the reward of an arm, `[]`."""

    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, jax.Array]:
        """Keep the key."""
        return key, jnp.zeros(1)

    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Pull an arm."""
        key, key_pay = jax.random.split(pipeline_state)
        mean = task["means"][action]
        regret = jnp.max(task["means"]) - mean
        return Outcome(key, jnp.zeros(1), self.pay(key_pay, mean), jnp.array(False), {"regret": regret})

    def floor_return(self, task: PyTree) -> jax.Array:
        """Return what random pulls pay an episode on average, `[]`."""
        return self.horizon * jnp.mean(task["means"])

    def oracle_action(self, state: State) -> jax.Array:
        """Return the best arm, `[]`."""
        return jnp.argmax(state.info["task"]["means"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class BernoulliBandit(_Bandit):
    """Arms that pay 1 with a probability, uniform in [0, 1], or 0. The task is `{"means": [arms]}`.

    An observation is one zero: all there is to know are the actions and rewards so far.

    Args:
        horizon: pulls in an episode.
        arms: how many arms.

    Example:
        >>> env = BernoulliBandit(arms=2)
        >>> state = env.reset(jax.random.key(0), {"means": jnp.array([0.0, 1.0])})
        >>> float(env.step(state, jnp.array(1)).reward)
        1.0

    References:
        Duan et al. 2016, https://arxiv.org/abs/1611.02779
    """

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draw the probabilities."""
        return {"means": jax.random.uniform(key, (self.arms,))}

    def pay(self, key: jax.Array, mean: jax.Array) -> jax.Array:
        """Draw 0 or 1."""
        return jax.random.bernoulli(key, mean).astype(mean.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianBandit(_Bandit):
    """Arms that pay their mean, drawn from N(0, 1), plus noise of N(0, 1): the testbed of Sutton and Barto.

    The task is `{"means": [arms]}`; an observation is one zero.

    Args:
        horizon: pulls in an episode.
        arms: how many arms.

    Example:
        >>> env = GaussianBandit(arms=10)
        >>> env.sample_tasks(jax.random.key(0), 3)["means"].shape
        (3, 10)

    References:
        Sutton and Barto, Reinforcement Learning, section 2.3, http://incompleteideas.net/book/the-book-2nd.html
    """

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draw the means."""
        return {"means": jax.random.normal(key, (self.arms,))}

    def pay(self, key: jax.Array, mean: jax.Array) -> jax.Array:
        """Draw around the mean."""
        return mean + jax.random.normal(key)
