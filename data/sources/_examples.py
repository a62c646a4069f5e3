"""Division of labeled examples into parts."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxmeta.data.containers import Examples

PARTS = ("train", "validation", "test")


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


def first_rows(names: Sequence[Any], per_class: int | None) -> list[int]:
    """Returns the rows of the first `per_class` examples of each class.

    Args:
        names: class of each example.
        per_class: number of examples of each class, `None` for all.

    Returns:
        The rows, in order.
    """
    seen: dict[Any, int] = {}
    rows = []
    for row, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if per_class is None or seen[name] <= per_class:
            rows.append(row)
    return rows


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
