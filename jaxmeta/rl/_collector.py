"""Where the data of a policy gradient come from: episodes, and how much better than expected their actions were."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxmeta._checks import check_integer, check_number
from jaxmeta._types import PyTree, Task
from jaxmeta.envs import MetaEnv
from jaxmeta.rl._returns import discounted_returns, gae, linear_baseline, next_step, normalize
from jaxmeta.rl._rollout import Policy, Trajectory, rollout


class Samples(NamedTuple):
    """What a surrogate loss needs: data, through which no derivative goes."""

    trajectory: Trajectory
    """Episodes of one task."""
    advantage: jax.Array
    """How much better each action was than what was expected, `[T, E]`; of mean 0 and variance 1, 0 where not valid."""


@dataclass(frozen=True, kw_only=True)
class Collector:
    """Plays episodes of a task and judges their actions: `(params, task, key) -> Samples`.

    Advantages are generalized advantage estimates against the linear feature baseline, normalized per task. The horizon
    is part of the problem: nothing is expected after it, and the baseline knows the time.

    Attributes:
        env: the environment.
        policy: `(params, obs) -> Distribution`, such as the `apply` of a Flax module.
        episodes: how many are played in a task.
        discount: `gamma`, per step.
        trace_decay: `lambda` of generalized advantage estimation.

    Raises:
        ValueError: if `episodes` is less than 1 or another number is not in [0, 1].

    Example:
        >>> from jaxmeta import envs, rl
        >>> def policy(weights, obs):
        ...     return rl.Categorical(obs @ weights)
        >>> env, weights = envs.make("tabular", horizon=3), jnp.zeros((10, 5))
        >>> collect = Collector(env=env, policy=policy, episodes=4)
        >>> task = env.reset(jax.random.key(0)).info["task"]
        >>> jax.jit(collect)(weights, task, jax.random.key(1)).advantage.shape
        (3, 4)
    """

    env: MetaEnv
    policy: Policy
    episodes: int = 20
    discount: float = 0.99
    trace_decay: float = 1.0

    def __post_init__(self) -> None:
        check_integer(episodes=self.episodes)
        check_fraction(discount=self.discount, trace_decay=self.trace_decay)

    def __call__(self, params: PyTree, task: PyTree, key: jax.Array) -> Samples:
        """Collect `Samples` with the policy of `params` in one task."""
        return self.judge(self.play(params, task, key), self.discount, self.trace_decay)

    def play(self, params: PyTree, task: PyTree, key: jax.Array) -> Trajectory:
        """Play the episodes only."""
        return rollout(self.env, self.policy, params, task, key, episodes=self.episodes)

    def judge(self, data: Trajectory, discount: float | jax.Array, trace_decay: float | jax.Array) -> Samples:
        """Judge the actions of episodes; differentiable in both numbers."""
        ended = data.terminated | data.truncated
        returns = discounted_returns(data.reward, ended, discount=discount)
        value = linear_baseline(data.obs, returns, data.valid)
        ends = ended, jnp.zeros_like(ended)
        advantage = gae(data.reward, value, next_step(value), *ends, discount=discount, trace_decay=trace_decay)
        return Samples(data, normalize(advantage, data.valid))


@struct.dataclass
class EnvTasks:
    """A `jaxmeta.Sampler` of the tasks of an environment, for learners, `jaxmeta.meta_step` and `jaxmeta.train`.

    Support and query are the same: the task, in which `policy_gradient` plays new episodes each time.

    Attributes:
        env: the environment.
        split: "train" or "test".

    Example:
        >>> from jaxmeta import envs
        >>> task = EnvTasks(envs.make("particles2d"))(jax.random.key(0))
        >>> task.support["goal"].shape
        (2,)
    """

    env: MetaEnv = struct.field(pytree_node=False)
    split: str = struct.field(pytree_node=False, default="train")

    def __call__(self, key: jax.Array) -> Task:
        """Draw one task."""
        task = jax.tree.map(lambda x: x[0], self.env.sample_tasks(key, 1, split=self.split))
        return Task(task, task)


def check_fraction(**values: float) -> None:
    """Raises ValueError unless every value is in [0, 1]."""
    check_number(**values)
    for name, value in values.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
