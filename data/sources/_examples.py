"""Labeled examples of a benchmark with class names, and their division into parts."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

PARTS = ("train", "validation", "test")


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

    @classmethod
    def of(cls, inputs: Any, names: Sequence[str], parts: Mapping[str, str] | None = None) -> "Examples":
        """Builds examples from arrays.

        Args:
            inputs: examples: `[M, ...]`, or a list.
            names: class name of each example: `[M]`.
            parts: part of each class, if the classes are divided.

        Returns:
            The examples.

        Raises:
            ValueError: if there are no examples, or the numbers of inputs and names differ.
        """
        inputs = np.asarray(inputs)
        found, labels = np.unique(np.asarray(names, dtype=str), return_inverse=True)
        if inputs.ndim < 1 or len(inputs) == 0 or len(inputs) != len(labels):
            raise ValueError(f"names must match inputs: got {len(labels)} names for inputs of shape {inputs.shape}")
        order = tuple(found.tolist())
        return cls(inputs, labels, order, None if parts is None else tuple(parts[name] for name in order))

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


class Division(NamedTuple):
    """Examples in three parts that share no class."""

    train: Examples
    """Examples for meta-training."""
    validation: Examples
    """Examples for choosing meta-parameters and hyper-parameters."""
    test: Examples
    """Examples for the reported numbers."""


def divide(examples: Examples, lists: Mapping[str, Sequence[str]]) -> Division:
    """Divides examples by lists of class names.

    Args:
        examples: the examples.
        lists: class names of each of `PARTS`.

    Returns:
        The three parts.

    Raises:
        ValueError: if a class has no examples, or is in none of the lists.
    """
    wanted = [name for part in PARTS for name in lists[part]]
    missing, others = sorted(set(wanted) - set(examples.names)), sorted(set(examples.names) - set(wanted))
    if missing:
        raise ValueError(
            f"the data is not complete: {len(missing)} of {len(wanted)} classes are missing, {_few(missing)}"
        )
    if others:
        raise ValueError(f"the split has no such classes: {_few(others)}. It has {len(wanted)} other classes")
    return Division(*(examples.select(lists[part]) for part in PARTS))


def lists_of_parts(examples: Examples) -> dict[str, list[str]]:
    """Returns the class names of each part in the division of the files."""
    parts = examples.parts or ()
    return {part: [name for name, of in zip(examples.names, parts, strict=True) if of == part] for part in PARTS}


def random_lists(names: Sequence[str], sizes: tuple[int, int, int], seed: int) -> dict[str, list[str]]:
    """Divides class names at random in the proportions of `sizes`, with at least one class in each part.

    Raises:
        ValueError: if there are fewer than three classes.
    """
    if len(names) < 3:
        raise ValueError(f"a random split needs 3 classes or more, got {len(names)}: {', '.join(names)}")
    order = sorted(names)
    random.Random(seed).shuffle(order)
    test = max(1, round(len(order) * sizes[2] / sum(sizes)))
    validation = max(1, round(len(order) * sizes[1] / sum(sizes)))
    train = max(1, len(order) - validation - test)
    validation = len(order) - train - test
    return {
        "train": order[:train],
        "validation": order[train : train + validation],
        "test": order[train + validation :],
    }


def first_rows(names: Sequence[str], per_class: int | None) -> list[int]:
    """Returns the rows of the first `per_class` examples of each class.

    Args:
        names: class of each example.
        per_class: number of examples of each class, `None` for all.

    Returns:
        The rows, in order.
    """
    seen: dict[str, int] = {}
    rows = []
    for row, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if per_class is None or seen[name] <= per_class:
            rows.append(row)
    return rows


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
