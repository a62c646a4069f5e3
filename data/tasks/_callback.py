"""Tasks of the host in a compiled program: loaded when the program asks for them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

_WORKERS = 4


def load_in_program(load: Callable[[np.ndarray], Sequence[Any]], like: Any, key: jax.Array) -> Any:
    """Returns a task that the host loads, in a compiled program or outside.

    Under `jax.vmap` all tasks are loaded in one call, by several threads.

    Args:
        load: function from the words of keys, `[n, 2]` (uint32), to `n` tasks, pytrees of NumPy arrays.
        like: one task, for structure, shapes and types.
        key: random key, maybe traced.

    Returns:
        The task, with JAX arrays.

    Raises:
        ValueError: if a task has other shapes than `like`.
    """
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), jax.dtypes.canonicalize_dtype(a.dtype)), like)

    def stack_tasks(words: Any) -> Any:
        words = np.asarray(words)
        many = words.reshape(-1, 2)
        with ThreadPoolExecutor(_WORKERS) as pool:
            parts = list(pool.map(load, [part for part in np.array_split(many, _WORKERS) if len(part)]))
        tasks = [task for part in parts for task in part]

        def join(shape: Any, *leaves: Any) -> np.ndarray:
            found = {np.shape(leaf) for leaf in leaves}
            if found != {shape.shape}:
                raise ValueError(f"all tasks must have the shapes of the first, {shape.shape}, got {sorted(found)}")
            return np.stack(leaves).astype(shape.dtype).reshape(*words.shape[:-1], *shape.shape)

        return jax.tree.map(join, shapes, *tasks)

    return jax.pure_callback(stack_tasks, shapes, jax.random.key_data(key), vmap_method="expand_dims")
