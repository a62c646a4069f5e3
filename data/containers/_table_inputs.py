"""Rows of a table as inputs of a model: the one place that standardizes columns and marks what is missing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_FAR = 4  # standard deviations beyond which a value grows like its logarithm
_CONSTANT = 1e-6  # of the mean: a standard deviation below it is rounding


class Columns(NamedTuple):
    """Rows of a table, with flags of what is known, so that no NaN is needed."""

    x: jax.Array
    """Values `[n, d]`, any finite number where they are missing."""
    seen: jax.Array
    """False where a value is missing: `[n, d]`. A column without any value does not exist."""


def table_inputs(rows: Columns, context: Columns, weight: jax.Array) -> jax.Array:
    """Converts rows of a table to inputs of a model, with statistics of the labeled rows only.

    Each column is standardized by mean and standard deviation of its known values in the context. What is farther out
    than 4 standard deviations grows like a logarithm. A missing value becomes 0, the mean, and sets a flag. A column
    that is constant in the context, or has no value there, is 0. The values are multiplied by `sqrt(d / varying)`,
    where `varying` is the number of columns that are not constant, so that the length of an input does not depend on
    the number of columns (Hollmann et al. 2023 multiply by `d / varying`).

    Args:
        rows: the rows to convert: `[m, d]`.
        context: the labeled rows: `[n, d]`.
        weight: weights of the labeled rows `[n]`. A row of weight 0 has no influence.

    Returns:
        The inputs `[m, 2 d]`, of the type of `rows.x`: the values of all columns, then their flags.

    Example:
        >>> x, seen = jnp.array([[1.0, 5.0], [3.0, 0.0]]), jnp.array([[True, True], [True, False]])
        >>> table_inputs(Columns(x, seen), Columns(x, seen), jnp.ones(2)).round(2).tolist()
        [[-1.409999966621399, 0.0, 0.0, 0.0], [1.409999966621399, 0.0, 0.0, 1.0]]

    References:
        Hollmann, Müller, Eggensperger & Hutter, *TabPFN: A Transformer That Solves Small Tabular Classification
        Problems in a Second*, ICLR 2023, https://arxiv.org/abs/2207.01848
    """
    x = rows.x
    counts = jnp.where(context.seen, weight[:, None], 0).astype(x.dtype)
    total = jnp.sum(counts, 0)
    share = counts / jnp.where(total > 0, total, 1)[None]
    known = jnp.where(counts > 0, context.x, 0)
    mean = jnp.sum(share * known, 0)
    variance = jnp.sum(share * jnp.square(known - mean[None]), 0)
    varies = variance > jnp.square(_CONSTANT * mean)
    scaled = (x - mean[None]) / jnp.sqrt(jnp.where(varies, variance, 1))[None]
    far = jnp.maximum(jnp.abs(scaled) - _FAR, 0)
    scaled = jnp.where(far > 0, jnp.sign(scaled) * (_FAR + jnp.log1p(far)), scaled)
    values = jnp.where(varies[None] & rows.seen, scaled, 0)
    values *= jnp.sqrt(x.shape[1] / jnp.maximum(jnp.sum(varies), 1)).astype(x.dtype)
    flags = ~rows.seen & (total > 0)[None]
    return jnp.concatenate([values, flags.astype(x.dtype)], 1)
