"""Files are replaced as a whole, and a changed byte in any of them is found."""

import os
import stat
import subprocess
import sys
import time
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta
from jaxmeta import data
from jaxmeta._files import _new_file, read_json, replacing, seal, write_atomically, write_json
from jaxmeta.data.containers import read_arrays, write_arrays
from jaxmeta.data.sources import cached

NUMBERS = np.arange(30, dtype=np.float32)
TREE = {"a": NUMBERS, "b": [np.float64(1), 3], "c": jnp.ones(3, jnp.bfloat16), "key": jax.random.key(0)}
CLASSIFIER = jax.tree_util.Partial(lambda w, x: jnp.tanh(x @ w), jnp.eye(2))
EXAMPLES = data.Examples.of(NUMBERS.reshape(6, 5), list("abcabc"), {"a": "train", "b": "test", "c": "train"})
RECORD = {"rate": 0.01, "names": ["a", "b"], "more": {"loss": float("inf"), "none": None}}

KINDS = {
    "arrays": (lambda path: jaxmeta.save(path, TREE), jaxmeta.load),
    "a classifier": (
        lambda path: jaxmeta.save_classifier(path, CLASSIFIER, NUMBERS[None, :2]),
        jaxmeta.load_classifier,
    ),
    "examples": (EXAMPLES.save, data.Examples.load),
    "a cache": (
        lambda path: write_arrays(path, {"x": NUMBERS, "y": NUMBERS[:3]}, "cache"),
        lambda path: read_arrays(path, "x", "y", kind="cache", others=False),
    ),
    "a record": (lambda path: write_json(path, RECORD), read_json),
}


def damaged(content, random):
    """One to eight bytes changed, or the end cut off."""
    changed = bytearray(content)
    if random.random() < 0.1:
        return content[: random.integers(len(content))]
    for at in random.choice(len(content), random.integers(1, 9), replace=False):
        changed[at] ^= random.integers(1, 256)
    return bytes(changed)


@pytest.mark.parametrize("trials", [60, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_changed_bytes_are_found(kind, trials, tmp_path):
    write, read = KINDS[kind]
    path = tmp_path / "file.npz"
    write(path)
    content, random = path.read_bytes(), np.random.default_rng(zlib.crc32(kind.encode()))
    before = read(path)
    for _ in range(trials):
        path.write_bytes(damaged(content, random))
        try:
            found = read(path)
        except ValueError as error:
            assert "file.npz is damaged" in str(error) or "file.npz is not a readable file" in str(error)
        else:
            assert found == before and kind == "a record"  # a space in it became another one
    path.write_bytes(content)
    read(path)


def test_what_is_read_is_what_was_written(tmp_path):
    for number, (write, read) in enumerate(KINDS.values()):
        write(tmp_path / f"{number}.npz")
        if number == 1:
            assert read(tmp_path / "1.npz")(jnp.ones((3, 2))).shape == (3, 2)
    assert jaxmeta.load(tmp_path / "0.npz")["a"].tolist() == NUMBERS.tolist()
    found = data.Examples.load(tmp_path / "2.npz")
    assert found.parts == EXAMPLES.parts and found.names == EXAMPLES.names and (found.inputs == EXAMPLES.inputs).all()
    with np.load(tmp_path / "2.npz") as arrays:  # NumPy reads it too
        assert arrays["y"].tolist() == list("abcabc")
    assert read_json(tmp_path / "4.npz") == RECORD


def test_a_file_of_another_kind_or_time_is_named(tmp_path):
    path = tmp_path / "file.npz"
    jaxmeta.save(path, TREE)
    with pytest.raises(ValueError, match=r"was not made by jaxmeta.save_classifier: it is a file of 'arrays'"):
        jaxmeta.load_classifier(path)
    write_arrays(path, {"x": NUMBERS, "y": NUMBERS}, "cache")
    with pytest.raises(ValueError, match=r"was not made by Examples.save: it is a file of 'cache'"):
        data.Examples.load(path)
    with replacing(path) as file:
        file.write(b"later")
        seal(file, "arrays", 7)
    with pytest.raises(ValueError, match=r"has format 7 of arrays, and this version of jaxmeta reads format 1"):
        jaxmeta.load(path)
    path.write_bytes(b"\x81\xa1a\x01")
    with pytest.raises(ValueError, match=r"Files of versions without checksums are not read"):
        jaxmeta.load(path)
    with replacing(path) as file:
        file.write(b"\x81\xa1a\xa4text")  # what `save` never writes
        seal(file, "arrays", 1)
    with pytest.raises(ValueError, match=r"is damaged, or was not made by jaxmeta.save .*it holds a str"):
        jaxmeta.load(path)
    path.write_text('{"rate": 0.02}')
    with pytest.raises(ValueError, match=r"is damaged, or was not made by this version of jaxmeta"):
        read_json(path)


# Replacement.


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o660])
def test_a_file_keeps_its_mode_and_its_links(mode, tmp_path):
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "file"
    target.write_bytes(b"old")
    target.chmod(mode)
    (tmp_path / "one").symlink_to("real/file")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    (tmp_path / "two.tmp").write_bytes(b"mine")
    write_atomically(tmp_path / "two", "new")
    assert target.read_bytes() == b"new" and stat.S_IMODE(target.stat().st_mode) == mode
    assert (tmp_path / "two").is_symlink() and (tmp_path / "one").is_symlink()
    assert names(tmp_path) == ["one", "real", "two", "two.tmp"] and names(tmp_path / "real") == ["file"]
    (tmp_path / "next").symlink_to("real/none")
    write_atomically(tmp_path / "next", "new")
    assert (tmp_path / "next").is_symlink() and (tmp_path / "real" / "none").read_bytes() == b"new"


