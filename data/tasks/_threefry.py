"""JAX's default random numbers in NumPy (Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405).

They equal those of `jax.random` bit for bit (with `jax_threefry_partitionable`, the default). Tasks on the host are
drawn with them, because JAX must not run in a forked process and the workers of `torch.utils.data.DataLoader` are
forked.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def seed_key(seed: int) -> np.ndarray:
    """Returns the words of `jax.random.key(seed)` for a seed in `[0, 2^32)`: `[2]`, uint32."""
    return np.array([0, seed], np.uint32)


def wrap_key(words: np.ndarray) -> jax.Array:
    """Returns the key with the given words `[2]`."""
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")


def key_words(key: Any) -> np.ndarray:
    """Returns the words of a key: `[2]`, uint32.

    Args:
        key: a key, such as `jax.random.key(0)`, or its two words.

    Raises:
        TypeError: if it is not a single threefry key.
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    words = np.asarray(key)
    if words.shape != (2,) or words.dtype != np.uint32:
        raise TypeError(f"key must be one key such as jax.random.key(0), got {words.dtype} of shape {words.shape}")
    return words


def fold_in(keys: np.ndarray, data: Any) -> np.ndarray:
    """Returns the words of `jax.random.fold_in(key, data)` for many keys.

    Args:
        keys: words of the keys: `[..., 2]`, uint32.
        data: integers in `[0, 2^32)` that broadcast with `[...]`.

    Returns:
        Words of the new keys: `[..., 2]`, uint32.
    """
    data = np.asarray(data, np.uint32)
    return np.stack(_hash(keys, np.zeros_like(data), data), axis=-1)


def random_words(keys: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns `jax.random.bits(key, shape, jnp.uint32)` for many keys.

    Args:
        keys: words of the keys: `[..., 2]`, uint32.
        shape: shape of the result for one key, with fewer than `2^32` words.

    Returns:
        Uniform words: `[..., *shape]`, uint32.
    """
    count = np.arange(np.prod(shape), dtype=np.uint32)
    high, low = _hash(keys[..., None, :], np.zeros_like(count), count)
    return (high ^ low).reshape(*keys.shape[:-1], *shape)


def _hash(keys: np.ndarray, high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Threefry-2x32 with 20 rounds, for counters `(high, low)` that broadcast with the keys."""
    first, second = keys[..., 0], keys[..., 1]
    schedule = (first, second, first ^ second ^ _PARITY)
    with np.errstate(over="ignore"):  # words wrap around, and NumPy warns about scalars that do
        x, y = np.asarray(high + first), np.asarray(low + second)
        for i in range(5):
            for rotation in _ROTATIONS[i % 2]:
                x = x + y
                y = (y << np.uint32(rotation) | y >> np.uint32(32 - rotation)) ^ x
            x = x + schedule[(i + 1) % 3]
            y = y + (schedule[(i + 2) % 3] + np.uint32(i + 1))
    return x, y
