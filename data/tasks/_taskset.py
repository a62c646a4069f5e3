"""Sets of tasks with PyTorch's protocol, drawn and loaded on the host."""

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._checks import check_integer
from jaxmeta._types import is_key
from jaxmeta.data.containers import to_float
from jaxmeta.data.samplers import FewShot, Placement, distinct
from jaxmeta.data.tasks._augmented import Augmented, FixedTasks
from jaxmeta.data.tasks._description import TaskDescription
from jaxmeta.data.tasks._host_tasks import HostTasks
from jaxmeta.data.tasks._loading import load
from jaxmeta.data.tasks._meta_dataset import as_meta_dataset
from jaxmeta.data.tasks._plan import TaskPlan, compile_plan
from jaxmeta.data.tasks._threefry import fold_in, key_words, random_words, seed_key, wrap_key
from jaxmeta.display import brief

_BLOCK = 64  # number of tasks drawn together
_NO_DESCRIPTION = ("unpack", "has no attribute", "not iterable", "not callable", "TaskDescription")


@jax.tree_util.register_static
class Taskset:
    """A set of tasks over a data set, in which task `i` is always the same.

    It is a map-style data set of PyTorch, so you can pass it to a `torch.utils.data.DataLoader`. The examples of a task
    depend only on the seed and on the number of the task. They do not depend on the machine, the number of workers or
    the order of access. Except for `Augment`, nothing here runs JAX, so workers may be forked or spawned.

    It is a sampler too: `tasks(key)` is the task of a key, also in a jitted function, which asks the host for it. So
    `train`, `evaluate` and `meta_step` take a `Taskset`. If the data fit on the device, `to_device` is faster.

    A task is a `Task` of support and query if `KShots` has `queries`, else one `Batch`, a pair `(x, y)`. Its arrays
    are NumPy arrays of the data set's type, except that images in uint8 become float32 in [0, 1], as everywhere. A
    `task_collate` gets them as they are. To get arrays on a device use `prefetch` or `to_device`.

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
        """Checks the data and the transforms.

        Args:
            dataset: a `MetaDataset`, or data for one.
            task_transforms: transforms that turn all examples into one task, in the order in which they apply:
                `NWays`, `KShots`, `LoadData` and so on, and your own functions from one `TaskDescription` to another.
                `None` for tasks of all examples.
            num_tasks: number of tasks, or -1 for an endless set.
            task_collate: function from a list of pairs `(x, y)` to a part of a task. `None` stacks the pairs.
            seed: seed of the tasks, an integer in `[0, 2^32)`.

        Raises:
            TypeError: if a transform is not a function, or the data is of an unknown kind.
            ValueError: if there are too few classes or examples for a task, or an argument is out of range.
        """
        if not isinstance(task_transforms, Sequence | None):
            found = brief(task_transforms)
            raise TypeError(f"task_transforms must be a list of transforms, such as [NWays(5), ...], got {found}")
        self.dataset = as_meta_dataset(dataset)
        self._plan = TaskPlan.of(self.dataset, list(task_transforms or []))
        self.num_tasks = -1 if num_tasks == -1 else check_integer(num_tasks=num_tasks)[0]
        self.task_collate = task_collate
        (self.seed,) = check_integer(seed=seed, least=0)
        if self.seed >= 1 << 32:
            raise ValueError(f"seed must be less than 2^32, got {seed!r}")

    def __len__(self) -> int:
        """Returns the number of tasks."""
        if self.num_tasks == -1:
            raise TypeError(
                "an endless Taskset has no length: give it num_tasks, or give the DataLoader a sampler=range(n)"
            )
        return self.num_tasks

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        number = "endlessly many" if self.num_tasks == -1 else self.num_tasks
        return f"Taskset({number} tasks of {self.dataset!r})"

    def __getitem__(self, index: int) -> Any:
        """Returns a task.

        Args:
            index: number of the task. A negative number counts from the end.

        Returns:
            A `Task` or a `Batch`, or the result of `task_collate`.

        Raises:
            IndexError: if there is no such task.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Returns many tasks. A `DataLoader` gets its batches in this way."""
        return list(self._load(fold_in(seed_key(self.seed), [self._number(index) for index in indices])))

    def as_stored(self, indices: Sequence[int]) -> list[Any]:
        """Returns many tasks whose images in uint8 stay such, to be scaled later, as `prefetch` does on the device."""
        keys = fold_in(seed_key(self.seed), [self._number(index) for index in indices])
        return list(self._load(keys, scale=lambda x: x))

    def __iter__(self) -> Iterator[Any]:
        """Yields the tasks one after the other."""
        end = itertools.count(0, _BLOCK) if self.num_tasks == -1 else range(0, self.num_tasks, _BLOCK)
        for first in end:
            last = first + _BLOCK if self.num_tasks == -1 else min(first + _BLOCK, self.num_tasks)
            yield from self._load(fold_in(seed_key(self.seed), np.arange(first, last)))

    def __call__(self, key: jax.Array) -> Any:
        """Draws one task as a sampler, in a compiled program or outside.

        The host loads the examples, under `jax.vmap` all tasks at once and in threads. An `Augment` runs in the
        program. The sampler of `to_device()` draws the same task, for a set that can have one.

        Args:
            key: random key.

        Returns:
            The `Task`, with JAX arrays.

        Raises:
            ValueError: if tasks have no queries, differ in shape, or are collated by a function.
        """
        if self.task_collate is not None:
            raise ValueError("a Taskset is a sampler only with queries in KShots and without task_collate")
        if not self.describe(0).loaded:
            raise ValueError("a Taskset is a sampler only with LoadData() among its transforms")
        return self._sampler()(key)

    def class_ids(self, task: jax.Array | int) -> jax.Array | None:
        """Returns the number of the class of each label in a task: `[ways]`, int32.

        A number is an index of `class_names`, or where classes have no names of the sorted labels that may be drawn.
        Rotated classes follow the others, as in `FewShot.class_ids`.

        Args:
            task: random key, as for a call, or the number of a task, as for `tasks[i]`.

        Returns:
            The numbers, -1 for a label that the task does not have. `None` if the labels are no integers.
        """
        return self._sampler().class_ids(task) if is_key(task) else self._host.class_ids(self.key(operator.index(task)))

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that may be drawn, see `class_ids`. Empty if they have none."""
        names = dict(zip(self.dataset.labels, self.dataset.class_names, strict=False))
        return tuple(names[label] for label in self._host.classes.tolist() if names)

    @property
    def example(self) -> Any:
        """One input of zeros, as the model gets it, for `model.init`: `[1, ...]`."""
        shapes = jax.eval_shape(self, jax.random.key(0)).support.x
        return jax.tree.map(lambda shape: jnp.zeros((1, *shape.shape[1:]), shape.dtype), shapes)

    @property
    def ways(self) -> int | None:
        """One more than the largest label of the first task, or `None` if its labels are no integers."""
        return self._host.ways

    @cached_property
    def _host(self) -> HostTasks:
        classes = np.unique(self._plan.start.label)
        return HostTasks(self._describe, self.dataset, classes, fold_in(seed_key(self.seed), [0])[0])

    def _sampler(self) -> Any:
        """Returns the sampler that the set is. Its key may be traced, so that it cannot be kept."""
        augments = self.describe(0).augments
        sampler = Augmented(self._host, augments) if augments else self._host
        return sampler if self.num_tasks == -1 else FixedTasks(sampler, wrap_key(seed_key(self.seed)), self.num_tasks)

    def sample(self, key: jax.Array | np.ndarray) -> Any:
        """Returns a random task.

        Args:
            key: random key. The sampler of `to_device()` gives the same task for it.

        Returns:
            One of the tasks of the set, or for an endless set the task of that key.
        """
        words = key_words(key)
        if self.num_tasks == -1:
            return next(self._load(words[None]))
        return self[int(distinct(random_words(words, (1,)), self.num_tasks)[0])]

    def key(self, index: int) -> jax.Array:
        """Returns the key of a task: `jax.random.fold_in(jax.random.key(seed), index)`."""
        return wrap_key(fold_in(seed_key(self.seed), self._number(index)))

    def describe(self, index: int) -> TaskDescription:
        """Returns the description of a task, without reading its examples."""
        return next(self._describe(fold_in(seed_key(self.seed), [self._number(index)])))

    def to_device(self, device: Placement | None = None) -> FewShot | Augmented | FixedTasks:
        """Builds a sampler that draws and gathers the same tasks on the device, in a jitted function.

        It gives the same task as `sample` for the same key. So task `i` of an endless set is `sampler(tasks.key(i))`. A
        set of `num_tasks` tasks becomes a sampler of only these tasks.

        All examples are read once, and every `Map` is applied to them. The transforms must be `FilterLabels`,
        `RandomClassRotation` with all four angles, `NWays` and `KShots` or the two fused, then `LoadData`,
        `RemapLabels`, `ConsecutiveLabels`, `Map` and `Augment`. For your own functions, and for data that do not fit
        on a device, draw the tasks on the host and use `prefetch`.

        Args:
            device: device or sharding of the examples, see `FewShot.create`.

        Returns:
            The sampler, a pytree that holds the examples.

        Raises:
            ValueError: if a transform cannot run on the device. The message says why.
        """
        sampler = compile_plan(self._plan, self.dataset, device)
        if self.num_tasks == -1:
            return sampler
        return FixedTasks(sampler, wrap_key(seed_key(self.seed)), self.num_tasks)

    def _number(self, index: int) -> int:
        """Returns the number of a task, in `[0, num_tasks)`."""
        size = 1 << 32 if self.num_tasks == -1 else self.num_tasks
        number = index + size if index < 0 and self.num_tasks != -1 else index
        if not 0 <= number < size:
            raise IndexError(f"task {index} is out of range for {size} tasks")
        return int(number)

    def _describe(self, keys: np.ndarray) -> Iterator[TaskDescription]:
        """Yields descriptions of the tasks of keys `[tasks, 2]`."""
        start, draw, groups, rest = self._plan
        if draw is None or groups is None:
            descriptions: Iterable[TaskDescription] = (start._replace(key=key) for key in keys)
        else:
            descriptions = draw.draw(start, groups, keys, random_words(keys, draw.shape(groups)))
        for description in descriptions:
            for transform in rest:
                step = description.step + 1
                description = _apply(transform, description)._replace(step=step)
            yield description

    def _load(self, keys: np.ndarray, scale: Callable[[Any], Any] = to_float) -> Iterator[Any]:
        for description in self._describe(keys):
            yield load(description, self.dataset, self.task_collate, scale)


def _apply(transform: Callable[[TaskDescription], TaskDescription], description: TaskDescription) -> TaskDescription:
    """Applies a transform.

    Raises:
        TypeError: if it is a function of something else, such as of the pairs of a task.
    """
    advice = "A task transform is a function from one TaskDescription to another. To change each input, use Map(f) "
    advice += "or AugmentOnHost(f)"
    try:
        found = transform(description)
    except (TypeError, ValueError, AttributeError) as error:
        if not any(words in str(error) for words in _NO_DESCRIPTION):
            raise
        raise TypeError(f"{transform!r} failed ({error}). {advice}") from error
    if not isinstance(found, TaskDescription):
        raise TypeError(f"{transform!r} must return a TaskDescription, got {type(found).__name__}. {advice}")
    return found


TaskDataset = Taskset
"""The older name of `Taskset` in learn2learn."""
