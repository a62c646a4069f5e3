"""Data sets of Hugging Face, and inputs of several parts: through tasks, samplers and two updates of training.

A small data set with the same interface stands in for the package, and the rows marked so use the package itself.
"""

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from PIL import Image

import jaxmeta
from jaxmeta import data

NAMES = ("ant", "bee", "cat", "dog")
LABELS = [(3 * i + 1) % 4 for i in range(40)]
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
IMAGES[:, 0, 0, 0] = np.arange(40)  # tells which example it is
TRANSFORMS = [data.NWays(3), data.KShots(1, queries=2), data.LoadData(), data.RemapLabels()]
KEYS = ("image", "label")
KEY = jax.random.key(0)


class FakeColumn:
    """A column that is read by position, as that of a data set is."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Any:
        return iter(self._values)

    def __getitem__(self, index: Any) -> Any:
        return self._values[index]


class FakeDataset:
    """The interface of `datasets.Dataset` that jaxmeta uses: rows of dicts, columns, features, a format."""

    def __init__(
        self, table: dict[str, list[Any]], names: tuple[str, ...] = NAMES, kind: Any = None, shown: Any = None
    ):
        self._table, self._names, self._kind = table, names, kind
        self.column_names = list(table)
        self.format = {"type": kind, "columns": self.column_names if shown is None else shown}

    @property
    def features(self) -> dict[str, Any]:
        """The types of the columns, among them a `ClassLabel`."""
        label = types.SimpleNamespace(names=list(self._names), num_classes=len(self._names))
        return {name: label if name == "label" else object() for name in self.column_names}

    def __len__(self) -> int:
        return len(self._table["label"])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return FakeColumn(self._table[index])
        row = {name: self._table[name][index] for name in self.format["columns"]}
        if self._kind == "arrow":
            return types.SimpleNamespace(column_names=list(row))
        convert = {"numpy": np.asarray, "jax": jnp.asarray}.get(self._kind, lambda value: value)
        return {name: convert(value) for name, value in row.items()}

    def select(self, rows: Any) -> "FakeDataset":
        """Some of the rows."""
        return FakeDataset({name: [values[row] for row in rows] for name, values in self._table.items()})

    def with_format(self, kind: Any, columns: Any = None) -> "FakeDataset":
        """The same rows in another form."""
        return FakeDataset(self._table, self._names, kind, columns)

    def to_iterable_dataset(self) -> Any:
        """The rows as a stream."""
        return (self[i] for i in range(len(self)))


def table():
    masks = [np.full((6, 6), i, np.uint8) for i in range(40)]
    return {"image": [Image.fromarray(x) for x in IMAGES], "mask": masks, "label": LABELS}


def real():
    """The same table in the package."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        image=datasets.Image(), mask=datasets.Array2D((6, 6), "uint8"), label=datasets.ClassLabel(names=list(NAMES))
    )
    return datasets.Dataset.from_dict(table(), features=features)


@pytest.fixture(params=["fake", "real"])
def dataset(request):
    return FakeDataset(table()) if request.param == "fake" else real()


class Flat(nn.Module):
    """A linear classifier of all numbers of an input, in however many parts."""

    @nn.compact
    def __call__(self, x: Any) -> jax.Array:
        """Returns logits."""
        return nn.Dense(3)(jnp.concatenate([part.reshape(len(part), -1) for part in jax.tree.leaves(x)], axis=1))


def losses_of(sampler: Any):
    """The losses of two updates."""
    model = Flat()
    learner = jaxmeta.maml(jaxmeta.classification(model.apply), optax.sgd(0.1))
    meta = learner.init(jax.jit(model.init)(KEY, sampler.example))
    options = {"iterations": 2, "num_tasks": 2, "log_every": 1, "progress": False}
    trained = jaxmeta.train(learner, optax.adam(1e-3), meta, sampler, KEY, **options)
    return [record["train/loss"] for record in trained.history]


