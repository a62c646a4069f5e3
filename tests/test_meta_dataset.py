"""MetaDataset and what is around it: the properties of learn2learn's own tests, every kind of data, and bad input."""

import pickle
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmeta.data import (
    FewShot,
    FilteredMetaDataset,
    InfiniteIterator,
    KShots,
    LoadData,
    MetaDataset,
    OnDeviceDataset,
    RemapLabels,
    Taskset,
    UnionMetaDataset,
    partition_task,
)

ALPHABET = [chr(97 + i) for i in range(26)]


class Images:
    """As torchvision's data sets: reads an example when asked, shows labels elsewhere."""

    def __init__(self, labels, shown=None, name="targets", target_transform=None):
        self._labels = labels
        self.read = []
        if shown is not None:
            setattr(self, name, shown)
            self.target_transform = target_transform

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, index) -> Any:
        assert isinstance(index, int)
        self.read.append(index)
        return np.full((2, 2), index), self._labels[index]


class Rows(Images):
    """As a data source of TensorFlow Datasets."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return {"image": x, "label": y, "id": index}


class Table(Rows):
    """As a data set of Hugging Face: a column is read without the others."""

    column_names = ("image", "label", "id")

    def __getitem__(self, index):
        return self._labels if index == "label" else super().__getitem__(index)


class View:
    """As torch.utils.data.Subset."""

    def __init__(self, dataset, indices):
        self.dataset, self.indices = dataset, indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        return self.dataset[self.indices[index]]


class Joined:
    """As torch.utils.data.ConcatDataset."""

    def __init__(self, datasets):
        self.datasets, self.cumulative_sizes = datasets, np.cumsum([len(part) for part in datasets]).tolist()

    def __len__(self):
        return self.cumulative_sizes[-1]

    def __getitem__(self, index):
        part = int(np.searchsorted(self.cumulative_sizes, index, side="right"))
        return self.datasets[part][index - self.cumulative_sizes[part] + len(self.datasets[part])]


class TestLearn2LearnProperties:
    """What learn2learn's metadataset_test.py and utils_test.py assert; Omniglot's sizes are in test_omniglot.py."""

    alphabet = MetaDataset([([float(i)] * 8, letter) for i, letter in enumerate(ALPHABET)])

    def test_fails_with_what_is_no_data_set(self):
        """An array without labels is refused with a TypeError."""
        with pytest.raises(TypeError, match=r"dataset\[0\] must be a pair \(x, y\), got ndarray"):
            MetaDataset(np.random.default_rng(0).normal(size=(10, 10)))

    def test_lengths_and_labels(self):
        """There are as many examples as in the data, and the labels are those of the examples, each once."""
        numbers = MetaDataset((np.zeros((100, 3)), np.arange(100) % 7))
        assert len(numbers) == 100 and numbers.labels == list(range(7))
        words = MetaDataset([(i, ("cat", "dog")[i % 2]) for i in range(9)])
        assert len(words) == 9 and words.labels == ["cat", "dog"]
        assert len(self.alphabet) == 26 and self.alphabet.labels == ALPHABET

    def test_get_item(self):
        """`dataset[i]` is the example as it is in the data."""
        for i in (0, 7, 25, -1):
            assert self.alphabet[i] == ([float(i % 26)] * 8, ALPHABET[i])
        with pytest.raises(IndexError, match="26 is out of range for 26"):
            self.alphabet[26]

    def test_labels_to_indices(self):
        """`labels_to_indices` and `indices_to_labels` are each other's inverse."""
        assert list(self.alphabet.labels_to_indices) == ALPHABET
        for label, indices in self.alphabet.labels_to_indices.items():
            assert indices.tolist() == [ord(label) - 97]
        labels = np.random.default_rng(0).integers(0, 5, 60)
        dataset = MetaDataset((np.zeros(60), labels))
        assert [dataset.indices_to_labels[i] for i in range(60)] == labels.tolist()
        assert {i: label for label, rows in dataset.labels_to_indices.items() for i in rows.tolist()} == dict(
            enumerate(labels.tolist())
        )

    def test_union(self):
        """A union has the examples of all in order, and a class for each class of each."""
        parts = [MetaDataset((100 * k + np.arange(30), np.arange(30) % (k + 2))) for k in range(3)]
        union = UnionMetaDataset(parts)
        assert len(union) == len(union.indices_to_labels) == 90
        assert union.labels == list(range(2 + 3 + 4))
        for part, start, first in zip(parts, (0, 30, 60), (0, 2, 5), strict=True):
            for i in (0, 23, 29):
                assert union[start + i] == (part[i][0], part[i][1] + first)
        x = Taskset(union, [LoadData()])[0].x
        np.testing.assert_array_equal(x, np.concatenate([np.arange(30), 100 + np.arange(30), 200 + np.arange(30)]))

    def test_filter(self):
        """A filtered set has the examples of the chosen labels, and their labels as they were."""
        labels = np.random.default_rng(0).integers(0, 6, 50)
        few = FilteredMetaDataset((np.arange(50), labels), [4, 1])
        assert few.labels == [1, 4] and len(few) == np.isin(labels, [1, 4]).sum()
        for i in range(len(few)):
            x, y = few[i]
            assert y in (1, 4) and labels[x] == y

    @pytest.mark.parametrize("shots", [0, 1, 7, 19])
    def test_partition_task(self, shots):
        """Of one class of 20, `shots` are support and the others query."""
        data = np.random.default_rng(0).normal(size=(20, 10))
        (x, y), (query_x, query_y) = partition_task(data, np.zeros(20, int), shots)
        assert len(x) == len(y) == shots and len(query_x) == len(query_y) == 20 - shots
        np.testing.assert_array_equal(np.concatenate([x, query_x]), data)

    def test_infinite_iterator(self):
        """The items come again and again in order."""
        loader = InfiniteIterator([np.array(i) for i in range(4)])
        assert [int(x) for x, _ in zip(loader, range(11), strict=False)] == [i % 4 for i in range(11)]


