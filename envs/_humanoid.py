"""Humanoid environments: walk forward or backward, or in a direction."""

import dataclasses

import jax

from jaxmeta._types import PyTree
from jaxmeta.envs._body import BodyEnv, Direction, ForwardBackward
from jaxmeta.envs._brax import Physics


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Humanoid(BodyEnv):
    """Humanoid without a task."""

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
        """Length of an observation."""
        return 244

    @property
    def action_size(self) -> int:
        """Number of torques."""
        return 17

    def position(self, physics: Physics, state: PyTree) -> jax.Array:
        """Returns the position of the center of mass, `[3]`."""
        return physics.center_of_mass(state)

    def observe(self, physics: Physics, state: PyTree, control: jax.Array) -> jax.Array:
        """Returns the observation of brax's humanoid."""
        return physics.humanoid_observation(state, control)

    def has_fallen(self, state: PyTree) -> jax.Array:
        """Returns whether the torso is below 1 m or above 2 m."""
        height = state.x.pos[0, 2]
        return ~((height >= 1) & (height <= 2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class HumanoidForwardBackward(ForwardBackward, _Humanoid):
    """Humanoid that must walk forward or backward.

    The reward of a step is `1.25 * direction * velocity_x + 5 - 0.1 * sum((0.4 * action)**2)`, with the velocity of the
    center of mass. The task is `{"direction": []}`, -1 or 1, the same two in both splits. An observation has 244
    numbers. An episode ends if the height of the torso leaves [1, 2] m. brax has no contact forces, so they are neither
    observed nor part of the reward. The definition is that of learn2learn.

    Args:
        horizon: number of steps of 0.015 s after which an episode is truncated.
        backend: simulator of brax: `"spring"`, `"positional"`, `"generalized"` or `"mjx"`.

    Example:
        >>> env = HumanoidForwardBackward()
        >>> env.observation_size, env.action_size
        (244, 17)

    References:
        Rothfuss, Lee, Clavera, Asfour & Abbeel, *ProMP: Proximal Meta-Policy Search*, ICLR 2019,
        https://arxiv.org/abs/1810.06784, as in https://github.com/learnables/learn2learn
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class HumanoidDirection(Direction, _Humanoid):
    """Humanoid that must walk in a direction.

    The reward of a step is `1.25 * direction @ velocity_xy + 5 - 0.1 * sum((0.4 * action)**2)`. The task is
    `{"direction": [2]}`, uniform on the unit circle. Everything else is as in `HumanoidForwardBackward`.

    Args:
        horizon: number of steps of 0.015 s after which an episode is truncated.
        backend: simulator of brax: `"spring"`, `"positional"`, `"generalized"` or `"mjx"`.

    Example:
        >>> env = HumanoidDirection()
        >>> env.sample_tasks(jax.random.key(0), 3)["direction"].shape
        (3, 2)

    References:
        Rothfuss, Lee, Clavera, Asfour & Abbeel, *ProMP: Proximal Meta-Policy Search*, ICLR 2019,
        https://arxiv.org/abs/1810.06784, as in https://github.com/learnables/learn2learn
    """
