"""Tasksets and torch: its DataLoader with workers, its data sets, and tensors without a copy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Batch, Task
from jaxmeta.data import (
    FewShot,
    InfiniteIterator,
    KShots,
    LoadData,
    MetaDataset,
    NWays,
    RandomClassRotation,
    RemapLabels,
    Taskset,
    from_torch,
    partition_task,
    to_torch,
)

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

LABELS = np.repeat(np.arange(8), 10)
IMAGES = np.random.default_rng(0).integers(0, 256, (80, 4, 4, 1)).astype(np.uint8)
TRANSFORMS = [RandomClassRotation(), NWays(3), KShots(1, queries=4), LoadData(), RemapLabels()]


def _tasks(num_tasks=12, seed=0):
    return Taskset((IMAGES, LABELS), TRANSFORMS, num_tasks, seed=seed)


# Workers are forked where torch does so by itself; JAX then warns, as it must not run in them, and it does not.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning", "ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize(("workers", "context"), [(0, None), (1, "fork"), (2, "fork"), (1, "spawn")])
@pytest.mark.quick("*-fork")
def test_data_loader_gives_the_same_tasks_with_any_workers(workers, context):
    """As learn2learn's test_dataloader, and more: theirs asks only that all tasks come."""
    tasks = _tasks()
    loader = torch.utils.data.DataLoader(
        tasks, batch_size=4, num_workers=workers, multiprocessing_context=context, persistent_workers=workers > 0
    )
    batches = [*loader, *loader]  # the second time with the workers of the first
    assert len(batches) == 6
    for i, batch in enumerate(batches):
        assert isinstance(batch, Task) and isinstance(batch.support, Batch)
        assert batch.support.x.shape == (4, 3, 4, 4, 1) and batch.query.y.dtype == torch.int64
        for j in range(4):
            for part, expected in zip(batch, tasks[4 * (i % 3) + j], strict=True):
                np.testing.assert_array_equal(part.x[j], expected.x)
                np.testing.assert_array_equal(part.y[j], expected.y)


@pytest.mark.slow
def test_workers_of_a_fork_server_are_quiet():
    """The way of the documentation, without the filters of the test above: every warning is an error here."""
    options = {"multiprocessing_context": "forkserver", "persistent_workers": True}
    loader = torch.utils.data.DataLoader(_tasks(), batch_size=4, num_workers=2, **options)
    for batch, first in zip(loader, (0, 4, 8), strict=True):
        np.testing.assert_array_equal(batch.query.x[1], _tasks()[first + 1].query.x)


def test_data_loader_shuffles_and_runs_without_end():
    loader = torch.utils.data.DataLoader(_tasks(), batch_size=None, shuffle=True, generator=torch.manual_seed(0))
    seen = sorted(task.query.x.numpy().tobytes() for task in loader)
    assert seen == sorted(task.query.x.tobytes() for task in _tasks())
    endless = torch.utils.data.DataLoader(_tasks(-1), batch_size=2, sampler=range(100, 106))
    assert sum(len(batch.support.y) for batch in endless) == 6
    stream = InfiniteIterator(torch.utils.data.DataLoader(_tasks(2), batch_size=2))
    first, second = next(stream), next(stream)
    assert torch.equal(first.support.x, second.support.x)


@pytest.mark.parametrize("kind", ["tensors", "pairs", "subset", "concatenated", "columns"])
def test_data_sets_of_torch(kind):
    images, labels = torch.from_numpy(IMAGES), torch.from_numpy(LABELS)
    dataset = {
        "tensors": lambda: torch.utils.data.TensorDataset(images, labels),
        "pairs": lambda: list(zip(images, labels, strict=True)),
        "subset": lambda: torch.utils.data.Subset(torch.utils.data.TensorDataset(images, labels), range(80)),
        "concatenated": lambda: torch.utils.data.ConcatDataset(
            [torch.utils.data.TensorDataset(images[part], labels[part]) for part in (slice(33), slice(33, 80))]
        ),
        "columns": lambda: (images, labels),
    }[kind]()
    found = MetaDataset(dataset)
    assert found.labels == list(range(8)) and found.labels_to_indices[7].tolist() == list(range(70, 80))
    tasks = Taskset(dataset, TRANSFORMS)
    jax.tree.map(np.testing.assert_array_equal, tasks[3], _tasks()[3])


def test_bad_labels_of_torch():
    with pytest.raises(TypeError, match="integers or strings, got float32"):
        MetaDataset((torch.zeros(3, 2), torch.zeros(3)))
    with pytest.raises(TypeError, match="label 0 must be one integer"):
        MetaDataset([(torch.zeros(2), torch.tensor([0, 1]))])
    with pytest.raises(TypeError, match="got 0.5 for example 0"):
        MetaDataset([(torch.zeros(2), torch.tensor(0.5))])


def test_partition_of_tensors():
    task = partition_task(torch.arange(5), torch.tensor([1, 0, 1, 1, 0]), shots=1)
    assert torch.equal(task.support.x, torch.tensor([1, 0])) and torch.equal(task.query.y, torch.tensor([0, 1, 1]))


def test_to_torch_and_back_without_a_copy():
    sampler = FewShot.create(torch.from_numpy(IMAGES), LABELS, ways=3, shots=1, queries=2)
    task = jax.block_until_ready(sampler(jax.random.key(0)))
    tensors = to_torch(task)
    assert isinstance(tensors, Task) and tensors.query.x.dtype == torch.float32
    back = from_torch(tensors)
    for array, tensor, again in zip(*map(jax.tree.leaves, (task, tensors, back)), strict=True):
        assert isinstance(again, jax.Array)
        assert array.unsafe_buffer_pointer() == tensor.data_ptr() == again.unsafe_buffer_pointer()
        np.testing.assert_array_equal(array, tensor.numpy())
        np.testing.assert_array_equal(array, again)
    host = _tasks()[0]
    tensor = to_torch(host).support.x
    assert tensor.data_ptr() == host.support.x.ctypes.data
    tensor += 1  # NumPy's arrays may be changed


def test_from_torch_takes_what_a_loader_gives():
    batch = from_torch(next(iter(torch.utils.data.DataLoader(_tasks(), batch_size=2))))
    assert batch.support.x.dtype == jnp.float32 and batch.support.y.dtype == jnp.int32  # torch's int64
    np.testing.assert_array_equal(batch.query.y[1], _tasks()[1].query.y)
    transposed = torch.arange(6.0, requires_grad=True).reshape(2, 3).T
    np.testing.assert_array_equal(from_torch({"x": transposed, "name": "left"})["x"], transposed.detach())
    assert from_torch({"x": transposed, "name": "left"})["name"] == "left"
    assert from_torch(torch.ones(2, dtype=torch.bfloat16)).dtype == jnp.bfloat16
