"""Labels as an array of integers or of strings."""

from typing import Any

import numpy as np

from jaxmeta.data.containers._columns import as_column
from jaxmeta.display import brief

_LONGEST = 1000  # characters


def as_labels(values: Any, name: str = "labels") -> np.ndarray:
    """Converts labels to an array of integers or of strings.

    Args:
        values: container of integers or strings, see `as_column`: `[M]`. Entries may be arrays or tensors of one
            element.
        name: name of the argument in error messages.

    Returns:
        Labels: `[M]`.

    Raises:
        TypeError: if a label is neither an integer nor a string, or there are both.
        ValueError: if the labels do not have shape `[M]`, or one is longer than 1000 characters.
    """
    listed = values if isinstance(values, list | tuple) else ()
    longest = max((len(value) for value in listed if isinstance(value, str)), default=0)
    if longest > _LONGEST:  # an array gives each label the room of the longest
        raise ValueError(f"{name} must have up to {_LONGEST} characters, got one of {longest}")
    column = as_column(values, name)
    if isinstance(column, list):
        entries = [scalar_label(value, i, name) for i, value in enumerate(column)]
        if len({isinstance(value, str) for value in entries}) == 2:
            raise TypeError(f"{name} must be all integers or all strings, got both")
        return np.array(entries) if entries else np.zeros(0, int)
    labels = np.asarray(column)
    if labels.ndim != 1:
        raise ValueError(f"{name} must be of shape [M], got {labels.shape}")
    if labels.size and labels.dtype.kind not in "iuU":
        for i, value in enumerate(values if isinstance(values, list) else ()):
            scalar_label(value, i, name)
        entry = labels[~np.isfinite(labels)][:1] if labels.dtype.kind == "f" else labels[:0]
        entry = entry if entry.size else labels[:1]
        raise TypeError(f"{name} must be integers or strings, got {labels.dtype}, such as {entry[0]}")
    return labels


def scalar_label(value: Any, index: int, name: str = "labels") -> int | str:
    """Returns one label as an integer or a string.

    Raises:
        TypeError: if it is something else.
    """
    if hasattr(value, "item") and getattr(value, "size", None) != 0:
        try:
            value = value.item()
        except (ValueError, RuntimeError, TypeError) as error:
            raise TypeError(f"label {index} must be one integer or string, got shape {value.shape}") from error
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{name} must be integers or strings, got {brief(value)} for example {index}")
    return value
