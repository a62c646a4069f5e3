"""Omniglot: the reader against small archives made here and, where it is present, against the real one."""

import functools
import hashlib
import http.server
import io
import json
import os
import sys
import threading
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxmeta.__main__ import main
from jaxmeta.data import FewShot, Omniglot, get_tasksets
from jaxmeta.data.sources import _omniglot, _omniglot_files

DATA = Path(os.environ.get("JAXMETA_DATA", Path(__file__).parents[2] / "shared" / "data"))
ALPHABETS = {"images_background": {"Ba": 3, "Ab": 2}, "images_evaluation": {"Cd": 2}}


def _png(seed, size=(105, 105)):
    pixels = np.random.default_rng(seed).random(size[::-1]) < 0.9
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@functools.cache
def _members(name):
    """The upstream layout: `{member: content}`."""
    members, number = {}, 0
    for alphabet, characters in ALPHABETS[name].items():
        for character in range(1, characters + 1):
            number += 1
            for drawing in range(1, 21):
                member = f"{name}/{alphabet}/character{character:02}/{number:04}_{drawing:02}.png"
                members[member] = _png(100 * number + drawing)
    return members


def _write_zip(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Both archives in small, a cache folder of its own, and counts to match."""
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXMETA_DATA", raising=False)
    for name, alphabets in ALPHABETS.items():
        archive = _omniglot_files.ARCHIVES[name]._replace(characters=sum(alphabets.values()))
        monkeypatch.setitem(_omniglot_files.ARCHIVES, name, archive)
        _write_zip(tmp_path / "data" / f"{name}.zip", _members(name))
    return tmp_path / "data"


def _equal(a, b):
    assert a.names == b.names
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.background, b.background)


def _load(root, **kwargs):
    return Omniglot.load(root, progress=False, **kwargs)


def test_layout_order_and_ink(root):
    omniglot = _load(root)
    assert omniglot.names == tuple(
        f"{a}/character{c:02}" for a, n in (("Ab", 2), ("Ba", 3), ("Cd", 2)) for c in range(1, n + 1)
    )
    assert omniglot.background.tolist() == [True] * 5 + [False] * 2
    assert omniglot.images.shape == (7, 20, 28, 28, 1) and omniglot.images.dtype == np.uint8
    assert abs(omniglot.images.mean() / 255 - 0.1) < 0.02  # one pixel in ten is ink, and ink is bright


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 5000}, "ways"),
        ({"ways": 4}, "validation tasks of 'omniglot': ways must be at most the number of classes"),
        ({"shots": 10, "queries": 11}, "shots + queries must be at most the size of the smallest class, got 10 + 11"),
    ],
)
def test_impossible_tasks_are_refused_before_anything_is_written(options, message, root, tmp_path, capsys, monkeypatch):
    parts = (np.arange(4), np.array([4]), np.array([5, 6]))
    monkeypatch.setattr(Omniglot, "split", lambda *_, **__: _omniglot.OmniglotSplit(*parts))
    words = {"benchmark": "omniglot", "root": root, "folder": tmp_path / "run", **options}
    assert main(["train", *(str(word) for name, value in words.items() for word in (f"--{name}", value))]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_zip_folder_and_subfolder_agree(root, tmp_path, monkeypatch):
    expected = _load(root)
    for name in ALPHABETS:
        for member, content in _members(name).items():
            path = tmp_path / "folders" / "omniglot" / member
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    _equal(_load(tmp_path / "folders"), expected)
    monkeypatch.setenv("JAXMETA_DATA", str(tmp_path / "folders"))
    _equal(_load(None), expected)


def test_cache_is_used_rebuilt_when_damaged_and_renewed_when_the_data_changes(root, tmp_path, monkeypatch):
    expected = _load(root)
    (cached,) = (tmp_path / "cache").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(_omniglot_files, "_decode", lambda *_: pytest.fail("decoded in spite of the cache"))
        _equal(_load(root), expected)
    whole = cached.read_bytes()
    for damaged in (b"", b"no zip", whole[: len(whole) // 2], whole[:2000] + bytes(100) + whole[2100:]):
        cached.write_bytes(damaged)
        _equal(_load(root), expected)
        assert cached.read_bytes() == whole
    members = dict(_members("images_evaluation"))
    changed = next(iter(members))
    members[changed] = _png(-1 % 2**32)
    _write_zip(root / "images_evaluation.zip", members)
    differs = (_load(root).images != expected.images).any(axis=(2, 3, 4))
    assert np.argwhere(differs).tolist() == [[5, 0]]
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_unwritable_cache_is_not_fatal(root, tmp_path, monkeypatch):
    expected = _load(root)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="no cache at"):
        _equal(_load(root), expected)


def test_other_members_are_ignored_and_nothing_is_unpacked(root, tmp_path):
    members = dict(_members("images_background"))
    members |= {"__MACOSX/._0001_01.png": b"x", "images_background/readme.txt": b"x"}
    expected = _load(root)
    before = sorted(root.iterdir())
    _write_zip(root / "images_background.zip", members)
    _equal(_load(root), expected)
    assert sorted(root.iterdir()) == before


@pytest.mark.parametrize("evil", ["../evil.png", "/etc/evil.png", "images_background/../../evil.png"])
def test_members_outside_of_the_archive_are_refused(root, tmp_path, evil):
    _write_zip(root / "images_background.zip", _members("images_background") | {evil: b"x"})
    with pytest.raises(ValueError, match=r"images_background.zip has a file outside of itself.*evil\.png"):
        _load(root)
    assert not list(tmp_path.rglob("*evil*"))


def _drop(members, part):
    return {member: content for member, content in members.items() if part not in member}


def _replace(members, content):
    target = "images_background/Ab/character02/0005_07.png"
    assert target in members
    return members | {target: content}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: _drop(m, "Ab/character02"), "is not complete: it has 4 characters, but images_background has 5"),
        (lambda m: _drop(m, "0005_07"), "Ab/character02 has 19 drawings, not 20"),
        (lambda m: _replace(m, b""), "Ab/character02/0005_07.png is not a readable drawing"),
        (lambda m: _replace(m, _png(1)[:150]), "Ab/character02/0005_07.png is not a readable drawing"),
        (lambda m: _replace(m, _png(1, (28, 28))), r"0005_07.png is not a readable drawing \(its size is \(28, 28\)"),
        (lambda m: _replace(m, bytes(1 << 20)), "Ab/character02/0005_07.png has more than 65536 bytes"),
    ],
)
def test_incomplete_or_damaged_content_is_named(root, damage, message):
    path = root / "images_background.zip"
    _write_zip(path, damage(_members("images_background")))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        _load(root)
    assert path.read_bytes() == before


@pytest.mark.parametrize("keep", [0.0, 0.7])
def test_truncated_zip_is_named_and_left_as_it_is(root, keep):
    path = root / "images_evaluation.zip"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(
        ValueError, match=r"images_evaluation.zip is not a readable zip archive.*left as it is.*download"
    ):
        _load(root)
    with pytest.raises(ValueError, match="is not a readable zip archive"):
        _load(root, download=True)
    assert path.read_bytes() == content[: int(keep * len(content))]


def test_flipped_bits_in_a_member_are_named(root):
    path = root / "images_background.zip"
    content = bytearray(path.read_bytes())
    start = content.index(_members("images_background")["images_background/Ba/character01/0001_03.png"])
    content[start + 60] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"Ba/character01/0001_03\.png is damaged"):
        _load(root)


def test_missing_files_say_what_where_and_how(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError) as error:
        _load(tmp_path / "nowhere")
    message = str(error.value)
    for part in (
        "images_background.zip (9.5 MB)",
        "images_evaluation.zip (6.5 MB)",
        "nowhere",
        "https://",
        "--download",
    ):
        assert part in message
    assert not (tmp_path / "nowhere").exists()


@pytest.fixture
def server(root, tmp_path, monkeypatch):
    """The small archives on a local web server, and their checksums as the published ones."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=root)) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        monkeypatch.setattr(_omniglot_files, "URL", f"http://127.0.0.1:{httpd.server_port}/")
        for name, archive in _omniglot_files.ARCHIVES.items():
            md5 = hashlib.md5((root / f"{name}.zip").read_bytes()).hexdigest()
            monkeypatch.setitem(_omniglot_files.ARCHIVES, name, archive._replace(md5=md5))
        yield root
        httpd.shutdown()
        thread.join()


def test_download_on_request(server, tmp_path):
    target = tmp_path / "fetched"
    with pytest.raises(FileNotFoundError):
        _load(target)
    _equal(_load(target, download=True), _load(server))
    assert sorted(path.name for path in target.iterdir()) == ["images_background.zip", "images_evaluation.zip"]


def test_download_with_another_checksum_is_refused(server, tmp_path, monkeypatch):
    archive = _omniglot_files.ARCHIVES["images_background"]
    monkeypatch.setitem(_omniglot_files.ARCHIVES, "images_background", archive._replace(md5="0" * 32))
    with pytest.raises(ValueError, match="is not the published file"):
        _load(tmp_path / "fetched", download=True)
    assert not list((tmp_path / "fetched").glob("*"))


def test_failed_download_is_named(server, tmp_path):
    (server / "images_background.zip").unlink()
    with pytest.raises(ConnectionError, match=r"could not fetch http://127.0.0.1.*images_background.zip"):
        _load(tmp_path / "fetched", download=True)


def test_genuine_archive_equals_reference():
    source, reference = (DATA / "omniglot" / n for n in ("images_background_small1.zip", "omniglot28_small1_u8.npz"))
    if not source.is_file() or not reference.is_file():
        pytest.skip(f"no {source} (set JAXMETA_DATA)")
    images, names = _omniglot_files.read_characters(source, progress=False)
    with np.load(reference) as stored:
        order = np.argsort(stored["names"])
        assert names == stored["names"][order].tolist()
        assert np.abs(images[..., 0].astype(int) - stored["images"][order]).max() <= 1


@pytest.fixture(scope="module")
def omniglot(tmp_path_factory):
    for name in _omniglot_files.ARCHIVES:
        if not (DATA / "omniglot" / f"{name}.zip").is_file():
            pytest.skip(f"no {DATA / 'omniglot' / name}.zip (set JAXMETA_DATA)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXMETA_CACHE", str(tmp_path_factory.getbasetemp() / "omniglot"))
        first = Omniglot.load(DATA, progress=False)
        _equal(Omniglot.load(DATA, progress=False), first)
    return first


@pytest.mark.slow
def test_all_of_omniglot_equals_reference(omniglot):
    path = DATA / "omniglot" / "omniglot28_lanczos_u8.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with np.load(path) as stored:
        order = np.argsort(stored["names"])
        assert omniglot.names == tuple(stored["names"][order].tolist())
        assert np.abs(omniglot.images[..., 0].astype(int) - stored["images"][order]).max() <= 1


def _samplers(*args, **kwargs):
    return [sampler for sampler in get_tasksets("omniglot", *args, **kwargs) if isinstance(sampler, FewShot)]


@pytest.mark.slow
def test_zips_cache_and_packed_array_give_the_same_tasks(omniglot, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path_factory.getbasetemp() / "omniglot"))
    path = DATA / "omniglot" / "omniglot28_lanczos_u8.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with np.load(path) as stored:
        packed = _samplers(examples=(stored["images"], stored["names"]))
    draw = jax.jit(lambda sampler, key: (sampler(key), sampler.indices(key)))
    for ours, theirs in zip(_samplers(root=DATA), packed, strict=True):
        (task, rows), (other, other_rows) = (draw(sampler, jax.random.key(7)) for sampler in (ours, theirs))
        jax.tree.map(np.testing.assert_array_equal, rows, other_rows)
        # The array was made by another version of Pillow: a level of gray more or less.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1.01 / 255), task, other)
    background = Omniglot.of(omniglot.images, omniglot.names).background
    np.testing.assert_array_equal(background, omniglot.background)


