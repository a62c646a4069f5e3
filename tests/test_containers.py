# pyright: reportCallIssue=false, reportAttributeAccessIssue=false
"""What users hand in: every container is read by position, whatever its own index says, or refused in words."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from PIL import Image

from jaxmeta import data

X = np.arange(24, dtype=np.float32).reshape(12, 2)
NAMES = [f"class {i % 4}" for i in range(12)]
ORDER = [7, 2, 11, 0, 5, 9, 4, 1, 10, 3, 8, 6]  # the index that a shuffled frame keeps


def series(values, **options):
    """A column as after shuffling: `[i]` is the entry whose label is i, `iloc[i]` the one at position i."""
    return pd.Series(values, ORDER, **options)


class Column:
    """As a column of a data set of Hugging Face: a lazy sequence."""

    def __init__(self, values):
        self._values = values

    def __len__(self):
        return len(self._values)

    def __iter__(self):
        return iter(self._values)

    def __getitem__(self, index):
        return self._values[index]


class Tensor:
    """As a tensor of torch."""

    def __init__(self, values):
        self._values = np.asarray(values)
        self.shape = self._values.shape

    def __len__(self):
        return len(self._values)

    def detach(self):
        return self

    cpu = detach

    def __getitem__(self, rows):
        return Tensor(self._values[rows])

    def numpy(self):
        return self._values


def objects(values):
    found = np.empty(len(values), object)
    found[:] = values
    return found


FRAME = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "name": NAMES}, ORDER)
INPUTS: dict[str, Any] = {
    "array": X,
    "jax": jnp.asarray(X),
    "tensor": Tensor(X),
    "list of rows": list(X),
    "list of lists": X.tolist(),
    "objects": objects(list(X)),
    "table of objects": X.astype(object),
    "series of rows": series(list(X)),
    "sorted frame": FRAME[["a", "b"]].sample(frac=1, random_state=0).sort_values("a"),
    "nullable frame": FRAME[["a", "b"]].astype("Float32"),
    "frame": FRAME[["b", "a"]][["a", "b"]],
    "column": Column(X.tolist()),
}
LABELS: dict[str, Any] = {
    "list": NAMES,
    "tuple": tuple(NAMES),
    "strings": np.array(NAMES),
    "objects": np.array(NAMES, object),
    "series": series(NAMES),
    "series of objects": series(NAMES, dtype=object),
    "series of strings": series(NAMES, dtype="string"),
    "series of categories": series(NAMES, dtype="category"),
    "categorical": pd.Categorical(NAMES),
    "index": pd.Index(NAMES),
    "variable strings": np.array(NAMES, np.dtypes.StringDType()),
    "column of a frame": FRAME["name"],
    "column": Column(NAMES),
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_every_container_is_read_by_position(inputs, labels):
    x, y = INPUTS[inputs], LABELS[labels]
    found = data.Examples.of(x, y)
    np.testing.assert_array_equal(found.inputs, X)
    assert [found.names[label] for label in found.labels] == NAMES
    if labels == "tuple":
        return
    dataset = data.MetaDataset((x, y))
    assert dataset.targets.tolist() == NAMES
    np.testing.assert_array_equal(np.stack(dataset.take(np.array([9, 2, 4]))), X[[9, 2, 4]])


@pytest.mark.parametrize("kind", [series, Tensor, Column, list, np.asarray])
def test_every_consumer_reads_by_position(kind):
    """Integer labels, in what takes arrays: a label that is found by its index would be another row's."""
    numbers = [int(name[-1]) for name in NAMES]
    inputs: Any = kind(X.tolist())
    labels: Any = kind(numbers)
    few = data.FewShot.create(inputs, labels, ways=4, shots=1, queries=2)
    for sampler in (few, data.MetaDatasetSampler.create(inputs, labels, ways=(2, 4))):
        np.testing.assert_array_equal(sampler.inputs, X)
    task = data.partition_task(inputs, labels, 1)
    np.testing.assert_array_equal(
        np.concatenate([_numpy(task.support.x), _numpy(task.query.x)]) // 2 % 4,
        np.concatenate([_numpy(task.support.y), _numpy(task.query.y)])[:, None] * [1, 1],
    )
    parts = data.load_examples("folder", examples=(inputs, series(NAMES)))
    for part in parts:
        np.testing.assert_array_equal(part.inputs[:, 0] // 2 % 4, [int(part.names[label][-1]) for label in part.labels])


def _numpy(column):
    return column.numpy() if isinstance(column, Tensor) else np.asarray(column)


def test_tables_need_the_names_of_their_columns():
    for table in (FRAME, {"a": X[:, 0], "b": series(X[:, 1]), "name": pd.Categorical(NAMES)}):
        dataset = data.MetaDataset(table, keys=("b", "name"))
        assert dataset[4] == (9.0, "class 0") and len(dataset) == 12
        with pytest.raises(ValueError, match=r"has columns: name those .* with keys=, among \['a', 'b', 'name'\]"):
            data.MetaDataset(table)
        with pytest.raises(ValueError, match=r"keys=\('x', 'name'\) are not among the columns"):
            data.MetaDataset(table, keys=("x", "name"))
    np.testing.assert_array_equal(data.MetaDataset(FRAME, keys=(["a", "b"], "name"))[3][0], X[3])
    splits = {"train": SimpleNamespace(column_names=["text"]), "test": SimpleNamespace(column_names=["text"])}
    with pytest.raises(TypeError, match=r"dict of data sets: pass one of them, such as dataset\['train'\]"):
        data.MetaDataset(splits, keys=("text", "label"))


def test_images_and_examples_are_taken_everywhere():
    """Our own type, and lists of pictures."""
    pictures = [Image.fromarray(np.full((3, 3, 3), i, np.uint8)) for i in range(12)]
    examples = data.Examples.of(pictures, NAMES)
    assert examples.inputs.shape == (12, 3, 3, 3) and examples.inputs.dtype == np.uint8
    few = data.FewShot.create(examples, ways=3, queries=2)
    np.testing.assert_array_equal(few.inputs, examples.inputs)
    assert data.MetaDataset(examples)[6][1] == "class 2"
    assert data.MetaDatasetSampler.create(examples, ways=(2, 3)).ways == (2, 3)
    whole = data.load_examples("folder", examples=examples)
    assert sorted(name for part in whole for name in part.names) == sorted(set(NAMES))


def test_a_filtered_frame_is_read_by_position():
    frame = FRAME.assign(kind=pd.Categorical(NAMES)).sample(frac=1, random_state=1)
    frame = frame[frame["a"] > 4]
    labels = frame["kind"].tolist()
    found = data.Examples.of(frame[["a", "b"]], frame["kind"])
    assert [found.names[label] for label in found.labels] == labels and len(labels) == 9
    np.testing.assert_array_equal(found.inputs, frame[["a", "b"]].to_numpy())
    assert data.MetaDataset(frame, keys=("b", "kind")).targets.tolist() == labels
    several = frame.set_index([frame["name"], frame["a"]])
    np.testing.assert_array_equal(data.Examples.of(several[["b"]], several["kind"]).inputs, frame[["b"]])


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (scipy.sparse.eye(12).tocsr(), NAMES, r"inputs must be dense: .* toarray\(\)"),
        ({"a": X}, NAMES, r"inputs must be an array, .* got dict: choose one of its entries \['a'\]"),
        ((row for row in X), NAMES, "inputs must be .* got generator: make a list of it"),
        ("sentence", NAMES, "inputs must be an array, a list or a column, got str"),
        ([{"image": x} for x in X], NAMES, "one array for each example, got dict with several: join them"),
        ([(x, x) for x in X], NAMES, "got tuple with several: join them to one array, .* or use a Taskset"),
        ([np.zeros(1 + i) for i in range(12)], NAMES, "must have the same shape to be stacked"),
        (X, [0.5, *NAMES[1:]], "integers or strings, got 0.5 for example 0"),
        (X, np.array([*NAMES[:-1], None], object), "integers or strings, got None for example 11"),
        (X, [1, *NAMES[1:]], "all integers or all strings"),
        (X, np.linspace(0, 1, 12), "integers or strings, got float64"),
        (X, [True, *range(11)], "got True for example 0"),
        (X, pd.Series(NAMES[:-1]), "11"),
        (FRAME, NAMES, "inputs must be all numbers or all strings, got object, such as 'class 0'"),
        (FRAME[["a"]].assign(day=pd.Timestamp("2020-01-01")), NAMES, "all numbers or all strings, got .* Timestamp"),
        (FRAME[["a", "b"]].astype("Int64").mask(FRAME[["a", "b"]] > 3), NAMES, "all numbers or all .*, got object"),
        (X, pd.Series([None, *range(11)], dtype="Int64"), "integers or strings, got float64, such as nan"),
        (X, pd.date_range("2020-01-01", periods=12), "integers or strings, got datetime64"),
        (X, pd.Series([name.encode() for name in NAMES]), "integers or strings, got b'class 0'"),
    ],
)
def test_what_is_not_understood_is_refused(inputs, labels, message):
    with pytest.raises((TypeError, ValueError), match=message):
        data.Examples.of(inputs, labels)
    if not isinstance(inputs, np.ndarray) or labels is not NAMES:
        with pytest.raises((TypeError, ValueError)):
            data.FewShot.create(inputs, labels, ways=2)


@pytest.mark.parametrize("examples", [FRAME, {"a": X, "name": NAMES}, X, [X], (X, NAMES, NAMES), (3, 4)])
def test_examples_are_a_pair(examples):
    with pytest.raises(ValueError, match="examples must be a pair: the inputs, and the class name of each"):
        data.load_examples("folder", examples=examples)


@pytest.mark.parametrize(("arguments", "message"), [((X,), "labels must be given"), ((3, 4), "inputs must be an arr")])
def test_missing_labels_are_named(arguments, message):
    with pytest.raises(TypeError, match=message):
        data.FewShot.create(*arguments)
    with pytest.raises(TypeError, match="labels must not be given with Examples"):
        data.FewShot.create(data.Examples.of(X, NAMES), NAMES)
