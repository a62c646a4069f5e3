"""Task transforms that turn all examples of a data set into one task, with the names of learn2learn."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmeta._checks import check_integer, check_optional_integer
from jaxmeta.data.samplers import Groups, TaskSizes, check_enough, distinct, draw, group
from jaxmeta.data.tasks._description import TaskDescription, TaskTransform
from jaxmeta.data.tasks._meta_dataset import check_labels


def group_examples(description: TaskDescription) -> Groups:
    """Groups the examples of a description by class, with their labels as names."""
    if len(description.example) == 0:
        raise ValueError("a transform left no examples")
    groups = group(description.classes())
    return groups._replace(names=description.label[groups.rows[groups.starts]])


@dataclasses.dataclass(frozen=True)
class FusedNWaysKShots(TaskTransform):
    """Draws classes and examples of each: `FilterLabels`, `NWays` and `KShots` in one.

    The task is the one that `FewShot` draws from the same key.
    """

    n: int | None = 2
    """Number of classes in a task, or `None` for all."""
    k: int = 1
    """Number of examples of each class, or of support examples if there are queries."""
    queries: int | None = None
    """Number of query examples of each class, or `None` for a task without queries."""
    replacement: bool = False
    """True if an example may be drawn twice. A query example may then be a support example too."""
    filter_labels: Sequence[Any] | None = None
    """Labels of the classes to draw from, or `None` for all."""

    def __post_init__(self) -> None:
        check_integer(k=self.k)
        check_optional_integer(n=self.n, queries=self.queries)

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Draws the examples of a task."""
        if self.filter_labels is not None:
            description = FilterLabels(self.filter_labels)(description)
        groups = group_examples(description)
        self.check(groups)
        words = description.words(self.shape(groups))
        return self.draw(description, groups, description.key[None], words[None])[0]

    def shape(self, groups: Groups) -> tuple[int, int]:
        """Returns the shape of the random words that a task needs."""
        return self.n or len(groups.counts), 1 + self.k + (self.queries or 0)

    def check(self, groups: Groups) -> None:
        """Raises ValueError if there are too few classes or examples."""
        per_class, name = ((self.k,), "k") if self.queries is None else ((self.k, self.queries), "k + queries")
        sizes = TaskSizes(self.shape(groups)[0], per_class, self.replacement, name)
        check_enough(sizes, groups.counts, groups.names)

    def draw(
        self, description: TaskDescription, groups: Groups, keys: np.ndarray, words: np.ndarray
    ) -> list[TaskDescription]:
        """Draws many tasks from one description.

        Args:
            description: examples to draw from.
            groups: classes of the examples.
            keys: words of the key of each task: `[tasks, 2]`.
            words: random words for each task: `[tasks, *shape]`.

        Returns:
            The descriptions of the tasks.
        """
        rows = draw(words, groups.rows, groups.starts, groups.counts, replacement=self.replacement).rows
        ways, size = rows.shape[1:]
        rows = rows.reshape(len(keys), ways * size)
        example, label, turns = description.example[rows], description.label[rows], description.turns[rows]
        way = np.repeat(np.arange(ways), size)
        query = None if self.queries is None else np.tile(np.arange(size) >= self.k, ways)
        drawn = description._replace(way=way, query=query, step=description.step + 1)
        return [
            drawn._replace(example=example[i], label=label[i], turns=turns[i], key=key) for i, key in enumerate(keys)
        ]


