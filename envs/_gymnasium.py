"""Adapter from environments with tasks to `gymnasium.Env`."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._checks import check_choice
from jaxmeta._types import PyTree
from jaxmeta.display import brief
from jaxmeta.envs._meta_env import MetaEnv, State
from jaxmeta.envs._optional import deferred_base

_Env = deferred_base("gymnasium", "Env", extra="envs")


class GymEnv(_Env):
    """Environment with tasks as a `gymnasium.Env`.

    Until `set_task` is called, every episode has its own task, drawn from the train split.

    Args:
        env: the environment, which must be hashable.
        render_mode: `"rgb_array"` to use `render()`, if the environment has a method `render`.

    Raises:
        ModuleNotFoundError: if gymnasium is not installed.
        ValueError: if the environment does not have the render mode.

    Example:
        >>> from jaxmeta import envs
        >>> env = GymEnv(envs.make("particles2d"))
        >>> env.set_task({"goal": np.array([0.3, 0.4])})
        >>> obs, info = env.reset(seed=0)
        >>> obs, reward, terminated, truncated, info = env.step(np.array([1.0, 0.0], np.float32))
        >>> obs, terminated, truncated
        (array([0.1, 0. ], dtype=float32), False, False)
    """

    def __init__(self, env: MetaEnv, *, render_mode: str | None = None) -> None:
        modes = ["rgb_array"] if hasattr(env, "render") else []
        check_choice("render_mode", render_mode, (None, *modes))
        self.metadata = {"render_modes": modes, "render_fps": 20}
        self.render_mode = render_mode
        self.observation_space, self.action_space = spaces_of(env)
        self.env = env
        self._task: PyTree | None = None
        self._key: jax.Array | None = None
        self._states: list[State] = []  # of the episode so far, or only the last one if nothing is rendered

    def sample_tasks(self, num_tasks: int, *, split: str = "train") -> list[PyTree]:
        """Draws tasks, which are the same ones after every `reset(seed=...)` with the same seed."""
        key = jax.random.key(self.np_random.integers(2**31))
        return unstack(self.env.sample_tasks(key, num_tasks, split=split), num_tasks)

    def set_task(self, task: PyTree) -> None:
        """Sets the task of all episodes from the next reset on; None draws a new task for each episode."""
        self._task = task

    def get_task(self) -> PyTree:
        """Returns the task that was set for the next reset, or else the task of this episode."""
        return self._last.info["task"] if self._task is None else self._task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[PyTree, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: seed of all further randomness of the environment.
            options: `{"task": task}` sets the task, as `set_task` does.

        Returns:
            The first observation, and the metrics.
        """
        super().reset(seed=seed)
        if options and "task" in options:
            self.set_task(options["task"])
        if seed is not None or self._key is None:
            self._key = jax.random.key(self.np_random.integers(2**31) if seed is None else seed)
        self._key, key = jax.random.split(self._key)
        state = _reset(self.env, key, self._task)
        self._states = [state]
        return jax.tree.map(np.asarray, state.obs), _metrics(state)

    def step(self, action: Any) -> tuple[PyTree, float, bool, bool, dict[str, Any]]:
        """Takes one step.

        Args:
            action: a member of `action_space`. Numbers outside of it are clipped.

        Returns:
            Observation, reward, whether the episode ended by itself, whether it was truncated, and the metrics.
        """
        state = _step(self.env, self._last, jnp.asarray(action))
        self._states = [*self._states, state] if self.render_mode else [state]
        truncated = bool(state.info["truncation"])
        terminated = bool(state.done) and not truncated
        return jax.tree.map(np.asarray, state.obs), float(state.reward), terminated, truncated, _metrics(state)

    def render(self) -> np.ndarray | None:
        """Draws the episode so far, or its last state, as an image `[height, width, 3]` of uint8."""
        if self.render_mode is None:
            return None
        draw: Any = self.env
        return draw.render([*self._states[:-1], self._last])

    @property
    def _last(self) -> State:
        if not self._states:
            raise reset_needed()
        return self._states[-1]


def reset_needed() -> Exception:
    """Returns gymnasium's error for a call before the first reset."""
    from gymnasium.error import ResetNeeded

    return ResetNeeded("Call reset() first")


def spaces_of(env: MetaEnv) -> tuple[Any, Any]:
    """Returns gymnasium's spaces of observations and actions."""
    from gymnasium import spaces

    if not hasattr(env, "observation_size"):
        raise TypeError(f"env must be an environment of jaxmeta, such as make('cartpole'), got {brief(env)}")
    size = env.observation_size
    if isinstance(size, int):
        observations = spaces.Box(-np.inf, np.inf, (size,), np.float32)
    else:
        observations = _space_of(jax.eval_shape(env.reset, jax.random.key(0)).obs)
    if env.discrete:
        return observations, spaces.Discrete(env.action_size)
    return observations, spaces.Box(-1, 1, (env.action_size,), np.float32)


def _space_of(obs: PyTree) -> Any:
    """Returns gymnasium's space of arrays of any type, or of dictionaries of them, given their shapes."""
    from gymnasium import spaces

    if isinstance(obs, Mapping):
        return spaces.Dict({name: _space_of(part) for name, part in obs.items()})
    if jnp.issubdtype(obs.dtype, jnp.integer):
        limits = jnp.iinfo(obs.dtype)
        return spaces.Box(limits.min, limits.max, obs.shape, obs.dtype)
    return spaces.Box(-np.inf, np.inf, obs.shape, obs.dtype)


def unstack(tasks: PyTree, n: int) -> list[PyTree]:
    """Returns stacked tasks as a list of trees of NumPy arrays."""
    tasks = jax.tree.map(np.asarray, tasks)
    return [jax.tree.map(lambda x, i=i: x[i], tasks) for i in range(n)]


def _metrics(state: State) -> dict[str, Any]:
    return {name: float(value) for name, value in state.metrics.items()}


@functools.partial(jax.jit, static_argnums=0)
def _reset(env: MetaEnv, key: jax.Array, task: PyTree) -> State:
    return env.reset(key, task)


@functools.partial(jax.jit, static_argnums=0)
def _step(env: MetaEnv, state: State, action: jax.Array) -> State:
    return env.step(state, action)
