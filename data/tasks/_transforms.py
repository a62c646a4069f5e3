"""Task transforms: what turns all examples of a data set into one task. The names are learn2learn's."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmeta.data.samplers import Request, check_enough, check_positive, distinct, draw, group
from jaxmeta.data.tasks._description import TaskDescription
from jaxmeta.data.tasks._meta_dataset import check_labels


class Groups(NamedTuple):
    """The examples of a description by class."""

    names: np.ndarray
    """What to call each class in a message: `[classes]`."""
    table: np.ndarray
    """Places of the examples of each class, padded: `[classes, largest count]`."""
    counts: np.ndarray
    """Number of examples of each class: `[classes]`."""

    @classmethod
    def of(cls, description: TaskDescription) -> "Groups":
        """Group the examples of a description."""
        if len(description.example) == 0:
            raise ValueError("a transform left no examples")
        _, table, counts = group(description.classes())
        return cls(description.label[table[:, 0]], table, counts.astype(np.int32))


@dataclasses.dataclass(frozen=True)
class FusedNWaysKShots:
    """Draws classes, and examples of each: `FilterLabels`, `NWays` and `KShots` in one.

    The task is the one that `FewShot` draws from the same key.
    """

    n: int | None = 2
    """Classes in a task; all if `None`."""
    k: int = 1
    """Examples of each class; support examples if there are queries."""
    queries: int | None = None
    """Query examples of each class, other ones; `None` for a task in one piece."""
    replacement: bool = False
    """Whether an example may come twice; then a query example may be a support example too."""
    filter_labels: Sequence[Any] | None = None
    """The classes to draw from; all if `None`."""

    def __post_init__(self) -> None:
        check_positive(**{k: v for k, v in (("n", self.n), ("k", self.k), ("queries", self.queries)) if v is not None})

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Draw the examples of a task."""
        if self.filter_labels is not None:
            description = FilterLabels(self.filter_labels)(description)
        groups = Groups.of(description)
        self.check(groups)
        words = description.words(self.shape(groups))
        return self.draw(description, groups, description.key[None], words[None])[0]

    def shape(self, groups: Groups) -> tuple[int, int]:
        """Return the shape of the random words that a task needs."""
        return self.n or len(groups.counts), 1 + self.k + (self.queries or 0)

    def check(self, groups: Groups) -> None:
        """Raise ValueError unless there are classes and examples enough."""
        sizes, name = ((self.k,), "k") if self.queries is None else ((self.k, self.queries), "k + queries")
        request = Request(self.shape(groups)[0], sizes, self.replacement, name)
        check_enough(request, groups.counts, groups.names)

    def draw(
        self, description: TaskDescription, groups: Groups, keys: np.ndarray, words: np.ndarray
    ) -> list[TaskDescription]:
        """Draw many tasks from one description.

        Args:
            description: The examples to draw from.
            groups: Its classes.
            keys: Words of the key of each task: `[tasks, 2]`.
            words: Random words for each task: `[tasks, *shape]`.

        Returns:
            The tasks.
        """
        places = draw(words, groups.table, groups.counts, replacement=self.replacement).rows
        ways, size = places.shape[1:]
        places = places.reshape(len(keys), ways * size)
        example, label, turns = description.example[places], description.label[places], description.turns[places]
        way = np.repeat(np.arange(ways), size)
        query = None if self.queries is None else np.tile(np.arange(size) >= self.k, ways)
        drawn = description._replace(way=way, query=query, step=description.step + 1)
        return [
            drawn._replace(example=example[i], label=label[i], turns=turns[i], key=key) for i, key in enumerate(keys)
        ]


