"""Reading of what `jaxmeta.save` writes: dictionaries of names with arrays and numbers."""

import functools
from typing import Any

import msgpack
from flax import serialization

_ARRAYS = (1, 3)  # codes of flax for arrays and scalars
_AXES = 64
_DEPTH = 200  # of dictionaries


def load_msgpack(content: bytes) -> Any:
    """Reads dictionaries of arrays and numbers from msgpack, as `flax.serialization` writes them.

    Args:
        content: content of the file.

    Returns:
        Nested dictionaries of NumPy arrays and numbers.

    Raises:
        ValueError: if it holds anything else, such as lists.
    """
    try:
        # A header of five bytes can ask for a list as long as the file, so lists are refused before they are made.
        _check_depth(msgpack.unpackb(content, ext_hook=_check_array, max_array_len=0), _DEPTH)
        return serialization.msgpack_restore(content)
    except Exception as error:  # whatever msgpack, flax and NumPy make of bytes that are not their own
        raise ValueError(f"it is not a tree of arrays ({type(error).__name__}: {error})") from error


def _check_array(code: int, data: bytes) -> None:
    """Raises ValueError if this is not shape, type and bytes of an array."""
    unpack = functools.partial(msgpack.unpackb, max_array_len=_AXES, max_map_len=0, max_ext_len=0, strict_map_key=False)
    found = unpack(data)
    if code not in _ARRAYS:
        raise ValueError(f"it has a value of the unknown kind {code}")
    if len(found) != 3 or not all(isinstance(length, int) for length in found[0]):
        raise ValueError("it has an array without shape, type and bytes")


def _check_depth(tree: Any, most: int) -> None:
    if most == 0:
        raise ValueError(f"it is nested more than {_DEPTH} times")
    for inner in tree.values() if isinstance(tree, dict) else ():
        _check_depth(inner, most - 1)
