"""TabularMDP: random Markov decision processes with few states."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_integer, check_not_negative
from jaxmeta._types import PyTree
from jaxmeta.envs._base import BaseEnv, Outcome


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabularMDP(BaseEnv):
    """Random Markov decision process with few states.

    The task is `{"transitions": [states, actions, states], "rewards": [states, actions]}`: the probabilities of the
    next state, from a flat Dirichlet distribution, and the mean rewards, from N(1, 1). Episodes start in state 0. An
    observation is the state, one-hot `[states]`.

    Args:
        horizon: number of steps after which an episode is truncated.
        states: number of states.
        actions: number of actions.
        noise: standard deviation of a reward around its mean.

    Example:
        >>> env = TabularMDP(states=2, actions=1, noise=0.0)
        >>> swap = {"transitions": jnp.array([[[0.0, 1.0]], [[1.0, 0.0]]]), "rewards": jnp.array([[5.0], [0.0]])}
        >>> state = env.step(env.reset(jax.random.key(0), swap), jnp.array(0))
        >>> print(state.obs, state.reward)
        [0. 1.] 5.0

    References:
        Duan, Schulman, Chen, Bartlett, Sutskever & Abbeel, *RL^2: Fast Reinforcement Learning via Slow Reinforcement
        Learning*, 2016, https://arxiv.org/abs/1611.02779

        Osband, Russo & Van Roy, *(More) Efficient Reinforcement Learning via Posterior Sampling*, NeurIPS 2013,
        https://arxiv.org/abs/1306.0940
    """

    horizon: int = 10
    states: int = 10
    actions: int = 5
    noise: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(states=self.states, actions=self.actions)
        check_not_negative(noise=self.noise)

    @property
    def observation_size(self) -> int:
        """Length of an observation, the number of states."""
        return self.states

    @property
    def action_size(self) -> int:
        """Number of actions."""
        return self.actions

    @property
    def discrete(self) -> bool:
        """Flag of discrete actions."""
        return True

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draws transition probabilities and mean rewards."""
        key_transitions, key_rewards = jax.random.split(key)
        weights = jax.random.exponential(key_transitions, (self.states, self.actions, self.states))
        return {
            "transitions": weights / jnp.sum(weights, -1, keepdims=True),
            "rewards": 1 + jax.random.normal(key_rewards, (self.states, self.actions)),
        }

    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, jax.Array]:
        """Starts an episode in state 0."""
        start = jnp.zeros((), int)
        return (key, start), self._observe(start)

    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Draws the next state and the reward."""
        key, state = pipeline_state
        key, key_state, key_reward = jax.random.split(key, 3)
        reward = task["rewards"][state, action] + self.noise * jax.random.normal(key_reward)
        state = jax.random.categorical(key_state, jnp.log(task["transitions"][state, action]))
        return Outcome((key, state), self._observe(state), reward, jnp.array(False))

    def _observe(self, state: jax.Array) -> jax.Array:
        return jax.nn.one_hot(state, self.states)
