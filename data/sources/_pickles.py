"""Readers of benchmarks that are published as arrays: pickles and `.npy` files."""

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from jaxmeta.bounded import load_pickle, read_exactly
from jaxmeta.data.archives import Files
from jaxmeta.data.containers import Examples
from jaxmeta.data.sources._division import PARTS, first_rows
from jaxmeta.data.sources._images import decode, resize_all
from jaxmeta.data.sources._readers import Reader, ReadRequest

_WRONG = (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError)  # raised by unexpected content


def class_dict_pickles(*endings: tuple[str, ...]) -> Reader:
    """Returns a reader of pickles `{"image_data": [M, H, W, 3], "class_dict": {class: rows}}`, one for each part."""

    def part(content: dict[str, Any]) -> tuple[np.ndarray, list[str]]:
        images, classes = _pixels(content["image_data"]), content["class_dict"]
        names = [""] * len(images)
        for name, rows in classes.items():
            for row in rows:
                if names[row]:  # also what ends a list that is used for many classes
                    raise ValueError(f"class_dict names the class of image {row:d} twice")
                names[row] = _text(name)
        if "" in names:
            raise ValueError("class_dict does not name the class of every image")
        return images, names

    return _parts_reader(endings, part)


def label_pickles(*endings: tuple[str, ...]) -> Reader:
    """Returns a reader of pickles `{"data": [M, H, W, 3], "labels": [M]}`, one for each part.

    The classes are called `<part>/<label>`, because the files contain only numbers.
    """

    def part(content: dict[str, Any]) -> tuple[np.ndarray, list[str]]:
        return _pixels(content["data"]), [f"{int(label):03}" for label in content["labels"]]

    return _parts_reader(endings, part, numbered=True)


def png_pickles(files: Files, request: ReadRequest) -> Examples:
    """Reads tiered-ImageNet's `<part>_images_png.pkl`, lists of encoded images, and `<part>_labels.pkl`."""
    inputs, names, parts = [], [], {}
    for short, part in zip(("train", "val", "test"), PARTS, strict=True):
        labels = _load(files, _any_of(files, (f"{short}_labels.pkl", f"tiered-imagenet-{short}_labels.pkl")))
        path = _any_of(files, (f"{short}_images_png.pkl", f"tiered-imagenet-{short}_images_png.pkl"))
        encoded = _load(files, path)
        where = files.where(path)
        try:
            found = [f"{part}/{int(label):03}" for label in labels["label_specific"]]
            rows = first_rows(found, request.per_class)
            images = np.zeros((len(rows), request.pixels, request.pixels, 3), np.uint8)
            for place, row in enumerate(rows):
                images[place] = decode(_bytes(encoded[row]), request.pixels)
        except _WRONG as error:
            raise ValueError(f"{where} is not readable ({type(error).__name__}: {error}). {files.advice}") from error
        inputs.append(images)
        names += [found[row] for row in rows]
        parts |= dict.fromkeys(found, part)
    return Examples.of(np.concatenate(inputs), names, parts)


def cifar100(files: Files, request: ReadRequest) -> Examples:
    """Reads CIFAR-100's pickles `train`, `test` and `meta`: all images, with fine classes."""
    fine = _load(files, files.find("cifar-100-python/meta"))
    images, names = [], []
    for part in ("train", "test"):
        path = files.find(f"cifar-100-python/{part}")
        content = _load(files, path)
        try:
            classes = [_text(name) for name in fine["fine_label_names"]]
            found = [classes[label] for label in content["fine_labels"]]
            pixels = _array(content["data"]).astype(np.uint8).reshape(len(found), 3, 32, 32).transpose(0, 2, 3, 1)
        except _WRONG as error:
            raise ValueError(f"{files.where(path)} is not CIFAR-100 ({type(error).__name__}: {error})") from error
        images.append(pixels)
        names += found
    rows = first_rows(names, request.per_class)
    return Examples.of(np.concatenate(images)[rows], [names[row] for row in rows])


