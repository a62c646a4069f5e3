"""Files in folders and archives, read where they are: nothing is ever unpacked."""

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
_DEPTH = 8  # of folders; ends a walk through links that lead back
_MAX_BYTES = 1 << 26  # of one image


class Files:
    """The files of some folders, zip and tar archives and single files, by name.

    A file of an archive has the name that it has there; one of a folder is `folder/path/file`; a single file has its
    own. Names use `/` and never lead out of their archive.

    Args:
        sources: Folders, archives (by their suffix, one of `ARCHIVES`) and files.
        advice: What to do about damage, for messages.
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
                        raise ValueError(f"{part.path} has a file that is there twice: {name}. {self.advice}".strip())
                    found[name] = part.path
        return found

    @cached_property
    def names(self) -> list[str]:
        """All names, sorted.

        Raises:
            ValueError: If an archive is damaged, a name is there twice or leads out of its archive.
        """
        return sorted(self._places)

    def stamp(self) -> str:
        """Return a name for the content, made without reading much of it."""
        digest = hashlib.sha256()
        for part in self._parts:
            with self._named(part):
                digest.update(repr(part.stamp()).encode())
        return digest.hexdigest()[:16]

    def read(self, wanted: Collection[str], limit: int = _MAX_BYTES) -> Iterator[tuple[str, bytes]]:
        """Read files, in the order in which that is fastest.

        Args:
            wanted: Their names.
            limit: How many bytes to read of each at most.

        Yields:
            A name and the file's content.

        Raises:
            ValueError: If a file is damaged.
        """
        wanted = set(wanted)
        for part in self._parts:
            at = [""]
            with self._named(part, at):
                for name, file in part.stream(wanted):
                    at[0] = name
                    with file:
                        content = file.read(limit)
                    at[0] = ""
                    yield name, content

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open one file. What the body raises about a damaged stream is a ValueError that names the file.

        Args:
            name: Its name.

        Yields:
            The file.
        """
        for part in self._parts:
            with self._named(part, [name]):
                for _, file in part.stream({name}):
                    with file:
                        yield file
                    return

    def find(self, ending: str) -> str:
        """Return the one name that is `ending`, or ends with `/ending`; raise ValueError if there is not just one."""
        found = [name for name in self.names if name == ending or name.endswith("/" + ending)]
        if len(found) != 1:
            where = ", ".join(map(str, self.sources))
            raise ValueError(f"{where} has {len(found)} files {ending}, not one. {self.advice}".strip())
        return found[0]

    def where(self, name: str) -> str:
        """Return what to call a file in a message."""
        source = self._places.get(name, self.sources[0])
        return f"{source}" if source.name == name else f"{source}: {name}"

    @contextlib.contextmanager
    def _named(self, part: "_Part", at: Sequence[str] = ("",)) -> Iterator[None]:
        """Turn errors about damage into a ValueError that says where it is: at the file `at[0]`, if that is one."""
        try:
            yield
        except _DAMAGE as error:
            (name,) = at
            what = f"is damaged ({error})" if name else f"is not a readable {part.kind} ({error})"
            where = f"{part.path}: {name}" if name not in ("", part.path.name) else f"{part.path}"
            raise ValueError(f"{where} {what}. {self.advice}".strip()) from error


def is_archive(path: Path) -> bool:
    """Whether a path has an archive's suffix."""
    return path.name.lower().endswith(ARCHIVES)


class _Part(Protocol):
    path: Path
    kind: str

    def names(self) -> Iterator[str]:
        """Return the names of all files."""
        ...

    def stamp(self) -> object:
        """Return what identifies the content."""
        ...

    def stream(self, wanted: set[str]) -> Iterator[tuple[str, BinaryIO]]:
        """Open some files, one after the other, in the order in which they are stored."""
        ...


def _part(path: Path) -> _Part:
    if path.is_dir():
        return _Folder(path)
    if not is_archive(path):
        return _File(path)
    return _Zip(path) if path.name.lower().endswith(".zip") else _Tar(path)


class _Folder:
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
                yield name, open(path, "rb")  # noqa: SIM115 (who reads it closes it)


class _File:
    kind = "file"

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> Iterator[str]:
        yield self.path.name

    def stamp(self) -> tuple[object, ...]:
        return _content_stamp(self.path)

    def stream(self, wanted: set[str]) -> Iterator[tuple[str, BinaryIO]]:
        if self.path.name in wanted:
            yield self.path.name, open(self.path, "rb")  # noqa: SIM115 (who reads it closes it)


class _Zip:
    kind = "zip archive"

    def __init__(self, path: Path) -> None:
        self.path = path

    def _infos(self, archive: zipfile.ZipFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
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
    kind = "tar archive"

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> Iterator[str]:
        with tarfile.open(self.path) as archive:
            yield from [_safe_name(self.path, member.name) for member in archive if member.isfile()]
            rest = cast(BinaryIO, archive.fileobj)
            rest.seek(archive.offset)
            if rest.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:  # tarfile takes a cut for the end
                raise EOFError("its end is missing")

    def stamp(self) -> tuple[object, ...]:
        return _content_stamp(self.path)

    def stream(self, wanted: set[str]) -> Iterator[tuple[str, BinaryIO]]:
        with tarfile.open(self.path) as archive:
            for member in archive:
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
    """Size, time of change and both ends of a file; the end of a gzip file holds the checksum of all of it."""
    with open(path, "rb") as file:
        ends = file.read(1 << 16)
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        ends += file.read()
    return path.name, *_status(path), hashlib.sha256(ends).hexdigest()
