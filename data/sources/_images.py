"""Decoding of image files to one array."""

import io
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxmeta.data.sources._archives import Files

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


class Picture(NamedTuple):
    """An image file and its class."""

    file: str
    """Name of the file."""
    name: str
    """Name of the class."""
    box: tuple[int, int, int, int] | None = None
    """Part to crop, `(left, upper, right, lower)` in pixels, or `None` for the whole image."""


def decode_all(files: Files, pictures: Sequence[Picture], size: int, progress: bool) -> np.ndarray:
    """Decodes image files.

    Args:
        files: the files.
        pictures: images to decode.
        size: height and width to scale the images to, in pixels.
        progress: whether to show a progress bar.

    Returns:
        RGB images in the order of `pictures`: `[M, size, size, 3]`, uint8.

    Raises:
        ValueError: if an image is missing or cannot be read.
    """
    from tqdm import tqdm

    rows = {picture.file: row for row, picture in enumerate(pictures)}
    if len(rows) != len(pictures):
        twice = sorted(picture.file for row, picture in enumerate(pictures) if rows[picture.file] != row)
        raise ValueError(f"{files.where(twice[0])} is listed twice. {files.advice}".strip())
    images = np.zeros((len(pictures), size, size, 3), np.uint8)
    done = 0
    with tqdm(total=len(pictures), desc="Reading images", unit="image", disable=not progress, delay=1) as bar:
        for file, content in files.read(rows.keys()):
            row = rows[file]
            try:
                images[row] = decode(content, size, pictures[row].box)
            except ValueError as error:
                raise ValueError(f"{files.where(file)} is not a readable image ({error}). {files.advice}") from error
            done += 1
            bar.update()
    if done < len(pictures):
        missing = sorted(rows.keys() - set(files.names))
        raise ValueError(f"{files.where(missing[0])} is missing, with {len(missing) - 1} others. {files.advice}")
    return images


def resize_all(images: np.ndarray, size: int) -> np.ndarray:
    """Scales decoded images to a square with a Lanczos filter, as `decode` does.

    Args:
        images: images in RGB: `[M, H, W, 3]`, uint8. They are returned unchanged if they have that size.
        size: height and width to scale the images to, in pixels.

    Returns:
        Images: `[M, size, size, 3]`, uint8.
    """
    from PIL import Image

    if images.shape[1:3] == (size, size):
        return images
    scaled = np.zeros((len(images), size, size, 3), np.uint8)
    for image, result in zip(images, scaled, strict=True):
        result[:] = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))
    return scaled


def decode(content: bytes, size: int, box: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """Decodes one image of any shape and scales it to a square with a Lanczos filter.

    Args:
        content: content of an image file.
        size: height and width of the square, in pixels.
        box: see `Picture`.

    Returns:
        The RGB image: `[size, size, 3]`, uint8.

    Raises:
        ValueError: if the content is not an image.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if box is None:
                image.draft("RGB", (2 * size, 2 * size))  # a large JPEG is decoded at a half, a quarter or an eighth
            if image.mode == "P":
                image = image.convert("RGBA")
            image = image.convert("RGB")
            if box is not None:
                image = image.crop(box)
            if image.size != (size, size):
                image = image.resize((size, size), Image.Resampling.LANCZOS)
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    return np.asarray(image)
