"""Tables of a user as numbers: rows with NaN where a value is missing, and the number of the class of each."""

from typing import Any

import numpy as np

from jaxmeta.display import brief


def table_values(X: Any) -> np.ndarray:
    """Returns rows as float64 `[n, d]`, NaN where a value is missing.

    Args:
        X: an array, a frame, or a list of lists.

    Raises:
        TypeError: if a value is no number.
        ValueError: if it has another shape, or a value is infinite.
    """
    if hasattr(X, "toarray"):
        raise TypeError("X must be dense: this is a sparse matrix, pass its toarray()")
    names = [str(name) for name in X.columns] if hasattr(X, "columns") else None
    try:
        values = np.asarray(X.to_numpy() if names is not None else X)
    except ValueError as error:
        raise ValueError(f"X must have rows of the same length, got {brief(X)}") from error
    if values.ndim != 2 or values.shape[1] == 0:
        hint = ": a single row is X[None]" if values.ndim == 1 else ""
        raise ValueError(f"X must have shape [rows, columns], got {values.shape}{hint}")
    if values.dtype.kind == "O":
        values = np.array([[_number(value, j, names) for j, value in enumerate(row)] for row in values], np.float64)
        values = values.reshape(-1, len(names) if names is not None else np.shape(X)[1])
    if values.dtype.kind not in "biuf":
        raise TypeError(f"X must be numbers, got {values.dtype}: give each category a number, and a date its parts")
    values = values.astype(np.float64)
    if np.isinf(values).any():
        i, j = np.argwhere(np.isinf(values))[0]
        raise ValueError(f"X must be finite, or NaN where a value is missing, got {values[i, j]} in {_told(j, names)}")
    return values


def class_numbers(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes, sorted, and the number of the class of each row.

    Raises:
        TypeError: if there are numbers and strings.
        ValueError: if a class is missing, or `y` has another shape.
    """
    found = np.asarray(y.to_numpy() if hasattr(y, "to_numpy") else y)
    if isinstance(y, list | tuple) and len({isinstance(label, str) for label in y}) > 1:
        found = np.array(y, object)
    if found.ndim != 1:
        raise ValueError(f"y must have shape [rows], got {found.shape}")
    missing = [i for i, label in enumerate(found.tolist()) if label is None or label != label or str(label) == "<NA>"]
    if missing:
        raise ValueError(f"y must have a class for each row, got {found[missing[0]]} in row {missing[0]}")
    if found.dtype.kind == "O" and len({isinstance(label, str) for label in found}) > 1:
        raise TypeError(f"y must be all numbers or all strings, got both: {brief(found[:5].tolist())}")
    return np.unique(found, return_inverse=True)


def _number(value: Any, column: int, names: list[str] | None) -> float:
    """Returns a value of a column of objects as a number.

    Raises:
        TypeError: if it is none.
    """
    if value is None or str(value) in ("<NA>", "NaT"):
        return np.nan
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return float(value)
    raise TypeError(f"X must be numbers, got {value!r} in {_told(column, names)}: give each category a number")


def _told(column: int, names: list[str] | None) -> str:
    """Returns a column in words."""
    return f"column {column}" if names is None else f"column {names[column]!r}"
