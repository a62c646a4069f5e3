"""Decoding of image files to one array."""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmeta.data.archives import Files
from jaxmeta.display import progress_bar

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
DEFAULT_SIZE = 84
_MOST_PIXELS = 30_000_000  # of an image that is decoded, which takes up to 16 bytes for each
_LARGEST = 128  # pixels of images that keep their size unasked
_GRAY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_ORIENTATION = 0x0112  # the tag of EXIF


class Picture(NamedTuple):
    """An image file and its class."""

    file: str
    """Name of the file."""
    name: str
    """Name of the class."""
    box: tuple[int, int, int, int] | None = None
    """Part to crop, `(left, upper, right, lower)` in pixels, or `None` for the whole image."""


def decode_all(
    files: Files, pictures: Sequence[Picture], size: int | None, channels: int | None, progress: bool
) -> np.ndarray:
    """Decodes image files.

    Args:
        files: the files.
        pictures: images to decode.
        size: height and width to scale the images to, in pixels. `None` takes that of the files, if they all are
            squares of one size of at most 128 pixels, else 84.
        channels: 1 for gray images, 3 for RGB. `None` takes 1 if all images are gray, else 3.
        progress: whether to show a progress bar.

    Returns:
        Images in the order of `pictures`: `[M, size, size, channels]`, uint8.

    Raises:
        ValueError: if an image is missing or cannot be read.
    """
    rows = {picture.file: row for row, picture in enumerate(pictures)}
    if len(rows) != len(pictures):
        twice = sorted(picture.file for row, picture in enumerate(pictures) if rows[picture.file] != row)
        raise ValueError(f"{files.where(twice[0])} is listed twice. {files.advice}".strip())
    if size is None or channels is None:
        agreed = _agreed(files, pictures)
        size, channels = size or agreed[0], channels or agreed[1]
    images = np.zeros((len(pictures), size, size, channels), np.uint8)
    missing = set(rows)
    with progress_bar("Reading images", len(pictures), "image", shown=progress) as bar:
        for file, content in files.read(rows.keys()):
            row = rows[file]
            try:
                images[row] = decode(content, size, pictures[row].box, channels)
            except ValueError as error:
                raise ValueError(f"{files.where(file)} is not a readable image ({error}). {files.advice}") from error
            missing.discard(file)
            bar.update()
    if missing:
        raise ValueError(f"{files.where(min(missing))} is missing, with {len(missing) - 1} others. {files.advice}")
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


