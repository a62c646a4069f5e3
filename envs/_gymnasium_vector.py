"""Many of our environments as one of gymnasium's, and gymnasium's with tasks in processes."""

import functools
from collections.abc import Sequence
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState
from gymnasium.vector.utils import batch_space

from jaxmeta._types import PyTree
from jaxmeta.envs._gymnasium import spaces_of, unstack
from jaxmeta.envs._meta_env import MetaEnv, State


class GymVectorEnv(gymnasium.vector.VectorEnv):
    """Many environments with tasks as one `gymnasium.vector.VectorEnv`; a step of all is one XLA program.

    Lane `i` after `reset(seed=s)` does what a `GymEnv` does after `reset(seed=s + i)`.

    Args:
        env: the environment; it must be hashable.
        num_envs: how many.
        autoreset_mode: whether the step after the end of an episode begins the next one ("NextStep"), or the last step
            itself does ("SameStep"), with the last observation and metrics in `final_obs` and `final_info`.

    Example:
        >>> from jaxmeta import envs
        >>> env = GymVectorEnv(envs.make("bandit-bernoulli", arms=2), num_envs=2)
        >>> env.set_task([{"means": np.array([0.0, 1.0])}, {"means": np.array([1.0, 0.0])}])
        >>> obs, infos = env.reset(seed=0)
        >>> obs, rewards, terminations, truncations, infos = env.step(np.array([1, 1]))
        >>> rewards
        array([1., 0.])
    """

    def __init__(
        self, env: MetaEnv, num_envs: int, *, autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP
    ) -> None:
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        if self.autoreset_mode == AutoresetMode.DISABLED:
            raise ValueError("autoreset_mode must be NextStep or SameStep, got Disabled")
        self.env = env
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": self.autoreset_mode}
        self.single_observation_space, self.single_action_space = spaces_of(env)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._tasks: PyTree | None = None
        self._keys: jax.Array | None = None
        self._state: State | None = None

    def sample_tasks(self, num_tasks: int, *, split: str = "train") -> list[PyTree]:
        """Draw tasks; after `reset(seed=...)` the same ones each time."""
        key = jax.random.key(self.np_random.integers(2**31))
        return unstack(self.env.sample_tasks(key, num_tasks, split=split), num_tasks)

    def set_task(self, task: PyTree | Sequence[PyTree]) -> None:
        """Set the task of all environments, or a list of their tasks, from the next resets on; None to draw them."""
        if task is not None:
            task = jax.tree.map(lambda *x: jnp.stack(x), *_one_each(task, self.num_envs))
        self._tasks = task

    def get_task(self) -> list[PyTree]:
        """Return the tasks of the next resets if they are set, else those of these episodes."""
        return unstack(self._now.info["task"] if self._tasks is None else self._tasks, self.num_envs)

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode in each environment.

        Args:
            seed: one for each, or one, to which the lane's number is added.
            options: `{"task": task}` does what `set_task` does.

        Returns:
            The first observations `[num_envs, observation_size]`, and the metrics.
        """
        super().reset(seed=seed if seed is None or isinstance(seed, int) else seed[0])
        if options and "task" in options:
            self.set_task(options["task"])
        if seed is None and self._keys is None:
            seed = self.np_random.integers(2**31, size=self.num_envs).tolist()
        if seed is not None:
            seeds = range(seed, seed + self.num_envs) if isinstance(seed, int) else seed
            if len(seeds) != self.num_envs:
                raise ValueError(f"seed must be one for each of {self.num_envs} environments, got {len(seeds)}")
            self._keys = jax.vmap(jax.random.key)(np.array(seeds, np.uint32))
        self._keys, state = _reset_many(self.env, self._keys, self._tasks)
        self._state = state
        return np.asarray(state.obs), _vector_info(_metrics_of_many(state))

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Do one step in each environment.

        Args:
            actions: a member of `action_space`.

        Returns:
            Observations, rewards, whether episodes have ended by themselves, whether they are truncated, and metrics.
        """
        same_step = self.autoreset_mode == AutoresetMode.SAME_STEP
        arguments = self._keys, self._tasks, self._now, jnp.asarray(actions)
        self._keys, state, result = _step_many(self.env, same_step, *arguments)
        self._state = state
        truncated = np.asarray(result.info["truncation"]) > 0
        over = np.asarray(result.done) > 0
        info = _vector_info(_metrics_of_many(state))
        if same_step and over.any():
            final_obs = np.full(self.num_envs, None, dtype=object)
            for lane in np.flatnonzero(over):
                final_obs[lane] = np.asarray(result.obs)[lane]
            final_info = {name: np.where(over, value, 0) for name, value in _metrics_of_many(result).items()}
            info |= _vector_info({"final_obs": final_obs, "final_info": _vector_info(final_info, over)}, over)
        obs, rewards = np.asarray(state.obs), np.asarray(result.reward, np.float64)
        return obs, rewards, over & ~truncated, truncated, info

    @property
    def _now(self) -> State:
        if self._state is None:
            raise gymnasium.error.ResetNeeded("Call reset() first")
        return self._state


