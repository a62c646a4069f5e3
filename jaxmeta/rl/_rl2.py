"""RL2 (Duan et al. 2016, https://arxiv.org/abs/1611.02779; Wang et al. 2016, https://arxiv.org/abs/1611.05763).

A recurrent policy is trained on whole trials. Within a trial it learns through its memory alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta._checks import check_fraction, check_integer, check_not_negative, check_transformation
from jaxmeta._learned import update_with
from jaxmeta._parallel import constrain, over_tasks
from jaxmeta._types import MetaParams, Metrics, PyTree, Training, TrainingState
from jaxmeta.display import brief, described
from jaxmeta.rl._collector import Samples
from jaxmeta.rl._normalization import learn_normalization, no_normalization, scaled, seen
from jaxmeta.rl._policies import policy_params
from jaxmeta.rl._recurrent_policy import RecurrentPolicy
from jaxmeta.rl._returns import gae, masked_mean, next_step
from jaxmeta.rl._returns import normalize as normalize_advantage
from jaxmeta.rl._rollout import Trajectory, episode_returns, rollout
from jaxmeta.rl._surrogates import clipped
from jaxmeta.rl._trial import Trial, check_trial


@described
def rl2(
    trial: Trial,
    policy: RecurrentPolicy,
    *,
    num_tasks: int = 256,
    optimizer: optax.GradientTransformation | None = None,
    discount: float | jax.Array = 0.9,
    trace_decay: float | jax.Array = 0.3,
    epochs: int = 4,
    minibatches: int = 4,
    clip: float | jax.Array = 0.2,
    value_weight: float | jax.Array = 0.5,
    entropy_weight: float | jax.Array = 0.01,
    normalize: bool = False,
    mesh: Mesh | None = None,
) -> Training:
    """RL2 with PPO: a recurrent policy that starts every trial with an empty memory.

    The loss of a minibatch of trials, whose gradient goes back through whole trials, is::

        -mean(min(r * A, clip(r, 1 - epsilon, 1 + epsilon) * A)) + c_v * mean((V - R)^2) - c_h * mean(H(pi))

    Here `r` is the ratio of the probabilities of an action under the new and the old policy, `A` the normalized
    advantage, `V` the critic's value, `R` its target (the advantage before normalization plus the old value) and `H`
    the entropy.

    After training, adaptation is only playing: `rollout(trial, policy.apply, params, task, key, episodes=n,
    memory=policy.empty_memory(n))`.

    Args:
        trial: the environment.
        policy: the network.
        num_tasks: number of trials per iteration, each in its own task.
        optimizer: optimizer of all parameters; `optax.chain(optax.clip_by_global_norm(0.5), optax.adam(3e-3))` if
            `None`.
        discount: `gamma`, the discount per step. It continues from episode to episode of a trial. The default looks ten
            steps ahead: on bandits of 100 pulls and on two episodes of Particles2D, 0.99 learns next to nothing in 60
            updates, because the rest of a long trial drowns what an action has changed.
        trace_decay: `lambda` of generalized advantage estimation. The default leaves most to the critic.
        epochs: number of passes over the trials of an iteration.
        minibatches: number of minibatches in a pass, a divisor of `num_tasks`.
        clip: `epsilon`, see `clipped`.
        value_weight: `c_v`, the weight of the critic's squared error, at least 0.
        entropy_weight: `c_h`, the weight of the entropy, at least 0.
        normalize: whether the policy sees observations of mean 0 and variance 1, and rewards are divided by the
            deviation of the returns, by running statistics that are kept in `meta.state`.
        mesh: see `maml_trpo`.

    Returns:
        A `Training`. Its metrics are `return`, the mean undiscounted return of a trial, `loss`, minus that, and for the
        last minibatch `entropy` in nats, `kl` from the policy that played, and `value_error`, the critic's mean squared
        error.

    Raises:
        TypeError: if `optimizer` is not an optax transformation.
        ValueError: if a number is out of range, or `num_tasks` is not a multiple of `minibatches`.

    Example:
        >>> from jaxmeta import envs, rl
        >>> trial = rl.Trial(envs.make("bandit-bernoulli", horizon=4))
        >>> policy = rl.RecurrentPolicy(trial.action_size, trial.discrete, rl.GRU(8))
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
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(3e-3)) if optimizer is None else optimizer
    check_transformation(optimizer=optimizer)
    _check_parts(trial, policy)
    check_numbers(num_tasks, epochs, minibatches, discount, trace_decay)
    check_not_negative(value_weight=value_weight, entropy_weight=entropy_weight)
    surrogate, apply = clipped(clip), cast(Any, policy.apply)

    def objective(meta: MetaParams, samples: Samples, target: jax.Array) -> tuple[jax.Array, Metrics]:
        data = samples.trajectory
        dist, value = apply(meta.params, data.obs, method="unroll")
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
        meta = policy_params(params)
        carried = no_normalization(trial) if normalize else ()
        return TrainingState(meta._replace(state=carried), optimizer.init(meta), jnp.int32(0))

    def step(state: TrainingState, key: jax.Array) -> tuple[TrainingState, Metrics]:
        task_key, play_key, key = jax.random.split(key, 3)
        tasks = trial.sample_tasks(task_key, num_tasks)
        tasks, keys = over_tasks((tasks, jax.random.split(play_key, num_tasks)), mesh)
        meta, carried = state.meta._replace(state=()), state.meta.state
        data = over_tasks(_play(trial, policy, carried, meta.params, tasks, keys), mesh, axis=1)
        _, value = apply(meta.params, seen(carried, data.obs), method="unroll")
        reward, ends = scaled(carried, data.reward), (data.terminated, data.truncated)
        advantage = gae(reward, value, next_step(value), *ends, discount=discount, trace_decay=trace_decay)
        samples = Samples(data._replace(obs=seen(carried, data.obs)), normalize_advantage(advantage, data.valid))
        update = partial(_update, objective, optimizer, (samples, advantage + value), minibatches, mesh)
        (meta, opt_state), metrics = jax.lax.scan(update, (meta, state.opt_state), jax.random.split(key, epochs))
        meta = meta._replace(state=learn_normalization(carried, data, discount))
        mean_return = jnp.mean(episode_returns(data))
        metrics = {"loss": -mean_return, "return": mean_return, **jax.tree.map(lambda x: x[-1], metrics)}
        return constrain((TrainingState(meta, opt_state, state.update + 1), metrics), mesh)

    return Training(init, step)