@pytest.mark.slow
@pytest.mark.torch
def test_prepared_records_give_the_same_drawings_in_the_same_order(omniglot, tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets", reason="no tensorflow-datasets (and array_record)")
    if not (DATA / "tfds" / "omniglot").is_dir():
        pytest.skip(f"no {DATA / 'tfds' / 'omniglot'}")
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path))
    _equal(_load(DATA / "tfds"), omniglot)
    assert "tensorflow" not in sys.modules


def test_bad_arrays_are_named():
    with pytest.raises(ValueError, match=r"images must be uint8 of shape \[1623, 20, 28, 28\] with as many names, got"):
        Omniglot.of(np.zeros((1623, 20, 28, 28)), ["x"] * 1623)
    with pytest.raises(ValueError, match="and 2 names"):
        Omniglot.of(np.zeros((1623, 20, 28, 28), np.uint8), ["x", "y"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "sizes"), [("vinyals", (1028, 172, 423)), ("background", (883, 81, 659)), ("random", (1100, 100, 423))]
)
def test_splits_are_disjoint_and_complete(omniglot, split, sizes):
    parts = omniglot.split(split)
    assert tuple(map(len, parts)) == sizes
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1623))
    if split == "background":
        alphabets = [{omniglot.names[row].split("/")[0] for row in part} for part in parts]
        assert [len(part) for part in alphabets] == [25, 5, 20] and len(set.union(*alphabets)) == 50


@pytest.mark.slow
def test_random_split_follows_its_seed(omniglot):
    first, again, other = (omniglot.split("random", seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.test, again.test)
    assert set(first.test) != set(other.test)


@pytest.mark.slow
def test_vinyals_split_equals_the_published_lists(omniglot):
    path = DATA / "splits" / "omniglot_vinyals.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    published = json.loads(path.read_text())
    for part, name in zip(omniglot.split("vinyals"), ("train", "val", "test"), strict=True):
        assert {omniglot.names[row] for row in part} == set(published[name])


@pytest.mark.slow
def test_unknown_split_is_named(omniglot):
    with pytest.raises(ValueError, match="split must be one of 'vinyals', 'background', 'random', 'all', got 'lake'"):
        omniglot.split("lake")
