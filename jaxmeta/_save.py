"""Arrays to a file and back: what a run has learned, for use where it was not trained. Data only, never code."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import serialization

from jaxmeta._files import write_atomically
from jaxmeta._types import PyTree


def save(path: str | os.PathLike[str], tree: PyTree) -> None:
    """Saves a pytree of arrays: meta-parameters, adapted parameters, the weights of a learned optimizer.

    The file is msgpack, as `flax.serialization` writes it. It is replaced as a whole: a kill leaves the old one.

    Args:
        path: of the file; its folder must exist.
        tree: any pytree of arrays and numbers, of containers that `flax.serialization` knows (dicts, lists, tuples,
            NamedTuples, flax dataclasses).

    Raises:
        TypeError: if a leaf is neither an array nor a number.

    Example:
        >>> import tempfile, os, jax.numpy as jnp
        >>> path = os.path.join(tempfile.mkdtemp(), "weights.msgpack")
        >>> save(path, {"w": jnp.array([1.0, 2.0])})
        >>> load(path)["w"].tolist()
        [1.0, 2.0]
    """
    for where, leaf in jax.tree.leaves_with_path(tree):
        if not isinstance(leaf, bool | int | float | np.generic | np.ndarray | jax.Array) or _opaque(leaf):
            name = jax.tree_util.keystr(where)
            raise TypeError(f"tree must hold arrays and numbers, got {type(leaf).__name__} at {name or 'its root'}")
    data = serialization.msgpack_serialize(serialization.to_state_dict(jax.device_get(tree)))
    write_atomically(Path(path), data)


def load(path: str | os.PathLike[str], like: PyTree = None) -> PyTree:
    """Loads what `save` saved.

    Args:
        path: of the file.
        like: a pytree of the same structure, shapes and dtypes (arrays or `jax.ShapeDtypeStruct`), e.g. from
            `jax.eval_shape`; `None` gives what is in the file, with every container a dict of names.

    Returns:
        The pytree, with numpy arrays.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or was not made by `save`, or holds another tree than `like`.
    """
    path = Path(path)
    try:
        state: Any = serialization.msgpack_restore(path.read_bytes())
    except OSError:
        raise
    except Exception as error:  # whatever the decoder makes of bytes that are not its own
        raise ValueError(f"{path} is damaged, or was not made by jaxmeta.save ({type(error).__name__})") from error
    if like is None:
        return state
    wanted, found = _leaves(serialization.to_state_dict(like)), _leaves(state)
    problems = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    problems += [f"{name} is not expected" for name in found.keys() - wanted.keys()]
    problems += [
        f"{name} is {found[name]}, expected {wanted[name]}"
        for name in wanted.keys() & found.keys()
        if found[name] != wanted[name]
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        raise ValueError(f"{path} holds another tree than like: {shown} ({len(problems)} differences in all)")
    return serialization.from_state_dict(like, state)


def _opaque(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _leaves(state: Any) -> dict[str, str]:
    """Returns descriptions such as `float32[2, 3]` by path."""

    def describe(leaf: Any) -> str:
        shape, dtype = getattr(leaf, "shape", ()), getattr(leaf, "dtype", type(leaf).__name__)
        return f"{dtype}{list(shape)}"

    return {jax.tree_util.keystr(path): describe(leaf) for path, leaf in jax.tree.leaves_with_path(state)}
