"""Soft actor-critic (SAC, Haarnoja et al. 2018, https://arxiv.org/abs/1801.01290): squashed actions and two losses."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxmeta.rl._distributions import DiagonalGaussian

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)


@struct.dataclass
class TanhGaussian:
    """Independent normal distributions squashed by tanh: actions between -1 and 1.

    Attributes:
        base: of the numbers before tanh.

    Example:
        >>> squashed = TanhGaussian(DiagonalGaussian(jnp.zeros(1), jnp.zeros(1)))
        >>> print(f"{squashed.log_prob(jnp.array([0.0])):.3f} {squashed.entropy():.3f}")
        -0.919 0.670

    References:
        Haarnoja, Zhou, Abbeel & Levine, *Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with
        a Stochastic Actor*, ICML 2018, appendix C, https://arxiv.org/abs/1801.01290
    """

    base: DiagonalGaussian

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw actions `[..., action_size]`."""
        return self.sample_with_log_prob(key)[0]

    def sample_with_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draw actions, and return their log-densities `[...]` too: exact where tanh rounds to 1."""
        x = self.base.sample(key)
        return jnp.tanh(x), self._log_prob_before(x)

    def mode(self) -> jax.Array:
        """Return the actions of the most probable numbers before tanh, which are the medians."""
        return jnp.tanh(self.base.mode())

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Return log-densities `[...]`; actions of -1 and 1 count as the nearest ones inside."""
        return self._log_prob_before(jnp.arctanh(jnp.clip(action, -1 + 1e-6, 1 - 1e-6)))

    def entropy(self) -> jax.Array:
        """Return entropies in nats, `[...]`, by Gauss-Hermite quadrature."""
        mean, std = self.base.mean, jnp.exp(self.base.log_std)
        x = mean[..., None] + jnp.tensordot(std, jnp.asarray(_NODES, std.dtype), axes=0)
        stretch = _log_slope(x) @ jnp.asarray(_WEIGHTS / math.sqrt(2 * math.pi), x.dtype)
        return self.base.entropy() + jnp.sum(stretch, axis=-1)

    def kl(self, other: "TanhGaussian") -> jax.Array:
        """Return `KL(self || other)` in nats, `[...]`: that before tanh."""
        return self.base.kl(other.base)

    def _log_prob_before(self, x: jax.Array) -> jax.Array:
        return self.base.log_prob(x) - jnp.sum(_log_slope(x), axis=-1)


def _log_slope(x: jax.Array) -> jax.Array:
    """The logarithm of the derivative of tanh, `1 - tanh(x)**2`, without its rounding."""
    return 2 * (math.log(2) - x - jax.nn.softplus(-2 * x))


def soft_value(values: jax.Array, log_prob: jax.Array, entropy_weight: float) -> jax.Array:
    """What actions are worth to the lower one of the critics `values: [critics, ...]`, their entropy included."""
    return jnp.min(values, axis=0) - entropy_weight * log_prob


def td_target(reward: jax.Array, terminated: jax.Array, next_value: jax.Array, discount: float) -> jax.Array:
    """What a step was worth: an episode that terminated is worth nothing more, one that was cut off goes on."""
    return reward + discount * jnp.where(terminated, 0, next_value)


def critic_loss(values: jax.Array, target: jax.Array) -> jax.Array:
    """The squared errors of the critics `values: [critics, ...]`, added up; a mean over what they judge."""
    return jnp.mean(jnp.sum((values - target[None]) ** 2, axis=0))
