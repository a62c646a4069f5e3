"""RL2 (Duan et al. 2016, https://arxiv.org/abs/1611.02779; Wang et al. 2016, https://arxiv.org/abs/1611.05763).

A recurrent policy is trained over whole trials; what it does with its memory within one is the learning.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta._checks import check_integer, check_number, check_transformation
from jaxmeta._parallel import constrain, over_tasks
from jaxmeta._types import MetaParams, Metrics, PyTree, Training, TrainingState
from jaxmeta.rl._collector import Samples, check_fraction
from jaxmeta.rl._distributions import Distribution
from jaxmeta.rl._policies import RecurrentPolicy
from jaxmeta.rl._returns import gae, masked_mean, next_step, normalize
from jaxmeta.rl._rollout import Trajectory, episode_returns, rollout
from jaxmeta.rl._surrogates import clipped
from jaxmeta.rl._trial import Trial


def rl2(
    trial: Trial,
    policy: RecurrentPolicy,
    *,
    num_tasks: int = 256,
    optimizer: optax.GradientTransformation | None = None,
    discount: float = 0.99,
    trace_decay: float = 0.95,
    epochs: int = 4,
    minibatches: int = 4,
    clip: float = 0.2,
    value_weight: float = 0.5,
    entropy_weight: float = 0.01,
    mesh: Mesh | None = None,
) -> Training:
    """RL2 with PPO: the memory is empty at the start of a trial, and gradients go back through all of it.

    Adaptation is nothing but playing: `rollout(trial, policy.apply, params, task, key, episodes=n,
    memory=policy.empty_memory(n))`.

    Args:
        trial: the environment.
        policy: the network.
        num_tasks: trials per iteration, each in a task of its own.
        optimizer: of all parameters; `optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-3))` if `None`.
        discount: `gamma`, per step; it goes on from episode to episode of a trial.
        trace_decay: `lambda` of generalized advantage estimation.
        epochs: passes over the trials of an iteration.
        minibatches: parts in which a pass takes them; must divide `num_tasks`.
        clip: see `clipped`.
        value_weight: of the critic's squared error.
        entropy_weight: of the entropy, which is paid for.
        mesh: see `maml_trpo`.

    Returns:
        A `Training`. Its metrics: `return`, the mean undiscounted return of a trial; `loss`, minus that; `entropy` in
        nats, `kl` from the policy that played, and `value_error`, the critic's mean squared one, of the last minibatch.

    Raises:
        TypeError: if `optimizer` is not an optax transformation.
        ValueError: if a number is out of its range, or `num_tasks` is no multiple of `minibatches`.

    Example:
        >>> from jaxmeta import envs, rl
        >>> trial = rl.Trial(envs.make("bandit-bernoulli", horizon=4))
        >>> policy = rl.RecurrentPolicy(trial.action_size, trial.discrete, hidden=8)
        >>> training = rl2(trial, policy, num_tasks=4, minibatches=2)
        >>> obs = jnp.zeros((1, trial.observation_size))
        >>> state = training.init(jax.jit(policy.init)(jax.random.key(0), obs, policy.empty_memory(1)))
        >>> state, metrics = jax.jit(training.step)(state, jax.random.key(1))
        >>> bool(0 <= metrics["return"] <= 4)
        True

    References:
        Duan, Schulman, Chen, Bartlett, Sutskever & Abbeel, *RL^2: Fast Reinforcement Learning via Slow Reinforcement
        Learning*, 2016, https://arxiv.org/abs/1611.02779

        Wang et al., *Learning to Reinforcement Learn*, 2016, https://arxiv.org/abs/1611.05763
    """
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-3)) if optimizer is None else optimizer
    check_transformation(optimizer=optimizer)
    check_integer(num_tasks=num_tasks, epochs=epochs, minibatches=minibatches)
    check_fraction(discount=discount, trace_decay=trace_decay)
    check_number(value_weight=value_weight, entropy_weight=entropy_weight)
    if num_tasks % minibatches:
        raise ValueError(f"num_tasks must be a multiple of minibatches ({minibatches}), got {num_tasks}")
    surrogate = clipped(clip)

    def objective(meta: MetaParams, samples: Samples, target: jax.Array) -> tuple[jax.Array, Metrics]:
        data = samples.trajectory
        dist, value = _replay(policy, meta.params, data.obs)
        metrics = {
            "entropy": masked_mean(dist.entropy(), data.valid),
            "kl": masked_mean(data.dist.kl(dist), data.valid),
            "value_error": masked_mean((value - target) ** 2, data.valid),
        }
        loss = surrogate(dist.log_prob(data.action), samples)
        loss += value_weight * metrics["value_error"] - entropy_weight * metrics["entropy"]
        return loss, metrics

    def init(params: PyTree, key: jax.Array | None = None) -> TrainingState:
        del key
        meta = MetaParams(params)
        return TrainingState(meta, optimizer.init(meta), jnp.int32(0))

    def step(state: TrainingState, key: jax.Array) -> tuple[TrainingState, Metrics]:
        task_key, play_key, key = jax.random.split(key, 3)
        tasks = trial.sample_tasks(task_key, num_tasks)
        tasks, keys = over_tasks((tasks, jax.random.split(play_key, num_tasks)), mesh)
        data = over_tasks(_play(trial, policy, state.meta.params, tasks, keys), mesh, axis=1)
        _, value = _replay(policy, state.meta.params, data.obs)
        ends = data.terminated, data.truncated
        advantage = gae(data.reward, value, next_step(value), *ends, discount=discount, trace_decay=trace_decay)
        samples = Samples(data, normalize(advantage, data.valid))
        update = partial(_update, objective, optimizer, (samples, advantage + value), minibatches, mesh)
        (meta, opt_state), metrics = jax.lax.scan(update, (state.meta, state.opt_state), jax.random.split(key, epochs))
        mean_return = jnp.mean(episode_returns(data))
        metrics = jax.tree.map(lambda x: x[-1], metrics)
        metrics = {"loss": -mean_return, "return": mean_return, **metrics}
        return constrain((TrainingState(meta, opt_state, state.update + 1), metrics), mesh)

    return Training(init, step)


def _play(trial: Trial, policy: RecurrentPolicy, params: PyTree, tasks: PyTree, keys: jax.Array) -> Trajectory:
    """One trial of each task, side by side: `[T, num_tasks]`."""

    def play(task: PyTree, key: jax.Array) -> Trajectory:
        return rollout(trial, policy.apply, params, task, key, episodes=1, memory=policy.empty_memory(1))

    data = jax.vmap(play, out_axes=1)(tasks, keys)
    return jax.tree.map(lambda x: x[:, :, 0], data)


def _replay(policy: RecurrentPolicy, params: PyTree, obs: jax.Array) -> tuple[Distribution, jax.Array]:
    """Distributions and values of trials `[T, num_tasks, observation_size]` under new parameters."""

    def step(memory: jax.Array, obs: jax.Array) -> tuple[jax.Array, Any]:
        output: Any = policy.apply(params, obs, memory, method="with_value")
        dist, memory, value = output
        return memory, (dist, value)

    return jax.lax.scan(step, policy.empty_memory(obs.shape[1]), obs)[1]


def _update(
    objective: Callable[..., tuple[jax.Array, Metrics]],
    optimizer: optax.GradientTransformation,
    data: PyTree,
    minibatches: int,
    mesh: Mesh | None,
    carry: tuple[MetaParams, optax.OptState],
    key: jax.Array,
) -> tuple[tuple[MetaParams, optax.OptState], Metrics]:
    """One pass over `data`, `[T, num_tasks]`, in random minibatches of trials."""

    def step(carry: tuple[MetaParams, optax.OptState], chosen: jax.Array) -> tuple[Any, Metrics]:
        meta, opt_state = carry
        minibatch = over_tasks(jax.tree.map(lambda x: x[:, chosen], data), mesh, axis=1)
        grads, metrics = jax.grad(objective, has_aux=True)(meta, *minibatch)
        updates, opt_state = optimizer.update(grads, opt_state, meta)
        return (optax.apply_updates(meta, updates), opt_state), metrics

    order = jax.random.permutation(key, jax.tree.leaves(data)[0].shape[1]).reshape(minibatches, -1)
    carry, metrics = jax.lax.scan(step, carry, order)
    return carry, jax.tree.map(lambda x: x[-1], metrics)
