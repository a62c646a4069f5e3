"""Files that are whole or absent, and numbers that are those that were written."""

import contextlib
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that it is either the old one or the new one, never half of it; leaves nothing if it cannot."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def checksum(arrays: Iterable[Any]) -> int:
    """CRC-32 of the bytes of arrays, one after the other."""
    value = 0
    for array in arrays:
        value = zlib.crc32(np.asarray(array).tobytes(), value)
    return value
