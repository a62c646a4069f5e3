# pyright: reportArgumentType=false
"""Features of a frozen network: computed once, kept in a file, and learned from on the command line."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta
from jaxmeta import Experiment, data, models
from jaxmeta.__main__ import main
from jaxmeta.data.containers import write_arrays


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def images(count=7):
    x = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return data.Examples.of(x, ["a", "b", "c", "a", "b", "c", "c"][:count])


def dense(w, x):
    return x.reshape(len(x), -1) @ w


def test_features_are_computed_once(cache):
    """In batches, the last one smaller; whatever decides the numbers has features of its own."""
    rng, found = np.random.default_rng(1), images()
    w = rng.normal(size=(48, 5)).astype(np.float32)
    expected = (found.inputs / 255).reshape(7, -1) @ w
    for size in (2, 3, 64):
        features = jaxmeta.embed(dense, w, found, batch_size=size, progress=False)
        np.testing.assert_allclose(features.inputs, expected, rtol=1e-5, atol=1e-5)
        assert features.names == found.names and (features.labels == found.labels).all()
    (first, *others) = cache.iterdir()
    assert len(others) == 2  # a size of the batch is another program
    write_arrays(first, {"features": np.zeros((7, 5), np.float32)}, "cache")
    kept = [jaxmeta.embed(dense, w, found, batch_size=size, progress=False).inputs for size in (2, 3, 64)]
    assert sum(not features.any() for features in kept) == 1
    assert jaxmeta.embed(dense, w, found, batch_size=64, cache=False, progress=False).inputs.any()

    changed = data.Examples(255 - found.inputs, found.labels, found.names)
    changes = [(dense, -w, found), (dense, w, changed), (lambda _, x: dense(w, x), None, found)]
    changes += [(lambda _, x: dense(-w, x), None, found), (lambda w, x: jnp.tanh(dense(w, x)), w, found)]
    results = [jaxmeta.embed(*change, progress=False).inputs for change in changes]
    assert len(list(cache.iterdir())) == 3 + len(changes)
    for result, sign in zip((results[0], *results[2:4]), (-1, 1, -1), strict=True):
        np.testing.assert_allclose(result, sign * expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda _, x: x.mean((1, 2)) - x.mean((0, 1, 2))[None], "depend on the others in its batch"),
        (lambda _, x: x, r"must return features \[n, d\], got shape \(7, 4, 4, 3\) for 7 examples"),
        (lambda _, x: x.reshape(-1, 3), r"must return features \[n, d\], got shape \(112, 3\)"),
    ],
)
def test_what_gives_no_features_of_single_examples(model, message, cache):
    with pytest.raises(ValueError, match=message):
        jaxmeta.embed(model, None, images(), progress=False)
    assert not cache.exists()


def test_a_file_of_examples(tmp_path):
    found = data.Examples.of(np.eye(4), ["b", "a", "b", "c"], {"a": "train", "b": "train", "c": "test"})
    found.save(tmp_path / "x.npz")
    again = data.Examples.load(tmp_path / "x.npz")
    assert again.names == found.names and again.parts == found.parts
    np.testing.assert_array_equal(again.inputs, found.inputs)
    np.testing.assert_array_equal(again.labels, found.labels)
    division = data.load_examples("features", tmp_path / "x.npz")
    assert [part.names for part in division] == [("a", "b"), (), ("c",)]
    assert division.train.inputs.dtype == np.float32
    with pytest.raises(ValueError, match=r"path must end with .npz, got .*x.txt"):
        found.save(tmp_path / "x.txt")


X, Y = np.zeros((4, 2)), ["a", "b", "a", "b"]
DAMAGED = {
    "missing": ({"features": X, "labels": Y}, "must hold the arrays x and y, but x is missing, got features, labels"),
    "length": ({"x": X, "y": Y[:3]}, "names must match inputs: got 3 names for inputs of shape"),
    "images": ({"x": np.zeros((4, 2, 2, 1)), "y": Y}, r"x must be vectors \[n, d\], got float64\[4, 2, 2, 1\]"),
    "words": ({"x": np.full((4, 2), "a"), "y": Y}, r"x must be vectors \[n, d\], got <U1"),
    "part": ({"x": X, "y": Y, "part": ["train", "val", "train", "val"]}, "part must be one of train, .* got 'val'"),
    "shared": ({"x": X, "y": Y, "part": ["train", "test", "test", "test"]}, "class 'a' is in train and in test"),
    "parts": ({"x": X, "y": Y, "part": ["train"]}, r"part must be \[n\] like y, got shape \(1,\) for \(4,\)"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_files_of_another_form(name, tmp_path):
    arrays, message = DAMAGED[name]
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        data.load_examples("features", tmp_path / "x.npz")


def test_the_defaults_are_prototypes_of_the_features_themselves():
    settings = Experiment("features").resolve()
    assert (settings.kind, settings.learner, settings.model) == ("vectors", "protonet", "identity")
    assert Experiment("features", "anil").resolve().model == "mlp"  # which needs a body
    with pytest.raises(ValueError, match="model of anil must be one of 'mlp', 'skip-linear', got 'identity'"):
        Experiment("features", "anil", model="identity").resolve()


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["protonet", "maml"])
def test_the_command_line(learner, tmp_path, capsys):
    """Ten classes around their centers: trained, tested again, asked, and saved."""
    rng = np.random.default_rng(0)
    centers, names = rng.normal(size=(12, 6)), [f"kind {i:02}" for i in range(12)]
    x = (centers[:, None] + 0.01 * rng.normal(size=(12, 9, 6))).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x.reshape(-1, 6), y=np.repeat(names, 9))
    np.savez(tmp_path / "shots.npz", x=x[:2, :3].reshape(-1, 6), y=np.repeat(["left", "right"], 3))
    np.savez(tmp_path / "new.npz", x=x[:2, 3:6].reshape(-1, 6))
    run, file = str(tmp_path / "run"), str(tmp_path / "file")
    words = ["train", "--features", str(tmp_path / "x.npz"), "--learner", learner, "--ways", "2", "--shots", "2"]
    words += ["--queries", "2", "--test-queries", "2", "--iterations", "2", "--validation-tasks", "2"]
    assert main([*words, "--test-tasks", "8", "--validate-every", "2", "--folder", run]) == 0
    assert main(["evaluate", run, "--root", str(tmp_path / "x.npz"), "--num-tasks", "4"]) == 0
    capsys.readouterr()
    words = ["predict", run, str(tmp_path / "new.npz"), "--support", str(tmp_path / "shots.npz")]
    assert main([*words, "--json", "--save", file]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["class"] for row in found] == ["left"] * 3 + ["right"] * 3
    assert main(["predict", file, str(tmp_path / "new.npz"), "--json"]) == 0
    for row, other in zip(json.loads(capsys.readouterr().out), found, strict=True):
        assert row["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)
    with pytest.raises(SystemExit):
        main(["train", "--features", "x.npz", "--root", "."])
    assert main(["train", "--features", "x.npz", "--benchmark", "glyphs", "--folder", run + "2"]) == 1
    assert "root does not apply to 'glyphs'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_converted_network_predicts_from_files(tmp_path):
    """From photos on the disk to the name of another photo, with what `embed` gives as features."""
    from PIL import Image

    model = models.ResNet(blocks=(1, 1), hidden=4, mean=0.5, std=0.5)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    statistics = models.with_batch_stats(model, variables, jax.random.uniform(jax.random.key(1), (2, 8, 16, 16, 3)))
    colors = {"red": (200, 30, 20), "blue": (20, 30, 220)}
    pictures = {name: [Image.new("RGB", (40, 30), color)] for name, color in colors.items()}
    x = np.stack([np.full((16, 16, 3), color, np.uint8) for color in colors.values()])
    learner = jaxmeta.protonet(model, 2)
    support = jaxmeta.Batch(jnp.asarray(x / np.float32(255)), jnp.arange(2))
    for params, alone in ((statistics, True), (variables, False)):
        classifier = learner.adapt(learner.init(params), support, jax.random.key(0))
        if alone:
            jaxmeta.save_classifier(tmp_path / "file", classifier, support.x[:1], names=list(colors))
        else:
            with pytest.warns(UserWarning, match="one input alone may be classified by chance"):
                jaxmeta.save_classifier(tmp_path / "file", classifier, support.x[:1], names=list(colors))
        loaded = jaxmeta.load_classifier(tmp_path / "file")
        np.testing.assert_allclose(loaded(x), loaded(x / np.float32(255)), rtol=1e-5, atol=1e-5)
        if not alone:
            with pytest.raises(ValueError, match="depend on the other inputs of a batch"):
                loaded.predict(pictures["red"])
            continue
        pictures["blue"][0].save(tmp_path / "new.png")
        assert [loaded.predict(each)[0].name for each in (pictures["red"], tmp_path / "new.png")] == ["red", "blue"]
        features = jaxmeta.embed(model, statistics, data.Examples.of(x, list(colors)), progress=False).inputs
        distances = np.square(features[:, None] - features[None]).sum(-1)
        np.testing.assert_allclose(loaded(x), -distances, rtol=1e-3, atol=1e-3 * distances.max())
