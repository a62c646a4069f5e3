"""Image files of every mode as the model sees them, and what a folder of them is without being asked."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from jaxmeta.data import get_tasksets, load_examples
from jaxmeta.data.sources._images import decode

RAMP = np.tile(np.array([0, 51, 102, 255], np.uint8), (4, 1))  # a value for each column
GRAY = Image.fromarray(RAMP)
ALPHA = Image.fromarray(np.tile(np.array([255, 255, 0, 255], np.uint8), (4, 1)))
ON_WHITE = [0, 51, 255, 255]
DEEP = Image.fromarray(RAMP.astype(np.uint16) * 257)


def stored(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (GRAY, "BMP", RAMP[0]),
        (Image.fromarray(RAMP > 60), "PNG", [0, 0, 255, 255]),
        (Image.fromarray(RAMP > 60), "TIFF", [0, 0, 255, 255]),
        (DEEP, "PNG", RAMP[0]),
        (DEEP, "TIFF", RAMP[0]),
        (DEEP, "PPM", RAMP[0]),
        (Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF", RAMP[0]),
        (GRAY.convert("P"), "GIF", RAMP[0]),
        (GRAY.convert("RGB").convert("CMYK"), "TIFF", RAMP[0]),
        (GRAY.convert("RGB").convert("YCbCr"), "TIFF", RAMP[0]),
        (Image.frombytes("I;16B", (4, 4), (RAMP.astype(">u2") * 257).astype(">u2").tobytes()), "TIFF", RAMP[0]),
        (Image.merge("LA", (GRAY, ALPHA)), "PNG", ON_WHITE),
        (Image.merge("LA", (GRAY, ALPHA)), "TIFF", ON_WHITE),
        (Image.merge("RGBA", (GRAY, GRAY, GRAY, ALPHA)), "PNG", ON_WHITE),
        (Image.merge("RGBA", (GRAY, GRAY, GRAY, ALPHA)), "WEBP", ON_WHITE),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_is_what_a_viewer_shows(image, kind, expected, channels):
    seen = decode(stored(image, kind, **({"lossless": True} if kind == "WEBP" else {})), 4, channels=channels)
    assert seen.shape == (4, 4, channels) and seen.dtype == np.uint8
    assert np.abs(seen.astype(int) - np.array(expected)[:, None]).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "YCbCr"])
def test_the_color_of_a_jpeg(mode):
    seen = decode(stored(Image.new("RGB", (8, 8), (200, 100, 50)).convert(mode), "JPEG", quality=100), 8, channels=3)
    assert np.abs(seen.astype(int) - [200, 100, 50]).max() <= 4


def test_a_transparent_color_of_sixteen_bits_is_refused():
    with pytest.raises(ValueError, match="mode I;16 with a transparent color is not understood, save 8 bits"):
        decode(stored(DEEP, "PNG", transparency=257), 4)


def test_a_transparent_color_is_white():
    assert decode(stored(GRAY, "PNG", transparency=51), 4)[0, :, 0].tolist() == [0, 255, 102, 255]
    assert decode(stored(GRAY.convert("P"), "PNG", transparency=102), 4)[0, :, 2].tolist() == [0, 51, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_a_viewer(orientation):
    """What a camera stores for an upright picture, for each way to hold it, by the standard's words."""
    upright = np.arange(16, dtype=np.uint8).reshape(4, 4) * 15
    held = {  # the stored rows and columns: 0th row is the top, right ... of the picture
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        content = stored(Image.fromarray(np.ascontiguousarray(held)).convert("RGB"), kind, exif=exif, **options)
        np.testing.assert_array_equal(decode(content, 4)[..., 0], upright)
    boxed = decode(stored(Image.fromarray(np.ascontiguousarray(held)), "PNG", exif=exif), 4, (0, 0, 4, 4))
    np.testing.assert_array_equal(boxed[..., 0], held)  # a published box is one of the stored image


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(RAMP.astype(np.int32) * 70_000), "mode I: the range of 32-bit integers is not known"),
        (Image.fromarray(RAMP.astype(np.float32)), r"mode F: real numbers must be in \[0, 1\], got 0 to 255"),
        (Image.fromarray(np.full((4, 4), np.nan, np.float32)), "mode F: real numbers must be"),
    ],
)
def test_a_range_that_is_not_known_is_refused_by_name(image, message, tmp_path):
    (tmp_path / "mine" / "a").mkdir(parents=True)
    (tmp_path / "mine" / "a" / "x.tif").write_bytes(stored(image, "TIFF"))
    with pytest.raises(ValueError, match="a/x.tif is not a readable image .*" + message):
        load_examples("folder", tmp_path / "mine", split="all", progress=False)


