"""Reading of numbers from MATLAB files. SciPy's reader can crash the process if a file is damaged."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

_NUMBERS = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8"}
_MATRIX, _COMPRESSED = 14, 15
_MAX_BYTES = 1 << 26


def mat_numbers(content: bytes, name: str) -> np.ndarray:
    """Reads one matrix of real numbers from a MATLAB file of version 5 to 7.

    Args:
        content: content of the file.
        name: name of the matrix.

    Returns:
        Its numbers, column by column: `[n]`.

    Raises:
        ValueError: if the file is damaged or holds no such matrix.
    """
    if content[126:128] != b"IM":
        raise ValueError("it is not a little-endian MATLAB file of version 5 to 7")
    left = _MAX_BYTES
    try:
        for kind, data in _elements(content[128:]):
            if kind == _COMPRESSED:
                unpacked = zlib.decompressobj().decompress(data, left)
                left -= len(unpacked)
                if left <= 0:
                    raise ValueError(f"it grows to more than {_MAX_BYTES} bytes")
                ((kind, data),) = _elements(unpacked)
            if kind == _MATRIX:
                _, _, (_, found), (number, numbers), *_ = _elements(data)
                if found == name.encode():
                    return np.frombuffer(numbers, _NUMBERS[number])
    except (KeyError, struct.error, zlib.error) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    raise ValueError(f"it holds no matrix {name}")


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields type and bytes of the elements of a file or a matrix."""
    at = 0
    while at < len(content):
        kind, size = struct.unpack_from("<II", content, at)
        start, end = at + 8, at + 8 + size
        if kind >> 16:  # at most four bytes, stored in place of the size
            kind, size = kind & 0xFFFF, kind >> 16
            start, end = at + 4, at + 8
        if start + size > len(content):
            raise ValueError("it ends too early")
        yield kind, content[start : start + size]
        at = end if kind == _COMPRESSED else end + -end % 8
