"""A point on the plane that must find a goal."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._checks import check_choice, check_number
from jaxmeta._types import PyTree
from jaxmeta.envs._base import BaseEnv, Outcome
from jaxmeta.envs._meta_env import State

_GOALS = ("square", "corners", "half-circle")
_REWARDS = ("distance", "progress", "radius")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Particles2D(BaseEnv):
    """A point on the plane; the task is a goal that it does not see.

    An observation is the position `[2]`. An action moves it by `max_step` at most along each axis.

    | variant        | goals                          | start         | max_step | reward     | ends there | horizon |
    | -------------- | ------------------------------ | ------------- | -------- | ---------- | ---------- | ------- |
    | `l2l`          | uniform in the square of 0.5   | origin        | 0.1      | `distance` | yes        | 100     |
    | `promp`        | the corners of the square of 2 | square of 0.2 | 0.2      | `distance` | no         | 100     |
    | `promp-sparse` | the corners of the square of 2 | square of 0.2 | 0.2      | `progress` | no         | 100     |
    | `pearl`        | 100 on the half circle of 1    | origin        | 0.1      | `radius`   | no         | 20      |

    A square of 0.5 is [-0.5, 0.5] x [-0.5, 0.5]. The corners are the same in both splits; of PEARL's goals, shuffled by
    its seed, 80 are for training and 20 for testing. (PEARL meta-trains on `reward="distance"`.)

    Args:
        horizon: steps until an episode is truncated.
        goals: where goals are: "square", "corners" or "half-circle".
        size: half the side of the square, or the radius.
        start: half the side of the square where episodes start.
        max_step: distance along an axis that an action of 1 moves.
        reward: "distance", the negative distance to the goal; "progress", how much nearer the step has come to it, and
            0 within 0.5 (in the 1-norm) of the origin or if another corner is nearer; "radius", 1 less the distance
            within 0.2 of the goal, else 0.
        tolerance: an episode ends nearer to the goal than this along both axes; 0 for never.

    Example:
        >>> env = Particles2D()
        >>> state = env.reset(jax.random.key(0), {"goal": jnp.array([0.3, 0.4])})
        >>> state = env.step(state, jnp.array([1.0, 5.0]))
        >>> print(state.obs, f"{state.reward:.2f}")
        [0.1 0.1] -0.36

    References:
        l2l: Finn et al. 2017, https://arxiv.org/abs/1703.03400, as in learn2learn, https://github.com/learnables/learn2learn

        promp: Rothfuss et al. 2018, https://arxiv.org/abs/1810.06784

        pearl: Rakelly et al. 2019, https://arxiv.org/abs/1903.08254
    """

    goals: Literal["square", "corners", "half-circle"] = "square"
    size: float = 0.5
    start: float = 0.0
    max_step: float = 0.1
    reward: Literal["distance", "progress", "radius"] = "distance"
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("goals", self.goals, _GOALS)
        check_choice("reward", self.reward, _REWARDS)
        check_number(size=self.size, start=self.start, max_step=self.max_step, tolerance=self.tolerance)

    @property
    def observation_size(self) -> int:
        """The position."""
        return 2

    @property
    def action_size(self) -> int:
        """The step."""
        return 2

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The distance to the goal."""
        return ("distance",)

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draw `{"goal": [2]}`."""
        if self.goals == "square":
            return {"goal": jax.random.uniform(key, (2,), minval=-self.size, maxval=self.size)}
        if self.goals == "corners":
            return {"goal": self.size * jax.random.rademacher(key, (2,), float)}
        goals = _half_circle()[:80] if split == "train" else _half_circle()[80:]
        return {"goal": self.size * jax.random.choice(key, jnp.asarray(goals, float))}

    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, jax.Array]:
        """Put the point at the start."""
        position = self.start * jax.random.uniform(key, (2,), minval=-1)
        return position, position

    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Move the point."""
        position = pipeline_state + self.max_step * jnp.clip(action, -1, 1)
        offset = position - task["goal"]
        distance = jnp.linalg.norm(offset)
        if self.reward == "distance":
            reward = -distance
        elif self.reward == "progress":
            in_quadrant = jnp.all(position * task["goal"] >= 0)
            counts = in_quadrant & (jnp.sum(jnp.abs(position)) >= 0.5)
            reward = jnp.where(counts, jnp.linalg.norm(pipeline_state - task["goal"]) - distance, 0.0)
        else:
            reward = jnp.where(distance <= 0.2, 1 - distance, 0.0)
        terminated = jnp.all(jnp.abs(offset) < self.tolerance)
        return Outcome(position, position, reward, terminated, {"distance": distance})

    def floor_return(self, task: PyTree) -> jax.Array:
        """Return what an episode pays a point that stays at the origin, `[]`: a floor for `reward="distance"`."""
        return -self.horizon * jnp.linalg.norm(task["goal"])

    def oracle_action(self, state: State) -> jax.Array:
        """Return the action that nears the goal the most, `[2]`."""
        return jnp.clip((state.info["task"]["goal"] - state.obs) / self.max_step, -1, 1)

    def render(self, states: Sequence[State]) -> np.ndarray:
        """Draw an episode: the path in blue, the goal in red, `[200, 200, 3]` of uint8."""
        path, goal = np.stack([state.obs for state in states]), np.asarray(states[0].info["task"]["goal"])
        reach = 1.2 * max(self.size, np.abs(path).max())
        image = np.full((200, 200, 3), 255, np.uint8)
        x, y = np.meshgrid(np.linspace(-1, 1, 200), np.linspace(1, -1, 200))
        disks = [(goal, 0.04, (200, 30, 30)), *((point, 0.015, (30, 60, 200)) for point in path)]
        for (center_x, center_y), radius, color in [*disks, (path[-1], 0.03, (30, 60, 200))]:
            image[(x - center_x / reach) ** 2 + (y - center_y / reach) ** 2 <= radius**2] = color
        return image


@functools.cache
def _half_circle() -> np.ndarray:
    """PEARL's 100 goals, in its order."""
    angles = np.linspace(0, np.pi, 100)
    goals = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    np.random.RandomState(1337).shuffle(goals)
    return goals