# What a folder is by itself, and what is asked for.


def put(root, images):
    for name, image in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(stored(image, "PNG"))


def square(size, mode="L", value=200):
    return Image.new("L", (size, size) if isinstance(size, int) else size, value).convert(mode)


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        ([square(28), square(28)], (28, 28, 1)),
        ([square(28), square(28, "RGB")], (28, 28, 3)),
        ([Image.fromarray(np.full((32, 32), 200 * 257, np.uint16)), square(32, "LA")], (32, 32, 1)),
        ([square(28, "P"), square(28, "P")], (28, 28, 3)),
        ([square(28), square(30)], (84, 84, 1)),
        ([square((28, 30)), square((28, 30))], (84, 84, 1)),
        ([square(129, "RGB")] * 2, (84, 84, 3)),
        ([square(128, "RGB")] * 2, (128, 128, 3)),
    ],
)
def test_size_and_channels_are_those_of_the_files(images, shape, tmp_path):
    put(tmp_path / "mine", {f"{name}/{i}.png": image for name in "ab" for i, image in enumerate(images)})
    found = load_examples("folder", tmp_path / "mine", split="all", progress=False).train.inputs
    assert found.shape[1:] == shape and np.abs(found[:, 3, 3].astype(int) - 200).max() <= 1
    asked = load_examples("folder", tmp_path / "mine", split="all", size=20, channels=3, progress=False).train.inputs
    assert asked.shape[1:] == (20, 20, 3)


def test_inverted_and_in_other_channels(tmp_path):
    image = Image.merge("RGB", (square(8, value=250), square(8, value=10), square(8, value=90)))
    put(tmp_path / "mine", {"a/0.png": image, "b/0.png": image})
    for channels, expected in (
        (None, [250, 10, 90]),
        (3, [250, 10, 90]),
        (1, [int(np.asarray(image.convert("L"))[0, 0])]),
    ):
        for invert in (False, True):
            options = {"channels": channels, "invert": invert, "progress": False}
            found = load_examples("folder", tmp_path / "mine", split="all", **options)
            seen = np.abs(255 * invert - np.array(expected))
            assert found.test.inputs[0, 5, 5].tolist() == seen.tolist()
    pixels = np.full((4, 5, 5, 1), 30, np.uint8)
    tasksets = get_tasksets("folder", 1, 1, 1, split="all", channels=3, invert=True, examples=(pixels, list("aabb")))
    assert tasksets.train.example.shape == (1, 5, 5, 3) and int(tasksets.train.inputs.min()) == 225  # pyright: ignore
    for wrong in (pixels.astype(float), pixels[..., 0]):
        with pytest.raises(ValueError, match=r"channels and invert apply to images \[M, H, W, C\] in uint8"):
            load_examples("folder", examples=(wrong, list("aabb")), invert=True)
    with pytest.raises(ValueError, match="channels must be one of 1, 3, got 2"):
        load_examples("folder", tmp_path / "mine", channels=2)
    with pytest.raises(ValueError, match="invert does not apply to 'clinc150'"):
        get_tasksets("clinc150", invert=True)


def test_a_root_that_is_too_high_gets_a_hint(tmp_path):
    put(tmp_path / "mine", {f"{half}/{name}/0.png": square(8) for half in ("big", "small") for name in "abcd"})
    with pytest.warns(
        UserWarning, match=r"'a' and other classes occur in several folders \(big, small\).* level too hi"
    ):
        assert len(load_examples("folder", tmp_path / "mine", split="all", progress=False).train.names) == 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_examples("folder", tmp_path / "mine" / "big", split="all", progress=False)
