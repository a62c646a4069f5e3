"""Trials: sequences of episodes in one task, over which a recurrent policy keeps its memory."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_integer
from jaxmeta._types import PyTree
from jaxmeta.display import brief, short_repr
from jaxmeta.envs import MetaEnv, ObservationSize, State
from jaxmeta.rl._rollout import Trajectory, check_env


def check_trial(trial: Any) -> None:
    """Raises TypeError unless a value is a `Trial`."""
    if not isinstance(trial, Trial):
        raise TypeError(f"trial must be a Trial(env, episodes), got {brief(trial)}")


@dataclass(frozen=True)
class Trial:
    """Environment whose episodes are trials: `episodes` consecutive episodes of one task, each from its own reset.

    An observation consists of the environment's observation, the last action (one-hot if discrete), the last reward,
    and a flag, 1.0 or 0.0, that tells whether the last step ended an episode. If the environment has vectors, this is
    one vector. Else it is `{"obs": ..., "last": [action_size + 2]}`. A trial terminates after its last episode.

    Attributes:
        env: the environment.
        episodes: number of episodes in a trial.

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

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_env(self.env)
        check_integer(episodes=self.episodes)

    @property
    def observation_size(self) -> ObservationSize:
        """Length of an observation: that of the environment, plus the action, the reward and the flag."""
        size, last = self.env.observation_size, self.env.action_size + 2
        return size + last if isinstance(size, int) else {"obs": size, "last": last}

    @property
    def action_size(self) -> int:
        """Numbers in an action of the environment, or its number of discrete actions."""
        return self.env.action_size

    @property
    def discrete(self) -> bool:
        """Flag of discrete actions."""
        return self.env.discrete

    @property
    def horizon(self) -> int:
        """Largest number of steps in a trial."""
        return self.episodes * self.env.horizon

    def sample_tasks(self, key: jax.Array, n: int, *, split: str = "train") -> PyTree:
        """Draws `n` tasks of the environment."""
        return self.env.sample_tasks(key, n, split=split)

    def reset(self, key: jax.Array, task: PyTree | None = None) -> State:
        """Starts a trial."""
        reset_key, key = jax.random.split(key)
        state = self.env.reset(reset_key, task)
        last = jnp.zeros(self.env.action_size)
        obs = self._observe(state.obs, last, jnp.zeros(()), jnp.zeros(()))
        # A buffer twice in a state could not be donated.
        task, metrics = jax.tree.map(jnp.copy, (state.info["task"], state.metrics))
        info = {"task": task, **{name: jnp.zeros(()) for name in ("steps", "truncation", "episode")}}
        return State((state, key), obs, jnp.zeros(()), jnp.zeros(()), metrics, info)

    def step(self, state: State, action: jax.Array) -> State:
        """Takes one step.

        After the last step of an episode, the observation is the first one of the next episode.
        """
        before, key = state.pipeline_state
        reset_key, key = jax.random.split(key)
        after = self.env.step(before, action)
        over = after.done > 0
        # The shapes of the program are fixed, so every step computes a reset, although few of them are used.
        fresh = self.env.reset(reset_key, state.info["task"])
        now = jax.tree.map(lambda new, old: jnp.where(over, new, old), fresh, after)

        episode = state.info["episode"] + over
        last = jax.nn.one_hot(action, self.env.action_size) if self.env.discrete else action
        return State(
            (now, key),
            self._observe(now.obs, last, after.reward, over.astype(float)),
            after.reward,
            (episode >= self.episodes).astype(float),
            after.metrics,
            {**state.info, "steps": state.info["steps"] + 1, "episode": episode},
        )

    def episode_returns(self, trajectory: Trajectory) -> jax.Array:
        """Returns the undiscounted sum of the rewards of each episode of each trial, `[E, episodes]`.

        Args:
            trajectory: a result of `rollout` in trials.
        """
        last = trajectory.obs if isinstance(self.observation_size, int) else trajectory.obs["last"]
        ended = last[..., -1].astype(int)  # the flag of the last step, see the class
        in_episode = jax.nn.one_hot(jnp.cumsum(ended, axis=0), self.episodes, dtype=bool)
        return jnp.sum(jnp.where(in_episode, trajectory.reward[..., None], 0), axis=0)

    def _observe(self, obs: PyTree, action: jax.Array, reward: jax.Array, over: jax.Array) -> PyTree:
        last = action, reward[None], over[None]
        if isinstance(self.observation_size, int):
            return jnp.concatenate([obs, *last])
        return {"obs": obs, "last": jnp.concatenate(last)}
