"""Helpers for loops over tasks and batches that come in one piece."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from jaxmeta._types import Batch, Task
from jaxmeta.data.tasks._labels import as_labels


def partition_task(data: Any, labels: Any, shots: int = 1) -> Task:
    """Divide the examples of a task into support and query.

    Args:
        data: Inputs, an array or a tensor: `[n, ...]`.
        labels: Their labels, integers in any order: `[n]`.
        shots: Support examples of each class: the first ones. The others, as many as there are, are query examples.

    Returns:
        The task: `(x, y), (x, y)`, sorted by label, of the kind of array that came.

    Raises:
        ValueError: If lengths differ, a class has fewer examples than `shots`, or none is left for the query set.

    Example:
        >>> import numpy as np
        >>> (x, y), (query_x, query_y) = partition_task(np.arange(5), np.array([1, 0, 1, 1, 0]), shots=1)
        >>> x, y, query_x, query_y
        (array([1, 0]), array([0, 1]), array([4, 2, 3]), array([0, 1, 1]))
    """
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 0:
        raise ValueError(f"shots must be an integer of at least 0, got {shots!r}")
    found = as_labels(labels)
    if len(found) != len(data):
        raise ValueError(f"labels must match data: got {len(found)} labels for {len(data)} examples")
    names, classes, counts = np.unique(found, return_inverse=True, return_counts=True)
    if len(names) and counts.min() < shots:
        smallest = counts.argmin()
        raise ValueError(f"shots={shots}, but class {names[smallest]} has {counts[smallest]} examples")
    if len(found) == shots * len(names):
        raise ValueError(f"shots={shots} leaves no query examples: the classes have {counts.tolist()} examples")
    order = np.argsort(classes, kind="stable")
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)  # of an example within its class
    support, query = order[place < shots], order[place >= shots]
    return Task(Batch(data[support], labels[support]), Batch(data[query], labels[query]))


class InfiniteIterator:
    """Goes through a loader again and again.

    Example:
        >>> loader = InfiniteIterator(["a", "b"])
        >>> [next(loader) for _ in range(5)]
        ['a', 'b', 'a', 'b', 'a']
    """

    def __init__(self, dataloader: Iterable[Any]) -> None:
        """Start at the beginning.

        Args:
            dataloader: What can be iterated over more than once, such as a `torch.utils.data.DataLoader`.
        """
        self.dataloader = dataloader
        self.iterator = iter(dataloader)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """Return the next item; raise ValueError if the loader has none, or none any more."""
        for item in self.iterator:
            return item
        self.iterator = iter(self.dataloader)
        for item in self.iterator:
            return item
        raise ValueError("dataloader gives nothing when iterated over again")