def expected():
    return data.Taskset((IMAGES, LABELS), TRANSFORMS)


@pytest.mark.parametrize("form", [None, "numpy", "jax"])
def test_rows_are_the_examples(dataset, form):
    """The same tasks as of arrays, with the names of the classes, through training and on the device."""
    found = data.MetaDataset(dataset.with_format(form), keys=KEYS)
    assert found.targets.tolist() == LABELS and found.class_names == NAMES
    tasks = data.Taskset(found, TRANSFORMS)
    jax.tree.map(np.testing.assert_array_equal, tasks[3], expected()[3])
    assert losses_of(tasks) == losses_of(expected())
    sampler: Any = tasks.to_device()
    assert sampler.class_names == tasks.class_names == NAMES
    np.testing.assert_array_equal(sampler.inputs, IMAGES)


def test_rows_that_were_chosen_are_read_by_position(dataset):
    rows = np.random.default_rng(1).permutation(40)[:31].tolist()
    found = data.MetaDataset(dataset.select(rows), keys=KEYS)
    assert found.targets.tolist() == [LABELS[row] for row in rows]
    assert [np.asarray(x)[0, 0, 0] for x in found.take(np.arange(31))] == rows
    few = data.FewShot.create(dataset.select(rows)["image"], dataset.select(rows)["label"], ways=3, queries=2)
    np.testing.assert_array_equal(few.inputs, IMAGES[rows])
    both = data.FilteredMetaDataset(found, [3, 0])
    assert both.class_names == ("ant", "dog") and data.UnionMetaDataset([both, found]).class_names == (
        *both.class_names,
        *NAMES,
    )


def test_a_meta_dataset_is_taken_by_samplers_and_benchmarks(dataset):
    found = data.MetaDataset(dataset, keys=KEYS)
    few = data.FewShot.create(found, ways=3, queries=2)
    several = data.MetaDatasetSampler.create(found, ways=(2, 3), max_support=9)
    np.testing.assert_array_equal(few.inputs, IMAGES)
    np.testing.assert_array_equal(several.inputs, IMAGES)
    assert few.class_names == NAMES and losses_of(few)
    tasksets = data.get_tasksets("folder", ways=1, queries=2, examples=found)
    assert {name for names in tasksets.classes.values() for name in names} == set(NAMES)


def test_several_columns_are_a_tuple(dataset):
    tasks = data.Taskset(data.MetaDataset(dataset.with_format("numpy"), keys=(["image", "mask"], "label")), TRANSFORMS)
    image, mask = tasks[5].query.x
    np.testing.assert_array_equal(image, expected()[5].query.x)
    numbers = mask[:, 3, 4] if mask.dtype.kind == "i" else np.round(255 * mask[:, 3, 4])  # the package widens integers
    np.testing.assert_array_equal(numbers, np.round(255 * image[:, 0, 0, 0]))
    assert all(np.isfinite(losses_of(tasks)))


def test_what_is_no_rows_is_refused_in_words(dataset):
    splits = {"train": dataset, "test": dataset}
    with pytest.raises(TypeError, match=r"got a table of type .* after with_format\(None\)"):
        data.MetaDataset(dataset.with_format("arrow"), keys=KEYS)
    with pytest.raises(
        ValueError, match=r"keys=\('image', 'label'\) are not in dataset\[0\], which has keys \['image'\]"
    ):
        data.MetaDataset(dataset.with_format("numpy", columns=["image"]), keys=KEYS)
    with pytest.raises(ValueError, match=r"dataset\[0\] is a row: name its input and its label with keys="):
        data.Taskset(dataset, TRANSFORMS)
    with pytest.raises(TypeError, match=r"a dict of data sets: pass one of them, such as dataset\['train'\]"):
        data.MetaDataset(splits, keys=KEYS)
    with pytest.raises(TypeError, match="a stream must be read first, as list"):
        data.MetaDataset(dataset.to_iterable_dataset(), keys=KEYS)
    with pytest.raises(
        TypeError, match=r"pass its columns of inputs and of labels, among \['image', 'mask', 'label'\]"
    ):
        data.FewShot.create(dataset)
    with pytest.raises(TypeError, match=r"among \['train', 'test'\]"):
        data.FewShot.create(splits)


