"""Our environments as gymnasium's."""

import functools
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from jaxmeta._types import PyTree
from jaxmeta.envs._meta_env import MetaEnv, State


class GymEnv(gymnasium.Env):
    """An environment with tasks as a `gymnasium.Env`.

    Until `set_task` is called, every episode is of a task of its own, drawn from the train split.

    Args:
        env: the environment; it must be hashable.
        render_mode: "rgb_array" for `render()`, if the environment has a method `render`, else None.

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
        if render_mode is not None and render_mode not in modes:
            raise ValueError(f"render_mode must be one of {[None, *modes]} for this environment, got {render_mode!r}")
        self.metadata = {"render_modes": modes, "render_fps": 20}
        self.render_mode = render_mode
        self.observation_space, self.action_space = spaces_of(env)
        self.env = env
        self._task: PyTree | None = None
        self._key: jax.Array | None = None
        self._states: list[State] = []  # of the episode so far; the last one only, if there is nothing to render

    def sample_tasks(self, num_tasks: int, *, split: str = "train") -> list[PyTree]:
        """Draw tasks; after `reset(seed=...)` the same ones each time."""
        key = jax.random.key(self.np_random.integers(2**31))
        return unstack(self.env.sample_tasks(key, num_tasks, split=split), num_tasks)

    def set_task(self, task: PyTree) -> None:
        """Set the task of all episodes from the next reset on; None for a new one each time."""
        self._task = task

    def get_task(self) -> PyTree:
        """Return the task of the next reset if it is set, else that of this episode."""
        return self._last.info["task"] if self._task is None else self._task

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: what the rest of the environment's randomness follows from.
            options: `{"task": task}` does what `set_task` does.

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
        return np.asarray(state.obs), _metrics(state)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Do one step.

        Args:
            action: a member of `action_space`; beyond it, it is clipped.

        Returns:
            Observation, reward, whether the episode has ended by itself, whether it is truncated, and the metrics.
        """
        state = _step(self.env, self._last, jnp.asarray(action))
        self._states = [*self._states, state] if self.render_mode else [state]
        truncated = bool(state.info["truncation"])
        terminated = bool(state.done) and not truncated
        return np.asarray(state.obs), float(state.reward), terminated, truncated, _metrics(state)

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Draw the episode so far, or its last state, `[height, width, 3]` of uint8."""
        if self.render_mode is None:
            return None
        return self.env.render([*self._states[:-1], self._last])  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def _last(self) -> State:
        if not self._states:
            raise gymnasium.error.ResetNeeded("Call reset() first")
        return self._states[-1]


def spaces_of(env: MetaEnv) -> tuple[spaces.Box, spaces.Box | spaces.Discrete]:
    """Of observations, and of actions."""
    observations = spaces.Box(-np.inf, np.inf, (env.observation_size,), np.float32)
    if env.discrete:
        return observations, spaces.Discrete(env.action_size)
    return observations, spaces.Box(-1, 1, (env.action_size,), np.float32)


def unstack(tasks: PyTree, n: int) -> list[PyTree]:
    """The tasks as a list, of numpy arrays."""
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
