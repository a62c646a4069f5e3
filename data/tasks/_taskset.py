"""Sets of tasks with PyTorch's protocol, drawn and loaded on the host."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxmeta.data.samplers import FewShot, Placement, distinct
from jaxmeta.data.tasks._augmented import Augmented, FixedTasks
from jaxmeta.data.tasks._description import TaskDescription
from jaxmeta.data.tasks._loading import load
from jaxmeta.data.tasks._meta_dataset import as_meta_dataset
from jaxmeta.data.tasks._plan import Plan, compile_plan
from jaxmeta.data.tasks._threefry import fold_in, key_words, random_words, seed_key, wrap_key

_BLOCK = 64  # tasks drawn together


class Taskset:
    """A set of tasks over a data set: task `i` is always the same one.

    It is a map-style data set in the sense of PyTorch, so a `torch.utils.data.DataLoader` takes it as it is. Which
    examples a task has depends on the seed and on its number only: not on the machine, the number of workers, or the
    order of access. Nothing here runs JAX (but `Augment`), so workers may be forked or spawned.

    A task is a `Task` of support and query if `KShots` has `queries`, else one `Batch`, a pair `(x, y)`. Its arrays
    are of NumPy, and of the type that the data set has. To get arrays on a device use `prefetch`, or `to_device`.

    Example:
        >>> import jax, numpy as np
        >>> from jaxmeta.data import KShots, LoadData, NWays, RemapLabels
        >>> images, labels = np.zeros((60, 28, 28, 1), np.uint8), np.arange(60) % 6
        >>> transforms = [NWays(5), KShots(1, queries=3), LoadData(), RemapLabels()]
        >>> tasks = Taskset((images, labels), transforms, num_tasks=100)
        >>> len(tasks), tasks[7].support.x.shape, tasks[7].query.y.tolist()
        (100, (5, 28, 28, 1), [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4])
        >>> sampler = tasks.to_device()
        >>> jax.jit(lambda sampler, key: sampler(key))(sampler, jax.random.key(0)).query.x.shape
        (15, 28, 28, 1)

    References:
        Arnold et al., learn2learn: A Library for Meta-Learning Research, 2020, https://arxiv.org/abs/2008.12284
    """

    def __init__(
        self,
        dataset: Any,
        task_transforms: Sequence[Callable[[TaskDescription], TaskDescription]] | None = None,
        num_tasks: int = -1,
        task_collate: Callable[[list[Any]], Any] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        """Check the data and the transforms.

        Args:
            dataset: A `MetaDataset`, or what one is made of.
            task_transforms: What makes a task of all examples, in this order: `NWays`, `KShots`, `LoadData` and so on,
                and functions of your own from one `TaskDescription` to another. `None` for tasks of all examples.
            num_tasks: How many tasks there are; -1 for no end.
            task_collate: From a list of pairs `(x, y)` to what each part of a task shall be; stacks them if `None`.
            seed: Which tasks: an integer in `[0, 2^32)`.

        Raises:
            TypeError: If a transform is no function, or the data is of no known kind.
            ValueError: If there are fewer classes or examples than the tasks ask for, or an argument is out of range.
        """
        self.dataset = as_meta_dataset(dataset)
        self._plan = Plan.of(self.dataset, list(task_transforms or []))
        if isinstance(num_tasks, bool) or not isinstance(num_tasks, int) or (num_tasks < 1 and num_tasks != -1):
            raise ValueError(f"num_tasks must be a positive integer, or -1 for no end, got {num_tasks!r}")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 32:
            raise ValueError(f"seed must be an integer in [0, 2^32), got {seed!r}")
        self.num_tasks = num_tasks
        self.task_collate = task_collate
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of tasks."""
        if self.num_tasks == -1:
            raise TypeError(
                "a Taskset without end has no length: give it num_tasks, or a DataLoader a sampler=range(n)"
            )
        return self.num_tasks

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: int) -> Any:
        """Return a task.

        Args:
            index: Which one; from the end if negative.

        Returns:
            A `Task` or a `Batch`, or what `task_collate` makes.

        Raises:
            IndexError: If there is no such task.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return many tasks; a `DataLoader` asks for a batch in this way."""
        return list(self._load(fold_in(seed_key(self.seed), [self._number(index) for index in indices])))

    def __iter__(self) -> Iterator[Any]:
        """Return the tasks one after the other."""
        end = itertools.count(0, _BLOCK) if self.num_tasks == -1 else range(0, self.num_tasks, _BLOCK)
        for first in end:
            last = first + _BLOCK if self.num_tasks == -1 else min(first + _BLOCK, self.num_tasks)
            yield from self._load(fold_in(seed_key(self.seed), np.arange(first, last)))

    def sample(self, key: jax.Array | np.ndarray) -> Any:
        """Return a random task.

        Args:
            key: A random key. `to_device()` gives the same task for it.

        Returns:
            One of the tasks of the set; if it has no end, the task of that key.
        """
        words = key_words(key)
        if self.num_tasks == -1:
            return next(self._load(words[None]))
        return self[int(distinct(random_words(words, (1,)), self.num_tasks)[0])]

    def key(self, index: int) -> jax.Array:
        """Return the key of a task: `jax.random.fold_in(jax.random.key(seed), index)`."""
        return wrap_key(fold_in(seed_key(self.seed), self._number(index)))

    def describe(self, index: int) -> TaskDescription:
        """Return which examples a task has, without reading them."""
        return next(self._describe(fold_in(seed_key(self.seed), [self._number(index)])))

    def to_device(self, device: Placement | None = None) -> FewShot | Augmented | FixedTasks:
        """Make a sampler that draws and gathers the same tasks on the device, in a jitted function.

        It gives the same task as `sample` for the same key. So task `i` of a set without end is
        `sampler(tasks.key(i))`; a set of `num_tasks` tasks becomes a sampler of only these.

        All examples are read once, through every `Map`. The transforms must be `FilterLabels`, `RandomClassRotation`
        (all four turns), `NWays` and `KShots` or the two fused, then `LoadData`, `RemapLabels`, `ConsecutiveLabels`,
        `Map` and `Augment`; functions of your own need the host, and so do data that do not fit a device: `prefetch`.

        Args:
            device: Where the examples are put, as in `FewShot.create`.

        Returns:
            The sampler, a pytree that holds the examples.

        Raises:
            ValueError: If a transform cannot run on the device; the message says why.
        """
        sampler = compile_plan(self._plan, self.dataset, device)
        if self.num_tasks == -1:
            return sampler
        return FixedTasks(sampler, wrap_key(seed_key(self.seed)), self.num_tasks)

    def _number(self, index: int) -> int:
        """Return the number of a task, in `[0, num_tasks)`."""
        size = 1 << 32 if self.num_tasks == -1 else self.num_tasks
        number = index + size if index < 0 and self.num_tasks != -1 else index
        if not 0 <= number < size:
            raise IndexError(f"task {index} is out of range for {size} tasks")
        return int(number)

    def _describe(self, keys: np.ndarray) -> Iterator[TaskDescription]:
        """Describe the tasks of keys `[tasks, 2]`."""
        start, draw, groups, rest = self._plan
        if draw is None or groups is None:
            descriptions: Iterable[TaskDescription] = (start._replace(key=key) for key in keys)
        else:
            descriptions = draw.draw(start, groups, keys, random_words(keys, draw.shape(groups)))
        for description in descriptions:
            for transform in rest:
                step = description.step + 1
                description = transform(description)
                if not isinstance(description, TaskDescription):
                    raise TypeError(f"{transform!r} must return a TaskDescription, got {type(description).__name__}")
                description = description._replace(step=step)
            yield description

    def _load(self, keys: np.ndarray) -> Iterator[Any]:
        for description in self._describe(keys):
            yield load(description, self.dataset, self.task_collate)


TaskDataset = Taskset
"""learn2learn's older name of `Taskset`."""
