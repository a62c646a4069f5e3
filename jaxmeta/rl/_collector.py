"""Samples of a policy gradient: episodes, and the advantages of their actions."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jaxmeta._checks import check_choice, check_fraction, check_integer, check_takes
from jaxmeta._types import PyTree, Task
from jaxmeta.display import brief, short_repr
from jaxmeta.envs import MetaEnv
from jaxmeta.rl._returns import discounted_returns, gae, linear_baseline, next_step, normalize
from jaxmeta.rl._rollout import Policy, Trajectory, check_env, rollout


class Samples(NamedTuple):
    """Input of a surrogate loss: data, through which no derivative flows."""

    trajectory: Trajectory
    """Episodes of one task."""
    advantage: jax.Array
    """Advantages of the actions, `[T, E]`, of mean 0 and variance 1 over the valid steps, 0 at the others."""

    __repr__ = short_repr


def estimate_advantages(
    trajectory: Trajectory, *, discount: float | jax.Array, trace_decay: float | jax.Array
) -> Samples:
    """Estimates the advantages of the actions of one task's episodes.

    These are generalized advantage estimates (see `gae`) against the linear feature baseline, fitted to the same
    episodes, and normalized over all valid steps. The horizon is part of the problem: no reward is expected after it,
    and the baseline knows the time.

    Args:
        trajectory: episodes of one task.
        discount: `gamma`, the discount per step, in [0, 1]. The result is differentiable in it.
        trace_decay: `lambda` of generalized advantage estimation, in [0, 1]. The result is differentiable in it.

    Returns:
        The episodes with their advantages.

    Example:
        >>> from jaxmeta import envs, rl
        >>> def policy(weights, obs):
        ...     return rl.Categorical(obs @ weights)
        >>> env, weights, key = envs.make("tabular", horizon=3), jnp.zeros((10, 5)), jax.random.key(0)
        >>> data = rl.rollout(env, policy, weights, env.reset(key).info["task"], key, episodes=4)
        >>> estimate_advantages(data, discount=0.9, trace_decay=0.95).advantage.shape
        (3, 4)

    References:
        Schulman et al., *High-Dimensional Continuous Control Using Generalized Advantage Estimation*, ICLR 2016,
        https://arxiv.org/abs/1506.02438
    """
    ended = trajectory.terminated | trajectory.truncated
    returns = discounted_returns(trajectory.reward, ended, discount=discount)
    value = linear_baseline(trajectory.obs, returns, trajectory.valid)
    ends = ended, jnp.zeros_like(ended)
    advantage = gae(trajectory.reward, value, next_step(value), *ends, discount=discount, trace_decay=trace_decay)
    return Samples(trajectory, normalize(advantage, trajectory.valid))


@dataclass(frozen=True, kw_only=True)
class Collector:
    """Collector of the samples of a policy gradient, a function `(params, task, key) -> Samples`.

    It plays episodes of a task and estimates the advantages of their actions (see `estimate_advantages`).

    Attributes:
        env: the environment.
        policy: `(params, obs) -> Distribution`, such as the `apply` of a Flax module.
        episodes: number of episodes per task.
        discount: `gamma`, the discount per step.
        trace_decay: `lambda` of generalized advantage estimation.

    Raises:
        ValueError: if `episodes` is less than 1, or another number is not between 0 and 1.

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
    discount: float | jax.Array = 0.99
    trace_decay: float | jax.Array = 1.0

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_env(self.env)
        if isinstance(self.policy, nn.Module):
            found = brief(self.policy)
            raise TypeError(f"policy must be a function (params, obs) -> Distribution, such as {found}(...).apply")
        check_takes(2, " (params, obs)", policy=self.policy)
        check_integer(episodes=self.episodes)
        check_fraction(discount=self.discount, trace_decay=self.trace_decay)

    def __call__(self, params: PyTree, task: PyTree, key: jax.Array) -> Samples:
        """Collects samples of one task with the policy of `params`."""
        data = self.play(params, task, key)
        return estimate_advantages(data, discount=self.discount, trace_decay=self.trace_decay)

    def play(self, params: PyTree, task: PyTree, key: jax.Array) -> Trajectory:
        """Plays the episodes without estimating advantages."""
        return rollout(self.env, self.policy, params, task, key, episodes=self.episodes)


@struct.dataclass
class EnvTasks:
    """Sampler of the tasks of an environment, for learners, `jaxmeta.meta_step` and `jaxmeta.train`.

    Support and query are both the task itself, in which `policy_gradient` plays new episodes each time.

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

    def __post_init__(self) -> None:
        check_env(self.env)
        check_choice("split", self.split, ("train", "test"))

    def __call__(self, key: jax.Array) -> Task:
        """Draws one task."""
        task = jax.tree.map(lambda x: x[0], self.env.sample_tasks(key, 1, split=self.split))
        return Task(task, task)
