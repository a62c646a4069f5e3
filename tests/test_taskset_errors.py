# pyright: reportCallIssue=false, reportArgumentType=false
"""Taskset and its transforms name what is wrong with what they get."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from jaxmeta.data import (
    ConsecutiveLabels,
    FewShot,
    FilterLabels,
    FusedNWaysKShots,
    KShots,
    LoadData,
    Map,
    MetaDataset,
    NWays,
    RandomClassRotation,
    RemapLabels,
    Taskset,
    get_tasksets,
)

LABELS = np.repeat(3 * np.arange(6) + 10, (6, 9, 20, 7, 11, 8))
DATA = np.arange(len(LABELS), dtype=np.float32), LABELS
STANDARD = (LoadData(), RemapLabels(), ConsecutiveLabels())


def subset(description):
    return description.take(np.arange(50))


def wrong(value: Any) -> Any:
    """A value that type checkers would refuse."""
    return value


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (partial(Taskset, DATA, [NWays(7), KShots(1)]), ValueError, "ways=7 for 6 classes"),
        (partial(Taskset, DATA, [NWays(2), KShots(7)]), ValueError, "k must be at most .* 7, but class 10 has 6 exa"),
        (partial(Taskset, DATA, [NWays(2), KShots(3, queries=4)]), ValueError, r"k \+ queries .* 3 \+ 4, but class 10"),
        (
            lambda: Taskset(DATA, [subset, NWays(2), KShots(7)])[0],
            ValueError,
            "k must be at most .* got 7, but class 10 has 6",
        ),
        (partial(Taskset, DATA, [FilterLabels([10, 11])]), ValueError, r"got \[11\] that are not among its 6"),
        (partial(Taskset, DATA, [FilterLabels([])]), ValueError, "at least one class"),
        (partial(Taskset, DATA, [FilterLabels(["10"])]), ValueError, "not among"),
        (partial(NWays, 0), ValueError, "n must be an integer of at least 1, got 0"),
        (partial(KShots, wrong(1.5)), ValueError, "k must be an integer of at least 1"),
        (partial(KShots, 1, 0), ValueError, "queries must be an integer of at least 1"),
        (partial(NWays, wrong(MetaDataset(DATA))), TypeError, r"write NWays\(\)"),
        (partial(RemapLabels, wrong(MetaDataset(DATA))), TypeError, "transforms take no data set"),
        (partial(Map, wrong(3)), TypeError, "fn must be a function"),
        (partial(RandomClassRotation, (0, 45)), ValueError, "multiples of 90"),
        (partial(RandomClassRotation, (90, 450)), ValueError, "different angles"),
        (lambda: Taskset(DATA, [NWays(2), RandomClassRotation()])[0], ValueError, "must come before NWays"),
        (partial(Taskset, DATA, [RandomClassRotation(), RandomClassRotation()]), ValueError, "only once"),
        (
            lambda: Taskset((np.zeros((4, 2, 3, 1)), [0, 0, 1, 1]), [RandomClassRotation([90]), LoadData()])[0],
            ValueError,
            "square images",
        ),
        (partial(Taskset, DATA, wrong([LoadData])), TypeError, "functions such as LoadData"),
        (
            lambda: Taskset(DATA, wrong([lambda description: None]))[0],
            TypeError,
            "must return a TaskDescription, got NoneType",
        ),
        (lambda: Taskset(DATA, [lambda d: d.take(d.label < 0)])[0], ValueError, "left no examples"),
        (partial(Taskset, DATA, num_tasks=0), ValueError, "num_tasks must be an integer of at least 1, got 0"),
        (partial(Taskset, DATA, seed=-1), ValueError, "seed must be an integer of at least 0, got -1"),
        (partial(Taskset, DATA, seed=1 << 32), ValueError, "seed must be less than 2.32, got 4294967296"),
        (
            lambda: KShots(wrong(1), **{"query": 2}),
            TypeError,
            "KShots takes k, queries, replacement, got query=2. Did you mean",
        ),
        (lambda: LoadData(**{"n": 2}), TypeError, "LoadData takes no arguments, got n=2"),
        (
            lambda: FewShot.create(["a/1.PNG"] * 4, [0, 1, 0, 1]),
            ValueError,
            "'a/1.PNG' looks like a path: read the pict",
        ),
        (lambda: Taskset(DATA, num_tasks=3)[3], IndexError, "task 3 is out of range for 3 tasks"),
        (lambda: Taskset(DATA)[-1], IndexError, "task -1 is out of range"),
        (lambda: Taskset(DATA).sample(wrong(3)), TypeError, "key must be one key such as jax.random.key"),
        (lambda: Taskset(([[1], [1, 2]], [0, 1]), [LoadData()])[0], ValueError, "same shape to be stacked"),
        (
            lambda: Taskset((["a", "b"] * 4, [0, 1] * 4), [KShots(1, 1), *STANDARD]).to_device(),
            ValueError,
            "be numbers",
        ),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def odd(x):
    return x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: NWays(d, n=5), r"no data set, because the Taskset passes its own: write NWays\(n=5\)"),
        (lambda d: NWays(d, 5), r"write NWays\(5\)"),
        (lambda d: KShots(d, k=2), r"write KShots\(k=2\)"),
        (lambda d: FusedNWaysKShots(d, n=5, k=2), r"write FusedNWaysKShots\(n=5, k=2\)"),
        (lambda d: LoadData(d), r"write LoadData\(\)"),
        (lambda d: ConsecutiveLabels(d), r"write ConsecutiveLabels\(\)"),
        (lambda d: FilterLabels(d, [1, 2]), r"write FilterLabels\(\[1, 2\]\)"),
        (lambda d: RandomClassRotation(d, [0, 90]), r"write RandomClassRotation\(\[0, 90\]\)"),
        (lambda d: Taskset(d, wrong([lambda task: [(odd(x), y) for x, y in task]]))[0], r"unpack.* use Map\(f\)"),
        (
            lambda d: Taskset(d, wrong([lambda task: [odd(x) for x in task.data]]))[0],
            r"no attribute 'data'.* use Map\(f\)",
        ),
        (
            lambda d: Taskset(d, wrong([lambda task: list(task)]))[0],
            r"TaskDescription, got list\. A task .* use Map\(f\)",
        ),
        (lambda d: get_tasksets("glyphs", train_ways=5), r"got train_ways=5: get_tasksets has ways for training"),
        (lambda d: get_tasksets("omniglot", train_samples=10), "has shots .* and queries .* instead of their sum"),
        (lambda d: get_tasksets("glyphs", num_tasks=20), "data.FixedTasks"),
        (lambda d: get_tasksets("glyphs", shot=20), "has no such argument. Did you mean 'shots'"),
    ],
)
@pytest.mark.parametrize("dataset", [MetaDataset(DATA), [(0.0, "a"), (1.0, "b"), (2.0, "b")]], ids=["own", "list"])
def test_code_of_learn2learn_is_told_what_to_write(make, message, dataset):
    class Foreign:  # as a data set of torch
        __len__, __getitem__ = dataset.__len__, dataset.__getitem__

    with pytest.raises(TypeError, match=message):
        make(dataset if isinstance(dataset, MetaDataset) else Foreign())


def test_labels_are_no_data_set():
    for labels in ([10, 13], (10, 13), np.array([10, 13]), range(10, 14, 3)):
        assert len(Taskset(DATA, [FilterLabels(labels)])[0].y) == 15  # pyright: ignore[reportArgumentType]
