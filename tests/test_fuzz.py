# pyright: reportPrivateImportUsage=false
"""Random files, frames and labels: the right numbers, by another way, or an error of ours. Never anything else.

Set JAXMETA_FUZZ=10000 for more of them: `JAXMETA_FUZZ=10000 pytest -m slow tests/test_fuzz.py`.
"""

import io
import os
import warnings
import zipfile

import jax
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxmeta import data
from jaxmeta.data.containers import as_labels
from jaxmeta.data.sources._images import decode
from jaxmeta.prediction._labeled import read_arrays

QUICK, MANY = 75, int(os.environ.get("JAXMETA_FUZZ", "2000"))
ORIENTATION = 0x0112


@pytest.fixture(autouse=True)
def other_libraries_may_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# Images. The expected numbers come from the arrays that are written, by formulas, and not from Pillow's conversions.


def gray_of(rgb):
    return (rgb.astype(int) @ np.array([19595, 38470, 7471]) + 0x8000) >> 16


def on_white(color, alpha):
    return 255 + (color.astype(float) - 255) * alpha[..., None] / 255


def random_picture(rng, side):
    """An image in memory, what a viewer shows of it as RGB floats, whether it is gray, and formats that hold it."""
    byte = lambda *shape: rng.integers(0, 256, (side, side, *shape)).astype(np.uint8)  # noqa: E731
    kind = rng.choice(["1", "L", "LA", "RGB", "RGBA", "P", "P+t", "P+ts", "L+t", "RGB+t", "I;16", "I", "F", "CMYK"])
    lossless = ["PNG", "TIFF"]
    if kind == "1":
        bits = rng.random((side, side)) < 0.5
        return Image.fromarray(bits), np.repeat(255.0 * bits[..., None], 3, -1), True, [*lossless, "BMP", "PPM"], {}
    if kind in ("L", "L+t"):
        x = byte()
        shown, options = x.astype(float), {}
        if kind == "L+t":
            options = {"transparency": int(x[0, 0])}
            shown = np.where(x == x[0, 0], 255.0, shown)
        return (
            Image.fromarray(x),
            np.repeat(shown[..., None], 3, -1),
            True,
            ["PNG"] if options else [*lossless, "BMP", "PPM"],
            options,
        )
    if kind == "LA":
        x, alpha = byte(), byte()
        image = Image.merge("LA", (Image.fromarray(x), Image.fromarray(alpha)))
        return image, np.repeat(on_white(x[..., None], alpha), 3, -1), True, lossless, {}
    if kind in ("RGB", "RGB+t"):
        x, options = byte(3), {}
        shown = x.astype(float)
        if kind == "RGB+t":
            options = {"transparency": tuple(x[0, 0].tolist())}
            shown = np.where((x == x[0, 0]).all(-1, keepdims=True), 255.0, shown)
        return Image.fromarray(x), shown, False, ["PNG"] if options else [*lossless, "BMP", "PPM", "WEBP"], options
    if kind == "RGBA":
        x = byte(4)
        return Image.fromarray(x), on_white(x[..., :3], x[..., 3]), False, lossless, {}
    if kind.startswith("P"):
        colors = int(rng.integers(2, 257))
        x, palette = (
            rng.integers(0, colors, (side, side)).astype(np.uint8),
            rng.integers(0, 256, (256, 3)).astype(np.uint8),
        )
        image = Image.fromarray(x, "P")
        image.putpalette(palette[:colors].tobytes())
        shown, options = palette[x].astype(float), {}
        if kind == "P+t":
            options = {"transparency": int(x[0, 0])}
            shown = np.where((x == x[0, 0])[..., None], 255.0, shown)
        elif kind == "P+ts":
            alpha = rng.integers(0, 256, colors).astype(np.uint8)
            options = {"transparency": alpha.tobytes()}
            shown = on_white(palette[x], alpha[x])
        return (
            image,
            shown,
            False,
            ["PNG"] if kind == "P+ts" else ["PNG", "GIF"] if options else [*lossless, "BMP", "GIF"],
            options,
        )
    if kind in ("I;16", "I"):
        x = rng.integers(0, 65536, (side, side)).astype(np.uint16)
        image = Image.fromarray(x) if kind == "I;16" else Image.fromarray(x.astype(np.int32))
        return image, np.repeat(x[..., None] / 257.0, 3, -1), True, lossless if kind == "I;16" else ["PPM"], {}
    if kind == "F":
        x = rng.random((side, side)).astype(np.float32)
        return Image.fromarray(x), np.repeat(255.0 * x[..., None], 3, -1), True, ["TIFF"], {}
    x = byte(4)  # CMYK
    return Image.fromarray(x, "CMYK"), (255.0 - x[..., :3]) * (255 - x[..., 3:]) / 255, False, ["TIFF"], {}


