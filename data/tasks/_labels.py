"""Labels of the examples of a data set, found without decoding the examples where possible."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from jaxmeta.data.containers import as_labels, scalar_label
from jaxmeta.display import progress_bar

Keys: TypeAlias = tuple[Any, Any] | None
"""Keys of the input and the label in a row, or `None` for data sets of pairs."""


def find_labels(dataset: Any, keys: Keys, progress: bool) -> np.ndarray:
    """Returns the label of every example of a data set.

    If the data set has an attribute or a column with its labels, these are used. They must be as many as the examples,
    and the first, the middle and the last of them must be those of the examples. Otherwise all examples are read.

    Args:
        dataset: data set of pairs, or of rows with `keys`.
        keys: keys of the input and the label in a row.
        progress: whether to show a progress bar.

    Returns:
        Labels: `[M]`.
    """
    size = len(dataset)
    stored = _stored_labels(dataset, keys)
    if stored is not None and len(stored) == size > 0:
        some = sorted({0, size // 2, size - 1})
        expected = [scalar_label(split_example(dataset[i], keys, i)[1], i) for i in some]
        found = as_labels(stored)
        if found[some].tolist() == expected:
            return found
    labels = []
    with progress_bar("Reading labels", size, "example", shown=progress) as bar:
        for i in range(size):
            labels.append(split_example(dataset[i], keys, i)[1])
            bar.update()
    return as_labels(labels)


def find_names(dataset: Any, keys: Keys, targets: np.ndarray) -> dict[Any, str]:
    """Returns the name of each label that a data set stores, as those of Hugging Face and torchvision do, or none.

    Raises:
        ValueError: if an example has the label -1, which stands for an unknown class.
    """
    if hasattr(dataset, "column_names"):  # Hugging Face
        features = getattr(dataset, "features", None)
        stored = features.get(keys[1]) if keys is not None and isinstance(features, Mapping) else None
        names = getattr(stored, "names", None)
        if names and targets.dtype.kind == "i" and targets.min(initial=0) < 0:
            row = int(np.argmin(targets))
            told = f"label {targets[row]} of example {row} stands for an unknown class"
            raise ValueError(f"{told}: leave such examples out, for instance by the filter of the data set")
    else:
        base = dataset.dataset if hasattr(dataset, "dataset") and hasattr(dataset, "indices") else dataset
        names = getattr(base, "classes", None)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return {}
    fit = targets.dtype.kind in "iu" and targets.size > 0 and targets.min() >= 0 and targets.max() < len(names)
    return dict(enumerate(names)) if fit else {}


def split_example(example: Any, keys: Keys, index: int) -> tuple[Any, Any]:
    """Returns input and label of one example of a data set. Several keys of the input give a tuple.

    Raises:
        TypeError: if the example is not a pair or a row.
        ValueError: if a pair has another length, or a row lacks the keys.
    """
    if hasattr(example, "column_names") or (hasattr(example, "columns") and hasattr(example, "shape")):
        told = f"dataset[{index}] must be a row or a pair (x, y), got a table of type {type(example).__name__}"
        raise TypeError(
            f'{told}: a data set of Hugging Face gives rows after with_format(None) or with_format("numpy")'
        )
    if keys is not None:
        try:
            several = isinstance(keys[0], list | tuple)
            return tuple(example[key] for key in keys[0]) if several else example[keys[0]], example[keys[1]]
        except (KeyError, IndexError, TypeError) as error:
            has = f"keys {list(example)}" if hasattr(example, "keys") else f"type {type(example).__name__}"
            raise ValueError(f"keys={keys!r} are not in dataset[{index}], which has {has}") from error
    if hasattr(example, "keys"):
        raise ValueError(f"dataset[{index}] is a row: name its input and its label with keys=, among {list(example)}")
    if not isinstance(example, tuple | list):
        raise TypeError(f"dataset[{index}] must be a pair (x, y), got {type(example).__name__}")
    if len(example) != 2:
        raise ValueError(f"dataset[{index}] has {len(example)} entries: name input and label, as in keys=(0, 1)")
    return example[0], example[1]


def _stored_labels(dataset: Any, keys: Keys) -> Sequence[Any] | np.ndarray | None:
    """Returns the labels that a data set stores apart from its examples, or `None`."""
    if hasattr(dataset, "column_names"):  # Hugging Face
        shown = getattr(dataset, "format", {}).get("columns", dataset.column_names)  # others are there, but not read
        return dataset[keys[1]] if keys is not None and keys[1] in shown else None
    if hasattr(dataset, "dataset") and hasattr(dataset, "indices"):  # torch.utils.data.Subset
        base = _stored_labels(dataset.dataset, keys)
        return None if base is None else as_labels(base)[np.asarray(dataset.indices)]
    if hasattr(dataset, "datasets") and hasattr(dataset, "cumulative_sizes"):  # torch.utils.data.ConcatDataset
        parts = [_stored_labels(part, keys) for part in dataset.datasets]
        return None if any(part is None for part in parts) else np.concatenate([as_labels(part) for part in parts])
    if hasattr(dataset, "tensors") and len(dataset.tensors) == 2:  # torch.utils.data.TensorDataset
        return dataset.tensors[1]
    if getattr(dataset, "target_transform", None) is not None:  # torchvision stores labels before their transform
        return None
    for name in ("targets", "labels"):
        found = getattr(dataset, name, None)
        if found is not None and hasattr(found, "__len__") and hasattr(found, "__getitem__"):
            return found
    return None
