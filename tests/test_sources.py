"""Benchmarks read from files: each published layout in small, made here, and what damage to it leads to."""

import collections
import csv
import functools
import hashlib
import http.server
import io
import json
import os
import pickle
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import scipy
from local_web import serve
from PIL import Image

from jaxmeta.bounded import load_pickle
from jaxmeta.data import FewShot, describe_tasksets, get_tasksets, list_tasksets, load_examples
from jaxmeta.data.archives import Files
from jaxmeta.data.sources import SOURCES, _download, _tfds, standard_splits

SHARED = Path(os.environ.get("JAXMETA_DATA", Path(__file__).parents[2] / "shared" / "data")) / "splits"
PARTS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXMETA_DATA", raising=False)


def classes(name, split=None):
    """The classes of a benchmark, sorted."""
    lists = standard_splits(name)[split or next(iter(standard_splits(name)))]
    return sorted(of for part in lists.values() for of in part)


def color(name):
    """A color for each class, far from the next one's, so that a picture tells its class."""
    digest = hashlib.md5(name.encode()).digest()
    return tuple(25 + 23 * (value % 10) for value in digest[:3])


@functools.cache
def encode(name, kind="PNG", size=(12, 10)):
    file = io.BytesIO()
    Image.new("RGB", size, color(name)).save(file, kind, quality=95)
    return file.getvalue()


def pixels(name, size):
    return np.broadcast_to(np.array(color(name), np.uint8), (size, size, 3))


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def put_tree(root, members):
    for member, content in members.items():
        put(root / member, content)


