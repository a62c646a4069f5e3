# pyright: reportArgumentType=false
"""Reports: the command that repeats a run, what is measured beside it, the page, predictions and confusions."""

import csv
import json
import re
import shlex
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta
from jaxmeta import Details, Experiment, data
from jaxmeta.__main__ import main
from jaxmeta.catalog import LEARNERS, kinds_of
from jaxmeta.reports._classes import confusion_of
from jaxmeta.runs import command_of

SMALL: dict[str, Any] = {"ways": 2, "model": "fc", "num_tasks": 2, "iterations": 1, "validate_every": 1}
SMALL |= {"validation_tasks": 2, "test_tasks": 4, "test_steps": 2, "inner_rate": 0.1}
BENCHMARKS = {"images": "glyphs", "text": "banking77", "regression": "harmonic", "environment": "particles2d"}


# The command.


def parsed(command, monkeypatch) -> Any:
    """The settings of the run that a command would start."""
    found = {}
    monkeypatch.setattr("jaxmeta.__main__.Experiment.run", lambda self, *_, **options: found.update(run=self) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main([word for word in shlex.split(command)[1:]])
    return found["run"].resolve()


@pytest.mark.parametrize(
    ("experiment", "command"),
    [
        (Experiment(), "jaxmeta train"),
        (Experiment(learner="promp", benchmark="particles2d"), "jaxmeta train --benchmark particles2d"),
        (Experiment(shots=5, train_shots=5, seed=3), "jaxmeta train --shots 5 --seed 3"),
        (Experiment(shots=5, train_shots=1), "jaxmeta train --shots 5 --train-shots 1"),
        (Experiment(ways=20, steps=5, inner_rate=0.1), "jaxmeta train --ways 20"),
        (Experiment(ways=20, steps=1, inner_rate=2.5e-5), "jaxmeta train --ways 20 --steps 1 --inner-rate 2.5e-05"),
        (Experiment("omniglot", test_rotations=True), "jaxmeta train --benchmark omniglot --test-rotations"),
        (Experiment(meta_gradient="truncated", last_steps=2), "jaxmeta train --meta-gradient truncated --last-steps 2"),
    ],
    ids=lambda value: value[14:] if isinstance(value, str) else "",
)
def test_the_command_is_the_shortest_one(experiment, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = experiment.resolve()
    assert command_of(settings) == command
    assert dict(parsed(command, monkeypatch)) == dict(settings)


def test_the_command_of_every_learner_gives_its_settings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, entry in LEARNERS.items():
        for kind in kinds_of(entry):
            settings = Experiment(BENCHMARKS[kind], name, seed=5, test_tasks=7).resolve()
            assert dict(parsed(command_of(settings), monkeypatch)) == dict(settings)


def test_the_command_names_modules_and_files():
    command = command_of(Experiment().resolve(), modules=["my file.py"], root="/data")
    assert command == "jaxmeta train --module 'my file.py' --root /data"


# What is measured beside the test.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "maml"
    Experiment(**SMALL).run(folder, progress=False)
    return folder


def test_steps_are_those_of_learners_with_fewer_steps(run):
    result = json.loads((run / "result.json").read_text())
    assert [step["number"] for step in result["steps"]] == [0, 1, 2]
    for step in (0, 1):
        found = jaxmeta.evaluate_run(run, test_steps=step)
        for name in ("accuracy", "loss"):
            np.testing.assert_allclose(result["steps"][step][name]["mean"], found[name].mean, rtol=1e-4)
    assert {name: result["steps"][2][name] for name in result["test"]} == result["test"]


def test_floors_are_the_nearest_mean_and_the_start(run):
    floors = json.loads((run / "result.json").read_text())["floors"]
    parts: Any = Experiment(**SMALL).build()
    keys = jax.vmap(lambda key: jax.random.split(key, 3)[0])(jax.random.split(parts.test_key, SMALL["test_tasks"]))
    support, query = jax.jit(jax.vmap(parts.tasksets.test))(keys)
    images, asked = (np.asarray(x).reshape(4, 2, -1) for x in (support.x, query.x))  # one of each class
    distances = ((asked[:, :, None] - images[:, None]) ** 2).sum(axis=-1)
    accuracy = (distances.argmin(axis=-1) == np.arange(2)).mean()
    assert floors["nearest class mean of the raw inputs"]["accuracy"]["mean"] == pytest.approx(accuracy)
    run_untrained = jax.jit(jaxmeta.evaluate(parts.learner, SMALL["test_tasks"]))
    untrained = run_untrained(parts.meta, parts.tasksets.test, parts.test_key)
    found = floors["the same learner before training"]
    np.testing.assert_allclose(found["loss"]["mean"], untrained["loss"].mean(), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("learner", sorted(name for name, e in LEARNERS.items() if "regression" in kinds_of(e)))
def test_every_learner_has_a_report(learner, tmp_path):
    given = {"iterations": 1, "test_tasks": 3, "validation_tasks": 2, "validate_every": 1, "num_tasks": 2}
    Experiment("sinusoid", learner, **given).run(tmp_path / "run", progress=False)
    steps = json.loads((tmp_path / "run" / "result.json").read_text())["steps"]
    assert [step["number"] for step in steps][:1] == ([0] if steps else [])
    assert (
        "after adaptation" in (tmp_path / "run" / "report.md").read_text()
        or (tmp_path / "run" / "report.html").exists()
    )


# The page.


def check_page(path):
    """One file that needs nothing else."""
    page = path.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://|<script|@import|url\(", re.sub(r'src="[^"]*"', "", page))
    assert 'name="viewport"' in page and page.count("<img") == len(re.findall(r'<img [^>]*alt="[^"]+"', page))
    return page


def test_the_page_has_everything_in_it(run):
    page = check_page(run / "report.html")
    assert "<h1>maml on glyphs</h1>" in page
    words = "--ways 2 --model fc --test-steps 2 --inner-rate 0.1 --iterations 1 --num-tasks 2"
    words += " --validate-every 1 --validation-tasks 2 --test-tasks 4"
    assert jaxmeta.load_run(run).command == f"jaxmeta train {words}"
    assert f"<pre>jaxmeta train {words}</pre>" in page and words in (run / "report.md").read_text()
    assert page.count('class="tile"') == 3 * (2 + 2)  # three tasks of two classes
    assert "nearest class mean of the raw inputs" in page and "a guess" in page
    assert '<td class="flag"><code>--inner-rate</code></td><td>0.1</td>' in page


def test_another_test_writes_a_page_and_predictions_elsewhere(run, tmp_path):
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    names = {name: tmp_path / name for name in ("a.html", "a.csv", "a.npz")}
    options = {"num_tasks": 5, "report": names["a.html"]}
    found = jaxmeta.evaluate_run(run, predictions=names["a.csv"], **options)
    assert main(["evaluate", str(run), "--num-tasks", "5", "--predictions", str(names["a.npz"])]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before
    assert "(5 tasks, 95 % interval, chance 50 %)" in check_page(names["a.html"])
    rows = list(csv.DictReader(names["a.csv"].read_text().splitlines()))
    right = [row["label"] == row["predicted_label"] for row in rows]
    assert len(rows) == 10 and np.mean(right) == pytest.approx(found["accuracy"].mean)
    arrays = np.load(names["a.npz"])
    assert arrays["outputs"].shape == (5, 2, 2) and arrays["class_ids"].shape == (5, 2)
    assert (arrays["outputs"].argmax(axis=-1) == arrays["y"]).mean() == pytest.approx(found["accuracy"].mean)
    with pytest.raises(ValueError, match="the ending of predictions must be one of '.csv', '.npz', got '.txt'"):
        jaxmeta.evaluate_run(run, predictions="a.txt")


def test_predictions_tell_classes_by_name(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "words"
    folder.mkdir()
    for name in "abcdefgh":
        lines = [" ".join(rng.choice([f"{name}{i}" for i in range(9)], 4)) for _ in range(6)]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    given = {"ways": 2, "train_ways": 2, "iterations": 1, "validate_every": 1, "validation_tasks": 2, "size": 64}
    experiment = Experiment("sentences", "protonet", queries=1, test_queries=2, test_tasks=12, **given)
    experiment.run(tmp_path / "run", root=folder, progress=False)
    test = jaxmeta.load_run(tmp_path / "run").record.data["classes"]["test"]
    jaxmeta.evaluate_run(tmp_path / "run", root=folder, predictions=tmp_path / "a.csv")
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert {row["class"] for row in rows} <= set(test) and {row["predicted_class"] for row in rows} <= set(test)
    page = check_page(tmp_path / "run" / "report.html")
    assert "<h2>Confusions</h2>" in page and f"--root {folder}" in page


# Confusions, on numbers made up.


def test_confusions_are_counted_by_class():
    labels = jnp.array([[0, 0, 1], [0, 1, 1], [1, 0, 0]])
    guesses = jnp.array([[0, 1, 1], [0, 0, 1], [1, 1, 1]])
    weight = jnp.array([[1, 1, 1], [1, 1, 1], [1, 1, 0]])
    ids = jnp.array([[7, 2], [2, 7], [2, 5]])
    details = Details(jax.nn.one_hot(guesses, 2), labels, weight, ids, None)
    sampler: Any = data.FewShot.from_classes(np.zeros((8, 2, 1)), ways=2, queries=1, names=list("abcdefgh"))
    found = confusion_of(details, sampler)
    assert found is not None and found.names == ("c", "f", "h")
    # Task 0: h is h, h is c, c is c. Task 1: c is c, h is c, h is h. Task 2: f is f, c is f.
    assert found.counts.tolist() == [[2, 1, 0], [0, 1, 0], [2, 0, 2]]
    assert found.together.tolist() == [[3, 1, 2], [1, 1, 0], [4, 0, 4]]
    assert found.worst(9) == [("h", "c", 2, 0.5), ("c", "f", 1, 1.0)]


def test_classes_that_never_come_back_are_not_compared():
    zeros = jnp.zeros((5, 2), jnp.int32)
    details = Details(jnp.zeros((5, 2, 2)), zeros.at[:, 1].set(1), None, jnp.arange(10).reshape(5, 2), None)
    assert confusion_of(details, data.Glyphs()) is None
