"""Generated files that may harm their reader, and a process that reads them under limits.

`python tests/hostile_files.py COUNT TABLE` reads so many files of each format, and writes a table of how many were
refused and read right. It ends at the first file that is read wrong or ends its reader, and names its seed.
"""

import contextlib
import functools
import gzip
import io
import json
import lzma
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization
from hostile_pickles import EXTREME, changed, hostile_pickle, pick, plain, wide
from PIL import Image

import jaxmeta
from jaxmeta._files import seal
from jaxmeta._save import read_tree, write_tree
from jaxmeta.bounded import load_json, load_npz, load_pickle, mat_numbers
from jaxmeta.data.archives import Files
from jaxmeta.data.sources import decode
from jaxmeta.data.sources._pickles import drawings
from jaxmeta.data.sources._readers import ReadRequest

SECONDS, MEGABYTES = 2, 500  # of CPU time and of memory, for each file


def check_pickle(rng, _):
    content = hostile_pickle(rng)
    yield
    found = load_pickle(io.BytesIO(content), "FILE")
    yield
    if len(content) < 20_000:  # what was accepted, Python's own reader reads in the same way, or has not the memory
        with contextlib.suppress(RecursionError, MemoryError, OverflowError):
            assert plain(found, {}) == plain(pickle.loads(content, encoding="bytes"), {})


def npy(rng):
    """An `.npy` file whose header may lie."""
    array = np.arange(12).astype(pick(rng, ["u1", "<f4", ">i2", "U3", "?", "c8"])).reshape(4, 3)
    file = io.BytesIO()
    np.save(file, array)
    if rng.random() < 0.3:
        return array, file.getvalue()
    shape = [pick(rng, EXTREME) for _ in range(rng.integers(0, 5))]
    dtype = pick(rng, ["|u1", "<f8", "|O", "<U9", "|S0", "|V8", "<M8[s]", "(9999999,)u1", "u1,O", "x" * 50])
    header = f"{{'descr': {dtype!r}, 'fortran_order': {bool(rng.integers(2))}, 'shape': {tuple(shape)}, }}"
    nested = header.replace("(", "(" * int(10 ** rng.uniform(0, 4)))
    header = pick(rng, [header, header, nested, "[" * 9000, "9" * 9000])
    content = b"\x93NUMPY" + bytes([pick(rng, [1, 2, 3, 9]), 0]) + struct.pack("<H", len(header) % (1 << 16))
    return None, pick(rng, [content + header.encode() + b"abcdefgh" * 9, changed(rng, file.getvalue())])


