"""get_tasksets: what each name gives, that its parts share no class, and what it refuses."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxmeta.data import (
    BenchmarkTasksets,
    FewShot,
    GaussianProcess,
    Glyphs,
    Harmonic,
    Linear,
    Sinusoid,
    describe_tasksets,
    get_tasksets,
    list_tasksets,
    load_examples,
    register_tasksets,
)
from jaxmeta.data._benchmarks import BENCHMARKS

DATA = Path(os.environ.get("JAXMETA_DATA", Path(__file__).parents[2] / "shared" / "data"))
KEY = jax.random.key(0)


def _few_shot(*args, **kwargs):
    sets = [sampler for sampler in get_tasksets(*args, **kwargs) if isinstance(sampler, FewShot)]
    assert len(sets) == 3
    return sets


@pytest.fixture(scope="module")
def omniglot():
    """Packed images and names; the archives are read in test_omniglot.py."""
    path = DATA / "omniglot" / "omniglot28_lanczos_u8.npz"
    if not path.is_file():
        pytest.skip(f"no {path} (set JAXMETA_DATA)")
    with np.load(path) as stored:
        return stored["images"], stored["names"]


def test_names():
    names = list_tasksets()
    assert names == tuple(sorted(names)) and {"glyphs", "omniglot", "sinusoid", "mini-imagenet", "folder"} <= set(names)
    for name in names:
        info = describe_tasksets(name)
        assert info.about and "\n" not in info.about and len(info.about) < 110
        assert {"shots", "queries"} <= info.arguments <= set(inspect.signature(get_tasksets).parameters)
        assert ("ways" in info.arguments) == (info.kind != "regression")
        assert ("split" in info.arguments) == bool(info.splits)
        assert ("root" in info.arguments) == bool(info.files)
        assert bool(info.paper) == (name not in ("folder", "glyphs", "sentences", "features")) and (
            "https://" in info.paper
        ) == bool(info.paper)
        assert ("download=True" in info.files) <= ("download" in info.arguments)
    with pytest.raises(ValueError, match="name must be one of 'banking77', .* got 'imagenet'"):
        describe_tasksets("imagenet")


@pytest.mark.parametrize("name", ["cifarfs", "cifar_fs", "CIFAR-FS", " cifar-fs"])
def test_names_as_users_write_them(name):
    assert describe_tasksets(name) is describe_tasksets("cifar-fs")
    with pytest.raises(ValueError, match="size does not apply to 'cifar-fs'"):
        load_examples(name, size=84)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sinusiod", r"got 'sinusiod'\. Did you mean 'sinusoid'\?"),
        ("miniimagnet", r"Did you mean 'mini-imagenet'"),
        ("mini_imagnet", r"Did you mean 'mini-imagenet'"),
        ("xyz", r"got 'xyz'$"),
        (None, r"got None$"),
    ],
)
def test_unknown_names_are_suggested(name, message):
    for of in (describe_tasksets, get_tasksets):
        with pytest.raises(ValueError, match=message):
            of(name)
    with pytest.raises(ValueError, match="name must be one of .*'folder'.* got 'cub20'. Did you mean 'cub200'?"):
        load_examples("cub20")


@pytest.fixture
def registry():
    """The registry, restored after the test."""
    before = dict(BENCHMARKS)
    yield BENCHMARKS
    BENCHMARKS.clear()
    BENCHMARKS.update(before)


def digits(split="first", seed=0, **sizes):
    """A user's benchmark; the arguments that it got are in the sampler of the training tasks."""
    train = Glyphs(sizes.get("ways", 5), sizes.get("shots", 1), seed=seed + (split == "second"))
    return BenchmarkTasksets(train, train, train)


