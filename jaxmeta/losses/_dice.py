"""DiCE: the infinitely differentiable Monte Carlo estimator (Foerster et al. 2018, https://arxiv.org/abs/1802.05098)."""

import jax
import jax.numpy as jnp


def magic_box(log_prob: jax.Array) -> jax.Array:
    """The DiCE operator: ones, whose derivatives are those of the probabilities of what was sampled.

    `exp(log_prob - stop_gradient(log_prob))` is 1, and its gradient is itself times that of `log_prob`. A cost times
    the box of the log-probability of all the samples that it depends on therefore has an expectation whose derivatives
    of every order are right, where a surrogate loss, `log_prob * cost`, is right in the first only.

    Args:
        log_prob: sums of log-probabilities, of any shape.

    Returns:
        Ones of the shape and type of `log_prob`.

    Example:
        The objective of a policy gradient, to be maximized. The reward at time `t` depends on the actions until `t`; a
        baseline of the return from `t` on, made without the action at `t`, lowers the variance and changes no
        expectation.

        >>> def dice_objective(log_probs, rewards, baselines):  # [time, episodes] each
        ...     until_now = jnp.cumsum(log_probs, axis=0)
        ...     returns = jnp.sum(magic_box(until_now) * rewards, axis=0)
        ...     return jnp.mean(returns + jnp.sum((1 - magic_box(log_probs)) * baselines, axis=0))
        >>> log_probs, rewards = jnp.log(jnp.array([[0.5], [0.2]])), jnp.array([[1.0], [2.0]])
        >>> dice_objective(log_probs, rewards, jnp.zeros((2, 1))).tolist()
        3.0
        >>> jax.grad(dice_objective)(log_probs, rewards, jnp.array([[2.5], [1.5]])).tolist()
        [[0.5], [0.5]]

    References:
        Foerster, Farquhar, Al-Shedivat, Rocktäschel, Xing & Whiteson, *DiCE: The Infinitely Differentiable Monte Carlo
        Estimator*, ICML 2018, https://arxiv.org/abs/1802.05098
    """
    return jnp.exp(log_prob - jax.lax.stop_gradient(log_prob))
