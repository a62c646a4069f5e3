"""Pendulum and cart-pole with the dynamics of gymnasium and a different body in each task."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_number, check_positive
from jaxmeta._types import PyTree
from jaxmeta.envs._base import BaseEnv, Outcome

Range = tuple[float, float]


def _check_ranges(**ranges: Range) -> None:
    """Raises ValueError unless every range is two positive numbers, the smaller one first."""
    for name, values in ranges.items():
        check_positive(**{f"{name}[{i}]": value for i, value in enumerate(values)})
        if len(values) != 2 or values[0] > values[1]:
            raise ValueError(f"{name} must be a range (low, high) with low <= high, got {values!r}")


def _draw(key: jax.Array, **ranges: Range) -> PyTree:
    """Draws a uniform number from each range."""
    keys = jax.random.split(key, len(ranges))
    return {
        name: jax.random.uniform(k, minval=low, maxval=high)
        for k, (name, (low, high)) in zip(keys, ranges.items(), strict=True)
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pendulum(BaseEnv):
    """Pendulum that must be swung up and kept upright, with a different mass and length in each task.

    The task is `{"mass": [], "length": []}`. An observation is `[cos(angle), sin(angle), velocity]`, with the angle 0
    upright. An action of 1 is a torque of 2 N m. The reward of a step is
    `-(angle**2 + 0.1 * velocity**2 + 0.001 * torque**2)`.

    Args:
        horizon: number of steps of 0.05 s after which an episode is truncated.
        mass: range `(low, high)` of the mass, in kg.
        length: range `(low, high)` of the length, in m.
        gravity: gravity, in m/s^2.

    Example:
        >>> env = Pendulum(horizon=3)
        >>> state = env.reset(jax.random.key(0), {"mass": 1.0, "length": 1.0})
        >>> env.step(state, jnp.zeros(1)).obs.shape
        (3,)

    References:
        Lee, Seo, Lee, Lee & Shin, *Context-aware Dynamics Model for Generalization in Model-Based Reinforcement
        Learning*, ICML 2020, https://arxiv.org/abs/2005.06800, for tasks of this kind

        gymnasium, https://gymnasium.farama.org/environments/classic_control/pendulum, for the dynamics
    """

    horizon: int = 200
    mass: Range = (0.75, 1.25)
    length: Range = (0.75, 1.25)
    gravity: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_ranges(mass=self.mass, length=self.length)
        check_number(gravity=self.gravity)

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return 3

    @property
    def action_size(self) -> int:
        """Number of torques."""
        return 1

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draws the mass and the length."""
        return _draw(key, mass=self.mass, length=self.length)

    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, jax.Array]:
        """Starts an episode at any angle, with a velocity in [-1, 1]."""
        angle_velocity = jnp.array([jnp.pi, 1.0]) * jax.random.uniform(key, (2,), minval=-1)
        return angle_velocity, self._observe(angle_velocity)

    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Applies the torque for 0.05 s."""
        angle, velocity = pipeline_state
        torque = 2 * jnp.clip(action[0], -1, 1)
        mass, length = task["mass"], task["length"]
        upright = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
        cost = upright**2 + 0.1 * velocity**2 + 0.001 * torque**2
        # angle'' = 3 g / (2 l) * sin(angle) + 3 / (m l^2) * torque
        acceleration = 3 * self.gravity / (2 * length) * jnp.sin(angle) + 3 / (mass * length**2) * torque
        velocity = jnp.clip(velocity + 0.05 * acceleration, -8, 8)
        after = jnp.stack([angle + 0.05 * velocity, velocity])
        return Outcome(after, self._observe(after), -cost, jnp.array(False))

    def _observe(self, angle_velocity: jax.Array) -> jax.Array:
        angle, velocity = angle_velocity
        return jnp.stack([jnp.cos(angle), jnp.sin(angle), velocity])


@dataclasses.dataclass(frozen=True, kw_only=True)
class CartPole(BaseEnv):
    """Cart that must keep a pole upright, with a different force and pole in each task.

    The task is `{"force": [], "length": []}`. An observation is `[position, velocity, angle, angular velocity]`. Action
    0 pushes to the left and 1 to the right. The reward of a step is 1. An episode ends more than 2.4 m from the middle
    or 12 degrees from upright.

    Args:
        horizon: number of steps of 0.02 s after which an episode is truncated.
        force: range `(low, high)` of the force, in N.
        length: range `(low, high)` of half the pole's length, in m.

    Example:
        >>> env = CartPole()
        >>> state = env.reset(jax.random.key(0), {"force": 10.0, "length": 0.5})
        >>> state = env.step(state, jnp.array(1))
        >>> bool(state.obs[1] > 0), float(state.reward)
        (True, 1.0)

    References:
        Lee, Seo, Lee, Lee & Shin, *Context-aware Dynamics Model for Generalization in Model-Based Reinforcement
        Learning*, ICML 2020, https://arxiv.org/abs/2005.06800, for tasks of this kind

        gymnasium, https://gymnasium.farama.org/environments/classic_control/cart_pole, for the dynamics
    """

    horizon: int = 500
    force: Range = (5.0, 15.0)
    length: Range = (0.4, 0.6)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_ranges(force=self.force, length=self.length)

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return 4

    @property
    def action_size(self) -> int:
        """Number of actions: left and right."""
        return 2

    @property
    def discrete(self) -> bool:
        """Flag of discrete actions."""
        return True

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draws the force and half the pole's length."""
        return _draw(key, force=self.force, length=self.length)

    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, jax.Array]:
        """Starts an episode near upright and near the middle."""
        start = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return start, start

    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Pushes for 0.02 s."""
        gravity, mass_cart, mass_pole = 9.8, 1.0, 0.1
        _, velocity, angle, spin = pipeline_state
        force = jnp.where(action == 1, task["force"], -task["force"])
        mass, length = mass_cart + mass_pole, task["length"]
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        push = (force + mass_pole * length * spin**2 * sine) / mass
        spin_change = (gravity * sine - cosine * push) / (length * (4 / 3 - mass_pole * cosine**2 / mass))
        velocity_change = push - mass_pole * length * spin_change * cosine / mass
        rates = jnp.stack([velocity, velocity_change, spin, spin_change])
        after = pipeline_state + 0.02 * rates
        terminated = (jnp.abs(after[0]) > 2.4) | (jnp.abs(after[2]) > jnp.deg2rad(12))
        return Outcome(after, after, jnp.ones(()), terminated)
