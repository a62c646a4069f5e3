"""Walker and hopper with random masses, inertias, joint damping and friction."""

import abc
import dataclasses

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_not_negative
from jaxmeta._types import PyTree
from jaxmeta.envs._body import BodyEnv
from jaxmeta.envs._brax import Physics


@dataclasses.dataclass(frozen=True, kw_only=True)
class _RandomParams(BodyEnv):
    """Body whose physical parameters differ in each task."""

    horizon: int = 200
    backend: str = "generalized"
    log_scale: float = 3.0

    backends = ("generalized", "mjx")  # the other simulators ignore most inertias
    control_cost = 1e-3
    alive_bonus = 1.0
    position_noise = 0.005
    velocity_noise = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(log_scale=self.log_scale)

    @abc.abstractmethod
    def has_fallen(self, state: PyTree) -> jax.Array:
        """Returns whether the episode ends because the body has fallen, bool `[]`."""

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draws the factors of the parameters."""
        system = super().physics(None).system
        shapes = {
            "mass": (1.5, system.link.inertia.mass.shape),
            "inertia": (1.5, (*system.link.inertia.mass.shape, 3)),
            "damping": (1.3, system.dof.damping.shape),
            "friction": (1.5, system.geom_friction.shape),
        }
        keys = jax.random.split(key, len(shapes))
        return {
            name: base ** jax.random.uniform(k, shape, minval=-self.log_scale, maxval=self.log_scale)
            for k, (name, (base, shape)) in zip(keys, shapes.items(), strict=True)
        }

    def physics(self, task: PyTree) -> Physics:
        """Returns the physics of the body with scaled parameters."""
        physics = super().physics(task)
        system = physics.system
        return physics.with_system(
            {
                "link.inertia.mass": system.link.inertia.mass * task["mass"],
                "link.inertia.i": system.link.inertia.i * task["inertia"][:, :, None],
                "dof.damping": system.dof.damping * task["damping"],
                "geom_friction": system.geom_friction * task["friction"],
                # mjx reads the same numbers from these fields
                "body_mass": system.body_mass.at[1:].multiply(task["mass"]),
                "body_inertia": system.body_inertia.at[1:].multiply(task["inertia"]),
                "dof_damping": system.dof_damping * task["damping"],
            }
        )

    def observe(self, physics: Physics, state: PyTree, control: jax.Array) -> jax.Array:
        """Returns the joint positions, except the distance run, and the joint velocities."""
        height = state.x.pos[0, 2:]
        return jnp.concatenate([height, state.q[2:], jnp.clip(state.qd, -10, 10)])

    def task_reward(self, velocity: jax.Array, after: PyTree, task: PyTree) -> jax.Array:
        """Returns the forward velocity."""
        return velocity[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Walker2DRandomParams(_RandomParams):
    """Walker that must walk forward, with different physical parameters in each task.

    The reward of a step is `velocity + 1 - 0.001 * sum(action**2)`. The task holds the factors of the body's
    parameters, `{"mass": [7], "inertia": [7, 3], "damping": [9], "friction": [8, 3]}`. Each factor is 1.5 (1.3 for
    damping) to a power that is uniform in [-`log_scale`, `log_scale`]. An observation has 17 numbers. An episode ends
    if the height of the torso leaves (0.8, 2) m or the torso leans by more than 1 rad.

    Args:
        horizon: number of steps of 0.01 s after which an episode is truncated.
        backend: simulator of brax: `"generalized"` or `"mjx"`.
        log_scale: largest power.

    Example:
        >>> env = Walker2DRandomParams()
        >>> env.observation_size, env.action_size
        (17, 6)

    References:
        Rothfuss, Lee, Clavera, Asfour & Abbeel, *ProMP: Proximal Meta-Policy Search*, ICLR 2019,
        https://arxiv.org/abs/1810.06784, with the parameters of https://github.com/dennisl88/rand_param_envs
    """

    body = "walker2d"
    frames = 5

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return 17

    @property
    def action_size(self) -> int:
        """Number of torques."""
        return 6

    def has_fallen(self, state: PyTree) -> jax.Array:
        """Returns whether the torso is too low, too high or leans too far."""
        height, angle = state.x.pos[0, 2], state.q[2]
        return ~((height > 0.8) & (height < 2) & (jnp.abs(angle) < 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class HopperRandomParams(_RandomParams):
    """Hopper that must hop forward, with different physical parameters in each task.

    The reward of a step is `velocity + 1 - 0.001 * sum(action**2)`. The task holds the factors of the body's
    parameters, as in `Walker2DRandomParams`. An observation has 11 numbers. An episode ends if the torso is below
    0.7 m or leans by more than 0.2 rad, or if the absolute position or velocity of a joint reaches 100.

    Args:
        horizon: number of steps of 0.008 s after which an episode is truncated.
        backend: simulator of brax: `"generalized"` or `"mjx"`.
        log_scale: largest power.

    Example:
        >>> env = HopperRandomParams()
        >>> env.observation_size, env.action_size
        (11, 3)

    References:
        Rothfuss, Lee, Clavera, Asfour & Abbeel, *ProMP: Proximal Meta-Policy Search*, ICLR 2019,
        https://arxiv.org/abs/1810.06784, with the parameters of https://github.com/dennisl88/rand_param_envs
    """

    body = "hopper"
    frames = 4

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return 11

    @property
    def action_size(self) -> int:
        """Number of torques."""
        return 3

    def has_fallen(self, state: PyTree) -> jax.Array:
        """Returns whether the torso is too low or leans too far, or a joint is out of bounds."""
        height, angle = state.x.pos[0, 2], state.q[2]
        joints = jnp.concatenate([state.q[2:], state.qd])
        return ~((height > 0.7) & (jnp.abs(angle) < 0.2) & jnp.all(jnp.abs(joints) < 100))
