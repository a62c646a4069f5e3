"""Files in a folder, and single files."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jaxmeta._files import open_file

_WAYS = 16  # in which links may lead to one folder


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walks through a folder and the folders in it, also through links to other folders.

    A link to a folder that the link is in, such as `latest -> .`, is left out.

    Args:
        root: the folder.

    Yields:
        A folder, and the names of the folders and of the files in it.

    Raises:
        OSError: if a folder cannot be read.
        ValueError: if many links lead to one folder.
    """
    ways: Counter[Path] = Counter()
    rest: list[tuple[Path, tuple[Path, ...]]] = [(root, (Path(os.path.realpath(root)),))]
    while rest:
        folder, (here, *crossed) = rest.pop()
        folders, files = [], []
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_dir():
                    files.append(entry.name)
                    continue
                inside, links = here / entry.name, crossed
                if entry.is_symlink():
                    inside, links = Path(os.path.realpath(entry.path)), [here, *crossed]
                    if any(place.is_relative_to(inside) for place in links):
                        continue
                    ways[inside] += 1
                    if ways[inside] > _WAYS:
                        raise ValueError(f"{entry.path}: links lead to {inside} in more than {_WAYS} ways")
                folders.append(entry.name)
                rest.append((folder / entry.name, (inside, *links)))
        yield folder, folders, files


class Folder:
    """All files of a folder and its subfolders."""

    kind = "folder"

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> Iterator[str]:
        """Yields the names of all files."""
        for folder, _, files in walk(self.path):
            for file in files:
                yield (self.path.name / (folder / file).relative_to(self.path)).as_posix()

    def stamp(self) -> object:
        """Returns a value that identifies the content."""
        return [(name, *_status(self.path.parent / name)) for name in sorted(self.names())]

    def stream(self, wanted: set[str]) -> Iterator[tuple[str, BinaryIO]]:
        """Opens several files one after the other."""
        for name in sorted(wanted):
            path = self.path.parent / name
            if name.startswith(self.path.name + "/") and path.exists():
                yield name, open_file(path)


class File:
    """A single file."""

    kind = "file"

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> Iterator[str]:
        """Yields its name."""
        yield self.path.name

    def stamp(self) -> object:
        """Returns a value that identifies the content."""
        return content_stamp(self.path)

    def stream(self, wanted: set[str]) -> Iterator[tuple[str, BinaryIO]]:
        """Opens it."""
        if self.path.name in wanted:
            yield self.path.name, open_file(self.path)


def content_stamp(path: Path) -> tuple[object, ...]:
    """Returns the status of a file and a hash of both ends. The end of a gzip file holds a checksum of all of it."""
    with open_file(path) as file:
        ends = file.read(1 << 16)
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        ends += file.read()
    return path.name, *_status(path), hashlib.sha256(ends).hexdigest()


def _status(path: Path) -> tuple[int, ...]:
    """Returns what changes with the content of a file.

    Size and time can be set to what they were. The time of the last change of the status cannot, and the number of the
    file tells apart two files that have changed their names.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
