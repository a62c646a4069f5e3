"""Taskset.to_device: the same key gives the same task on the host and on the device."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.data import (
    Augment,
    Augmented,
    ConsecutiveLabels,
    FewShot,
    FilterLabels,
    FixedTasks,
    FusedNWaysKShots,
    KShots,
    LoadData,
    Map,
    NWays,
    RandomClassRotation,
    RemapLabels,
    Taskset,
    random_crop,
)
from jaxmeta.data.tasks import _threefry as threefry

KEY = jax.random.key(0)
COUNTS = (6, 9, 20, 7, 11, 8)


def _labeled(counts=COUNTS, seed=1, shape=(3,)):
    """Examples whose first entry is their own row, with shuffled labels 10, 13, ..."""
    labels = np.random.default_rng(seed).permutation(np.repeat(3 * np.arange(len(counts)) + 10, counts))
    inputs = np.zeros((len(labels), *shape), np.float32)
    inputs[(slice(None), *[0] * len(shape))] = np.arange(len(labels))
    return inputs, labels


def _images(counts=COUNTS, size=4):
    """Images in uint8, all different, none symmetric."""
    labels = _labeled(counts)[1]
    return np.random.default_rng(2).integers(0, 256, (len(labels), size, size, 1)).astype(np.uint8), labels


DATA = _labeled()
STANDARD = (LoadData(), RemapLabels(), ConsecutiveLabels())


def _trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@jax.jit
def _call(sampler, key):
    return sampler(key)


def subset(description):
    """A user's transform: five examples at random."""
    return description.take(description.rng().choice(len(description.example), 5))


@pytest.mark.parametrize("shape", [(), (1,), (5,), (5, 17)])
@pytest.mark.parametrize("seed", [0, 7, 2**31 + 5])
def test_random_words_are_those_of_jax(seed, shape):
    words = threefry.seed_key(seed)
    key = threefry.wrap_key(words)
    if seed < 2**31:
        np.testing.assert_array_equal(threefry.key_words(jax.random.key(seed)), words)
    keys = threefry.fold_in(words, np.array([0, 1, 2**29 + 3, 2**32 - 1]))
    folded = [jax.random.fold_in(key, np.uint32(i)) for i in (0, 1, 2**29 + 3, 2**32 - 1)]
    np.testing.assert_array_equal(keys, [jax.random.key_data(k) for k in folded])
    np.testing.assert_array_equal(
        threefry.random_words(keys, shape), [jax.random.bits(k, shape, jnp.uint32) for k in folded]
    )


@pytest.mark.parametrize(
    ("transforms", "shuffle", "rotated"),
    [
        ([NWays(3), KShots(1, queries=4), *STANDARD], True, False),
        ([FilterLabels([22, 10, 16, 19]), NWays(2), KShots(3, queries=2), RemapLabels(), LoadData()], True, True),
        ([FusedNWaysKShots(3, 2, queries=3, replacement=True), *STANDARD], True, True),
        ([NWays(4), KShots(1, queries=2), LoadData(), RemapLabels(shuffle=False), ConsecutiveLabels()], False, False),
        ([NWays(4), KShots(1, queries=2), LoadData(), RemapLabels(shuffle=False), ConsecutiveLabels()], False, True),
        ([KShots(2, queries=1), *STANDARD], True, False),
    ],
    ids=["standard", "filtered-rotated", "replacement-rotated", "ordered", "ordered-rotated", "all-ways"],
)
def test_composition_is_identical(transforms, shuffle, rotated):
    images, labels = _images()
    tasks = Taskset((images, labels), [RandomClassRotation()] * rotated + transforms, seed=3)
    sampler = tasks.to_device()
    assert isinstance(sampler, FewShot) and sampler.shuffle == shuffle
    keys = jnp.stack([tasks.key(i) for i in range(20)])
    indices, drawn = jax.jit(lambda s, k: (jax.vmap(s.indices)(k), jax.vmap(s)(k)))(sampler, keys)
    for i in range(20):
        description, task = tasks.describe(i), tasks[i]
        assert description.query is not None
        for part, on_device, loaded, which in zip(
            task, indices, drawn, (~description.query, description.query), strict=True
        ):
            np.testing.assert_array_equal(description.example[which], on_device.x.example[i])
            np.testing.assert_array_equal(description.turns[which], on_device.x.turns[i])
            np.testing.assert_array_equal(part.y, on_device.y[i])
            np.testing.assert_array_equal(part.x, loaded.x[i])


