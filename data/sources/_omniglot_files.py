"""Reading of Omniglot's archives."""

import hashlib
import io
import re
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmeta.data.archives import Files
from jaxmeta.data.sources._download import Remote, fetch
from jaxmeta.data.sources._tfds import class_names, find_prepared, records, splits
from jaxmeta.display import progress_bar

URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"


class Archive(NamedTuple):
    """Published facts about an archive."""

    characters: int
    """Number of characters in it."""
    md5: str
    """MD5 checksum of the archive."""
    megabytes: float
    """Size of the archive."""


ARCHIVES = {
    "images_background": Archive(964, "68d2efa1b9178cc56df9314c21c6e718", 9.5),
    "images_evaluation": Archive(659, "6b91aef0f799c5bb55b94e3f2daec811", 6.5),
}
DRAWINGS = 20
EVALUATION = (
    "Angelic",
    "Atemayar_Qelisayer",
    "Atlantean",
    "Aurek-Besh",
    "Avesta",
    "Ge_ez",
    "Glagolitic",
    "Gurmukhi",
    "Kannada",
    "Keble",
    "Malayalam",
    "Manipuri",
    "Mongolian",
    "Old_Church_Slavonic_(Cyrillic)",
    "Oriya",
    "Sylheti",
    "Syriac_(Serto)",
    "Tengwar",
    "Tibetan",
    "ULOG",
)
"""The alphabets of `images_evaluation`."""
_MAX_PNG_BYTES = 1 << 16  # the largest published drawing is under 1 kB
_MEMBER = re.compile(r"images_\w+/(?P<name>[^/]+/character\d\d)/(?P<drawing>\d{4}_\d\d)\.png")


def read_characters(source: Path, progress: bool = True) -> tuple[np.ndarray, list[str]]:
    """Reads the drawings of one archive or folder in the published layout.

    Files that are not named `images_*/<alphabet>/character<NN>/<NNNN_DD>.png` are ignored.

    Args:
        source: a `.zip` file or a folder.
        progress: whether to show a progress bar.

    Returns:
        The drawings with ink = 255, `[characters, 20, 28, 28, 1]` (uint8), and the sorted names of the characters.

    Raises:
        ValueError: if the archive or a drawing is damaged, or a character does not have 20 drawings.
    """
    files = Files([source], advice())
    drawings: dict[str, list[str]] = {}
    for member in files.names:
        if match := _MEMBER.fullmatch(member):
            drawings.setdefault(match["name"], []).append(member)
    for name, found in drawings.items():
        if len(found) != DRAWINGS:
            raise ValueError(f"{source}: {name} has {len(found)} drawings, not {DRAWINGS}. {advice()}")
    names = sorted(drawings)
    places = {member: (i, j) for i, name in enumerate(names) for j, member in enumerate(drawings[name])}
    images = np.zeros((len(names), DRAWINGS, 28, 28, 1), np.uint8)
    with progress_bar(f"Reading {source.name}", len(places), "drawing", shown=progress) as bar:
        for member, content in files.read(places.keys(), _MAX_PNG_BYTES):
            images[(*places[member], ..., 0)] = _decode(content, f"{source}: {member}")
            bar.update()
    return images, names


