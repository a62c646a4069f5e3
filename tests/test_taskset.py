"""Taskset: the properties of learn2learn's own tests, the distribution of tasks, and a user's own transforms."""

import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmeta.data import (
    Augment,
    ConsecutiveLabels,
    FilteredMetaDataset,
    FilterLabels,
    FusedNWaysKShots,
    KShots,
    LoadData,
    Map,
    NWays,
    RandomClassRotation,
    RemapLabels,
    TaskDataset,
    TaskDescription,
    Taskset,
)

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


def subset(description):
    """A user's transform: five examples at random."""
    return description.take(description.rng().choice(len(description.example), 5))


class TestLearn2LearnProperties:
    """What learn2learn's task_dataset_test.py and transforms_test.py assert; the rest is in test_meta_dataset.py."""

    def test_instantiation(self):
        """`len` is the number of tasks."""
        assert len(Taskset(DATA, [LoadData()], num_tasks=10)) == 10 and TaskDataset is Taskset

    def test_task_caching(self):
        """Iterating gives `num_tasks` tasks, again the same ones, and so does indexing."""
        tasks = Taskset(DATA, [LoadData(), subset], num_tasks=100)
        first = list(tasks)
        assert len(first) == 100
        _trees_equal(first, list(tasks))
        _trees_equal(first, [tasks[i] for i in range(100)])
        _trees_equal(tasks[-1], first[-1])

    def test_infinite_tasks(self):
        """Without `num_tasks` there are tasks without end, and consecutive ones differ.

        There `len` is 1, so that a loader that asks for task 0 gets a new one each time. Here task 0 is always the
        same, so a set without end has no length.
        """
        tasks = Taskset(DATA, [LoadData(), subset])
        seen = [task for task, _ in zip(tasks, range(200), strict=False)]
        for task, following in itertools.pairwise(seen):
            assert (task.x[:, 0] != following.x[:, 0]).any()
        _trees_equal(seen[150], tasks[150])
        with pytest.raises(TypeError, match="no length: give it num_tasks"):
            len(tasks)
        assert tasks  # has no length, but is not false

    def test_task_transforms(self):
        """Functions of the user's own choose examples; `LoadData` loads what they chose."""
        for x, y in Taskset(DATA, [LoadData(), subset], num_tasks=10):
            assert x.shape == (5, 3) and y.shape == (5,)
            np.testing.assert_array_equal(DATA[1][x[:, 0].astype(int)], y)

    @pytest.mark.parametrize("ways", range(1, 7))
    def test_n_ways(self, ways):
        """`NWays` keeps all examples of as many classes."""
        for x, y in Taskset(DATA, [NWays(ways), LoadData()], num_tasks=20):
            kept, counts = np.unique(y, return_counts=True)
            assert len(kept) == ways and [COUNTS[(label - 10) // 3] for label in kept] == counts.tolist()
            np.testing.assert_array_equal(DATA[1][x[:, 0].astype(int)], y)

    @pytest.mark.parametrize("replacement", [False, True])
    @pytest.mark.parametrize("shots", [1, 3, 6])
    def test_k_shots(self, shots, replacement):
        """`KShots` keeps as many examples of each class that is there."""
        for _, y in Taskset(DATA, [KShots(shots, replacement=replacement), LoadData()], num_tasks=20):
            kept, counts = np.unique(y, return_counts=True)
            assert len(kept) == len(COUNTS) and (counts == shots).all()

    def test_load_data(self):
        """With `LoadData` a task is a pair of arrays; without it the first is the examples' indices."""
        x, y = Taskset(DATA, [LoadData()])[0]
        np.testing.assert_array_equal(x, DATA[0])
        np.testing.assert_array_equal(y, DATA[1])
        np.testing.assert_array_equal(Taskset(DATA)[0].x, np.arange(len(DATA[1])))

    def test_filter_labels(self):
        """Only the chosen labels come."""
        for _, y in Taskset(DATA, [FilterLabels([13, 25]), LoadData()], num_tasks=5):
            assert set(y.tolist()) == {13, 25}

    @pytest.mark.parametrize("transforms", [(LoadData(), RemapLabels()), (RemapLabels(), LoadData())])
    @pytest.mark.parametrize("ways", [1, 4])
    def test_remap_labels(self, ways, transforms):
        """Labels are 0 to ways - 1, one for each class; learn2learn's must come after `LoadData`, here either way."""
        for x, y in Taskset(DATA, [NWays(ways), *transforms], num_tasks=20):
            assert set(y.tolist()) == set(range(ways))
            pairs = set(zip(y.tolist(), DATA[1][x[:, 0].astype(int)].tolist(), strict=True))
            assert len(pairs) == ways

    def test_fused_is_filter_then_ways_then_shots(self):
        """`FusedNWaysKShots` gives what its parts give."""
        parts = Taskset(DATA, [FilterLabels([10, 16, 19, 22]), NWays(2), KShots(3, queries=2), *STANDARD])
        fused = FusedNWaysKShots(2, 3, queries=2, filter_labels=[10, 16, 19, 22])
        _trees_equal(parts[4], Taskset(DATA, [fused, *STANDARD])[4])
        alone = parts.describe(4)._replace(**Taskset(DATA).describe(0)._asdict())._replace(key=parts.describe(4).key)
        np.testing.assert_array_equal(fused(alone).example, parts.describe(4).example)

    def test_consecutive_labels(self):
        """Examples are sorted by label; after `RemapLabels` by the new one (learn2learn sorts by the old one)."""
        for _, y in Taskset(DATA, [subset, RemapLabels(), ConsecutiveLabels()], num_tasks=10):
            assert (np.diff(y) >= 0).all()
        for _, y in Taskset(DATA, [NWays(3), KShots(2), ConsecutiveLabels()], num_tasks=10):
            assert (np.diff(y) >= 0).all() and y.min() >= 10


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_task_is_well_formed(data):
    """Each class once, K per class exactly, support and query disjoint, labels a permutation, same key same task."""
    counts = data.draw(st.lists(st.integers(2, 12), min_size=2, max_size=6), label="counts")
    ways = data.draw(st.integers(1, len(counts)), label="ways")
    shots = data.draw(st.integers(1, min(counts) - 1), label="shots")
    queries = data.draw(st.integers(1, min(counts) - shots), label="queries")
    seed = data.draw(st.integers(0, 2**32 - 1), label="seed")
    held_out = data.draw(st.integers(0, len(counts) - ways), label="held out")
    inputs, labels = _labeled(counts)
    names = np.unique(labels)
    part = FilteredMetaDataset((inputs, labels), names[held_out:])
    transforms = [NWays(ways), KShots(shots, queries=queries), LoadData(), RemapLabels()]
    tasks = Taskset(part, transforms, num_tasks=6, seed=seed)
    for i, task in enumerate(tasks):
        _trees_equal(task, Taskset(part, transforms, num_tasks=6, seed=seed)[i])
        rows = []
        for x, y, size in ((*task.support, shots), (*task.query, queries)):
            assert x.shape == (ways * size, 3) and np.bincount(y, minlength=ways).tolist() == [size] * ways
            rows.append(x[np.argsort(y, kind="stable"), 0].astype(int).reshape(ways, size))
        rows = np.concatenate(rows, axis=1)
        assert len(np.unique(rows)) == rows.size, "an example appears twice"
        classes = labels[rows]
        assert (classes == classes[:, :1]).all() and len(np.unique(classes[:, 0])) == ways
        assert not set(classes.ravel().tolist()) & set(names[:held_out].tolist()), "a class of another split"


@pytest.mark.parametrize(
    "transforms",
    [
        [NWays(3), KShots(1, queries=2), RemapLabels()],
        [NWays(3), lambda d: d, KShots(1, queries=2), RemapLabels()],
        [KShots(1, queries=2), NWays(3), RemapLabels()],
    ],
    ids=["fused", "apart", "shots-first"],
)
@pytest.mark.quick("fused", "apart")
def test_classes_labels_and_examples_are_uniform(transforms):
    _, labels = DATA
    tasks = Taskset(DATA, transforms, seed=4)
    chosen = np.zeros((3, len(COUNTS)))
    rows = np.zeros((2, len(labels)))
    for description in map(tasks.describe, range(1500)):
        assert description.query is not None
        classes = (labels[description.example] - 10) // 3
        for label in range(3):
            chosen[label, np.unique(classes[description.label == label])] += 1
        rows[0, description.example[~description.query]] += 1
        rows[1, description.example[description.query]] += 1
    for counts in chosen:
        assert counts.sum() == 1500 and scipy.stats.chisquare(counts).pvalue > 1e-4
    for part in rows:
        for label in np.unique(labels):
            assert scipy.stats.chisquare(part[labels == label]).pvalue > 1e-4


@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
@pytest.mark.slow
def test_any_class_counts_are_drawn_uniformly(data):
    """Every class as often as any other, however many examples it has, and so every example of a class."""
    counts = data.draw(st.lists(st.integers(3, 15), min_size=2, max_size=7), label="counts")
    ways = data.draw(st.integers(1, len(counts) - 1), label="ways")
    labels = _labeled(counts)[1]
    tasks = Taskset((labels, labels), [NWays(ways), KShots(1, queries=2)], seed=2)
    rows = np.concatenate([tasks.describe(i).example for i in range(600)])
    seen = np.bincount(rows, minlength=len(labels))
    of_class = [seen[labels == label] for label in np.unique(labels)]
    assert scipy.stats.chisquare([part.sum() / 3 for part in of_class]).pvalue > 1e-5  # three examples at a time
    for part in of_class:
        assert scipy.stats.chisquare(part).pvalue > 1e-5


def test_shuffled_labels_of_classes_that_were_not_drawn_are_uniform():
    tasks = Taskset(([0, 1, 2], ["a", "b", "c"]), [RemapLabels()], seed=1)
    codes = [int("".join(map(str, tasks.describe(i).label))) for i in range(600)]
    seen, counts = np.unique(codes, return_counts=True)
    assert seen.tolist() == [12, 21, 102, 120, 201, 210] and scipy.stats.chisquare(counts).pvalue > 1e-4


def test_seeds_differ_and_replacement_repeats():
    transforms = [NWays(3), KShots(3, queries=3), RemapLabels()]
    first, second = (Taskset(DATA, transforms, seed=seed).describe(0).example for seed in (0, 1))
    assert (first != second).any()
    drawn = Taskset(([1.0, 2.0, 3.0], [0, 0, 1]), [KShots(40, replacement=True)]).describe(0)
    assert np.bincount(drawn.example).tolist()[2] == 40 and (np.bincount(drawn.example)[:2] > 5).all()


def test_user_transforms_see_what_was_drawn_and_get_their_own_randomness():
    seen: list[TaskDescription] = []
    noise = []

    def look(description):
        seen.append(description)
        noise.append(description.rng().random())
        return description

    tasks = Taskset(DATA, [NWays(2), KShots(1, queries=1), look, RemapLabels(), look], seed=1)
    task = tasks[0]
    before, after = seen
    assert before.query is not None and before.way is not None
    assert before.query.tolist() == [False, True] * 2 and before.way.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(before.label, DATA[1][before.example])
    assert after.label.tolist() == [0, 0, 1, 1] and task.support.x.tolist() == after.example[[0, 2]].tolist()
    _ = tasks[0], tasks[1]
    assert noise[:2] == noise[2:4] and len(set(noise)) == 4


def test_collate_gets_pairs():
    tasks = Taskset(
        ([f"text {i}" for i in range(6)], list("aabbcc")),
        [NWays(2), KShots(1, queries=1), LoadData(), Map(str.upper), RemapLabels()],
        task_collate=list,
    )
    (support, query) = tasks[0]
    assert len(support) == len(query) == 2 and [y for _, y in support] == [0, 1]
    assert all(x.startswith("TEXT ") for x, _ in support + query)


def test_pickles():
    tasks = Taskset(_images(), [RandomClassRotation(), NWays(3), KShots(1, queries=2), *STANDARD], num_tasks=3)
    _trees_equal(list(pickle.loads(pickle.dumps(tasks))), list(tasks))


def test_sampling_runs_no_jax(monkeypatch):
    """So a forked worker can draw and load; JAX would hang there."""
    tasks = Taskset(_images(), [RandomClassRotation(), NWays(3), KShots(1, queries=2), *STANDARD], num_tasks=3)

    def fail(*args, **kwargs):
        raise AssertionError("JAX ran")

    for name in ("jit", "vmap", "device_put"):
        monkeypatch.setattr(jax, name, fail)
    for name in ("asarray", "where", "arange", "divmod", "expand_dims"):
        monkeypatch.setattr(jnp, name, fail)
    assert len(list(tasks)) == 3
    monkeypatch.setattr("jaxmeta.data.tasks._loading._PROCESS", -1)
    augmented = Taskset(DATA, [LoadData(), Augment(lambda key, x: x)])
    with pytest.raises(RuntimeError, match="forked process"):
        augmented[0]
