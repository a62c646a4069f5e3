"""Files in a tar archive."""

import io
import tarfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, cast

from jaxmeta.bounded import check_tar_end, open_tar, read_all, tar_members
from jaxmeta.data.archives._folder import content_stamp
from jaxmeta.data.archives._members import FOLDER, HARD_LINK, SYMBOLIC_LINK, Member, resolve

_NO_FILES = (tarfile.DIRTYPE, b"D", b"V")  # folders, those of an incremental archive with their lists, and labels


class Tar:
    """The files of a tar archive."""

    kind = "tar archive"

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _members(self) -> list[Member]:
        with open_tar(self.path) as archive:
            members = [_member(info) for info in tar_members(self.path, archive)]
            check_tar_end(archive)
        return members

    def names(self) -> Iterator[str]:
        """Yields the names of all files, and of links to these."""
        yield from [name for name, _ in resolve(self.path, self._members)]

    def stamp(self) -> object:
        """Returns a value that identifies the content."""
        return content_stamp(self.path)

    def stream(self, wanted: set[str]) -> Iterator[tuple[str, BinaryIO]]:
        """Opens several files one after the other, in the order in which they are stored."""
        aliases: dict[int, list[str]] = {}
        for name, number in resolve(self.path, self._members):
            if name in wanted:
                aliases.setdefault(number, []).append(name)
        with open_tar(self.path) as archive:
            for number, info in enumerate(tar_members(self.path, archive)):
                if number not in aliases:
                    continue
                if info.name != self._members[number].name:
                    raise OSError("it has changed while it was read")
                name, *others = aliases.pop(number)
                file = cast(BinaryIO, archive.extractfile(info))
                if not others:
                    yield name, file
                    continue
                content = read_all(file, f"{self.path}: {name}")  # once, because a compressed archive does not go back
                for alias in (name, *others):
                    yield alias, io.BytesIO(content)


def _member(info: tarfile.TarInfo) -> Member:
    if info.isfile():
        return Member(info.name)
    kinds = dict.fromkeys(_NO_FILES, FOLDER) | {tarfile.LNKTYPE: HARD_LINK, tarfile.SYMTYPE: SYMBOLIC_LINK}
    kinds |= {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe"}
    return Member(info.name, kinds.get(info.type, f"of an unknown type {info.type!r}"), info.linkname)