def check_numbers(
    num_tasks: int, epochs: int, minibatches: int, discount: float | jax.Array, trace_decay: float | jax.Array
) -> None:
    """Raises ValueError unless the numbers of PPO on trials are in range."""
    check_integer(num_tasks=num_tasks, epochs=epochs, minibatches=minibatches)
    check_fraction(discount=discount, trace_decay=trace_decay)
    if num_tasks % minibatches:
        raise ValueError(f"num_tasks must be a multiple of minibatches ({minibatches}), got {num_tasks}")


def _check_parts(trial: Any, policy: Any) -> None:
    check_trial(trial)
    if not hasattr(policy, "empty_memory"):
        raise TypeError(f"policy must be a RecurrentPolicy, got {brief(policy)}")


def _play(
    trial: Trial, policy: RecurrentPolicy, state: PyTree, params: PyTree, tasks: PyTree, keys: jax.Array
) -> Trajectory:
    """Plays one trial of each task, `[T, num_tasks]`."""

    def play(task: PyTree, key: jax.Array) -> Trajectory:
        return rollout(trial, seeing(policy, state), params, task, key, episodes=1, memory=policy.empty_memory(1))

    data = jax.vmap(play, out_axes=1)(tasks, keys)
    return jax.tree.map(lambda x: x[:, :, 0], data)


def seeing(policy: RecurrentPolicy, state: PyTree) -> Callable[..., Any]:
    """Returns `(params, obs, memory) -> (dist, memory)` for a policy that sees observations by a state."""
    return lambda params, obs, memory: policy.apply(params, seen(state, obs), memory)


def _update(
    objective: Callable[..., tuple[jax.Array, Metrics]],
    optimizer: optax.GradientTransformation,
    data: PyTree,
    minibatches: int,
    mesh: Mesh | None,
    carry: tuple[MetaParams, optax.OptState],
    key: jax.Array,
) -> tuple[tuple[MetaParams, optax.OptState], Metrics]:
    """Takes one pass over `data`, `[T, num_tasks]`, in random minibatches of trials."""

    def step(carry: tuple[MetaParams, optax.OptState], chosen: jax.Array) -> tuple[Any, Metrics]:
        meta, opt_state = carry
        minibatch = over_tasks(jax.tree.map(lambda x: x[:, chosen], data), mesh, axis=1)
        (loss, metrics), grads = jax.value_and_grad(objective, has_aux=True)(meta, *minibatch)

        def value_fn(meta: MetaParams) -> jax.Array:
            return objective(meta, *minibatch)[0]

        return update_with(optimizer, grads, opt_state, meta, value=loss, value_fn=value_fn), metrics

    order = jax.random.permutation(key, jax.tree.leaves(data)[0].shape[1]).reshape(minibatches, -1)
    carry, metrics = jax.lax.scan(step, carry, order)
    return carry, jax.tree.map(lambda x: x[-1], metrics)
