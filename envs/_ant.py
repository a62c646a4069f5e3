"""Ants that must run forward or backward, in a direction, or to a goal."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxmeta._types import PyTree
from jaxmeta.envs._body import BodyEnv, Direction, ForwardBackward, draw_direction
from jaxmeta.envs._brax import Physics


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ant(BodyEnv):
    body = "ant"
    position_noise = 0.1
    velocity_noise = "normal"

    @property
    def action_size(self) -> int:
        """The torques."""
        return 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class _RunningAnt(_Ant):
    min_height: float = 0.0

    control_cost = 0.5
    alive_bonus = 1.0

    @property
    def observation_size(self) -> int:
        """Joints but for the place on the plane, and their velocities."""
        return 27

    def observe(self, physics: Physics, state: PyTree, control: jax.Array) -> jax.Array:
        """Observe the joints but for the place on the plane, and their velocities."""
        return jnp.concatenate([state.q[2:], state.qd])

    def has_fallen(self, state: PyTree) -> jax.Array:
        """Whether the torso is below `min_height` or above 1 m."""
        height = state.x.pos[0, 2]
        return ~((height >= self.min_height) & (height <= 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AntForwardBackward(ForwardBackward, _RunningAnt):
    """Run forward or backward: the reward of a step is `direction * velocity_x + 1 - 0.5 sum(action^2)`.

    The task is `{"direction": []}`, -1 or 1, the same two in both splits. An observation has 27 numbers. An episode
    ends if the torso leaves [`min_height`, 1]: from 0 in variant `l2l`, from 0.2 in `pearl`, whose horizon is 200.
    Contact forces, which brax has not, are neither seen nor paid for.

    Args:
        horizon: steps of 0.05 s until an episode is truncated.
        backend: brax's physics: "spring", "positional", "generalized" or "mjx".
        min_height: of the torso, in m.

    Example:
        >>> env = AntForwardBackward()
        >>> env.observation_size, env.action_size
        (27, 8)

    References:
        l2l: Finn et al. 2017, https://arxiv.org/abs/1703.03400, as in learn2learn, https://github.com/learnables/learn2learn

        pearl: Rakelly et al. 2019, https://arxiv.org/abs/1903.08254
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class AntDirection(Direction, _RunningAnt):
    """Run in a direction: the reward of a step is `dot(direction, velocity_xy) + 1 - 0.5 sum(action^2)`.

    The task is `{"direction": [2]}`, uniform on the unit circle. All else is as in `AntForwardBackward`.

    Args:
        horizon: steps of 0.05 s until an episode is truncated.
        backend: brax's physics: "spring", "positional", "generalized" or "mjx".
        min_height: of the torso, in m.

    Example:
        >>> env = AntDirection()
        >>> env.sample_tasks(jax.random.key(0), 3)["direction"].shape
        (3, 2)

    References:
        l2l: Rothfuss et al. 2018, https://arxiv.org/abs/1810.06784, as in learn2learn, https://github.com/learnables/learn2learn

        pearl: Rakelly et al. 2019, https://arxiv.org/abs/1903.08254
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class AntGoal(_Ant):
    """Run to a goal: the reward of a step is `-sum(|position_xy - goal|) - 0.1 sum(action^2)`.

    The task is `{"goal": [2]}`, uniform in the disk of 3 m. An observation has 29 numbers, the place on the plane among
    them. Episodes never end by themselves; the horizon is 100 in variant `promp`, 200 in `pearl`.

    Args:
        horizon: steps of 0.05 s until an episode is truncated.
        backend: brax's physics: "spring", "positional", "generalized" or "mjx".

    Example:
        >>> env = AntGoal()
        >>> env.observation_size, env.action_size
        (29, 8)

    References:
        promp: Rothfuss et al. 2018, https://arxiv.org/abs/1810.06784

        pearl: Rakelly et al. 2019, https://arxiv.org/abs/1903.08254
    """

    control_cost = 0.1

    @property
    def observation_size(self) -> int:
        """Joints and their velocities."""
        return 29

    def observe(self, physics: Physics, state: PyTree, control: jax.Array) -> jax.Array:
        """Observe all joints and their velocities."""
        return jnp.concatenate([state.q, state.qd])

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draw the goal."""
        key_angle, key_radius = jax.random.split(key)
        return {"goal": 3 * jnp.sqrt(jax.random.uniform(key_radius)) * draw_direction(key_angle)}

    def task_reward(self, velocity: jax.Array, after: PyTree, task: PyTree) -> jax.Array:
        """How far the torso is from the goal, in the 1-norm."""
        return -jnp.sum(jnp.abs(after.x.pos[0, :2] - task["goal"]))
