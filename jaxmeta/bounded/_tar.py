"""Members of tar archives, one after the other, with bounds of what their headers may ask for."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from jaxmeta.bounded._growth import check_growth

_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONGEST = 1 << 16  # bytes of a header with a long name or attributes


class _Member(tarfile.TarInfo):
    """A member whose header is not longer than a header needs to be. It would be read as one piece."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in _LONG and member.size > _LONGEST):
            raise tarfile.ReadError(f"it has a header of {member.size} bytes")
        return member


def open_tar(path: Path) -> tarfile.TarFile:
    """Opens a tar archive of any compression for `tar_members`.

    Raises:
        tarfile.TarError: if it is damaged. Errors of the file system and of the compression pass.
    """
    try:
        return tarfile.open(path, tarinfo=_Member)
    except (ValueError, MemoryError, OverflowError) as error:
        raise tarfile.ReadError(str(error) or type(error).__name__) from error


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
        try:
            member = archive.next()
        except (ValueError, MemoryError, OverflowError) as error:
            raise tarfile.ReadError(str(error) or type(error).__name__) from error
        if member is None:
            return
        check_growth(path, archive.offset)
        yield member
