"""Examples on the host: from a list of anything to arrays."""

from typing import Any

import jax
import numpy as np


def to_array(value: Any) -> np.ndarray:
    """Return an image, a tensor, a list or a number as an array, without a copy where that is possible."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def stack(examples: Any) -> Any:
    """Stack examples along a new first axis.

    Args:
        examples: A list of examples, each an array, an image, a tensor, a number, a string, a list of numbers, or a
            dictionary or tuple of such; or an array, which is stacked already.

    Returns:
        An array `[n, ...]`, or a dictionary or tuple of arrays.

    Raises:
        ValueError: If the examples differ in shape or structure.
    """
    if isinstance(examples, np.ndarray):
        return examples
    if isinstance(examples[0], np.ndarray):  # no need of a tree
        return _stack_leaves(*examples)
    return jax.tree.map(_stack_leaves, *examples, is_leaf=lambda value: isinstance(value, list))


def _stack_leaves(*leaves: Any) -> np.ndarray:
    arrays = [to_array(leaf) for leaf in leaves]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ValueError(
            f"examples must be alike to be stacked, got shapes {sorted(shapes)}: "
            f"make them alike with Map(...), or give a task_collate"
        )
    return np.stack(arrays)
