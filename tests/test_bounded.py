"""Limits of what files may ask for, one by one: programs, pictures, archives, text, and downloads from odd servers."""

import gzip
import hashlib
import http.server
import io
import pickle
import tarfile
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from local_web import serve
from PIL import Image

import jaxmeta
from jaxmeta.bounded import load_json, load_npz, load_pickle
from jaxmeta.data import Examples, load_examples
from jaxmeta.data.archives import Files
from jaxmeta.data.sources import _download, decode
from jaxmeta.prediction import _classifier

EYE = jnp.eye(2)


def squared(x, key):
    return jax.lax.scan(lambda c, t: (c + t, None), x * jax.random.uniform(key, (1, 2)), jnp.ones((3, 1, 2)))[0]


def endless(x, key):
    return jax.lax.while_loop(lambda c: c[0, 0] < 5, lambda c: c * 2, x)


def backwards(x, key):
    return jax.lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] - 1, c[1] * 2), (0, x))[1]


def twice_long(x, key):
    inner = lambda i, c: jax.lax.fori_loop(0, 10_000, lambda j, d: d * 1.1, c)  # noqa: E731
    return jax.lax.fori_loop(0, 10_000, inner, x)


def called(x, key):
    python = jax.ffi.ffi_call("xla_ffi_python_cpu_callback", jax.ShapeDtypeStruct((2, 2), np.float32))
    return x @ python(EYE, index=np.uint64(12345))


PROGRAMS = {
    endless: "a loop that does not count to a constant",
    backwards: "a loop that does not count to a constant",
    twice_long: "or runs more than 20000000",
    lambda x, key: x + jnp.zeros((1 << 15, 1 << 14)).sum(): "makes an array of 536870912 numbers",
    lambda x, key: x @ jnp.linalg.inv(x.T @ x + EYE): "calls 'lapack_sgetrf_ffi', which is code outside of the file",
}


@pytest.mark.parametrize("of", PROGRAMS, ids=lambda of: of.__name__)
def test_programs_that_do_more_than_compute_are_refused(of, tmp_path, monkeypatch):
    """By those who save them, and by those who get a file that was made in another way."""
    path, call = tmp_path / "file", Partial(lambda key, x: of(x, key), jax.random.key(0))
    with pytest.raises(ValueError, match=f"classifier cannot be saved, because its program .*{PROGRAMS[of]}"):
        jaxmeta.save_classifier(path, call, jnp.ones((1, 2)))
    with monkeypatch.context() as patch:
        patch.setattr(_classifier, "check_program", lambda exported: None)
        patch.setattr(_classifier, "_looks_at_one", lambda *_: True)
        jaxmeta.save_classifier(path, call, jnp.ones((1, 2)))
    with pytest.raises(ValueError, match=f"file is refused, because its program .*{PROGRAMS[of]}"):
        jaxmeta.load_classifier(path)


def test_a_call_of_python_in_a_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "file"
    with monkeypatch.context() as patch:
        patch.setattr(_classifier, "check_program", lambda exported: None)
        patch.setattr(_classifier, "_PLATFORMS", ("cpu",))
        patch.setattr(_classifier, "_looks_at_one", lambda *_: True)
        everything = _classifier.export.DisabledSafetyCheck.custom_call("xla_ffi_python_cpu_callback")
        real = _classifier.export.export
        patch.setattr(_classifier.export, "export", lambda f, **o: real(f, disabled_checks=[everything], **o))
        jaxmeta.save_classifier(path, Partial(lambda w, x: called(x, w), EYE), jnp.ones((1, 2)))
    with pytest.raises(ValueError, match="is refused, because its program calls 'xla_ffi_python_cpu_callback'"):
        jaxmeta.load_classifier(path)


def test_loops_that_count_and_random_numbers_are_saved(tmp_path):
    key = jax.random.key(3)
    jaxmeta.save_classifier(tmp_path / "file", Partial(lambda key, x: squared(x, key), key), jnp.ones((1, 2)))
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(jaxmeta.load_classifier(tmp_path / "file")(x), squared(x, key), rtol=1e-6)