def test_partition_of_unordered_labels_with_unequal_counts():
    labels = np.array([2, 0, 2, 1, 0, 2, 1, 2])
    task = partition_task(jnp.arange(8), jnp.asarray(labels), 2)
    assert isinstance(task.support.x, jax.Array)
    assert task.support.x.tolist() == [1, 4, 3, 6, 0, 2] and task.support.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert task.query.x.tolist() == [5, 7] and task.query.y.tolist() == [2, 2]


LABELS = [3, 1, 3, 1, 1, 8]
EXPECTED = {1: [1, 3, 4], 3: [0, 2], 8: [5]}


@pytest.mark.parametrize(
    ("dataset", "keys", "read"),
    [
        (Images(LABELS), None, 6),
        (Images([np.array(label) for label in LABELS]), None, 6),
        (Images(LABELS, LABELS), None, 3),
        (Images(LABELS, np.array(LABELS), "labels"), None, 3),
        (Images(LABELS, ["one", "three", "eight"], "labels"), None, 6),  # names of classes
        (Images(LABELS, [0, 1, 3, 1, 1, 8]), None, 9),  # not the labels: the first differs, so all are read
        (Images([label + 1 - 1 for label in LABELS], LABELS, target_transform=abs), None, 6),
        (Rows(LABELS), ("image", "label"), 6),
        (Table(LABELS), ("image", "label"), 3),
        (View(Images([9, *LABELS], [9, *LABELS]), range(1, 7)), None, 3),
        (Joined([Images(LABELS[:2], LABELS[:2]), Images(LABELS[2:], LABELS[2:])]), None, 3),
        ([(i, label, "more") for i, label in enumerate(LABELS)], (0, 1), None),
        ((np.zeros((6, 2)), LABELS), None, None),
        ((jnp.zeros((6, 2)), jnp.array(LABELS)), None, None),
        ((list("abcdef"), LABELS), None, None),
    ],
)
def test_every_kind_of_data_gives_the_same_bookkeeping(dataset, keys, read):
    """And examples are read only where labels are not shown (three are, to see that what is shown is the labels)."""
    found = MetaDataset(dataset, keys=keys, progress=False)
    if read is not None:
        sources = [dataset, getattr(dataset, "dataset", None), *getattr(dataset, "datasets", ())]
        assert sum(len(getattr(source, "read", ())) for source in sources) == read
    assert {label: rows.tolist() for label, rows in found.labels_to_indices.items()} == EXPECTED
    assert found[5][1] == 8


def test_rows_are_read_by_name():
    x, y = MetaDataset(Rows(LABELS), keys=("id", "label"), progress=False)[4]
    assert (x, y) == (4, 1)


def test_given_labels_ask_nothing():
    data = Images(LABELS)
    assert MetaDataset(data, labels=["a", "b", "a", "b", "b", "c"]).labels == ["a", "b", "c"] and not data.read


def test_numbers_that_change_are_never_stale():
    """Nothing is kept outside the object, so a changed data set gives changed labels."""
    data = Images(list(LABELS), list(LABELS))
    assert MetaDataset(data).labels == [1, 3, 8]
    data._labels[5] = vars(data)["targets"][5] = 2
    assert MetaDataset(data).labels == [1, 2, 3]


