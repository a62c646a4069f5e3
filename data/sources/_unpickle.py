"""Reading of pickles with arrays and plain containers only, which cannot run code."""

import collections
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO, Literal

import numpy as np

_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")


def load_pickle(file: BinaryIO, where: str) -> Any:
    """Reads a pickle of NumPy arrays, numbers, strings, bytes, lists, tuples, sets and dictionaries.

    Any other name in it, such as a function to call, is refused before it is looked up. Strings of Python 2 become
    bytes.

    Args:
        file: the open file.
        where: location of the file, for error messages.

    Returns:
        The content.

    Raises:
        ValueError: if the pickle is damaged, or holds anything else.
    """
    try:
        return _Unpickler(file, encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{where} is not read: {error}") from error
    except (EOFError, AttributeError, TypeError, ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise ValueError(f"{where} is not a readable pickle ({type(error).__name__}: {error})") from error


class _Unpickler(pickle.Unpickler):
    """An unpickler that finds allowed names only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"the pickle asks for {module}.{name}, which is neither an array nor a plain container"
            )
        return _ALLOWED[module, name]()

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("the pickle refers to something outside of itself")


class _Dtype:
    """A replacement of `np.dtype`, whose `__setstate__` would trust a pickle that declares bytes to be objects."""

    def __init__(self, code: Any, *_: Any) -> None:
        name = code.decode() if isinstance(code, bytes) else code
        if not isinstance(name, str) or np.dtype(name).kind not in "biufcSUO":
            raise pickle.UnpicklingError(f"the pickle has an array of {code!r}, not of numbers or strings")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        _, order, *fields = state[:5]
        if any(field is not None for field in fields):
            raise pickle.UnpicklingError("the pickle has an array with fields")
        self.dtype = self.dtype.newbyteorder(_ORDERS[order])


class _Array(np.ndarray):
    """An array whose content is set once, with a checked type."""

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, fortran, content = state
        if self.size:  # its content would be freed, though another array may share it
            raise pickle.UnpicklingError("the pickle fills an array twice")
        super().__setstate__((version, shape, _plain(dtype), fortran, content))


def _plain(dtype: Any) -> np.dtype:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError(f"the pickle has an array of {dtype!r}, not of numbers or strings")
    return dtype.dtype


def _reconstruct(subtype: Any, *_: Any) -> np.ndarray:
    if subtype is not _NDARRAY:
        raise pickle.UnpicklingError("the pickle makes an array of a type of its own")
    return np.ndarray.__new__(_Array, (0,), "b")


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(bytes(buffer), _plain(dtype)).reshape(shape, order=order)


def _scalar(dtype: Any, content: Any) -> Any:
    return np.frombuffer(content.encode("latin1") if isinstance(content, str) else content, _plain(dtype), 1)[0]


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"the pickle asks for the codec {encoding!r}")
    return text.encode("latin1")


def _fresh(function: Callable[..., Any]) -> Callable[[], Callable[..., Any]]:
    """Returns a factory of new functions, because a pickle can set attributes of the function it gets."""
    return lambda: lambda *arguments: function(*arguments)


_NDARRAY = object()
_ORDERS: dict[Any, Literal["<", ">", "|"]] = {"<": "<", ">": ">", "|": "|", b"<": "<", b">": ">", b"|": "|"}
_ALLOWED: dict[tuple[str, str], Callable[[], Any]] = {
    ("numpy", "ndarray"): lambda: _NDARRAY,
    ("numpy", "dtype"): _fresh(_Dtype),
    ("builtins", "set"): lambda: set,
    ("__builtin__", "set"): lambda: set,
    ("__builtin__", "bytes"): _fresh(lambda: b""),
    ("collections", "OrderedDict"): lambda: collections.OrderedDict,
    ("_codecs", "encode"): _fresh(_latin1),
    **{(module, "_reconstruct"): _fresh(_reconstruct) for module in _ARRAYS},
    **{(module, "scalar"): _fresh(_scalar) for module in _ARRAYS},
    **{(module, "_frombuffer"): _fresh(_from_buffer) for module in _NUMERIC},
}
