"""Bounds of what a file may grow to when it is read."""

import io
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 1 << 28
"""Largest content that is read as one piece, in bytes."""
_FREE = 1 << 27  # bytes that every archive may grow to
_GROWTH = 100  # times its own size that a larger one may grow to
_BLOCK = 1 << 20


def check_growth(path: Path, size: int) -> None:
    """Raises ValueError if an archive says that it grows to so many bytes that it must be made to fill memory.

    Published archives grow to some five times their size.

    Args:
        path: path of the archive.
        size: number of bytes that it grows to.
    """
    most = max(_FREE, _GROWTH * path.stat().st_size)
    if size > most:
        raise ValueError(f"{path} grows to more than {most >> 20} MiB, over {_GROWTH} times its size, which is refused")


def read_exactly(file: BinaryIO, size: int) -> bytes:
    """Reads some bytes, and reserves no more memory than there is content.

    Raises:
        EOFError: if there are fewer.
    """
    content = io.BytesIO()
    while (missing := size - content.tell()) > 0:
        block = file.read(min(missing, _BLOCK))
        if not block:
            raise EOFError("it ends too early")
        content.write(block)
    return content.getvalue()


def read_all(file: BinaryIO, where: str, most: int = MOST_BYTES) -> bytes:
    """Reads the rest of a file.

    Args:
        file: the open file.
        where: location of the file, for error messages.
        most: number of bytes that it may have.

    Raises:
        ValueError: if it has more.
    """
    content = io.BytesIO()
    while block := file.read(_BLOCK):
        content.write(block)
        if content.tell() > most:
            raise ValueError(f"{where} has more than {most} bytes, the most that is read of one file")
    return content.getvalue()
