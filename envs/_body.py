"""What environments with a body share: physics before and after, and a reward between them."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._checks import check_choice
from jaxmeta._types import PyTree
from jaxmeta.envs._base import BaseEnv, Outcome
from jaxmeta.envs._brax import BACKENDS, Physics, load
from jaxmeta.envs._meta_env import State
from jaxmeta.envs._render import draw_body


@dataclasses.dataclass(frozen=True, kw_only=True)
class BodyEnv(BaseEnv):
    """A body of brax; the reward of a step is `task_reward + alive_bonus - control_cost * sum(control^2)`.

    A subclass says what the task pays, what is seen and when the body has fallen, each a function of the physics'
    state. The physics is that of brax, not MuJoCo, but for `backend="mjx"`: returns are not those of papers.
    """

    backend: str = "spring"

    body: ClassVar[str]
    """Name in `brax.envs`."""
    backends: ClassVar[tuple[str, ...]] = BACKENDS
    frames: ClassVar[int | None] = None
    """Steps of physics in a step; None for brax's own number."""
    velocity_weight: ClassVar[float] = 1.0
    """What `ForwardBackward` and `Direction` multiply the velocity by."""
    control_scale: ClassVar[float] = 1.0
    """The control of an action of 1."""
    control_cost: ClassVar[float]
    alive_bonus: ClassVar[float] = 0.0
    position_noise: ClassVar[float]
    """Joints start at most this far from their rest, uniformly."""
    velocity_noise: ClassVar[str]
    """Joints start with velocities of the same scale, "normal" or "uniform"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("backend", self.backend, self.backends)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The parts of the reward."""
        return ("reward_task", "reward_control", "reward_alive")

    @abc.abstractmethod
    def task_reward(self, velocity: jax.Array, after: PyTree, task: PyTree) -> jax.Array:
        """What the task pays for a step, `[]`.

        Args:
            velocity: the body's mean velocity during the step, `[3]`, in m/s.
            after: the physics' state after it.
            task: the task.
        """

    @abc.abstractmethod
    def observe(self, physics: Physics, state: PyTree, control: jax.Array) -> jax.Array:
        """What is seen of a state, `[observation_size]`, after a control `[action_size]`."""

    def has_fallen(self, state: PyTree) -> jax.Array:
        """Whether the episode ends, bool `[]`."""
        return jnp.array(False)

    def position(self, physics: Physics, state: PyTree) -> jax.Array:
        """Where the body is, `[3]`: its torso."""
        return state.x.pos[0]

    def physics(self, task: PyTree) -> Physics:
        """The body in a task."""
        return load(self.body, self.backend, self.frames)

    def render(self, states: Sequence[State]) -> np.ndarray:
        """Draw the last state of an episode, `[240, 320, 3]` of uint8."""
        return draw_body(self.physics(states[-1].info["task"]), states[-1])

    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, jax.Array]:
        """Start near the resting pose."""
        physics = self.physics(task)
        key_position, key_velocity = jax.random.split(key)
        rest, draw = physics.system.init_q, {"normal": jax.random.normal, "uniform": _uniform}[self.velocity_noise]
        position = rest + self.position_noise * _uniform(key_position, rest.shape)
        velocity = self.position_noise * draw(key_velocity, (physics.system.qd_size(),))
        state = physics.init(position, velocity)
        return state, self.observe(physics, state, jnp.zeros(self.action_size))

    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Apply the action as control."""
        physics = self.physics(task)
        control = self.control_scale * jnp.clip(action, -1, 1)
        after = physics.step(pipeline_state, control)
        velocity = (self.position(physics, after) - self.position(physics, pipeline_state)) / physics.dt
        parts = {
            "reward_task": self.task_reward(velocity, after, task),
            "reward_control": -self.control_cost * jnp.sum(control**2),
            "reward_alive": jnp.array(self.alive_bonus),
        }
        obs = self.observe(physics, after, control)
        return Outcome(after, obs, sum(parts.values(), start=jnp.zeros(())), self.has_fallen(after), parts)


class ForwardBackward:
    """The task of running forward or backward, for a `BodyEnv` to inherit first: `{"direction": []}`, -1 or 1."""

    velocity_weight: ClassVar[float]

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draw the direction."""
        return {"direction": jax.random.rademacher(key, (), float)}

    def task_reward(self, velocity: jax.Array, after: PyTree, task: PyTree) -> jax.Array:
        """Velocity in the direction."""
        return self.velocity_weight * task["direction"] * velocity[0]


class Direction:
    """The task of running in a direction, for a `BodyEnv` to inherit first: `{"direction": [2]}` of length 1."""

    velocity_weight: ClassVar[float]

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draw the direction."""
        return {"direction": draw_direction(key)}

    def task_reward(self, velocity: jax.Array, after: PyTree, task: PyTree) -> jax.Array:
        """Velocity in the direction."""
        return self.velocity_weight * jnp.dot(task["direction"], velocity[:2])


def draw_direction(key: jax.Array) -> jax.Array:
    """Draw a direction on the plane, `[2]`."""
    angle = jax.random.uniform(key, maxval=2 * jnp.pi)
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def _uniform(key: jax.Array, shape: Any) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-1)
