"""Lifetimes of agents as a process, to meta-train a learned objective on (Oh et al. 2020).

https://arxiv.org/abs/2007.08794.
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxmeta._checks import check_choice, check_integer, check_transformation
from jaxmeta._learned import no_value_fn, update_with
from jaxmeta._types import PyTree
from jaxmeta.display import brief, short_repr
from jaxmeta.envs import MetaEnv
from jaxmeta.estimators import Process
from jaxmeta.rl._learned_objective import LearnedObjective
from jaxmeta.rl._moments import Moments, add_moments, empty_moments
from jaxmeta.rl._observations import example_observations
from jaxmeta.rl._rollout import check_env, episode_returns, rollout


class AgentRun(NamedTuple):
    """State of the process that `agent_training` makes: an agent in its lifetime."""

    params: PyTree
    """Parameters, a dictionary of those of the policy and the critic."""
    opt_state: optax.OptState
    """State of the optimizer."""
    task: PyTree
    """Task of the environment in which the agent lives."""
    updates: jax.Array
    """Number of updates so far."""
    rewards: Moments
    """Running statistics of the rewards."""

    __repr__ = short_repr


def agent_training(
    objective: LearnedObjective,
    env: MetaEnv,
    policy: nn.Module,
    critic: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    horizon: int,
    episodes: int = 4,
    split: str = "train",
) -> Process:
    """Lifetimes of agents that learn with an objective, as a process to meta-train it.

    An agent lives in one task. It starts with new parameters, and a step of the process is one update of it: it plays
    episodes, and the optimizer steps along the gradient of the objective. The loss of a step is minus the mean return
    of these episodes, so that what is minimized is minus the mean return over the lifetime. It is no differentiable
    function of the meta-parameters, because it is a matter of sampled actions. So use `persistent_evolution` or
    `truncated_evolution`.

    The agent sees rewards divided by the root of their mean square in its lifetime so far, so that an objective serves
    rewards of any size. The critic's values count where an episode is truncated.

    The meta-parameters `theta` are the weights of the objective, `objective.initial(key)` at the start. The process
    also tests an objective: see the example. `process.reset(key)._replace(task=task)` is an agent in a task of yours.

    Args:
        objective: what the agents learn with.
        env: environment from which each lifetime draws a task.
        policy: Flax module that maps observations to a `Distribution`, such as `rl.CategoricalPolicy(actions)`.
        critic: Flax module that maps observations to values `[..., 1]`, such as `models.MLP((64, 64), out=1)`.
        optimizer: the agents' optimizer of both. With `optax.sgd` the size of the loss counts, so that the objective
            also learns how far to step.
        horizon: number of updates in a lifetime.
        episodes: number of episodes for an update.
        split: `"train"` or `"test"`, where tasks are from.

    Returns:
        A `Process`, whose state is an `AgentRun`.

    Raises:
        TypeError: if `objective` is no `LearnedObjective`, `env` is no environment, `policy` or `critic` is no Flax
            module, or `optimizer` is not an optax transformation.
        ValueError: if a number is less than 1, `split` is unknown, or the critic's values have another shape.

    Example:
        >>> import functools, jaxmeta
        >>> from jaxmeta import envs, estimators, models, rl
        >>> env, policy = envs.make("tabular", states=2, actions=2), rl.CategoricalPolicy(2, sizes=())
        >>> objective, critic = rl.LearnedObjective(rl.LSTM(2), hidden=4), models.MLP((), out=1)
        >>> process = rl.agent_training(objective, env, policy, critic, optax.sgd(1.0), horizon=4, episodes=2)
        >>> estimator = estimators.persistent_evolution(2, scale=0.1)
        >>> training = estimators.process_step(process, estimator, optax.adam(0.01), num_runs=4, batch_size=4)
        >>> theta = objective.initial(jax.random.key(0))
        >>> state, metrics = jax.jit(training.step)(training.init(theta, jax.random.key(1)), jax.random.key(2))

        The returns of an agent in a held-out task, by the number of its updates:

        >>> held_out = rl.agent_training(
        ...     objective, env, policy, critic, optax.sgd(1.0), horizon=4, episodes=2, split="test"
        ... )
        >>> step = functools.partial(held_out.step, state.meta)
        >>> keys = jax.random.split(jax.random.key(4), held_out.horizon)
        >>> agent, losses = jax.lax.scan(step, held_out.reset(jax.random.key(3)), keys)
        >>> returns = -losses
        >>> returns.shape
        (4,)

    References:
        Oh, Hessel, Czarnecki, Xu, van Hasselt, Singh & Silver, *Discovering Reinforcement Learning Algorithms*, NeurIPS
        2020, https://arxiv.org/abs/2007.08794
    """
    if not isinstance(objective, LearnedObjective):
        raise TypeError(f"objective must be an rl.LearnedObjective, got {brief(objective)}")
    check_env(env)
    _check_modules(policy=policy, critic=critic)
    check_transformation(optimizer=optimizer)
    check_integer(horizon=horizon, episodes=episodes)
    check_choice("split", split, ("train", "test"))
    example = example_observations(env)

    def reset(key: jax.Array) -> AgentRun:
        task_key, policy_key, critic_key = jax.random.split(key, 3)
        task = jax.tree.map(lambda x: x[0], env.sample_tasks(task_key, 1, split=split))
        params = {"policy": policy.init(policy_key, example), "critic": critic.init(critic_key, example)}
        return AgentRun(params, optimizer.init(params), task, jnp.zeros([], jnp.int32), empty_moments(jnp.zeros([])))

    def step(theta: PyTree, agent: AgentRun, key: jax.Array) -> tuple[AgentRun, jax.Array]:
        data = rollout(env, policy.apply, agent.params["policy"], agent.task, key, episodes=episodes)
        rewards = add_moments(agent.rewards, data.reward, data.valid)
        size = jnp.sqrt(rewards.mean**2 + rewards.variance)
        scaled = data._replace(reward=data.reward / jnp.where(size > 0, size, 1))

        def loss(params: PyTree) -> jax.Array:
            dist = policy.apply(params["policy"], data.obs)
            value, next_value = (
                _values(critic, params["critic"], obs, data.valid) for obs in (data.obs, data.next_obs)
            )
            given = scaled, dist, value, next_value, agent.updates / horizon
            return cast(jax.Array, objective.apply(theta, *given))

        value, grads = jax.value_and_grad(loss)(agent.params)
        given = {"value": value, "value_fn": no_value_fn("agent_training")}
        params, opt_state = update_with(optimizer, grads, agent.opt_state, agent.params, **given)
        return AgentRun(params, opt_state, agent.task, agent.updates + 1, rewards), -jnp.mean(episode_returns(data))

    return Process(reset, step, horizon)


def _check_modules(**values: Any) -> None:
    """Raises TypeError unless every value is a Flax module."""
    for name, value in values.items():
        if not isinstance(value, nn.Module):
            raise TypeError(f"{name} must be a Flax module, such as models.MLP((64, 64), out=1), got {brief(value)}")


def _values(critic: Any, params: PyTree, obs: PyTree, valid: jax.Array) -> jax.Array:
    """Returns the critic's values of observations, `[T, E]`."""
    values = critic.apply(params, obs)
    if values.shape != (*valid.shape, 1):
        raise ValueError(f"critic must give values [..., 1], got {list(values.shape)} for {list(valid.shape)} steps")
    return values[..., 0]