def stored(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "size", "kind", "options"),
    [
        ("1", (20_000, 2500), "PNG", {}),
        ("P", (7000, 7000), "GIF", {}),
        ("L", (7000, 6000), "JPEG", {"progressive": True}),
    ],
)
def test_a_picture_of_too_many_pixels_is_refused(mode, size, kind, options):
    with pytest.raises(ValueError, match=f"it has {size[0]} x {size[1]} pixels, and 30,000,000 are the most"):
        decode(stored(Image.new(mode, size), kind, **options), 8)


@pytest.mark.parametrize(
    ("mode", "size", "kind"),
    [("L", (8000, 8000), "JPEG"), pytest.param("RGB", (4900, 4900), "BMP", marks=pytest.mark.slow)],
)
def test_a_large_picture_is_read(mode, size, kind, tmp_path):
    (tmp_path / "a.bmp").write_bytes(stored(Image.new(mode, size, 77 if mode == "L" else (77, 77, 77)), kind))
    ((_, content),) = Files([tmp_path / "a.bmp"]).read({"a.bmp"})
    assert (decode(content, 4) == 77).all()


def test_a_file_of_more_bytes_than_the_limit_is_refused_and_not_cut(tmp_path):
    (tmp_path / "a.png").write_bytes(bytes(101))
    with pytest.raises(ValueError, match=r"a\.png has more than 100 bytes"):
        list(Files([tmp_path / "a.png"]).read({"a.png"}, 100))
    assert len(next(Files([tmp_path / "a.png"]).read({"a.png"}, 101))[1]) == 101


@pytest.mark.parametrize("kind", ["zip", "tgz", "npz"])
def test_archives_that_grow_a_thousandfold_are_refused(kind, tmp_path):
    path, large = tmp_path / f"a.{kind}", bytes(135 << 20)
    if kind == "tgz":
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            member = tarfile.TarInfo("cat/1.png")
            member.size = len(large)
            archive.addfile(member, io.BytesIO(large))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("x.npy" if kind == "npz" else "cat/1.png", large)
    with pytest.raises(ValueError, match=rf"a\.{kind}.* grows to more than 1\d\d MiB, over 100 times its size"):
        load_npz(path, ["x"]) if kind == "npz" else load_examples("folder", path, progress=False)


@pytest.mark.parametrize(("dtype", "shape"), [("|S0", "(9999, 1, 65535)"), ("<f4", "(0, 1099511627776)")])
def test_arrays_of_many_entries_and_no_content_are_refused(dtype, shape, tmp_path):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".encode().ljust(116) + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00\x75\x00" + header)
    with pytest.raises(ValueError, match=r"a\.npz is not a readable file of arrays \(x has shape .* and no content\)"):
        load_npz(tmp_path / "a.npz", ["x"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 99_999, "nested"),
        ('{"a":' * 101 + "1" + "}" * 101, "nested"),
        ("[" + "1," * 2_000_000 + "1]", "2000000 values"),
    ],
)
def test_json_beyond_bounds_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        load_json(content)
    assert load_json('{"a":' * 100 + '"[[{"' + "}" * 100)["a"]


def test_long_texts_do_not_fill_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="names must have up to 1000 characters, got one of 5000"):
        Examples.of(np.zeros((2, 3)), ["a", "b" * 5000])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cat.txt").write_text("\n".join(["a cat"] * 39 + ["x" * 9_000_000]))
    with pytest.raises(ValueError, match=r"mine has 40 sentences, and one of 9000000 characters"):
        load_examples("sentences", tmp_path / "mine", split="all", progress=False)


CONTENT = np.random.default_rng(0).bytes(300_000)
OLD = np.random.default_rng(1).bytes(100_000)


