"""Distributions of actions: pytrees with the few functions that policy gradients need."""

import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct


class Distribution(Protocol):
    """What a policy says about actions: a pytree of arrays with any leading axes `[...]`, one for each observation."""

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw one action for each observation."""
        ...

    def mode(self) -> jax.Array:
        """Return the most probable actions."""
        ...

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Return the log-probability (or log-density) of each whole action, `[...]`."""
        ...

    def entropy(self) -> jax.Array:
        """Return the entropy in nats, `[...]`."""
        ...

    def kl(self, other: Any) -> jax.Array:
        """Return the Kullback-Leibler divergence `KL(self || other)` from one of the same kind in nats, `[...]`."""
        ...


@struct.dataclass
class DiagonalGaussian:
    """Independent normal distributions of the numbers in an action.

    Attributes:
        mean: `[..., action_size]`.
        log_std: logarithms of the standard deviations, `[..., action_size]`.

    Example:
        >>> standard = DiagonalGaussian(jnp.zeros(2), jnp.zeros(2))
        >>> print(f"{standard.log_prob(jnp.array([1.0, 0.0])):.3f} {standard.kl(standard):.1f}")
        -2.338 0.0
    """

    mean: jax.Array
    log_std: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw actions `[..., action_size]`."""
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def mode(self) -> jax.Array:
        """Return the means."""
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Return log-densities `[...]`, summed over the numbers of an action."""
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return -jnp.sum(0.5 * z**2 + self.log_std + 0.5 * math.log(2 * math.pi), axis=-1)

    def entropy(self) -> jax.Array:
        """Return entropies in nats, `[...]`."""
        return jnp.sum(self.log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1)

    def kl(self, other: "DiagonalGaussian") -> jax.Array:
        """Return `KL(self || other)` in nats, `[...]`."""
        ratio = jnp.exp(2 * (self.log_std - other.log_std))
        z = (self.mean - other.mean) * jnp.exp(-other.log_std)
        return jnp.sum(other.log_std - self.log_std + 0.5 * (ratio + z**2 - 1), axis=-1)


@struct.dataclass
class Categorical:
    """A distribution over integers.

    Attributes:
        logits: unnormalized log-probabilities, `[..., n]`.

    Example:
        >>> fair = Categorical(jnp.zeros(4))
        >>> print(f"{fair.log_prob(jnp.array(1)):.3f} {fair.entropy():.3f}")
        -1.386 1.386
    """

    logits: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw integers `[...]` below `n`."""
        return jax.random.categorical(key, self.logits)

    def mode(self) -> jax.Array:
        """Return the most probable integers."""
        return jnp.argmax(self.logits, axis=-1)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Return log-probabilities `[...]` of integers `action: [...]`."""
        return jnp.take_along_axis(jax.nn.log_softmax(self.logits), action[..., None], axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        """Return entropies in nats, `[...]`."""
        log_probs = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)

    def kl(self, other: "Categorical") -> jax.Array:
        """Return `KL(self || other)` in nats, `[...]`."""
        log_probs = jax.nn.log_softmax(self.logits)
        return jnp.sum(jnp.exp(log_probs) * (log_probs - jax.nn.log_softmax(other.logits)), axis=-1)
