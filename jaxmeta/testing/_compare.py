"""The comparisons that all checks use."""

from typing import Any

import chex
import jax
import jax.numpy as jnp


def check_close(actual: Any, expected: Any, message: str, tolerance: float = 1e-5) -> None:
    """Raises AssertionError with `message` unless two pytrees are equal up to a relative and absolute tolerance."""
    chex.assert_trees_all_close(actual, expected, rtol=tolerance, atol=tolerance, custom_message=message)


def check_same_types(name: str, actual: Any, other: str, expected: Any) -> None:
    """Raises AssertionError unless two pytrees have the same structure, shapes and types."""
    structures = jax.tree.structure(actual), jax.tree.structure(expected)
    assert structures[0] == structures[1], f"{name}: structure {structures[0]} differs from {structures[1]} of {other}"
    for (path, x), y in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        types = [f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}" for leaf in (x, y)]
        where = jax.tree_util.keystr(path)
        assert types[0] == types[1], f"{name}: type {types[0]} of {where} differs from {types[1]} of {other}"