def test_a_fixed_number_of_tasks():
    tasks = Taskset(DATA, [NWays(3), KShots(1, queries=2), *STANDARD], num_tasks=5, seed=2)
    sampler = tasks.to_device()
    assert isinstance(sampler, FixedTasks)
    assert sampler.example.shape == (1, 3)
    all_tasks = {task.query.x.tobytes() for task in tasks}
    seen = set()
    for key in jax.random.split(KEY, 30):
        task = _call(sampler, key)
        _trees_equal(tasks.sample(key), task)
        seen.add(np.asarray(task.query.x).tobytes())
    assert seen == all_tasks and len(seen) == 5


@pytest.mark.slow
def test_sample_of_a_set_without_end_is_the_task_of_the_key():
    tasks = Taskset(DATA, [NWays(3), KShots(1, queries=2), *STANDARD], seed=9)
    _trees_equal(tasks.sample(tasks.key(12)), tasks[12])
    _trees_equal(tasks.sample(KEY), _call(tasks.to_device(), KEY))
    _trees_equal(tasks.sample(jax.random.key_data(KEY)), tasks.sample(KEY))
    assert tasks.key(12) == jax.random.fold_in(jax.random.key(9), 12)


@pytest.mark.slow
def test_maps_and_augmentations():
    images, labels = _images()
    transforms = [
        NWays(3),
        KShots(1, queries=2),
        LoadData(),
        Map(lambda x: x[::2] * 2),
        Map(lambda x: np.asarray(x)[:, ::2]),  # no JAX function
        Augment(partial(random_crop, padding=1)),
        Augment(lambda key, x: x + jax.random.uniform(key, x.shape), query=False),
        RemapLabels(),
    ]
    tasks = Taskset((images, labels), transforms)
    sampler = tasks.to_device()
    assert isinstance(sampler, Augmented) and sampler.example.shape == (1, 2, 2, 1)
    for i in range(4):
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), tasks[i], _call(sampler, tasks.key(i)))
    plain = Taskset((images, labels), [*transforms[:5], RemapLabels()])[0]
    assert not (plain.support.x == tasks[0].support.x).all()
    assert not np.allclose(tasks[0].support.x[0, 0, 0], tasks[0].support.x[1, 0, 0])


def test_examples_that_are_no_arrays():
    """Lists of examples are read through every `Map`, once on the device, task by task on the host."""
    examples = [([float(row), 1.0], f"class {label}") for row, label in enumerate(DATA[1])]
    transforms = [NWays(3), KShots(1, queries=2), LoadData(), Map(lambda x: np.asarray(x, np.float32)), *STANDARD]
    tasks = Taskset(examples, transforms)
    _trees_equal(tasks[3], _call(tasks.to_device(), tasks.key(3)))


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ([subset, NWays(2), KShots(1, queries=1), *STANDARD], "needs KShots, and before it at most NWays"),
        ([NWays(2), *STANDARD], "needs KShots"),
        ([NWays(2), KShots(1), *STANDARD], "needs queries in KShots"),
        ([NWays(2), KShots(1, queries=1), subset, *STANDARD], "cannot run <function subset"),
        ([NWays(2), KShots(1, queries=1), RemapLabels()], "needs LoadData"),
        ([NWays(2), KShots(1, queries=1), LoadData()], "needs LoadData and RemapLabels"),
        ([NWays(2), KShots(1, queries=1), ConsecutiveLabels(), *STANDARD], "ConsecutiveLabels after it"),
        ([NWays(2), KShots(1, queries=1), LoadData(), RemapLabels(False)], "after RemapLabels.shuffle=False"),
        ([RandomClassRotation((0, 180)), NWays(2), KShots(1, queries=1), *STANDARD], "all four turns"),
    ],
)
def test_what_needs_the_host_is_refused(transforms, message):
    with pytest.raises(ValueError, match=message):
        Taskset(_images(), transforms).to_device()
