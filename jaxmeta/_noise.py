"""Gaussian noise on trees of parameters, for evolution strategies."""

import jax

from jaxmeta._types import PyTree


def noise_like(key: jax.Array, tree: PyTree) -> PyTree:
    """Standard normal noise of the shapes and types of `tree`."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten([jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)])


def perturbed(tree: PyTree, noise: PyTree, amount: float) -> PyTree:
    """`tree + amount * noise`."""
    return jax.tree.map(lambda x, n: x + amount * n, tree, noise)