def put_zip(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def put_tar(path: Path, members, mode: Any = "w:gz"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for member, content in members.items():
            content = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


# What each archive holds, as published.


def cub():
    images = {
        f"CUB_200_2011/images/{name}/{name}_{i:04}.jpg": encode(name, "JPEG")
        for name in classes("cub200")
        for i in (1, 2)
    }
    return images | {"CUB_200_2011/classes.txt": "1 001.x", "attributes.txt": "1 has_bill", "CUB_200_2011/README": ""}


def dtd():
    images = {f"dtd/images/{name}/{name}_{i:04}.jpg": encode(name, "JPEG") for name in classes("dtd") for i in (1, 2)}
    return images | {"dtd/labels/train1.txt": "banded/banded_0002.jpg", "dtd/imdb/imdb.mat": b"x"}


def aircraft():
    members, lists, boxes = {}, {part: [] for part in ("train", "val", "test")}, []
    for i, name in enumerate(classes("fgvc-aircraft")):
        for j, part in enumerate(lists):
            image = f"{3 * i + j + 34309:07}"
            picture = Image.new("RGB", (16, 16), (0, 0, 0))  # the aircraft is in the box, a black frame around it
            picture.paste(Image.new("RGB", (6, 8), color(name)), (4, 2))
            file = io.BytesIO()
            picture.save(file, "PNG")  # lossless, so that the frame does not bleed
            members[f"fgvc-aircraft-2013b/data/images/{image}.jpg"] = file.getvalue()
            lists[part].append(f"{image} {name}")
            boxes.append(f"{image} 5 3 10 10")
    for part, lines in lists.items():
        members[f"fgvc-aircraft-2013b/data/images_variant_{part}.txt"] = "\n".join(lines) + "\n"
    members["fgvc-aircraft-2013b/data/images_box.txt"] = "\n".join(boxes) + "\n"
    return members | {"fgvc-aircraft-2013b/data/images_family_train.txt": "0034309 Boeing 707"}


def flowers():
    labels = [int(name) for name in classes("vgg-flowers102") for _ in range(2)][::-1]
    file = io.BytesIO()
    scipy.io.savemat(file, {"labels": np.array([labels], np.uint8)}, do_compression=True)
    images = {f"jpg/image_{i:05}.jpg": encode(f"{label:03}", "JPEG") for i, label in enumerate(labels, 1)}
    return images, file.getvalue()


def fungi():
    images, tables = {}, {}
    number = 0
    for table in ("train", "val"):
        rows, annotations = [], []
        for name in classes("fungi"):
            number += 1
            path = f"images/{int(name)}_Some species/{number}.JPG"
            images[path] = encode(name, "JPEG", (8, 8))
            rows.append({"id": number, "file_name": path, "width": 8, "height": 8})
            annotations.append({"id": number, "image_id": number, "category_id": int(name)})
        tables[f"{table}.json"] = json.dumps({"images": rows, "annotations": annotations[::-1], "categories": []})
    return images, tables


def cifar100(protocol=2):
    names = classes("cifar-fs")

    def rows(count):
        labels = [i for i in range(100) for _ in range(count)]
        data = np.stack([pixels(names[i], 32).transpose(2, 0, 1).ravel() for i in labels])
        return pickle.dumps({b"data": data, b"fine_labels": labels, b"filenames": [b"x"] * len(labels)}, protocol)

    meta = pickle.dumps({"fine_label_names": names, "coarse_label_names": ["fish"]}, protocol)
    return {f"cifar-100-python/{k}": v for k, v in {"train": rows(2), "test": rows(1), "meta": meta}.items()}


def numbered_pickles(pattern, name, size):
    """One pickle for each part, with numbers for labels; a class is recognized by its color."""
    members = {}
    for part, file in zip(PARTS, pattern, strict=True):
        count = len(standard_splits(name)[next(iter(standard_splits(name)))][part])
        labels = [i for i in range(count) for _ in range(2)]
        data = np.stack([pixels(f"{part}/{i:03}", size) for i in labels])
        members[file] = pickle.dumps({"data": data, "labels": labels}, 2)
    return members


def mini_caches():
    members = {}
    for part, names in standard_splits("mini-imagenet")["ravi"].items():
        images = np.stack([pixels(name, 84) for name in names for _ in range(2)])
        rows = {name: [2 * i, 2 * i + 1] for i, name in enumerate(names)}
        members[f"mini-imagenet-cache-{part}.pkl"] = pickle.dumps({"image_data": images, "class_dict": rows})
    return members


def mini_images():
    members = {}
    for part, names in standard_splits("mini-imagenet")["ravi"].items():
        file = io.StringIO()
        table = csv.writer(file)
        table.writerow(["filename", "label"])
        for name in names:
            for i in (5, 9):
                members[f"images/{name}{i:08}.jpg"] = encode(name, "JPEG")
                table.writerow([f"{name}{i:08}.jpg", name])
        members[f"{'val' if part == 'validation' else part}.csv"] = file.getvalue()
    return members


def tiered(prefix=""):
    members = {}
    for short, part in zip(("train", "val", "test"), PARTS, strict=True):
        labels = np.repeat(np.arange(len(standard_splits("tiered-imagenet")["ren"][part])), 2)
        images = [np.frombuffer(encode(f"{part}/{i:03}", size=(84, 84)), np.uint8)[:, None] for i in labels]
        members[f"{prefix}{short}_images_png.pkl"] = pickle.dumps(images)
        members[f"{prefix}{short}_labels.pkl"] = pickle.dumps({"label_specific": labels, "label_specific_str": ["x"]})
    return members


def bitmaps():
    members = {}
    for name in classes("quickdraw"):
        file = io.BytesIO()
        np.save(file, np.full((3, 784), color(name)[0], np.uint8))
        members[f"{name}.npy"] = file.getvalue()
    return members


def class_tree(name, folder):
    return {f"{folder}/{of}/{of}_{i}.JPEG": encode(of, "JPEG") for of in classes(name) for i in (1, 2)}


def put_fungi(root, extracted):
    images, tables = fungi()
    if extracted:
        return put_tree(root / "fungi", images | tables)
    put_tar(root / "fungi_train_val.tgz", images)
    return put_tar(root / "train_val_annotations.tgz", tables)


def put_flowers(root, extracted):
    images, labels = flowers()
    put(root / "imagelabels.mat", labels)
    return put_tree(root, images) if extracted else put_tar(root / "102flowers.tgz", images)


CIFAR_FS = [f"CIFAR_FS_{part}.pickle" for part in ("train", "val", "test")]
FC100 = [f"FC100_{part}.pickle" for part in ("train", "val", "test")]
CATEGORIES = [f"miniImageNet_category_split_{part}.pickle" for part in ("train_phase_train", "val", "test")]
LAYOUTS = {
    "cub200 tgz": ("cub200", lambda root: put_tar(root / "CUB_200_2011.tgz", cub())),
    "cub200 folder": ("cub200", lambda root: put_tree(root / "cub200", cub())),
    "dtd tar.gz": ("dtd", lambda root: put_tar(root / "dtd-r1.0.1.tar.gz", dtd())),
    "dtd folder": ("dtd", lambda root: put_tree(root, dtd())),
    "aircraft tar.gz": ("fgvc-aircraft", lambda root: put_tar(root / "fgvc-aircraft-2013b.tar.gz", aircraft())),
    "aircraft folder": ("fgvc-aircraft", lambda root: put_tree(root, aircraft())),
    "flowers tgz": ("vgg-flowers102", lambda root: put_flowers(root, False)),
    "flowers folder": ("vgg-flowers102", lambda root: put_flowers(root, True)),
    "fungi tgz": ("fungi", lambda root: put_fungi(root, False)),
    "fungi folder": ("fungi", lambda root: put_fungi(root, True)),
    "cifar-fs tar.gz": ("cifar-fs", lambda root: put_tar(root / "cifar-100-python.tar.gz", cifar100())),
    "cifar-fs folder": ("cifar-fs", lambda root: put_tree(root, cifar100(4))),
    "cifar-fs pickles": ("cifar-fs", lambda root: put_tree(root, numbered_pickles(CIFAR_FS, "cifar-fs", 32))),
    "cifar-fs zip": ("cifar-fs", lambda root: put_zip(root / "cifar-fs.zip", class_tree("cifar-fs", "cifar100/data"))),
    "fc100 tar.gz": ("fc100", lambda root: put_tar(root / "cifar-100-python.tar.gz", cifar100())),
    "fc100 pickles": ("fc100", lambda root: put_tree(root / "fc100", numbered_pickles(FC100, "fc100", 32))),
    "mini caches": ("mini-imagenet", lambda root: put_tree(root, mini_caches())),
    "mini pickles": ("mini-imagenet", lambda root: put_tree(root, numbered_pickles(CATEGORIES, "mini-imagenet", 84))),
    "mini csv": ("mini-imagenet", lambda root: put_tree(root, mini_images())),
    "mini folders": (
        "mini-imagenet",
        lambda root: put_tree(root, class_tree("mini-imagenet", "mini-imagenet/train")),
    ),
    "tiered pickles": ("tiered-imagenet", lambda root: put_tree(root / "tiered-imagenet", tiered())),
    "tiered zenodo": ("tiered-imagenet", lambda root: put_tree(root, tiered("tiered-imagenet-"))),
    "tiered tar": (
        "tiered-imagenet",
        lambda root: put_tar(root / "tiered-imagenet.tar", tiered("tiered-imagenet/"), "w"),
    ),
    "tiered ImageNet": (
        "tiered-imagenet",
        lambda root: put_tree(
            root,
            class_tree("tiered-imagenet", "ILSVRC2012_img_train") | {"ILSVRC2012_img_train/n00000001/x.JPEG": b"other"},
        ),
    ),
    "quickdraw": ("quickdraw", lambda root: put_tree(root / "quickdraw", bitmaps())),
}
NUMBERED = ("cifar-fs pickles", "fc100 pickles", "mini pickles", "tiered pickles", "tiered zenodo", "tiered tar")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layout(layout, tmp_path):
    name, make = LAYOUTS[layout]
    make(tmp_path)
    size = 20 if SOURCES[name].scalable else None
    division = load_examples(name, tmp_path, size=size, progress=False)
    size, channels = size or SOURCES[name].size, 1 if name == "quickdraw" else 3
    published = standard_splits(name)[describe_tasksets(name).splits[0]]
    for part, examples in zip(PARTS, division, strict=True):
        if layout in NUMBERED:
            assert examples.names == tuple(f"{part}/{i:03}" for i in range(len(published[part])))
        else:
            assert examples.names == tuple(sorted(published[part]))
        counts = np.bincount(examples.labels)
        assert len(counts) == len(examples.names) and counts.min() == counts.max() >= 2
        assert examples.inputs.shape == (len(examples.labels), size, size, channels)
        assert examples.inputs.dtype == np.uint8
        seen = examples.inputs.reshape(len(examples.inputs), -1, channels).astype(int)
        expected = np.array([color(examples.names[label])[:channels] for label in examples.labels])
        assert np.abs(seen - expected[:, None]).max() <= 8  # what JPEG loses


def test_table_is_complete():
    assert set(list_tasksets()) == {
        *SOURCES,
        "folder",
        "sentences",
        "features",
        "glyphs",
        "gp-prior",
        "omniglot",
        "sinusoid",
        "harmonic",
        "linear",
        "table-prior",
    }
    images = {name for name, source in SOURCES.items() if source.kind == "images"}
    assert {name for name, _ in LAYOUTS.values()} == images
    assert all(remote.url.startswith("https://") for source in SOURCES.values() for remote in source.remotes)
    for source in SOURCES.values():  # what is fetched is the first layout
        fetched = {remote.name for remote in source.remotes}
        assert all(fetched & set(names) for names in source.layouts[0].files)


@pytest.mark.parametrize(
    ("name", "split", "file"),
    [
        ("mini-imagenet", "ravi", "miniimagenet_ravi"),
        ("tiered-imagenet", "ren", "tieredimagenet"),
        ("cifar-fs", "bertinetto", "cifarfs"),
        ("fc100", "oreshkin", "fc100"),
        ("cub200", "meta-dataset", "metadataset_cu_birds"),
        ("fgvc-aircraft", "meta-dataset", "metadataset_aircraft"),
        ("dtd", "meta-dataset", "metadataset_dtd"),
        ("quickdraw", "meta-dataset", "metadataset_quickdraw"),
        ("vgg-flowers102", "meta-dataset", "metadataset_vgg_flower"),
        ("fungi", "meta-dataset", "metadataset_fungi"),
    ],
)
def test_splits_are_the_published_ones(name, split, file):
    path = SHARED / f"{file}.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    published = json.loads(path.read_text())
    number = {"vgg-flowers102": 3, "fungi": 4}.get(name)  # we name these classes by their numbers
    for part, ours in standard_splits(name)[split].items():
        theirs = next(published[key] for key in (part, part[:3], part[:5]) if key in published)
        if isinstance(theirs, dict):
            theirs = [fine for group in theirs.values() for fine in group]
        pair = {"tiered-imagenet": 0, "cifar-fs": 1}.get(name)
        theirs = [of if pair is None else of[pair] for of in theirs]
        assert ours == sorted(of[:number] for of in theirs)


def test_parts_share_no_class_in_any_split():
    for name in SOURCES:
        for split, lists in standard_splits(name).items():
            names = [of for part in PARTS for of in lists[part]]
            assert len(names) == len(set(names)), (name, split)
            assert set(names) == set(classes(name)), (name, split)


def test_split_size_and_per_class(tmp_path):
    put_tree(tmp_path, cub())
    division = load_examples("cub200", tmp_path, split="closer-look", size=20, per_class=1, progress=False)
    assert [len(part.names) for part in division] == [100, 50, 50]
    assert load_examples("cub200", tmp_path, per_class=1, progress=False).test.inputs.shape[1:] == (84, 84, 3)
    assert [part.inputs.shape for part in division] == [(100, 20, 20, 3), (50, 20, 20, 3), (50, 20, 20, 3)]
    first = [load_examples("cub200", tmp_path, split="random", seed=s, progress=False).test.names for s in (0, 0, 1)]
    assert first[0] == first[1] != first[2] and all(25 <= len(names) <= 55 for names in first)
    with pytest.raises(ValueError, match="split must be one of 'meta-dataset', 'closer-look', .*'all', got 'lake'"):
        load_examples("cub200", tmp_path, split="lake", progress=False)
    with pytest.raises(ValueError, match="seed applies to split='random' only"):
        load_examples("cub200", tmp_path, seed=1, progress=False)


def test_tasks_of_a_benchmark(tmp_path):
    put_tree(tmp_path, cifar100())
    sets = get_tasksets("cifar-fs", ways=5, shots=1, queries=2, test_ways=10, root=tmp_path)
    samplers = [sampler for sampler in sets if isinstance(sampler, FewShot)]
    assert [(s.num_classes, s.ways) for s in samplers] == [(64, 5), (16, 10), (20, 10)]
    task = jax.jit(lambda sampler, key: sampler(key))(samplers[2], jax.random.key(0))
    assert task.support.x.shape == (10, 32, 32, 3)
    query = np.asarray(task.query.x).reshape(10, 2, -1)
    np.testing.assert_array_equal(query, np.repeat(np.asarray(task.support.x).reshape(10, 1, -1), 2, 1))
    with pytest.raises(ValueError, match=r"train tasks of 'cifar-fs': .* class [a-z]+ has 3 examples"):
        get_tasksets("cifar-fs", root=tmp_path)
    with pytest.raises(ValueError, match="size does not apply to 'cifar-fs'"):
        get_tasksets("cifar-fs", root=tmp_path, size=84)


def test_arrays_instead_of_files():
    names = [of for of in classes("dtd") for _ in range(2)]
    images = np.stack([pixels(of, 9) for of in names])
    sets = get_tasksets("dtd", ways=5, queries=1, examples=(images, names))
    assert [s.num_classes for s in sets if isinstance(s, FewShot)] == [33, 7, 7]
    with pytest.raises(ValueError, match="dtd: the data is not complete: 1 of 47 classes are missing, banded"):
        get_tasksets("dtd", examples=(images[2:], names[2:]))
    with pytest.raises(ValueError, match="dtd: the split has no such classes: dots"):
        get_tasksets("dtd", examples=(images, ["dots", *names[1:]]))
    with pytest.raises(ValueError, match="got 93 names for inputs of shape"):
        get_tasksets("dtd", examples=(images, names[1:]))
    with pytest.raises(ValueError, match="root and download do not apply"):
        get_tasksets("dtd", examples=(images, names), root="/data")


# Folders of one's own.


def own(names=("ant", "bee", "cat", "dog"), prefix="", kinds=("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")):
    return {f"{prefix}{name}/{i}.{kind.lower()}": encode(name, kind) for name in names for i, kind in enumerate(kinds)}


def test_folder_zip_and_tar_of_images_agree(tmp_path):
    put_tree(tmp_path / "mine", own() | {"readme.txt": "x", ".DS_Store": b"x"})
    put_zip(tmp_path / "mine.zip", own(prefix="top/") | {"__MACOSX/top/ant/._0.png": b"x"})
    put_tar(tmp_path / "mine.tar.xz", own(prefix="./"), "w:xz")
    found = [
        load_examples("folder", tmp_path / path, size=16, progress=False)
        for path in ("mine", "mine.zip", "mine.tar.xz")
    ]
    for division in found:
        assert sorted(name for part in division for name in part.names) == ["ant", "bee", "cat", "dog"]
        assert [part.inputs.shape for part in division] == [(12, 16, 16, 3), (6, 16, 16, 3), (6, 16, 16, 3)]
        jax.tree.map(np.testing.assert_array_equal, *([p.inputs for p in d] for d in (division, found[0])))
    sets = get_tasksets("folder", ways=1, shots=2, queries=4, root=tmp_path / "mine", size=16)
    assert jax.eval_shape(sets.train, jax.random.key(0)).query.x.shape == (4, 16, 16, 3)


def test_relative_root(tmp_path, monkeypatch):
    put_tree(tmp_path / "mine", own())
    put_tree(tmp_path / "dtd", dtd())
    for folder, root in (("mine", "."), (".", "mine"), ("dtd", "../mine")):
        monkeypatch.chdir(tmp_path / folder)
        assert len(load_examples("folder", root, size=8, progress=False).train.names) == 2
    assert len(load_examples("dtd", ".", size=8, progress=False).train.names) == 33


def test_folder_in_parts_and_nested_classes(tmp_path):
    tree = own(("a/x", "b/x"), "train/") | own(("c",), "val/") | own(("d",), "test/")
    put_tree(tmp_path / "mine", tree)
    division = load_examples("folder", tmp_path / "mine", progress=False)
    assert [part.names for part in division] == [("a/x", "b/x"), ("c",), ("d",)]
    assert len(load_examples("folder", tmp_path / "mine", split="random", progress=False).train.names) == 2


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "has no images in folders of their class"),
        ({"a/1.txt": "x"}, "has no images in folders of their class"),
        (own(("a",)), "a random split needs 1 training classes and 1 others for test tasks, got 1: a"),
        (own() | {"eel/readme.txt": "x"}, "eel is a class without images"),
        (own(prefix="train/") | own(("x",), "val/"), "there are no classes in test"),
        (own(prefix="train/") | own(("x",), "val/") | own(("ant",), "test/"), "class 'ant' is in test and in train"),
        (own(prefix="train/") | own(("x", "y")), "is in no folder train, validation or test, but other images are"),
        (own() | {"ant/z.png": encode("ant")[:48]}, r"mine: mine/ant/z.png is not a readable image"),
        (own() | {"ant/z.png": b""}, "mine/ant/z.png is not a readable image"),
        (own() | {"ant/z.png": b"GIF89a" + bytes(50)}, "mine/ant/z.png is not a readable image"),
    ],
)
def test_bad_folder_is_named(tree, message, tmp_path):
    (tmp_path / "mine").mkdir()
    put_tree(tmp_path / "mine", tree)
    with pytest.raises(ValueError, match=message):
        load_examples("folder", tmp_path / "mine", progress=False)
    assert not list(tmp_path.glob("cache/*.tmp"))


