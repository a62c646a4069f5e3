"""Members of tar archives, one after the other, with bounds of what their headers may ask for."""

import contextlib
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

from jaxmeta.bounded._growth import check_growth

_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONGEST = 1 << 16  # bytes of a header with a long name or attributes
_DIGITS = re.compile(rb"\d{100}")


class _Member(tarfile.TarInfo):
    """A member whose header is not longer than a header needs to be. It would be read as one piece."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in _LONG and member.size > _LONGEST):
            raise tarfile.ReadError(f"it has a header of {member.size} bytes")
        return member

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        content: Any = tarfile.fileobj
        content.is_header = True
        try:
            return super().fromtarfile(tarfile)
        finally:
            content.is_header = False


class _Content:
    """The content of an archive, in which no header has a long number.

    The search of Python before 3.11.10 and 3.12.6 for a number in a header takes the square of its length.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.is_header = False
        self.seek, self.tell, self.close, self._read = file.seek, file.tell, file.close, file.read

    def read(self, size: int = -1) -> bytes:
        content = self._read(size)
        if self.is_header and _DIGITS.search(content):
            raise tarfile.ReadError("it has a header with a number of a hundred digits")
        return content


class _Archive(tarfile.TarFile):
    """An archive with such headers."""

    tarinfo = _Member

    def __init__(self, name: Any = None, mode: Any = "r", fileobj: Any = None, **options: Any) -> None:
        content: Any = _Content(fileobj)
        super().__init__(name, mode, content, **options)


@contextlib.contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Opens a tar archive of any compression for `tar_members`.

    Yields:
        The archive.

    Raises:
        tarfile.TarError: if it is damaged. Errors of the file system and of the compression pass.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))
        with _as_damage():
            archive = stack.enter_context(_Archive.open(fileobj=file))
        yield archive


def tar_members(path: Path, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yields the members of an archive, until it grows beyond all bounds.

    Args:
        path: path of the archive.
        archive: what `open_tar` returned.

    Raises:
        ValueError: if the archive is made to fill memory, see `check_growth`.
        tarfile.TarError: if it is damaged.
    """
    while True:
        with _as_damage():
            member = archive.next()
        if member is None:
            return
        check_growth(path, archive.offset)
        yield member


def check_tar_end(archive: tarfile.TarFile) -> None:
    """Raises EOFError if an archive ends too early. Python's reader does not notice a cut between two members.

    Args:
        archive: what `open_tar` returned, after all of its members.
    """
    content: Any = archive.fileobj
    content.seek(archive.offset)
    if content.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise EOFError("its end is missing")


@contextlib.contextmanager
def _as_damage() -> Iterator[None]:
    """Converts what Python's reader raises for headers that are none."""
    try:
        yield
    except (ValueError, MemoryError, OverflowError) as error:
        raise tarfile.ReadError(str(error) or type(error).__name__) from error
