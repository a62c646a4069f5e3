"""Labeled examples with the names of their classes."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxmeta._files import SEAL_BYTES, check_seal, replacing, seal
from jaxmeta.bounded import load_npz
from jaxmeta.data.containers._columns import as_array
from jaxmeta.data.containers._labels import as_labels
from jaxmeta.display import short_repr

PARTS = ("train", "validation", "test")
_VERSION = 1  # of the files, to be increased when their form changes


@dataclass(frozen=True, eq=False)
class Examples:
    """Labeled examples with the names of their classes.

    Example:
        >>> import numpy as np
        >>> examples = Examples.of(np.zeros((6, 8, 8, 3), np.uint8), ["cat", "dog", "cat", "cow", "dog", "cow"])
        >>> examples.names, examples.labels.tolist()
        (('cat', 'cow', 'dog'), [0, 2, 0, 1, 2, 1])
        >>> examples.select(["dog", "cow"]).names
        ('cow', 'dog')
    """

    inputs: np.ndarray
    """Images `[M, H, W, C]` (uint8), sentences `[M]` (str) or features `[M, d]` (float32)."""
    labels: np.ndarray
    """Class of each example, an index into `names`: `[M]`, int."""
    names: tuple[str, ...]
    """Sorted names of the classes."""
    parts: tuple[str, ...] | None = None
    """Part of each class, `"train"`, `"validation"` or `"test"`, if the files divide the classes."""

    __repr__ = short_repr

    @classmethod
    def of(cls, inputs: Any, names: Any, parts: Mapping[str, str] | None = None) -> "Examples":
        """Builds examples from arrays.

        Args:
            inputs: examples: `[M, ...]`, or any other container of examples that have one shape.
            names: class name of each example, strings or integers, in any container: `[M]`.
            parts: part of each class, if the classes are divided.

        Returns:
            The examples.

        Raises:
            TypeError: if one of them is no container, or the names are neither strings nor integers.
            ValueError: if there are no examples, they differ in shape, the numbers of inputs and names differ, or a
                name has more than 1,000 characters.
        """
        inputs = np.asarray(as_array(inputs, "inputs"))
        found, labels = np.unique(as_labels(names, "names").astype(str), return_inverse=True)
        if inputs.ndim < 1 or len(inputs) == 0 or len(inputs) != len(labels):
            raise ValueError(f"names must match inputs: got {len(labels)} names for inputs of shape {inputs.shape}")
        order = tuple(found.tolist())
        return cls(inputs, labels, order, None if parts is None else tuple(parts[name] for name in order))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Examples":
        """Loads examples from a file `.npz` of arrays.

        Args:
            path: file with the arrays `x`, the inputs `[M, ...]`, and `y`, the name of the class of each, strings or
                integers `[M]`. It may also hold `part`, the part of the class of each: `"train"`, `"validation"` or
                `"test"`. `save` writes such a file, with a checksum, and so does `numpy.savez(path, x=x, y=y)`.

        Returns:
            The examples.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is damaged, lacks an array, or the arrays do not fit together.
        """
        path = Path(path)
        found = read_arrays(path, "x", "y", optional=("part",))
        try:
            parts = found.get("part")
            if parts is not None and parts.shape != found["y"].shape:
                raise ValueError(f"part must be [n] like y, got shape {parts.shape} for {found['y'].shape}")
            of = None if parts is None else part_of_class(found["y"].astype(str).tolist(), parts.astype(str).tolist())
            return cls.of(found["x"], found["y"], of)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves the examples as a file `.npz` for `load`, and for `jaxmeta train --features` if they are vectors.

        Args:
            path: path of the file, which ends with `.npz`. Its folder must exist.

        Raises:
            ValueError: if the path has another ending.
        """
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"path must end with .npz, got {path}")
        arrays = {"x": np.asarray(self.inputs), "y": np.array(self.names)[self.labels]}
        if self.parts is not None:
            arrays["part"] = np.array(self.parts)[self.labels]
        write_arrays(path, arrays, "examples")

    def select(self, names: Sequence[str]) -> "Examples":
        """Returns the examples of some of the classes.

        Args:
            names: names of the classes.

        Returns:
            The examples in their order, with new labels.

        Raises:
            ValueError: if there is no such class.
        """
        missing = sorted(set(names) - set(self.names))
        if missing:
            raise ValueError(f"names must be among the {len(self.names)} classes, got {missing[:5]!r}")
        place = np.full(len(self.names), -1)
        kept = np.flatnonzero(np.isin(self.names, list(names)))
        place[kept] = np.arange(len(kept))
        labels = place[self.labels]
        rows = labels >= 0
        parts = None if self.parts is None else tuple(self.parts[i] for i in kept)
        return Examples(self.inputs[rows], labels[rows], tuple(self.names[i] for i in kept), parts)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], kind: str) -> None:
    """Writes arrays as a file `.npz` of some kind, with a checksum, which is the comment of the archive."""
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.seek(-2, os.SEEK_END)
        file.write(SEAL_BYTES.to_bytes(2, "little"))  # the length of the comment
        seal(file, kind, _VERSION)


def read_arrays(
    path: Path, *names: str, optional: Sequence[str] = (), kind: str = "examples", others: bool = True
) -> dict[str, np.ndarray]:
    """Returns some arrays of a file `.npz`.

    Args:
        path: path of the file.
        names: names of the arrays.
        optional: names of arrays that may be missing.
        kind: kind of the file, if `write_arrays` wrote it.
        others: whether to read files without a checksum, as NumPy writes them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or does not hold the arrays.
    """
    with open(path, "rb") as file:
        if not (others and _has_no_comment(file)):
            check_seal(file, kind, _VERSION, "Examples.save")
    found, there = load_npz(path, (*names, *optional))
    missing = [name for name in names if name not in found]
    if missing:
        told = f"{path} must hold the arrays {' and '.join(names)}, but {missing[0]} is missing"
        raise ValueError(f"{told}, got {', '.join(there) or 'none'}")
    return found


def _has_no_comment(file: BinaryIO) -> bool:
    """Tells a file that is no archive, or an archive without a comment."""
    if file.read(2) != b"PK":
        return True
    file.seek(max(-22, -file.seek(0, os.SEEK_END)), os.SEEK_END)
    end = file.read()
    return end[:4] == b"PK\5\6" and end[-2:] == b"\0\0"


def part_of_class(names: Iterable[str], parts: Iterable[str]) -> dict[str, str]:
    """Returns the part of each class, from the class and the part of each example.

    Raises:
        ValueError: if there is no such part, or a class is in two.
    """
    found: dict[str, str] = {}
    for name, part in zip(names, parts, strict=True):
        if part not in PARTS:
            raise ValueError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
        if found.setdefault(name, part) != part:
            raise ValueError(f"class {name!r} is in {found[name]} and in {part}, but the parts must share no class")
    return found
