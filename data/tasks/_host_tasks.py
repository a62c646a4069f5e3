"""The tasks of a set as a compiled program asks the host for them."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import jax
import numpy as np

from jaxmeta._types import Task
from jaxmeta.data.containers import advice_on_text, to_float
from jaxmeta.data.tasks._callback import load_in_program
from jaxmeta.data.tasks._description import TaskDescription
from jaxmeta.data.tasks._loading import load
from jaxmeta.data.tasks._meta_dataset import MetaDataset


class HostTasks:
    """A sampler of the tasks of a `Taskset` without end, before their augmentation."""

    def __init__(
        self,
        describe: Callable[[np.ndarray], Iterator[TaskDescription]],
        dataset: MetaDataset,
        classes: np.ndarray,
        first: np.ndarray,
    ) -> None:
        """Keeps what a task is made of.

        Args:
            describe: function from the words of keys, `[n, 2]` (uint32), to the descriptions of their tasks.
            dataset: data set of the tasks.
            classes: sorted labels of the classes that may be drawn, whose positions are the numbers of the classes.
            first: words of the key of the first task, `[2]`.
        """
        self._describe, self._dataset, self.classes, self._first = describe, dataset, classes, first

    @cached_property
    def first(self) -> Any:
        """The first task as it is in the data, for its shapes."""
        with jax.ensure_compile_time_eval():  # the data may be arrays of JAX, and a program may ask for them
            return self._load(self._first[None])[0]

    @cached_property
    def ways(self) -> int | None:
        """One more than the largest label of the first task, or `None` if its labels are no integers."""
        labels = [np.asarray(part.y) for part in self.first if hasattr(part, "y")]
        if not labels or any(part.dtype.kind not in "iu" or part.size == 0 for part in labels):
            return None
        return 1 + max(int(part.max()) for part in labels)

    def __call__(self, key: jax.Array) -> Task:
        """Draws one task, with JAX arrays.

        Raises:
            ValueError: if the task has no queries, or its inputs are no numbers.
        """
        if not isinstance(self.first, Task):
            raise ValueError("a Taskset is a sampler only with queries in KShots and without task_collate")
        for leaf in jax.tree.leaves((self.first.support.x, self.first.query.x)):
            if leaf.dtype.kind in "OUSTMm":
                told = f"a Taskset is a sampler only if its inputs are numbers, got {leaf.dtype}"
                raise ValueError(f"{told}: {advice_on_text(leaf)}" if leaf.dtype.kind == "U" else told)
        task = load_in_program(self._load, self.first, key)
        return Task(*(part._replace(x=jax.tree.map(to_float, part.x)) for part in task))

    def class_ids(self, key: jax.Array) -> jax.Array | None:
        """Returns the number of the class of each label in the task of a key, `[ways]`, see `Taskset.class_ids`."""
        if self.ways is None:
            return None
        return load_in_program(self._numbers, np.zeros(self.ways, np.int32), key)

    def _numbers(self, keys: np.ndarray) -> list[np.ndarray]:
        found = []
        for task in self._describe(keys):
            numbers = np.full(self.ways or 0, -1, np.int32)
            known = (task.label >= 0) & (task.label < len(numbers))
            of = np.searchsorted(self.classes, self._dataset.targets[task.example])
            numbers[task.label[known]] = (task.turns * len(self.classes) + of)[known]
            found.append(numbers)
        return found

    def _load(self, keys: np.ndarray) -> list[Any]:
        """Returns tasks as they are in the data, to be scaled and augmented in a compiled program."""
        plain = (description._replace(augments=()) for description in self._describe(keys))
        return [load(description, self._dataset, None, lambda x: x) for description in plain]
