"""Helpers for loops over tasks that are not divided, and over batches."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxmeta._checks import check_integer
from jaxmeta._types import Batch, Task
from jaxmeta.data.containers import as_array, as_labels


def partition_task(data: Any, labels: Any, shots: int = 1) -> Task:
    """Divides the examples of a task into support and query.

    Args:
        data: inputs, an array, a tensor or another column: `[n, ...]`.
        labels: labels of the inputs, integers in any order: `[n]`.
        shots: number of support examples of each class, the first ones. All others are query examples.

    Returns:
        The task `(x, y), (x, y)`, sorted by label. Arrays and tensors keep their kind.

    Raises:
        ValueError: if the lengths differ, a class has fewer examples than `shots`, or the query set is empty.

    Example:
        >>> import numpy as np
        >>> (x, y), (query_x, query_y) = partition_task(np.arange(5), np.array([1, 0, 1, 1, 0]), shots=1)
        >>> x, y, query_x, query_y
        (array([1, 0]), array([0, 1]), array([4, 2, 3]), array([0, 1, 1]))
    """
    (shots,) = check_integer(shots=shots, least=0)
    data, labels = (column if _is_kept(column) else as_array(column, "data") for column in (data, labels))
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
    position = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)  # of an example within its class
    support, query = order[position < shots], order[position >= shots]
    return Task(Batch(data[support], labels[support]), Batch(data[query], labels[query]))


def _is_kept(column: Any) -> bool:
    """Returns whether a column keeps its kind: an array or a tensor, which is indexed by position."""
    return isinstance(column, np.ndarray | jax.Array) or hasattr(column, "detach")


class InfiniteIterator:
    """An endless iterator over a loader, which it restarts at each end.

    Example:
        >>> loader = InfiniteIterator(["a", "b"])
        >>> [next(loader) for _ in range(5)]
        ['a', 'b', 'a', 'b', 'a']
    """

    def __init__(self, dataloader: Iterable[Any]) -> None:
        """Starts at the beginning.

        Args:
            dataloader: an iterable that can be iterated over more than once, such as a `torch.utils.data.DataLoader`.
        """
        self.dataloader = dataloader
        self.iterator = iter(dataloader)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """Returns the next item.

        Raises:
            ValueError: if the loader is empty, or cannot be iterated over again.
        """
        for item in self.iterator:
            return item
        self.iterator = iter(self.dataloader)
        for item in self.iterator:
            return item
        raise ValueError("dataloader gives nothing when iterated over again")
