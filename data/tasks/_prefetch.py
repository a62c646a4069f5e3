"""Streaming of tasks to the device, for data that do not fit there."""

import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from jaxmeta._checks import check_integer
from jaxmeta.data.containers import stack, to_float
from jaxmeta.display import brief


def prefetch(
    tasks: Any,
    batch_size: int,
    *,
    indices: Iterable[int] | None = None,
    workers: int = 2,
    ahead: int = 2,
    device: Any = None,
) -> Generator[Any, None, None]:
    """Loads tasks in the background and puts them on a device, one batch at a time.

    The batches are in the order of the indices for any number of workers. Images in uint8 are transferred as such and
    then converted to floats in [0, 1], as in `FewShot`.

    The workers are threads, because reading files and decoding images mostly happen outside Python's lock. For
    transforms that compute in Python, use a `torch.utils.data.DataLoader` with processes.

    Args:
        tasks: a `Taskset`, or any sequence of pytrees whose arrays have the same shapes.
        batch_size: number of tasks per batch.
        indices: indices of the tasks, by default all in order. On many hosts give each its own, such as
            `itertools.count(jax.process_index(), jax.process_count())`.
        workers: number of threads.
        ahead: largest number of batches to load in advance.
        device: a device, or a sharding of the axis of tasks, by default JAX's default device.

    Returns:
        A generator of batches. A batch has the structure of a task, with JAX arrays `[batch_size, ...]`. The last batch
        may be smaller. Close or delete the generator to stop the threads.

    Raises:
        ValueError: if a number is not a positive integer.

    Example:
        >>> import numpy as np
        >>> from jaxmeta import data
        >>> transforms = [data.NWays(3), data.KShots(1, queries=2), data.LoadData(), data.RemapLabels()]
        >>> tasks = data.Taskset((np.zeros((20, 8)), np.arange(20) % 4), transforms, num_tasks=100)
        >>> [batch.query.x.shape for batch in prefetch(tasks, batch_size=40)]
        [(40, 6, 8), (40, 6, 8), (20, 6, 8)]
    """
    check_integer(batch_size=batch_size, workers=workers, ahead=ahead)
    if not hasattr(tasks, "__getitem__"):
        raise TypeError(f"tasks must be a Taskset or another sequence of tasks, got {brief(tasks)}")
    if indices is None:
        endless = getattr(tasks, "num_tasks", None) == -1
        indices = itertools.count() if endless else range(len(tasks))
    return _stream(tasks, batch_size, iter(indices), workers, ahead, device)


def _stream(
    tasks: Any, batch_size: int, indices: Iterator[int], workers: int, ahead: int, device: Any
) -> Generator[Any, None, None]:
    def load(batch: list[int]) -> Any:
        read = getattr(tasks, "as_stored", getattr(tasks, "__getitems__", None))  # images in uint8 travel as such
        loaded = read(batch) if read is not None else [tasks[index] for index in batch]
        arrays = jax.device_put(jax.tree.map(lambda *leaves: stack(list(leaves)), *loaded), device)
        return jax.tree.map(to_float, arrays)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
    pending: deque[Future[Any]] = deque()
    try:
        while True:
            while len(pending) < ahead + 1 and (batch := list(itertools.islice(indices, batch_size))):
                pending.append(pool.submit(load, batch))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
