"""The networks of LEO: an encoder from a support set to codes, a decoder from codes to weights, and their noise."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_integer
from jaxmeta.algorithms._heads import class_means
from jaxmeta.display import short_repr
from jaxmeta.losses import weighted_mean


class LEOParams(NamedTuple):
    """Parameters of LEO's networks, linear maps without biases."""

    encoder: jax.Array
    """Map from a feature vector to a code, the paper's `phi_e`: `[features, latents]`."""
    relation: tuple[jax.Array, ...]
    """Layers of a ReLU network on pairs of codes, the paper's `phi_r`: `[2 * latents, 2 * latents]` each."""
    decoder: jax.Array
    """Map from a code to mean and log-deviation of the class's weights, `phi_d`: `[latents, 2 * features]`."""

    __repr__ = short_repr


def leo_params(key: jax.Array, features: int, latents: int = 64) -> LEOParams:
    """Draws initial parameters for `leo`, Xavier uniform.

    Args:
        key: random key.
        features: length of the feature vectors.
        latents: length of the codes (default: 64, as in the paper).

    Returns:
        The parameters.

    Raises:
        ValueError: if a size is not an integer of at least 1.

    Example:
        >>> [matrix.shape for matrix in jax.tree.leaves(leo_params(jax.random.key(0), features=640))]
        [(640, 64), (128, 128), (128, 128), (128, 128), (64, 1280)]
    """
    check_integer(features=features, latents=latents)
    sizes = [(features, latents), *[(2 * latents, 2 * latents)] * 3, (latents, 2 * features)]
    xavier = jax.nn.initializers.xavier_uniform()
    encoder, *relation, decoder = (xavier(k, size) for k, size in zip(jax.random.split(key, 5), sizes, strict=True))
    return LEOParams(encoder, tuple(relation), decoder)


def encode(
    params: LEOParams, x: jax.Array, one_hot: jax.Array, weight: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Returns mean and standard deviation of the code of each class, `[ways, latents]`.

    `mu_n, u_n` is the mean of `relation([encoder(x_i), encoder(x_j)])` over the examples `i` of class `n` and
    all examples `j`. These means have the weights of the support set.
    """
    codes = x @ params.encoder
    n = codes.shape[0]
    pairs = jnp.concatenate([jnp.repeat(codes, n, axis=0), jnp.tile(codes, (n, 1))], axis=1)
    *hidden, last = params.relation
    for matrix in hidden:
        pairs = jax.nn.relu(pairs @ matrix)
    relations = jax.vmap(lambda pairs: weighted_mean(pairs, weight, 0))((pairs @ last).reshape(n, n, -1))
    mean, u = jnp.split(class_means(relations, one_hot), 2, axis=1)
    return mean, _deviation(u, 0.0)


def decode(decoder: jax.Array, codes: jax.Array, key: jax.Array, training: bool) -> jax.Array:
    """Draws the weights of the classes, `[ways, features]`. Their deviation starts near Xavier's."""
    mean, u = jnp.split(codes @ decoder, 2, axis=1)
    return draw(key, mean, _deviation(u, math.sqrt(2.0 / sum(mean.shape))), training)


def _deviation(u: jax.Array, start: float) -> jax.Array:
    """Returns the authors' standard deviation `max(exp(u) - 1 + start, 1e-10)`, which is `start` for `u = 0`."""
    return jnp.maximum(jnp.exp(u) - 1 + start, 1e-10)


def draw(key: jax.Array, mean: jax.Array, deviation: jax.Array, training: bool) -> jax.Array:
    """Draws `mu + sigma * epsilon` with `epsilon ~ N(0, I)` during meta-training, and returns `mu` at test."""
    if not training:
        return mean
    return mean + deviation * jax.random.normal(key, mean.shape, mean.dtype)


def drop(key: jax.Array, x: jax.Array, dropout: float | jax.Array | None) -> jax.Array:
    """Zeroes the share `dropout` of the entries of `x` and scales up the others. `None` returns `x`."""
    if dropout is None:
        return x
    kept = jax.random.bernoulli(key, 1 - dropout, x.shape)
    return jnp.where(kept, x / jnp.asarray(1 - dropout, x.dtype), 0)