TURNED = {  # by rows and columns of the stored picture, as the standard says where its first row and column are shown
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
    8: lambda x: x.swapaxes(0, 1)[::-1],
}


def picture_file(rng):
    side = int(rng.integers(1, 9))
    image, shown, gray, formats, options = random_picture(rng, side)
    kind = str(rng.choice(formats))
    if kind in ("PNG", "WEBP", "TIFF") and rng.random() < 0.3:
        turn = int(rng.integers(1, 9))
        exif = Image.Exif()
        exif[ORIENTATION] = turn
        options, shown = {**options, "exif": exif}, TURNED[turn](shown)
    if kind == "GIF" and rng.random() < 0.3:  # of an animation the first picture is taken
        options = {**options, "save_all": True, "append_images": [Image.new("P", image.size, 1)]}
    if kind == "WEBP":
        options = {**options, "lossless": True}
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue(), shown, gray, side


def damaged(rng, content):
    """Random damage of a file: cut, bytes changed, bytes put in, nothing left, something else."""
    way = rng.integers(0, 5)
    if way == 0:
        return content[: rng.integers(0, len(content) + 1)]
    content = bytearray(content)
    if way == 1:
        return bytes(rng.integers(0, 256, rng.integers(0, 50)).astype(np.uint8))
    if way == 2:
        at = int(rng.integers(0, len(content) + 1))
        return bytes(content[:at] + rng.integers(0, 256, 5).astype(np.uint8).tobytes() + content[at:])
    for _ in range(int(rng.integers(1, 9))):
        content[rng.integers(0, len(content))] = rng.integers(0, 256)
    return bytes(content)


def check_image(rng):
    content, shown, gray, side = picture_file(rng)
    channels = int(rng.choice([1, 3]))
    found = decode(content, side, channels=channels).astype(float)
    expected = shown if channels == 3 else (shown[..., :1] if gray else gray_of(np.round(shown))[..., None])
    assert found.shape == (side, side, channels)
    np.testing.assert_allclose(found, expected, atol=1.01 if channels == 3 or gray else 2.01)
    try:
        found = decode(damaged(rng, content), 8, channels=channels)
    except ValueError as error:
        assert str(error)
    else:
        assert found.shape == (8, 8, channels) and found.dtype == np.uint8


# Files of arrays.


def check_arrays(rng, path):
    x = rng.normal(size=(6, 2)).astype(str(rng.choice(["float32", "float64", "int16", "uint8"])))
    arrays = {"x": x, "y": np.arange(6)}
    fault = str(rng.choice(["none", "object", "missing", "damage", "text", "npy"]))
    if fault == "object":
        arrays["y"] = np.array([{"a": 1}] * 6, object)
    if fault == "missing":
        del arrays[str(rng.choice(["x", "y"]))]
    file = io.BytesIO()
    save = np.savez_compressed if rng.random() < 0.5 else np.savez
    save(file, **arrays, allow_pickle=True)
    content = file.getvalue()
    if fault == "damage":
        content = damaged(rng, content)
    if fault == "text":
        content = b"x,y\n1,2\n"
    if fault == "npy":
        file = io.BytesIO()
        np.save(file, x)
        content = file.getvalue()
    path.write_bytes(content)
    if fault == "none":
        np.testing.assert_array_equal(read_arrays(path, "x", "y")["x"], x)
        return
    try:
        found = read_arrays(path, "x", "y")
    except ValueError as error:
        assert str(path) in str(error)
    else:  # the damage did not touch the arrays: a checksum guards them
        assert fault == "damage"
        np.testing.assert_array_equal(found["x"], x)
        assert zipfile.is_zipfile(path)


# Frames of pandas, read by position.


def random_index(rng, n):
    kind = rng.integers(0, 6)
    if kind == 0:
        return pd.RangeIndex(n)
    if kind == 1:
        return pd.Index(rng.permutation(n))
    if kind == 2:
        return pd.Index(rng.integers(0, 3, n))  # duplicates
    if kind == 3:
        return pd.MultiIndex.from_arrays([rng.integers(0, 3, n), rng.permutation(n)])
    if kind == 4:
        return pd.date_range("2020-01-01", periods=n)
    return pd.Index([f"row {i}" for i in rng.permutation(n)])


LABEL_KINDS = ["int", "str", "object", "category", "string", "Int64", "uint8", "pyints", "bool", "float", "whole float"]
LABEL_KINDS += ["missing", "Int64 missing", "datetime", "mixed", "bytes", "int category"]


