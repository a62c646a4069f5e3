"""Pendulum and cart-pole, with the dynamics of gymnasium, whose bodies differ by task."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_number
from jaxmeta._types import PyTree
from jaxmeta.envs._base import BaseEnv, Outcome

Range = tuple[float, float]


def _check_ranges(**ranges: Range) -> None:
    """Raises ValueError unless every range is two positive numbers, the smaller first."""
    for name, values in ranges.items():
        if len(values) != 2 or not 0 < values[0] <= values[1]:
            raise ValueError(f"{name} must be a range of positive numbers such as (0.5, 1.5), got {values!r}")


def _draw(key: jax.Array, **ranges: Range) -> PyTree:
    """One uniform number of each range."""
    keys = jax.random.split(key, len(ranges))
    return {
        name: jax.random.uniform(k, minval=low, maxval=high)
        for k, (name, (low, high)) in zip(keys, ranges.items(), strict=True)
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pendulum(BaseEnv):
    """Swing a pendulum up and keep it there; the task is its mass and length, which differ in its dynamics.

    An observation is `[cos(angle), sin(angle), angular velocity]`, the angle being 0 upright; an action of 1 is a
    torque of 2 N m. The reward is the negative of `angle^2 + 0.1 velocity^2 + 0.001 torque^2`.

    Args:
        horizon: steps of 0.05 s until an episode is truncated.
        mass: range of the mass, in kg.
        length: range of the length, in m.
        gravity: in m/s^2.

    Example:
        >>> env = Pendulum(horizon=3)
        >>> state = env.reset(jax.random.key(0), {"mass": 1.0, "length": 1.0})
        >>> env.step(state, jnp.zeros(1)).obs.shape
        (3,)

    References:
        The dynamics: https://gymnasium.farama.org/environments/classic_control/pendulum. Tasks of this kind:
        Lee et al. 2020, https://arxiv.org/abs/2005.06800
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
        """Cosine and sine of the angle, and its velocity."""
        return 3

    @property
    def action_size(self) -> int:
        """The torque."""
        return 1

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draw `{"mass": [], "length": []}`."""
        return _draw(key, mass=self.mass, length=self.length)

    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, jax.Array]:
        """Start at any angle, with a velocity in [-1, 1]."""
        angle_velocity = jnp.array([jnp.pi, 1.0]) * jax.random.uniform(key, (2,), minval=-1)
        return angle_velocity, self._observe(angle_velocity)

    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Apply the torque for 0.05 s."""
        angle, velocity = pipeline_state
        torque = 2 * jnp.clip(action[0], -1, 1)
        mass, length = task["mass"], task["length"]
        upright = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
        cost = upright**2 + 0.1 * velocity**2 + 0.001 * torque**2
        acceleration = 3 * self.gravity / (2 * length) * jnp.sin(angle) + 3 / (mass * length**2) * torque
        velocity = jnp.clip(velocity + 0.05 * acceleration, -8, 8)
        after = jnp.stack([angle + 0.05 * velocity, velocity])
        return Outcome(after, self._observe(after), -cost, jnp.array(False))

    def _observe(self, angle_velocity: jax.Array) -> jax.Array:
        angle, velocity = angle_velocity
        return jnp.stack([jnp.cos(angle), jnp.sin(angle), velocity])


@dataclasses.dataclass(frozen=True, kw_only=True)
class CartPole(BaseEnv):
    """Keep a pole upright on a cart; the task is the cart's force and half the pole's length.

    An observation is `[position, velocity, angle, angular velocity]`; action 0 pushes to the left, 1 to the right. Each
    step pays 1. An episode ends beyond 2.4 m from the middle or 12 degrees from upright.

    Args:
        horizon: steps of 0.02 s until an episode is truncated.
        force: range of the force, in N.
        length: range of half the pole's length, in m.

    Example:
        >>> env = CartPole()
        >>> state = env.reset(jax.random.key(0), {"force": 10.0, "length": 0.5})
        >>> state = env.step(state, jnp.array(1))
        >>> bool(state.obs[1] > 0), float(state.reward)
        (True, 1.0)

    References:
        The dynamics: https://gymnasium.farama.org/environments/classic_control/cart_pole. Tasks of this kind:
        Lee et al. 2020, https://arxiv.org/abs/2005.06800
    """

    horizon: int = 500
    force: Range = (5.0, 15.0)
    length: Range = (0.4, 0.6)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_ranges(force=self.force, length=self.length)

    @property
    def observation_size(self) -> int:
        """Position and angle, and their velocities."""
        return 4

    @property
    def action_size(self) -> int:
        """Left and right."""
        return 2

    @property
    def discrete(self) -> bool:
        """An action is 0 or 1."""
        return True

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draw `{"force": [], "length": []}`."""
        return _draw(key, force=self.force, length=self.length)

    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, jax.Array]:
        """Start near upright, near the middle."""
        start = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return start, start

    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Push for 0.02 s."""
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
