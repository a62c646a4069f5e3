"""Trials: several episodes of one task in a row, through which a policy with a memory learns."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_integer
from jaxmeta._types import PyTree
from jaxmeta.envs import MetaEnv, State


@dataclass(frozen=True)
class Trial:
    """An environment whose episodes are trials: `episodes` episodes of the same task, each from a reset of its own.

    An observation is the environment's, the last action (one-hot if discrete), the last reward, and whether the last
    step ended an episode: 1.0 or 0.0. A trial that has had its episodes is terminated.

    Attributes:
        env: the environment.
        episodes: how many to a trial.

    Raises:
        ValueError: if `episodes` is less than 1.

    Example:
        >>> from jaxmeta import envs
        >>> trial = Trial(envs.make("particles2d", horizon=10), episodes=2)
        >>> state = trial.reset(jax.random.key(0))
        >>> state.obs.shape, trial.horizon
        ((6,), 20)

    References:
        Duan et al., *RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning*, 2016,
        https://arxiv.org/abs/1611.02779
    """

    env: MetaEnv
    episodes: int = 1

    def __post_init__(self) -> None:
        check_integer(episodes=self.episodes)

    @property
    def observation_size(self) -> int:
        """The environment's, and last action, reward and end."""
        return self.env.observation_size + self.env.action_size + 2

    @property
    def action_size(self) -> int:
        """The environment's."""
        return self.env.action_size

    @property
    def discrete(self) -> bool:
        """The environment's."""
        return self.env.discrete

    @property
    def horizon(self) -> int:
        """The most steps that a trial can have."""
        return self.episodes * self.env.horizon

    def sample_tasks(self, key: jax.Array, n: int, *, split: str = "train") -> PyTree:
        """Draw `n` tasks of the environment."""
        return self.env.sample_tasks(key, n, split=split)

    def reset(self, key: jax.Array, task: PyTree | None = None) -> State:
        """Begin a trial."""
        reset_key, key = jax.random.split(key)
        state = self.env.reset(reset_key, task)
        last = jnp.zeros(self.env.action_size)
        zero = jnp.zeros(())
        info = {"task": state.info["task"], "steps": zero, "truncation": zero, "episode": zero}
        return State((state, key), _beside(state.obs, last, zero, zero), zero, zero, state.metrics, info)

    def step(self, state: State, action: jax.Array) -> State:
        """Do one step; after the last one of an episode, the observation is the first one of the next."""
        before, key = state.pipeline_state
        reset_key, key = jax.random.split(key)
        after = self.env.step(before, action)
        over = after.done > 0
        # A reset in every step, of which few are used: the price of new starts in a program of fixed shape.
        fresh = self.env.reset(reset_key, state.info["task"])
        now = jax.tree.map(lambda new, old: jnp.where(over, new, old), fresh, after)

        episode = state.info["episode"] + over
        last = jax.nn.one_hot(action, self.env.action_size) if self.env.discrete else action
        return State(
            (now, key),
            _beside(now.obs, last, after.reward, over.astype(float)),
            after.reward,
            (episode >= self.episodes).astype(float),
            after.metrics,
            {**state.info, "steps": state.info["steps"] + 1, "episode": episode},
        )


def _beside(obs: jax.Array, action: jax.Array, reward: jax.Array, over: jax.Array) -> jax.Array:
    return jnp.concatenate([obs, action, reward[None], over[None]])
