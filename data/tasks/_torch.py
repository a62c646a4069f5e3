"""Conversion of tasks to torch tensors and back, without a copy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def to_torch(tree: Any) -> Any:
    """Converts the arrays of a pytree to torch tensors that share their memory.

    An array on the CPU or on an NVIDIA GPU becomes a tensor there. JAX assumes that its arrays are constant, so do not
    change such a tensor in place. Call `tensor.clone()` first.

    Args:
        tree: a task, or any pytree of JAX and NumPy arrays. Other leaves stay as they are.

    Returns:
        The pytree with tensors.

    Example:
        >>> task = to_torch(sampler(jax.random.key(0)))                     # doctest: +SKIP
        >>> loss = cross_entropy(model(task.support.x), task.support.y.long())  # doctest: +SKIP
    """
    import torch  # pyright: ignore[reportMissingImports]

    def convert(leaf: Any) -> Any:
        return torch.from_dlpack(leaf) if isinstance(leaf, jax.Array | np.ndarray) else leaf

    return jax.tree.map(convert, tree)


def from_torch(tree: Any) -> Any:
    """Converts the tensors of a pytree to JAX arrays that share their memory.

    Args:
        tree: a task, a batch of a `torch.utils.data.DataLoader`, or any pytree with torch tensors. A tensor that is
            not contiguous is copied, and so is a 64-bit tensor unless JAX has 64 bits enabled. Do not change the
            tensors afterwards. Other leaves stay as they are.

    Returns:
        The pytree with arrays in place of tensors.

    Example:
        >>> for batch in map(from_torch, torch.utils.data.DataLoader(tasks)):  # doctest: +SKIP
        ...     state, metrics = step(state, key, batch)
    """

    def convert(leaf: Any) -> Any:
        if not hasattr(leaf, "detach"):
            return leaf
        tensor = leaf.detach().contiguous()
        if tensor.element_size() == 8 and jax.dtypes.canonicalize_dtype(np.int64) == np.int32:
            return jnp.asarray(tensor.cpu().numpy())
        return jnp.from_dlpack(tensor)

    return jax.tree.map(convert, tree)
