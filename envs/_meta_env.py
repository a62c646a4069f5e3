"""What an environment with tasks is."""

from typing import Any, Protocol

import flax.struct
import jax

from jaxmeta._types import PyTree


@flax.struct.dataclass
class State:
    """An environment's state, with the fields of `brax.envs.State`.

    Attributes:
        pipeline_state: what the environment needs to go on; brax's physics state for bodies.
        obs: observation, `[observation_size]`.
        reward: of the step that led here, `[]`.
        done: 1.0 if the episode has ended, in whatever way, `[]`.
        metrics: numbers to look at, `[]` each.
        info: `task` (the task's pytree), `steps` (since the reset, float `[]`), `truncation` (1.0 if it ended at the
            horizon and not by itself, `[]`), and what an environment or a wrapper adds.
    """

    pipeline_state: PyTree
    obs: jax.Array
    reward: jax.Array
    done: jax.Array
    metrics: dict[str, jax.Array]
    info: dict[str, Any]


class MetaEnv(Protocol):
    """A family of environments that differ by their task: pure functions for one environment; batch with `vmap`.

    Attributes:
        observation_size: length of an observation.
        action_size: numbers in an action, in [-1, 1] each; for discrete actions, how many there are.
        discrete: whether an action is an integer `[]` below `action_size`, not numbers `[action_size]`.
        horizon: steps until an episode is truncated.

    Some environments have more: `floor_return(task)`, what an episode pays for nothing; `oracle_action(state)`, the
    best action for one who knows the task; `render(states)`, a picture of an episode so far, a list of states;
    `with_task(task)`, for brax's wrappers.
    """

    @property
    def observation_size(self) -> int: ...
    @property
    def action_size(self) -> int: ...
    @property
    def discrete(self) -> bool: ...
    @property
    def horizon(self) -> int: ...

    def sample_tasks(self, key: jax.Array, n: int, *, split: str = "train") -> PyTree:
        """Draw `n` tasks, stacked on the first axis; those of split "test" are drawn apart from those of "train"."""
        ...

    def reset(self, key: jax.Array, task: PyTree | None = None) -> State:
        """Begin an episode of a task, by default of one drawn from `key`; the task is in `state.info["task"]`."""
        ...

    def step(self, state: State, action: jax.Array) -> State:
        """Do one step in the task that the state names."""
        ...