def test_a_new_file_is_as_open_makes_it(tmp_path):
    before = os.umask(0o027)
    try:
        for length in (1, 252, 255):
            write_atomically(tmp_path / ("x" * length), b"new")
            assert stat.S_IMODE((tmp_path / ("x" * length)).stat().st_mode) == 0o640
    finally:
        os.umask(before)
    with pytest.raises(OSError, match=f"File name too long: .*{'x' * 256}"):
        write_atomically(tmp_path / ("x" * 256), b"new")
    with pytest.raises(FileNotFoundError, match="nowhere/x"):
        jaxmeta.save(tmp_path / "nowhere" / "x", 1.0)
    assert len(names(tmp_path)) == 3


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    for name in ("pipe", "link", "null"):
        with pytest.raises(ValueError, match=f"{name} is a device, a pipe or a socket"):
            jaxmeta.save(tmp_path / name, TREE)
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        jaxmeta.save(tmp_path, TREE)
    assert names(tmp_path) == ["link", "null", "pipe"]


def test_a_failure_leaves_the_old_file(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "file") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "file").read_bytes() == b"old" and names(tmp_path) == ["file"]


def test_what_killed_writers_left_is_removed(tmp_path):
    """At the next writing in the folder, and nothing else: what lives, what others have, what may live elsewhere."""
    handle, left = _new_file(tmp_path)
    os.close(handle)  # as the end of a process does
    foreign = [tmp_path / f".jaxmeta-{'0' * 8}-{letter * 16}.tmp" for letter in "ab"]
    mine = [".jaxmeta-notes.tmp", ".tmp", "a.tmp", f"x{left.name}"]
    for path in (*foreign, *(tmp_path / name for name in mine)):
        path.write_bytes(b"")
    os.utime(foreign[1], (0, time.time() - 2 * 24 * 3600))
    with replacing(tmp_path / "first") as file:
        write_atomically(tmp_path / "second", b"2")
        file.write(b"1")
    assert names(tmp_path) == sorted([*mine, foreign[0].name, "first", "second"])
    assert (tmp_path / "first").read_bytes() == b"1"


KILLED = """
import os, signal
from jaxmeta.data.sources import cached
import numpy as np
np.savez = lambda file, **arrays: (file.write(b"0" * 100000), file.flush(), os.kill(os.getpid(), signal.SIGKILL))
cached("name", ["x"], lambda: {"x": np.zeros(3)})
"""


@pytest.mark.slow
def test_a_cache_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", KILLED], check=False)
    assert done.returncode == -9 and len([name for name in names(tmp_path) if not name.endswith(".lock")]) == 1
    (tmp_path / "mine.tmp").write_bytes(b"")
    cached("another", ["x"], lambda: {"x": NUMBERS})
    assert [name for name in names(tmp_path) if not name.endswith(".lock")] == ["another.npz", "mine.tmp"]
