# pyright: reportArgumentType=false
"""From the folder of a run to predictions: examples and inputs of the user, files, and what is refused."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from PIL import Image

import jaxmeta
from jaxmeta import Batch, Experiment, data
from jaxmeta.__main__ import main
from jaxmeta.data._benchmarks import BENCHMARKS as BENCHMARKS_BY_NAME
from jaxmeta.prediction import Inputs

TINY: dict[str, Any] = {"model": "fc", "iterations": 1, "validate_every": 1, "validation_tasks": 2, "test_tasks": 2}
RUNS: dict[str, dict[str, Any]] = {
    "maml": {"ways": 3, "shots": 2, "num_tasks": 1, "steps": 1, "test_steps": 2, "inner_rate": 0.4},
    "protonet": {"ways": 3, "train_ways": 4, "shots": 2, "num_tasks": 1},
}
PRETRAINED: dict[str, dict[str, Any]] = {
    "simpleshot": {"ways": 3, "base_classes": 5, "minibatch": 4},
    "baseline-plus-plus": {"ways": 2, "base_classes": 5, "minibatch": 4, "fine_tune": True},
    "leo": {"ways": 3, "base_classes": 5, "minibatch": 4, "pretraining": 2, "num_tasks": 1, "steps": 1, "latents": 4},
}
NAMES = ("ash", "birch", "elm")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of finished runs, copied away from where they were made."""
    made: dict[str, Path] = {}

    def folder_of(learner):
        if learner not in made:
            folder = tmp_path_factory.mktemp("runs") / learner
            Experiment(learner=learner, **RUNS.get(learner, {}), **PRETRAINED.get(learner, {}), **TINY).run(
                folder, progress=False
            )
            made[learner] = Path(shutil.move(folder, tmp_path_factory.mktemp("elsewhere")))
        return made[learner]

    return folder_of


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Dark ink on white paper, as PNG: folders of two shots of three classes, and a folder of queries."""
    root = tmp_path_factory.mktemp("pictures")
    task = data.Glyphs(3, 2, 2, split="test", seed=1)(jax.random.key(0))
    for part, batch in zip(("shots", "queries"), task, strict=True):
        for number, (x, y) in enumerate(zip(np.asarray(batch.x), np.asarray(batch.y), strict=True)):
            folder = root / part / NAMES[y]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.round(255 - 255 * x[..., 0]).astype(np.uint8)).save(folder / f"{number}.png")
    (root / "shots" / ".ipynb_checkpoints").mkdir()
    return root, jax.tree.map(lambda x: np.round(255 * x) / np.float32(255) if x.ndim > 1 else x, task)


@pytest.mark.parametrize("learner", [*RUNS, *PRETRAINED])
@pytest.mark.quick("protonet")
def test_predictions_are_those_of_the_learner_for_each_input_alone(learner, folders, pictures):
    root, task = pictures
    run = jaxmeta.load_run(folders(learner))
    ways = run.settings.ways
    shots = {name: root / "shots" / name for name in NAMES[:ways]}
    classifier = run.adapt(shots)
    assert classifier.names == NAMES[:ways]
    few = task.support.y < ways
    support = Batch(task.support.x[few], task.support.y[few])
    adapted = jax.jit(run.learner.adapt)(run.meta, support, jax.random.key(0))
    predict = jax.jit(run.learner.predict)
    for x, y, file in zip(task.query.x, task.query.y, sorted((root / "queries").rglob("*.png")), strict=True):
        together = jnp.concatenate([support.x, x[None]])
        statistics = learner in PRETRAINED
        logits = predict(adapted, x[None] if statistics else together)[-1]
        (found,) = classifier.predict(file)
        expected = dict(zip(NAMES, jax.nn.softmax(logits).tolist(), strict=False))
        assert found.probabilities == pytest.approx(expected, abs=2e-4), NAMES[int(y)]
        assert found.name == max(expected, key=expected.__getitem__)
        assert found.probability == max(found.probabilities.values())
    everything = classifier.probabilities(root / "queries")
    for row, file in zip(everything, sorted((root / "queries").rglob("*.png")), strict=True):
        np.testing.assert_allclose(classifier.probabilities([file])[0], row, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
def test_predictions_alone_in_tens_and_sorted_are_the_same(norm, tmp_path):
    """As a folder is read: the pictures of one class after those of another."""
    Experiment(learner="protonet", **RUNS["protonet"], **TINY, norm=norm).run(tmp_path / "run", progress=False)
    task = data.Glyphs(3, 2, 8, split="test", seed=1)(jax.random.key(0))
    classifier = jaxmeta.load_run(tmp_path / "run").adapt(np.asarray(task.support.x), task.support.y)
    x = np.asarray(task.query.x)[np.argsort(task.query.y, kind="stable")]
    everything = classifier.probabilities(x)
    assert everything.std() > 1e-3
    for size in (1, 10):
        parts = [classifier.probabilities(x[start : start + size]) for start in range(0, len(x), size)]
        np.testing.assert_allclose(np.concatenate(parts), everything, rtol=1e-3, atol=1e-5)
    backwards = classifier.probabilities(x[::-1])[::-1]
    np.testing.assert_allclose(backwards, everything, rtol=1e-3, atol=1e-5)


def test_examples_in_every_form_are_the_same(folders, pictures, tmp_path):
    root, task = pictures
    run = jaxmeta.load_run(folders("protonet"))
    x, names = np.asarray(task.support.x), [NAMES[y] for y in task.support.y]
    np.savez(tmp_path / "shots.npz", x=x, y=names)
    files = {name: sorted((root / "shots" / name).glob("*.png")) for name in NAMES}
    pictures_of = {name: [Image.open(file) for file in files[name]] for name in NAMES}
    pixels = {name: [255 - np.asarray(Image.open(file)) for file in files[name]] for name in NAMES}
    forms = [(str(root / "shots"), None), (tmp_path / "shots.npz", None), (files, None), (pictures_of, None)]
    forms += [(pixels, None), (x, names), (list(x[..., 0][..., None]), tuple(names))]
    first, *others = [run.adapt(examples, of).probabilities(task.query.x) for examples, of in forms]
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-5)
    numbered = run.adapt(x, task.support.y)
    assert numbered.names == ("0", "1", "2")
    np.testing.assert_allclose(numbered.probabilities(np.round(255 * task.query.x).astype(np.uint8)), first, atol=1e-5)


@pytest.mark.parametrize("learner", RUNS)
@pytest.mark.quick("protonet")
def test_other_numbers_of_classes(learner, folders, pictures):
    """Fewer always, more where no layer of the network knows the number."""
    root, _ = pictures
    run = jaxmeta.load_run(folders(learner))
    two = run.adapt({name: root / "shots" / name for name in NAMES[:2]})
    assert two.probabilities(root / "queries").sum(1) == pytest.approx(1, abs=1e-5)
    assert {p.name for p in two.predict(root / "queries")} <= set(NAMES[:2])
    four = {name: root / "shots" / name for name in NAMES} | {"again": root / "shots" / "ash"}
    if learner == "protonet":
        found = run.adapt(four).probabilities(root / "queries")
        np.testing.assert_allclose(found[:, 0], found[:, 3], atol=1e-5)
    else:
        with pytest.raises(
            ValueError, match="examples have 4 classes, but maml was trained for 3. Train it with --ways 4"
        ):
            run.adapt(four)


@pytest.mark.slow
def test_the_command(folders, pictures, tmp_path, capsys):
    root, _ = pictures
    saved, queries = tmp_path / "trees.classifier", root / "queries"
    words = ["predict", str(folders("protonet")), "--support", str(root / "shots"), str(queries / "elm"), str(queries)]
    assert main([*words, "--save", str(saved)]) == 0
    table, said = capsys.readouterr()
    assert len(table.splitlines()) == 2 + 6 and f"saved a classifier of ash, birch, elm to {saved}" in said
    assert main([*words, "--json"]) == 0
    of_run = json.loads(capsys.readouterr().out)
    assert [row["class"] for row in of_run] == [line.split()[1] for line in table.splitlines()]
    assert main(["predict", str(saved), str(queries / "elm"), str(queries), "--csv"]) == 0
    of_file = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["input"] for row in of_file] == [row["input"] for row in of_run]
    for row, other in zip(of_file, of_run, strict=True):
        assert {n: float(row[n]) for n in NAMES} == pytest.approx(other["probabilities"], abs=1e-4)


def sentences_benchmark(**sizes):
    """Sentences whose class is a word of theirs."""
    words = [f"{a}{b}" for a in "bcdfg" for b in "aeiou"]
    text = [f"{other} {word} {word}" for word in words for other in "xyz"]
    sampler = data.FewShot.create(data.hash_ngrams(text, 64), np.repeat(np.arange(25), 3), ways=2, shots=1, queries=2)
    return data.BenchmarkTasksets(sampler, sampler, sampler)


@pytest.fixture
def words_benchmark():
    data.register_tasksets("words", sentences_benchmark, about="Sentences.", kind="text")
    yield "words"
    del BENCHMARKS_BY_NAME["words"]


def test_sentences(words_benchmark, tmp_path, capsys):
    options = {k: v for k, v in TINY.items() if k != "model"}
    Experiment(words_benchmark, "protonet", ways=2, train_ways=2, queries=2, hidden=8, num_tasks=2, **options).run(
        tmp_path / "run", progress=False
    )
    (tmp_path / "shots.txt").write_text("pay\tpay my bill\npay\tbill to pay\n\nweather\train today\n")
    (tmp_path / "new.txt").write_text("my bill\nrain rain\n")
    words = ["predict", str(tmp_path / "run"), str(tmp_path / "new.txt"), "--support", str(tmp_path / "shots.txt")]
    assert main(words) == 0, capsys.readouterr().err
    assert [line.split()[-3] for line in capsys.readouterr().out.splitlines()] == ["pay", "weather"]
    assert main([*words[:2], str(tmp_path / "shots.txt"), *words[3:]]) == 1
    assert "has lines `class<TAB>sentence`, as the examples of classes have" in capsys.readouterr().err
    assert main([*words[:2], "rain today", *words[3:]]) == 1
    assert "rain today does not exist: a sentence to classify is a line of a text file" in capsys.readouterr().err
    run = jaxmeta.load_run(tmp_path / "run")
    by_name = run.adapt({"pay": ["pay my bill", "bill to pay"], "weather": "rain today"})
    assert by_name.predict("my bill")[0].name == "pay"
    (tmp_path / "shots.txt").write_text("pay\tpay my bill\nrain today\n")
    assert main(words) == 1
    assert "line 2 must be `class<TAB>sentence`, got 'rain today'" in capsys.readouterr().err


def one_class(run, root):
    return run.adapt(root / "shots" / "ash", ["ash", "ash"])


MISTAKES = {
    "no folder": (lambda run, root: run.adapt(root / "nowhere"), FileNotFoundError, "nowhere does not exist"),
    "no classes": (lambda run, root: run.adapt(root / "shots" / "elm"), ValueError, "must hold a folder of images for"),
    "one class": (one_class, ValueError, "examples must be of two classes or more, got ash"),
    "names": (lambda run, root: run.adapt(root / "shots", ["a"]), ValueError, "got 1 names for 6 examples"),
    "empty class": (lambda run, root: run.adapt({"a": [], "b": root}), ValueError, "got none of a"),
    "no names": (lambda run, root: run.adapt(np.zeros((2, 28, 28, 1))), TypeError, "examples must be a mapping"),
    "number": (lambda run, root: run.adapt({"a": 3, "b": 4}), TypeError, "inputs must be files, folders, pictures or"),
    "sentence": (lambda run, root: run.adapt({"a": ["hello"], "b": root}), FileNotFoundError, "hello"),
    "shape": (
        lambda run, root: run.adapt(np.zeros((2, 3, 3, 1)), "ab"),
        ValueError,
        r"got shape \(3, 3, 1\) as number 0",
    ),
    "wide": (
        lambda run, root: run.adapt(np.full((2, 9, 9), 300), "ab"),
        ValueError,
        r"must be in \[0, 255\], got int64",
    ),
    "fractions": (lambda run, root: run.adapt(root / "shots", [0.5] * 6), TypeError, "names must be strings or whole"),
    "no picture": (
        lambda run, root: run.adapt({"a": Path(__file__), "b": root}),
        ValueError,
        "is not a readable image",
    ),
    "no run": (lambda run, root: jaxmeta.load_run(root), FileNotFoundError, "it has no config.json"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name, folders, pictures):
    call, error, message = MISTAKES[name]
    with pytest.raises(error, match=message):
        call(jaxmeta.load_run(folders("protonet")), pictures[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN"], "predict needs INPUTS to classify, or --save FILE"),
        (["RUN", "INPUTS"], "--support SHOTS is missing"),
        (["FILE", "INPUTS", "--support", "SHOTS"], "--support does not apply to"),
        (["nowhere", "INPUTS"], "nowhere"),
        (["RUN", "absent.png", "--support", "SHOTS"], "absent.png does not exist"),
        (["RUN", "INPUTS", "--support", "SHOTS", "--tsv"], "unrecognized arguments: --tsv"),
    ],
)
def test_mistakes_of_the_command(words, message, folders, pictures, tmp_path, capsys):
    file = tmp_path / "file"
    jaxmeta.save_classifier(file, Partial(lambda w, x: x @ w, jnp.eye(2)), np.zeros((1, 2)), names=["a", "b"])
    known = {
        "RUN": folders("protonet"),
        "FILE": file,
        "SHOTS": pictures[0] / "shots",
        "INPUTS": pictures[0] / "queries",
    }
    try:
        status = main(["predict", *(str(known.get(word, word)) for word in words)])
    except SystemExit as stopped:
        status = stopped.code
    assert status in (1, 2)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_run_that_has_not_finished(folders, tmp_path):
    folder = shutil.copytree(folders("protonet"), tmp_path / "run")
    (folder / "meta.msgpack").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no meta.msgpack. Run its command again"):
        jaxmeta.load_run(folder)


def test_classifiers_of_arrays_in_files(tmp_path):
    """A Python number among the arrays, names, and inputs that are one, many or of another type."""
    classifier = Partial(lambda w, scale, x: scale * x @ w, np.eye(2, dtype=np.float32), 2.0)
    jaxmeta.save_classifier(tmp_path / "file", classifier, np.zeros((1, 2), np.float32), names=["no", "yes"])
    loaded = jaxmeta.load_classifier(tmp_path / "file")
    x = np.array([[1.0, 0.0], [0.0, 3.0], [2.0, 1.0]], np.float32)
    np.testing.assert_array_equal(loaded(x), 2 * x)
    np.testing.assert_array_equal(loaded(x.astype(np.uint8)), 2 * x)
    assert [p.name for p in loaded.predict(x)] == ["no", "yes", "no"]
    assert loaded.predict(x[1])[0].probability == pytest.approx(1 / (1 + np.exp(-6)), rel=1e-5)
    for wrong in (x[0], x[:, :1], x.astype(complex)):
        with pytest.raises(ValueError, match=r"inputs must be float32\[n, 2\], got"):
            loaded(wrong)
    jaxmeta.save_classifier(tmp_path / "file", classifier, x)
    with pytest.raises(ValueError, match="does not know the names"):
        jaxmeta.load_classifier(tmp_path / "file").predict(x)


@pytest.mark.parametrize(
    ("picture", "gray"),
    [
        (Image.new("L", (9, 9), 51), 51),
        (Image.new("RGB", (5, 7), (51, 51, 51)), 51),
        (Image.new("P", (8, 8), 0), 0),
        (np.full((3, 4), 102, np.uint8), 102),
        (np.full((6, 6, 1), 102, np.int64), 102),
        (np.full((6, 5, 3), 51, np.uint8), 51),
    ],
)
def test_pictures_of_any_size_and_mode(picture, gray):
    for channels in (1, 3):
        plain = Inputs("images", (4, 4, channels))([picture])
        np.testing.assert_allclose(plain, np.full((1, 4, 4, channels), gray / 255), atol=1e-6)
        inverted = Inputs("images", (4, 4, channels), invert=True)([picture])
        expected = gray if isinstance(picture, np.ndarray) else 255 - gray  # arrays are as the model has them
        np.testing.assert_allclose(inverted, np.full((1, 4, 4, channels), expected / 255), atol=1e-6)


@pytest.mark.slow
def test_modules_of_the_user_travel_with_the_run(tmp_path, pictures):
    """A learner of one's own: trained, the file deleted, the folder moved, loaded in a fresh process."""
    (tmp_path / "mine.py").write_text(
        "import jaxmeta\nfrom jaxmeta import register\n"
        "def build(s, net):\n    return jaxmeta.protonet(net.method('features'), s.train_ways, test_ways=s.ways)\n"
        "rates = {'outer_rate': 1e-3, 'outer_schedule': 'constant'}\n"
        "row = register.recipe('images', 'mine', train_ways=3, num_tasks=1, **rates)\n"
        "register.learner('mine', build, [row])\n"
    )
    words = [sys.executable, "-m", "jaxmeta", "train", "--module", str(tmp_path / "mine.py"), "--learner", "mine"]
    words += ["--model", "fc", "--iterations", "1", "--validation-tasks", "1", "--test-tasks", "2", "--queries", "2"]
    subprocess.run([*words, "--folder", str(tmp_path / "run")], check=True, capture_output=True)
    (tmp_path / "mine.py").unlink()
    shutil.move(tmp_path / "run", tmp_path / "moved")
    words = [sys.executable, "-m", "jaxmeta", "predict", str(tmp_path / "moved"), str(pictures[0] / "queries")]
    done = subprocess.run([*words, "--support", str(pictures[0] / "shots")], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 6


@pytest.mark.slow
def test_runs_side_by_side(folders, tmp_path, capsys):
    protonet, maml = folders("protonet"), folders("maml")
    unfinished = shutil.copytree(maml, tmp_path / "unfinished")
    (unfinished / "result.json").unlink()
    assert main(["compare", str(protonet), str(maml), str(unfinished), "--plot", str(tmp_path / "curves.png")]) == 0
    header, first, second, third = capsys.readouterr().out.splitlines()
    accuracy = json.loads((maml / "result.json").read_text())["test"]["accuracy"]["mean"]
    assert header.split()[:4] == ["run", "test", "minutes", "learner"] and "ways" not in header.split()
    assert str(protonet) in first and "protonet" in first and f"accuracy {100 * accuracy:.2f} ±" in second
    assert "not finished" in third and "0.4" in third.split()  # the inner rate, which protonet does not have
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1120, 640)
    assert "folders must be of two runs or more, got 1" in refused(["compare", str(maml)], capsys)
    assert "has no config.json" in refused(["compare", str(maml), str(tmp_path)], capsys)
    (unfinished / "metrics.jsonl").write_text("{\n")  # a whole line: one that is being written is left out
    assert "metrics.jsonl is damaged, or was not made" in refused(["compare", str(maml), str(unfinished)], capsys)


def refused(words, capsys):
    assert main(words) == 1
    return capsys.readouterr().err


@pytest.mark.slow
def test_a_run_with_augmentation_and_ways_that_the_data_cut(tmp_path):
    """Both change what the sampler of the training is, which a loaded run must not notice."""
    for i in range(12):
        (tmp_path / "photos" / f"c{i}").mkdir(parents=True)
        for j in range(4):
            Image.new("RGB", (8, 8), (20 * i, 50 * j, 99)).save(tmp_path / "photos" / f"c{i}" / f"{j}.png")
    options = {"ways": 2, "shots": 1, "queries": 1, "test_queries": 1, "augment": "flip", "num_tasks": 1, **TINY}
    run = Experiment("folder", "protonet", **options).run(tmp_path / "run", root=tmp_path / "photos", progress=False)
    loaded = jaxmeta.load_run(run.folder)
    jax.tree.map(np.testing.assert_array_equal, loaded.meta, run.trained.meta)
    assert loaded.inputs.shape == (8, 8, 3) and len(loaded.record.data["classes"]["train"]) < 60
