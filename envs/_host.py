"""Environments outside of JAX, such as those of gymnasium and Meta-World, for the learners."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._checks import check_choice, check_function, check_installed, check_integer, check_optional_integer
from jaxmeta._types import PyTree
from jaxmeta.envs._base import SPLITS
from jaxmeta.envs._host_simulators import Blueprint, find_method
from jaxmeta.envs._host_spaces import actions_of, check_interface, horizon_of, name_of, observations_of
from jaxmeta.envs._host_tasks import HostTasks
from jaxmeta.envs._host_workers import Workers
from jaxmeta.envs._meta_env import State


class HostEnv:
    """Family of environments outside of JAX, as a `MetaEnv` that every learner trains on.

    The environments have the interface of gymnasium, and run on the host, in worker processes if you like. `reset` and
    `step` work under `jax.jit`, `jax.vmap` and `jax.lax.scan`. A step of a whole batch is one call to the host, which
    divides the batch among the processes.

    A `HostEnv` is a pure function of its key, its task and its actions if the simulator is one: `reset` of the
    environment gets a seed that is made from the key. States are handles of episodes on the host. You may step one
    twice, which plays the episode again until there. A state can be stepped until the environment is closed, and until
    thousands of other episodes have begun. An episode that has ended is not stepped any more, and keeps its last
    observation. `rl.Trial` computes a reset at every step, so `rl2` needs an environment with cheap resets.

    Args:
        make: function that makes an environment. It and the next two are sent to the processes, so they must not hold
            what cannot be pickled. Simulators must not use JAX unless `processes` is more than 1.
        sample_tasks: function `(rng, n, split) -> tasks` of a `numpy.random.Generator` that draws `n` tasks for split
            `"train"` or `"test"`: a list of trees of numbers and arrays, or one tree of arrays with leading axis
            `[n]`. A list of other objects is accepted too, see `tasks_of`. If `None`, the environment draws them with
            its method `sample_tasks(n)` or `sample_tasks(n, split=split)`, after `reset(seed=...)`.
        set_task: function `(env, task)` that sets the task of an environment before a reset; the environment's method
            `set_task(task)` if `None`.
        processes: number of worker processes. With 1 the environments run in this process.
        horizon: number of steps after which an episode is truncated; that of the environment's `spec` if `None`.
        flatten: whether observations are vectors. If not, they keep their shape, and integers of 8 bits their type.
        metrics: names of the numbers in the environment's `info` that become `state.metrics`, 0 after a reset.

    Raises:
        ModuleNotFoundError: if gymnasium is not installed.
        TypeError: if the environment has no tasks, or spaces that are not supported.
        ValueError: if a number is out of range, there is no horizon, bounds of actions are infinite, or tasks differ in
            their shapes or are not determined by `rng`.

    Example:
        >>> import gymnasium
        >>> def draw(rng, n, split):
        ...     return {"gravity": rng.uniform(5, 15, n)}
        >>> def set_gravity(env, task):
        ...     env.unwrapped.g = float(task["gravity"])
        >>> env = HostEnv(lambda: gymnasium.make("Pendulum-v1"), draw, set_gravity)
        >>> tasks = env.sample_tasks(jax.random.key(0), 3)
        >>> state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(1), 3), tasks)
        >>> state = jax.jit(jax.vmap(env.step))(state, jnp.zeros((3, 1)))
        >>> state.obs.shape, env.horizon
        ((3, 3), 200)
    """

    def __init__(
        self,
        make: Callable[[], Any],
        sample_tasks: Callable[[np.random.Generator, int, str], Any] | None = None,
        set_task: Callable[[Any, Any], None] | None = None,
        *,
        processes: int = 1,
        horizon: int | None = None,
        flatten: bool = True,
        metrics: Sequence[str] = (),
    ) -> None:
        check_installed("gymnasium", "HostEnv", "envs")
        check_function(make=make)
        given = {"sample_tasks": sample_tasks, "set_task": set_task}
        check_function(**{name: function for name, function in given.items() if function is not None})
        (processes,) = check_integer(processes=processes)
        check_optional_integer(horizon=horizon)
        env = make()
        check_interface(env)
        for name, function in given.items():
            if function is None:
                find_method(env, name)
        self._name = name_of(env)
        self._shape, self._obs_dtype = observations_of(env, flatten)
        action, self._action_size = actions_of(env)
        self._discrete = isinstance(action, int)
        self.flatten = flatten
        self._horizon = horizon_of(env) if horizon is None else horizon
        self._metrics = tuple(metrics)
        if getattr(env, "render_mode", None) == "rgb_array":
            self.render = self._render  # films ask whether there is such a method
        env.close()
        facts = self._horizon, self._shape, self._obs_dtype.str, action, self._metrics
        self.blueprint = Blueprint(make, sample_tasks, set_task, *facts)  # public: a run is known by such attributes
        self._tasks = HostTasks(self._name, self.blueprint)
        self._workers = Workers(self._name, self.blueprint, processes)

    @property
    def observation_size(self) -> Any:
        """Length of an observation, or its shape if observations are not flattened."""
        return math.prod(self._shape) if self.flatten else self._shape

    @property
    def action_size(self) -> int:
        """Numbers in an action, each in [-1, 1] and scaled to the bounds, or the number of discrete actions."""
        return self._action_size

    @property
    def discrete(self) -> bool:
        """Flag of discrete actions, integers `[]` below `action_size`."""
        return self._discrete

    @property
    def horizon(self) -> int:
        """Number of steps after which an episode is truncated."""
        return self._horizon

    @property
    def processes(self) -> int:
        """Number of worker processes."""
        return self._workers.processes

    def __repr__(self) -> str:
        return f"HostEnv({self._name!r}, processes={self.processes})"

    def sample_tasks(self, key: jax.Array, n: int, *, split: str = "train") -> PyTree:
        """Draws `n` tasks.

        Args:
            key: a random key.
            n: number of tasks.
            split: `"train"` or `"test"`.

        Returns:
            The tasks, stacked on the first axis.
        """
        check_integer(n=n)
        check_choice("split", split, SPLITS)
        canonical = jax.dtypes.canonicalize_dtype
        result = jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape), canonical(x.dtype)), self._tasks.example)

        def draw(words: jax.Array) -> PyTree:
            return self._tasks.draw(self._workers, np.asarray(words), n, split, result)

        return _call(draw, result, jax.random.bits(key, (2,), jnp.uint32))

    def tasks_of(self, tasks: PyTree) -> list[Any]:
        """Returns stacked tasks as the list of what the environment takes as its tasks.

        For tasks that are not made of numbers, such as Meta-World's, `sample_tasks` returns what they are drawn from:
        `{"draw": [n, 4], "index": [n]}`.
        """
        return self._tasks.unpack(self._workers, jax.tree.map(np.asarray, tasks))

    def reset(self, key: jax.Array, task: PyTree | None = None) -> State:
        """Starts an episode of a task, or of one of split `"train"` that is drawn from `key`."""
        if task is None:
            task = jax.tree.map(lambda x: x[0], self.sample_tasks(jax.random.fold_in(key, 1), 1))
        task = jax.tree.map(jnp.asarray, task)
        self._tasks.check(task)
        result = jax.ShapeDtypeStruct((3,), jnp.int32), self._observation()
        seed = jax.random.bits(key, (), jnp.uint32) >> 1  # some simulators take no seeds of 32 bits

        def start(seed: jax.Array, task: PyTree) -> tuple[np.ndarray, ...]:
            return self._start(np.asarray(seed), jax.tree.map(np.asarray, task), result)

        handle, obs = _call(start, result, seed, task)
        zero = jnp.zeros(())
        info = {"task": task, "steps": zero, "truncation": zero}
        return State(handle, obs, zero, zero, dict.fromkeys(self._metrics, zero), info)

    def step(self, state: State, action: jax.Array) -> State:
        """Takes one step in the task of the state. An episode that has ended stays as it is.

        Args:
            state: state before the step.
            action: numbers `[action_size]`, which are clipped to [-1, 1], or an integer `[]`.

        Returns:
            The state after the step.
        """
        number, flag = jax.ShapeDtypeStruct((), jnp.zeros(()).dtype), jax.ShapeDtypeStruct((), bool)
        numbers = jax.ShapeDtypeStruct((len(self._metrics),), number.dtype)
        result = jax.ShapeDtypeStruct((3,), jnp.int32), self._observation(), number, flag, flag, numbers

        def move(*args: jax.Array) -> tuple[np.ndarray, ...]:
            handle, action, ended = map(np.asarray, args)
            return self._move(handle, action, ended, result)

        ended = state.done > 0
        args = state.pipeline_state, jnp.asarray(action), ended
        handle, obs, reward, terminated, truncated, metrics = _call(move, result, *args)
        truncation = jnp.where(ended, state.info["truncation"], truncated & ~terminated)
        return State(
            handle,
            jnp.where(ended, state.obs, obs),
            reward,
            jnp.where(ended, state.done, terminated | truncated),
            {name: jnp.where(ended, state.metrics[name], metrics[i]) for i, name in enumerate(self._metrics)},
            {**state.info, "steps": state.info["steps"] + 1, "truncation": truncation},
        )

    def close(self) -> None:
        """Ends the processes, and with them all episodes. The next reset starts new ones.

        JAX computes in the background, so wait for results first, such as with `jax.block_until_ready`.
        """
        self._workers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _observation(self) -> jax.ShapeDtypeStruct:
        shape = (math.prod(self._shape),) if self.flatten else self._shape
        return jax.ShapeDtypeStruct(shape, self._obs_dtype if self._obs_dtype == np.uint8 else jnp.zeros(()).dtype)

    def _start(self, seed: np.ndarray, task: PyTree, result: Sequence[jax.ShapeDtypeStruct]) -> tuple[np.ndarray, ...]:
        """Starts the episodes of a batch `[...]` and returns their handles and observations.

        A handle is the number of a process, the number of the episode there, and the number of steps.
        """
        lead, seeds = seed.shape, seed.reshape(-1)
        rows = jax.tree.map(lambda x, one: x.reshape(-1, *np.shape(one)), task, self._tasks.example)
        tasks = self._tasks.unpack(self._workers, rows)
        handle, obs = (np.zeros((seeds.size, *x.shape), x.dtype) for x in result)
        handle[:, 0] = np.arange(seeds.size) % self.processes
        lanes = {worker: np.flatnonzero(handle[:, 0] == worker) for worker in range(min(self.processes, seeds.size))}
        asked = {worker: ("reset", seeds[mine], [tasks[i] for i in mine]) for worker, mine in lanes.items()}
        for worker, (numbers, first) in self._workers.ask(asked).items():
            handle[lanes[worker], 1] = numbers
            obs[lanes[worker]] = first.reshape(len(first), *obs.shape[1:])
        return handle.reshape((*lead, 3)), obs.reshape((*lead, *obs.shape[1:]))

    def _move(
        self, handle: np.ndarray, action: np.ndarray, ended: np.ndarray, result: Sequence[jax.ShapeDtypeStruct]
    ) -> tuple[np.ndarray, ...]:
        """Takes a step in those episodes of a batch `[...]` that have not ended."""
        lead, going = ended.shape, ~ended.reshape(-1)
        handle, action = (x.reshape(going.size, *x.shape[len(lead) :]) for x in (handle, action))
        lanes = {worker: np.flatnonzero(going & (handle[:, 0] == worker)) for worker in range(self.processes)}
        asked = {
            worker: ("step", handle[mine, 1], handle[mine, 2], action[mine])
            for worker, mine in lanes.items()
            if mine.size
        }
        after = [handle.copy(), *(np.zeros((going.size, *x.shape), x.dtype) for x in result[1:])]
        for worker, (numbers, *answer) in self._workers.ask(asked).items():
            mine = lanes[worker]
            after[0][mine, 1:] = np.stack([numbers, handle[mine, 2] + 1], axis=1)
            for out, values in zip(after[1:], answer, strict=True):
                out[mine] = values.reshape(mine.size, *out.shape[1:])
        return tuple(x.reshape((*lead, *x.shape[1:])) for x in after)

    def _render(self, states: Sequence[State]) -> np.ndarray:
        """Draws the last state of an episode, as an image `[height, width, 3]` of uint8."""
        worker, number, step = np.asarray(states[-1].pipeline_state).tolist()
        return self._workers.ask({worker: ("render", number, step)})[worker]


def _call(function: Callable[..., Any], result: Any, *args: PyTree) -> Any:
    """Calls a function on the host, once for a whole batch.

    JAX may repeat, drop and reorder such calls. Episodes are handles that can be stepped twice, so this does no harm. A
    callback with an effect could not be batched, and could not be in a function that is differentiated with
    `jax.checkpoint`.
    """
    return jax.pure_callback(function, result, *args, vmap_method="broadcast_all")
