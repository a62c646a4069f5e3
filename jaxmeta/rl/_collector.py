"""Samples of a policy gradient: episodes, and the advantages of their actions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jaxmeta._checks import check_choice, check_fraction, check_integer, check_takes
from jaxmeta._types import PyTree, Task
from jaxmeta.display import brief, short_repr
from jaxmeta.envs import MetaEnv
from jaxmeta.rl._moments import Moments, add_moments, empty_moments, standardize
from jaxmeta.rl._observations import example_observations, flat_observations
from jaxmeta.rl._returns import discounted_returns, gae, linear_baseline, next_step, normalize
from jaxmeta.rl._rollout import Policy, Trajectory, check_env, rollout
from jaxmeta.rl._value_network import ValueNetwork, ValueState


class Samples(NamedTuple):
    """Input of a surrogate loss: data, through which no derivative flows."""

    trajectory: Trajectory
    """Episodes of one task."""
    advantage: jax.Array
    """Advantages of the actions, `[T, E]`, of mean 0 and variance 1 over the valid steps, 0 at the others."""

    __repr__ = short_repr


def estimate_advantages(
    trajectory: Trajectory,
    *,
    discount: float | jax.Array,
    trace_decay: float | jax.Array,
    value: jax.Array | None = None,
) -> Samples:
    """Estimates the advantages of the actions of one task's episodes.

    These are generalized advantage estimates (see `gae`) against a baseline, normalized over all valid steps. The
    horizon is part of the problem: no reward is expected after it, and the baseline should know the time.

    Args:
        trajectory: episodes of one task.
        discount: `gamma`, the discount per step, in [0, 1]. The result is differentiable in it.
        trace_decay: `lambda` of generalized advantage estimation, in [0, 1]. The result is differentiable in it.
        value: the baseline's values, `[T, E]`; those of the linear feature baseline, fitted to the same episodes, if
            `None`.

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
    value = _linear_values(trajectory, discount) if value is None else value
    ends = ended, jnp.zeros_like(ended)
    advantage = gae(trajectory.reward, value, next_step(value), *ends, discount=discount, trace_decay=trace_decay)
    return Samples(trajectory, normalize(advantage, trajectory.valid))


def _linear_values(trajectory: Trajectory, discount: float | jax.Array) -> jax.Array:
    """Returns the values of the linear feature baseline, `[T, E]`."""
    ended = trajectory.terminated | trajectory.truncated
    returns = discounted_returns(trajectory.reward, ended, discount=discount)
    return linear_baseline(flat_observations(trajectory.obs), returns, trajectory.valid)


class CollectorState(NamedTuple):
    """State of a collector that learns from what it collects."""

    moments: Moments | None
    """Running statistics of the observations, if they are normalized."""
    value: ValueState | None
    """State of the value network, if it is the baseline."""

    __repr__ = short_repr


