"""Reading of pickles with arrays and plain containers only, which cannot run code, nor take much time or memory."""

import collections
import contextlib
import math
import os
import pickle
import re
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np

from jaxmeta.bounded._growth import read_exactly

_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_CREDIT = 700_000  # steps of the reader that any pickle may take
_BYTES = 64  # bytes of content that pay for one more step
_LINE = 1 << 24  # bytes of a line, which only the oldest protocol has
_NAME = 1 << 12  # letters of a key
_EMPTY = 1 << 20  # longest axis of an array without entries
_DTYPE = re.compile(r"[<>|=]?[biufcSU]\d{0,9}|\?")
_REFUSED = (pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4)
_REFUSED += (pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.PERSID, pickle.BINPERSID)
_WRONG = (EOFError, AttributeError, TypeError, ValueError, IndexError, KeyError, OverflowError, MemoryError)
_WRONG += (struct.error, RecursionError, AssertionError)


def load_pickle(file: BinaryIO, where: str) -> Any:
    """Reads a pickle of NumPy arrays, numbers, strings, bytes, lists, tuples, sets and dictionaries.

    Any other name in it, such as a function to call, is refused before it is looked up, and so are arrays of objects
    and keys that are neither text nor whole numbers. Strings of Python 2 become bytes. Time and memory are at most a
    small multiple of the file's size, beyond one second and 300 MB.

    Args:
        file: the open file.
        where: location of the file, for error messages.

    Returns:
        The content.

    Raises:
        ValueError: if the pickle is damaged, or holds anything else.
    """
    try:
        reader = _Reader(file)
        found = _Unpickler(reader).load()
        reader.end_frame()
        return found
    except pickle.UnpicklingError as error:
        raise ValueError(f"{where} is not read: {error}") from error
    except _WRONG as error:
        raise ValueError(f"{where} is not a readable pickle ({type(error).__name__}: {error})") from error


