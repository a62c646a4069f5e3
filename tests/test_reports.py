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
from matplotlib.figure import Figure

import jaxmeta
from jaxmeta import Details, Experiment, data
from jaxmeta.__main__ import main
from jaxmeta.catalog import LEARNERS, kinds_of
from jaxmeta.reports import write_predictions
from jaxmeta.reports._classes import confusion_of
from jaxmeta.reports._figures import draw_confusion, draw_curve, draw_figure
from jaxmeta.reports._findings import Confusion
from jaxmeta.reports._write import _row
from jaxmeta.runs import command_of

SMALL: dict[str, Any] = {
    "benchmark": "sentences",
    "ways": 2,
    "size": 16,
    "hidden": 4,
    "test_queries": 2,
    "num_tasks": 2,
}
SMALL |= {"iterations": 1, "validate_every": 1, "validation_tasks": 2, "test_tasks": 6, "test_steps": 2}
SMALL |= {"inner_rate": 0.02, "outer_rate": 1e-9}
BENCHMARKS = {"images": "glyphs", "text": "banking77", "vectors": "features", "regression": "harmonic"}
BENCHMARKS |= {"environment": "particles2d"}


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


# A run whose training changes next to nothing, on a few sentences of made-up words.


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("words")
    for name in "abcdefgh":
        lines = [" ".join(rng.choice([f"{name}{i}" for i in range(9)], 4)) for _ in range(6)]
        (root / f"{name}.txt").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "maml"
    Experiment(**SMALL).run(folder, root=root, progress=False)
    return folder


@pytest.mark.parametrize(("metric", "scale", "guess"), [("loss", "log", 0), ("accuracy", "linear", 1)])
def test_a_curve_has_the_axis_of_its_metric(metric, scale, guess, monkeypatch):
    """Losses are on a log axis, accuracies on that of shares, and each part is drawn its own way."""
    drawn = []
    monkeypatch.setattr("jaxmeta.reports._figures.draw_figure", lambda draw, *_: drawn.append(draw) or b"")
    history = [{"step": i, f"train/{metric}": 0.9 / 10**i, f"validation/{metric}": 0.8 / 10**i} for i in range(4)]
    test = {metric: jaxmeta.Summary(0.1, 0.01, 0.1, 1.0, 5)}
    draw_curve(history, metric, test, Experiment().resolve())
    axes = Figure().subplots()
    drawn[0](axes)
    assert axes.get_yscale() == scale
    train, validation, *levels = axes.lines
    assert (train.get_label(), validation.get_label()) == ("training", "validation")
    assert train.get_color() != validation.get_color() and train.get_marker() != validation.get_marker()
    assert len(levels) == 1 + guess  # the test, and the chance level
    np.testing.assert_allclose(np.asarray(validation.get_xydata()), [(i, 0.8 / 10**i) for i in range(4)])


@pytest.mark.parametrize(("lines", "length"), [(3, 5), (6, 20), (14, 24), (3, 120), (60, 90)])
@pytest.mark.filterwarnings("error")
def test_a_plot_has_room_beside_every_legend(lines, length):
    """Matplotlib warns if a layout has no room for the axes."""

    def draw(axes):
        drawn.append(axes)
        for number in range(lines):
            axes.plot([0, 1], [number, number], label=f"{number:x<{length}}")

    drawn: list[Any] = []
    assert draw_figure(draw).startswith(b"\x89PNG")
    assert drawn[0].get_position().width > 0.3


@pytest.mark.slow
def test_steps_end_at_the_test_and_the_start_is_a_floor(run):
    result = json.loads((run / "result.json").read_text())
    assert [step["number"] for step in result["steps"]] == [0, 1, 2]
    assert {name: result["steps"][2][name] for name in result["test"]} == result["test"]
    assert result["steps"][0]["loss"]["mean"] > result["steps"][1]["loss"]["mean"] > result["test"]["loss"]["mean"]
    start = result["floors"]["the same learner before training"]
    np.testing.assert_allclose(start["loss"]["mean"], result["test"]["loss"]["mean"], rtol=1e-4)


@pytest.mark.slow
def test_a_note_about_batch_norm_is_where_there_is_batch_norm(run):
    for name in ("report.md", "report.html"):
        assert "Batch norm uses" not in (run / name).read_text()


@pytest.mark.slow
def test_the_floor_is_the_nearest_mean_of_the_inputs(run, root):
    floors = json.loads((run / "result.json").read_text())["floors"]
    parts: Any = Experiment(**SMALL).build(root)
    keys = jax.vmap(lambda key: jax.random.split(key, 3)[0])(jax.random.split(parts.test_key, SMALL["test_tasks"]))
    support, query = jax.vmap(parts.tasksets.test)(keys)
    distances = ((np.asarray(query.x)[:, :, None] - np.asarray(support.x)[:, None]) ** 2).sum(axis=-1)
    accuracy = (distances.argmin(axis=-1) == query.y).mean()  # one of each class is the support set
    assert floors["nearest class mean of the raw inputs"]["accuracy"]["mean"] == pytest.approx(accuracy)


