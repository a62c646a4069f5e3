"""Distributions of actions, as pytrees."""

import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from jaxmeta.display import short_repr


class Distribution(Protocol):
    """Distribution of the actions of a policy, a pytree of arrays.

    The leading axes `[...]` of the arrays are those of the observations.
    """

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws one action for each observation."""
        ...

    def mode(self) -> jax.Array:
        """Returns the most probable actions."""
        ...

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Returns the log-probability or log-density of each action, `[...]`."""
        ...

    def entropy(self) -> jax.Array:
        """Returns the entropy in nats, `[...]`."""
        ...

    def kl(self, other: Any) -> jax.Array:
        """Returns the Kullback-Leibler divergence `KL(self || other)` in nats, `[...]`.

        Args:
            other: distribution of the same class.
        """
        ...


@struct.dataclass
class DiagonalGaussian:
    """Normal distribution with a diagonal covariance matrix.

    Attributes:
        mean: means, `[..., action_size]`.
        log_std: logarithms of the standard deviations, `[..., action_size]`.

    Example:
        >>> standard = DiagonalGaussian(jnp.zeros(2), jnp.zeros(2))
        >>> print(f"{standard.log_prob(jnp.array([1.0, 0.0])):.3f} {standard.kl(standard):.1f}")
        -2.338 0.0
    """

    mean: jax.Array
    log_std: jax.Array

    __repr__ = short_repr

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws actions, `[..., action_size]`."""
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def mode(self) -> jax.Array:
        """Returns the means, `[..., action_size]`."""
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Returns the log-density of each action `[..., action_size]`, `[...]`."""
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return -jnp.sum(0.5 * z**2 + self.log_std + 0.5 * math.log(2 * math.pi), axis=-1)

    def entropy(self) -> jax.Array:
        """Returns the entropy in nats, `[...]`."""
        return jnp.sum(self.log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1)

    def kl(self, other: "DiagonalGaussian") -> jax.Array:
        """Returns `KL(self || other)` in nats, `[...]`."""
        # sum_i log(s'_i / s_i) + (s_i^2 + (m_i - m'_i)^2) / (2 s'_i^2) - 1/2
        ratio = jnp.exp(2 * (self.log_std - other.log_std))
        z = (self.mean - other.mean) * jnp.exp(-other.log_std)
        return jnp.sum(other.log_std - self.log_std + 0.5 * (ratio + z**2 - 1), axis=-1)


def distribution_of(head: jax.Array, log_std: jax.Array | None) -> Distribution:
    """Returns the distributions of discrete actions for logits `[..., n]`, of other actions for means `[..., n]`.

    Args:
        head: output of a network.
        log_std: logarithms of the standard deviations, `[n]`, or `None` for discrete actions.
    """
    return Categorical(head) if log_std is None else DiagonalGaussian(head, jnp.broadcast_to(log_std, head.shape))


@struct.dataclass
class Categorical:
    """Categorical distribution over the integers below `n`.

    Attributes:
        logits: unnormalized log-probabilities, `[..., n]`. An integer of logit `-inf` is never drawn, which masks
            actions: `Categorical(jnp.where(allowed, logits, -jnp.inf))`.

    Example:
        >>> fair = Categorical(jnp.zeros(4))
        >>> print(f"{fair.log_prob(jnp.array(1)):.3f} {fair.entropy():.3f}")
        -1.386 1.386
    """

    logits: jax.Array

    __repr__ = short_repr

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws integers below `n`, `[...]`."""
        return jax.random.categorical(key, self.logits)

    def mode(self) -> jax.Array:
        """Returns the most probable integers, `[...]`."""
        return jnp.argmax(self.logits, axis=-1)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Returns the log-probability of each integer in `action: [...]`."""
        return jnp.take_along_axis(jax.nn.log_softmax(self.logits), action[..., None], axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        """Returns the entropy in nats, `[...]`."""
        possible, log_probs = _possible(self.logits)
        return -jnp.sum(jnp.where(possible, jnp.exp(log_probs) * log_probs, 0), axis=-1)

    def kl(self, other: "Categorical") -> jax.Array:
        """Returns `KL(self || other)` in nats, `[...]`."""
        # An integer that `self` never draws adds nothing. One that only `other` never draws gives infinity.
        (possible, log_probs), (_, others) = _possible(self.logits), _possible(other.logits)
        ratio = jnp.where(possible & jnp.isneginf(other.logits), jnp.inf, log_probs - others)
        return jnp.sum(jnp.where(possible, jnp.exp(log_probs) * ratio, 0), axis=-1)


def _possible(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns which integers can be drawn, and the log-probabilities, which are 0 for the others."""
    possible = ~jnp.isneginf(logits)
    # The `where` is inside, so that no infinity meets a zero in a derivative.
    return possible, jnp.where(possible, jax.nn.log_softmax(logits), 0)
