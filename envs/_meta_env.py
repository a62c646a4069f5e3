"""Protocol of an environment with tasks, and its state."""

from collections.abc import Mapping
from typing import Any, Protocol, Union

import flax.struct
import jax

from jaxmeta._types import PyTree
from jaxmeta.display import short_repr

ObservationSize = Union[int, tuple[int, ...], Mapping[str, "ObservationSize"]]  # noqa: UP007 (for the name in quotes)
"""Form of an observation: the length of a vector, the shape of an array, or the forms of named parts."""


@flax.struct.dataclass
class State:
    """State of an environment, with the fields of `brax.envs.State`.

    Attributes:
        pipeline_state: state from which the next step starts, such as that of brax's physics.
        obs: observation, of the form `observation_size`.
        reward: reward of the step that led here, `[]`.
        done: 1.0 if the episode has ended, whether by itself or at the horizon, else 0.0, `[]`.
        metrics: numbers for logging, `[]` each.
        info: `task` (the task, a pytree), `steps` (number of steps since the reset, float `[]`), `truncation` (1.0 if
            the episode ended at the horizon and not by itself, `[]`), and whatever an environment or a wrapper adds.
    """

    pipeline_state: PyTree
    obs: PyTree
    reward: jax.Array
    done: jax.Array
    metrics: dict[str, jax.Array]
    info: dict[str, Any]

    __repr__ = short_repr


class MetaEnv(Protocol):
    """Family of environments that differ in their task, as pure functions for one environment.

    Use `jax.vmap` for many environments.

    Attributes:
        observation_size: form of an observation: a number for a vector of this length, a shape such as `(9, 9, 2)` for
            an array, or a mapping from names to these for a dictionary.
        action_size: numbers in an action, each in [-1, 1], or the number of discrete actions.
        discrete: whether an action is an integer `[]` below `action_size` instead of numbers `[action_size]`.
        horizon: number of steps after which an episode is truncated.

    Some environments have more methods: `floor_return(task)`, the return of a policy that does nothing useful,
    `oracle_action(state)`, the best action of a policy that knows the task, `task_name(task)`, `None` or a name such as
    `"forward"`, by which results are shown, `render(states)`, an image of an episode given as a list of states, and
    `with_task(task)`, for brax's wrappers.
    """

    @property
    def observation_size(self) -> ObservationSize: ...
    @property
    def action_size(self) -> int: ...
    @property
    def discrete(self) -> bool: ...
    @property
    def horizon(self) -> int: ...

    def sample_tasks(self, key: jax.Array, n: int, *, split: str = "train") -> PyTree:
        """Draws `n` tasks, stacked on the first axis. The splits `"train"` and `"test"` have different tasks."""
        ...

    def reset(self, key: jax.Array, task: PyTree | None = None) -> State:
        """Starts an episode of a task, or of one drawn from `key`. The task is in `state.info["task"]`."""
        ...

    def step(self, state: State, action: jax.Array) -> State:
        """Takes one step in the task of the state."""
        ...
