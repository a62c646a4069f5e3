"""Files in folders and archives, read in place. Nothing is ever unpacked."""

import contextlib
import hashlib
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, cast

from jaxmeta.bounded import MOST_BYTES, check_growth, check_tar_end, open_tar, read_all, tar_members

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
_DEPTH = 8  # of folders, which ends a walk through cyclic links


class Files:
    """The files in several folders, zip and tar archives, by name.

    A file in an archive has the name that the archive gives it. A file in a folder is called `folder/path/file`, and a
    single file by its own name. Names use `/` and never lead out of their archive.

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
            ValueError: if an archive is damaged, a name occurs twice, or a name leads out of its archive.
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
        return _Folder(path)
    if not is_archive(path):
        return _File(path)
    return _Zip(path) if path.name.lower().endswith(".zip") else _Tar(path)


class _Folder:
    """All files of a folder and its subfolders."""

    kind = "folder"

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> Iterator[str]:
        base = len(self.path.parts)
        for folder, folders, files in os.walk(self.path, followlinks=True):
            if len(Path(folder).parts) - base >= _DEPTH:
                folders.clear()
            for file in files:
                yield (self.path.name / Path(folder, file).relative_to(self.path)).as_posix()

    def stamp(self) -> list[tuple[str, int, int]]:
        return [(name, *_status(self.path.parent / name)) for name in sorted(self.names())]

    def stream(self, wanted: set[str]) -> Iterator[tuple[str, BinaryIO]]:
        for name in sorted(wanted):
            path = self.path.parent / name
            if name.startswith(self.path.name + "/") and path.is_file():
                yield name, open(path, "rb")  # noqa: SIM115 (the reader closes it)


class _File:
    """A single file."""

    kind = "file"

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> Iterator[str]:
        yield self.path.name

    def stamp(self) -> tuple[object, ...]:
        return _content_stamp(self.path)

    def stream(self, wanted: set[str]) -> Iterator[tuple[str, BinaryIO]]:
        if self.path.name in wanted:
            yield self.path.name, open(self.path, "rb")  # noqa: SIM115 (the reader closes it)


class _Zip:
    """The files of a zip archive."""

    kind = "zip archive"

    def __init__(self, path: Path) -> None:
        self.path = path

    def _infos(self, archive: zipfile.ZipFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
        check_growth(self.path, sum(info.file_size for info in archive.infolist()))
        for info in archive.infolist():
            if not info.is_dir():
                yield _safe_name(self.path, info.filename), info

    def names(self) -> Iterator[str]:
        with zipfile.ZipFile(self.path) as archive:
            yield from [name for name, _ in self._infos(archive)]

    def stamp(self) -> list[tuple[str, int, int]]:
        with zipfile.ZipFile(self.path) as archive:
            return sorted((name, info.file_size, info.CRC) for name, info in self._infos(archive))

    def stream(self, wanted: set[str]) -> Iterator[tuple[str, BinaryIO]]:
        with zipfile.ZipFile(self.path) as archive:
            for name, info in self._infos(archive):
                if name in wanted:
                    yield name, cast(BinaryIO, archive.open(info))


class _Tar:
    """The files of a tar archive."""

    kind = "tar archive"

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> Iterator[str]:
        with open_tar(self.path) as archive:
            yield from [_safe_name(self.path, m.name) for m in tar_members(self.path, archive) if m.isfile()]
            check_tar_end(archive)

    def stamp(self) -> tuple[object, ...]:
        return _content_stamp(self.path)

    def stream(self, wanted: set[str]) -> Iterator[tuple[str, BinaryIO]]:
        with open_tar(self.path) as archive:
            for member in tar_members(self.path, archive):
                if member.isfile() and (name := _safe_name(self.path, member.name)) in wanted:
                    yield name, cast(BinaryIO, archive.extractfile(member))


def _safe_name(source: Path, raw: str) -> str:
    name = PurePosixPath(raw.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or (name.parts and ":" in name.parts[0]):
        raise ValueError(f"{source} has a file outside of itself, which is refused: {raw!r}")
    return name.as_posix()


def _status(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _content_stamp(path: Path) -> tuple[object, ...]:
    """Returns size, time of change and a hash of both ends. The end of a gzip file holds a checksum of all of it."""
    with open(path, "rb") as file:
        ends = file.read(1 << 16)
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        ends += file.read()
    return path.name, *_status(path), hashlib.sha256(ends).hexdigest()
