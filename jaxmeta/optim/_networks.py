"""Small networks that all coordinates of all tensors share, for the learned optimizers.

Features are the first axis, `[features, ...]`, so that a tensor of any shape is a batch without a transposition.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta._types import PyTree

Weights = dict[str, dict[str, jax.Array]]


def initial_dense(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    """Draws the weights of a linear layer, scaled for its number of inputs."""
    kernel = jax.random.normal(key, (inputs, outputs)) / math.sqrt(inputs)
    return {"kernel": kernel, "bias": jnp.zeros(outputs)}


def zero_dense(inputs: int, outputs: int) -> dict[str, jax.Array]:
    """Returns the weights of a linear layer whose output is zero."""
    return {"kernel": jnp.zeros((inputs, outputs)), "bias": jnp.zeros(outputs)}


def dense(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Maps `x: [inputs, ...]` to `[outputs, ...]` by a linear layer."""
    return jnp.tensordot(layer["kernel"], x, (0, 0)) + column(layer["bias"], x.ndim)


def column(x: jax.Array, ndim: int) -> jax.Array:
    """Reshapes `x: [n]` to `[n, 1, ...]` with `ndim` axes."""
    return x.reshape(-1, *[1] * (ndim - 1))


def check_weights(
    weights: PyTree | None, key: jax.Array | None, initial: Callable[[jax.Array], Weights]
) -> Callable[[Any], Weights]:
    """Builds the function `dtype -> weights` of the given weights, or of those that `initial` draws with `key`.

    Raises:
        ValueError: if both or none of `weights` and `key` are given, or if `weights` have other names or shapes than
            those of `initial`.
    """
    if weights is None:
        if key is None:
            raise ValueError("give either weights or a key for initial ones, got neither")
        return lambda dtype: _cast(initial(key), dtype)
    if key is not None:
        raise ValueError("give either weights or a key for initial ones, got both")
    wanted, given = _shapes(jax.eval_shape(initial, jax.random.key(0))), _shapes(weights)
    if wanted != given:
        missing, unexpected = (
            ", ".join(f"{name} {shape}" for name, shape in sorted(names)) or "nothing"
            for names in (wanted - given, given - wanted)
        )
        raise ValueError(f"weights must have the given sizes: missing is {missing}, unexpected is {unexpected}")
    return lambda dtype: _cast(weights, dtype)


def _cast(weights: PyTree, dtype: Any) -> Weights:
    """Casts all weights to `dtype`."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), weights)


def _shapes(tree: PyTree) -> set[tuple[str, tuple[int, ...]]]:
    """Returns the path and the shape of each leaf."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {(jax.tree_util.keystr(path, simple=True, separator="/"), jnp.shape(x)) for path, x in paths}
