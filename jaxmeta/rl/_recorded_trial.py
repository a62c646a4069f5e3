"""Trials that keep the environment's observation after each step, also after the one that ends an episode."""

import dataclasses
from typing import Any, cast

import jax

from jaxmeta._types import PyTree
from jaxmeta.envs import MetaEnv, State
from jaxmeta.rl._belief import BeliefPolicy
from jaxmeta.rl._rollout import Trajectory, rollout
from jaxmeta.rl._trial import Trial


class _Recorded:
    """Environment that puts its observations into the metrics, because a trial shows that of a reset instead.

    The observation that ends an episode may be the one that earned its reward.
    """

    def __init__(self, env: MetaEnv) -> None:
        self.env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, key: jax.Array, task: PyTree | None = None) -> State:
        """Starts an episode."""
        return _with_obs(self.env.reset(key, task))

    def step(self, state: State, action: jax.Array) -> State:
        """Takes one step."""
        return _with_obs(self.env.step(state, action))


def _with_obs(state: State) -> State:
    return dataclasses.replace(state, metrics={**state.metrics, "obs": state.obs})


def play_recorded(trial: Trial, policy: BeliefPolicy, params: PyTree, tasks: PyTree, keys: jax.Array) -> Trajectory:
    """Plays one trial of each task, `[T, num_tasks]`, with the environment's observations as `next_obs`."""
    recorded = Trial(cast(MetaEnv, _Recorded(trial.env)), trial.episodes)

    def play(task: PyTree, key: jax.Array) -> Trajectory:
        memory = policy.empty_memory(1)
        data = rollout(recorded, policy.apply, params, task, key, episodes=1, memory=memory, states=True)
        return data._replace(next_obs=data.states.metrics["obs"], states=None)

    data = jax.vmap(play, out_axes=1)(tasks, keys)
    return jax.tree.map(lambda x: x[:, :, 0], data)
