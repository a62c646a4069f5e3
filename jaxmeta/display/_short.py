"""Texts of values that are short, whatever the value holds."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn
from flax import nnx
from jax.core import Tracer

_ENTRIES = 6  # of a container that is shown in full
_LENGTH = 120  # characters of one value
_LETTERS = {"bfloat": "bf", "float": "f", "uint": "u", "int": "i", "complex": "c", "key": "key"}


def short_repr(self: Any) -> str:
    """Returns the text of a named tuple or a dataclass, with its arrays as types and shapes, for its `__repr__`.

    Fields whose default is none, false or empty are left out where they have it.

    Example:
        >>> from jaxmeta import Batch
        >>> short_repr(Batch(np.zeros((20, 28, 28, 1), np.float32), np.arange(20)))
        'Batch(x=f32[20,28,28,1], y=i64[20])'
    """
    if dataclasses.is_dataclass(self):
        defaults = {field.name: field.default for field in dataclasses.fields(self) if field.repr}
    else:
        defaults = {name: self._field_defaults.get(name, dataclasses.MISSING) for name in self._fields}
    found = [(name, getattr(self, name), default) for name, default in defaults.items()]
    shown = [f"{name}={brief(entry)}" for name, entry, default in found if not _is_empty_default(entry, default)]
    return f"{type(self).__name__}({', '.join(shown)})"


def brief(value: Any) -> str:
    """Returns a short text of any value, such as `f32[20,28,28,1]` for an array.

    Example:
        >>> brief({"w": np.zeros((3, 4)), "b": np.zeros(4)}), brief(np.float32(0.5)), brief(len)
        ("{'w': f64[3,4], 'b': f64[4]}", '0.5', 'len')
    """
    if type(value).__repr__ is short_repr or hasattr(type(value), "described_kind"):
        return _cut(repr(value))
    if isinstance(value, bool | int | np.bool_ | np.integer) or value is None:
        return str(value)
    if isinstance(value, float | np.floating):
        return str(float(f"{value:.6g}"))
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _array(value)
    if isinstance(value, nn.Module | nnx.Module | optax.GradientTransformation):
        return type(value).__name__
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _container(value)
    if isinstance(value, functools.partial):
        return f"partial({brief(value.func)}, ...)"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__.replace("<lambda>", "a lambda")
    return _cut(" ".join(repr(value).split()))


def one_line(text: str) -> str:
    """Returns a text with line breaks and other characters that are not printed as Python writes them."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _array(value: Any) -> str:
    """Returns type and shape of an array, and the value of a single number that is known."""
    if value.shape == () and getattr(value.dtype, "kind", "") in ("b", "i", "u", "f") and _is_known(value):
        return brief(np.asarray(value).item())
    name = str(getattr(value.dtype, "name", value.dtype))
    kind, bits = re.fullmatch(r"(\D*)(.*)", name, re.DOTALL).groups()  # pyright: ignore[reportOptionalMemberAccess]
    short = "str" if kind == "str" else f"{_LETTERS.get(kind, kind)}{bits}"
    return f"{short}[{','.join(map(str, value.shape))}]"


def _is_known(value: Any) -> bool:
    if isinstance(value, Tracer) or not isinstance(value, np.ndarray | np.generic | jax.Array):
        return False
    return not (isinstance(value, jax.Array) and value.is_deleted())


def _container(value: Any) -> str:
    """Returns the entries of a small container, and the size of a large one."""
    leaves = [leaf for leaf in jax.tree.leaves(value) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")]
    if len(leaves) > _ENTRIES:
        numbers = sum(int(np.prod(leaf.shape)) for leaf in leaves)
        return f"{type(value).__name__} of {len(leaves)} arrays with {numbers:,} numbers"
    if hasattr(value, "_fields"):
        return short_repr(value)
    pairs = isinstance(value, Mapping)
    entries = list(value.items()) if pairs else list(value)
    if len(entries) > _ENTRIES and any(isinstance(entry, Mapping | list | tuple) for entry in entries):
        return f"{type(value).__name__} of {len(entries)}"
    shown = [f"{entry[0]!r}: {brief(entry[1])}" if pairs else brief(entry) for entry in entries[:_ENTRIES]]
    if len(entries) > _ENTRIES:
        shown.append(f"... {len(entries) - _ENTRIES} more")
    text = ", ".join(shown)
    if isinstance(value, list):
        return f"[{text}]"
    if isinstance(value, tuple):
        return f"({text},)" if len(entries) == 1 else f"({text})"
    return f"{{{text}}}"


def _is_empty_default(value: Any, default: Any) -> bool:
    """Returns whether a field has a default that says nothing."""
    return any(value is empty and default is empty for empty in (None, False, ()))


def _cut(text: str) -> str:
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 4]} ..."
