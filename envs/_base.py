"""What our environments share: the task in the state, the horizon, the splits."""

import abc
import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxmeta._checks import check_choice, check_integer
from jaxmeta._types import PyTree
from jaxmeta.envs._meta_env import State

SPLITS = ("train", "test")


@flax.struct.dataclass
class Outcome:
    """What one step of an environment leads to, apart from the horizon.

    Attributes:
        pipeline_state: what the environment needs to go on.
        obs: observation, `[observation_size]`.
        reward: `[]`.
        terminated: whether the episode has ended by itself, bool `[]`.
        metrics: the environment's `metric_names`, `[]` each.
    """

    pipeline_state: PyTree
    obs: jax.Array
    reward: jax.Array
    terminated: jax.Array
    metrics: dict[str, jax.Array] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseEnv(abc.ABC):
    """A `MetaEnv` made of three pure functions: `draw_task`, `begin` and `move`.

    Its fields are plain numbers and words: it is hashable, and jitted functions close over it. Tasks are drawn apart
    in the two splits by folding the split into the key.

    Args:
        horizon: steps until an episode is truncated.

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
    def observation_size(self) -> int:
        """Length of an observation."""

    @property
    @abc.abstractmethod
    def action_size(self) -> int:
        """Numbers in an action, in [-1, 1] each; for discrete actions, how many there are."""

    @property
    def discrete(self) -> bool:
        """Whether an action is an integer `[]` below `action_size`."""
        return False

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Keys of `state.metrics`."""
        return ()

    @abc.abstractmethod
    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draw one task of a split; `key` differs between the splits already."""

    @abc.abstractmethod
    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, jax.Array]:
        """Begin an episode: the first `pipeline_state` and observation."""

    @abc.abstractmethod
    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Do one step."""

    def sample_tasks(self, key: jax.Array, n: int, *, split: str = "train") -> PyTree:
        """Draw `n` tasks.

        Args:
            key: a random key.
            n: how many.
            split: "train" or "test".

        Returns:
            The tasks, stacked on the first axis.
        """
        check_integer(n=n)
        check_choice("split", split, SPLITS)
        keys = jax.random.split(jax.random.fold_in(key, SPLITS.index(split)), n)
        return jax.vmap(lambda k: self.draw_task(k, split))(keys)

    def reset(self, key: jax.Array, task: PyTree | None = None) -> State:
        """Begin an episode.

        Args:
            key: a random key.
            task: the task; by default one of split "train" that is drawn from `key`.

        Returns:
            The first state, which names the task in `info["task"]`.
        """
        if task is None:
            task = jax.tree.map(lambda x: x[0], self.sample_tasks(jax.random.fold_in(key, 1), 1))
        pipeline_state, obs = self.begin(key, task)
        zero = jnp.zeros(())
        info = {"task": task, "steps": zero, "truncation": zero}
        state = State(pipeline_state, obs, zero, zero, dict.fromkeys(self.metric_names, zero), info)
        return jax.tree.map(_strong, state)

    def step(self, state: State, action: jax.Array) -> State:
        """Do one step in the task that the state names.

        Args:
            state: the state before.
            action: `[action_size]` in [-1, 1], beyond which it is clipped; or an integer `[]`.

        Returns:
            The state after.
        """
        state = self.advance(state, action)
        steps = state.info["steps"] + 1
        truncation = jnp.where(steps >= self.horizon, 1 - state.done, 0)
        info: dict[str, Any] = {**state.info, "steps": steps, "truncation": truncation}
        return dataclasses.replace(state, done=state.done + truncation, info=info)

    def advance(self, state: State, action: jax.Array) -> State:
        """Do one step as `step` does, with no horizon: steps are not counted."""
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
        """Return the environment of one task, with the signature of `brax.envs.Env`, for brax's wrappers."""
        return TaskView(self, task)


class TaskView:
    """One task of an environment, with the signature of `brax.envs.Env`: what brax's wrappers and trainers take.

    It has no horizon: that is the business of brax's `EpisodeWrapper`. Give brax's wrappers keys of the old type,
    `jax.random.PRNGKey`, or put them inside `jax.vmap`: `EpisodeWrapper` takes the shape of a batch from its keys.

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
    def observation_size(self) -> int:
        """Length of an observation."""
        return self.env.observation_size

    @property
    def action_size(self) -> int:
        """Numbers in an action; for discrete actions, how many there are."""
        return self.env.action_size

    @property
    def backend(self) -> str:
        """Name of the physics, "jax" where it is our own."""
        return getattr(self.env, "backend", "jax")

    @property
    def unwrapped(self) -> "TaskView":
        """The view."""
        return self

    def reset(self, rng: jax.Array) -> State:
        """Begin an episode."""
        return self.env.reset(rng, self.task)

    def step(self, state: State, action: jax.Array) -> State:
        """Do one step."""
        return self.env.advance(state, action)


def _strong(value: Any) -> jax.Array:
    """The value as an array of no weak type, as a step that is given one would be compiled once more."""
    value = jnp.asarray(value)
    return value.astype(value.dtype) if getattr(value, "weak_type", False) else value  # random keys have none
