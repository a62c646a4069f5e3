"""Containers of examples or labels, read by position.

A series or a frame of pandas is indexed by labels of its own, which after sorting, shuffling or filtering are not
positions. So no container is indexed before it has become an array or a list here.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxmeta.data.containers._arrays import stack, to_array

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm")


def as_column(values: Any, name: str) -> np.ndarray | jax.Array | list[Any]:
    """Returns the entries of a container in their order.

    Args:
        values: an array, a tensor, a series, a frame, a column of a data set, a list or another sequence.
        name: name of the argument in error messages.

    Returns:
        An array `[M, ...]`, or a list if the entries are other objects than numbers and strings.

    Raises:
        TypeError: if it is something else: a dict, a string, a sparse matrix, or without a length.
    """
    if isinstance(values, jax.Array):
        return values
    if hasattr(values, "toarray") and hasattr(values, "nnz"):
        raise TypeError(f"{name} must be dense: this is a sparse matrix, pass its toarray()")
    if isinstance(values, Mapping | set | str | bytes) or not hasattr(values, "__len__"):
        raise TypeError(f"{name} must be an array, a list or a column, got {type(values).__name__}{_hint(values)}")
    if hasattr(values, "detach"):
        return to_array(values)
    if hasattr(values, "to_numpy"):  # pandas, polars, pyarrow
        return _without_objects(np.asarray(values.to_numpy()))
    if hasattr(values, "__array__") or isinstance(values, range):
        return _without_objects(np.asarray(values))
    return _of_list(list(values) if hasattr(values, "__iter__") else [values[i] for i in range(len(values))])


def as_array(values: Any, name: str) -> np.ndarray | jax.Array:
    """Returns the entries of a container as one array, see `as_column`.

    Args:
        values: the container. Its entries may be images, tensors or lists of numbers.
        name: name of the argument in error messages.

    Returns:
        An array `[M, ...]`.

    Raises:
        TypeError: if it is no container, its entries are dicts or tuples of several arrays, or are neither numbers nor
            strings.
        ValueError: if the entries differ in shape.
    """
    column = as_column(values, name)
    if not isinstance(column, list):
        if column.dtype.kind in "OMm":  # extended types of JAX have other kinds
            strange = np.argwhere([not isinstance(x, int | float | np.number) for x in column.reshape(-1).tolist()])
            entry = f", such as {column.reshape(-1)[strange[0, 0]]!r}" if strange.size else ""
            raise TypeError(f"{name} must be all numbers or all strings, got {column.dtype}{entry}")
        return column
    if not column:
        return np.zeros(0)
    if any(isinstance(entry, Mapping) or _has_parts(entry) for entry in column):
        raise TypeError(
            f"{name} must be one array for each example, got {type(column[0]).__name__} with several: join them to "
            "one array, for example as channels, or use a Taskset, whose examples may be dicts and tuples"
        )
    strange = next((i for i, entry in enumerate(column) if entry is None or isinstance(entry, str)), None)
    if strange is not None:
        raise TypeError(f"{name} must be all numbers or all strings, got {column[strange]!r} for example {strange}")
    return stack(column)


def advice_on_text(texts: Any) -> str:
    """Returns how inputs that are strings become numbers: paths by reading them, sentences by hashes."""
    first = str(np.asarray(texts).reshape(-1)[0])
    if first.lower().endswith(_PICTURES):
        return f"{first!r} looks like a path: read the picture first, in a Taskset by Map(PIL.Image.open)"
    return (
        "hash_ngrams turns sentences into vectors, in a Taskset by Map(f), and so does "
        "get_tasksets('sentences', examples=...)"
    )


def is_column(value: Any) -> bool:
    """Returns whether a value is a container of the inputs or the labels, and no single example."""
    if isinstance(value, list) or any(hasattr(value, name) for name in ("shape", "iloc", "__array__")):
        return True
    if isinstance(value, str | bytes | tuple | Mapping | set):
        return False
    return all(hasattr(value, name) for name in ("__len__", "__getitem__", "__iter__"))


def rows_of(inputs: Any, size: int) -> Any:
    """Returns inputs in several columns as a list of rows, dicts or tuples, and others unchanged.

    Args:
        inputs: a dict or a tuple of columns, or one column.
        size: number of examples.

    Raises:
        ValueError: if a column has another length.
    """
    named = isinstance(inputs, Mapping)
    parts = inputs if named else dict(enumerate(inputs)) if isinstance(inputs, tuple) else {}
    if not parts or not all(map(is_column, parts.values())):
        return inputs
    counts = {name: len(column) for name, column in parts.items()}
    if set(counts.values()) != {size}:
        if size == 2 and not named:  # two pairs
            return inputs
        raise ValueError(f"labels must match the data: got {size} labels for inputs of {counts} examples")
    columns = [as_column(column, str(name)) for name, column in parts.items()]
    return [dict(zip(parts, row, strict=True)) if named else row for row in zip(*columns, strict=True)]


def is_table(value: Any) -> bool:
    """Returns whether a value is a frame or a dict: columns with names, which are not read by position."""
    return isinstance(value, Mapping) or (hasattr(value, "columns") and not hasattr(value, "column_names"))


def table_columns(table: Any, keys: tuple[Any, Any] | None) -> tuple[Any, Any]:
    """Returns the columns of the inputs and the labels of a table.

    Raises:
        ValueError: if the keys are missing or are not among its columns.
        TypeError: if it is a dict of data sets.
    """
    names = list(table if isinstance(table, Mapping) else table.columns)
    parts = [name for name in names if isinstance(table, Mapping) and hasattr(table[name], "column_names")]
    if parts:
        raise TypeError(f"dataset is a dict of data sets: pass one of them, such as dataset[{parts[0]!r}]")
    if keys is None:
        raise ValueError(f"dataset has columns: name those of the input and the label with keys=, among {names}")
    try:
        return table[keys[0]], table[keys[1]]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"keys={keys!r} are not among the columns {names}") from error


def _of_list(entries: list[Any]) -> np.ndarray | list[Any]:
    """Returns a list as an array if it is one of numbers or strings, or of lists of numbers."""
    if entries and all(isinstance(entry, str) for entry in entries):
        return np.array(entries, str)
    plain = int | float | complex | np.generic | list
    flags = {isinstance(entry, bool) for entry in entries}  # a mixture of flags and numbers stays visible
    if len(flags) == 1 and all(isinstance(entry, plain) for entry in entries):
        try:
            found = np.asarray(entries)
        except ValueError:  # of different lengths: they may be examples that a transform will bring into shape
            return entries
        return found if found.dtype.kind in "biufc" else entries
    return entries


def _without_objects(array: np.ndarray) -> np.ndarray | list[Any]:
    """Returns an array of objects as one of numbers or strings if it holds these, else as a list of its entries."""
    if array.dtype.kind == "T":  # strings of variable length
        return _of_list(array.tolist())
    if array.dtype != object or array.ndim == 0:
        return array
    if array.ndim == 1:
        return _of_list(array.tolist())
    found = np.array(array.tolist())
    return found if found.dtype.kind in "biufc" else array


def _has_parts(entry: Any) -> bool:
    return isinstance(entry, tuple) and any(np.ndim(part) > 0 for part in entry)


def _hint(values: Any) -> str:
    if isinstance(values, Mapping):
        return f": choose one of its entries {list(values)}"
    return ": make a list of it" if hasattr(values, "__iter__") and not isinstance(values, str | bytes) else ""
