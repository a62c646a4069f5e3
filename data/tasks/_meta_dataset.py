"""Data sets with an index of the examples of each class."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from jaxmeta.data.containers import Examples, as_column, as_labels, is_column, is_table, rows_of, table_columns
from jaxmeta.data.samplers import group
from jaxmeta.data.tasks._labels import Keys, find_labels, find_names, split_example


class MetaDataset:
    """A data set of labeled examples that keeps track of the classes.

    The data may be one of these:

    - Anything with `len` and integer indexing whose examples are pairs `(x, y)`, such as a list of pairs or a data set
      of torch or torchvision.
    - A data set whose examples are rows with names, such as those of Hugging Face and the data sources of TensorFlow
      Datasets. It needs `keys`.
    - A pair `(inputs, labels)` of two columns: arrays of NumPy, JAX or torch, lists, or series and frames of pandas.
      For inputs of several parts, a dict or a tuple of columns is in the place of the first.
    - A frame or a dict of columns. It needs `keys`.
    - An `Examples`, with the names of the classes as labels.

    Columns are read by position. The index of a series or a frame does not matter.

    Labels are integers or strings, or arrays or tensors that contain one of them. They are taken from the data set's
    `targets` or `labels`, its label column or its tensors, if a few examples agree with them. Otherwise every example
    is read once. Labels are kept in memory only, because a stale file could not be told from a fresh one without
    reading the examples. To save the pass the next time, store `targets` and pass them as `labels`.

    Example:
        >>> letters = MetaDataset([([0.0], "b"), ([1.0], "a"), ([2.0], "b")])
        >>> letters.labels, letters.labels_to_indices["b"].tolist(), letters.indices_to_labels[1]
        (['a', 'b'], [0, 2], 'a')
        >>> import numpy as np
        >>> MetaDataset((np.zeros((4, 28, 28, 1)), [5, 5, 9, 9])).targets.tolist()
        [5, 5, 9, 9]
    """

    def __init__(
        self, dataset: Any, labels: Any = None, *, keys: tuple[Any, Any] | None = None, progress: bool = True
    ) -> None:
        """Finds the labels.

        Args:
            dataset: the data, see above.
            labels: label of every example: `[M]`. By default they are found in the data set.
            keys: keys of the input and the label in a row, such as `("image", "label")`, for rows with names and for
                tuples that are not pairs. Several keys of the input give a tuple: `(["image", "mask"], "label")`.
            progress: whether to show a progress bar if every example must be read.

        Raises:
            TypeError: if the data is of another kind, or a label is neither an integer nor a string.
            ValueError: if there are no examples, the numbers of examples and labels differ, or the keys are missing.
        """
        if hasattr(dataset, "tensors") and len(dataset.tensors) == 2:  # torch.utils.data.TensorDataset
            dataset = tuple(dataset.tensors)
        elif isinstance(dataset, Examples):
            dataset = dataset.inputs, np.array(dataset.names)[dataset.labels]
        elif is_table(dataset):
            dataset, keys = table_columns(dataset, keys), None
        elif hasattr(dataset, "iloc"):  # a series of pairs
            dataset = as_column(dataset, "dataset")
        self._keys: Keys = keys
        self._inputs: Any = None
        self._names: dict[Any, str] = {}
        if isinstance(dataset, tuple) and len(dataset) == 2 and is_column(dataset[1]):
            dataset = rows_of(dataset[0], len(dataset[1])), dataset[1]
        if isinstance(dataset, tuple) and len(dataset) == 2 and all(map(is_column, dataset)):
            self._inputs = as_column(dataset[0], "inputs")
            labels = as_labels(dataset[1] if labels is None else labels)
            dataset = _Columns(self._inputs, labels)
        elif isinstance(dataset, str | bytes) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            hint = ": a stream must be read first, as list(dataset)" if hasattr(dataset, "__iter__") else ""
            raise TypeError(f"dataset must have a length and examples dataset[i], got {type(dataset).__name__}{hint}")
        self.dataset = dataset
        self.targets = find_labels(dataset, keys, progress) if labels is None else as_labels(labels)
        if labels is None:
            self._names = find_names(dataset, keys, self.targets)
        if len(dataset) == 0:
            raise ValueError("dataset is empty")
        if len(self.targets) != len(dataset):
            raise ValueError(f"labels must match the data: got {len(self.targets)} labels for {len(dataset)} examples")

    targets: np.ndarray
    """Label of every example: `[M]`."""

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} examples of {len(self.labels)} classes)"

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Returns the input of example `index` as it is in the data, and its label."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} examples")
        index = int(index) % len(self)
        return self.take(np.array([index]))[0], self.targets[index].item()

    @cached_property
    def labels(self) -> list[Any]:
        """Sorted labels of the classes."""
        return np.unique(self.targets).tolist()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of `labels`: labels that are strings, else those that the data have.

        Empty if the classes have no names. Data sets of Hugging Face and torchvision name integer labels.
        """
        if self.targets.dtype.kind == "U":
            return tuple(self.labels)
        return tuple(self._names[label] for label in self.labels) if self._names else ()

    @property
    def named_targets(self) -> np.ndarray:
        """Name of the class of every example, or its label if the classes have no names: `[M]`."""
        return np.array(self.class_names or self.labels)[np.searchsorted(self.labels, self.targets)]

    @cached_property
    def labels_to_indices(self) -> dict[Any, np.ndarray]:
        """Indices of the examples of each class, in order."""
        names, rows, starts, _ = group(self.targets)
        return dict(zip(names.tolist(), np.split(rows, starts[1:]), strict=True))

    @cached_property
    def indices_to_labels(self) -> dict[int, Any]:
        """Label of each example, by its index."""
        return dict(enumerate(self.targets.tolist()))

    def take(self, rows: np.ndarray) -> Any:
        """Reads examples.

        Args:
            rows: indices of the examples: `[n]`, int.

        Returns:
            Their inputs: an array `[n, ...]` if the data is an array, else a list.
        """
        if self._inputs is None:
            return [split_example(self.dataset[int(row)], self._keys, int(row))[0] for row in rows]
        if hasattr(self._inputs, "shape"):
            return np.asarray(self._inputs)[rows]
        return [self._inputs[row] for row in rows]

    @property
    def inputs_in_memory(self) -> Any:
        """Inputs of all examples if the data is an array, `[M, ...]`, else `None`."""
        return self._inputs if hasattr(self._inputs, "shape") else None

    def take_all(self) -> Any:
        """Returns the inputs of all examples, an array `[M, ...]` without a copy, or a list."""
        return self._inputs if hasattr(self._inputs, "shape") else self.take(np.arange(len(self)))


