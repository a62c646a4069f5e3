"""Readers of image files with their classes, one for each published layout."""

import csv
import io
import posixpath
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmeta.bounded import load_json, mat_numbers, read_all
from jaxmeta.data.archives import Files, walk
from jaxmeta.data.containers import PARTS, Examples, part_of_class
from jaxmeta.data.sources._division import first_examples, first_rows
from jaxmeta.data.sources._images import DEFAULT_SIZE, SUFFIXES, Picture, decode_all

_PART_NAMES = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


class ReadRequest(NamedTuple):
    """Requested size and number of examples."""

    known: frozenset[str] = frozenset()
    """Names of the benchmark's classes, empty if it takes any."""
    size: int | None = DEFAULT_SIZE
    """Height and width of images in pixels, or `None` for those of the files where they agree."""
    channels: int | None = 3
    """Number of channels of images, or `None` for that of the files."""
    per_class: int | None = None
    """Number of examples of each class to read, the first ones, or `None` for all."""
    progress: bool = False
    """True to show progress bars."""

    @property
    def pixels(self) -> int:
        """Height and width of images whose files do not decide them."""
        return self.size or DEFAULT_SIZE


Reader = Callable[[Files, ReadRequest], Examples]


def class_folders(files: Files, request: ReadRequest) -> Examples:
    """Reads `.../<class>/<image>` of the known classes and ignores everything else."""
    found = ((name, posixpath.basename(posixpath.dirname(name))) for name in _image_names(files))
    return read_pictures(files, [Picture(name, folder) for name, folder in found if folder in request.known], request)


def any_folders(files: Files, request: ReadRequest) -> Examples:
    """Reads `<class>/<image>`, or `train/<class>/<image>` and so on. A class is a folder that contains images."""
    names = _image_names(files)
    if not names:
        return read_pictures(files, [], request)
    _check_no_empty_folder(files, names)
    folders = [posixpath.dirname(name).split("/") for name in names]
    shared = 0
    while all(len(folder) > shared + 1 and folder[shared] == folders[0][shared] for folder in folders):
        shared += 1
    inner = [folder[shared:] for folder in folders]
    parts = [_PART_NAMES.get(folder[0].lower()) if len(folder) > 1 else None for folder in inner]
    if None in parts and set(parts) != {None}:
        lost = names[parts.index(None)]
        raise ValueError(f"{files.where(lost)} is in no folder train, validation or test, but other images are")
    if parts[0] is None:
        return read_pictures(files, [Picture(n, "/".join(f)) for n, f in zip(names, inner, strict=True)], request)
    classes = ["/".join(folder[1:]) for folder in inner]
    pictures = [Picture(name, of) for name, of in zip(names, classes, strict=True)]
    return read_pictures(files, pictures, request, _part_of_class(classes, [part or "" for part in parts]))


def own_vectors(files: Files, request: ReadRequest) -> Examples:
    """Reads a file `.npz` of vectors and the class of each."""
    (path,) = files.sources
    found = Examples.load(path)
    if found.inputs.ndim != 2 or found.inputs.dtype.kind not in "biuf":
        raise ValueError(f"{path}: x must be vectors [n, d], got {found.inputs.dtype}{list(found.inputs.shape)}")
    return first_examples(replace(found, inputs=found.inputs.astype(np.float32)), request.per_class)


def hint_at_level(names: Sequence[str]) -> None:
    """Warns if most classes of a folder have the name of a class of another folder below the root."""
    above: dict[str, list[str]] = {}
    for name in names:
        folder, _, last = name.rpartition("/")
        above.setdefault(last, []).append(folder)
    last, folders = max(above.items(), key=lambda item: len(item[1]))
    if sum(len(found) > 1 for found in above.values()) > len(above) / 2:
        warnings.warn(
            f"{last!r} and other classes occur in several folders ({', '.join(folders[:3])}), and count as different "
            "classes in each. If they are the same classes, root is one level too high",
            stacklevel=3,
        )


def listed_images(files: Files, request: ReadRequest) -> Examples:
    """Reads images listed in `train.csv`, `val.csv` and `test.csv` (filename, label), as for mini-ImageNet."""
    by_name = {posixpath.basename(name): name for name in _image_names(files)}
    pictures = []
    for table in ("train.csv", "val.csv", "test.csv"):
        rows = read_table(files, table, ("filename", "label"))
        pictures += [Picture(by_name.get(name, name), label) for name, label in rows]
    return read_pictures(files, pictures, request)


def aircraft(files: Files, request: ReadRequest) -> Examples:
    """Reads FGVC-Aircraft: listed images and classes, cropped to the bounding boxes as in Meta-Dataset."""
    boxes = {}
    for line in lines_of(files, "images_box.txt"):
        try:
            image, left, upper, right, lower = line.split()
            boxes[image] = (int(left) - 1, int(upper) - 1, int(right), int(lower))
        except ValueError as error:
            raise ValueError(f"{files.where(files.find('images_box.txt'))} has a line {line!r} ({error})") from error
    by_name = {posixpath.splitext(posixpath.basename(name))[0]: name for name in _image_names(files)}
    pictures = []
    for part in ("train", "val", "test"):
        for line in lines_of(files, f"images_variant_{part}.txt"):
            image, _, variant = line.partition(" ")
            pictures.append(Picture(by_name.get(image, f"{image}.jpg"), variant.strip(), boxes.get(image)))
    return read_pictures(files, pictures, request)


