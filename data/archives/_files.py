"""Files in folders and archives, read in place. Nothing is ever unpacked."""

import contextlib
import hashlib
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

from jaxmeta.bounded import MOST_BYTES, read_all
from jaxmeta.data.archives._folder import File, Folder
from jaxmeta.data.archives._tar import Tar
from jaxmeta.data.archives._zip import Zip

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,  # of gzip and bz2, and of a folder that changes
    RuntimeError,  # of an encrypted zip
    NotImplementedError,  # of a zip's compression
    IndexError,  # of a zip's file without a name
)


class Files:
    """The files in several folders, zip and tar archives, by name.

    A file in an archive has the name that the archive gives it. A file in a folder is called `folder/path/file`, and a
    single file by its own name. Names use `/` and never lead out of their archive. A link in an archive is the file
    that it leads to. What is neither file nor folder nor such a link is refused.

    Args:
        sources: folders, archives (with a suffix in `ARCHIVES`) and single files.
        advice: advice about damaged files, for error messages.
    """

    def __init__(self, sources: Sequence[Path], advice: str = "") -> None:
        self.sources = tuple(sources)
        self.advice = advice
        self._parts = [_part(source) for source in sources]

    @cached_property
    def _places(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for part in self._parts:
            with self._named(part):
                for name in part.names():
                    if name in found:
                        raise ValueError(f"{part.path} has two files of the same name: {name}. {self.advice}".strip())
                    found[name] = part.path
        return found

    @cached_property
    def names(self) -> list[str]:
        """Names of all files, sorted.

        Raises:
            ValueError: if an archive is damaged, a name occurs twice, or a name or a link leads out of its archive.
        """
        return sorted(self._places)

    def stamp(self) -> str:
        """Returns a fingerprint of the content, computed without reading much of it."""
        digest = hashlib.sha256()
        for part in self._parts:
            with self._named(part):
                digest.update(repr(part.stamp()).encode())
        return digest.hexdigest()[:16]

    def read(self, wanted: Collection[str], limit: int = MOST_BYTES) -> Iterator[tuple[str, bytes]]:
        """Reads files, in the order that is fastest.

        Args:
            wanted: names of the files.
            limit: number of bytes that each may have.

        Yields:
            The name of a file and its content.

        Raises:
            ValueError: if a file is damaged or too large.
        """
        wanted = set(wanted)
        for part in self._parts:
            at = [""]
            with self._named(part, at):
                for name, file in part.stream(wanted):
                    at[0] = name
                    with file:
                        content = read_all(file, self.where(name), limit)
                    at[0] = ""
                    yield name, content

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Opens one file.

        Args:
            name: name of the file.

        Yields:
            The file.

        Raises:
            ValueError: if the file is damaged, also where the body finds it.
        """
        for part in self._parts:
            with self._named(part, [name]):
                for _, file in part.stream({name}):
                    with file:
                        yield file
                    return

    def find(self, ending: str) -> str:
        """Returns the one name that is `ending` or ends with `/ending`.

        Raises:
            ValueError: if there is no such name, or more than one.
        """
        found = [name for name in self.names if name == ending or name.endswith("/" + ending)]
        if len(found) != 1:
            where = ", ".join(map(str, self.sources))
            raise ValueError(f"{where} has {len(found)} files {ending}, not one. {self.advice}".strip())
        return found[0]

    def where(self, name: str) -> str:
        """Returns the location of a file, for error messages."""
        source = self._places.get(name, self.sources[0])
        return f"{source}" if source.name == name else f"{source}: {name}"

    @contextlib.contextmanager
    def _named(self, part: "_Part", at: Sequence[str] = ("",)) -> Iterator[None]:
        """Converts errors about damage to a ValueError with the location: the file `at[0]`, if it is not empty."""
        try:
            yield
        except _DAMAGE as error:
            (name,) = at
            what = f"is damaged ({error})" if name else f"is not a readable {part.kind} ({error})"
            where = f"{part.path}: {name}" if name not in ("", part.path.name) else f"{part.path}"
            raise ValueError(f"{where} {what}. {self.advice}".strip()) from error


def is_archive(path: Path) -> bool:
    """Returns whether a path has the suffix of an archive."""
    return path.name.lower().endswith(ARCHIVES)


class _Part(Protocol):
    """One folder, archive or file."""

    path: Path
    kind: str

    def names(self) -> Iterator[str]:
        """Yields the names of all files."""
        ...

    def stamp(self) -> object:
        """Returns a value that identifies the content."""
        ...

    def stream(self, wanted: set[str]) -> Iterator[tuple[str, BinaryIO]]:
        """Opens several files one after the other, in the order in which they are stored."""
        ...


def _part(path: Path) -> _Part:
    if path.is_dir():
        return Folder(path)
    if not is_archive(path):
        return File(path)
    return Zip(path) if path.name.lower().endswith(".zip") else Tar(path)
