"""Files in a zip archive."""

import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from jaxmeta.bounded import check_growth
from jaxmeta.data.archives._members import FILE, FOLDER, SYMBOLIC_LINK, Member, resolve

_UNIX = 3  # the system whose types of files a zip archive tells
_LONGEST_LINK = 1 << 12


class Zip:
    """The files of a zip archive."""

    kind = "zip archive"

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> Iterator[str]:
        """Yields the names of all files, and of links to these."""
        with zipfile.ZipFile(self.path) as archive:
            yield from [name for name, _ in self._files(archive)]

    def stamp(self) -> object:
        """Returns a value that identifies the content."""
        with zipfile.ZipFile(self.path) as archive:
            return sorted((info.filename, info.file_size, info.CRC, _type(info)) for info in archive.infolist())

    def stream(self, wanted: set[str]) -> Iterator[tuple[str, BinaryIO]]:
        """Opens several files one after the other, in the order in which they are stored."""
        with zipfile.ZipFile(self.path) as archive:
            for name, info in self._files(archive):
                if name in wanted:
                    yield name, cast(BinaryIO, archive.open(info))

    def _files(self, archive: zipfile.ZipFile) -> list[tuple[str, zipfile.ZipInfo]]:
        infos = archive.infolist()
        check_growth(self.path, sum(info.file_size for info in infos))
        found = resolve(self.path, [_member(archive, info) for info in infos])
        return [(name, infos[number]) for name, number in found]


def _type(info: zipfile.ZipInfo) -> int:
    """Returns the type of a file in the words of Unix, 0 if it is not told."""
    return stat.S_IFMT(info.external_attr >> 16) if info.create_system == _UNIX else 0


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    kind = _type(info)
    if info.is_dir() or kind == stat.S_IFDIR:
        return Member(info.filename, FOLDER)
    if kind == stat.S_IFLNK:
        target = archive.open(info).read(_LONGEST_LINK).decode(errors="replace")
        return Member(info.filename, SYMBOLIC_LINK, target)
    return Member(info.filename, FILE if kind in (0, stat.S_IFREG) else "a device or a pipe")