def test_folder_without_a_place(tmp_path):
    with pytest.raises(ValueError, match="'folder' needs root"):
        load_examples("folder")
    put(tmp_path / "mine.rar", b"x")
    for path in ("nowhere", "mine.rar"):
        with pytest.raises(FileNotFoundError, match="root must be a folder, or a zip or tar archive"):
            load_examples("folder", tmp_path / path)


# Missing data, downloads, the cache.


@pytest.mark.parametrize("name", SOURCES)
def test_missing_data_says_what_where_and_how_large(name, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        get_tasksets(name, root=tmp_path)
    for remote in SOURCES[name].remotes:
        assert str(remote) in str(error.value) and f"({remote.megabytes:g} MB)" in str(error.value)
    automatic = all(remote.checksum for remote in SOURCES[name].remotes)
    assert ("--download" in str(error.value)) == automatic
    assert automatic != ("no download that could be checked" in str(error.value))
    assert not list(tmp_path.iterdir())
    if not automatic:
        with pytest.raises(FileNotFoundError, match="no download that could be checked"):
            get_tasksets(name, root=tmp_path, download=True)


@pytest.fixture
def server(monkeypatch):
    """A web server that hands out `files`, cuts the first answer to each of `cut` in half, and lists `requests`."""
    monkeypatch.setenv("no_proxy", "*")

    class Handler(http.server.BaseHTTPRequestHandler):
        files, cut, requests, url = {}, set(), [], ""

        def do_GET(self):
            name, start = self.path.strip("/"), 0
            self.requests.append((name, self.headers.get("Range")))
            if name not in self.files:
                return self.send_error(404)
            content = self.files[name]
            if span := self.headers.get("Range"):
                start = int(span.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    return self.send_error(416)
            self.send_response(206 if span else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if name in self.cut:
                self.cut.discard(name)
                content = content[: len(content) // 2]
            return self.wfile.write(content[start:])

        def log_message(self, format, *args):
            pass

    with serve(Handler) as Handler.url:
        yield Handler


def remote(server, name, content, checksum=None):
    server.files[name] = content
    checksum = checksum or f"md5:{hashlib.md5(content).hexdigest()}"
    return _download.Remote(name, 0.1, server.url + name, checksum)


def test_download_of_a_benchmark(server, tmp_path, monkeypatch):
    put_tar(tmp_path / "made" / "dtd.tgz", dtd())
    content = (tmp_path / "made" / "dtd.tgz").read_bytes()
    there = remote(server, "dtd-r1.0.1.tar.gz", content)
    monkeypatch.setitem(SOURCES, "dtd", SOURCES["dtd"]._replace(remotes=(there,)))
    division = load_examples("dtd", tmp_path / "data", download=True, progress=False)
    assert len(division.train.names) == 33
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["dtd-r1.0.1.tar.gz"]
    load_examples("dtd", tmp_path / "data", download=True, progress=False)
    assert len(server.requests) == 1


def test_download_goes_on_where_it_was_cut(server, tmp_path):
    content = np.random.default_rng(0).bytes(1_000_000)
    there = remote(server, "some.bin", content)
    server.cut.add("some.bin")
    with pytest.raises(ConnectionError, match=r"could not fetch http://127.0.0.1.*some.bin"):
        _download.fetch(there, tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["some.bin.part"]
    there_is = (tmp_path / "some.bin.part").stat().st_size
    assert 100_000 < there_is <= 500_000
    assert _download.fetch(there, tmp_path, progress=False).read_bytes() == content
    assert server.requests == [("some.bin", None), ("some.bin", f"bytes={there_is}-")]
    assert [path.name for path in tmp_path.iterdir()] == ["some.bin"]


@pytest.mark.parametrize("delay", [0.0, 0.1], ids=["at once", "later"])
def test_downloads_of_one_file_are_one(delay, server, tmp_path):
    """Threads stand for processes here, and whole processes do it in `kill_many.py`."""
    content = np.random.default_rng(1).bytes(1_000_000)
    there, found = remote(server, "some.bin", content), []
    done = len(server.requests)

    def ask():
        found.append(_download.fetch(there, tmp_path / "data", progress=False).read_bytes())

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(delay)
    for thread in threads:
        thread.join()
    assert found == [content] * 3 and len(server.requests) == done + 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["some.bin"]


def test_download_of_another_file_leaves_nothing(server, tmp_path):
    there = remote(server, "some.bin", b"other", f"sha256:{hashlib.sha256(b'published').hexdigest()}")
    with pytest.raises(ValueError, match=r"some.bin is not the published file"):
        _download.fetch(there, tmp_path, progress=False)
    assert not list(tmp_path.iterdir())
    put(tmp_path / "some.bin.part", b"publishe")  # a part of what was published once, now longer than what is there
    with pytest.raises(ValueError, match="is not the published file"):
        _download.fetch(there, tmp_path, progress=False)
    assert not list(tmp_path.iterdir())
    put(tmp_path / "some.bin", b"mine")
    with pytest.raises(ValueError, match="It was left as it is"):
        _download.fetch(there, tmp_path, progress=False)
    assert (tmp_path / "some.bin").read_bytes() == b"mine"


def test_failed_download_is_named(server, tmp_path):
    there = _download.Remote("some.bin", 1, server.url + "some.bin", "md5:" + "0" * 32)
    with pytest.raises(ConnectionError, match=r"could not fetch .*some.bin.*404"):
        _download.fetch(there, tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_images_are_decoded_once_and_again_after_a_change(tmp_path, monkeypatch):
    put_tree(tmp_path / "mine", own())
    first = load_examples("folder", tmp_path / "mine", size=8, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(
            "jaxmeta.data.sources._readers.decode_all", lambda *_: pytest.fail("decoded in spite of the cache")
        )
        again = load_examples("folder", tmp_path / "mine", size=8, progress=False)
    np.testing.assert_array_equal(first.train.inputs, again.train.inputs)
    assert first.train.names == again.train.names
    load_examples("folder", tmp_path / "mine", size=9, progress=False)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    put(tmp_path / "mine" / f"{first.train.names[0]}" / "0.png", encode("another"))
    changed = load_examples("folder", tmp_path / "mine", size=8, progress=False)
    assert (changed.train.inputs != first.train.inputs).any()


# Damage.


def damaged_zip(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: 2 * len(content) // 3]
    elif how == "empty":
        content = bytearray()
    else:
        content[content.index(b"IDAT") + 6] ^= 255
    path.write_bytes(content)
    return bytes(content)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", r"mine.zip is not a readable zip archive"),
        ("empty", r"mine.zip is not a readable zip archive"),
        ("flipped", r"mine.zip: ant/0.png is damaged"),
    ],
)
def test_damaged_zip_is_named_and_left(how, message, tmp_path):
    put_zip(tmp_path / "mine.zip", own())
    content = damaged_zip(tmp_path / "mine.zip", how)
    with pytest.raises(ValueError, match=message):
        load_examples("folder", tmp_path / "mine.zip", progress=False)
    assert (tmp_path / "mine.zip").read_bytes() == content and not list(tmp_path.glob("cache/*"))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_cut_tar_is_named_and_left(mode, keep, tmp_path):
    path = tmp_path / f"mine.tar{mode[1:].replace(':', '.')}"
    put_tar(path, own(), mode)
    size = len(path.read_bytes().rstrip(b"\0")) if mode == "w" else path.stat().st_size
    content = path.read_bytes()[: int(keep * size)]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.tar\S* is not a readable tar archive"):
        load_examples("folder", path, progress=False)
    assert path.read_bytes() == content and not list(tmp_path.glob("cache/*"))


def test_tar_that_is_cut_between_two_files_is_named(tmp_path):
    path = tmp_path / "mine.tar"
    put_tar(path, own(), "w")
    with tarfile.open(path) as archive:
        offset = archive.getmembers()[10].offset
    for cut in (offset, offset + 100):  # tarfile takes both for the end of the archive
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(ValueError, match=r"mine.tar is not a readable tar archive \(its end is missing\)"):
            load_examples("folder", path, progress=False)


@pytest.mark.parametrize("evil", ["../evil.png", "/tmp/evil.png", "ant/../../evil.png", "..\\evil.png", "C:/evil.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_out_of_the_archive_are_refused(evil, kind, tmp_path):
    path = tmp_path / f"mine.{kind}"
    (put_zip if kind == "zip" else put_tar)(path, own() | {evil: encode("ant")}, *([] if kind == "zip" else ["w"]))
    with pytest.raises(ValueError, match=r"has a file outside of itself, which is refused"):
        load_examples("folder", path, progress=False)
    assert not list(tmp_path.glob("**/evil*"))


def test_duplicate_paths_are_named(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for name, content in [*own().items(), *own(("ant",)).items()]:
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"mine.zip has two files of the same name: ant/0.png"):
        load_examples("folder", tmp_path / "mine.zip", progress=False)
    members = mini_images()
    members["val.csv"] += members["val.csv"].splitlines()[1] + "\n"
    put_tree(tmp_path, members)
    with pytest.raises(ValueError, match=r"images/n\d+.jpg is listed twice"):
        load_examples("mini-imagenet", tmp_path, progress=False)


@pytest.mark.parametrize(
    ("name", "make", "change", "message"),
    [
        ("mini-imagenet", mini_images, {"train.csv": "file,class\na,b\n"}, "must have the columns filename and label"),
        ("mini-imagenet", mini_images, {"train.csv": b"\xff\xfe"}, "train.csv is not text in UTF-8"),
        ("mini-imagenet", mini_images, {"test.csv": "filename,label\nx.jpg,n01930112\n"}, "x.jpg is missing"),
        (
            "mini-imagenet",
            mini_caches,
            {"mini-imagenet-cache-test.pkl": b"\x80"},
            "test.pkl is not a readable pickle .*it ends too early",
        ),
        ("mini-imagenet", mini_caches, {"mini-imagenet-cache-test.pkl": pickle.dumps([])}, "has unexpected content"),
        ("cifar-fs", cifar100, {"cifar-100-python/meta": pickle.dumps({})}, "is not CIFAR-100"),
        ("cifar-fs", cifar100, {"cifar-100-python/test": pickle.dumps({b"data": b"x"})}, "is not CIFAR-100"),
        ("cifar-fs", cifar100, {"cifar-100-python/test": b""}, "cifar-100-python/test is not a readable pickle"),
        ("vgg-flowers102", lambda: {"jpg/image_00001.jpg": b""}, {"imagelabels.mat": b"x" * 600}, "imagelabels.mat"),
        (
            "fungi",
            lambda: {"images/0_x/1.jpg": b"", "val.json": "{}"},
            {"train.json": "{"},
            "not a list of annotations",
        ),
        ("quickdraw", lambda: {}, {"quickdraw/airplane.npy": b"x"}, "airplane.npy"),
        ("tiered-imagenet", tiered, {"val_labels.pkl": pickle.dumps({})}, "val_images_png.pkl is not readable"),
    ],
)
def test_damaged_lists_and_pickles_are_named(name, make, change, message, tmp_path):
    put_tree(tmp_path, make() | change)
    if name == "quickdraw":
        put_tree(tmp_path / "quickdraw", bitmaps() | {"airplane.npy": b"x"})
    with pytest.raises(ValueError, match=message):
        load_examples(name, tmp_path, progress=False)
    assert not list(tmp_path.glob("cache/*"))


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


EVIL = {
    "system": Evil(os.system, ("touch evil",)),
    "eval": Evil(eval, ("open('evil', 'w')",)),
    "exec in containers": {"data": [({"x": Evil(exec, ("open('evil', 'w')",))},)], "labels": [0]},
    "getattr": Evil(getattr, ({}, "clear")),
    "load": Evil(np.load, ("evil",)),
    "open": Evil(open, ("evil", "w")),
    "array of objects": np.array([Evil(os.system, ("touch evil",))], object),
    "counter": collections.Counter("a"),
    "path": Path("evil"),
}


@pytest.mark.parametrize("name", EVIL)
def test_pickles_that_run_code_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(
            ValueError, match=r"FC100 is not read: the pickle (asks for .*, which is neither|has an array of 'O8')"
        ):
            load_pickle(io.BytesIO(pickle.dumps(EVIL[name], protocol)), "FC100")
    assert not (tmp_path / "evil").exists()


def built(of, *states):
    """A pickle of what `of` makes, with its state set to each of some: what `__reduce__` cannot write."""
    states = b"".join(pickle.dumps(state, 2)[2:-1] + b"b" for state in states)
    return b"\x80\x02" + of + states + b"."


DTYPE = b"cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R"  # np.dtype("O")
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
NUMBERS = (1, (4,), Evil(np.dtype, ("u1",)), False, b"abcd")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # NumPy itself reads this as an object at address 0x4141..., and the first look at it runs what is there.
        (
            b"\x80\x02"
            + ARRAY
            + b"(K\x01K\x01\x85"
            + built(DTYPE, (3, "|", None, None, None, -1, -1, 0))[2:-1]
            + b"\x89U\x08AAAAAAAAtb.",
            "an array of 'O'",
        ),
        (built(DTYPE.replace(b"O", b"f"), (3, "|", None, ("a",), {"a": ("O", 0)}, 8, 1, 0)), "an array with fields"),
        (pickle.dumps(Evil(np.dtype, ("O,u1",))), "an array of 'O,u1'"),
        (pickle.dumps(np.array(["g", 3, None], object)), "an array of 'O8'"),
        (built(ARRAY, NUMBERS, NUMBERS), "fills an array twice"),
        (pickle.dumps(Evil(np.ndarray, ((1 << 20,), "u1"))), "not a readable pickle"),
    ],
    ids=["objects at addresses", "fields", "records", "objects", "twice", "memory"],
)
def test_pickles_that_lie_about_memory_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        load_pickle(io.BytesIO(content), "FC100")


def test_pickles_of_arrays_and_containers_are_read():
    content = {
        "arrays": [np.arange(12).astype(kind).reshape(3, 4).T for kind in ("u1", "<i8", ">f4", "c8", bool)],
        "numbers": (1, 2.5, None, True, np.uint8(7), np.float64(0.1)),
        "texts": ["a", b"b", {"c"}, np.array(["d", "ee"]), np.array([b"f"])],
        "more": [np.zeros((0, 3)), np.array(3.0)],
        "ordered": collections.OrderedDict(a=1),
    }
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        pickled = pickle.dumps(content, protocol)
        found, expected = load_pickle(io.BytesIO(pickled), "x"), pickle.loads(pickled)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(ours, theirs, strict=isinstance(theirs, np.ndarray))
            assert isinstance(ours, type(theirs))
    # Python 2 wrote bytes where Python 3 has strings: {'data': array([[1, 2]], dtype=uint8), 'labels': [3]}
    old = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b"
        b"\x87Rq\x05(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x02\x01\x02tbU\x06labelsq\x08]q\tK\x03au."
    )
    found = load_pickle(io.BytesIO(old), "x")
    assert found[b"labels"] == [3] and found[b"data"].tolist() == [[1, 2]] and found[b"data"].dtype == np.uint8


def test_cut_and_flipped_pickles_never_raise_anything_else():
    content = pickle.dumps({"data": np.arange(64, dtype=np.uint8), "labels": list(range(8)), "x": np.float32(1)})
    random = np.random.default_rng(0)
    for trial in range(400):
        changed = bytearray(content[: random.integers(1, len(content) + 1)])
        for _ in range(trial % 4):
            changed[random.integers(len(changed))] = random.integers(256)
        try:
            load_pickle(io.BytesIO(bytes(changed)), "x")
        except ValueError as error:
            assert str(error).startswith("x is not")


def test_one_name_for_one_file(tmp_path):
    put_tree(tmp_path, own())
    files = Files([tmp_path])
    with pytest.raises(ValueError, match="has 4 files 0.png, not one"):
        files.find("0.png")
    assert files.find("ant/0.png") == f"{tmp_path.name}/ant/0.png"


# What TFDS prepared; its records are read for real in test_omniglot.py.


def prepared(root, name, version, names, kind="array_record"):
    folder = root / name / version
    put(folder / "dataset_info.json", json.dumps({"fileFormat": kind, "splits": [{"name": "train"}, {"name": "test"}]}))
    put(folder / "label.labels.txt", "\n".join(names) + "\n")
    return folder


@pytest.mark.parametrize(("name", "channels"), [("cub200", 3), ("vgg-flowers102", 3), ("quickdraw", 1), ("fc100", 3)])
def test_prepared_directory(name, channels, tmp_path, monkeypatch):
    source = SOURCES[name].prepared
    assert source is not None
    prepared(tmp_path / "tfds", source.name, "2.9.0", ["old"])
    names = classes(name) if name != "vgg-flowers102" else [f"flower {i}" for i in range(102)]
    newest = prepared(tmp_path / "tfds", source.name, "2.10.0", names)

    def records(folder, split, progress):
        assert folder == newest
        for label, of in enumerate(classes(name)):
            yield {"image": encode(of), "label": np.int64(label)}

    monkeypatch.setattr(_tfds, "records", records)
    division = load_examples(name, tmp_path, progress=False)
    for part, examples in zip(PARTS, division, strict=True):
        assert examples.names == tuple(standard_splits(name)[describe_tasksets(name).splits[0]][part])
        expected = [color(examples.names[label])[:channels] for label in examples.labels]
        np.testing.assert_array_equal(examples.inputs[:, 0, 0], expected)
        assert np.bincount(examples.labels).tolist() == [2] * len(examples.names)  # both splits
    assert len(load_examples(name, tmp_path, per_class=1, progress=False).test.labels) == len(division.test.names)


def test_prepared_directory_that_needs_more_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_datasets", None)
    folder = prepared(tmp_path, "dtd", "3.0.1", classes("dtd"))
    with pytest.raises(ImportError, match=r"pip install 'jaxmeta\[tfds\]'"):
        load_examples("dtd", tmp_path, progress=False)
    prepared(tmp_path, "dtd", "3.0.1", classes("dtd"), "tfrecord")
    with pytest.raises(ValueError, match="was prepared as tfrecord, which only TensorFlow reads"):
        load_examples("dtd", tmp_path, progress=False)
    put(folder / "dataset_info.json", "{")
    with pytest.raises(ValueError, match=r"dataset_info.json is not readable"):
        load_examples("dtd", tmp_path, progress=False)
