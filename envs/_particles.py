"""Particles2D: a point on the plane that must find a goal."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._checks import check_choice, check_not_negative, check_positive
from jaxmeta._types import PyTree
from jaxmeta.envs._base import BaseEnv, Outcome
from jaxmeta.envs._meta_env import State

_GOALS = ("square", "corners", "half-circle")
_REWARDS = ("distance", "progress", "radius")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Particles2D(BaseEnv):
    """Point on the plane that must find a goal.

    The task is `{"goal": [2]}`. An observation is the position `[2]`, without the goal. An action moves the point by at
    most `max_step` along each axis.

    | variant        | goals                          | start         | max_step | reward     | ends there | horizon |
    | -------------- | ------------------------------ | ------------- | -------- | ---------- | ---------- | ------- |
    | `l2l`          | uniform in the square of 0.5   | origin        | 0.1      | `distance` | yes        | 100     |
    | `promp`        | the corners of the square of 2 | square of 0.2 | 0.2      | `distance` | no         | 100     |
    | `promp-sparse` | the corners of the square of 2 | square of 0.2 | 0.2      | `progress` | no         | 100     |
    | `pearl`        | 100 on the half circle of 1    | origin        | 0.1      | `radius`   | no         | 20      |

    A square of 0.5 is [-0.5, 0.5] x [-0.5, 0.5]. Both splits have the same corners. The goals of PEARL are shuffled
    with its seed, 80 are for training and 20 for testing. PEARL's paper meta-trains with `reward="distance"`. The
    variants are those of Finn et al. 2017 (`l2l`, as in learn2learn), Rothfuss et al. 2019 (`promp`, `promp-sparse`)
    and Rakelly et al. 2019 (`pearl`).

    Args:
        horizon: number of steps after which an episode is truncated.
        goals: distribution of the goals: `"square"`, `"corners"` or `"half-circle"`.
        size: half the side of the square, or the radius.
        start: half the side of the square in which episodes start.
        max_step: distance along an axis that an action of 1 moves.
        reward: `"distance"` for minus the distance to the goal, `"progress"` for the decrease of the distance in a step
            (0 within 0.5 of the origin in the 1-norm, and 0 if another corner is nearer), or `"radius"` for 1 minus the
            distance within 0.2 of the goal (0 elsewhere).
        tolerance: distance from the goal along each axis within which an episode ends; 0 for never.

    Example:
        >>> env = Particles2D()
        >>> state = env.reset(jax.random.key(0), {"goal": jnp.array([0.3, 0.4])})
        >>> state = env.step(state, jnp.array([1.0, 5.0]))
        >>> print(state.obs, f"{state.reward:.2f}")
        [0.1 0.1] -0.36

    References:
        Finn, Abbeel & Levine, *Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks*, ICML 2017,
        https://arxiv.org/abs/1703.03400, as in https://github.com/learnables/learn2learn

        Rothfuss, Lee, Clavera, Asfour & Abbeel, *ProMP: Proximal Meta-Policy Search*, ICLR 2019,
        https://arxiv.org/abs/1810.06784

        Rakelly, Zhou, Quillen, Finn & Levine, *Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic
        Context Variables*, ICML 2019, https://arxiv.org/abs/1903.08254
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
        check_positive(max_step=self.max_step)
        check_not_negative(size=self.size, start=self.start, tolerance=self.tolerance)

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return 2

    @property
    def action_size(self) -> int:
        """Numbers in an action."""
        return 2

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Name of the distance to the goal."""
        return ("distance",)

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draws the goal."""
        if self.goals == "square":
            return {"goal": jax.random.uniform(key, (2,), minval=-self.size, maxval=self.size)}
        if self.goals == "corners":
            return {"goal": self.size * jax.random.rademacher(key, (2,), float)}
        goals = _half_circle()[:80] if split == "train" else _half_circle()[80:]
        return {"goal": self.size * jax.random.choice(key, jnp.asarray(goals, float))}

    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, jax.Array]:
        """Starts an episode near the origin."""
        position = self.start * jax.random.uniform(key, (2,), minval=-1)
        return position, position

    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Moves the point."""
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
            reward = _nearness(distance)
        terminated = jnp.all(jnp.abs(offset) < self.tolerance)
        return Outcome(position, position, reward, terminated, {"distance": distance})

    def task_name(self, task: PyTree) -> str | None:
        """Returns the corner, such as `"top right"`, or `None` for goals that are not in the corners."""
        if self.goals != "corners":
            return None
        x, y = task["goal"]
        return f"{'top' if y > 0 else 'bottom'} {'right' if x > 0 else 'left'}"

    def floor_return(self, task: PyTree) -> jax.Array:
        """Returns the return of a point that stays at the origin, `[]`."""
        distance = jnp.linalg.norm(task["goal"])
        rewards = {"distance": -distance, "progress": 0.0 * distance, "radius": _nearness(distance)}
        return self.horizon * rewards[self.reward]

    def oracle_action(self, state: State) -> jax.Array:
        """Returns the action that moves straight to the goal, `[2]`."""
        return jnp.clip((state.info["task"]["goal"] - state.obs) / self.max_step, -1, 1)

    def render(self, states: Sequence[State]) -> np.ndarray:
        """Draws an episode, with a blue path and a red goal, as an image `[200, 200, 3]` of uint8."""
        path, goal = np.stack([state.obs for state in states]), np.asarray(states[0].info["task"]["goal"])
        reach = 1.2 * max(self.size, np.abs(path).max())
        image = np.full((200, 200, 3), 255, np.uint8)
        x, y = np.meshgrid(np.linspace(-1, 1, 200), np.linspace(1, -1, 200))
        disks = [(goal, 0.04, (200, 30, 30)), *((point, 0.015, (30, 60, 200)) for point in path)]
        for (center_x, center_y), radius, color in [*disks, (path[-1], 0.03, (30, 60, 200))]:
            image[(x - center_x / reach) ** 2 + (y - center_y / reach) ** 2 <= radius**2] = color
        return image


def _nearness(distance: jax.Array) -> jax.Array:
    """Returns the reward `"radius"`."""
    return jnp.where(distance <= 0.2, 1 - distance, 0.0)


@functools.cache
def _half_circle() -> np.ndarray:
    """Returns the 100 goals of PEARL, in its order, `[100, 2]`."""
    angles = np.linspace(0, np.pi, 100)
    goals = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    np.random.RandomState(1337).shuffle(goals)
    return goals