class _Reader:
    """A file whose reader has a credit of steps. Content earns more of them, so that large files are read too."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._credit = _CREDIT
        self._place = self._frame_end = 0
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no file of the system's
            self._credit += os.fstat(file.fileno()).st_size // _BYTES  # its content may come last

    def read(self, size: int) -> bytes:
        if size < _BYTES:
            content = self._file.read(size)
            self._credit -= 1
        else:
            content = read_exactly(self._file, size)
            self._credit += size // _BYTES - 1
        if self._credit < 0:
            self.pay(0)
        if len(content) < size:
            raise pickle.UnpicklingError("pickle data was truncated") if content else EOFError("it ends too early")
        self._go(size)
        return content

    def readline(self) -> bytes:
        line = self._file.readline(_LINE)
        self._credit += len(line) // _BYTES
        self.pay(1)
        if not line.endswith(b"\n"):
            raise pickle.UnpicklingError("pickle data was truncated")
        self._go(len(line))
        return line

    def begin_frame(self, size: int) -> None:
        self.end_frame()
        self._frame_end = self._place + size

    def end_frame(self) -> None:
        if self._place < self._frame_end:
            raise pickle.UnpicklingError("the pickle ends before its last frame does")

    def _go(self, size: int) -> None:
        if self._place < self._frame_end < self._place + size:
            raise pickle.UnpicklingError("a part of the pickle goes on after the end of its frame")
        self._place += size

    def pay(self, steps: int) -> None:
        self._credit -= steps
        if self._credit < 0:
            raise pickle.UnpicklingError("the pickle takes more steps than a file of its size needs")


class _Dtype:
    """The type of an array, in the place of `np.dtype`."""

    def __init__(self, code: Any) -> None:
        name = code.decode("latin1") if type(code) is bytes else code
        if type(name) is not str or not _DTYPE.fullmatch(name):
            shown = repr(name[:99]) if type(name) is str else f"a {type(name).__name__}"
            raise pickle.UnpicklingError(f"the pickle has an array of {shown}, not of numbers or strings")
        self.dtype = np.dtype(name)

    def build(self, state: Any) -> None:
        _, order, *fields = state[:5]
        if any(field is not None for field in fields):
            raise pickle.UnpicklingError("the pickle has an array with fields")
        self.dtype = self.dtype.newbyteorder(_ORDERS[order] if type(order) in (str, bytes) else "|")


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler with allowed names only, whose steps are counted and whose objects are plain."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]  # what Python's own has, and its types do not say
    read: Callable[[int], bytes]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, reader: _Reader) -> None:
        super().__init__(reader, encoding="bytes")
        self._pay = reader.pay
        self._begin_frame = reader.begin_frame
        self._names = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): lambda code, *_: _Dtype(code),
            ("builtins", "set"): self._set,
            ("__builtin__", "set"): self._set,
            ("__builtin__", "bytes"): lambda: b"",
            ("collections", "OrderedDict"): self._ordered,
            ("_codecs", "encode"): self._encoded,
            **{(module, "_reconstruct"): self._empty_array for module in _ARRAYS},
            **{(module, "scalar"): self._scalar for module in _ARRAYS},
            **{(module, "_frombuffer"): self._from_buffer for module in _NUMERIC},
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._names:
            asked = f"{module}.{name}"
            raise pickle.UnpicklingError(
                f"the pickle asks for {asked:.99}, which is neither an array nor a plain container"
            )
        return self._names[module, name]

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("the pickle makes an object, or refers to something outside of itself")

    def _reduce(self) -> None:
        """Calls one of the allowed functions, which take few arguments."""
        arguments, function = self.stack.pop(), self.stack[-1]
        if isinstance(function, type):
            raise TypeError(f"{function.__name__} is not called")
        self.stack[-1] = function(*arguments)

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Dtype):
            target.build(state)
        elif isinstance(target, np.ndarray):
            if target.size:  # its content would be freed, though another array may share it
                raise pickle.UnpicklingError("the pickle fills an array twice")
            _, shape, dtype, fortran, content = state
            checked: Any = (1, shape, self._checked(shape, dtype, content), bool(fortran), content)
            target.__setstate__(checked)
        else:
            raise pickle.UnpicklingError(f"the pickle sets the state of a {type(target).__name__}")

    def _frame(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self._begin_frame(size)

    def _byte_array(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append(dict(zip(_keys(items[::2]), items[1::2], strict=True)))

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._mapping()[_key(key)] = value

    def _set_items(self) -> None:
        items = self.pop_mark()
        self._mapping().update(zip(_keys(items[::2]), items[1::2], strict=True))

    def _mapping(self) -> dict[Any, Any]:
        if not isinstance(self.stack[-1], dict):
            raise pickle.UnpicklingError("the pickle sets entries of something that is no dictionary")
        return self.stack[-1]

    def _append(self) -> None:
        value = self.stack.pop()
        self._list().append(value)

    def _append_all(self) -> None:
        items = self.pop_mark()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        if not isinstance(self.stack[-1], list):
            raise pickle.UnpicklingError("the pickle appends to something that is no list")
        return self.stack[-1]

    def _add_items(self) -> None:
        items = self.pop_mark()
        if not isinstance(self.stack[-1], set):
            raise pickle.UnpicklingError("the pickle adds to something that is no set")
        self.stack[-1].update(_keys(items))

    def _frozen_set(self) -> None:
        self.append(frozenset(self._set(self.pop_mark())))

    def _set(self, items: Any = ()) -> set[Any]:
        """Returns a set. A list can be used for many of them, so each entry costs a step."""
        self._pay(len(items))
        return set(_keys(items))

    def _ordered(self, pairs: Any = ()) -> dict[Any, Any]:
        self._pay(len(pairs))
        return collections.OrderedDict((_key(key), value) for key, value in pairs)

    def _encoded(self, text: Any, encoding: Any) -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError("the pickle asks for a codec other than latin1")
        self._pay(len(text) // (2 * _BYTES))
        return text.encode("latin1")

    def _empty_array(self, subtype: Any, *_: Any) -> np.ndarray:
        if subtype is not np.ndarray:
            raise pickle.UnpicklingError("the pickle makes an array of a type of its own")
        return np.ndarray((0,), "b")

    def _from_buffer(self, content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
        found = self._checked(shape, dtype, content)
        return np.frombuffer(content, found).reshape(shape, order=order)

    def _scalar(self, dtype: Any, content: Any) -> Any:
        return np.frombuffer(content, self._checked((), dtype, content))[0]

    def _checked(self, shape: Any, dtype: Any, content: Any) -> np.dtype:
        """Returns the type of an array whose shape and content fit together. Content may be copied, which costs."""
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError(f"the pickle has an array of a {type(dtype).__name__}, not of numbers")
        if type(shape) is not tuple or not all(type(length) is int and 0 <= length < 1 << 48 for length in shape):
            raise pickle.UnpicklingError("the pickle has an array without a shape")
        size, found = math.prod(shape[:64]), dtype.dtype
        if type(content) is not bytes or not found.itemsize or size * found.itemsize != len(content):
            raise pickle.UnpicklingError("the pickle has an array whose content does not fit its shape")
        if max(shape, default=0) > max(size, _EMPTY):
            raise pickle.UnpicklingError("the pickle has an array of no entries that is too long")
        self._pay(len(content) // (2 * _BYTES))
        return found


def _key(key: Any) -> Any:
    """Returns a key whose hash takes no time, and refuses others, such as a tuple that holds itself many times over."""
    whole = isinstance(key, np.integer) or (isinstance(key, int) and key.bit_length() < 54)
    text = isinstance(key, str | bytes) and len(key) <= _NAME
    if not (whole or text or key is None):
        raise pickle.UnpicklingError(f"the pickle has a key of {type(key).__name__}, not a name or a whole number")
    return key


def _keys(items: Any) -> list[Any]:
    return [_key(item) for item in items]


_ORDERS: dict[Any, Literal["<", ">", "|"]] = {"<": "<", ">": ">", "|": "|", b"<": "<", b">": ">", b"|": "|"}
_Unpickler.dispatch |= {code[0]: _Unpickler._refuse for code in _REFUSED} | {
    pickle.REDUCE[0]: _Unpickler._reduce,
    pickle.BUILD[0]: _Unpickler._build,
    pickle.FRAME[0]: _Unpickler._frame,
    pickle.BYTEARRAY8[0]: _Unpickler._byte_array,
    pickle.DICT[0]: _Unpickler._dict,
    pickle.SETITEM[0]: _Unpickler._set_item,
    pickle.SETITEMS[0]: _Unpickler._set_items,
    pickle.APPEND[0]: _Unpickler._append,
    pickle.APPENDS[0]: _Unpickler._append_all,
    pickle.ADDITEMS[0]: _Unpickler._add_items,
    pickle.FROZENSET[0]: _Unpickler._frozen_set,
}
