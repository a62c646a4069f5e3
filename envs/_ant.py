"""Ant environments: run forward or backward, in a direction, or to a goal."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_number
from jaxmeta._types import PyTree
from jaxmeta.envs._body import BodyEnv, Direction, ForwardBackward, draw_direction
from jaxmeta.envs._brax import Physics


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ant(BodyEnv):
    """Ant without a task."""

    body = "ant"
    position_noise = 0.1
    velocity_noise = "normal"

    @property
    def action_size(self) -> int:
        """Number of torques."""
        return 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class _RunningAnt(_Ant):
    """Ant that falls if its torso is too low or too high."""

    min_height: float = 0.0

    control_cost = 0.5
    alive_bonus = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(min_height=self.min_height)

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return 27

    def observe(self, physics: Physics, state: PyTree, control: jax.Array) -> jax.Array:
        """Returns the joint positions, except the place on the plane, and the joint velocities."""
        return jnp.concatenate([state.q[2:], state.qd])

    def has_fallen(self, state: PyTree) -> jax.Array:
        """Returns whether the torso is below `min_height` or above 1 m."""
        height = state.x.pos[0, 2]
        return ~((height >= self.min_height) & (height <= 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AntForwardBackward(ForwardBackward, _RunningAnt):
    """Ant that must run forward or backward.

    The reward of a step is `direction * velocity_x + 1 - 0.5 * sum(action**2)`. The task is `{"direction": []}`, -1 or
    1, the same two in both splits. An observation has 27 numbers. An episode ends if the height of the torso leaves
    [`min_height`, 1]. brax has no contact forces, so they are neither observed nor part of the reward.

    | variant | horizon | `min_height` | definition                              |
    | ------- | ------- | ------------ | --------------------------------------- |
    | `l2l`   | 100     | 0            | Finn et al. 2017, as in learn2learn     |
    | `pearl` | 200     | 0.2          | Rakelly et al. 2019                     |

    Args:
        horizon: number of steps of 0.05 s after which an episode is truncated.
        backend: simulator of brax: `"spring"`, `"positional"`, `"generalized"` or `"mjx"`.
        min_height: smallest height of the torso, in m.

    Example:
        >>> env = AntForwardBackward()
        >>> env.observation_size, env.action_size
        (27, 8)

    References:
        Finn, Abbeel & Levine, *Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks*, ICML 2017,
        https://arxiv.org/abs/1703.03400, as in https://github.com/learnables/learn2learn

        Rakelly, Zhou, Quillen, Finn & Levine, *Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic
        Context Variables*, ICML 2019, https://arxiv.org/abs/1903.08254
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class AntDirection(Direction, _RunningAnt):
    """Ant that must run in a direction.

    The reward of a step is `direction @ velocity_xy + 1 - 0.5 * sum(action**2)`. The task is `{"direction": [2]}`,
    uniform on the unit circle. Everything else is as in `AntForwardBackward`, except that variant `l2l` is that of
    Rothfuss et al. 2019, as in learn2learn.

    Args:
        horizon: number of steps of 0.05 s after which an episode is truncated.
        backend: simulator of brax: `"spring"`, `"positional"`, `"generalized"` or `"mjx"`.
        min_height: smallest height of the torso, in m.

    Example:
        >>> env = AntDirection()
        >>> env.sample_tasks(jax.random.key(0), 3)["direction"].shape
        (3, 2)

    References:
        Rothfuss, Lee, Clavera, Asfour & Abbeel, *ProMP: Proximal Meta-Policy Search*, ICLR 2019,
        https://arxiv.org/abs/1810.06784, as in https://github.com/learnables/learn2learn

        Rakelly, Zhou, Quillen, Finn & Levine, *Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic
        Context Variables*, ICML 2019, https://arxiv.org/abs/1903.08254
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class AntGoal(_Ant):
    """Ant that must run to a goal.

    The reward of a step is `-sum(abs(position_xy - goal)) - 0.1 * sum(action**2)`. The task is `{"goal": [2]}`, uniform
    in the disk with a radius of 3 m. An observation has 29 numbers, including the place on the plane. Episodes never
    end by themselves.

    | variant | horizon | definition           |
    | ------- | ------- | -------------------- |
    | `promp` | 100     | Rothfuss et al. 2019 |
    | `pearl` | 200     | Rakelly et al. 2019  |

    Args:
        horizon: number of steps of 0.05 s after which an episode is truncated.
        backend: simulator of brax: `"spring"`, `"positional"`, `"generalized"` or `"mjx"`.

    Example:
        >>> env = AntGoal()
        >>> env.observation_size, env.action_size
        (29, 8)

    References:
        Rothfuss, Lee, Clavera, Asfour & Abbeel, *ProMP: Proximal Meta-Policy Search*, ICLR 2019,
        https://arxiv.org/abs/1810.06784

        Rakelly, Zhou, Quillen, Finn & Levine, *Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic
        Context Variables*, ICML 2019, https://arxiv.org/abs/1903.08254
    """

    control_cost = 0.1

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return 29

    def observe(self, physics: Physics, state: PyTree, control: jax.Array) -> jax.Array:
        """Returns all joint positions and joint velocities."""
        return jnp.concatenate([state.q, state.qd])

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draws the goal."""
        key_angle, key_radius = jax.random.split(key)
        return {"goal": 3 * jnp.sqrt(jax.random.uniform(key_radius)) * draw_direction(key_angle)}

    def task_reward(self, velocity: jax.Array, after: PyTree, task: PyTree) -> jax.Array:
        """Returns minus the distance of the torso from the goal, in the 1-norm."""
        return -jnp.sum(jnp.abs(after.x.pos[0, :2] - task["goal"]))
