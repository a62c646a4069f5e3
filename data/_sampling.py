"""Sampling without replacement on the device."""

import jax
import jax.numpy as jnp


def sample_without_replacement(key: jax.Array, n: int | jax.Array, k: int) -> jax.Array:
    """Draw `k` different integers from `[0, n)`, uniformly and in random order.

    A Fisher-Yates shuffle that stops after `k` positions and never builds the array that it shuffles: `k` random words
    and `k^2` comparisons, whatever `n` is. Each draw takes one 32-bit word, so probabilities are uniform to
    within a relative `n / 2^32`.

    Args:
        key: A random key.
        n: How many integers there are, at least `k`; may be a traced scalar. Not checked, as it may be traced.
        k: How many to draw.

    Returns:
        Distinct integers: `[k]`, int32.

    Example:
        >>> import jax
        >>> sorted(sample_without_replacement(jax.random.key(0), 5, 5).tolist())
        [0, 1, 2, 3, 4]
    """
    return distinct(jax.random.bits(key, (k,)), n)


def distinct(bits: jax.Array, n: int | jax.Array) -> jax.Array:
    """Turn random words into different integers from `[0, n)`; see `sample_without_replacement`.

    Args:
        bits: Uniform random words: `[k]`, uint32.
        n: How many integers there are, at least `k`; may be a traced scalar.

    Returns:
        Distinct integers: `[k]`, int32.
    """
    step = jnp.arange(bits.shape[0], dtype=jnp.int32)
    # Step i swaps position i with a position drawn from [i, n). Position p then holds what position t held at step t,
    # where t is the last earlier step that drew p, and p itself if there is none. Follow that trail for all i at once.
    drawn = step + _scale(bits, (jnp.asarray(n, jnp.int32) - step).astype(jnp.uint32))

    def follow(position: jax.Array, earlier: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        t, drawn_at_t = earlier
        return jnp.where((step > t) & (position == drawn_at_t), t, position), None

    return jax.lax.scan(follow, drawn, (step[:-1], drawn[:-1]), reverse=True)[0]


def _scale(bits: jax.Array, n: jax.Array) -> jax.Array:
    """Map uniform 32-bit words to `[0, n)`: the upper half of the 64-bit product, from 16-bit halves."""
    bits_low, bits_high = bits & 0xFFFF, bits >> 16
    n_low, n_high = n & 0xFFFF, n >> 16
    cross = bits_high * n_low + (bits_low * n_low >> 16)
    other = bits_low * n_high + (cross & 0xFFFF)
    return (bits_high * n_high + (cross >> 16) + (other >> 16)).astype(jnp.int32)
