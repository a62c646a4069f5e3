"""Surrogate losses: functions of the new log-probabilities whose gradient is a policy gradient.

All have the same gradient at the parameters that collected the data. They differ in the derivative of that gradient,
which is what meta-learning through an inner loop sees, and away from there.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmeta._dice import magic_box
from jaxmeta._types import LossFn, Metrics, PyTree
from jaxmeta.rl._collector import Collector, Samples
from jaxmeta.rl._returns import masked_mean
from jaxmeta.rl._rollout import episode_returns

Surrogate = Callable[[jax.Array, Samples], jax.Array]
"""`(log_prob [T, E], samples) -> loss []`: from the log-probabilities that new parameters give to the actions."""


def reinforce(log_prob: jax.Array, samples: Samples) -> jax.Array:
    """Log-probability times advantage: REINFORCE, the inner loss of the first MAML for reinforcement learning.

    The derivative of its gradient leaves out how the parameters change what is sampled.

    Args:
        log_prob: of the actions under the new parameters, `[T, E]`.
        samples: from a `Collector`.

    Returns:
        The loss, a mean over the valid steps.

    References:
        Williams, *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning*, 1992,
        https://doi.org/10.1007/BF00992696
    """
    return -masked_mean(log_prob * samples.advantage, samples.trajectory.valid)


def ratio(log_prob: jax.Array, samples: Samples) -> jax.Array:
    """Probability ratio times advantage: the low-variance curvature (LVC) surrogate of ProMP.

    The derivative of its gradient is right but for what an action does to the probability of later ones; it varies less
    than the unbiased one of `dice`.

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


def clipped(clip: float = 0.3) -> Surrogate:
    """The clipped ratio of PPO: no gain from a probability that has left `[1 - clip, 1 + clip]` times the old one.

    Args:
        clip: `epsilon`, positive.

    Returns:
        A surrogate, see `ratio`.

    Raises:
        ValueError: if `clip` is not positive.

    References:
        Schulman, Wolski, Dhariwal, Radford & Klimov, *Proximal Policy Optimization Algorithms*, 2017,
        https://arxiv.org/abs/1707.06347
    """
    if not 0.0 < clip < math.inf:
        raise ValueError(f"clip must be a positive number, got {clip}")

    def surrogate(log_prob: jax.Array, samples: Samples) -> jax.Array:
        ratios = _ratio(log_prob, samples)
        worse = jnp.minimum(ratios * samples.advantage, jnp.clip(ratios, 1 - clip, 1 + clip) * samples.advantage)
        return -masked_mean(worse, samples.trajectory.valid)

    return surrogate


def dice(log_prob: jax.Array, samples: Samples) -> jax.Array:
    """DiCE with advantages, or Loaded DiCE: unbiased in the derivatives of every order, and the most varying.

    Each advantage counts with `magic_box` of all actions until then, less that of all actions before. Use it where the
    data are of the parameters that are differentiated, as in an inner loop.

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
    until_now = jnp.cumsum(log_prob, axis=0)
    boxes = magic_box(until_now) - magic_box(until_now - log_prob)
    return -masked_mean(boxes * samples.advantage, samples.trajectory.valid)


def _ratio(log_prob: jax.Array, samples: Samples) -> jax.Array:
    # Steps that do not count must not overflow either: an infinity times 0 in a derivative is NaN.
    return jnp.exp(jnp.where(samples.trajectory.valid, log_prob - samples.trajectory.log_prob, 0))


def surrogate_loss(collect: Collector, surrogate: Surrogate, params: PyTree, samples: Samples) -> jax.Array:
    """The surrogate loss of a policy on samples, which may be of another policy."""
    data = samples.trajectory
    return surrogate(collect.policy(params, data.obs).log_prob(data.action), samples)


def policy_gradient(collect: Collector, surrogate: Surrogate = ratio) -> LossFn:
    """A loss function for learners with an inner loop: `(params, task, key)` plays episodes of the environment's task.

    It makes `jaxmeta.maml`, `anil`, `cavia`, `meta_sgd`, ... meta-reinforcement learning, with any meta-gradient. Its
    value is minus the mean return, so that `jaxmeta.evolution` works on it (ES-MAML), and its gradient is that of the
    surrogate loss on the episodes. Outside, it is REINFORCE or A2C: one gradient step on each batch of episodes. For
    several, or a trust region, there are `promp` and `maml_trpo`.

    Args:
        collect: plays the episodes.
        surrogate: `reinforce`, `ratio` or `dice`.

    Returns:
        A `LossFn`; its metric is `return`, the mean undiscounted return.

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

    def loss_fn(params: PyTree, task: PyTree, key: jax.Array) -> tuple[jax.Array, Metrics]:
        samples = collect(params, task, key)
        loss = surrogate_loss(collect, surrogate, params, samples)
        mean_return = jnp.mean(episode_returns(samples.trajectory))
        return loss - jax.lax.stop_gradient(loss) - mean_return, {"return": mean_return}

    return loss_fn
