"""Reading Omniglot's archives: where they are, what is in them, and how a drawing is decoded."""

import contextlib
import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"


class Archive(NamedTuple):
    """What is published about an archive."""

    characters: int
    md5: str
    megabytes: float


ARCHIVES = {
    "images_background": Archive(964, "68d2efa1b9178cc56df9314c21c6e718", 9.5),
    "images_evaluation": Archive(659, "6b91aef0f799c5bb55b94e3f2daec811", 6.5),
}
DRAWINGS = 20
_MAX_PNG_BYTES = 1 << 16  # upstream's largest is under 1 kB
_MEMBER = re.compile(r"images_\w+/(?P<name>[^/]+/character\d\d)/(?P<drawing>\d{4}_\d\d)\.png")


def read_characters(source: Path, progress: bool = True) -> tuple[np.ndarray, list[str]]:
    """Read the drawings of one archive or folder in the upstream layout.

    Files that are not named `images_*/<alphabet>/character<NN>/<NNNN_DD>.png` are ignored.

    Args:
        source: A `.zip` file or a folder.
        progress: Show a progress bar.

    Returns:
        Drawings, ink = 255: `[characters, 20, 28, 28, 1]` (uint8), and the characters' names, sorted.

    Raises:
        ValueError: If the archive or a drawing is damaged, or a character has not 20 drawings.
    """
    from tqdm import tqdm

    with _open(source) as members:
        drawings: dict[str, list[str]] = {}
        for member in sorted(members):
            if match := _MEMBER.fullmatch(member):
                drawings.setdefault(match["name"], []).append(member)
        for name, found in drawings.items():
            if len(found) != DRAWINGS:
                raise ValueError(f"{source}: {name} has {len(found)} drawings, not {DRAWINGS}. {advice()}")
        names = sorted(drawings)
        images = np.zeros((len(names), DRAWINGS, 28, 28, 1), np.uint8)
        bar = tqdm(names, desc=f"Reading {source.name}", unit="character", disable=not progress)
        for i, name in enumerate(bar):
            for j, member in enumerate(drawings[name]):
                images[i, j, :, :, 0] = _decode(members.read(member), f"{source}: {member}")
    return images, names


class _Members:
    """The files of an archive or a folder: iterate over their names, read their bytes."""

    def __init__(self, source: Path, archive: zipfile.ZipFile | None) -> None:
        self._source = source
        self._archive = archive

    def __iter__(self) -> Iterator[str]:
        if self._archive is not None:
            return iter(self._archive.namelist())
        paths = self._source.glob("*/character*/*.png")
        return iter([f"{self._source.name}/{path.relative_to(self._source).as_posix()}" for path in paths])

    def stamp(self, member: str) -> tuple[str, int, int]:
        """Return what identifies a file without reading it: its name, size and checksum or time of change."""
        if self._archive is not None:
            info = self._archive.getinfo(member)
            return member, info.file_size, info.CRC
        status = (self._source.parent / member).stat()
        return member, status.st_size, status.st_mtime_ns

    def read(self, member: str) -> bytes:
        """Return the first bytes of a file, at most as many as a drawing can have."""
        try:
            with self._archive.open(member) if self._archive else open(self._source.parent / member, "rb") as file:
                return file.read(_MAX_PNG_BYTES)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ValueError(f"{self._source}: {member} is damaged ({error}). {advice()}") from error


@contextlib.contextmanager
def _open(source: Path) -> Iterator[_Members]:
    if source.is_dir():
        yield _Members(source, None)
        return
    try:
        archive = zipfile.ZipFile(source)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{source} is not a readable zip archive ({error}). {advice()}") from error
    with archive:
        yield _Members(source, archive)


def _decode(content: bytes, where: str) -> np.ndarray:
    """Decode a 105x105 drawing (ink is black) to 28x28 with ink = 255."""
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
    """Return what to do about a damaged source."""
    return f"It was left as it is: move it away and fetch it again from {URL} or by a download."


def find_source(name: str, root: Path, download: bool, progress: bool) -> Path:
    """Return the archive or folder `name` in `root` or `root/omniglot`, fetching the archive if asked to."""
    for folder in (root, root / "omniglot"):
        if (archive := folder / f"{name}.zip").is_file():
            return archive
        if (folder / name).is_dir():
            return folder / name
    if download:
        return _download(name, root, progress)
    files = ", ".join(f"{key}.zip ({value.megabytes} MB)" for key, value in ARCHIVES.items())
    raise FileNotFoundError(
        f"Omniglot: no {name}.zip and no folder {name} in {root} or {root / 'omniglot'}. Put {files} there "
        f"from {URL}, name their folder with root (--root) or JAXMETA_DATA, or allow a download (--download)."
    )


def _download(name: str, root: Path, progress: bool) -> Path:
    import pooch

    url = f"{URL}{name}.zip"
    try:
        known_hash = f"md5:{ARCHIVES[name].md5}"
        path = pooch.retrieve(url, known_hash, fname=f"{name}.zip", path=root, progressbar=progress)
    except OSError as error:
        raise ConnectionError(f"could not fetch {url} into {root}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{url} is not the published file: {error}") from error
    return Path(path)


def fingerprint(sources: list[Path]) -> str:
    """Return a name for the content of archives or folders, made without reading the drawings."""
    digest = hashlib.sha256(b"omniglot28 1")  # change with the decoding
    for source in sources:
        with _open(source) as members:
            digest.update(repr([members.stamp(member) for member in sorted(members)]).encode())
    return digest.hexdigest()[:16]