def drawings(files: Files, request: ReadRequest) -> Examples:
    """Reads Quick, Draw!'s bitmaps, `<class>.npy` of `[M, 784]`, as images `[M, 28, 28, 1]` with ink = 255."""
    images, names = [], []
    for name in sorted(request.known):
        path = files.find(f"{name}.npy")
        with files.open(path) as file:
            try:
                part = _first_rows_of_npy(file, request.per_class)
            except Exception as error:  # whatever NumPy makes of a header that is not its own
                raise ValueError(f"{files.where(path)} is not readable ({error}). {files.advice}") from error
        images.append(part)
        names += [name] * len(part)
    return Examples.of(np.concatenate(images).reshape(-1, 28, 28, 1), names)


def _parts_reader(endings: Sequence[tuple[str, ...]], part_of: Any, numbered: bool = False) -> Reader:
    """Returns a reader of one pickle for each part, whose content `part_of` converts to images and class names."""

    def read(files: Files, request: ReadRequest) -> Examples:
        inputs, names, parts = [], [], {}
        for options, part in zip(endings, PARTS, strict=True):
            path = _any_of(files, options)
            content = _load(files, path)
            try:
                images, found = part_of({_text(key): value for key, value in content.items()})
                if len(images) != len(found):
                    raise ValueError(f"it has {len(images)} images and {len(found)} labels")
            except _WRONG as error:
                where = files.where(path)
                raise ValueError(f"{where} has unexpected content ({type(error).__name__}: {error})") from error
            found = [f"{part}/{name}" for name in found] if numbered else found
            twice = sorted(set(found) & set(parts))
            if twice:
                raise ValueError(f"{files.where(path)}: class {twice[0]} is in {parts[twice[0]]} too")
            rows = first_rows(found, request.per_class)
            inputs.append(resize_all(images[rows], request.pixels))
            names += [found[row] for row in rows]
            parts |= dict.fromkeys(found, part)
        return Examples.of(np.concatenate(inputs), names, parts)

    return read


def _load(files: Files, path: str) -> Any:
    with files.open(path) as file:
        content = load_pickle(file, files.where(path))
    return {_text(key): value for key, value in content.items()} if isinstance(content, dict) else content


def _any_of(files: Files, endings: tuple[str, ...]) -> str:
    """Returns the one file that has one of the given names."""
    here = [end for end in endings if any(name == end or name.endswith("/" + end) for name in files.names)]
    return files.find(here[0] if here else endings[0])


def _pixels(images: Any) -> np.ndarray:
    """Returns images `[M, H, W, 3]` as uint8.

    Raises:
        ValueError: if they have another shape or other values.
    """
    array = _array(images)
    if array.ndim != 4 or array.shape[-1] != 3 or not array.size:
        raise ValueError(f"images must be [M, H, W, 3], got {array.dtype} of shape {array.shape}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iuf" or array.min() < 0 or array.max() > 255 or (array != np.rint(array)).any():
        raise ValueError(f"images must be whole numbers from 0 to 255, got {array.dtype}")
    return array.astype(np.uint8)


def _first_rows_of_npy(file: BinaryIO, count: int | None) -> np.ndarray:
    """Reads the first rows of an array `[M, 784]` of uint8."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(file)
    if len(shape) != 2 or shape[1] != 784 or fortran or dtype != np.uint8:
        raise ValueError(f"it must be uint8 of shape [M, 784], got {dtype} of shape {shape}")
    rows = shape[0] if count is None else min(count, shape[0])
    return np.frombuffer(read_exactly(file, rows * 784), np.uint8).reshape(rows, 784)


def _array(value: Any) -> np.ndarray:
    """Returns an array, and refuses lists, which may hold themselves many times over."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"there must be an array, got {type(value).__name__}")
    return value


def _bytes(value: Any) -> bytes:
    """Returns the bytes of an encoded image, which is an array or bytes."""
    return value if isinstance(value, bytes) else _array(value).astype(np.uint8).tobytes()


def _text(value: Any) -> str:
    """Returns a name, and refuses containers, which may hold themselves many times over."""
    if not isinstance(value, str | bytes | int | np.integer):
        raise TypeError(f"a name must be text or a whole number, got {type(value).__name__}")
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
