"""Evaluation of policies that learn within a trial: the return of its first, second, ... episode."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from jaxmeta._parallel import constrain, map_tasks
from jaxmeta._types import MetaParams, PyTree
from jaxmeta.display import brief
from jaxmeta.envs import State
from jaxmeta.rl._evaluate import ReturnCurve
from jaxmeta.rl._rl2 import seeing
from jaxmeta.rl._rollout import Trajectory, rollout
from jaxmeta.rl._trial import Trial, check_trial


class PlayTrial(Protocol):
    """Function that plays one trial, for policies that `trial_curve` cannot play by itself."""

    def __call__(
        self, trial: Trial, params: PyTree, task: PyTree, key: jax.Array, /, *, mode: bool, states: bool
    ) -> Trajectory:
        """Plays one trial.

        Args:
            trial: the trial that is played.
            params: parameters of the policy.
            task: the environment's task.
            key: a random key.
            mode: whether to take the most probable actions instead of sampled ones.
            states: whether to keep the states of the trial.

        Returns:
            What `rollout(trial, ..., episodes=1)` returns, `[T, 1]`.
        """
        ...


def trial_curve(
    trial: Trial, policy: nn.Module | PlayTrial, *, states: bool = False, mesh: Mesh | None = None
) -> Callable[[MetaParams, PyTree, jax.Array], ReturnCurve]:
    """Builds an evaluation of a policy that learns within a trial, such as that of `rl2`.

    Args:
        trial: the trial.
        policy: a network with a memory, such as `RecurrentPolicy`, or a function that plays a trial, see `PlayTrial`.
        states: whether to keep the states of the trial with the most probable actions, each episode by itself. An
            episode that is over stays in its last state.
        mesh: devices that share the tasks, see `maml_trpo`.

    Returns:
        `(meta, tasks, key) -> ReturnCurve`, a pure function to jit. `sampled` are the returns of the episodes of one
        trial in each task. `mode` are those of another one, which is played with the most probable actions throughout.

    Raises:
        TypeError: if `trial` is no `Trial`, or `policy` is neither of the two.

    Example:
        >>> from jaxmeta import envs, rl
        >>> trial = rl.Trial(envs.make("bandit-bernoulli", horizon=4), episodes=3)
        >>> policy = rl.RecurrentPolicy(trial.action_size, trial.discrete, rl.GRU(8))
        >>> obs = jnp.zeros((1, trial.observation_size))
        >>> params = jax.jit(policy.init)(jax.random.key(0), obs, policy.empty_memory(1))
        >>> run = jax.jit(trial_curve(trial, policy))
        >>> tasks = trial.sample_tasks(jax.random.key(1), 5, split="test")
        >>> curve = run(MetaParams(params), tasks, jax.random.key(2))
        >>> curve.episodes.tolist(), curve.sampled.shape
        ([0, 1, 2], (5, 3))
    """
    check_trial(trial)
    play = _player(policy)
    filmed: Any = _Filmed(trial)  # offers all that a trial does

    def in_task(meta: MetaParams, task: PyTree, key: jax.Array) -> tuple[jax.Array, jax.Array, Any]:
        sample_key, mode_key = jax.random.split(key)
        sampled = play(trial, meta, task, sample_key, mode=False, states=False)
        mode = play(filmed if states else trial, meta, task, mode_key, mode=True, states=states)
        kept = _by_episode(trial, mode) if states else None
        return trial.episode_returns(sampled)[0], trial.episode_returns(mode)[0], kept

    def run(meta: MetaParams, tasks: PyTree, key: jax.Array) -> ReturnCurve:
        found = map_tasks(partial(in_task, meta), tasks, key, mesh)
        return constrain(ReturnCurve(jnp.arange(trial.episodes), *found), mesh)

    return run


def _player(policy: Any) -> Any:
    """Returns the function that plays a trial with a policy."""
    if isinstance(policy, type) or not hasattr(policy, "empty_memory"):
        if isinstance(policy, type | nn.Module) or not callable(policy):
            told = "policy must be a network with a memory, such as a RecurrentPolicy, or a function that plays a trial"
            raise TypeError(f"{told}, got {brief(policy)}")
        return lambda trial, meta, *args, **options: policy(trial, meta.params, *args, **options)

    def play(trial: Trial, meta: MetaParams, task: PyTree, key: jax.Array, *, mode: bool, states: bool) -> Trajectory:
        options: dict[str, Any] = {"episodes": 1, "memory": policy.empty_memory(1), "mode": mode, "states": states}
        return rollout(trial, seeing(policy, meta.state), meta.params, task, key, **options)

    return play


class _Filmed:
    """Trial that also keeps the state with which an episode ends, in whose place a trial has that of the next reset."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trial, name)

    def reset(self, key: jax.Array, task: PyTree | None = None) -> State:
        """Starts a trial."""
        state = self.trial.reset(key, task)
        return _with_last(state, state.pipeline_state[0])

    def step(self, state: State, action: jax.Array) -> State:
        """Takes one step. The environment's is written twice, and computed once by the compiled program."""
        last = self.trial.env.step(state.pipeline_state[0], action)
        return _with_last(self.trial.step(state, action), last)


def _with_last(state: State, last: State) -> State:
    return dataclasses.replace(state, info={**state.info, "last": last})


def _by_episode(trial: Trial, data: Trajectory) -> Any:
    """Returns the environment's states of a trial `[T, 1]` as those of its episodes, `[episodes, horizon]`."""
    over = data.states.info["episode"][:, 0]  # number of episodes that are over after each step
    episode = jnp.concatenate([jnp.zeros(1), over[:-1]])[None]  # number of the episode of each step
    number = jnp.arange(trial.episodes)[:, None]
    first = jnp.sum(episode < number, axis=1, keepdims=True)  # [episodes, 1]
    final = jnp.sum((episode <= number) & data.valid[None, :, 0], axis=1, keepdims=True) - 1
    steps = jnp.minimum(first + jnp.arange(trial.env.horizon)[None], final)  # [episodes, horizon]
    return jax.tree.map(lambda x: x[:, 0][steps], data.states.info["last"])
