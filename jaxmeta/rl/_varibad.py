"""VariBAD (Zintgraf et al. 2020, https://arxiv.org/abs/1910.08348).

A recurrent variational autoencoder infers a belief about the task. A policy that reads the belief is trained by PPO.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta._checks import check_integer, check_not_negative, check_optional_integer, check_transformation
from jaxmeta._learned import update_with
from jaxmeta._parallel import constrain, over_tasks
from jaxmeta._types import MetaParams, Metrics, PyTree, Training, TrainingState
from jaxmeta.display import brief, described
from jaxmeta.rl._belief import BeliefPolicy, join, split
from jaxmeta.rl._collector import Samples
from jaxmeta.rl._distributions import DiagonalGaussian
from jaxmeta.rl._elbo import elbo_terms
from jaxmeta.rl._policies import policy_params
from jaxmeta.rl._recorded_trial import play_recorded
from jaxmeta.rl._returns import gae, masked_mean, next_step, normalize
from jaxmeta.rl._rl2 import check_numbers
from jaxmeta.rl._rollout import Trajectory, episode_returns
from jaxmeta.rl._surrogates import clipped
from jaxmeta.rl._trial import Trial, check_trial

_Loss = Callable[[PyTree, PyTree, Any, jax.Array], tuple[jax.Array, Metrics]]
"""Signature `(params, the other parameters, minibatch, key) -> (loss, metrics)`."""


@described
def varibad(
    trial: Trial,
    policy: BeliefPolicy,
    *,
    num_tasks: int = 64,
    optimizer: optax.GradientTransformation | None = None,
    belief_optimizer: optax.GradientTransformation | None = None,
    discount: float | jax.Array = 0.95,
    trace_decay: float | jax.Array = 0.9,
    epochs: int = 4,
    belief_epochs: int = 4,
    minibatches: int = 4,
    clip: float | jax.Array = 0.2,
    value_weight: float | jax.Array = 0.5,
    entropy_weight: float | jax.Array = 0.05,
    transition_weight: float | jax.Array = 1.0,
    kl_weight: float | jax.Array = 0.1,
    elbo_samples: int | None = 8,
    mesh: Mesh | None = None,
) -> Training:
    """VariBAD: a policy that acts on a belief about its task, which a variational autoencoder learns to infer.

    After each observation of a trial, the encoder gives a belief `q_t = q(m | observations until t)`, a Gaussian over a
    latent `m` that describes the task. An iteration plays one trial in each of some tasks. On these trials the policy
    and the critic, which read the belief and do not change it, are trained by PPO with the loss of `rl2`. Then the
    encoder and the decoders are trained with the loss::

        mean_t (sum_i (r_i - r'_i(m_t))^2 + c_s * sum_i |s_{i+1} - s'_{i+1}(m_t)|^2 + beta * KL(q_t || q_{t-1}))

    Here `m_t` is drawn from `q_t`, and `q_{-1}` is N(0, 1). The decoders predict the rewards `r` of all steps `i` of
    the trial, the future ones too, and with `decode_transitions` the next observations `s`. A reward is predicted from
    the latent, the observation, the action and the next observation, which is that of the environment before a reset.

    After training, adaptation is only playing, see `rl2`.

    Three details differ from the paper. The autoencoder learns from the trials of the iteration alone, all of which are
    in new tasks, without a buffer of old ones. The belief before any step has read the first observation. The actor and
    the critic are separate networks.

    Args:
        trial: the environment, with vectors as observations.
        policy: the networks.
        num_tasks: number of trials per iteration, each in its own task.
        optimizer: optimizer of the actor and the critic; `optax.chain(optax.clip_by_global_norm(0.5),
            optax.adam(3e-3))` if `None`.
        belief_optimizer: optimizer of the encoder and the decoders; `optax.adam(3e-3)` if `None`.
        discount: `gamma`, the discount per step, see `rl2`.
        trace_decay: `lambda` of generalized advantage estimation.
        epochs: number of PPO's passes over the trials of an iteration.
        belief_epochs: number of the autoencoder's passes over them.
        minibatches: number of minibatches in a pass, a divisor of `num_tasks`.
        clip: PPO's `epsilon`, see `clipped`.
        value_weight: weight of the critic's squared error, at least 0.
        entropy_weight: weight of the policy's entropy, at least 0. The default is larger than that of `rl2`, because a
            policy that settles before the belief tells tasks apart no longer explores. For continuous actions, whose
            entropy has no bound, take 0.005.
        transition_weight: `c_s`, the weight of the errors of next observations, at least 0.
        kl_weight: `beta`, the weight of the KL divergences, at least 0.
        elbo_samples: number of random times `t` per minibatch at which the errors are computed. `None` takes all, with
            a cost that grows with the square of the trial's length.
        mesh: see `maml_trpo`.

    Returns:
        A `Training`. The `opt_state` of its state holds the states of both optimizers. Its metrics are `return`, the
        mean undiscounted return of a trial, `loss`, minus that, and for the last minibatches `entropy` in nats, `kl`
        from the policy that played, `value_error`, the critic's mean squared error, `reward_error` and
        `transition_error`, the decoders' mean squared errors per step, and `belief_kl`, the mean of `KL(q_t ||
        q_{t-1})`.

    Raises:
        TypeError: if an optimizer is not an optax transformation, or `trial` or `policy` is something else.
        ValueError: if a number is out of range, `num_tasks` is not a multiple of `minibatches`, or the environment's
            observations are not vectors.

    Example:
        >>> from jaxmeta import envs, rl
        >>> trial = rl.Trial(envs.make("bandit-bernoulli", horizon=4))
        >>> policy = rl.BeliefPolicy(trial.action_size, trial.discrete, rl.GRU(8))
        >>> training = varibad(trial, policy, num_tasks=4, minibatches=2)
        >>> obs = jnp.zeros((1, trial.observation_size))
        >>> state = training.init(jax.jit(policy.init)(jax.random.key(0), obs, policy.empty_memory(1)))
        >>> state, metrics = jax.jit(training.step)(state, jax.random.key(1))
        >>> bool(0 <= metrics["return"] <= 4)
        True

    References:
        Zintgraf, Shiarlis, Igl, Schulze, Gal, Hofmann & Whiteson, *VariBAD: A Very Good Method for Bayes-Adaptive Deep
        RL via Meta-Learning*, ICLR 2020, https://arxiv.org/abs/1910.08348
    """
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(3e-3)) if optimizer is None else optimizer
    belief_optimizer = optax.adam(3e-3) if belief_optimizer is None else belief_optimizer
    check_transformation(optimizer=optimizer, belief_optimizer=belief_optimizer)
    _check_parts(trial, policy)
    check_numbers(num_tasks, epochs, minibatches, discount, trace_decay)
    check_integer(belief_epochs=belief_epochs)
    check_optional_integer(elbo_samples=elbo_samples)
    check_not_negative(value_weight=value_weight, entropy_weight=entropy_weight)
    check_not_negative(transition_weight=transition_weight, kl_weight=kl_weight)
    acting_loss = partial(_acting_loss, policy, clipped(clip), value_weight, entropy_weight)
    belief_loss = partial(_belief_loss, policy, elbo_samples, transition_weight, kl_weight)
    act_passes = partial(_passes, acting_loss, optimizer, epochs, minibatches, mesh)
    belief_passes = partial(_passes, belief_loss, belief_optimizer, belief_epochs, minibatches, mesh)

    def init(params: PyTree, key: jax.Array | None = None) -> TrainingState:
        del key
        meta = policy_params(params)
        acting, inferring = split(params)
        return TrainingState(meta, (optimizer.init(acting), belief_optimizer.init(inferring)), jnp.int32(0))

    def step(state: TrainingState, key: jax.Array) -> tuple[TrainingState, Metrics]:
        task_key, play_key, act_key, belief_key = jax.random.split(key, 4)
        tasks = trial.sample_tasks(task_key, num_tasks)
        tasks, keys = over_tasks((tasks, jax.random.split(play_key, num_tasks)), mesh)
        params = state.meta.params
        data = over_tasks(play_recorded(trial, policy, params, tasks, keys), mesh, axis=1)
        minibatch = _samples(policy, params, data, discount, trace_decay)
        acting, inferring = split(params)
        act_state, belief_state = state.opt_state
        (new_acting, act_state), metrics = act_passes((acting, act_state), inferring, minibatch, act_key)
        (inferring, belief_state), errors = belief_passes((inferring, belief_state), acting, data, belief_key)
        mean_return = jnp.mean(episode_returns(data))
        metrics = {"loss": -mean_return, "return": mean_return, **metrics, **errors}
        meta = MetaParams(join(new_acting, inferring))
        return constrain((TrainingState(meta, (act_state, belief_state), state.update + 1), metrics), mesh)

    return Training(init, step)


def _check_parts(trial: Any, policy: Any) -> None:
    check_trial(trial)
    if not isinstance(policy, BeliefPolicy):
        raise TypeError(f"policy must be a BeliefPolicy, got {brief(policy)}")
    if not isinstance(trial.observation_size, int):
        raise ValueError(
            "trial must have vectors as observations for varibad, whose decoders predict them, with a number as "
            f"observation_size, got {trial.observation_size}: flatten them in the environment, or use rl2, which "
            "takes any form"
        )


def _samples(
    policy: BeliefPolicy,
    params: PyTree,
    data: Trajectory,
    discount: float | jax.Array,
    trace_decay: float | jax.Array,
) -> tuple[Samples, jax.Array, DiagonalGaussian]:
    """Returns the trials with their advantages, the critic's targets, and the beliefs with which they were played."""
    apply: Any = policy.apply
    belief = apply(params, data.obs, method="infer")
    _, value = apply(params, data.obs, belief, method="act")
    ends = data.terminated, data.truncated
    advantage = gae(data.reward, value, next_step(value), *ends, discount=discount, trace_decay=trace_decay)
    return Samples(data, normalize(advantage, data.valid)), advantage + value, belief


def _acting_loss(
    policy: BeliefPolicy,
    surrogate: Callable[[jax.Array, Samples], jax.Array],
    value_weight: float | jax.Array,
    entropy_weight: float | jax.Array,
    acting: PyTree,
    inferring: PyTree,
    minibatch: tuple[Samples, jax.Array, DiagonalGaussian],
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Returns PPO's loss of the actor and the critic, given the beliefs with which they played."""
    del key
    samples, target, belief = minibatch
    apply: Any = policy.apply
    data = samples.trajectory
    dist, value = apply(join(acting, inferring), data.obs, belief, method="act")
    metrics = {
        "entropy": masked_mean(dist.entropy(), data.valid),
        "kl": masked_mean(data.dist.kl(dist), data.valid),
        "value_error": masked_mean((value - target) ** 2, data.valid),
    }
    loss = surrogate(dist.log_prob(data.action), samples)
    return loss + value_weight * metrics["value_error"] - entropy_weight * metrics["entropy"], metrics


def _belief_loss(
    policy: BeliefPolicy,
    elbo_samples: int | None,
    transition_weight: float | jax.Array,
    kl_weight: float | jax.Array,
    inferring: PyTree,
    acting: PyTree,
    data: Trajectory,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Returns minus the evidence lower bound, and its terms with errors per step."""
    terms = elbo_terms(policy, join(acting, inferring), data, key, elbo_samples)
    loss = terms["reward_error"] + kl_weight * terms["belief_kl"]
    if policy.decode_transitions:
        loss += transition_weight * terms["transition_error"]
    steps = jnp.sum(data.valid) / data.valid.shape[1]
    return loss, {name: term if name == "belief_kl" else term / steps for name, term in terms.items()}


def _passes(
    loss: _Loss,
    optimizer: optax.GradientTransformation,
    epochs: int,
    minibatches: int,
    mesh: Mesh | None,
    carry: tuple[PyTree, optax.OptState],
    others: PyTree,
    data: PyTree,
    key: jax.Array,
) -> tuple[tuple[PyTree, optax.OptState], Metrics]:
    """Takes some passes over `data`, `[T, num_tasks]`, in random minibatches of trials."""

    def step(carry: tuple[PyTree, optax.OptState], x: tuple[jax.Array, jax.Array]) -> tuple[Any, Metrics]:
        params, opt_state = carry
        chosen, key = x
        minibatch = over_tasks(jax.tree.map(lambda x: x[:, chosen], data), mesh, axis=1)
        (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params, others, minibatch, key)

        def value_fn(params: PyTree) -> jax.Array:
            return loss(params, others, minibatch, key)[0]

        return update_with(optimizer, grads, opt_state, params, value=value, value_fn=value_fn), metrics

    order_key, key = jax.random.split(key)
    number = jax.tree.leaves(data)[0].shape[1]
    permuted = jax.vmap(lambda key: jax.random.permutation(key, number))(jax.random.split(order_key, epochs))
    chosen = permuted.reshape(epochs * minibatches, -1)
    carry, metrics = jax.lax.scan(step, carry, (chosen, jax.random.split(key, len(chosen))))
    return carry, jax.tree.map(lambda x: x[-1], metrics)
