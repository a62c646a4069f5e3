"""Humanoids that must run forward or backward, or in a direction."""

import dataclasses

import jax

from jaxmeta._types import PyTree
from jaxmeta.envs._body import BodyEnv, Direction, ForwardBackward
from jaxmeta.envs._brax import Physics


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Humanoid(BodyEnv):
    horizon: int = 200

    body = "humanoid"
    velocity_weight = 1.25
    control_scale = 0.4
    control_cost = 0.1
    alive_bonus = 5.0
    position_noise = 0.01
    velocity_noise = "uniform"

    @property
    def observation_size(self) -> int:
        """Joints, inertias and velocities of all parts, and the forces of actuators."""
        return 244

    @property
    def action_size(self) -> int:
        """The torques."""
        return 17

    def position(self, physics: Physics, state: PyTree) -> jax.Array:
        """Where the center of mass is."""
        return physics.center_of_mass(state)

    def observe(self, physics: Physics, state: PyTree, control: jax.Array) -> jax.Array:
        """Observe as brax's humanoid does."""
        return physics.humanoid_observation(state, control)

    def has_fallen(self, state: PyTree) -> jax.Array:
        """Whether the torso is below 1 m or above 2 m."""
        height = state.x.pos[0, 2]
        return ~((height >= 1) & (height <= 2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class HumanoidForwardBackward(ForwardBackward, _Humanoid):
    """Walk forward or backward: the reward of a step is `1.25 direction * velocity_x + 5 - 0.1 sum((0.4 action)^2)`.

    The velocity is that of the center of mass. The task is `{"direction": []}`, -1 or 1, the same two in both splits.
    An observation has 244 numbers. An episode ends if the torso leaves [1, 2]. Contact forces, which brax has not, are
    neither seen nor paid for. The definition is learn2learn's.

    Args:
        horizon: steps of 0.015 s until an episode is truncated.
        backend: brax's physics: "spring", "positional", "generalized" or "mjx".

    Example:
        >>> env = HumanoidForwardBackward()
        >>> env.observation_size, env.action_size
        (244, 17)

    References:
        learn2learn, https://github.com/learnables/learn2learn, after Rothfuss et al. 2018,
        https://arxiv.org/abs/1810.06784
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class HumanoidDirection(Direction, _Humanoid):
    """Walk in a direction: the reward of a step is `1.25 dot(direction, velocity_xy) + 5 - 0.1 sum((0.4 action)^2)`.

    The task is `{"direction": [2]}`, uniform on the unit circle. All else is as in `HumanoidForwardBackward`.

    Args:
        horizon: steps of 0.015 s until an episode is truncated.
        backend: brax's physics: "spring", "positional", "generalized" or "mjx".

    Example:
        >>> env = HumanoidDirection()
        >>> env.sample_tasks(jax.random.key(0), 3)["direction"].shape
        (3, 2)

    References:
        learn2learn, https://github.com/learnables/learn2learn, after Rothfuss et al. 2018,
        https://arxiv.org/abs/1810.06784
    """