@pytest.mark.slow
@pytest.mark.parametrize("learner", sorted(name for name, e in LEARNERS.items() if "regression" in kinds_of(e)))
def test_every_learner_has_a_report(learner, tmp_path):
    given = {"iterations": 1, "test_tasks": 3, "validation_tasks": 2, "validate_every": 1, "num_tasks": 2}
    settings = Experiment("sinusoid", learner, **given).run(tmp_path / "run", progress=False).settings
    steps = json.loads((tmp_path / "run" / "result.json").read_text())["steps"]
    steps_at_test = settings.shots if learner == "oml" else settings.get("test_steps", 0)
    expected = [k for k in (0, 1, 2, 3, 5, 10, 20, 50) if k < steps_at_test]
    assert [step["number"] for step in steps][:-1] == expected
    assert check_page(tmp_path / "run" / "report.html").count("predictions of a test task") == 3


@pytest.mark.slow
@pytest.mark.parametrize("learner", sorted(name for name, e in LEARNERS.items() if "regression" in kinds_of(e)))
def test_every_learner_learns_with_its_defaults(learner, tmp_path):
    """A twentieth of the default updates are enough to be better than at the start."""
    Experiment("sinusoid", learner, iterations=1000, test_tasks=200).run(tmp_path / "run", progress=False)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    start = result["floors"]["the same learner before training"]["loss"]["mean"]
    assert result["test"]["loss"]["mean"] < 0.9 * start


# The page.


def check_page(path):
    """One file that needs nothing else."""
    page = path.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://|<script|@import|url\(", re.sub(r'src="[^"]*"', "", page))
    assert 'name="viewport"' in page and page.count("<img") == len(re.findall(r'<img [^>]*alt="[^"]+"', page))
    return page


def test_the_page_has_everything_in_it(run, root):
    page = check_page(run / "report.html")
    assert "<h1>maml on sentences</h1>" in page and "a guess" in page and "<h2>Confusions</h2>" in page
    command = jaxmeta.load_run(run).command
    assert command.startswith("jaxmeta train --benchmark sentences --ways 2 ") and command.endswith(f"--root {root}")
    assert f"<pre>{command}</pre>" in page and f"```bash\n{command}\n```" in (run / "report.md").read_text()
    assert len(re.findall('<tr class="(?:right|wrong)">', page)) == 3 * 4  # three tasks, two queries of two classes
    assert '<td class="flag"><code>--inner-rate</code></td><td>0.02</td>' in page


def test_another_test_writes_a_page_and_predictions_elsewhere(run, root, tmp_path):
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    page, table = tmp_path / "a.html", tmp_path / "a.csv"
    found = jaxmeta.evaluate_run(run, num_tasks=5, root=root, predictions=table, report=page)
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before
    assert "(5 tasks, 95 % interval, chance 50 %)" in check_page(page)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    right = [row["class"] == row["predicted_class"] for row in rows]
    assert len(rows) == 20 and np.mean(right) == pytest.approx(found["accuracy"].mean)
    assert {row["class"] for row in rows} <= set(jaxmeta.load_run(run).record.data["classes"]["test"])
    with pytest.raises(ValueError, match="the ending of predictions must be one of '.csv', '.npz', got '.txt'"):
        jaxmeta.evaluate_run(run, predictions="a.txt")


def test_predictions_as_arrays(tmp_path):
    details = Details(
        jnp.array([[[0.0, 1.0]]]), jnp.array([[1]]), None, jnp.array([[3, 2]]), {"loss": jnp.zeros((1, 2))}
    )
    write_predictions(tmp_path / "a.npz", details, data.Glyphs())
    arrays = np.load(tmp_path / "a.npz")
    assert {name: arrays[name].tolist() for name in arrays} == {
        "outputs": [[[0.0, 1.0]]],
        "y": [[1]],
        "class_ids": [[3, 2]],
        "class_names": [],
    }


# Names as users give them.


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<script>", r"\<script\>"),
        ("a|b", r"a\|b"),
        ("*x*", r"\*x\*"),
        ("_x_ of inner_rate", r"\_x\_ of inner_rate"),
        ("new\nline", r"new\\nline"),
        ("back\\slash `x` [y](z)", r"back\\slash \`x\` \[y\](z)"),
    ],
)
def test_markdown_shows_names_as_they_are(name, shown):
    assert _row(name, 1) == f"| {shown} | 1 |"


def test_figures_show_names_as_they_are():
    """TeX that is none, letters that the font has not, and many lines."""
    names = ("$\\frac{$", "日本", "a\nb")
    assert draw_confusion(Confusion(names, np.eye(3), np.ones((3, 3)))).startswith(b"\x89PNG")


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
