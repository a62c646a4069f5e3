"""What a task is made of, before its examples are read."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxmeta.data.tasks._threefry import fold_in, random_words

_STEP = 1 << 29


class TaskDescription(NamedTuple):
    """The examples of a task. A task transform is a function from one to another.

    Example:
        A transform that keeps ten examples, whatever they are:

        >>> def ten(description):
        ...     which = description.rng().choice(len(description.example), 10, replace=False)
        ...     return description.take(which)
    """

    example: np.ndarray
    """Which examples of the data set: `[n]`, int."""
    label: np.ndarray
    """Their labels; as in the data set, until `RemapLabels` changes them: `[n]`."""
    turns: np.ndarray
    """By how many quarter turns each is rotated, counterclockwise: `[n]`, int."""
    key: np.ndarray
    """The words of the task's random key: `[2]`, uint32."""
    way: np.ndarray | None = None
    """The place of an example's class in the random order in which classes were drawn: `[n]`, int; `None` before."""
    query: np.ndarray | None = None
    """Whether an example is a query example: `[n]`, bool; `None` if support and query are not told apart."""
    step: int = 0
    """How many transforms this task has passed."""
    loaded: bool = False
    """Whether the task has examples, or their indices only."""
    maps: tuple[Callable[[Any], Any], ...] = ()
    """Functions of one example's input, in the order in which they apply."""
    augments: tuple[Any, ...] = ()
    """`Augment`s, in the order in which they apply."""
    axes: tuple[int, int] = (0, 1)
    """Height and width of an example, for the turns."""

    def take(self, which: np.ndarray) -> "TaskDescription":
        """Return the description of some of the examples.

        Args:
            which: Their places, `[m]` int, or a mask `[n]`.
        """
        return self._replace(
            example=self.example[which],
            label=self.label[which],
            turns=self.turns[which],
            way=None if self.way is None else self.way[which],
            query=None if self.query is None else self.query[which],
        )

    def rng(self) -> np.random.Generator:
        """Return a random generator that depends on the task and on the transform's place in the list only."""
        return np.random.default_rng([*self.key.tolist(), self.step])

    def words(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return uniform random words of a shape, uint32. At step 0 they are those of the key itself."""
        return random_words(fold_in(self.key, _STEP + self.step) if self.step else self.key, shape)

    def classes(self) -> np.ndarray:
        """Return a number for the class of each example, in the order of the turns and then of the labels: `[n]`."""
        names, codes = np.unique(self.label, return_inverse=True)
        return self.turns * len(names) + codes
