"""Conversion of examples on the host to arrays."""

from typing import Any

import jax
import numpy as np


def to_array(value: Any) -> np.ndarray:
    """Converts an image, a tensor, a list or a number to an array, without a copy where possible."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def stack(examples: Any) -> Any:
    """Stacks examples along a new first axis.

    Args:
        examples: list of examples, each an array, an image, a tensor, a number, a string, a list of numbers, or a
            dictionary or tuple of these. An array is already stacked.

    Returns:
        An array `[n, ...]`, or a dictionary or tuple of arrays.

    Raises:
        ValueError: if the examples differ in shape or structure.
    """
    if isinstance(examples, np.ndarray):
        return examples
    if isinstance(examples[0], np.ndarray):  # the common case, without `jax.tree`
        return _stack_leaves(*examples)
    return jax.tree.map(_stack_leaves, *examples, is_leaf=lambda value: isinstance(value, list))


def _stack_leaves(*leaves: Any) -> np.ndarray:
    arrays = [to_array(leaf) for leaf in leaves]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ValueError(
            f"examples must have the same shape to be stacked, got {sorted(shapes)}: "
            "give them the same shape with Map(...), or pass a task_collate"
        )
    return np.stack(arrays)