class AsyncVectorEnv(gymnasium.vector.AsyncVectorEnv):
    """gymnasium's `AsyncVectorEnv` of environments with tasks: one process for each.

    They are any gymnasium environments with methods `sample_tasks(num_tasks)`, `set_task(task)` and `get_task()`,
    wrapped as you like. Tasks are drawn by the first one: after `reset(seed=...)`, the same ones each time. For our own
    environments, `GymVectorEnv` does the same work faster.

    Args:
        env_fns: functions that make the environments.
        context: how processes start. Not "fork", which does not go together with JAX's threads.
        **kwargs: other arguments of gymnasium's class.

    Example:
        >>> def make_env():
        ...     env = jaxmeta.envs.GymEnv(jaxmeta.envs.make("half-cheetah-forward-backward"))
        ...     return gymnasium.wrappers.NormalizeObservation(env)
        >>> env = AsyncVectorEnv([make_env for i in range(16)])  # doctest: +SKIP
        >>> tasks = env.sample_tasks(20)  # doctest: +SKIP
        >>> env.set_task(tasks[0])  # all processes run task 0  # doctest: +SKIP
    """

    def __init__(self, env_fns: Sequence[Any], *, context: str = "spawn", **kwargs: Any) -> None:
        super().__init__(env_fns, context=context, **kwargs)

    def sample_tasks(self, num_tasks: int, **options: Any) -> list[PyTree]:
        """Draw tasks; options are those of the environments, such as `split="test"`."""
        return self.call("sample_tasks", num_tasks, **options)[0]

    def set_task(self, task: PyTree | Sequence[PyTree]) -> None:
        """Set the task of all environments, or a list of their tasks."""
        self._assert_is_running()
        if self._state != AsyncState.DEFAULT:
            raise gymnasium.error.AlreadyPendingCallError("set_task while waiting for a call", str(self._state.value))
        for pipe, one in zip(self.parent_pipes, _one_each(task, self.num_envs), strict=True):
            pipe.send(("_call", ("set_task", (one,), {})))
        self._state = AsyncState.WAITING_CALL
        self.call_wait()

    def get_task(self) -> list[PyTree]:
        """Return the tasks of all environments."""
        return list(self.call("get_task"))


def _one_each(task: PyTree | Sequence[PyTree], n: int) -> list[PyTree]:
    if not isinstance(task, list):
        return [task] * n
    if len(task) != n:
        raise ValueError(f"task must be one, or a list of {n}, got a list of {len(task)}")
    return task


def _metrics_of_many(state: State) -> dict[str, Any]:
    return {name: np.asarray(value, np.float64) for name, value in state.metrics.items()}


def _vector_info(values: dict[str, Any], mask: np.ndarray | None = None) -> dict[str, Any]:
    """Gymnasium's form of infos: beside each value, the mask of environments that have it, all by default."""
    info: dict[str, Any] = {}
    for name, value in values.items():
        info[name] = value
        info[f"_{name}"] = np.ones(len(value), bool) if mask is None else mask.copy()
    return info


@functools.partial(jax.jit, static_argnums=0)
def _reset_many(env: MetaEnv, keys: jax.Array, tasks: PyTree) -> tuple[jax.Array, State]:
    """The lanes' next keys, and their first states."""
    keys = jax.vmap(jax.random.split)(keys)
    return keys[:, 0], jax.vmap(env.reset)(keys[:, 1], tasks)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _step_many(
    env: MetaEnv, same_step: bool, keys: jax.Array, tasks: PyTree, state: State, actions: jax.Array
) -> tuple[jax.Array, State, State]:
    """The lanes' next keys, their next states, and the states that the step has led to, before any reset by it."""
    after = jax.vmap(env.step)(state, actions)
    next_keys, first = _reset_many(env, keys, tasks)
    over = (after.done if same_step else state.done) > 0

    def choose(fresh: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(jnp.reshape(over, (-1, *[1] * (fresh.ndim - 1))), fresh, old)

    next_state = jax.tree.map(choose, first, after)
    return choose(next_keys, keys), next_state, after if same_step else next_state
