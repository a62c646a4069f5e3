"""Half-cheetah environments: run forward or backward, or at a velocity."""

import abc
import dataclasses

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_positive
from jaxmeta._types import PyTree
from jaxmeta.envs._body import BodyEnv, ForwardBackward
from jaxmeta.envs._brax import Physics


@dataclasses.dataclass(frozen=True, kw_only=True)
class _HalfCheetah(BodyEnv):
    """Half-cheetah without a task."""

    see_torso: bool = True

    body = "halfcheetah"
    control_cost = 0.05
    position_noise = 0.1
    velocity_noise = "normal"

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return 20 if self.see_torso else 17

    @property
    def action_size(self) -> int:
        """Number of torques."""
        return 6

    @abc.abstractmethod
    def task_reward(self, velocity: jax.Array, after: PyTree, task: PyTree) -> jax.Array:
        """Returns the reward of the task for a step, `[]`."""

    def observe(self, physics: Physics, state: PyTree, control: jax.Array) -> jax.Array:
        """Returns the joint positions, except the distance run, the joint velocities, and the torso's position."""
        seen = [state.q[1:], state.qd]
        return jnp.concatenate([*seen, state.x.pos[0]] if self.see_torso else seen)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HalfCheetahForwardBackward(ForwardBackward, _HalfCheetah):
    """Half-cheetah that must run forward or backward.

    The reward of a step is `direction * velocity - 0.05 * sum(action**2)`. The task is `{"direction": []}`, -1 or 1,
    the same two in both splits. Episodes never end by themselves.

    | variant | horizon | `see_torso` | definition                          |
    | ------- | ------- | ----------- | ----------------------------------- |
    | `l2l`   | 100     | yes         | Finn et al. 2017, as in learn2learn |
    | `promp` | 100     | no          | Rothfuss et al. 2019                |
    | `pearl` | 200     | yes         | Rakelly et al. 2019                 |

    Args:
        horizon: number of steps of 0.05 s after which an episode is truncated.
        backend: simulator of brax: `"spring"`, `"positional"`, `"generalized"` or `"mjx"`.
        see_torso: whether the observation ends with the torso's position `[3]`, which gives 20 instead of 17 numbers.

    Example:
        >>> env = HalfCheetahForwardBackward()
        >>> sorted(set(env.sample_tasks(jax.random.key(0), 20)["direction"].tolist()))
        [-1.0, 1.0]

    References:
        Finn, Abbeel & Levine, *Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks*, ICML 2017,
        https://arxiv.org/abs/1703.03400, as in https://github.com/learnables/learn2learn

        Rothfuss, Lee, Clavera, Asfour & Abbeel, *ProMP: Proximal Meta-Policy Search*, ICLR 2019,
        https://arxiv.org/abs/1810.06784

        Rakelly, Zhou, Quillen, Finn & Levine, *Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic
        Context Variables*, ICML 2019, https://arxiv.org/abs/1903.08254
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class HalfCheetahVelocity(_HalfCheetah):
    """Half-cheetah that must run at a velocity.

    The reward of a step is `-abs(velocity - target) - 0.05 * sum(action**2)`. The task is `{"velocity": []}`, the
    target, uniform in [0, `max_velocity`]. Episodes never end by themselves.

    | variant | horizon | `see_torso` | `max_velocity` | definition           |
    | ------- | ------- | ----------- | -------------- | -------------------- |
    | `promp` | 100     | no          | 3              | Rothfuss et al. 2019 |
    | `pearl` | 200     | yes         | 3              | Rakelly et al. 2019  |
    | `maml`  | 200     | yes         | 2              | Finn et al. 2017     |

    Args:
        horizon: number of steps of 0.05 s after which an episode is truncated.
        backend: simulator of brax: `"spring"`, `"positional"`, `"generalized"` or `"mjx"`.
        see_torso: whether the observation ends with the torso's position `[3]`, which gives 20 instead of 17 numbers.
        max_velocity: largest target velocity, in m/s.

    Example:
        >>> env = HalfCheetahVelocity()
        >>> env.sample_tasks(jax.random.key(0), 4)["velocity"].shape
        (4,)

    References:
        Rothfuss, Lee, Clavera, Asfour & Abbeel, *ProMP: Proximal Meta-Policy Search*, ICLR 2019,
        https://arxiv.org/abs/1810.06784

        Rakelly, Zhou, Quillen, Finn & Levine, *Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic
        Context Variables*, ICML 2019, https://arxiv.org/abs/1903.08254

        Finn, Abbeel & Levine, *Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks*, ICML 2017,
        https://arxiv.org/abs/1703.03400
    """

    max_velocity: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(max_velocity=self.max_velocity)

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draws the target velocity."""
        return {"velocity": jax.random.uniform(key, maxval=self.max_velocity)}

    def task_reward(self, velocity: jax.Array, after: PyTree, task: PyTree) -> jax.Array:
        """Returns minus the distance of the velocity from the target."""
        return -jnp.abs(velocity[0] - task["velocity"])