def random_labels(rng, n):
    """Labels as a list of Python's own values, as a column of pandas, and whether they can be classes."""
    kind = str(rng.choice(LABEL_KINDS))
    numbers = [int(i) for i in rng.choice([-3, 0, 1, 7, 10**12], n)]
    words = [f"class {i % 7}" for i in numbers]
    if kind in ("str", "object", "category", "string"):
        return words, pd.Series(words, dtype=kind), True
    if kind in ("int", "Int64"):
        return numbers, pd.Series(numbers, dtype="int64" if kind == "int" else kind), True
    if kind == "uint8":
        small = [i % 5 for i in numbers]
        return small, pd.Series(small, dtype=kind), True
    if kind == "int category":
        return numbers, pd.Series(pd.Categorical(numbers)), True
    if kind == "pyints":
        return numbers, pd.Series(numbers, dtype=object), True
    wrong = {
        "bool": pd.Series([i % 2 == 0 for i in numbers]),
        "float": pd.Series([i + 0.5 for i in numbers]),
        "whole float": pd.Series([float(i) for i in numbers]),
        "missing": pd.Series([None, *words[1:]], dtype=object),
        "Int64 missing": pd.Series([None, *numbers[1:]], dtype="Int64"),
        "datetime": pd.Series(pd.date_range("2020-01-01", periods=n)),
        "mixed": pd.Series(["a", *numbers[1:]], dtype=object),
        "bytes": pd.Series([word.encode() for word in words], dtype=object),
    }
    return None, wrong[kind], False


FEATURE_KINDS = [
    "float64",
    "float32",
    "int64",
    "uint8",
    "bool",
    "Float64",
    "Int64",
    "object",
    "mixed",
    "text",
    "missing",
]
FEATURE_KINDS += ["datetime", "category"]


def random_features(rng, n):
    """Columns of inputs as an array, as a frame, and whether they are numbers."""
    kind = str(rng.choice(FEATURE_KINDS))
    x = rng.integers(0, 100, (n, 3))
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    if kind == "text":
        return None, frame.assign(b=[f"word {i}" for i in range(n)]), False
    if kind == "datetime":
        return None, frame.assign(b=pd.date_range("2020-01-01", periods=n)), False
    if kind == "missing":
        return x, frame.astype("Int64").mask(frame == frame.iloc[0, 0]), True
    if kind == "category":
        return None, frame.assign(b=pd.Categorical(["u", "v"] * n)[:n]), False
    if kind == "mixed":
        return x.astype(float), frame.astype({"a": "float64", "b": "int32", "c": "uint8"}), True
    return x.astype(bool) if kind == "bool" else x, frame.astype(kind), True


def check_frame(rng):
    n = int(rng.integers(2, 30))
    x, inputs, numeric = random_features(rng, n)
    y, labels, classes = random_labels(rng, n)
    frame = inputs.assign(label=labels.to_numpy() if rng.random() < 0.3 else labels.array)
    frame.index = random_index(rng, n)
    rows = rng.permutation(n)[: rng.integers(1, n + 1)]  # shuffled and filtered
    frame = frame.iloc[rows]
    inputs, labels = frame[["a", "b", "c"]], frame["label"]
    numeric &= not inputs.isna().any(axis=None)
    take = [
        lambda: data.Examples.of(inputs, labels),
        lambda: data.MetaDataset((inputs, labels)),
        lambda: data.MetaDataset(frame, keys=(["a", "b", "c"], "label")),
    ][rng.integers(0, 3)]
    try:
        found = take()
    except (ValueError, TypeError) as error:
        assert not (numeric and classes), error
        assert str(error).split()[0] in ("inputs", "labels", "names", "label"), error
        assert len(str(error)) < 400
        return
    assert classes or _is_whole(labels), labels
    expected = [str(y[row]) for row in rows] if y is not None else [str(value) for value in labels.tolist()]
    if isinstance(found, data.Examples):
        assert numeric, inputs.dtypes
        np.testing.assert_array_equal(found.inputs, x[rows])  # pyright: ignore[reportOptionalSubscript]
        assert [found.names[label] for label in found.labels] == expected
        return
    assert [str(label) for label in found.targets.tolist()] == expected
    if numeric:
        np.testing.assert_array_equal(np.stack(found.take(np.arange(len(rows)))), x[rows])  # pyright: ignore


def _is_whole(labels):
    """A part without its bad entry may be of strings or integers."""
    return {type(value) for value in labels.tolist()} in ({int}, {str})


