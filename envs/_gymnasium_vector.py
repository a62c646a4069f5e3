"""Vector environments: ours as one program, and gymnasium's with tasks in one process each."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._checks import check_choice, check_integer
from jaxmeta._types import PyTree
from jaxmeta.envs._gymnasium import reset_needed, spaces_of, unstack
from jaxmeta.envs._meta_env import MetaEnv, State
from jaxmeta.envs._optional import deferred_base

_VectorEnv = deferred_base("gymnasium.vector", "VectorEnv", extra="envs")
_AsyncVectorEnv = deferred_base("gymnasium.vector", "AsyncVectorEnv", extra="envs")


class GymVectorEnv(_VectorEnv):
    """Many copies of an environment with tasks as one `gymnasium.vector.VectorEnv`.

    A step of all copies is one XLA program. Lane `i` after `reset(seed=s)` does what a `GymEnv` does after
    `reset(seed=s + i)`.

    Args:
        env: the environment, which must be hashable.
        num_envs: number of lanes.
        autoreset_mode: `"NextStep"` if the step after the end of an episode starts the next one, or `"SameStep"` if the
            last step itself does, with the last observation and metrics in `final_obs` and `final_info`. Members of
            `gymnasium.vector.AutoresetMode` are accepted too.

    Raises:
        ModuleNotFoundError: if gymnasium is not installed.
        ValueError: if `num_envs` is less than 1, or the mode is another one.

    Example:
        >>> from jaxmeta import envs
        >>> env = GymVectorEnv(envs.make("bandit-bernoulli", arms=2), num_envs=2)
        >>> env.set_task([{"means": np.array([0.0, 1.0])}, {"means": np.array([1.0, 0.0])}])
        >>> obs, infos = env.reset(seed=0)
        >>> obs, rewards, terminations, truncations, infos = env.step(np.array([1, 1]))
        >>> rewards
        array([1., 0.])
    """

    def __init__(self, env: MetaEnv, num_envs: int, *, autoreset_mode: Any = "NextStep") -> None:
        from gymnasium.vector import AutoresetMode
        from gymnasium.vector.utils import batch_space

        check_integer(num_envs=num_envs)
        mode = autoreset_mode.value if isinstance(autoreset_mode, AutoresetMode) else autoreset_mode
        check_choice("autoreset_mode", mode, ("NextStep", "SameStep"))
        self.autoreset_mode = AutoresetMode(mode)
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
        """Draws tasks, which are the same ones after every `reset(seed=...)` with the same seed."""
        key = jax.random.key(self.np_random.integers(2**31))
        return unstack(self.env.sample_tasks(key, num_tasks, split=split), num_tasks)

    def set_task(self, task: PyTree | Sequence[PyTree]) -> None:
        """Sets the tasks from the next resets on.

        Args:
            task: one task for all lanes, a list with a task for each lane, or None to draw a task for each episode.
        """
        if task is not None:
            task = jax.tree.map(lambda *x: jnp.stack(x), *_one_each(task, self.num_envs))
        self._tasks = task

    def get_task(self) -> list[PyTree]:
        """Returns the tasks that were set for the next resets, or else those of the current episodes."""
        return unstack(self._now.info["task"] if self._tasks is None else self._tasks, self.num_envs)

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[PyTree, dict[str, Any]]:
        """Starts an episode in each lane.

        Args:
            seed: a seed for each lane, or one seed, to which the lane's number is added.
            options: `{"task": task}` sets the tasks, as `set_task` does.

        Returns:
            The first observations, leading axis `[num_envs]`, and the metrics.
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
        return jax.tree.map(np.asarray, state.obs), _vector_info(_metrics_of_many(state))

    def step(self, actions: Any) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Takes one step in each lane.

        Args:
            actions: a member of `action_space`.

        Returns:
            Observations, rewards, whether episodes ended by themselves, whether they were truncated, and metrics.
        """
        same_step = self.autoreset_mode.value == "SameStep"
        arguments = self._keys, self._tasks, self._now, jnp.asarray(actions)
        self._keys, state, result = _step_many(self.env, same_step, *arguments)
        self._state = state
        truncated = np.asarray(result.info["truncation"]) > 0
        over = np.asarray(result.done) > 0
        info = _vector_info(_metrics_of_many(state))
        if same_step and over.any():
            final_obs = np.full(self.num_envs, None, dtype=object)
            for lane in np.flatnonzero(over):
                final_obs[lane] = jax.tree.map(lambda x, lane=lane: np.asarray(x)[lane], result.obs)
            final_info = {name: np.where(over, value, 0) for name, value in _metrics_of_many(result).items()}
            info |= _vector_info({"final_obs": final_obs, "final_info": _vector_info(final_info, over)}, over)
        obs, rewards = jax.tree.map(np.asarray, state.obs), np.asarray(result.reward, np.float64)
        return obs, rewards, over & ~truncated, truncated, info

    @property
    def _now(self) -> State:
        if self._state is None:
            raise reset_needed()
        return self._state


class AsyncVectorEnv(_AsyncVectorEnv):
    """gymnasium's `AsyncVectorEnv` for environments with tasks, each in its own process.

    It takes any gymnasium environments with methods `sample_tasks(num_tasks)`, `set_task(task)` and `get_task()`, with
    any wrappers. The first environment draws the tasks, which are the same ones after every `reset(seed=...)` with the
    same seed. For environments of jaxmeta, `GymVectorEnv` is faster.

    Args:
        env_fns: functions that make the environments.
        context: start method of the processes. Do not use `"fork"`, which does not work with JAX's threads.
        **kwargs: other arguments of gymnasium's class.

    Raises:
        ModuleNotFoundError: if gymnasium is not installed.

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
        """Draws tasks. The options are those of the environments, such as `split="test"`."""
        return self.call("sample_tasks", num_tasks, **options)[0]

    def set_task(self, task: PyTree | Sequence[PyTree]) -> None:
        """Sets one task for all environments, or a list with a task for each."""
        from gymnasium.error import AlreadyPendingCallError
        from gymnasium.vector.async_vector_env import AsyncState

        self._assert_is_running()
        if self._state != AsyncState.DEFAULT:
            raise AlreadyPendingCallError("set_task while waiting for a call", str(self._state.value))
        for pipe, one in zip(self.parent_pipes, _one_each(task, self.num_envs), strict=True):
            pipe.send(("_call", ("set_task", (one,), {})))
        self._state = AsyncState.WAITING_CALL
        self.call_wait()

    def get_task(self) -> list[PyTree]:
        """Returns the tasks of all environments."""
        return list(self.call("get_task"))