def decode(content: bytes, size: int, box: tuple[int, int, int, int] | None = None, channels: int = 3) -> np.ndarray:
    """Decodes one image of any shape and mode, and scales it to a square with a Lanczos filter.

    The image is turned as its EXIF data say, unless a box is cropped. Transparent pixels show white. Numbers of 16 bits
    are scaled by their range. Real numbers must be in [0, 1]. An image may have up to 30 million pixels. A JPEG that is
    not progressive may have 178 million, because it is decoded at a fraction of its size.

    Args:
        content: content of an image file.
        size: height and width of the square, in pixels.
        box: see `Picture`.
        channels: 1 for a gray image, 3 for RGB.

    Returns:
        The image: `[size, size, channels]`, uint8.

    Raises:
        ValueError: if the content is not an image, is too large, or of a mode whose range is not known.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
            if box is None:
                image.draft("RGB", (2 * size, 2 * size))  # a large JPEG is decoded at a half, a quarter or an eighth
            pixels = width * height if "progressive" in image.info else image.width * image.height
            if pixels > _MOST_PIXELS:
                raise ValueError(f"it has {width} x {height} pixels, and {_MOST_PIXELS:,} are the most")
            image.load()  # Pillow turns a TIFF by itself then
            orientation = 1 if box else _orientation(image)
            image = _opaque(_eight_bits(image)).convert("L" if channels == 1 else "RGB")
            if orientation in range(2, 9):
                image = image.transpose(_turns()[orientation])
            if box is not None:
                image = image.crop(box)
            if image.size != (size, size):
                image = image.resize((size, size), Image.Resampling.LANCZOS)
    except UnidentifiedImageError as error:  # its message is about a buffer
        raise ValueError("it is of no known kind") from error
    except Exception as error:  # whatever Pillow makes of bytes that are no image
        raise ValueError(str(error) or type(error).__name__) from error
    return np.asarray(image).reshape(size, size, channels)


def adapt(images: np.ndarray, channels: int | None, invert: bool) -> np.ndarray:
    """Returns images with so many channels, and with dark and light exchanged.

    Args:
        images: images: `[M, H, W, C]`, uint8.
        channels: 1 for gray images, 3 for RGB, `None` for those that there are.
        invert: whether to invert them.

    Returns:
        Images: `[M, H, W, channels]`, uint8.

    Raises:
        ValueError: if these are no such images.
    """
    if channels is None and not invert:
        return images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            "channels and invert apply to images [M, H, W, C] in uint8 with one or three channels, "
            f"got {images.dtype} of shape {images.shape}"
        )
    if channels == 3 and images.shape[-1] == 1:
        images = np.repeat(images, 3, axis=-1)
    elif channels == 1 and images.shape[-1] == 3:
        gray = np.empty((*images.shape[:-1], 1), np.uint8)
        for row, image in enumerate(images):  # the weights of Pillow
            red, green, blue = np.moveaxis(image.astype(np.uint32), -1, 0)
            gray[row, ..., 0] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
        images = gray
    return 255 - images if invert else images


def _agreed(files: Files, pictures: Sequence[Picture]) -> tuple[int, int]:
    """Returns size and channels that suit all pictures, from their headers. It stops where they are known."""
    from PIL import Image

    sizes: set[tuple[int, int]] = set()
    gray = True
    for file, content in files.read({picture.file for picture in pictures}):
        try:
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                sizes.add(image.size)
                gray &= image.mode in _GRAY
        except Exception as error:  # whatever Pillow makes of bytes that are no image
            raise ValueError(f"{files.where(file)} is not a readable image ({error}). {files.advice}") from error
        if len(sizes) > 1 and not gray:
            break
    width, height = next(iter(sizes)) if len(sizes) == 1 else (0, 1)
    return width if width == height <= _LARGEST else DEFAULT_SIZE, 1 if gray else 3


def _eight_bits(image: Any) -> Any:
    """Returns an image of 16 bits or of real numbers in 8 bits, and others unchanged."""
    from PIL import Image

    if image.mode == "F":
        numbers = np.asarray(image)
        if not (numbers.min() >= 0 and numbers.max() <= 1):
            found = f"{numbers.min():g} to {numbers.max():g}"
            raise ValueError(f"mode F: real numbers must be in [0, 1], got {found}")
        scaled = 255 * numbers
        return Image.fromarray(np.round(scaled, out=scaled).astype(np.uint8))
    if image.mode != "I" and not image.mode.startswith("I;"):
        return image
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise ValueError("mode I: the range of 32-bit integers is not known, save 8 or 16 bits")
    if "transparency" in image.info:
        raise ValueError(f"mode {image.mode} with a transparent color is not understood, save 8 bits")
    table = ((np.arange(1 << 16) + 128) // 257).astype(np.uint8)
    if getattr(image, "tag_v2", {}).get(262) == 0:  # TIFF with white as zero
        table = table[::-1]
    return Image.fromarray(table[np.asarray(image)])


def _opaque(image: Any) -> Any:
    """Returns a transparent image on white, and others unchanged."""
    from PIL import Image

    if image.mode not in _ALPHA and "transparency" not in image.info:
        return image
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    gray = image.mode in ("1", "L", "LA")
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    on_white = Image.new("RGB", image.size, "white")
    on_white.paste(image, mask=image)
    return on_white.convert("L") if gray else on_white


def _orientation(image: Any) -> int:
    """Returns the orientation of an image, 1 if it has none or its EXIF data are damaged."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # whatever Pillow makes of damaged EXIF data, which say nothing then
        return 1


def _turns() -> dict[int, Any]:
    """Returns what undoes each orientation."""
    from PIL.Image import Transpose as Turn

    mirrored = {2: Turn.FLIP_LEFT_RIGHT, 4: Turn.FLIP_TOP_BOTTOM, 5: Turn.TRANSPOSE, 7: Turn.TRANSVERSE}
    return mirrored | {3: Turn.ROTATE_180, 6: Turn.ROTATE_270, 8: Turn.ROTATE_90}