# Labels.


def check_labels(rng):
    n = int(rng.integers(1, 20))
    numbers = rng.choice([-5, 0, 1, 2, 1000, 2**31 - 1], n)
    words = np.array([f"k{i}" for i in numbers])
    good = {
        "int32": numbers.astype(np.int32),
        "int64": numbers.astype(np.int64),
        "list": numbers.tolist(),
        "tuple": tuple(numbers.tolist()),
        "range": range(n),
        "words": words,
        "list of words": words.tolist(),
        "objects": words.astype(object),
        "arrays of one": [np.array(i) for i in numbers],
        "jax": jax.numpy.asarray(numbers.astype(np.int32)),
        "strings": words.astype(np.dtypes.StringDType()),
    }
    bad = {
        "bool": numbers > 0,
        "list of bool": [True] * n,
        "bytes": words.astype(bytes),
        "float": numbers + 0.5,
        "whole float": numbers.astype(float),
        "one-hot": np.eye(4)[numbers % 4],
        "int one-hot": np.eye(4, dtype=int)[numbers % 4],
        "column": numbers[:, None],
        "nan": [float("nan")] * n,
        "none": [None] * n,
        "complex": numbers * 1j,
        "dates": np.arange(n).astype("datetime64[D]"),
        "sets": [{1}] * n,
        "a string": "labels",
        "a number": 3,
        "a dict": {"a": numbers},
        "nested": [[int(i)] for i in numbers],
        "ragged": [[1] * (i % 3) for i in range(n + 2)],
    }
    kind = str(rng.choice([*good, *bad]))
    if kind in good:
        expected = [str(value) for value in (good[kind].tolist() if hasattr(good[kind], "tolist") else good[kind])]
        assert [str(label) for label in as_labels(good[kind]).tolist()] == expected, kind
        return
    with pytest.raises((TypeError, ValueError)) as found:
        as_labels(bad[kind])
    assert str(found.value).startswith("label"), (kind, found.value)


CHECKS = {"images": check_image, "arrays": check_arrays, "frames": check_frame, "labels": check_labels}


def run(kind, seeds, tmp_path):
    more = (tmp_path / "file.npz",) if kind == "arrays" else ()
    for seed in seeds:
        try:
            CHECKS[kind](np.random.default_rng(seed), *more)
        except Exception as error:
            raise AssertionError(f"{kind} of seed {seed}") from error


@pytest.mark.parametrize("kind", CHECKS)
def test_a_sample(kind, tmp_path):
    run(kind, range(QUICK), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHECKS)
def test_many(kind, tmp_path):
    run(kind, range(MANY), tmp_path)


# Folders of images with odd names and links.


def put_folder(root):
    """Twelve classes of one bright picture each, in odd places, by the name of the class."""
    names = [
        "plain",
        "with space",
        "ümlaut",
        "100%",
        "-dash",
        "a.b.c",
        "emoji 😀",
        "UPPER",
        "new\nline",
        "x" * 200,
        "'\"",
        "$HOME",
    ]
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        pixels = np.full((4, 4), 20 * number, np.uint8)
        kind = ["PNG", "BMP", "GIF", "TIFF"][number % 4]
        ending = ["png", "JPG", "gif", "tif"][number % 4]  # a BMP that is called JPG
        Image.fromarray(pixels).save(root / name / f"{name[:20]} #1.{ending}", kind)
    return names


def test_a_folder_with_odd_names_and_links(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))
    names = put_folder(tmp_path / "mine")
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(np.full((4, 4), 255, np.uint8)).save(tmp_path / "elsewhere" / "one.png")
    (tmp_path / "mine" / "linked folder").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "mine" / "plain" / "linked.png").symlink_to(tmp_path / "elsewhere" / "one.png")
    found = data.load_examples("folder", tmp_path / "mine", split="all", progress=False).train
    expected = {(name, 20 * number) for number, name in enumerate(names)} | {("linked folder", 255), ("plain", 255)}
    values = {(found.names[label], int(image.max())) for image, label in zip(found.inputs, found.labels, strict=True)}
    assert values == expected and len(found.labels) == len(expected)
    assert found.inputs.shape[1:] == (4, 4, 3)  # because a GIF has a palette


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"text", None], ids=["empty", "cut", "text", "broken link"])
def test_a_bad_file_among_good_ones_is_named(content, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))
    put_folder(tmp_path / "mine")
    bad = tmp_path / "mine" / "plain" / "bad.png"
    bad.symlink_to("nowhere") if content is None else bad.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.png"):
        data.load_examples("folder", tmp_path / "mine", progress=False)