@dataclasses.dataclass(frozen=True)
class NWays(TaskTransform):
    """Keeps the examples of `n` classes, drawn at random."""

    n: int = 2
    """Number of classes in a task."""

    def __post_init__(self) -> None:
        check_integer(n=self.n)

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Draws the classes."""
        groups = group_examples(description)
        check_enough(TaskSizes(self.n, (1,)), groups.counts, groups.names)
        chosen = distinct(description.words((self.n,)), len(groups.counts))
        way = np.full(len(groups.counts), -1)
        way[chosen] = np.arange(self.n)
        way = way[np.unique(description.classes(), return_inverse=True)[1]]
        return description._replace(way=way).take(way >= 0)


@dataclasses.dataclass(frozen=True)
class KShots(TaskTransform):
    """Keeps `k` examples of each class, drawn at random, and with `queries` as many other ones for the query set."""

    k: int = 1
    """Number of examples of each class, or of support examples if there are queries."""
    queries: int | None = None
    """Number of query examples of each class, or `None` for a task without queries."""
    replacement: bool = False
    """True if an example may be drawn twice. A query example may then be a support example too."""

    def __post_init__(self) -> None:
        check_integer(k=self.k)
        check_optional_integer(queries=self.queries)

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Draws the examples."""
        return FusedNWaysKShots(None, self.k, self.queries, self.replacement)(description)


@dataclasses.dataclass(frozen=True)
class FilterLabels(TaskTransform):
    """Keeps the examples of the given classes."""

    labels: Sequence[Any]
    """Labels in the data set of the classes to keep."""

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Selects the examples."""
        wanted = check_labels(self.labels, np.unique(description.label).tolist())
        return description.take(np.isin(description.label, wanted))


@dataclasses.dataclass(frozen=True)
class RemapLabels(TaskTransform):
    """Gives the classes of a task the labels `0, 1, ...`, one for each class."""

    shuffle: bool = True
    """True for labels in the random order of the draw, false for the order of rotations and then of old labels."""

    def __post_init__(self) -> None:
        if not isinstance(self.shuffle, bool):
            raise TypeError(f"shuffle must be True or False, got {self.shuffle!r}")

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Changes the labels."""
        way = description.way if self.shuffle else None
        names, label = np.unique(description.classes() if way is None else way, return_inverse=True)
        if self.shuffle and way is None:
            label = distinct(description.words((len(names),)), len(names))[label].astype(int)
        return description._replace(label=label)


@dataclasses.dataclass(frozen=True)
class ConsecutiveLabels(TaskTransform):
    """Sorts the examples of a task by their present label."""

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Sorts the examples. Those of one label keep their order."""
        return description.take(np.argsort(description.label, kind="stable"))


@dataclasses.dataclass(frozen=True)
class RandomClassRotation(TaskTransform):
    """Makes each class, rotated by each of the angles, a class of its own.

    All examples of a class in a task are then rotated alike, and a class may be drawn twice with two angles. The
    transform must come before `NWays` and `KShots`, which draw among the rotated classes. The examples are rotated
    after every `Map` and before every `Augment`.

    References:
        Santoro et al., Meta-Learning with Memory-Augmented Neural Networks, 2016,
        https://proceedings.mlr.press/v48/santoro16.html
    """

    degrees: Sequence[int] = (0, 90, 180, 270)
    """Angles in degrees, counterclockwise, which are multiples of 90."""
    axes: tuple[int, int] = (0, 1)
    """Axes of height and width of an example, (1, 2) if channels come first."""

    def __post_init__(self) -> None:
        if not isinstance(self.degrees, Sequence) or not self.degrees or any(d % 90 for d in self.degrees):
            raise ValueError(f"degrees must be multiples of 90, got {self.degrees!r}")
        if len({d % 360 for d in self.degrees}) < len(self.degrees):
            raise ValueError(f"degrees must be different angles, got {self.degrees!r}")

    @property
    def turns(self) -> tuple[int, ...]:
        """Sorted angles as numbers of quarter turns."""
        return tuple(sorted(d // 90 % 4 for d in self.degrees))

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Adds the rotated classes."""
        if description.way is not None:
            raise ValueError("RandomClassRotation must come before NWays and KShots, which draw rotated classes")
        if description.turns.any():
            raise ValueError("RandomClassRotation must occur only once in the list")
        n = len(description.example)
        turns = np.repeat(self.turns, n)
        return description.take(np.tile(np.arange(n), len(self.turns)))._replace(turns=turns, axes=self.axes)