def read_prepared_characters(folder: Path, split: str, progress: bool = True) -> tuple[np.ndarray, list[str]]:
    """Reads the drawings of one split of the data that TFDS prepared.

    A record does not say which drawing of a character it holds. But the records are sorted by a hash of the file names,
    so their order tells the drawings apart.

    Args:
        folder: folder with `dataset_info.json`.
        split: `"train"` for the background set, `"test"` for the evaluation set.
        progress: whether to show a progress bar.

    Returns:
        Drawings and names, like `read_characters`.

    Raises:
        ImportError: if TFDS is not installed.
        ValueError: if a drawing is damaged, or the records are not those of whole characters in that order.
    """
    if split not in splits(folder):
        raise ValueError(f"{folder} has no split {split!r}")
    stems = class_names(folder, "label")  # Alphabet_<character, from 0>, in the order of the published numbers
    contents, labels = [], []
    for example in records(folder, split, progress):
        contents.append(example["image"])
        labels.append(int(example["label"]))
    keys = [(label, drawing) for label in sorted(set(labels)) for drawing in range(1, DRAWINGS + 1)]
    hashes = {
        key: hashlib.md5(f"{split}{stems[key[0]]}_{key[0] + 1:04}_{key[1]:02}.png".encode()).digest() for key in keys
    }
    keys.sort(key=hashes.__getitem__)
    if [label for label, _ in keys] != labels:
        raise ValueError(f"{folder}: split {split!r} has records in an order that does not tell the drawings apart")
    names = {label: _character(stems[label]) for label in set(labels)}
    order = sorted(names, key=names.__getitem__)
    images = np.zeros((len(order), DRAWINGS, 28, 28, 1), np.uint8)
    place = {label: i for i, label in enumerate(order)}
    for (label, drawing), content in zip(keys, contents, strict=True):
        where = f"{folder}: drawing {drawing} of {names[label]}"
        images[place[label], drawing - 1, ..., 0] = _decode(content, where)
    return images, [names[label] for label in order]


def _character(stem: str) -> str:
    alphabet, _, number = stem.rpartition("_")
    return f"{alphabet}/character{int(number) + 1:02}"


def _decode(content: bytes, where: str) -> np.ndarray:
    """Decodes a 105x105 drawing, in which ink is black, to 28x28 with ink = 255."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.size != (105, 105):
                raise ValueError(f"its size is {image.size}, not (105, 105)")
            ink = ImageOps.invert(image.convert("L"))
    except (OSError, SyntaxError, ValueError, zlib.error, Image.DecompressionBombError) as error:
        raise ValueError(f"{where} is not a readable drawing ({error}). {advice()}") from error
    return np.asarray(ink.resize((28, 28), Image.Resampling.LANCZOS))


def advice() -> str:
    """Returns advice about a damaged archive, for error messages."""
    return f"It was left as it is: move it away and get it again from {URL} or by a download."


class Half(NamedTuple):
    """One of the two sets of characters, in any of the supported forms."""

    where: Path
    """Path of the archive or the folder."""
    stamp: str
    """Fingerprint of the content."""
    read: Callable[[], tuple[np.ndarray, list[str]]]
    """Function that reads the drawings and the names of the characters."""


def find_halves(root: Path, download: bool, progress: bool) -> list[Half]:
    """Finds the background and the evaluation set, or downloads their archives."""
    found = {name: _find_source(name, root) for name in ARCHIVES}
    prepared = None if all(found.values()) else find_prepared("omniglot", root)
    if prepared:
        return [
            Half(prepared, Files([prepared]).stamp(), partial(read_prepared_characters, prepared, split, progress))
            for split in ("train", "test")
        ]
    sources = [path or _fetch(name, root, download, progress) for name, path in found.items()]
    return [Half(path, Files([path], advice()).stamp(), partial(read_characters, path, progress)) for path in sources]


def _find_source(name: str, root: Path) -> Path | None:
    for folder in (root, root / "omniglot"):
        if (archive := folder / f"{name}.zip").is_file():
            return archive
        if (folder / name).is_dir():
            return folder / name
    return None


def _fetch(name: str, root: Path, download: bool, progress: bool) -> Path:
    archive = ARCHIVES[name]
    if download:
        return fetch(Remote(f"{name}.zip", archive.megabytes, f"{URL}{name}.zip", f"md5:{archive.md5}"), root, progress)
    files = ", ".join(f"{key}.zip ({value.megabytes} MB)" for key, value in ARCHIVES.items())
    raise FileNotFoundError(
        f"Omniglot: no {name}.zip, no folder {name} and no data prepared by TFDS in {root} or {root / 'omniglot'}. "
        f"Put {files} there from {URL}, name their folder with root (--root) or JAXMETA_DATA, "
        "or allow a download (--download)."
    )