def test_a_benchmark_of_ones_own(registry):
    facts: dict[str, Any] = {"about": "Ten digits", "kind": "images", "splits": ("first", "second")}
    register_tasksets("my-digits", digits, paper="Me, 2026", files="digits.npz", **facts)
    assert "my-digits" in list_tasksets()
    info = describe_tasksets("my_digits")
    assert info.arguments == {"ways", "shots", "queries", "test_ways", "test_shots", "test_queries", "split", "seed"}
    assert info[:3] == ("Ten digits", "images", ("first", "second"))
    assert (info.paper, info.files) == ("Me, 2026", "digits.npz")
    train = get_tasksets("mydigits", 3, split="second").train
    assert isinstance(train, Glyphs) and (train.ways, train.shots, train.seed) == (3, 1, 1)
    with pytest.raises(ValueError, match="root does not apply to 'my-digits', got '/data'"):
        get_tasksets("my-digits", root="/data")
    with pytest.raises(ValueError, match="name must be one of .*'my-digits'.* Did you mean 'my-digits'"):
        get_tasksets("my-digit")
    register_tasksets("my-digits", digits, arguments=("ways", "seed", "split"), **facts)  # the same function
    assert describe_tasksets("my-digits").arguments == {"ways", "seed", "split"}
    for taken in ("my-digits", "mydigits", "omniglot"):
        with pytest.raises(ValueError, match=f"name must be new, but there is a benchmark .* got '{taken}'"):
            register_tasksets(taken, lambda **arguments: digits(**arguments), **facts)


def test_arguments_of_a_regression_benchmark(registry):
    def pairs(**sizes) -> Any:
        return 1, 2, 3

    register_tasksets("pairs", pairs, about="Pairs of numbers", kind="regression")
    assert describe_tasksets("pairs").arguments == {"shots", "queries", "test_shots", "test_queries"}
    with pytest.raises(TypeError, match="build of 'pairs' must return BenchmarkTasksets, got tuple"):
        get_tasksets("pairs")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": "My Digits"}, ValueError, "name must consist of lower-case letters, digits and hyphens, got 'My Dig"),
        ({"name": 3}, ValueError, "name must consist of .* got 3"),
        ({"build": 3}, TypeError, "build must be a function, got 3"),
        ({"kind": "video"}, ValueError, "kind must be one of 'images', 'text', 'vectors', 'regression', got 'video'"),
        ({"arguments": ("wayz",)}, ValueError, "arguments must be one of 'ways', .* got 'wayz'"),
        ({"splits": ()}, ValueError, "splits must be given exactly if split is an argument"),
        ({"arguments": ("ways",)}, ValueError, "splits must be given exactly if split is an argument"),
    ],
)
def test_wrong_registrations_are_named(registry, changes, error, message):
    facts = {"name": "my-digits", "build": digits, "about": "Digits", "kind": "images", "splits": ("first",), **changes}
    with pytest.raises(error, match=message):
        register_tasksets(**facts)
    assert "my-digits" not in list_tasksets()


@pytest.mark.parametrize(
    ("name", "kind", "ways", "shots", "queries"),
    [
        ("glyphs", Glyphs, 5, 1, 15),
        ("sinusoid", Sinusoid, 1, 10, 10),
        ("harmonic", Harmonic, 1, 10, 10),
        ("gp-prior", GaussianProcess, 1, 10, 10),
        ("linear", Linear, 1, 10, 10),
    ],
)
def test_sizes_and_defaults(name, kind, ways, shots, queries):
    def sizes(sampler):
        assert isinstance(sampler, kind)
        task = jax.eval_shape(sampler, KEY)
        assert sampler.example.shape == (1, *task.support.x.shape[1:])
        return len(task.support.y) // ways, len(task.query.y) // ways

    assert [sizes(sampler) for sampler in get_tasksets(name)] == 3 * [(shots, queries)]
    sets = get_tasksets(name, shots=2, queries=3, test_shots=4, test_queries=6)
    assert [sizes(sampler) for sampler in sets] == [(2, 3), (4, 6), (4, 6)]


def test_glyphs_parts_differ():
    sets = get_tasksets("glyphs", ways=3, seed=2, test_ways=4)
    parts = [(s.split, s.ways, s.seed) for s in sets if isinstance(s, Glyphs)]
    assert parts == [("train", 3, 2), ("validation", 4, 2), ("test", 4, 2)]