@dataclass(frozen=True, kw_only=True)
class Collector:
    """Collector of the samples of a policy gradient, a function `(params, task, key) -> Samples`.

    It plays episodes of a task and estimates the advantages of their actions (see `estimate_advantages`). With a value
    network or normalized observations it has a state, which `promp`, `maml_trpo` and the other algorithms keep in
    `meta.state`; `collect.at(meta.state)` is the collector in this state.

    Attributes:
        env: the environment.
        policy: `(params, obs) -> Distribution`, such as the `apply` of a Flax module.
        episodes: number of episodes per task.
        discount: `gamma`, the discount per step.
        trace_decay: `lambda` of generalized advantage estimation.
        baseline: `"linear"` for the linear feature baseline, which is fitted to each task's own episodes, `"none"`, or
            a `ValueNetwork`, which is shared by all tasks.
        normalize: whether the policy and the baseline see observations of mean 0 and variance 1, by running
            statistics of all episodes so far.

    Raises:
        ValueError: if `episodes` is less than 1, another number is not between 0 and 1, or `baseline` is unknown.

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
    baseline: Any = "linear"
    normalize: bool = False

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_env(self.env)
        if isinstance(self.policy, nn.Module):
            found = brief(self.policy)
            raise TypeError(f"policy must be a function (params, obs) -> Distribution, such as {found}(...).apply")
        check_takes(2, " (params, obs)", policy=self.policy)
        check_integer(episodes=self.episodes)
        check_fraction(discount=self.discount, trace_decay=self.trace_decay)
        if not isinstance(self.baseline, ValueNetwork | _Bound):
            check_choice("baseline", self.baseline, ("linear", "none"))

    def __call__(self, params: PyTree, task: PyTree, key: jax.Array) -> Samples:
        """Collects samples of one task with the policy of `params`."""
        self.check_bound()
        data = self.play(params, task, key)
        network, state, see = self.baseline if isinstance(self.baseline, _Bound) else _Bound(self.baseline)
        seen = data._replace(obs=see(data.obs))
        if isinstance(network, ValueNetwork) and state is not None:
            value = network.values(state, seen.obs)
        else:
            value = _linear_values(seen, self.discount) if network == "linear" else jnp.zeros_like(data.reward)
        return estimate_advantages(data, discount=self.discount, trace_decay=self.trace_decay, value=value)

    def play(self, params: PyTree, task: PyTree, key: jax.Array) -> Trajectory:
        """Plays the episodes without estimating advantages."""
        return rollout(self.env, self.policy, params, task, key, episodes=self.episodes)

    @property
    def stateful(self) -> bool:
        """Flag of a collector that learns from what it collects, and must be called as `collect.at(state)`."""
        return self.normalize or isinstance(self.baseline, ValueNetwork)

    def check_bound(self) -> None:
        """Raises ValueError if the collector needs a state and has none."""
        if self.stateful:
            part = "normalize=True" if self.normalize else "a ValueNetwork"
            raise ValueError(
                f"collect must be without a state here, got {part}: rl.promp, maml_trpo, maml_a2c, e_maml and "
                "multi_task_ppo carry it, and collect.at(meta.state) is the collector in that state"
            )

    def init_state(self, key: jax.Array) -> CollectorState | tuple[()]:
        """Returns the state before the first episode, `()` if there is none."""
        if not self.stateful:
            return ()
        obs, network = example_observations(self.env), self.baseline
        moments = empty_moments(jax.tree.map(lambda x: x[0], obs)) if self.normalize else None
        return CollectorState(moments, network.init(key, obs) if isinstance(network, ValueNetwork) else None)

    def at(self, state: PyTree) -> "Collector":
        """Returns the collector in a state, such as `meta.state`."""
        if not self.stateful:
            return self
        if not isinstance(state, CollectorState):
            raise ValueError(f"state must be that of this collector, such as meta.state, got {brief(state)}")
        see = partial(_see, state.moments)
        baseline = _Bound(self.baseline, state.value, see)
        return replace(self, policy=partial(_seeing, see, self.policy), baseline=baseline, normalize=False)

    def learn(self, state: PyTree, data: Trajectory, key: jax.Array) -> PyTree:
        """Returns the state after episodes, `[..., T, E]`."""
        if not isinstance(state, CollectorState):
            return state
        moments, value = state
        if value is not None:
            ended = data.terminated | data.truncated
            reward, ended = (jnp.moveaxis(x, -2, 0) for x in (data.reward, ended))
            returns = jnp.moveaxis(discounted_returns(reward, ended, discount=self.discount), 0, -2)
            value = self.baseline.fit(value, _see(moments, data.obs), returns, data.valid, key)
        moments = None if moments is None else add_moments(moments, data.obs, data.valid)
        return CollectorState(moments, value)


def _see(moments: Moments | None, obs: PyTree) -> PyTree:
    """Returns observations by their statistics, or as they are."""
    return obs if moments is None else standardize(moments, obs)


class _Bound(NamedTuple):
    """A baseline with the state of a collector."""

    baseline: Any
    value: ValueState | None = None
    see: Callable[[PyTree], PyTree] = partial(_see, None)
    """Function that returns what the baseline sees of observations."""


def _seeing(see: Callable[[PyTree], PyTree], policy: Policy, params: PyTree, obs: PyTree) -> Any:
    """Calls a policy with what it sees of the observations."""
    return policy(params, see(obs))


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