def check_npz(rng, folder):
    path, file = folder / "FILE.npz", io.BytesIO()
    x, y = npy(rng), npy(rng)
    with zipfile.ZipFile(file, "w", pick(rng, [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        archive.writestr("x.npy", x[1])
        archive.writestr("y.npy", y[1])
        if rng.random() < 0.02:
            archive.writestr("z.npy", bytes(int(10 ** rng.uniform(6, 8.3))))
    path.write_bytes(changed(rng, file.getvalue()) if rng.random() < 0.4 else file.getvalue())
    yield
    found, _ = load_npz(path, ["x", "y"])
    yield
    for name, (array, content) in {"x": x, "y": y}.items():
        if name in found and array is not None:  # the archive has a checksum, so what is read is what was written
            np.testing.assert_array_equal(found[name], array)
        elif name in found:
            np.testing.assert_array_equal(found[name], np.load(io.BytesIO(content)))


def check_npy(rng, folder):
    """Drawings, the only `.npy` files that are read: `[M, 784]`."""
    file = io.BytesIO()
    np.save(file, np.arange(3 * 784).reshape(3, 784).astype(np.uint8))
    content = file.getvalue() if rng.random() < 0.05 else changed(rng, file.getvalue())
    content = npy(rng)[1] if rng.random() < 0.4 else content
    (folder / "FILE.npy").write_bytes(content)
    yield
    found = drawings(Files([folder / "FILE.npy"]), ReadRequest(frozenset(["FILE"])))
    yield
    np.testing.assert_array_equal(found.inputs.reshape(-1, 784), np.load(io.BytesIO(content)))


def mat(rng):
    """A MATLAB file with the numbers 1 to n in a matrix of some name, and whether it is as it should be."""
    numbers = np.arange(1, int(rng.integers(2, 99)), dtype=np.uint8)
    named = pick(rng, [b"labels", b"other"])

    def element(kind, content):
        return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

    shape = element(5, struct.pack("<ii", 1, len(numbers)))
    matrix = element(14, element(6, bytes(8)) + shape + element(1, named) + element(2, numbers.tobytes()))
    if rng.random() < 0.1:  # grows a thousandfold
        matrix = zlib.compress(matrix + bytes(int(10 ** rng.uniform(4, 8)))) * int(rng.integers(1, 9))
        matrix = struct.pack("<II", 15, len(matrix)) + matrix
    elif rng.random() < 0.5:
        matrix = zlib.compress(matrix)
        matrix = struct.pack("<II", 15, len(matrix)) + matrix
    return numbers, b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + matrix


def check_mat(rng, _):
    numbers, content = mat(rng)
    harmed = rng.random() < 0.9
    content = changed(rng, content) if harmed else content
    yield
    found = mat_numbers(content, "labels")
    yield
    assert found.ndim == 1 and len(found) <= 1 << 26
    assert harmed or found.tolist() == numbers.tolist()


def check_json(rng, _):
    tree = {"settings": {"learner": "maml", "rates": [0.1, 1e-3]}, "modules": [], "text": 'a "[{" \\ ü'}
    many = int(10 ** rng.uniform(0, 6.5))
    parts = ["[", '{"a":', "[[", "[],", "{},", '"a",', "1,", '"\\"', "9", "\\u0041", '"[', "-", " ", '{"a":[', "1e"]
    part = pick(rng, parts)
    contents = [json.dumps(tree).encode(), changed(rng, json.dumps(tree).encode()), (part * many).encode()]
    contents += [("[" + part * many + "1]").encode(), ("[" * (many % 200) + "]" * (many % 200)).encode()]
    content = pick(rng, contents)
    yield
    found = load_json(content)
    yield
    assert found == json.loads(content) or b"NaN" in content


def check_msgpack(rng, folder):
    tree = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "layer": {"b": np.int32(3), "x": 1.5, "n": 2}}
    content = serialization.msgpack_serialize(tree)
    many = int(10 ** rng.uniform(0, 6))
    size = struct.pack(">I", many)
    header = pick(rng, [b"\x81\xa1a", b"\x91", b"\xdd" + size, b"\xdf" + size, b"\x90"])
    nested = header * (many if rng.random() < 0.5 else many % 1500)
    inner = pick(rng, [nested, changed(rng, content), b"\x93\x91\xcf" + struct.pack(">Q", pick(rng, EXTREME))])
    extension = b"\xc9" + struct.pack(">I", len(inner)) + bytes([rng.integers(0, 5)]) + inner
    content = pick(rng, [content, changed(rng, content), changed(rng, content), nested + b"\xc0", extension])
    with open(folder / "FILE", "w+b") as file:
        file.write(content)
        if rng.random() < 0.9:  # a right checksum, which anyone can compute
            seal(file, "arrays", 1)
    yield
    found = jaxmeta.load(folder / "FILE")
    yield
    expected = serialization.msgpack_restore(content)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def png(width, height, depth, color, rows):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width & 0x7FFFFFFF, height & 0x7FFFFFFF, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def image(rng):
    """A picture in any format and mode. One of many is large, or says so."""
    way = rng.random()
    if way < 0.003:
        width, height = (int(10 ** rng.uniform(2, 4.3)) for _ in range(2))
        depth, color, bits = pick(rng, [(1, 0, 1), (8, 0, 8), (8, 2, 24), (8, 6, 32), (16, 0, 16), (16, 6, 64)])
        return png(width, height, depth, color, bytes(min(height * (1 + width * bits // 8), 300_000_000)))
    if way < 0.1:
        width, height = (pick(rng, [1, 7, 300, 70_000, (1 << 31) - 1]) for _ in range(2))
        return png(width, height, pick(rng, [1, 2, 8, 16]), pick(rng, [0, 2, 3, 4, 6]), bytes(int(rng.integers(0, 99))))
    modes = ["1", "L", "LA", "RGB", "RGBA", "P", "I;16", "I", "F", "CMYK", "YCbCr", "LAB", "HSV"]
    side, file = pick(rng, [(1, 1), (8, 8), (30, 5), (1, 900), (64, 64)]), io.BytesIO()
    picture = Image.effect_noise(side, 90).convert("RGB")
    with contextlib.suppress(ValueError):
        picture = picture.convert(pick(rng, modes))
    formats = ["PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "TIFF"]
    options = {"compression": pick(rng, ["raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"]), "progressive": True}
    with contextlib.suppress(OSError, ValueError):
        picture.save(file, pick(rng, formats), **(options if rng.random() < 0.5 else {}))
    return file.getvalue()


def check_image(rng, _):
    content, size, channels = image(rng), pick(rng, [1, 8, 84]), pick(rng, [1, 3])
    content = changed(rng, content) if rng.random() < 0.8 and len(content) < 100_000 else content
    yield
    found = decode(content, size, channels=channels)
    yield
    assert found.shape == (size, size, channels) and found.dtype == np.uint8


def tar_content(rng):
    """A tar archive with members of any type, long names and attributes, and sizes that lie."""
    file, kinds = io.BytesIO(), [tarfile.REGTYPE] * 5 + [b"S", b"L", b"x", b"g", b"K"]
    kinds += [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
    contents = [b"abc", b"", b"1" * 9000, b"17 GNU.sparse.map=0,5,9,5\n", b"9" * 60_000, b"20 path=x\n" * 500]
    form = pick(rng, [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for number in range(int(rng.integers(0, 6))):
            member = tarfile.TarInfo(pick(rng, [f"a/{number}", "a/" * 60 + f"{number}", "../x", "/x", "same", "ü"]))
            member.type, member.linkname = pick(rng, kinds), pick(rng, ["", "a/0", "same", "/etc/passwd"])
            content = pick(rng, contents)
            member.size = len(content) if rng.random() < 0.8 else pick(rng, [0, 1 << 20, 1 << 33])
            member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"} if rng.random() < 0.2 else {}
            with contextlib.suppress(ValueError, UnicodeError):
                archive.addfile(member)
                file.write(content + bytes(-len(content) % 512))
                archive.offset = file.tell()
    content = file.getvalue()
    if rng.random() < 0.01:
        header = tarfile.TarInfo("a/big")
        header.type, header.size = pick(rng, [tarfile.REGTYPE, b"x", b"L", b"S"]), int(10 ** rng.uniform(6, 8.3))
        content = header.tobuf() + bytes(header.size) + content
    return changed(rng, content) if rng.random() < 0.4 else content


def check_tar(rng, folder):
    ending, pack = pick(rng, [(".tar", bytes), (".tgz", lambda c: gzip.compress(c, 1)), (".tar.xz", lzma.compress)])
    content = pack(tar_content(rng))
    path = folder / f"FILE{ending}"
    path.write_bytes(changed(rng, content) if rng.random() < 0.2 else content)
    yield
    files = Files([path])
    found = {name: hash(part) for name, part in files.read(files.names)}
    yield
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isreg():
                name = Path(member.name).as_posix()
                assert found[name] == hash(archive.extractfile(member).read())  # pyright: ignore


def check_zip(rng, folder):
    path, file = folder / "FILE.zip", io.BytesIO()
    kinds = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", pick(rng, kinds)) as archive:
        warnings.simplefilter("ignore")  # of two members of one name
        many = int(10 ** rng.uniform(1, 4)) if rng.random() < 0.01 else int(rng.integers(0, 6))
        for number in range(many):
            names = [f"a/{number}", "../x", "/x", "same", "ü", "a\\b", "C:/x", "a/", "x" * 3000, f"b{number}"]
            big = bytes(int(10 ** rng.uniform(6, 8.5)) if rng.random() < 0.003 else 9)
            archive.writestr(pick(rng, names), pick(rng, [b"abc", b"", b"1" * 9000, big]))
    content = bytearray(file.getvalue())
    if rng.random() < 0.3 and (at := content.rfind(b"PK\x01\x02")) >= 0:  # sizes, offset or method of the last lie
        place = pick(rng, [10, 20, 24, 42])
        content[at + place : at + place + 4] = wide(pick(rng, EXTREME))
    path.write_bytes(changed(rng, bytes(content)) if rng.random() < 0.4 else content)
    yield
    files = Files([path])
    found = {name: hash(part) for name, part in files.read(files.names)}
    yield
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                assert found[Path(info.filename.replace("\\", "/")).as_posix()] == hash(archive.read(info))


@functools.cache
def classifier(path):
    call = jax.tree_util.Partial(lambda w, x: jax.nn.relu(x @ w), jnp.eye(2))
    jaxmeta.save_classifier(path, call, np.zeros((1, 2), np.float32), names=["a", "b"])
    return read_tree(path, "classifier", "save_classifier")


def check_classifier(rng, folder):
    """A program with damage and a right checksum. It is loaded, and not called."""
    path, part = folder / "FILE", pick(rng, ["program", "program", "program", "about", "none"])
    stored = dict(classifier(path))
    if part != "none":
        stored[part] = np.frombuffer(changed(rng, stored[part].tobytes()), np.uint8)
    write_tree(path, stored, "classifier")
    yield
    loaded = jaxmeta.load_classifier(path)
    yield
    if part == "none":
        np.testing.assert_array_equal(loaded(np.array([[1, -1]], np.float32)), [[1, 0]])


CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}


def read(kind, seed, folder):
    """Makes a file, reads it under limits, and compares. Too much time ends the process, whatever it is doing.

    Returns:
        Whether it was read.
    """
    steps = CHECKS[kind](np.random.default_rng([list(CHECKS).index(kind), seed]), folder)
    next(steps)
    before = megabytes()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        next(steps)
        done = True
    except ValueError as error:
        assert str(error), "an error without a text"
        done = False
    signal.setitimer(signal.ITIMER_PROF, 0)
    assert megabytes() - before < MEGABYTES, f"{megabytes() - before} MB"
    assert not done or next(steps, "compared") == "compared"
    for file in folder.iterdir():
        file.unlink()
    return done


def megabytes():
    """Returns the largest memory of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def work(first, count, kinds):
    """Reads the files of some seeds, and prints how many of each format were refused and read."""
    warnings.simplefilter("ignore")
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in kinds:
            for seed in range(1 << 40, (1 << 40) + 3):  # what is compiled and imported once, without limits
                with contextlib.suppress(ValueError):
                    list(CHECKS[kind](np.random.default_rng(seed), folder))
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + (3 << 30), resource.RLIM_INFINITY))
            done = 0
            for seed in range(first, first + count):
                os.write(1, f"{kind} {seed}\n".encode())
                done += read(kind, seed, folder)
            found[kind] = {"refused": count - done, "read right": done}
    sys.stdout.write(json.dumps(found) + "\n")


def read_many(count, kinds):
    """Reads so many files of each format in another process.

    Returns:
        How many of each format were refused and read right.

    Raises:
        AssertionError: if a file was read wrong, or ended the process. It names the format and the seed.
    """
    words = [sys.executable, __file__, "--work", "0", str(count), *kinds]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace")
    *_, last = done.stdout.splitlines() or [""]
    assert done.returncode == 0, f"{last}: status {done.returncode}\n{done.stderr[-2000:]}"
    return json.loads(last)


def write_table(count, path):
    """Reads so many files of all formats, two formats at a time, and writes the table of the page on strangers."""
    with ThreadPoolExecutor(2) as pool:
        found = {k: v for one in pool.map(lambda kind: read_many(count, [kind]), CHECKS) for k, v in one.items()}
    found["all"] = {name: sum(counts[name] for counts in found.values()) for name in ("refused", "read right")}
    rows = [["format", "generated", "refused", "read right"], ["---"] * 4]
    rows += [[kind, *(f"{n:,}" for n in (sum(counts.values()), *counts.values()))] for kind, counts in found.items()]
    path.write_text("".join(f"| {' | '.join(row)} |\n" for row in rows))


if __name__ == "__main__":
    if sys.argv[1] == "--work":
        work(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    else:
        write_table(int(sys.argv[1]), Path(sys.argv[2]))
