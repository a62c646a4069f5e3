"""Division of labeled examples into parts that share no class."""

import hashlib
import warnings
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from jaxmeta._checks import check_optional_integer
from jaxmeta.data.containers import PARTS, Examples
from jaxmeta.display import short_repr

Lists = Mapping[str, Sequence[str]]


class RecordedLists(dict[str, Sequence[str]]):
    """Class names of each part of a run that has begun, so that classes in none of them are warned of."""


class Division(NamedTuple):
    """Examples in three parts that share no class."""

    train: Examples
    """Examples for meta-training."""
    validation: Examples
    """Examples for choosing meta-parameters and hyper-parameters. It has no classes if there are too few for it."""
    test: Examples
    """Examples for the reported numbers."""

    __repr__ = short_repr


def divide(examples: Examples, lists: Lists, *, others: str = "refused") -> Division:
    """Divides examples by lists of class names.

    Args:
        examples: the examples.
        lists: class names of each of `PARTS`.
        others: `"refused"` if every class must be in a list, `"left out"`, or `"reported"` if it is warned of.

    Returns:
        The three parts.

    Raises:
        ValueError: if a class has no examples, or is in none of the lists and may not be left out.
    """
    wanted = [name for part in PARTS for name in lists[part]]
    missing, more = sorted(set(wanted) - set(examples.names)), sorted(set(examples.names) - set(wanted))
    if missing:
        told = f"the data is not complete: {len(missing)} of {len(wanted)} classes are missing, {few(missing)}"
        raise ValueError(told + (f", and classes of no part are there: {few(more)}" if more else ""))
    if more and others == "refused":
        raise ValueError(f"the split has no such classes: {few(more)}. It has {len(wanted)} other classes")
    if more and others == "reported":
        told = f"{few(more)} are new in the data and in no part of the run, so they are left out"
        warnings.warn(told, stacklevel=2)
    return Division(*(examples.select(lists[part]) for part in PARTS))


def check_seed(split: Any, seed: int | None) -> None:
    """Raises ValueError if a seed is given and is no number, or the split is not random."""
    check_optional_integer(seed=seed, least=0)
    if seed is not None and split != "random":
        raise ValueError(f"seed applies to split='random' only, got seed={seed!r} with split={split!r}")


def check_lists(lists: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns the class names of each part that a user gave.

    Raises:
        ValueError: if there is no such part, or two parts share a class.
    """
    unknown = sorted(set(lists) - set(PARTS))
    if unknown or not lists:
        raise ValueError(f"split must have the classes of train, validation and test, got parts {list(lists)}")
    found = {part: [str(name) for name in lists.get(part, ())] for part in PARTS}
    names = [name for part in PARTS for name in found[part]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"split must name each class once, but {few(twice)} occur twice")
    return found


def lists_of_parts(examples: Examples) -> dict[str, list[str]]:
    """Returns the class names of each part in the division of the files."""
    parts = examples.parts or ()
    return {part: [name for name, of in zip(examples.names, parts, strict=True) if of == part] for part in PARTS}


def random_lists(
    names: Sequence[str], shares: tuple[int, int, int], seed: int, ways: int = 1, test_ways: int = 1
) -> dict[str, list[str]]:
    """Divides class names at random, each by itself, so that another class moves none.

    A class has a position between 0 and 1, which is a hash of the seed and of its name. The training classes are those
    below the share of the training part, and so on, so that the shares hold approximately. Where a part would have
    fewer classes than its tasks, the border moves, and the nearest classes of the part beside it come to it. Where
    there are too few classes for three parts, there is no validation part.

    Args:
        names: the class names.
        shares: proportions of the three parts.
        seed: seed of the hash.
        ways: the least number of training classes.
        test_ways: the least number of validation and of test classes.

    Returns:
        The class names of each part.

    Raises:
        ValueError: if there are fewer than `ways + test_ways` classes.
    """
    if len(names) < ways + test_ways:
        raise ValueError(
            f"a random split needs {ways} training classes and {test_ways} others for test tasks, got {len(names)}: "
            f"{few(names)}. Take fewer ways (ways, test_ways; in a run --train-ways, --ways), get more classes, or "
            "test on classes of another data set: split='all' has all classes in every part"
        )
    place = {name: _place(name, seed) for name in names}
    order = sorted(names, key=lambda name: (place[name], name))
    least = test_ways if len(names) >= ways + 2 * test_ways else 0
    borders = [shares[0] / sum(shares), (shares[0] + shares[1]) / sum(shares)]
    first, second = (bisect_left([place[name] for name in order], border) for border in borders)
    second = min(second, len(order) - test_ways)
    first = min(first, second - least) if least else second
    first = max(first, ways)
    second = max(second, first + least)
    return dict(zip(PARTS, (sorted(order[:first]), sorted(order[first:second]), sorted(order[second:])), strict=True))


def large_enough(examples: Examples, least: int) -> Examples:
    """Returns the examples of the classes that have at least `least` of them.

    Raises:
        ValueError: if no class has as many.
    """
    counts = np.bincount(examples.labels, minlength=len(examples.names))
    kept = [name for name, count in zip(examples.names, counts.tolist(), strict=True) if count >= least]
    if not kept:
        raise ValueError(f"min_per_class={least}, but the largest class has {counts.max()} examples")
    return examples if len(kept) == len(examples.names) else examples.select(kept)


def first_examples(examples: Examples, per_class: int | None) -> Examples:
    """Returns the first `per_class` examples of each class, `None` for all."""
    rows = first_rows(examples.labels.tolist(), per_class)
    return replace(examples, inputs=examples.inputs[rows], labels=examples.labels[rows])


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


def few(names: Sequence[str]) -> str:
    """Returns the first names as text."""
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def _place(name: str, seed: int) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big") / 2**48