@pytest.fixture
def server(monkeypatch):
    """A web server with one file, whose answers `options` change: packed, endless, or of a version with a tag."""
    monkeypatch.setenv("no_proxy", "*")

    class Handler(http.server.BaseHTTPRequestHandler):
        options, asked, url = {}, [], ""

        def do_GET(self):
            headers = dict(self.headers)
            self.asked.append(headers)
            start = int(headers["Range"][6:-1]) if "Range" in headers else 0
            if headers.get("If-Range") not in (None, self.options.get("tag")):
                start = 0
            self.send_response(206 if start else 200)
            content = self.options.get("content", CONTENT)
            content = gzip.compress(content)[start:] if "packed" in self.options else content[start:]
            if "packed" in self.options:
                self.send_header("Content-Encoding", "gzip")
            if "tag" in self.options:
                self.send_header("ETag", self.options["tag"])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: self.options.get("cut")])

        def log_message(self, format, *args):
            pass

    with serve(Handler) as url:
        Handler.url = f"{url}some.bin"
        yield Handler


def remote(server):
    return _download.Remote("some.bin", 0.3, server.url, f"md5:{hashlib.md5(CONTENT).hexdigest()}")


def test_a_file_that_was_packed_though_not_asked_for_is_unpacked(server, tmp_path):
    server.options["packed"] = True
    (tmp_path / "some.bin.part").write_bytes(CONTENT[:5000])  # a part of the packed file does not fit to it
    with pytest.raises(ConnectionError, match="another part than the one that was asked for"):
        _download.fetch(remote(server), tmp_path, progress=False)
    assert _download.fetch(remote(server), tmp_path, progress=False).read_bytes() == CONTENT


def test_a_file_that_changed_since_the_first_part_is_fetched_anew(server, tmp_path):
    server.options |= {"tag": '"old"', "content": OLD, "cut": 90_000}
    with pytest.raises(ConnectionError):
        _download.fetch(remote(server), tmp_path, progress=False)
    assert (tmp_path / "some.bin.part").stat().st_size > 50_000
    server.options |= {"tag": '"new"', "content": CONTENT, "cut": None}
    assert _download.fetch(remote(server), tmp_path, progress=False).read_bytes() == CONTENT
    assert server.asked[-1]["If-Range"] == '"old"' and [path.name for path in tmp_path.iterdir()] == ["some.bin"]


def test_a_server_that_sends_more_than_is_published_is_stopped(server, tmp_path):
    server.options["content"] = bytes(3_000_000)
    with pytest.raises(ConnectionError, match=r"sends more than the 0\.3 MB that are published"):
        _download.fetch(remote(server), tmp_path, progress=False)
    assert (tmp_path / "some.bin.part").stat().st_size == 0


@pytest.mark.slow
def test_many_names_before_the_content_are_read(tmp_path):
    """As CIFAR-100 comes from Python 3: each name of a file takes a dozen steps, and the pixels are last."""
    content = {"filenames": [b"%d" % i for i in range(60_000)], "data": np.zeros(20_000_000, np.uint8)}
    (tmp_path / "train").write_bytes(pickle.dumps(content, protocol=2))
    with open(tmp_path / "train", "rb") as file:
        found = load_pickle(file, "train")
    assert found["filenames"] == content["filenames"] and found["data"].shape == (20_000_000,)


@pytest.mark.parametrize(
    "end", [b".", b"K\x01.", b"\x95\x01\x00\x00\x00\x00\x00\x00\x00K\x01."], ids=["stop", "more", "frame"]
)
def test_a_pickle_that_is_shorter_than_its_frame_is_refused(end):
    whole = pickle.dumps([7, "a" * 300], protocol=4)
    assert load_pickle(io.BytesIO(whole), "FILE") == [7, "a" * 300]
    with pytest.raises(ValueError, match=r"FILE is not read: .* frame"):
        load_pickle(io.BytesIO(whole[:16] + end), "FILE")
