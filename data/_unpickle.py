"""Reading pickles that hold arrays and plain containers, and nothing that could run code."""

import collections
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")


def load_pickle(file: BinaryIO, where: str) -> Any:
    """Read a pickle of NumPy arrays, numbers, strings, bytes, lists, tuples, sets and dictionaries.

    Anything else that it names, such as a function to call, is refused before it is looked up. Strings of Python 2
    come as bytes.

    Args:
        file: The file.
        where: What to call it in a message.

    Returns:
        What it holds.

    Raises:
        ValueError: If it is damaged, or holds anything else.
    """
    try:
        return _Unpickler(file, encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{where} is not read: {error}") from error
    except (EOFError, AttributeError, TypeError, ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise ValueError(f"{where} is not a readable pickle ({type(error).__name__}: {error})") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"the pickle asks for {module}.{name}, which is neither an array nor a plain container"
            )
        return _ALLOWED[module, name]()

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("the pickle refers to something outside of itself")


def _fresh(function: Callable[..., Any]) -> Callable[[], Callable[..., Any]]:
    """Hand out a new function each time: a pickle can set attributes of what it was given."""
    return lambda: lambda *arguments: function(*arguments)


def _array(subtype: type, shape: Any, dtype: Any) -> np.ndarray:
    if subtype is not np.ndarray:
        raise pickle.UnpicklingError("the pickle makes an array of a type of its own")
    return np.ndarray.__new__(np.ndarray, shape, np.dtype(dtype))


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(buffer, np.dtype(dtype)).reshape(shape, order=order)


def _scalar(dtype: Any, content: Any = b"") -> Any:
    if isinstance(content, str):
        content = content.encode("latin1")
    return np.frombuffer(content, np.dtype(dtype), 1)[0]


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"the pickle asks for the codec {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Callable[[], Any]] = {
    ("numpy", "ndarray"): lambda: np.ndarray,
    ("numpy", "dtype"): lambda: np.dtype,
    ("builtins", "set"): lambda: set,
    ("__builtin__", "set"): lambda: set,
    ("__builtin__", "bytes"): _fresh(lambda: b""),
    ("collections", "OrderedDict"): lambda: collections.OrderedDict,
    ("_codecs", "encode"): _fresh(_latin1),
    **{(module, "_reconstruct"): _fresh(_array) for module in _ARRAYS},
    **{(module, "scalar"): _fresh(_scalar) for module in _ARRAYS},
    **{(module, "_frombuffer"): _fresh(_from_buffer) for module in _NUMERIC},
}
