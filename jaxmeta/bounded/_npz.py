"""Reading of arrays from `.npz` files whose memory is bounded by the size of the file."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxmeta.bounded._growth import check_growth

_EMPTY = 1 << 20  # entries, and longest axis, of an array without content


def load_npz(path: Path, names: Sequence[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads some arrays of a file `.npz`.

    Args:
        path: path of the file.
        names: names of the arrays.

    Returns:
        Those that are there, and the names of all.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not such a file, its arrays are of objects, or it is made to fill memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_growth(path, sum(info.file_size for info in archive.infolist()))
        with np.load(path, allow_pickle=False) as arrays:
            there = list(arrays)
            found = {name: arrays[name] for name in names if name in there}
        strange = [name for name, array in found.items() if not isinstance(array, np.ndarray)]
        if strange:  # NumPy returns the bytes of what is no array
            raise ValueError(f"{strange[0]} is no array")
        hollow = [name for name, array in found.items() if max((array.size, *array.shape)) > max(array.nbytes, _EMPTY)]
        if hollow:  # its entries take no bytes, so a small file can have any number of them
            raise ValueError(f"{hollow[0]} has shape {found[hollow[0]].shape} and no content")
        return found, there
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever zipfile and NumPy make of bytes that are not their own
        told = str(error) or type(error).__name__
        raise ValueError(f"{path} is not a readable file of arrays ({told})") from error