def flowers(files: Files, request: ReadRequest) -> Examples:
    """Reads VGG Flowers: `jpg/image_<NNNNN>.jpg`, with the numbers of the classes in `imagelabels.mat`."""
    name = files.find("imagelabels.mat")
    by_name = {posixpath.basename(image): image for image in _image_names(files)}
    try:
        numbers = mat_numbers(content_of(files, name), "labels")
        if len(numbers) > len(by_name) or not np.isfinite(numbers).all():
            raise ValueError(f"it has {len(numbers)} labels for {len(by_name)} images")
    except ValueError as error:
        raise ValueError(f"{files.where(name)} is not the list of labels ({error}). {files.advice}") from error
    labels = numbers.astype(int).tolist()
    wanted = [f"image_{number:05}.jpg" for number in range(1, len(labels) + 1)]
    pictures = [Picture(by_name.get(n, n), f"{label:03}") for n, label in zip(wanted, labels, strict=True)]
    return read_pictures(files, pictures, request)


def fungi(files: Files, request: ReadRequest) -> Examples:
    """Reads FGVCx Fungi: images, with the numbers of their classes in `train.json` and `val.json`."""
    pictures = []
    found = _image_names(files)
    for table in ("train.json", "val.json"):
        name = files.find(table)
        try:
            content = load_json(content_of(files, name))
            classes = {row["image_id"]: f"{row['category_id']:04}" for row in content["annotations"]}
            rows = [(str(row["file_name"]), classes[row["id"]]) for row in content["images"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{files.where(name)} is not a list of annotations ({error!r:.300})") from error
        pictures += [Picture(image, category) for image, category in rows]
    by_end = {posixpath.join(*name.split("/")[-2:]): name for name in found}
    pictures = [p._replace(file=by_end.get(posixpath.join(*p.file.split("/")[-2:]), p.file)) for p in pictures]
    return read_pictures(files, pictures, request)


def read_pictures(
    files: Files, pictures: Sequence[Picture], request: ReadRequest, parts: dict[str, str] | None = None
) -> Examples:
    """Decodes the requested pictures.

    Args:
        files: the files.
        pictures: all pictures.
        request: requested size and number of pictures.
        parts: part of each class, if the files divide the classes.

    Returns:
        Images, sorted by file.

    Raises:
        ValueError: if there are no pictures, or one is damaged.
    """
    pictures = sorted(pictures)
    pictures = [pictures[row] for row in first_rows([picture.name for picture in pictures], request.per_class)]
    if not pictures:
        raise ValueError(f"{', '.join(map(str, files.sources))} has no images in folders of their class")
    images = decode_all(files, pictures, request.size, request.channels, request.progress)
    return Examples.of(images, [picture.name for picture in pictures], parts)


def read_table(files: Files, ending: str, columns: tuple[str, str]) -> list[tuple[str, str]]:
    """Returns two columns of a csv file.

    Raises:
        ValueError: if the file does not have them in every row.
    """
    name = files.find(ending)
    content = _decode(content_of(files, name), files.where(name))
    try:
        table = csv.DictReader(io.StringIO(content))
        rows = list(table)
    except csv.Error as error:
        raise ValueError(f"{files.where(name)} is not a table ({error})") from error
    first, second = columns
    found = [(row.get(first), row.get(second)) for row in rows]
    complete = [(a, b) for a, b in found if a is not None and b is not None]
    if not rows or len(complete) < len(rows):
        told = f"{files.where(name)} must have the columns {first} and {second} in every row, separated by commas"
        raise ValueError(f"{told}. Its first row is {','.join(map(str, table.fieldnames or ()))!r:.200}")
    return complete


def lines_of(files: Files, ending: str) -> list[str]:
    """Returns the lines of a text file."""
    name = files.find(ending)
    return _decode(content_of(files, name), files.where(name)).splitlines()


def content_of(files: Files, name: str) -> bytes:
    """Returns the content of a table or a list.

    Raises:
        ValueError: if the file is damaged, or too large for one.
    """
    with files.open(name) as file:
        return read_all(file, files.where(name))


def _decode(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not text in UTF-8 ({error})") from error


def visible(files: Files) -> list[str]:
    """Returns the names of files, without hidden ones and those that macOS adds to archives."""
    return [name for name in files.names if not _hidden(files, name) and not name.startswith("__MACOSX/")]


def _image_names(files: Files) -> list[str]:
    """Returns the names of images."""
    return [name for name in visible(files) if name.lower().endswith(SUFFIXES)]


def _hidden(files: Files, name: str) -> bool:
    """Returns whether a file, or a folder that it is in below the sources, has a name that starts with a dot."""
    parts = name.split("/")
    inside = parts[1:] if parts[0] in {source.name for source in files.sources} else parts
    return any(part.startswith(".") for part in inside)


def _check_no_empty_folder(files: Files, names: Sequence[str]) -> None:
    """Raises ValueError if a folder contains neither folders nor images. Hidden folders are left alone."""
    full = {posixpath.dirname(name) for name in names}
    for source in filter(Path.is_dir, files.sources):
        for folder, folders, _ in walk(source):
            inside = (source.name / folder.relative_to(source)).as_posix()
            if "/." not in inside and all(name.startswith(".") for name in folders) and inside not in full:
                raise ValueError(f"{folder} is a class without images: move it away, or put images there")


def _part_of_class(classes: Iterable[str], parts: Iterable[str]) -> dict[str, str]:
    """Returns the part of each class.

    Raises:
        ValueError: if a class is in two parts, or a part has no classes.
    """
    found = part_of_class(classes, parts)
    missing = [part for part in PARTS if part not in found.values() and part != "validation"]
    if missing:
        raise ValueError(
            f"there are no classes in {' and '.join(missing)}. Only validation may be missing. split='all' has all "
            "classes in every part, without folders train and test"
        )
    return found
