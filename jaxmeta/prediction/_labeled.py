"""Labeled examples of a user, to adapt to: folders of classes, lines of sentences, arrays in a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta.data.containers import read_arrays
from jaxmeta.prediction._inputs import Inputs, image_files


def read_labeled(examples: Any, names: Sequence[Any] | None, inputs: Inputs) -> tuple[list[Any], list[str]]:
    """Returns items and the name of the class of each.

    Args:
        examples: with `names`, the items. Without, a mapping from names to the items of a class, a folder with a folder
            of images for each class, a text file of lines `class<TAB>sentence`, or a file `.npz` with the arrays `x`
            and `y`.
        names: name of the class of each item, or `None`.
        inputs: kind and shape of the inputs.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if names and items do not match, a class has no items, or a file has another form.
    """
    if names is not None:
        items, labels = list(inputs.items(examples)), [_text(name) for name in names]
        if len(items) != len(labels):
            raise ValueError(f"names must match the examples: got {len(labels)} names for {len(items)} examples")
    elif isinstance(examples, Mapping):
        by_name = {_text(name): list(inputs.items(items)) for name, items in examples.items()}
        items, labels = _flat(by_name)
    elif isinstance(examples, str | Path):
        items, labels = _from_file(Path(examples), inputs)
    else:
        raise TypeError(
            "examples must be a mapping from names to examples, a path, or come with names, "
            f"got {type(examples).__name__}"
        )
    if not items:
        raise ValueError("examples must hold an example or more of each class, got none")
    return items, labels


def _from_file(path: Path, inputs: Inputs) -> tuple[list[Any], list[str]]:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_dir():
        if inputs.kind != "images":
            raise ValueError(f"{path} is a folder, but the run's inputs are {inputs.kind}")
        folders = [folder for folder in sorted(path.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
        if not folders:
            raise ValueError(f"{path} must hold a folder of images for each class, such as {path / 'name' / '1.png'}")
        return _flat({folder.name: image_files(folder) for folder in folders})
    if path.suffix == ".npz":
        return _from_arrays(path, inputs)
    if inputs.kind != "text":
        raise ValueError(f"{path} must be a folder of classes or a file .npz with x and y, for {inputs.kind}")
    pairs = [line.split("\t", 1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, pair in enumerate(pairs, 1):
        if len(pair) != 2:
            raise ValueError(f"{path}: line {number} must be `class<TAB>sentence`, got {pair[0]!r}")
    return [sentence for _, sentence in pairs], [name.strip() for name, _ in pairs]


def _from_arrays(path: Path, inputs: Inputs) -> tuple[list[Any], list[str]]:
    found = read_arrays(path, "x", "y")
    if found["y"].ndim != 1 or found["x"].shape[:1] != found["y"].shape:
        raise ValueError(f"{path}: y must be [n] for x [n, ...], got {found['y'].shape} and {found['x'].shape}")
    return list(inputs.items(found["x"])), [_text(name) for name in found["y"].tolist()]


def _flat(by_name: Mapping[str, Sequence[Any]]) -> tuple[list[Any], list[str]]:
    empty = [name for name, items in by_name.items() if not len(items)]
    if empty:
        raise ValueError(f"examples must hold an example or more of each class, got none of {', '.join(empty)}")
    return [item for items in by_name.values() for item in items], [n for n, items in by_name.items() for _ in items]


def _text(name: Any) -> str:
    """Returns the name of a class as text. Whole numbers are names too."""
    if isinstance(name, str):
        return name
    if isinstance(name, bool | float) or np.ndim(name):
        raise TypeError(f"names must be strings or whole numbers, got {name!r}")
    return str(name)