@dataclasses.dataclass(frozen=True)
class NWays:
    """Keeps the examples of `n` classes, drawn at random."""

    n: int = 2
    """Classes in a task."""

    def __post_init__(self) -> None:
        check_positive(n=self.n)

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Draw the classes."""
        groups = Groups.of(description)
        check_enough(Request(self.n, (1,)), groups.counts, groups.names)
        chosen = distinct(description.words((self.n,)), len(groups.counts))
        way = np.full(len(groups.counts), -1)
        way[chosen] = np.arange(self.n)
        way = way[np.unique(description.classes(), return_inverse=True)[1]]
        return description._replace(way=way).take(way >= 0)


@dataclasses.dataclass(frozen=True)
class KShots:
    """Keeps `k` examples of each class, drawn at random; with `queries`, `k` for support and other ones for query."""

    k: int = 1
    """Examples of each class; support examples if there are queries."""
    queries: int | None = None
    """Query examples of each class, other ones; `None` for a task in one piece."""
    replacement: bool = False
    """Whether an example may come twice; then a query example may be a support example too."""

    def __post_init__(self) -> None:
        check_positive(k=self.k, **({} if self.queries is None else {"queries": self.queries}))

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Draw the examples."""
        return FusedNWaysKShots(None, self.k, self.queries, self.replacement)(description)


@dataclasses.dataclass(frozen=True)
class FilterLabels:
    """Keeps the examples of the given classes."""

    labels: Sequence[Any]
    """The classes to keep, by their labels in the data set."""

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Choose the examples."""
        wanted = check_labels(self.labels, np.unique(description.label).tolist())
        return description.take(np.isin(description.label, wanted))


@dataclasses.dataclass(frozen=True)
class RemapLabels:
    """Gives the classes of a task the labels 0, 1, ..."""

    shuffle: bool = True
    """In the random order in which the classes were drawn; if false, in the order of their labels, by turns first."""

    def __post_init__(self) -> None:
        if not isinstance(self.shuffle, bool):
            raise TypeError(f"shuffle must be True or False, got {self.shuffle!r}; transforms take no data set here")

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Change the labels."""
        way = description.way if self.shuffle else None
        names, label = np.unique(description.classes() if way is None else way, return_inverse=True)
        if self.shuffle and way is None:
            label = distinct(description.words((len(names),)), len(names))[label].astype(int)
        return description._replace(label=label)


@dataclasses.dataclass(frozen=True)
class ConsecutiveLabels:
    """Sorts the examples of a task by label, as it is at this place in the list."""

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Sort the examples; those of one label keep their order."""
        return description.take(np.argsort(description.label, kind="stable"))


@dataclasses.dataclass(frozen=True)
class RandomClassRotation:
    """Makes each class, turned by each of the angles, a class of its own.

    So all examples of a class in a task are turned alike, classes of a task differ in their turns, and a class may
    come twice, in two turns. It stands before `NWays` and `KShots`, as it is among those classes that they draw. The
    examples are turned after every `Map` and before every `Augment`.

    References:
        Santoro et al., Meta-Learning with Memory-Augmented Neural Networks, 2016,
        https://proceedings.mlr.press/v48/santoro16.html
    """

    degrees: Sequence[int] = (0, 90, 180, 270)
    """The angles, counterclockwise; multiples of 90."""
    axes: tuple[int, int] = (0, 1)
    """Height and width of an example; (1, 2) if channels come first."""

    def __post_init__(self) -> None:
        if not isinstance(self.degrees, Sequence) or not self.degrees or any(d % 90 for d in self.degrees):
            raise ValueError(f"degrees must be multiples of 90, got {self.degrees!r}")
        if len({d % 360 for d in self.degrees}) < len(self.degrees):
            raise ValueError(f"degrees must be different angles, got {self.degrees!r}")

    @property
    def turns(self) -> tuple[int, ...]:
        """The angles as quarter turns, sorted."""
        return tuple(sorted(d // 90 % 4 for d in self.degrees))

    def __call__(self, description: TaskDescription) -> TaskDescription:
        """Add the turned classes."""
        if description.way is not None:
            raise ValueError("RandomClassRotation must stand before NWays and KShots: turned classes are among theirs")
        if description.turns.any():
            raise ValueError("RandomClassRotation must stand only once in the list")
        n = len(description.example)
        turns = np.repeat(self.turns, n)
        return description.take(np.tile(np.arange(n), len(self.turns)))._replace(turns=turns, axes=self.axes)
