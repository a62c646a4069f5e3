"""Directories prepared by TensorFlow Datasets, read without TensorFlow."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmeta.bounded import load_json
from jaxmeta.data.containers import Examples
from jaxmeta.data.sources._images import decode
from jaxmeta.data.sources._readers import ReadRequest
from jaxmeta.display import progress_bar


class Prepared(NamedTuple):
    """A benchmark in TFDS."""

    name: str
    """Name of its folder."""
    rename: Callable[[int, str], str] = lambda index, name: name
    """Function from the number and the name of a class in TFDS to our name."""
    channels: int = 3
    """Number of channels of the images."""


def find_prepared(name: str, folder: Path) -> Path | None:
    """Returns the newest version of a prepared data set in `folder` or `folder/tfds`, or `None`."""
    for base in (folder, folder / "tfds"):
        patterns = ("*/dataset_info.json", "*/*/dataset_info.json")  # version, or configuration and version
        found = [path.parent for pattern in patterns for path in (base / name).glob(pattern)]
        if found:
            return max(found, key=lambda path: [int(part) for part in path.name.split(".") if part.isdigit()])
    return None


def records(folder: Path, split: str, progress: bool) -> Iterator[dict[str, Any]]:
    """Reads the records of one split.

    Args:
        folder: folder with `dataset_info.json`.
        split: name of the split.
        progress: whether to show a progress bar.

    Yields:
        The features of an example, with images as encoded bytes.

    Raises:
        ImportError: if TFDS is not installed.
        ValueError: if the records are damaged, or have a format that needs TensorFlow.
    """
    tfds = _import()

    try:
        builder = tfds.builder_from_directory(folder)
        source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        with progress_bar(f"Reading {folder.parent.name} {split}", len(source), "example", shown=progress) as bar:
            for i in range(len(source)):
                yield source[i]
                bar.update()
    except (OSError, ValueError, RuntimeError, IndexError, KeyError, NotImplementedError) as error:
        raise ValueError(f"{folder} is not readable as split {split!r} of a prepared data set ({error})") from error


def read_prepared(folder: Path, prepared: Prepared, request: ReadRequest) -> Examples:
    """Reads all splits of a prepared set of labeled images.

    Args:
        folder: folder with `dataset_info.json`.
        prepared: the benchmark in TFDS.
        request: requested size and number of images.

    Returns:
        The images.

    Raises:
        ImportError: if TFDS is not installed.
        ValueError: if something is damaged.
    """
    names_of = class_names(folder, "label")
    images, names = [], []
    counts: dict[str, int] = {}
    for split in splits(folder):
        for example in records(folder, split, request.progress):
            name = prepared.rename(int(example["label"]), names_of[int(example["label"])])
            counts[name] = counts.get(name, 0) + 1
            if request.per_class is not None and counts[name] > request.per_class:
                continue
            try:
                images.append(decode(example["image"], request.pixels)[..., : prepared.channels])
            except ValueError as error:
                raise ValueError(f"{folder}: an image of {split} is not readable ({error})") from error
            names.append(name)
    return Examples.of(np.stack(images), names)


def splits(folder: Path) -> list[str]:
    """Returns the names of the splits.

    Raises:
        ValueError: if the records need TensorFlow.
    """
    try:
        info = load_json((folder / "dataset_info.json").read_bytes())
        kind, found = info.get("fileFormat", "tfrecord"), [split["name"] for split in info["splits"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'dataset_info.json'} is not readable ({error!r})") from error
    if kind != "array_record":
        raise ValueError(
            f"{folder} was prepared as {kind}, which only TensorFlow reads. Prepare it with "
            "tfds.builder(..., file_format='array_record').download_and_prepare()"
        )
    return found


def class_names(folder: Path, feature: str) -> list[str]:
    """Returns the names of the classes of a feature, in order."""
    path = folder / f"{feature}.labels.txt"
    try:
        return path.read_text("utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"{path} is missing: it has the names of the classes") from error


def _import() -> Any:
    try:
        import tensorflow_datasets as tfds  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            "a prepared TFDS directory is read with tensorflow-datasets and array_record (TensorFlow is not needed): "
            "pip install 'jaxmeta[tfds]'"
        ) from error
    return tfds
