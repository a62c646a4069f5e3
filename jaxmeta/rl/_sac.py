"""Soft actor-critic (SAC, Haarnoja et al. 2018, https://arxiv.org/abs/1801.01290): squashed actions and losses."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxmeta.display import short_repr
from jaxmeta.rl._distributions import DiagonalGaussian

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)


@struct.dataclass
class TanhGaussian:
    """Normal distribution squashed by tanh, for actions between -1 and 1.

    An action is `a = tanh(u)` with `u` drawn from `base`. Its density follows from the change of variables:
    `log p(a) = log p(u) - sum_i log(1 - tanh(u_i)^2)`.

    Attributes:
        base: distribution of `u`, the numbers before tanh.

    Example:
        >>> squashed = TanhGaussian(DiagonalGaussian(jnp.zeros(1), jnp.zeros(1)))
        >>> print(f"{squashed.log_prob(jnp.array([0.0])):.3f} {squashed.entropy():.3f}")
        -0.919 0.670

    References:
        Haarnoja, Zhou, Abbeel & Levine, *Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with
        a Stochastic Actor*, ICML 2018, appendix C, https://arxiv.org/abs/1801.01290
    """

    base: DiagonalGaussian

    __repr__ = short_repr

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws actions, `[..., action_size]`."""
        return self.sample_with_log_prob(key)[0]

    def sample_with_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draws actions together with their log-densities `[...]`, which are exact even where tanh rounds to 1."""
        x = self.base.sample(key)
        return jnp.tanh(x), self._log_prob_before(x)

    def mode(self) -> jax.Array:
        """Returns tanh of the mode of `base`, which is the median of each number of an action."""
        return jnp.tanh(self.base.mode())

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Returns the log-density of each action, `[...]`.

        Numbers of an action are clipped to 1e-6 from -1 and 1.
        """
        return self._log_prob_before(jnp.arctanh(jnp.clip(action, -1 + 1e-6, 1 - 1e-6)))

    def entropy(self) -> jax.Array:
        """Returns the entropy in nats, `[...]`, by Gauss-Hermite quadrature."""
        # H(a) = H(u) + sum_i E[log(1 - tanh(u_i)^2)]
        mean, std = self.base.mean, jnp.exp(self.base.log_std)
        x = mean[..., None] + jnp.tensordot(std, jnp.asarray(_NODES, std.dtype), axes=0)
        stretch = _log_slope(x) @ jnp.asarray(_WEIGHTS / math.sqrt(2 * math.pi), x.dtype)
        return self.base.entropy() + jnp.sum(stretch, axis=-1)

    def kl(self, other: "TanhGaussian") -> jax.Array:
        """Returns `KL(self || other)` in nats, `[...]`, which tanh does not change."""
        return self.base.kl(other.base)

    def _log_prob_before(self, x: jax.Array) -> jax.Array:
        return self.base.log_prob(x) - jnp.sum(_log_slope(x), axis=-1)


def _log_slope(x: jax.Array) -> jax.Array:
    """Returns `log(1 - tanh(x)^2)`, the logarithm of the derivative of tanh, without cancellation."""
    return 2 * (math.log(2) - x - jax.nn.softplus(-2 * x))


def soft_value(values: jax.Array, log_prob: jax.Array, entropy_weight: float | jax.Array) -> jax.Array:
    """Returns the soft value `min_i Q_i(s, a) - alpha * log pi(a | s)` of sampled actions.

    Args:
        values: values of the critics `Q_i`, `[critics, ...]`.
        log_prob: log-probabilities of the actions, `[...]`.
        entropy_weight: `alpha`, the weight of the entropy.
    """
    return jnp.min(values, axis=0) - entropy_weight * log_prob


def td_target(
    reward: jax.Array, terminated: jax.Array, next_value: jax.Array, discount: float | jax.Array
) -> jax.Array:
    """Returns the critics' target `r + gamma * (1 - terminated) * V(s')`.

    An episode that was truncated continues, so its next value counts.
    """
    return reward + discount * jnp.where(terminated, 0, next_value)


def critic_loss(values: jax.Array, target: jax.Array) -> jax.Array:
    """Returns the mean over the steps of `sum_i (Q_i - target)^2`, for critics `values: [critics, ...]`."""
    return jnp.mean(jnp.sum((values - target[None]) ** 2, axis=0))
