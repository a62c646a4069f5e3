"""Base of the environments with a body: physics steps, and a reward for each of them."""

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
    """Environment with a body of brax.

    The reward of a step is `task_reward + alive_bonus - control_cost * sum(control^2)`. A subclass defines the reward
    of the task, the observation, and when the body has fallen, each as a function of the state of the physics. The
    physics is that of brax, and that of MuJoCo only with `backend="mjx"`, so returns are not those of papers.

    Attributes:
        backend: name of the simulator of brax.
    """

    backend: str = "spring"

    body: ClassVar[str]
    """Name of the body in `brax.envs`."""
    backends: ClassVar[tuple[str, ...]] = BACKENDS
    """Simulators that the environment can use."""
    frames: ClassVar[int | None] = None
    """Number of physics steps in a step, None for the number that brax uses."""
    velocity_weight: ClassVar[float] = 1.0
    """Weight of the velocity in the rewards of `ForwardBackward` and `Direction`."""
    control_scale: ClassVar[float] = 1.0
    """Control that an action of 1 stands for."""
    control_cost: ClassVar[float]
    """Weight of the squared control in the reward."""
    alive_bonus: ClassVar[float] = 0.0
    """Constant part of the reward."""
    position_noise: ClassVar[float]
    """Scale of the initial noise: joints start uniformly within this distance of their resting positions."""
    velocity_noise: ClassVar[str]
    """Distribution of the initial joint velocities of the same scale, `"normal"` or `"uniform"`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("backend", self.backend, self.backends)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the parts of the reward."""
        return ("reward_task", "reward_control", "reward_alive")

    @abc.abstractmethod
    def task_reward(self, velocity: jax.Array, after: PyTree, task: PyTree) -> jax.Array:
        """Returns the reward of the task for a step, `[]`.

        Args:
            velocity: mean velocity of the body during the step, `[3]`, in m/s.
            after: state of the physics after the step.
            task: the task.
        """

    @abc.abstractmethod
    def observe(self, physics: Physics, state: PyTree, control: jax.Array) -> jax.Array:
        """Returns the observation `[observation_size]` of a state.

        Args:
            physics: physics of the body.
            state: state of the physics.
            control: last control, `[action_size]`.
        """

    def has_fallen(self, state: PyTree) -> jax.Array:
        """Returns whether the episode ends because the body has fallen, bool `[]`."""
        return jnp.array(False)

    def position(self, physics: Physics, state: PyTree) -> jax.Array:
        """Returns the position of the torso, `[3]`."""
        return state.x.pos[0]

    def physics(self, task: PyTree) -> Physics:
        """Returns the physics of the body in a task."""
        return load(self.body, self.backend, self.frames)

    def render(self, states: Sequence[State]) -> np.ndarray:
        """Draws the last state of an episode as an image `[240, 320, 3]` of uint8."""
        return draw_body(self.physics(states[-1].info["task"]), states[-1])

    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, jax.Array]:
        """Starts an episode near the resting pose."""
        physics = self.physics(task)
        key_position, key_velocity = jax.random.split(key)
        rest, draw = physics.system.init_q, {"normal": jax.random.normal, "uniform": _uniform}[self.velocity_noise]
        position = rest + self.position_noise * _uniform(key_position, rest.shape)
        velocity = self.position_noise * draw(key_velocity, (physics.system.qd_size(),))
        state = physics.init(position, velocity)
        return state, self.observe(physics, state, jnp.zeros(self.action_size))

    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Takes one step with the action as control."""
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
    """Task `{"direction": []}`, -1 or 1, of running backward or forward; a mixin for `BodyEnv`."""

    velocity_weight: ClassVar[float]
    """Weight of the velocity in the reward."""

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draws the direction."""
        return {"direction": jax.random.rademacher(key, (), float)}

    def task_reward(self, velocity: jax.Array, after: PyTree, task: PyTree) -> jax.Array:
        """Returns the velocity in the direction."""
        return self.velocity_weight * task["direction"] * velocity[0]

    def task_name(self, task: PyTree) -> str:
        """Returns `"forward"` or `"backward"`."""
        return "forward" if task["direction"] > 0 else "backward"


class Direction:
    """Task `{"direction": [2]}`, a unit vector, of running in a direction; a mixin for `BodyEnv`."""

    velocity_weight: ClassVar[float]
    """Weight of the velocity in the reward."""

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draws the direction."""
        return {"direction": draw_direction(key)}

    def task_reward(self, velocity: jax.Array, after: PyTree, task: PyTree) -> jax.Array:
        """Returns the velocity in the direction."""
        return self.velocity_weight * jnp.dot(task["direction"], velocity[:2])


def draw_direction(key: jax.Array) -> jax.Array:
    """Draws a unit vector on the plane, `[2]`."""
    angle = jax.random.uniform(key, maxval=2 * jnp.pi)
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def _uniform(key: jax.Array, shape: Any) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-1)
