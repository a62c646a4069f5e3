"""The identity of a training: the numbers and the functions that it is made of, to compare before a run resumes."""

import dataclasses
import functools
import platform
import types
import warnings
import zlib
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxmeta._files import read_json, write_json
from jaxmeta._types import is_key

_FILE = "training.json"
_FREE = ("mesh", "batch_size", "divide_optimizer", "parent")
"""Names of what does not decide the numbers of a run, or decides only the order of a sum."""
_OPAQUE = ("jax", "jaxlib", "numpy", "flax", "builtins", "functools", "typing", "collections")
"""Packages whose objects are known by their names."""
_LIBRARIES = (*_OPAQUE, "jaxmeta", "optax", "chex", "brax", "orbax")
"""Packages whose global variables and code belong to a version, not to a run."""
_MOST = 20_000  # entries, so that a strange object costs little
_LARGEST = 1 << 20  # numbers in an array whose values are compared


def check_identity(folder: Path, run: Mapping[str, Any], resumes: bool) -> None:
    """Compares a training with the one that is recorded in a folder, or records it there.

    Warns if that one was begun with other versions of the packages, from which numbers may differ.

    Args:
        folder: folder of the run.
        run: all that decides its numbers, by name: a `Training`, or anything made of functions, numbers and containers.
        resumes: whether the folder holds a checkpoint. Without one, the record is written anew.

    Raises:
        ValueError: if the folder holds a run with another learner, optimizer, model or number.
    """
    path, new = folder / _FILE, identity(run)
    if resumes and path.is_file():
        old = read_json(path)
        if different := _differences(old, new):
            shown = "; ".join(different[:3]) + f" ({len(different)} differences)" * (len(different) > 3)
            raise ValueError(f"folder {folder} holds a run of another configuration: {shown}. Choose another folder")
        before, now = old["versions"], new["versions"]
        changed = [
            f"{name} {before.get(name, 'unknown')}, now {now[name]}" for name in now if before.get(name) != now[name]
        ]
        if changed and jax.process_index() == 0:
            told = f"folder {folder} holds a run that was begun with {'; '.join(changed)}"
            warnings.warn(f"{told}. It goes on, and its numbers may differ from those of one version", stacklevel=2)
    elif jax.process_index() == 0:
        write_json(path, new)


