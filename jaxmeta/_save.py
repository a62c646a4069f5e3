"""Arrays to a file and back: what a run has learned, for use where it was not trained. Data only, never code."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import serialization

from jaxmeta._checks import as_path
from jaxmeta._files import check_seal, replacing, seal
from jaxmeta._types import PyTree, is_key
from jaxmeta.bounded import load_msgpack

_KEY = "__random_key__"
_VERSION = 1  # of the format, to be increased when it changes


def save(path: str | os.PathLike[str], tree: PyTree) -> None:
    """Saves a pytree of arrays: meta-parameters, adapted parameters, the weights of a learned optimizer.

    The file is msgpack, as `flax.serialization` writes it, with a checksum at its end. It is replaced as a whole: a
    kill leaves the old one.

    Args:
        path: of the file; its folder must exist.
        tree: any pytree of arrays, random keys and numbers, such as the `State` of an NNX module. What is no leaf, such
            as the static fields of an equinox module, is not saved.

    Raises:
        TypeError: if a leaf is neither an array of numbers nor a number. The arrays of an equinox module are
            `equinox.filter(module, equinox.is_array)`.
        ValueError: if two leaves have the same path, or the path is that of a device.

    Example:
        >>> import tempfile, os, jax.numpy as jnp
        >>> path = os.path.join(tempfile.mkdtemp(), "weights.msgpack")
        >>> save(path, {"w": jnp.array([1.0, 2.0])})
        >>> load(path)["w"].tolist()
        [1.0, 2.0]
    """
    write_tree(as_path(path=path), tree, "arrays")


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
        ValueError: if a byte of the file has changed, it was not made by `save` of this version, or it holds another
            tree than `like`.
    """
    path = as_path(path=path)
    state = read_tree(path, "arrays", "jaxmeta.save")
    if like is None:
        return state
    found, wanted = _leaves(state), _leaves(like)
    described, expected = _described(found), _described(wanted)
    problems = [f"{name} is missing" for name in expected.keys() - described.keys()]
    problems += [f"{name} is not expected" for name in described.keys() - expected.keys()]
    problems += [
        f"{name} is {described[name]}, expected {expected[name]}"
        for name in expected.keys() & described.keys()
        if described[name] != expected[name]
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        raise ValueError(f"{path} holds another tree than like: {shown} ({len(problems)} differences in all)")
    return jax.tree.unflatten(jax.tree.structure(like), [found[names] for names in wanted])


def write_tree(path: Path, tree: PyTree, kind: str) -> None:
    """Writes a pytree of arrays as a file of some kind."""
    content = serialization.msgpack_serialize(_nested(tree))
    with replacing(path) as file:
        file.write(content)
        seal(file, kind, _VERSION)


def read_tree(path: Path, kind: str, made_by: str) -> Any:
    """Returns what `write_tree` wrote, with every container a dict of names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a byte of the file has changed, or it is of another kind.
    """
    with open(path, "rb") as file:
        size = check_seal(file, kind, _VERSION, made_by)
        file.seek(0)
        content = file.read(size)
    try:
        state = load_msgpack(content)
        _check_types(state)
        return _with_keys(state)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged, or was not made by {made_by} ({error})") from error


def _nested(tree: PyTree) -> Any:
    """Returns the leaves of a tree in dictionaries of names."""
    nested: dict[str, Any] = {}
    for where, leaf in jax.tree.leaves_with_path(tree, is_leaf=_is_empty):
        names = _names(where)
        if _is_empty(leaf):
            saved = {}
        elif is_key(leaf):
            saved = {_KEY: str(jax.random.key_impl(leaf)), "data": np.asarray(jax.random.key_data(leaf))}
        elif _is_number(leaf):
            saved = _in_native_order(jax.device_get(leaf))
        else:
            told = type(leaf).__name__ + " of more than 64 bits" * isinstance(leaf, int)
            told += f" of {leaf.dtype}" if hasattr(leaf, "dtype") else ""
            raise TypeError(f"tree must hold arrays and numbers, got {told} at {_shown(where)}")
        if not names:
            return saved
        inner = nested
        for name in names[:-1]:
            inner = inner.setdefault(name, {})
        if names[-1] in inner:
            raise ValueError(f"tree must have one leaf at each path, got two at {_shown(where)}")
        inner[names[-1]] = saved
    return nested


def _is_number(leaf: Any) -> bool:
    """Tells an array of numbers or a number, which a file can hold."""
    if isinstance(leaf, bool | float):
        return True
    if isinstance(leaf, int):
        return -(2**63) <= leaf < 2**64
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or isinstance(leaf, np.ma.MaskedArray):
        return False
    held = isinstance(leaf, np.generic | np.ndarray | jax.Array)
    return held and any(jax.numpy.issubdtype(dtype, kind) for kind in (np.bool_, np.number))


def _in_native_order(leaf: Any) -> Any:
    """Returns an array with its bytes in the order of this machine, because the file does not tell the order."""
    if isinstance(leaf, np.generic | np.ndarray) and not leaf.dtype.isnative:
        return leaf.astype(leaf.dtype.newbyteorder("="))
    return leaf


def _check_types(state: Any) -> None:
    """Raises TypeError if something was read that `_nested` never gives."""
    if isinstance(state, dict):
        for name, value in state.items():
            if not isinstance(name, str):
                raise TypeError(f"a name is {name!r}")
            if name != _KEY:
                _check_types(value)
    elif not _is_number(state):
        raise TypeError(f"it holds a {type(state).__name__}")


def _shown(where: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(where) or "its root"


def _names(where: tuple[Any, ...]) -> tuple[str, ...]:
    """Returns the names of a path: keys, indices and fields."""
    return tuple(
        str(next(getattr(entry, name) for name in ("key", "idx", "name") if hasattr(entry, name))) for entry in where
    )


def _with_keys(state: Any) -> Any:
    """Returns nested dictionaries with random keys in the place of what was saved of them."""
    if not isinstance(state, dict):
        return state
    if _KEY in state:
        return jax.random.wrap_key_data(state["data"], impl=state[_KEY])
    return {name: _with_keys(value) for name, value in state.items()}


def _leaves(state: Any) -> dict[tuple[str, ...], Any]:
    return {_names(where): leaf for where, leaf in jax.tree.leaves_with_path(state)}


def _described(leaves: dict[tuple[str, ...], Any]) -> dict[str, str]:
    """Returns descriptions such as `float32[2, 3]` by path."""

    def describe(leaf: Any) -> str:
        shape, dtype = getattr(leaf, "shape", ()), getattr(leaf, "dtype", type(leaf).__name__)
        return f"{dtype}{list(shape)}"

    return {"".join(f"[{name!r}]" for name in names): describe(leaf) for names, leaf in leaves.items()}


def _is_empty(node: Any) -> bool:
    return isinstance(node, dict | list | tuple) and not node
