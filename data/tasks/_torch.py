"""Tasks as torch tensors and back, without a copy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def to_torch(tree: Any) -> Any:
    """Return the arrays of a pytree as torch tensors that share their memory.

    An array on the CPU or on an NVIDIA GPU gives a tensor there. JAX takes its arrays to be constant: do not change
    such a tensor in place; `tensor.clone()` first.

    Args:
        tree: A task or any pytree of JAX and NumPy arrays. Other leaves stay as they are.

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
    """Return the tensors of a pytree as JAX arrays that share their memory.

    Args:
        tree: A task, what a `torch.utils.data.DataLoader` gives, or any pytree with torch tensors. A tensor that is
            not contiguous is copied, and so is one in 64 bits unless JAX has them enabled. Do not change the tensors
            afterwards. Other leaves stay as they are.

    Returns:
        The pytree with arrays, where the tensors were.

    Example:
        >>> for batch in map(from_torch, torch.utils.data.DataLoader(tasks)):  # doctest: +SKIP
        ...     meta, opt_state, metrics = step(meta, opt_state, batch)
    """

    def convert(leaf: Any) -> Any:
        if not hasattr(leaf, "detach"):
            return leaf
        tensor = leaf.detach().contiguous()
        if tensor.element_size() == 8 and jax.dtypes.canonicalize_dtype(np.int64) == np.int32:
            return jnp.asarray(tensor.cpu().numpy())
        return jnp.from_dlpack(tensor)

    return jax.tree.map(convert, tree)