def identity(run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a run is made of, as JSON.

    It holds the versions of the libraries, the numbers and `<names>` of functions and types by their paths, and a
    checksum of the code of the user's functions.
    """
    walk = _Walk()
    walk.visit("", run)
    versions = installed_versions("jaxmeta", "jax", "flax", "optax") | {"python": platform.python_version()}
    return {"versions": versions, "values": walk.values, "code": walk.code}


def installed_versions(*names: str) -> dict[str, str]:
    """Returns the versions of packages, "unknown" for what is not installed."""

    def found(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "unknown"

    return {name: found(name) for name in names}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describes what differs. Other versions of the libraries may have other names, so then only values count."""
    before, after = old["values"], new["values"]
    same_versions = old["versions"] == new["versions"]
    paths = [path for path in after if same_versions or (path in before and after[path][0] != "<")]
    paths += [path for path in before if path not in after and same_versions]
    different = [
        f"{_short(path)} was {before.get(path, 'absent')}, now {after.get(path, 'absent')}"
        for path in paths
        if before.get(path) != after.get(path)
    ]
    if not different and same_versions and old["code"] != new["code"]:
        different = ["the code of its functions has changed"]
    return different


def _short(path: str) -> str:
    """Returns the end of a path, with the names that say most."""
    names = path.split(".")
    return ".".join(["...", *names[-3:]] if len(names) > 4 else names)


class _Walk:
    """A walk through what functions capture: closures, defaults, constants, and the globals of the user's code."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.code = 0
        self._seen: dict[int, Any] = {}  # holds the objects, so that no number is used twice

    def visit(self, path: str, value: Any) -> None:
        """Adds a value and all that it is made of."""
        if len(self.values) >= _MOST:
            return
        if value is None or isinstance(value, bool | int | float | complex | str | np.generic | np.dtype):
            self.values[path] = repr(value.item() if isinstance(value, np.generic) else value)
        elif isinstance(value, jax.Array | np.ndarray):
            self.values[path] = _array(value)
        elif isinstance(value, type | types.ModuleType):
            self.values[path] = f"<{value.__name__}>"
        elif id(value) not in self._seen:
            self._seen[id(value)] = value
            for name, part in self._parts(path, value):
                if name.rpartition(".")[2] not in _FREE:
                    self.visit(f"{path}.{name}" if path else name, part)

    def _parts(self, path: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, types.FunctionType):
            yield from self._of_function(path, value)
        elif isinstance(value, types.MethodType):
            yield from (("self", value.__self__), ("method", value.__func__))
        elif isinstance(value, functools.partial):
            yield from (("func", value.func), *_items(value.args), *value.keywords.items())
        elif isinstance(value, Mapping):
            yield from ((str(name), part) for name, part in value.items())
        elif isinstance(value, tuple | list):
            names = getattr(value, "_fields", None)
            yield from zip(names, value, strict=True) if names else _items(value)
        elif callable(getattr(value, "__wrapped__", None)):
            yield "wrapped", value.__wrapped__
        elif dataclasses.is_dataclass(value):
            self.values[path] = f"<{type(value).__qualname__}>"
            yield from ((field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value))
        else:
            self.values[path] = f"<{getattr(value, '__qualname__', type(value).__qualname__)}>"
            if not _is_from(type(value).__module__, _OPAQUE):
                yield from ((k, v) for k, v in getattr(value, "__dict__", {}).items() if not k.startswith("_"))

    def _of_function(self, path: str, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
        self.values[path] = f"<{function.__qualname__.replace('<locals>.', '')}>"
        if _is_from(function.__module__, _OPAQUE):
            return
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                yield name, cell.cell_contents
            except ValueError:  # a name that is not bound yet
                continue
        yield from _items(function.__defaults__ or ())
        yield from (function.__kwdefaults__ or {}).items()
        if _is_from(function.__module__, _LIBRARIES):
            return
        for code in _codes(function.__code__):
            self.code = zlib.crc32(code.co_code + repr((code.co_names, _constants(code))).encode(), self.code)
            for name in filter(function.__globals__.__contains__, code.co_names):
                known = function.__globals__[name]
                named = isinstance(known, types.ModuleType | type | types.BuiltinFunctionType)
                if not named and not _is_from(getattr(known, "__module__", None), _LIBRARIES):
                    yield name, known


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yields a function's code and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _constants(code: types.CodeType) -> list[Any]:
    """Returns the constants of a function's code, without its docstring, and in an order that never changes."""
    constants = enumerate(code.co_consts)
    found = [c for i, c in constants if not isinstance(c, types.CodeType) and not (i == 0 and isinstance(c, str))]
    return [sorted(map(repr, c)) if isinstance(c, frozenset) else c for c in found]


def _items(values: Any) -> Iterator[tuple[str, Any]]:
    return ((str(i), value) for i, value in enumerate(values))


def _is_from(module: str | None, packages: tuple[str, ...]) -> bool:
    return (module or "").partition(".")[0] in packages


def _array(value: Any) -> str:
    """Describes an array by its type, its shape, and its numbers, unless they are many or elsewhere."""
    text = f"{value.dtype}{list(value.shape)}"
    if isinstance(value, Tracer) or value.size > _LARGEST or not getattr(value, "is_fully_addressable", True):
        return text
    if is_key(value):
        value = jax.random.key_data(value)
    numbers = np.asarray(value)
    return f"{numbers.item()} ({text})" if numbers.ndim == 0 else f"{text} {zlib.crc32(numbers.tobytes()):08x}"
