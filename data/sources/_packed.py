"""One packed file in place of a benchmark's own files."""

from pathlib import Path

from jaxmeta._files import expanded
from jaxmeta.data.containers import Examples


def packed_examples(root: str | Path | None) -> Examples | None:
    """Returns the examples of a packed file.

    Args:
        root: path of a file `.npz` that `Examples.save` wrote, or anything else that may be a benchmark's `root`.

    Returns:
        The examples, or `None` if `root` is no such file.

    Raises:
        ValueError: if the file is damaged, or lacks an array.
    """
    if root is None:
        return None
    path = expanded(root)
    return Examples.load(path) if path.suffix == ".npz" and path.is_file() else None
