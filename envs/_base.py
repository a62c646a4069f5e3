"""Base of the environments: the task in the state, the horizon and the splits."""

import abc
import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxmeta._checks import check_choice, check_integer
from jaxmeta._types import PyTree
from jaxmeta.display import short_repr
from jaxmeta.envs._meta_env import ObservationSize, State

SPLITS = ("train", "test")


@flax.struct.dataclass
class Outcome:
    """Outcome of one step of an environment, without the horizon.

    Attributes:
        pipeline_state: state of the environment from which the next step starts.
        obs: observation, of the form `observation_size`.
        reward: reward of the step, `[]`.
        terminated: whether the episode ended by itself, bool `[]`.
        metrics: a value `[]` for each of the environment's `metric_names`.
    """

    pipeline_state: PyTree
    obs: PyTree
    reward: jax.Array
    terminated: jax.Array
    metrics: dict[str, jax.Array] = dataclasses.field(default_factory=dict)

    __repr__ = short_repr


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseEnv(abc.ABC):
    """Base class that makes a `MetaEnv` of three pure functions: `draw_task`, `begin` and `move`.

    The fields are plain numbers and strings, so that an environment is hashable and jitted functions can close over it.
    The split is folded into the key, so that the two splits have different tasks.

    Args:
        horizon: number of steps after which an episode is truncated.

    Example:
        >>> class Countdown(BaseEnv):
        ...     observation_size = action_size = 1
        ...
        ...     def draw_task(self, key, split):
        ...         return {"start": jax.random.uniform(key)}
        ...
        ...     def begin(self, key, task):
        ...         return task["start"], jnp.zeros(1)
        ...
        ...     def move(self, pipeline_state, action, task):
        ...         left = pipeline_state - 0.1
        ...         return Outcome(left, jnp.zeros(1), jnp.sum(action), left < 0)
        >>> env = Countdown(horizon=5)
        >>> state = env.step(env.reset(jax.random.key(0)), jnp.ones(1))
        >>> float(state.reward), float(state.info["steps"])
        (1.0, 1.0)
    """

    horizon: int = 100

    def __post_init__(self) -> None:
        check_integer(horizon=self.horizon)

    @property
    @abc.abstractmethod
    def observation_size(self) -> ObservationSize:
        """Length of an observation, its shape if it is no vector, or a mapping from names to these."""

    @property
    @abc.abstractmethod
    def action_size(self) -> int:
        """Numbers in an action, each in [-1, 1], or the number of discrete actions."""

    @property
    def discrete(self) -> bool:
        """Flag of discrete actions, integers `[]` below `action_size`."""
        return False

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Keys of `state.metrics`."""
        return ()

    @abc.abstractmethod
    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draws one task of a split. The keys of the splits already differ."""

    @abc.abstractmethod
    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, PyTree]:
        """Starts an episode, and returns the first `pipeline_state` and observation."""

    @abc.abstractmethod
    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Takes one step."""

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
        keys = jax.random.split(jax.random.fold_in(key, SPLITS.index(split)), n)
        return jax.vmap(lambda k: self.draw_task(k, split))(keys)

    def reset(self, key: jax.Array, task: PyTree | None = None) -> State:
        """Starts an episode.

        Args:
            key: a random key.
            task: the task; if None, one of split `"train"` is drawn from `key`.

        Returns:
            The first state, which holds the task in `info["task"]`.
        """
        if task is None:
            task = jax.tree.map(lambda x: x[0], self.sample_tasks(jax.random.fold_in(key, 1), 1))
        pipeline_state, obs = self.begin(key, task)
        zero = jnp.zeros(())
        info = {"task": task, "steps": zero, "truncation": zero}
        state = State(pipeline_state, obs, zero, zero, dict.fromkeys(self.metric_names, zero), info)
        return jax.tree.map(_strong, state)

    def step(self, state: State, action: jax.Array) -> State:
        """Takes one step in the task of the state.

        Args:
            state: state before the step.
            action: numbers `[action_size]`, which are clipped to [-1, 1], or an integer `[]`.

        Returns:
            The state after the step.
        """
        state = self.advance(state, action)
        steps = state.info["steps"] + 1
        truncation = jnp.where(steps >= self.horizon, 1 - state.done, 0)
        info: dict[str, Any] = {**state.info, "steps": steps, "truncation": truncation}
        return dataclasses.replace(state, done=state.done + truncation, info=info)

    def advance(self, state: State, action: jax.Array) -> State:
        """Takes one step like `step`, but without a horizon: steps are not counted."""
        outcome = self.move(state.pipeline_state, action, state.info["task"])
        state = State(
            pipeline_state=outcome.pipeline_state,
            obs=outcome.obs,
            reward=outcome.reward,
            done=outcome.terminated.astype(float),
            metrics={**state.metrics, **outcome.metrics},
            info=dict(state.info),
        )
        return jax.tree.map(_strong, state)

    def with_task(self, task: PyTree) -> "TaskView":
        """Returns the environment in one task, with the signature of `brax.envs.Env`, for brax's wrappers."""
        return TaskView(self, task)


class TaskView:
    """Environment in one task, with the signature of `brax.envs.Env`, for brax's wrappers and trainers.

    It has no horizon, because brax's `EpisodeWrapper` adds one. `EpisodeWrapper` takes the shape of a batch from its
    keys, so pass keys of the old type, `jax.random.PRNGKey`, to brax's wrappers, or put the wrappers inside `jax.vmap`.

    Args:
        env: the environment.
        task: the task.

    Example:
        >>> from jaxmeta import envs
        >>> env = envs.make("particles2d")
        >>> view = TaskView(env, {"goal": jnp.array([0.3, 0.0])})
        >>> state = view.step(view.reset(jax.random.key(0)), jnp.array([1.0, 0.0]))
        >>> print(f"{state.reward:.1f}")
        -0.2
    """

    def __init__(self, env: BaseEnv, task: PyTree) -> None:
        self.env = env
        self.task = task

    @property
    def observation_size(self) -> ObservationSize:
        """Length of an observation, its shape, or a mapping from names to these."""
        return self.env.observation_size

    @property
    def action_size(self) -> int:
        """Numbers in an action, or the number of discrete actions."""
        return self.env.action_size

    @property
    def backend(self) -> str:
        """Name of brax's simulator, or `"jax"` for environments without brax."""
        return getattr(self.env, "backend", "jax")

    @property
    def unwrapped(self) -> "TaskView":
        """View itself, because nothing is wrapped."""
        return self

    def reset(self, rng: jax.Array) -> State:
        """Starts an episode."""
        return self.env.reset(rng, self.task)

    def step(self, state: State, action: jax.Array) -> State:
        """Takes one step."""
        return self.env.advance(state, action)


def _strong(value: Any) -> jax.Array:
    """Returns the value as an array without a weak type, because a weak type would compile a step once more."""
    value = jnp.asarray(value)
    return value.astype(value.dtype) if getattr(value, "weak_type", False) else value  # keys have no such attribute