def test_an_unknown_class_is_refused():
    """A test part without labels has -1 in every row."""
    labels = [*LABELS[:7], -1, *LABELS[8:]]
    with pytest.raises(ValueError, match="label -1 of example 7 stands for an unknown class: leave such examples out"):
        data.MetaDataset(FakeDataset(table() | {"label": labels}), keys=KEYS)
    assert data.MetaDataset((IMAGES, labels)).labels == [-1, 0, 1, 2, 3]  # of arrays it is a number as any other


def test_the_package_itself():
    datasets = pytest.importorskip("datasets")
    splits = datasets.DatasetDict(train=real(), test=real())
    with pytest.raises(TypeError, match=r"a dict of data sets: pass one of them, such as dataset\['train'\]"):
        data.Taskset(splits, TRANSFORMS)
    shuffled = splits["train"].shuffle(seed=0)
    found = data.MetaDataset(shuffled.filter(lambda row: row["label"] != 1), keys=KEYS)
    assert found.class_names == ("ant", "cat", "dog")
    numbers = [int(np.asarray(x)[0, 0, 0]) for x in found.take(np.arange(len(found)))]
    assert [LABELS[number] for number in numbers] == found.targets.tolist() and numbers != sorted(numbers)
    cut = splits["train"].with_transform(lambda rows: rows | {"image": [np.asarray(x)[:4] for x in rows["image"]]})
    assert data.Taskset(data.MetaDataset(cut, keys=KEYS), TRANSFORMS)[0].query.x.shape == (6, 4, 6, 3)


# Inputs of several parts, in other containers.

MASKS = np.arange(40, dtype=np.uint8)[:, None, None].repeat(6, 1).repeat(6, 2)
PARTS = {
    "pairs of dicts": [({"image": x, "mask": m}, y) for x, m, y in zip(IMAGES, MASKS, LABELS, strict=True)],
    "pairs of tuples": [((x, m), y) for x, m, y in zip(IMAGES, MASKS, LABELS, strict=True)],
    "pictures": [((Image.fromarray(x), Image.fromarray(m)), y) for x, m, y in zip(IMAGES, MASKS, LABELS, strict=True)],
    "a dict of columns": ({"image": IMAGES, "mask": list(MASKS)}, np.array(LABELS)),
    "a tuple of columns": ((IMAGES, MASKS), [NAMES[label] for label in LABELS]),
}


@pytest.mark.parametrize("kind", PARTS)
def test_inputs_of_several_parts_train(kind):
    tasks = data.Taskset(PARTS[kind], TRANSFORMS)
    x = tasks[5].query.x
    image, mask = x.values() if isinstance(x, dict) else x
    np.testing.assert_array_equal(image, expected()[5].query.x)
    np.testing.assert_array_equal(mask[:, 3, 4], image[:, 0, 0, 0])
    assert losses_of(tasks) == losses_of(data.Taskset(PARTS["pairs of dicts"], TRANSFORMS))
    for make in (tasks.to_device, lambda: data.OnDeviceDataset(PARTS[kind])):
        with pytest.raises(ValueError, match="the device needs one array for each example, got .* with several"):
            make()


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (({"image": IMAGES, "mask": MASKS[:39]}, LABELS), "got 40 labels for inputs of {'image': 40, 'mask': 39}"),
        (((IMAGES, MASKS[:39]), LABELS), "got 40 labels for inputs of {0: 40, 1: 39}"),
    ],
)
def test_columns_that_do_not_match_are_refused(dataset, message):
    with pytest.raises((ValueError, TypeError), match=message):
        data.MetaDataset(dataset)