def _one_each(task: PyTree | Sequence[PyTree], n: int) -> list[PyTree]:
    """Returns a list with a task for each of `n` environments."""
    if not isinstance(task, list):
        return [task] * n
    if len(task) != n:
        raise ValueError(f"task must be one task or a list of {n}, got a list of {len(task)}")
    return task


def _metrics_of_many(state: State) -> dict[str, Any]:
    return {name: np.asarray(value, np.float64) for name, value in state.metrics.items()}


def _vector_info(values: dict[str, Any], mask: np.ndarray | None = None) -> dict[str, Any]:
    """Returns infos in gymnasium's form: each value comes with a mask of the lanes that have it, all by default."""
    info: dict[str, Any] = {}
    for name, value in values.items():
        info[name] = value
        info[f"_{name}"] = np.ones(len(value), bool) if mask is None else mask.copy()
    return info


@functools.partial(jax.jit, static_argnums=0)
def _reset_many(env: MetaEnv, keys: jax.Array, tasks: PyTree) -> tuple[jax.Array, State]:
    """Returns the lanes' next keys and their first states."""
    keys = jax.vmap(jax.random.split)(keys)
    return keys[:, 0], jax.vmap(env.reset)(keys[:, 1], tasks)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _step_many(
    env: MetaEnv, same_step: bool, keys: jax.Array, tasks: PyTree, state: State, actions: jax.Array
) -> tuple[jax.Array, State, State]:
    """Returns the lanes' next keys, their next states, and the states after the step before any reset."""
    after = jax.vmap(env.step)(state, actions)
    next_keys, first = _reset_many(env, keys, tasks)
    over = (after.done if same_step else state.done) > 0

    def choose(fresh: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(jnp.reshape(over, (-1, *[1] * (fresh.ndim - 1))), fresh, old)

    next_state = jax.tree.map(choose, first, after)
    return choose(next_keys, keys), next_state, after if same_step else next_state
