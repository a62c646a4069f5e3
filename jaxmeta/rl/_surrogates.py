"""Surrogate losses: functions of log-probabilities whose gradient is a policy gradient.

At the parameters `theta_old` that collected the data all of them have the same gradient. They differ away from there,
and in the derivative of that gradient, which meta-learning through an inner loop needs. `pi` is the probability of an
action under the new parameters, `pi_old` that under the old ones, and `A` its advantage.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_positive
from jaxmeta._types import LossFn, Metrics, PyTree
from jaxmeta.losses import magic_box
from jaxmeta.rl._collector import Collector, Samples
from jaxmeta.rl._returns import masked_mean
from jaxmeta.rl._rollout import Policy, episode_returns

Surrogate = Callable[[jax.Array, Samples], jax.Array]
"""Signature `(log_prob [T, E], samples) -> loss []`, with the actions' log-probabilities under the new parameters."""


def reinforce(log_prob: jax.Array, samples: Samples) -> jax.Array:
    """REINFORCE: log-probability times advantage, `-mean(log pi * A)`.

    This is the inner loss of MAML's paper. The derivative of its gradient ignores that the parameters also change which
    actions are sampled.

    Args:
        log_prob: log-probabilities of the actions under the new parameters, `[T, E]`.
        samples: episodes and their advantages, from a `Collector`.

    Returns:
        The loss, a mean over the valid steps.

    References:
        Williams, *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning*, 1992,
        https://doi.org/10.1007/BF00992696
    """
    return -masked_mean(log_prob * samples.advantage, samples.trajectory.valid)


def ratio(log_prob: jax.Array, samples: Samples) -> jax.Array:
    """Probability ratio times advantage: the low-variance curvature (LVC) surrogate of ProMP, `-mean(pi / pi_old * A)`.

    The derivative of its gradient ignores only the effect of an action on the probability of later actions. It has less
    variance than the unbiased derivative of `dice`.

    Args:
        log_prob: see `reinforce`.
        samples: see `reinforce`.

    Returns:
        The loss, a mean over the valid steps.

    References:
        Rothfuss, Lee, Clavera, Asfour & Abbeel, *ProMP: Proximal Meta-Policy Search*, ICLR 2019,
        https://arxiv.org/abs/1810.06784
    """
    return -masked_mean(_ratio(log_prob, samples) * samples.advantage, samples.trajectory.valid)


def clipped(clip: float | jax.Array = 0.3) -> Surrogate:
    """Clipped surrogate of PPO, `-mean(min(r * A, clip(r, 1 - epsilon, 1 + epsilon) * A))` with `r = pi / pi_old`.

    There is no gain from moving a probability further than the clipping range.

    Args:
        clip: `epsilon`, half the width of the clipping range, positive.

    Returns:
        A surrogate, see `ratio`.

    Raises:
        ValueError: if `clip` is not positive.

    References:
        Schulman, Wolski, Dhariwal, Radford & Klimov, *Proximal Policy Optimization Algorithms*, 2017,
        https://arxiv.org/abs/1707.06347
    """
    check_positive(clip=clip)

    def surrogate(log_prob: jax.Array, samples: Samples) -> jax.Array:
        ratios = _ratio(log_prob, samples)
        gain = jnp.minimum(ratios * samples.advantage, jnp.clip(ratios, 1 - clip, 1 + clip) * samples.advantage)
        return -masked_mean(gain, samples.trajectory.valid)

    return surrogate


def dice(log_prob: jax.Array, samples: Samples) -> jax.Array:
    """Loaded DiCE, which is DiCE with advantages: unbiased derivatives of every order, at the highest variance.

    The loss is `-mean((box(a_0, ..., a_t) - box(a_0, ..., a_{t-1})) * A_t)`, where `box` is `magic_box` of the sum of
    the log-probabilities. Use it where the parameters that are differentiated also collected the data, as in an inner
    loop.

    Args:
        log_prob: see `reinforce`.
        samples: see `reinforce`.

    Returns:
        The loss, a mean over the valid steps.

    References:
        Farquhar, Whiteson & Foerster, *Loaded DiCE: Trading off Bias and Variance in Any-Order Score Function
        Estimators for Reinforcement Learning*, NeurIPS 2019, https://arxiv.org/abs/1909.10549
    """
    log_prob = jnp.where(samples.trajectory.valid, log_prob, 0)
    until_now = jnp.cumsum(log_prob, axis=0)  # log pi(a_0) + ... + log pi(a_t)
    boxes = magic_box(until_now) - magic_box(until_now - log_prob)
    return -masked_mean(boxes * samples.advantage, samples.trajectory.valid)


def _ratio(log_prob: jax.Array, samples: Samples) -> jax.Array:
    """Returns `pi / pi_old`, and 1 at steps that are not valid."""
    # The `where` is inside, because an overflow at an invalid step would give infinity times 0, NaN, in a derivative.
    return jnp.exp(jnp.where(samples.trajectory.valid, log_prob - samples.trajectory.log_prob, 0))


def surrogate_loss(policy: Policy, surrogate: Surrogate, params: PyTree, samples: Samples) -> jax.Array:
    """Returns the surrogate loss of a policy on samples, which may come from other parameters."""
    data = samples.trajectory
    return surrogate(policy(params, data.obs).log_prob(data.action), samples)


def policy_gradient(collect: Collector, surrogate: Surrogate = ratio) -> LossFn:
    """Builds a loss function that plays episodes of the environment's task, for learners with an inner loop.

    With it `jaxmeta.maml`, `anil`, `cavia`, `meta_sgd` and the other learners do meta-reinforcement learning, with any
    meta-gradient. The value of the loss is minus the mean return, so that `jaxmeta.evolution` works on it (ES-MAML).
    The gradient is that of the surrogate loss on the episodes. The outer update is then REINFORCE or A2C, one gradient
    step on each batch of episodes. Use `promp` for several steps on the same episodes, and `maml_trpo` for a trust
    region.

    Args:
        collect: collector of the episodes.
        surrogate: `reinforce`, `ratio` or `dice`.

    Returns:
        A `LossFn` `(params, task, key) -> (loss, metrics)`, whose only metric `return` is the mean undiscounted return.

    Example:
        >>> import jaxmeta, optax
        >>> from jaxmeta import envs, rl
        >>> def policy(weights, obs):
        ...     return rl.Categorical(obs @ weights)
        >>> env, weights = envs.make("tabular", horizon=3), jnp.zeros((10, 5))
        >>> collect = rl.Collector(env=env, policy=policy, episodes=4)
        >>> learner = jaxmeta.maml(policy_gradient(collect), optax.sgd(0.1))
        >>> task = rl.EnvTasks(env)(jax.random.key(0))
        >>> metrics, gradient = jax.jit(learner.grad)(learner.init(weights), task, jax.random.key(1))
        >>> sorted(metrics)
        ['loss', 'return']

    References:
        Finn, Abbeel & Levine, *Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks*, ICML 2017,
        https://arxiv.org/abs/1703.03400
    """
    collect.check_bound()

    def loss_fn(params: PyTree, task: PyTree, key: jax.Array) -> tuple[jax.Array, Metrics]:
        samples = collect(params, task, key)
        loss = surrogate_loss(collect.policy, surrogate, params, samples)
        mean_return = jnp.mean(episode_returns(samples.trajectory))
        # The value is minus the mean return, the derivatives are those of the surrogate loss.
        return loss - jax.lax.stop_gradient(loss) - mean_return, {"return": mean_return}

    return loss_fn
