"""Half-cheetahs that must run forward or backward, or at a velocity."""

import abc
import dataclasses

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_number
from jaxmeta._types import PyTree
from jaxmeta.envs._body import BodyEnv, ForwardBackward
from jaxmeta.envs._brax import Physics


@dataclasses.dataclass(frozen=True, kw_only=True)
class _HalfCheetah(BodyEnv):
    see_torso: bool = True

    body = "halfcheetah"
    control_cost = 0.05
    position_noise = 0.1
    velocity_noise = "normal"

    @property
    def observation_size(self) -> int:
        """Joints and their velocities, and the torso's position."""
        return 20 if self.see_torso else 17

    @property
    def action_size(self) -> int:
        """The torques."""
        return 6

    @abc.abstractmethod
    def task_reward(self, velocity: jax.Array, after: PyTree, task: PyTree) -> jax.Array:
        """What the task pays."""

    def observe(self, physics: Physics, state: PyTree, control: jax.Array) -> jax.Array:
        """Observe the joints but for the distance run, their velocities, and the torso's position."""
        seen = [state.q[1:], state.qd]
        return jnp.concatenate([*seen, state.x.pos[0]] if self.see_torso else seen)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HalfCheetahForwardBackward(ForwardBackward, _HalfCheetah):
    """Run forward or backward: the reward of a step is `direction * velocity - 0.05 sum(action^2)`.

    The task is `{"direction": []}`, -1 or 1, the same two in both splits. Episodes never end by themselves.

    | variant | horizon | `see_torso` |
    | ------- | ------- | ----------- |
    | `l2l`   | 100     | yes         |
    | `promp` | 100     | no          |
    | `pearl` | 200     | yes         |

    Args:
        horizon: steps of 0.05 s until an episode is truncated.
        backend: brax's physics: "spring", "positional", "generalized" or "mjx".
        see_torso: whether the observation ends with the torso's position `[3]`: `[20]` or `[17]` numbers.

    Example:
        >>> env = HalfCheetahForwardBackward()
        >>> sorted(set(env.sample_tasks(jax.random.key(0), 20)["direction"].tolist()))
        [-1.0, 1.0]

    References:
        l2l: Finn et al. 2017, https://arxiv.org/abs/1703.03400, as in learn2learn, https://github.com/learnables/learn2learn

        promp: Rothfuss et al. 2018, https://arxiv.org/abs/1810.06784

        pearl: Rakelly et al. 2019, https://arxiv.org/abs/1903.08254
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class HalfCheetahVelocity(_HalfCheetah):
    """Run at a velocity: the reward of a step is `-|velocity - target| - 0.05 sum(action^2)`.

    The task is `{"velocity": []}`, uniform below `max_velocity`. Episodes never end by themselves.

    | variant | horizon | `see_torso` | `max_velocity` |
    | ------- | ------- | ----------- | -------------- |
    | `promp` | 100     | no          | 3              |
    | `pearl` | 200     | yes         | 3              |
    | `maml`  | 200     | yes         | 2              |

    Args:
        horizon: steps of 0.05 s until an episode is truncated.
        backend: brax's physics: "spring", "positional", "generalized" or "mjx".
        see_torso: whether the observation ends with the torso's position `[3]`: `[20]` or `[17]` numbers.
        max_velocity: in m/s.

    Example:
        >>> env = HalfCheetahVelocity()
        >>> env.sample_tasks(jax.random.key(0), 4)["velocity"].shape
        (4,)

    References:
        promp: Rothfuss et al. 2018, https://arxiv.org/abs/1810.06784

        pearl: Rakelly et al. 2019, https://arxiv.org/abs/1903.08254

        maml: Finn et al. 2017, https://arxiv.org/abs/1703.03400
    """

    max_velocity: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(max_velocity=self.max_velocity)

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draw the velocity."""
        return {"velocity": jax.random.uniform(key, maxval=self.max_velocity)}

    def task_reward(self, velocity: jax.Array, after: PyTree, task: PyTree) -> jax.Array:
        """How far the velocity is from the target."""
        return -jnp.abs(velocity[0] - task["velocity"])
