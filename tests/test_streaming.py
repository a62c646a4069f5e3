"""Data that do not fit a device: streamed by prefetch, or divided among devices; and many hosts."""

import itertools
import threading
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmeta
from jaxmeta import Batch
from jaxmeta.data import FewShot, KShots, LoadData, Map, NWays, RemapLabels, Taskset, prefetch

KEY = jax.random.key(0)
LABELS = np.repeat(np.arange(10), 100)
IMAGES = np.random.default_rng(0).integers(0, 256, (1000, 4, 4, 1)).astype(np.uint8)
TRANSFORMS = [NWays(3), KShots(1, queries=2), LoadData(), RemapLabels()]


def _mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def _trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("workers", [1, 4])
def test_prefetch_gives_the_tasks_of_the_sampler_in_order(workers):
    tasks = Taskset((IMAGES, LABELS), TRANSFORMS, num_tasks=10)
    batches = list(prefetch(tasks, 4, workers=workers, ahead=3))
    assert [len(batch.support.y) for batch in batches] == [4, 4, 2]
    keys = jnp.stack([tasks.key(i) for i in range(10)])
    expected = jax.jit(jax.vmap(lambda s, k: s(k), (None, 0)))(Taskset((IMAGES, LABELS), TRANSFORMS).to_device(), keys)
    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *batches)
    assert joined.query.x.dtype == jnp.float32 and joined.query.x.shape == (10, 6, 4, 4, 1)
    _trees_equal(joined._replace(support=joined.support.x), expected._replace(support=expected.support.x))
    _trees_equal(joined.support.y, expected.support.y)


def test_prefetch_takes_any_indices_tasks_and_placement():
    tasks = Taskset((IMAGES, LABELS), TRANSFORMS)
    where = NamedSharding(_mesh(), PartitionSpec("data"))
    hosts = [prefetch(tasks, 8, indices=itertools.count(host, 2), device=where) for host in range(2)]
    first, second = map(next, hosts)
    assert first.support.x.sharding.is_equivalent_to(where, first.support.x.ndim)
    for i in range(8):
        np.testing.assert_array_equal(first.query.y[i], tasks[2 * i].query.y)
        np.testing.assert_array_equal(second.support.x[i], tasks[2 * i + 1].support.x)
    device = jax.devices()[5]
    batch = next(prefetch([Batch(np.arange(3), np.array(i)) for i in range(4)], 2, device=device))
    assert batch.y.tolist() == [0, 1] and batch.x.devices() == {device}


def test_prefetch_works_ahead_but_not_further_and_stops():
    read = []

    def slow(x):
        read.append(threading.current_thread().name)
        return x

    tasks = Taskset((IMAGES, LABELS), [NWays(1), KShots(1), LoadData(), Map(slow)])
    stream = prefetch(tasks, 5, workers=2, ahead=3)
    assert not read
    next(stream)
    deadline = time.monotonic() + 10
    while len(read) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(read) == 20  # the batch taken, and three ahead
    assert all(name.startswith("prefetch") for name in read)
    stream.close()
    time.sleep(0.05)
    assert len(read) == 20


def test_prefetch_raises_what_a_task_raises():
    def broken(x):
        raise OSError("image 7 cannot be read")

    stream = prefetch(Taskset((IMAGES, LABELS), [NWays(1), KShots(1), LoadData(), Map(broken)]), 2)
    with pytest.raises(OSError, match="image 7"):
        next(stream)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        prefetch([], 0)


def test_data_divided_among_devices():
    """The same tasks; no device ever holds all images."""
    labels = LABELS[:-3]  # 997 do not divide by 8
    images = np.random.default_rng(0).integers(0, 256, (997, 32, 32, 1)).astype(np.uint8)
    create = partial(FewShot.create, images, labels, ways=5, shots=1, queries=1, rotations=4)
    whole, parts = create(), create(device=NamedSharding(_mesh(), PartitionSpec("data")))
    assert parts.inputs.shape[0] == 1000
    assert {shard.data.shape[0] for shard in parts.inputs.addressable_shards} == {125}
    keys = jax.random.split(KEY, 16)
    draw = jax.jit(lambda s, k: jax.vmap(s)(k))
    for given in (keys, jax.device_put(keys, NamedSharding(_mesh(), PartitionSpec("data")))):
        assert jaxmeta.cost(draw, parts, given).temporary_bytes < images.nbytes / 2
        _trees_equal(draw(parts, given), draw(whole, keys))


def test_on_one_device():
    device = jax.devices()[2]
    sampler = FewShot.from_classes(IMAGES.reshape(10, 100, 4, 4, 1), device=device)
    assert sampler.inputs.devices() == {device}
    assert jax.jit(lambda s, k: s(k))(sampler, KEY).support.x.devices() == {device}


def test_hosts_and_devices_draw_different_tasks():
    """Each host folds its number into the key and splits it among its devices: no task comes twice."""
    sampler = FewShot.create(IMAGES, LABELS, ways=5, shots=2, queries=2)
    mesh = _mesh()
    split = PartitionSpec("data")

    def of_device(sampler, keys):
        return jax.vmap(sampler.indices)(keys)

    alone = jax.jit(of_device)
    draw = jax.jit(jax.shard_map(of_device, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=split))
    seen = set()
    for process_index in range(4):
        keys = jax.random.split(jax.random.fold_in(KEY, process_index), 8 * 16)
        drawn = draw(sampler, jax.device_put(keys, NamedSharding(mesh, split)))
        _trees_equal(drawn, alone(sampler, keys))  # wherever a task is drawn, it is that of its key
        rows = np.concatenate([np.asarray(part.x.example) for part in drawn], axis=1)
        seen |= {row.tobytes() for row in rows}
    assert len(seen) == 4 * 8 * 16
