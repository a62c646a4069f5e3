"""FewShot: every promise of the task distribution, and the sampling without replacement beneath it."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmeta.data import (
    Augmented,
    FewShot,
    FixedTasks,
    KShots,
    LoadData,
    MetaDatasetSampler,
    NWays,
    RemapLabels,
    Streams,
    Taskset,
    sample_without_replacement,
)
from jaxmeta.data.samplers._sampling import distinct
from jaxmeta.data.tasks._threefry import random_words

KEY = jax.random.key(0)
COUNTS = (4, 7, 20, 5, 9)


def _labeled(counts, shape=(3,)):
    """Examples whose first entry is their own row, with shuffled labels 10, 11, ..."""
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)) + 10, counts))
    inputs = np.zeros((len(labels), *shape), np.float32)
    inputs[(slice(None), *[0] * len(shape))] = np.arange(len(labels))
    return inputs, labels


def _images(classes=3, examples=6, size=4):
    """Images whose pixels are all different within an image, and between classes."""
    pixels = np.arange(classes * size * size).reshape(classes, 1, size, size, 1)
    return np.repeat(pixels, examples, axis=1).astype(np.uint8)


@jax.jit
def _one(sampler, key):
    return sampler(key)


@jax.jit
def _tasks(sampler, keys):
    return jax.vmap(sampler)(keys), jax.vmap(sampler.indices)(keys)


@partial(jax.jit, static_argnums=2)
def _traced(keys, n, k):
    return jax.vmap(lambda key: sample_without_replacement(key, n, k))(keys)


def _check_uniform(counts, expected=None):
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-4


@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 1), (5, 5), (20, 16), (1623, 5), (100_000, 3)])
def test_sample_without_replacement_is_distinct_and_in_range(n, k):
    keys = jax.random.split(KEY, 2000)
    drawn = np.asarray(_traced(keys, n, k))
    assert drawn.shape == (2000, k) and drawn.dtype == np.int32
    assert drawn.min() >= 0 and drawn.max() < n
    assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()
    words = random_words(np.asarray(jax.random.key_data(keys)), (k,))
    np.testing.assert_array_equal(drawn, distinct(words, n))  # on the host, where n is a number


@pytest.mark.parametrize(("n", "k"), [(4, 2), (4, 4), (5, 3)])
def test_sample_without_replacement_gives_every_arrangement_equally_often(n, k):
    keys = jax.random.split(jax.random.key(7), 40_000)
    drawn = np.asarray(_traced(keys, n, k))
    codes = drawn @ (n ** np.arange(k))
    seen = np.unique(codes, return_counts=True)[1]
    assert len(seen) == np.prod(np.arange(n - k + 1, n + 1))
    _check_uniform(seen)


def test_sample_without_replacement_reaches_all_of_a_large_range():
    n = 2**31 - 1
    keys = jax.random.split(KEY, 20_000)
    drawn = np.asarray(_traced(keys, n, 2))
    for column in drawn.T:
        _check_uniform(np.histogram(column, bins=16, range=(0, n))[0])


@settings(max_examples=6, deadline=None)  # each compiles; test_taskset.py has more, of the same code on the host
@given(data=st.data())
def test_every_task_is_well_formed(data):
    counts = data.draw(st.lists(st.integers(2, 12), min_size=2, max_size=6), label="counts")
    ways = data.draw(st.integers(1, len(counts)), label="ways")
    shots = data.draw(st.integers(1, min(counts) - 1), label="shots")
    queries = data.draw(st.integers(1, min(counts) - shots), label="queries")
    seed = data.draw(st.integers(0, 2**31), label="seed")
    inputs, labels = _labeled(counts)
    sampler = FewShot.create(inputs, labels, ways=ways, shots=shots, queries=queries)
    tasks, indices = _tasks(sampler, jax.random.split(jax.random.key(seed), 8))
    for i in range(8):
        seen = []
        task = jax.tree.map(lambda a, i=i: a[i], tasks)
        for part, index, size in zip(task, indices, (shots, queries), strict=True):
            assert part.x.shape == (ways * size, 3) and part.x.dtype == jnp.float32
            assert part.y.dtype == jnp.int32 and part.y.tolist() == np.repeat(np.arange(ways), size).tolist()
            rows = np.asarray(part.x[:, 0]).astype(int)
            np.testing.assert_array_equal(rows, index.x.example[i])
            np.testing.assert_array_equal(part.y, index.y[i])
            assert not index.x.turns[i].any()
            seen.append(rows.reshape(ways, size))
        rows = np.concatenate(seen, axis=1)
        assert len(np.unique(rows)) == ways * (shots + queries), "an example appears twice"
        classes = labels[rows]
        assert (classes == classes[:, :1]).all(), "an example of another class"
        assert len(np.unique(classes[:, 0])) == ways, "a class appears twice"


def test_classes_positions_and_examples_are_uniform():
    inputs, labels = _labeled(COUNTS)
    sampler = FewShot.create(inputs, labels, ways=3, shots=1, queries=2)
    _, indices = _tasks(sampler, jax.random.split(jax.random.key(3), 20_000))
    rows = np.concatenate([np.asarray(part.x.example).reshape(20_000, 3, -1) for part in indices], axis=2)
    classes = labels[rows[:, :, 0]]
    for way in range(3):
        _check_uniform(np.unique(classes[:, way], return_counts=True)[1])
    for slot in range(3):
        for label, count in enumerate(COUNTS):
            drawn = rows[:, :, slot][classes == label + 10]
            seen = np.unique(drawn, return_counts=True)[1]
            assert len(seen) == count
            _check_uniform(seen)


def test_same_key_same_task_and_other_key_other_task():
    sampler = FewShot.create(*_labeled(COUNTS), ways=3, shots=1, queries=3)
    first, again, other = (_one(sampler, key) for key in (KEY, KEY, jax.random.key(1)))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first.query.x != other.query.x).any()


def test_jit_vmap_and_pmap_agree():
    sampler = FewShot.from_classes(_images(), ways=3, shots=1, queries=2, rotations=4)
    keys = jax.random.split(KEY, (1, 6))
    expected = jax.tree.map(lambda *a: jnp.stack(a)[None], *[_one(sampler, key) for key in keys[0]])
    nested = jax.jit(jax.vmap(jax.vmap(sampler)))(keys)
    mapped = jax.pmap(jax.vmap(sampler))(keys)
    jax.tree.map(np.testing.assert_array_equal, nested, expected)
    jax.tree.map(np.testing.assert_array_equal, mapped, expected)


def test_samples_without_transfers_as_an_argument():
    sampler = FewShot.from_classes(_images(), ways=3, shots=1, queries=2, rotations=4)
    keys = jax.random.split(KEY, 3)
    with jax.transfer_guard("disallow"), jax.numpy_rank_promotion("raise"):
        jax.block_until_ready(_tasks(sampler, keys))


def test_rotations_are_classes_and_turn_a_class_as_a_whole():
    images = _images(classes=2, examples=6)
    sampler = FewShot.from_classes(images, ways=8, shots=2, queries=3, rotations=4)
    assert sampler.num_classes == 8
    task, index = _one(sampler, KEY), jax.jit(lambda s, k: s.indices(k))(sampler, KEY)
    turned = {(c, r): np.rot90(images[c, 0], r) for c in range(2) for r in range(4)}
    found = []
    for part, where in zip(task, index, strict=True):
        x = np.round(np.asarray(part.x) * 255).reshape(8, -1, 4, 4, 1)
        assert (x == x[:, :1]).all(), "examples of one class are turned differently"
        found.append([next(key for key, image in turned.items() if (image == one).all()) for one in x[:, 0]])
        assert [turn for _, turn in found[-1]] == where.x.turns.reshape(8, -1)[:, 0].tolist()
    assert found[0] == found[1], "support and query are turned differently"
    assert sampler.class_ids(KEY).tolist() == [2 * turns + number for number, turns in found[0]]
    assert sorted(found[0]) == sorted(turned)  # with ways = all classes, each class and rotation once


def test_rotated_classes_are_equally_likely():
    sampler = FewShot.from_classes(_images(), ways=2, shots=1, queries=1, rotations=4)
    _, indices = _tasks(sampler, jax.random.split(jax.random.key(5), 10_000))
    index = indices.query.x
    codes = 4 * (np.asarray(index.example) // 6) + np.asarray(index.turns)
    _check_uniform(np.bincount(codes.ravel(), minlength=12))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(np.uint8, np.float32), (np.float32, np.float32), (np.float16, np.float16), (np.int32, np.int32)],
)
def test_types_and_example(dtype, expected):
    images = (_images() % 16).astype(dtype)
    sampler = FewShot.from_classes(images, ways=2, shots=1, queries=1, rotations=4)
    tasks, indices = _tasks(sampler, KEY[None])
    x = tasks.support.x[0]
    assert x.dtype == sampler.example.dtype == expected
    assert sampler.example.shape == (1, 4, 4, 1) == (1, *x.shape[1:])
    row = indices.support.x
    image = np.rot90(images.reshape(-1, 4, 4, 1)[row.example[0, 0]], int(row.turns[0, 0]))
    scale = 255 if dtype == np.uint8 else 1
    np.testing.assert_allclose(np.asarray(x[0], np.float64), image.astype(np.float64) / scale, rtol=1e-6)


def test_create_and_from_classes_agree():
    images = _images()
    grouped = FewShot.from_classes(images, ways=2, shots=1, queries=1)
    labeled = FewShot.create(images.reshape(-1, 4, 4, 1), np.repeat([5, 6, 7], 6), ways=2, shots=1, queries=1)
    jax.tree.map(np.testing.assert_array_equal, grouped, labeled)


def test_with_sizes_shares_the_arrays_and_checks():
    sampler = FewShot.create(*_labeled(COUNTS), ways=2, shots=1, queries=1)
    other = sampler.with_sizes(ways=5, queries=3)
    assert (other.ways, other.shots, other.queries) == (5, 1, 3) and other.inputs is sampler.inputs
    with pytest.raises(ValueError, match=r"shots.*smallest class, got 2 \+ 3"):
        other.with_sizes(shots=2)


def test_sizes_that_are_pairs_are_uniform_and_padded_with_weight_zero():
    inputs, labels = _labeled((8, 7, 20, 9, 9))
    plain = FewShot.create(inputs, labels, ways=4, shots=3, queries=2)
    keys = jax.random.split(KEY, 6_000)
    expected, _ = _tasks(plain, keys)
    for changed, sizes in {
        (True, True): {"ways": (2, 4)},
        (True, False): {"shots": (1, 3)},
        (False, True): {"queries": (1, 2)},
    }.items():
        tasks, _ = _tasks(plain.with_sizes(**sizes), keys)
        assert (tasks.support.weight is not None, tasks.query.weight is not None) == changed
        jax.tree.map(np.testing.assert_array_equal, [part[:2] for part in tasks], [part[:2] for part in expected])
    tasks, _ = _tasks(plain.with_sizes(ways=(2, 4), shots=(1, 3), queries=(1, 2)), keys)
    support, query = (np.asarray(part.weight).reshape(6_000, 4, -1) for part in tasks)
    ways, shots, queries = support.any(2).sum(1), support.sum(2).max(1), query.sum(2).max(1)
    codes = np.asarray(6 * (ways - 2) + 2 * (shots - 1) + queries - 1, int)
    _check_uniform(np.bincount(codes, minlength=18))
    for weight, number in ((support, shots), (query, queries)):
        counts = (np.arange(4) < ways[:, None])[:, :, None] & (np.arange(weight.shape[2]) < number[:, None, None])
        np.testing.assert_array_equal(weight, counts)


def test_sorted_classes_come_before_those_of_padding():
    sampler = FewShot.create(*_labeled(COUNTS), ways=(2, 4), shots=1, queries=1)
    sampler = dataclasses.replace(sampler, shuffle=False)
    _, indices = _tasks(sampler, jax.random.split(KEY, 500))
    classes = _labeled(COUNTS)[1][indices.support.x.example]
    counted = np.asarray(indices.support.weight) > 0
    first = np.where(counted, classes, 99)
    assert (np.diff(first, axis=1) >= 0).all() and len(np.unique(first[:, 0])) == 4


SAMPLERS = {
    "few-shot": lambda *given: FewShot.create(*given, ways=3, shots=2, queries=1),
    "sizes": lambda *given: FewShot.create(*given, ways=(2, 4), shots=(1, 2), queries=1),
    "sorted": lambda *given: dataclasses.replace(FewShot.create(*given, ways=(2, 4), queries=1), shuffle=False),
    "streams": lambda *given: Streams(FewShot.create(*given, ways=3, queries=1), outputs=5),
    "fixed": lambda *given: FixedTasks(FewShot.create(*given, ways=3, queries=1), KEY, num_tasks=4),
    "augmented": lambda *given: Augmented(FewShot.create(*given, ways=3, queries=1), ()),
    "host": lambda *given: Taskset(given, [NWays(3), KShots(2, queries=1), LoadData(), RemapLabels()]),
    "meta-dataset": lambda *given: MetaDatasetSampler.create(*given, ways=(2, 4), max_support=12),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_class_ids_are_those_of_the_examples(name):
    inputs, labels = _labeled(COUNTS)
    sampler = SAMPLERS[name](inputs, labels)
    keys = jax.random.split(KEY, 30)
    tasks, ids = jax.jit(lambda s, keys: (jax.vmap(s)(keys), jax.vmap(s.class_ids)(keys)))(sampler, keys)
    for part in tasks:
        counted = np.ones(part.y.shape, bool) if part.weight is None else np.asarray(part.weight) > 0
        own = labels[np.asarray(part.x)[..., 0].astype(int)] - 10
        np.testing.assert_array_equal(np.take_along_axis(np.asarray(ids), part.y, axis=1)[counted], own[counted])


@pytest.mark.slow
def test_streams_give_each_class_a_random_output():
    tasks = FewShot.create(*_labeled(COUNTS), ways=3, shots=2, queries=1)
    drawn = jax.vmap(Streams(tasks, outputs=10))(jax.random.split(KEY, 200))
    support, query = np.asarray(drawn.support.y).reshape(200, 3, 2), np.asarray(drawn.query.y)
    np.testing.assert_array_equal(support, np.repeat(query[..., None], 2, axis=-1))
    assert all(len(set(outputs)) == 3 for outputs in query.tolist()) and set(query.ravel().tolist()) == set(range(10))
    np.testing.assert_array_equal(
        drawn.support.x, jax.vmap(lambda key: tasks(jax.random.split(key)[0]).support.x)(jax.random.split(KEY, 200))
    )
    with pytest.raises(ValueError, match="outputs must be at least the ways of the tasks, 3, got 2"):
        Streams(tasks, outputs=2)(KEY)
    with pytest.raises(ValueError, match="outputs must be an integer of at least 1, got 0"):
        Streams(tasks, outputs=0)


_INPUTS, _LABELS = _labeled(COUNTS)
_OK = {"ways": 2, "shots": 1, "queries": 1}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(FewShot.create, _INPUTS, _LABELS, **_OK | {"ways": 6}), "ways.*got ways=6 for 5 classes"),
        (partial(FewShot.create, _INPUTS, _LABELS, **_OK | {"queries": 4}), r"1 \+ 4, but class 10 has 4 examples"),
        (
            partial(FewShot.create, _INPUTS, _LABELS, **_OK | {"ways": 0}),
            "ways must be an integer of at least 1",
        ),
        (
            partial(FewShot.create, _INPUTS, _LABELS, **_OK | {"shots": -1}),
            "shots must be an integer of at least 1",
        ),
        (
            partial(FewShot.create, _INPUTS, _LABELS, **_OK | {"queries": 1.5}),
            "queries must be an integer",
        ),
        (partial(FewShot.create, _INPUTS, _LABELS, **_OK | {"shots": (0, 2)}), r"shots\[0\] must be an integer of at"),
        (partial(FewShot.create, _INPUTS, _LABELS, **_OK | {"ways": (3, 2)}), r"a pair \(least, most\), got \(3, 2\)"),
        (partial(FewShot.create, _INPUTS, _LABELS, **_OK | {"ways": (3,)}), r"ways must be an integer or a pair"),
        (partial(FewShot.create, _INPUTS, _LABELS, **_OK | {"ways": (2, 6)}), r"got ways=\(2, 6\) for 5 classes"),
        (partial(FewShot.create, _INPUTS, _LABELS[:-1], **_OK), "got 44 labels for 45 inputs"),
        (partial(FewShot.create, _INPUTS, _LABELS.astype(float), **_OK), "labels must be integers.*float64"),
        (partial(FewShot.create, _INPUTS, _LABELS[:, None], **_OK), r"labels must be .*shape \[M\]"),
        (partial(FewShot.create, _INPUTS, _LABELS, rotations=2, **_OK), "rotations must be one of 1, 4, got 2"),
        (partial(FewShot.create, _INPUTS, _LABELS, rotations=4, **_OK), "rotations=4 needs square images"),
        (partial(FewShot.create, np.zeros((2, 3, 4, 1)), [0, 1], rotations=4, **_OK), "rotations=4 needs square"),
        (partial(FewShot.create, np.zeros((0, 3)), np.zeros(0, int), **_OK), "inputs must be a non-empty"),
        (partial(FewShot.create, np.array(["a", "b"]), [0, 1], **_OK), "inputs must be numbers"),
        (partial(FewShot.from_classes, np.zeros((0, 3, 2)), **_OK), "inputs must be a non-empty"),
        (partial(FewShot.from_classes, np.zeros(3), **_OK), "inputs must be a non-empty"),
        (partial(FewShot.from_classes, np.zeros((4, 1, 2)), **_OK), r"1 \+ 1, but class 0 has 1 examples"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_the_index_is_as_long_as_the_data():
    """A class with most of the examples costs nothing for the others, and all of its examples come up."""
    labels = np.concatenate([np.zeros(3000, int), np.repeat(np.arange(1, 401), 2)])
    x = np.arange(len(labels), dtype=np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    for sampler in (
        FewShot.create(x[order], labels[order], ways=401, queries=1),
        MetaDatasetSampler.create(x[order], labels[order], ways=(2, 3)),
    ):
        index = [leaf for leaf in jax.tree.leaves(sampler) if leaf is not sampler.inputs]
        assert sum(leaf.size for leaf in index) <= len(labels) + 4 * 401
    few = FewShot.create(x[order], labels[order], ways=401, queries=1)
    tasks = jax.jit(lambda s, k: jax.vmap(s)(k))(few, jax.random.split(KEY, 40))
    seen, classes = np.asarray(tasks.query.x).reshape(40, 401), np.asarray(tasks.support.x).reshape(40, 401)
    assert (labels[seen] == labels[classes]).all() and (seen != classes).all()
    assert all(len(set(labels[row])) == 401 for row in seen)
    assert len(set(seen[labels[seen] == 0])) > 35