class FilteredMetaDataset(MetaDataset):
    """The examples of some of the classes of a data set, with unchanged labels.

    Example:
        >>> letters = MetaDataset([(0.0, "b"), (1.0, "a"), (2.0, "b")])
        >>> few = FilteredMetaDataset(letters, ["b"])
        >>> few.labels, few[1]
        (['b'], (2.0, 'b'))
    """

    def __init__(self, dataset: Any, labels: Iterable[Any]) -> None:
        """Selects the examples.

        Args:
            dataset: a `MetaDataset`, or data for one.
            labels: labels of the classes to keep.

        Raises:
            ValueError: if `labels` is empty, or contains a label that the data does not have.
        """
        self._base = as_meta_dataset(dataset)
        self._rows = np.flatnonzero(np.isin(self._base.targets, check_labels(labels, self._base.labels)))
        super().__init__(range(len(self._rows)), self._base.targets[self._rows])
        self._names = self._base._names

    def take(self, rows: np.ndarray) -> Any:
        """Reads examples, like `MetaDataset.take`."""
        return self._base.take(self._rows[rows])


class UnionMetaDataset(MetaDataset):
    """The examples of several data sets, one after the other.

    Classes of different data sets are different classes. They are numbered: first the sorted classes of the first data
    set, then those of the second, and so on.

    Example:
        >>> first, second = MetaDataset([(0.0, "b"), (1.0, "a")]), MetaDataset([(2.0, "a")])
        >>> union = UnionMetaDataset([first, second])
        >>> union.labels, union[2]
        ([0, 1, 2], (2.0, 2))
    """

    def __init__(self, datasets: Sequence[Any]) -> None:
        """Joins the data sets.

        Args:
            datasets: sequence of `MetaDataset`s, or of data for them.

        Raises:
            ValueError: if there are none.
        """
        if not datasets:
            raise ValueError("datasets must have at least one data set, got none")
        self.datasets = [as_meta_dataset(dataset) for dataset in datasets]
        self._ends = np.cumsum([len(part) for part in self.datasets])
        codes, count = [], 0
        for part in self.datasets:
            codes.append(np.searchsorted(part.labels, part.targets) + count)
            count += len(part.labels)
        super().__init__(range(self._ends[-1]), np.concatenate(codes))
        names = [name for part in self.datasets for name in part.class_names]
        self._names = dict(enumerate(names)) if len(names) == len(self.labels) else {}

    def take(self, rows: np.ndarray) -> Any:
        """Reads examples, like `MetaDataset.take`."""
        parts = np.searchsorted(self._ends, rows, side="right")
        examples: list[Any] = [None] * len(rows)
        for part in np.unique(parts):
            start = self._ends[part] - len(self.datasets[part])
            places = np.flatnonzero(parts == part)
            for place, example in zip(places, self.datasets[part].take(rows[places] - start), strict=True):
                examples[place] = example
        return examples


def as_meta_dataset(dataset: Any) -> MetaDataset:
    """Returns a `MetaDataset` unchanged, and makes one of other data."""
    return dataset if isinstance(dataset, MetaDataset) else MetaDataset(dataset)


def check_labels(labels: Iterable[Any], known: Sequence[Any]) -> np.ndarray:
    """Returns labels as an array.

    Raises:
        ValueError: if there are none, or some are not among the known ones.
    """
    wanted = as_labels(labels if hasattr(labels, "__len__") else list(labels))
    if len(wanted) == 0:
        raise ValueError("labels must name at least one class, got none")
    missing = sorted(set(wanted.tolist()) - set(known))
    if missing:
        raise ValueError(f"labels must be classes of the data, got {missing[:5]!r} that are not among its {len(known)}")
    return wanted


class _Columns(Sequence[tuple[Any, Any]]):
    """A sequence of pairs from two columns."""

    def __init__(self, inputs: Any, labels: Any) -> None:
        if len(inputs) != len(labels):
            raise ValueError(f"labels must match the data: got {len(labels)} labels for {len(inputs)} examples")
        self._columns = inputs, labels

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        return self._columns[0][index], self._columns[1][index]
