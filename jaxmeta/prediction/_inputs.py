"""Inputs of a model, made of files, pictures, sentences and arrays."""

import dataclasses
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta.bounded import read_all
from jaxmeta.data import hash_ngrams
from jaxmeta.data.sources import SUFFIXES, decode


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The inputs of a model: their kind, and the shape of one. Call it for the array that the model takes.

    Example:
        >>> Inputs("text", (8,))(["pay my bill", "what is the weather"]).shape
        (2, 8)
        >>> Inputs("images", (4, 4, 1))(np.full((2, 4, 4, 1), 255, np.uint8)).max()
        np.float32(1.0)
    """

    kind: str
    """`"images"`, `"text"`, or `"arrays"` for inputs that are arrays already."""
    shape: tuple[int, ...]
    """Shape of one input, such as `(28, 28, 1)`."""
    invert: bool = False
    """Pictures are inverted, because the model was trained on bright ink. Arrays are not."""
    dtype: str = "float32"
    """Type of the arrays that the model takes."""

    def __call__(self, items: Any) -> np.ndarray:
        """Returns what the model takes: `[n, *shape]`.

        Args:
            items: for images a file, a folder, or a sequence of files, of `PIL.Image` or of arrays `[h, w, channels]`.
                Arrays of whole numbers are in [0, 255] and may have any size. Arrays of floats have the model's shape.
                For text a sentence or a sequence of sentences. In every case also an array `[n, *shape]`, or one input.

        Raises:
            ValueError: if an item cannot be read, or has another shape.
            TypeError: if an item is something else.
        """
        rows = [self._one(item, number) for number, item in enumerate(self.items(items))]
        return np.stack(rows).astype(self.dtype) if rows else np.zeros((0, *self.shape), self.dtype)

    def items(self, items: Any) -> Sequence[Any]:
        """Returns single items: the images of a folder, the rows of an array, the elements of a sequence."""
        if isinstance(items, str | os.PathLike) and self.kind == "images":
            return image_files(Path(items))
        if isinstance(items, str | bytes) or _is_picture(items):
            return [items]
        if hasattr(items, "shape"):
            array = np.asarray(items)
            single = array.ndim == len(self.shape)
            if self.kind == "images":  # gray images may come without channels
                single = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3, 4))
            return [array] if single else list(array)
        if not isinstance(items, Iterable):
            raise TypeError(f"inputs must be {self._allowed()}, got {type(items).__name__}")
        return list(items)

    def _allowed(self) -> str:
        arrays = f"arrays of shape {self.shape}"
        kinds = {"images": f"files, folders, pictures or {arrays}", "text": f"sentences or {arrays}"}
        return kinds.get(self.kind, arrays)

    def _one(self, item: Any, number: int) -> np.ndarray:
        if isinstance(item, str) and self.kind == "text":
            return hash_ngrams([item], self.shape[0])[0]
        if self.kind == "images" and (isinstance(item, str | os.PathLike | bytes) or _is_picture(item)):
            return self._picture(item)
        if isinstance(item, str | bytes | os.PathLike) or _is_picture(item):
            raise TypeError(f"inputs must be {self._allowed()}, got {type(item).__name__} as number {number}")
        array = np.asarray(item)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"inputs must be {self._allowed()}, got {type(item).__name__} as number {number}")
        if self.kind == "images" and array.dtype.kind in "biu":
            return self._pixels(array, number)
        if array.shape != self.shape:
            raise ValueError(f"inputs must be {self._allowed()}, got shape {array.shape} as number {number}")
        return array

    def _pixels(self, array: np.ndarray, number: int) -> np.ndarray:
        """Returns an image of whole numbers in [0, 255] in the model's size."""
        if array.dtype == bool or array.min(initial=0) < 0 or array.max(initial=0) > 255:
            raise ValueError(f"images of whole numbers must be in [0, 255], got {array.dtype} as number {number}")
        array = array.astype(np.uint8)
        if array.shape == self.shape:
            return array.astype(np.float32) / 255
        array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
        if array.ndim != 2 and (array.ndim != 3 or array.shape[-1] not in (3, 4)):
            raise ValueError(f"images must be [h, w], [h, w, 1], [h, w, 3] or [h, w, 4], got shape {array.shape}")
        from PIL import Image

        return dataclasses.replace(self, invert=False)._picture(Image.fromarray(array))

    def _picture(self, item: Any) -> np.ndarray:
        """Decodes a file, the content of a file, or a picture, as the data of the training were decoded."""
        if len(self.shape) != 3 or self.shape[0] != self.shape[1] or self.shape[2] not in (1, 3):
            raise ValueError(f"pictures can be read for inputs [size, size, 1 or 3], and the model's are {self.shape}")
        if _is_picture(item):
            content = io.BytesIO()
            item.save(content, "PNG")
            item = content.getvalue()
        if isinstance(item, bytes):
            content = item
        else:
            with open(item, "rb") as file:
                content = read_all(file, str(item))
        try:
            image = decode(content, self.shape[0])
        except ValueError as error:
            where = "a picture" if isinstance(item, bytes) else item
            raise ValueError(f"{where} is not a readable image ({error})") from error
        if self.shape[2] == 1:
            from PIL import Image

            image = np.asarray(Image.fromarray(image).convert("L"))[..., None]
        return (255 - image if self.invert else image).astype(np.float32) / 255


def image_files(path: Path) -> list[Path]:
    """Returns the images of a folder and of the folders in it, sorted by name, or the file itself.

    Raises:
        FileNotFoundError: if there is nothing, or no image in the folder.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is neither a file nor a folder")
    found = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES and _is_shown(file, path)]
    if not found:
        raise FileNotFoundError(f"{path} holds no image ({', '.join(SUFFIXES)})")
    return found


def _is_shown(file: Path, root: Path) -> bool:
    return file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)


def _is_picture(item: Any) -> bool:
    """Tells a picture of Pillow by what it can do, without importing Pillow."""
    return hasattr(item, "convert") and hasattr(item, "getbands")