def test_omniglot_parts_share_no_drawing(omniglot):
    sets = _few_shot("omniglot", ways=5, queries=1, test_ways=20, examples=omniglot)
    assert [sampler.num_classes for sampler in sets] == [4 * 1028, 172, 423]
    assert [(s.ways, s.shots, s.queries) for s in sets] == [(5, 1, 1), (20, 1, 1), (20, 1, 1)]
    keys = jax.random.split(KEY, 3000)
    seen = []
    for sampler in sets:
        assert sampler.example.shape == (1, 28, 28, 1)
        drawn = jax.jit(lambda sampler, keys: jax.vmap(sampler.indices)(keys))(sampler, keys)
        rows = np.unique(np.asarray(drawn.query.x.example))
        assert len(np.unique(rows // 20)) == sampler.num_classes // sampler.rotations  # every class comes up
        seen.append({image.tobytes() for image in np.asarray(sampler.inputs)[rows]})
    assert all(len(a & b) == 0 for i, a in enumerate(seen) for b in seen[:i])


def test_omniglot_with_turned_test_classes(omniglot):
    sets = _few_shot("omniglot", test_rotations=True, examples=omniglot)
    assert [sampler.num_classes for sampler in sets] == [4 * 1028, 4 * 172, 4 * 423]
    with pytest.raises(ValueError, match="test_rotations does not apply to 'glyphs', got True"):
        get_tasksets("glyphs", test_rotations=True)


def test_omniglot_splits_and_seed(omniglot):
    sets = _few_shot("omniglot", split="random", seed=3, examples=omniglot)
    assert [sampler.num_classes for sampler in sets] == [4400, 100, 423]
    with pytest.raises(ValueError, match=r"validation tasks of 'omniglot': ways must be at most .* 81 classes"):
        get_tasksets("omniglot", split="background", test_ways=100, examples=omniglot)
    with pytest.raises(ValueError, match="split must be one of 'vinyals'"):
        get_tasksets("omniglot", split="lake", examples=omniglot)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("omniglt", {}, "name must be one of .*'glyphs', .*'omniglot', .* got 'omniglt'"),
        ("sinusoid", {"ways": 5}, r"ways does not apply to 'sinusoid', got 5\. Arguments that apply: queries, shots"),
        ("linear", {"test_ways": 5}, "test_ways does not apply to 'linear'"),
        ("omniglot", {"size": 84}, "size does not apply to 'omniglot'"),
        ("omniglot", {"examples": (0, 1), "root": "/data"}, "root and download do not apply to examples"),
        ("folder", {"download": True}, "download does not apply to 'folder'"),
        ("folder", {}, "'folder' needs root"),
        ("cub200", {"size": 0}, "size must be an integer of at least 1, got 0"),
        ("cub200", {"seed": -1, "split": "random"}, "seed must be an integer of at least 0, got -1"),
        ("cub200", {"examples": (0, 1)}, "examples must be a pair: the inputs, and the class name of each"),
        ("omniglot", {"seed": -1, "split": "random", "root": "/data"}, "seed must be an integer of at least 0, got -1"),
        ("cub200", {"per_class": 0}, "per_class must be an integer of at least 1, got 0"),
        ("clinc150", {"size": -1}, "size must be an integer of at least 1, got -1"),
        ("sinusoid", {"root": "/data"}, "root does not apply to 'sinusoid'"),
        ("sinusoid", {"shots": 0}, "shots must be an integer of at least 1, got 0"),
        ("glyphs", {"split": "vinyals"}, "split does not apply to 'glyphs'"),
        ("glyphs", {"download": True}, "download does not apply to 'glyphs'"),
        ("glyphs", {"shots": 0}, "shots must be"),
        ("omniglot", {"seed": 1}, "seed applies to split='random' only"),
    ],
)
def test_bad_input_is_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        get_tasksets(name, **arguments)


def test_missing_data_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"images_background\.zip"):
        get_tasksets("omniglot", root=tmp_path)


def test_import_is_light():
    heavy = ("matplotlib", "PIL", "pooch", "requests", "scipy.io", "torch", "tensorflow_datasets")
    code = f"import sys, jaxmeta.data; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
