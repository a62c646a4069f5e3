"""Description of a task before its examples are read."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np

from jaxmeta._names import suggestion
from jaxmeta.data.tasks._threefry import fold_in, random_words
from jaxmeta.display import short_repr

_STEP = 1 << 29


class TaskTransform:
    """Base of the task transforms, which refuses the data set that those of learn2learn take first."""

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Checks the first argument.

        Raises:
            TypeError: if it is a data set, or an argument has another name.
        """
        if args and _is_dataset(args[0]):
            rest = [*map(repr, args[1:]), *(f"{name}={value!r}" for name, value in options.items())]
            told = f"{cls.__name__}({', '.join(rest)})"
            raise TypeError(f"transforms take no data set, because the Taskset passes its own: write {told}")
        known = tuple(getattr(cls, "__dataclass_fields__", options))
        for name, value in options.items():
            if name not in known:
                takes = ", ".join(known) or "no arguments"
                raise TypeError(f"{cls.__name__} takes {takes}, got {name}={value!r}{suggestion(name, known)}")
        return super().__new__(cls)


def _is_dataset(value: Any) -> bool:
    """Returns whether a value is a data set, and no column of labels or angles."""
    column = isinstance(value, list | tuple | range | str | set | frozenset) or hasattr(value, "shape")
    return not column and hasattr(value, "__len__") and hasattr(value, "__getitem__") and not hasattr(value, "iloc")


class TaskDescription(NamedTuple):
    """The examples of a task, by their indices. A task transform maps one description to another.

    Example:
        A transform that keeps ten random examples:

        >>> def ten(description):
        ...     which = description.rng().choice(len(description.example), 10, replace=False)
        ...     return description.take(which)
    """

    example: np.ndarray
    """Indices of the examples in the data set: `[n]`, int."""
    label: np.ndarray
    """Labels of the examples, those of the data set until `RemapLabels` changes them: `[n]`."""
    turns: np.ndarray
    """Number of quarter turns of each example, counterclockwise: `[n]`, int."""
    key: np.ndarray
    """Words of the task's random key: `[2]`, uint32."""
    way: np.ndarray | None = None
    """Position of each example's class in the order in which classes were drawn: `[n]`, int, or `None` before that."""
    query: np.ndarray | None = None
    """Mask of the query examples: `[n]`, bool, or `None` if the task is not divided into support and query."""
    step: int = 0
    """Number of transforms that were applied."""
    loaded: bool = False
    """True if the task contains its examples, and not only their indices."""
    maps: tuple[Callable[[Any], Any], ...] = ()
    """Functions of one example's input, in the order in which they apply."""
    augments: tuple[Any, ...] = ()
    """Augmentations (`Augment`), in the order in which they apply."""
    host_augments: tuple[Any, ...] = ()
    """Augmentations on the host (`AugmentOnHost`), in the order in which they apply, before the others."""
    axes: tuple[int, int] = (0, 1)
    """Axes of height and width of an example, for rotations."""

    __repr__ = short_repr

    def take(self, which: np.ndarray) -> "TaskDescription":
        """Returns the description of some of the examples.

        Args:
            which: positions of the examples, `[m]` int, or a mask `[n]`.
        """
        return self._replace(
            example=self.example[which],
            label=self.label[which],
            turns=self.turns[which],
            way=None if self.way is None else self.way[which],
            query=None if self.query is None else self.query[which],
        )

    def rng(self) -> np.random.Generator:
        """Returns a random generator that depends only on the task and on the number of earlier transforms."""
        return np.random.default_rng([*self.key.tolist(), self.step])

    def words(self, shape: tuple[int, ...]) -> np.ndarray:
        """Returns uniform random words of a shape, uint32. At step 0 they are drawn from the key itself."""
        return random_words(fold_in(self.key, _STEP + self.step) if self.step else self.key, shape)

    def classes(self) -> np.ndarray:
        """Returns a class number for each example, ordered by rotation and then by label: `[n]`."""
        names, codes = np.unique(self.label, return_inverse=True)
        return self.turns * len(names) + codes