@pytest.mark.parametrize("device", [0, 3, "mesh"])
def test_on_device(device):
    """D2 of learn2learn (its benchmark drops `device=`): the data lie where they were asked to, and tasks with them."""
    devices = jax.devices()
    where = devices[device] if device != "mesh" else _sharding()
    inputs, labels = np.arange(60.0, dtype=np.float32).reshape(30, 2), np.arange(30) % 3
    dataset = OnDeviceDataset((inputs, labels), where, lambda x: 2 * x)
    assert dataset.inputs.devices() == (set(devices) if device == "mesh" else {where})
    assert len(dataset) == 30 and dataset[29][1] == 2
    np.testing.assert_array_equal(dataset[29][0], 2 * inputs[29])
    tasks = Taskset(dataset, [KShots(1, queries=2), LoadData(), RemapLabels()])
    sampler = tasks.to_device(where)
    assert isinstance(sampler, FewShot)
    np.testing.assert_array_equal(sampler.inputs, dataset.inputs)
    if device != "mesh":
        assert sampler.inputs.unsafe_buffer_pointer() == dataset.inputs.unsafe_buffer_pointer()
    task = jax.jit(lambda s, k: s(k))(sampler, tasks.key(0))
    jax.tree.map(np.testing.assert_array_equal, task, tasks[0])
    jax.tree.map(np.testing.assert_array_equal, task, pickle.loads(pickle.dumps(tasks))[0])


def _sharding(kind=AxisType.Auto, spec=("data",)):
    return NamedSharding(jax.make_mesh((8,), ("data",), axis_types=(kind,)), PartitionSpec(*spec))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (partial(MetaDataset, []), ValueError, "dataset is empty"),
        (partial(MetaDataset, (np.zeros((0, 2)), [])), ValueError, "dataset is empty"),
        (partial(MetaDataset, 3), TypeError, "length and examples .* got int"),
        (partial(MetaDataset, "text"), TypeError, "got str"),
        (partial(MetaDataset, iter([])), TypeError, "got list_iterator"),
        (partial(MetaDataset, (np.zeros((4, 2)), [0, 1, 1])), ValueError, "got 3 labels for 4 examples"),
        (partial(MetaDataset, Images(LABELS), [1, 2]), ValueError, "got 2 labels for 6 examples"),
        (partial(MetaDataset, [(0, 0.5)]), TypeError, "integers or strings, got 0.5 for example 0"),
        (partial(MetaDataset, [(0, 1), (0, None)]), TypeError, "got None for example 1"),
        (partial(MetaDataset, [(0, True)]), TypeError, "got True"),
        (partial(MetaDataset, [(0, 1), (0, "1")]), TypeError, "all integers or all strings"),
        (partial(MetaDataset, [(0, np.array([0, 1]))]), TypeError, r"label 0 must be one integer .* shape \(2,\)"),
        (partial(MetaDataset, [(0, jnp.zeros(2))]), TypeError, "label 0 must be one integer"),
        (partial(MetaDataset, (np.zeros(2), np.zeros(2))), TypeError, "integers or strings, got float64"),
        (partial(MetaDataset, (np.zeros(2), np.eye(2, dtype=int))), ValueError, r"shape \[M\], got \(2, 2\)"),
        (partial(MetaDataset, [(0,)]), ValueError, "has 1 entries"),
        (partial(MetaDataset, [(0, 1, 2)]), ValueError, r"has 3 entries: name input and label, as in keys=\(0, 1\)"),
        (partial(MetaDataset, Rows(LABELS)), ValueError, r"keys=, among \['image', 'label', 'id'\]"),
        (
            partial(MetaDataset, Rows(LABELS), keys=("image", "class")),
            ValueError,
            r"keys=\('image', 'class'\) are not in dataset\[0\], which has keys \['image'",
        ),
        (partial(MetaDataset, [(0, 1)], keys=(0, 2)), ValueError, "not in dataset"),
        (partial(FilteredMetaDataset, [(0, 1)], []), ValueError, "at least one class"),
        (partial(FilteredMetaDataset, [(0, 1)], [1, 2]), ValueError, r"got \[2\] that are not among its 1"),
        (partial(UnionMetaDataset, []), ValueError, "at least one data set"),
        (partial(OnDeviceDataset, [("a", 1)]), ValueError, "must be numbers"),
        (partial(OnDeviceDataset, [([1], 1), ([1, 2], 1)]), ValueError, "same shape to be stacked"),
        (partial(OnDeviceDataset, [(1, 1)], "cpu"), TypeError, "device must be a jax.Device or"),
        (lambda: OnDeviceDataset([(1, 1)], _sharding(AxisType.Explicit)), ValueError, "AxisType.Auto"),
        (
            lambda: OnDeviceDataset((np.zeros((8, 8)), [0] * 8), _sharding(spec=(None, "data"))),
            ValueError,
            "first axis",
        ),
        (partial(partition_task, np.zeros(4), np.zeros(3, int)), ValueError, "3 labels for 4 examples"),
        (partial(partition_task, np.zeros(3), np.array([0, 0, 1]), 2), ValueError, "shots=2, but class 1 has 1 examp"),
        (partial(partition_task, np.zeros(2), np.array([0, 1]), 1), ValueError, "leaves no query examples"),
        (partial(partition_task, np.zeros(2), np.array([0, 1]), -1), ValueError, "at least 0, got -1"),
        (partial(partition_task, np.zeros(2), np.array([0.5, 1])), TypeError, "integers or strings"),
        (lambda: next(InfiniteIterator([])), ValueError, "nothing when iterated over again"),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
