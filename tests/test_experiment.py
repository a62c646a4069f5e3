"""Experiment and the command line: what they build, leave behind and refuse."""

import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import Experiment, RLExperiment, envs
from jaxmeta.__main__ import _GROUPS, _field_docs, main
from jaxmeta.runs._recipes import RECIPES, SPECIFIC, learners_with
from jaxmeta.runs._rl_recipes import POLICY_RECIPES
from jaxmeta.runs._run import Run

LEARNERS = tuple(RECIPES)
TINY: dict[str, Any] = {
    "ways": 2,
    "hidden": 4,
    "steps": 1,
    "test_steps": 2,
    "num_tasks": 2,
    "iterations": 2,
    "validate_every": 1,
    "validation_tasks": 2,
    "test_tasks": 3,
}
IMAGES = {**TINY, "model": "fc"}  # quicker to compile than convolutions
FILES = {"checkpoints", "config.json", "curve.png", "metrics.jsonl", "report.md", "result.json"}


def command(*words, **options):
    """The words of a command, with options as `--name value`."""
    return [*words, *(word for k, v in options.items() for word in ("--" + k.replace("_", "-"), str(v)) if word)]


def values(summaries):
    return {name: summary._asdict() for name, summary in summaries.items()}


# What a run leaves.


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "maml"
    return Experiment(**IMAGES).run(folder, progress=False)


def test_the_folder_says_what_was_run_and_what_came_out(finished):
    folder = finished.folder
    assert {path.name for path in folder.iterdir()} == FILES
    config = json.loads((folder / "config.json").read_text())
    assert Experiment(**config["experiment"]) == Experiment(**IMAGES).resolve() == finished.experiment
    assert config["experiment"] | {"norm": "batch", "inner_rate": 0.4, "shots": 1} == config["experiment"]
    assert config["versions"]["jax"] == jax.__version__
    assert "cpu" in config["device"]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2]
    parts = [f"{part}/{metric}" for part in ("train", "validation") for metric in ("loss", "accuracy")]
    assert set(records[0]) == {"step", "seconds", "tasks_per_second", *parts}
    result = json.loads((folder / "result.json").read_text())
    assert result["test"] == values(finished.test)
    assert result["test"]["accuracy"]["num_tasks"] == 3
    assert result["best_step"] == finished.trained.step
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_is_about_this_run(finished):
    text = (finished.folder / "report.md").read_text()
    accuracy = finished.test["accuracy"]
    assert "# maml on glyphs" in text
    assert f"2-way 1-shot test accuracy {100 * accuracy.mean:.2f} ± {100 * accuracy.interval:.2f} % (3 tasks" in text
    assert "*transductive*" in text
    assert "| inner_rate | 0.4 |" in text


def test_the_same_again_returns_the_same_at_once(finished, monkeypatch):
    monkeypatch.setattr("jaxmeta.training._log.Log.write", lambda *_: pytest.fail("an update was run"))
    again = Experiment(**IMAGES).run(finished.folder, progress=False)
    assert again.test == finished.test
    assert again.trained.history == finished.trained.history


def test_evaluate_repeats_the_test_and_takes_other_settings(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
    assert jaxmeta.evaluate_run(finished.folder) == finished.test
    assert jaxmeta.evaluate_run(finished.folder, test_steps=1)["loss"].mean != finished.test["loss"].mean
    more = jaxmeta.evaluate_run(finished.folder, num_tasks=4, test_queries=2)
    assert more["loss"].num_tasks == 4
    assert main(["evaluate", str(finished.folder)]) == 0
    accuracy = finished.test["accuracy"]
    printed = capsys.readouterr()
    assert f"test accuracy {100 * accuracy.mean:.2f} ± {100 * accuracy.interval:.2f} % (3 tasks" in printed.out
    assert printed.err == ""
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")} == before


def test_evaluate_with_other_ways(finished, tmp_path):
    """The same as a learner for that many ways with the run's parameters."""
    options = {name: value for name, value in TINY.items() if name not in SPECIFIC}
    experiment = Experiment(learner="protonet", model="fc", norm="none", train_ways=3, test_queries=2, **options)
    done = experiment.run(tmp_path / "run", progress=False)
    parts = experiment.build()
    learner = jaxmeta.protonet(partial(parts.model.apply, method="features"), 4)
    test = jax.jit(jaxmeta.evaluate(learner, 3))
    expected = test(done.trained.meta, jaxmeta.data.get_tasksets("glyphs", 4, 1, 2).test, parts.test_key)
    assert jaxmeta.evaluate_run(done.folder, ways=4) == jaxmeta.summarize(expected)
    with pytest.raises(
        ValueError, match="ways of maml cannot be changed after training, got 4; only those of protonet, "
    ):
        jaxmeta.evaluate_run(finished.folder, ways=4)


# What an experiment is made of.


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize(
    ("benchmark", "kind", "what"), [("glyphs", "images", "classification"), ("sinusoid", "regression", "regression")]
)
def test_every_learner_fits_every_benchmark(learner, benchmark, kind, what):
    if getattr(RECIPES[learner], kind) is None:
        with pytest.raises(ValueError, match=f"learner must be one for {what} .*, got '{learner}'"):
            Experiment(benchmark, learner).build()
        return
    parts = Experiment(benchmark, learner).build()
    task = jax.eval_shape(parts.tasksets.train, parts.train_key)
    metrics, grads = jax.eval_shape(parts.learner.grad, parts.meta, task, parts.train_key)
    assert ("accuracy" in metrics) == (benchmark == "glyphs")
    assert jax.tree.map(np.shape, grads) == jax.tree.map(np.shape, parts.meta)


@pytest.mark.parametrize("model", ["cnn", "cnn4", "fc"])
def test_every_model_takes_a_context(model):
    parts = Experiment(learner="cavia", model=model, hidden=4, context_size=3).build()
    assert any(3 in np.shape(p) or 3 + 784 in np.shape(p) for p in jax.tree.leaves(parts.meta.params))
    _, grads = jax.eval_shape(
        parts.learner.grad, parts.meta, jax.eval_shape(parts.tasksets.train, parts.train_key), parts.train_key
    )
    assert jax.tree.structure(grads) == jax.tree.structure(parts.meta)


RUNS = [("glyphs", learner) for learner, recipe in RECIPES.items() if recipe.images is not None]
RUNS += [("sinusoid", learner) for learner in ("maml", "cavia", "in-context", "conditional-neural-process")]
QUICK = ("maml", "conditional-neural-process")


@pytest.mark.parametrize(
    ("benchmark", "learner"), [pytest.param(*run, marks=() if run[1] in QUICK else pytest.mark.slow) for run in RUNS]
)
def test_learners_run_from_the_command_line(learner, benchmark, tmp_path, capsys):
    norm = {} if learner == "maml" else {"norm": "none"}  # that one is compiled already
    model = {"model": "fc", **norm} if benchmark == "glyphs" else {}
    options = {k: v for k, v in TINY.items() if k not in SPECIFIC or learner in learners_with(k)}
    arguments = command("train", benchmark=benchmark, learner=learner, folder=tmp_path / "run", **options, **model)
    assert main(arguments) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert f"{learner} on {benchmark}" in out
    assert f"report: {tmp_path / 'run' / 'report.md'}" in out
    test = json.loads((tmp_path / "run" / "result.json").read_text())["test"]
    assert test["loss"]["finite"] == 1.0
    assert ("accuracy" in test) == (benchmark == "glyphs")


@pytest.mark.parametrize(("model", "norm"), [("cnn", "batch"), ("cnn4", "layer"), ("fc", "group")])
def test_models(model, norm):
    parts = Experiment(model=model, norm=norm, ways=3, hidden=4).build()
    task = jax.eval_shape(parts.tasksets.test, parts.test_key)
    assert jax.eval_shape(parts.model.apply, parts.meta.params, task.query.x).shape == (3, 3)


def test_bfloat16_is_what_the_model_computes_in_and_nothing_else():
    parts = Experiment(dtype="bfloat16", ways=2, hidden=4).build()
    assert {leaf.dtype for leaf in jax.tree.leaves(parts.meta)} == {np.dtype("float32")}
    task = jax.eval_shape(parts.tasksets.test, parts.test_key)
    assert jax.eval_shape(parts.model.apply, parts.meta.params, task.query.x).dtype == "bfloat16"
    metrics, grads = jax.eval_shape(parts.learner.grad, parts.meta, task, parts.test_key)
    assert {leaf.dtype for leaf in jax.tree.leaves((metrics, grads))} == {np.dtype("float32")}


def test_bfloat16_gives_nearly_the_same_gradient():
    def gradient(dtype):
        parts = Experiment("sinusoid", dtype=dtype).build()
        task = parts.tasksets.train(parts.train_key)
        return parts.learner.grad(parts.meta, task, parts.test_key)[1].params["params"]

    exact, rounded = gradient("float32"), gradient("bfloat16")
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(rounded), strict=True):
        assert 0 < np.linalg.norm(a - b) < 0.05 * np.linalg.norm(a)


QUICK_IN_BFLOAT16 = ("meta-kfo", "imaml", "r2d2", "lr-d2", "metaoptnet", "matching-network")


@pytest.mark.parametrize(
    "learner",
    [
        pytest.param(name, marks=() if name in QUICK_IN_BFLOAT16 else pytest.mark.slow)
        for name, recipe in RECIPES.items()
        if recipe.images is not None
    ],
)
def test_every_learner_computes_in_bfloat16(learner):
    """A Cholesky factor and a solver of programs have no bfloat16: the features that they get are float32."""
    parts = Experiment(learner=learner, dtype="bfloat16", model="fc").build()
    task = jax.eval_shape(parts.tasksets.train, parts.train_key)
    metrics, _ = jax.eval_shape(parts.learner.grad, parts.meta, task, parts.train_key)
    assert {leaf.dtype for leaf in jax.tree.leaves(metrics)} == {np.dtype("float32")}


def test_remat_is_asked_for():
    """What it saves is measured in tests/test_meta_gradients.py."""

    def recomputed(remat):
        parts = Experiment("sinusoid", steps=2, remat=remat).build()
        task = jax.eval_shape(parts.tasksets.train, parts.train_key)
        return "remat" in str(jax.make_jaxpr(parts.learner.grad)(parts.meta, task, parts.train_key))

    assert (recomputed(False), recomputed(True)) == (False, True)


def test_clip_bounds_the_gradient_that_the_outer_optimizer_sees():
    parts = Experiment("sinusoid", learner="reptile", outer_rate=1.0, outer_schedule="constant", clip=1e-3).build()
    grads = jax.tree.map(np.ones_like, parts.meta)
    updates, _ = parts.optimizer.update(grads, parts.optimizer.init(parts.meta), parts.meta)
    np.testing.assert_allclose(optax.tree.norm(updates), 1e-3, rtol=1e-5)


def test_everything_follows_from_the_seed():
    def build(seed):
        parts = Experiment("sinusoid", seed=seed).build()
        return [np.asarray(x) for x in (*jax.tree.leaves(parts.meta), jax.random.key_data(parts.train_key))]

    first, same, other = build(0), build(0), build(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True) if a.any())


MAML_5 = {"steps": 1, "test_steps": 3, "inner_rate": 0.4, "outer_rate": 1e-3, "num_tasks": 32}
MAML_20 = {"steps": 5, "test_steps": 5, "inner_rate": 0.1, "outer_rate": 1e-3, "num_tasks": 16}
REPTILE = {"num_tasks": 5, "outer_rate": 1.0, "outer_schedule": "linear", "train_shots": 10, "test_steps": 50}
PUBLISHED = [  # as the papers and their code have it
    ("maml", 5, MAML_5),
    ("maml", 20, MAML_20),
    ("fomaml", 5, MAML_5),
    ("fomaml", 20, MAML_20),
    ("anil", 20, MAML_20),
    ("meta-sgd", 5, {"steps": 1, "num_tasks": 32, "outer_rate": 1e-3}),
    ("meta-curvature", 20, {"steps": 1, "inner_rate": 0.4}),
    ("maml-plus-plus", 20, {"steps": 5, "test_steps": 5, "inner_rate": 0.1, "outer_schedule": "cosine"}),
    ("protonet", 20, {"train_ways": 60, "queries": 5, "test_queries": 15, "num_tasks": 1}),
    ("imaml", 20, {"steps": 25, "inner_rate": 0.1, "proximal": 2.0, "outer_rate": 1e-3}),
    ("reptile", 5, {**REPTILE, "steps": 5, "inner_rate": 1e-3, "inner_batch": 10, "test_inner_batch": 5}),
    ("reptile", 20, {**REPTILE, "steps": 10, "inner_rate": 5e-4, "inner_batch": 20, "test_inner_batch": 10}),
]


@pytest.mark.parametrize(("learner", "ways", "expected"), PUBLISHED)
def test_what_is_left_open_takes_the_published_value(learner, ways, expected):
    resolved = dataclasses.asdict(Experiment(learner=learner, ways=ways).resolve())
    assert resolved | expected == resolved
    given = Experiment(learner=learner, ways=ways, outer_rate=0.7, num_tasks=9).resolve()
    assert (given.outer_rate, given.num_tasks) == (0.7, 9)
    assert given.resolve() == given


def test_sinusoids_take_the_published_values_of_sinusoids():
    resolved = dataclasses.asdict(Experiment("sinusoid").resolve())
    expected = {"shots": 10, "queries": 10, "steps": 1, "inner_rate": 1e-3, "num_tasks": 25, "model": "mlp"}
    assert resolved | expected == resolved


def test_folders_are_named_after_what_is_run():
    assert str(Experiment(ways=20, shots=5).default_folder()) == "runs/glyphs-maml-20way-5shot-seed0"
    assert str(Experiment("sinusoid", seed=3).default_folder()) == "runs/sinusoid-maml-10shot-seed3"


# What is refused: one line on stderr, a status other than 0, nothing left behind.


def refused(arguments, capsys):
    try:
        status = main([str(word) for word in arguments])
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr().err
    assert status not in (0, None)
    *before, line, end = printed.split("\n")
    assert line.startswith("jaxmeta") and not end
    assert all(text == "" or text.startswith("\r") for text in before), printed  # progress
    return line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"benchmark": "imagenet"}, "benchmark must be one of banking77, cifar-fs"),
        ({"learner": "mamal"}, "learner must be one of maml, fomaml"),
        ({"ways": "many"}, "argument --ways: invalid int value: 'many'"),
        ({"wasy": 5}, "unrecognized arguments: --wasy 5"),
        ({"ways": 0}, "ways must be an integer of at least 1, got 0"),
        ({"train-shots": 0}, "train_shots must be an integer of at least 1"),
        ({"test-tasks": 0}, "test_tasks must be an integer of at least 1"),
        ({"batch-size": 0}, "batch_size must be an integer of at least 1"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"inner-rate": -0.1}, "inner_rate must be a positive number, got -0.1"),
        ({"outer-rate": "nan"}, "outer_rate must be a positive number, got nan"),
        ({"model": "mlp"}, "model must be cnn, cnn4 or fc for glyphs, got 'mlp'"),
        ({"benchmark": "sinusoid", "model": "fc"}, "model must be mlp for sinusoid, got 'fc'"),
        ({"inner-batch": 5}, "inner_batch does not apply to maml, only to reptile"),
        ({"learner": "fomaml", "meta-gradient": "mixed"}, "meta_gradient does not apply to fomaml"),
        ({"context-size": 5}, "context_size does not apply to maml, only to cavia"),
        ({"proximal": 5}, "proximal does not apply to maml, only to imaml"),
        ({"learner": "protonet", "steps": 5}, "steps does not apply to protonet, only to maml, fomaml"),
        ({"learner": "fomaml", "remat": ""}, "remat does not apply to fomaml, only to maml"),
        ({"meta-gradient": "first-order", "remat": ""}, "remat does not apply to meta_gradient='first-order'"),
        ({"clip": 0}, "clip must be a positive number, got 0"),
        ({"train-ways": 5}, "train_ways does not apply to maml, only to protonet"),
        ({"horizon": 5}, "horizon does not apply to glyphs, got 5"),
        ({"benchmark": "particles2d", "shots": 5}, "shots does not apply to particles2d, got 5"),
        ({"benchmark": "particles2d", "learner": "maml"}, "learner must be one of maml-trpo, promp"),
        ({"benchmark": "particles2d", "learner": "rl2", "steps": 2}, "steps does not apply to rl2, only to maml-trpo"),
        ({"benchmark": "particles2d", "learner": "maml-trpo", "clip": 1.0}, "clip does not apply to maml-trpo"),
        ({"benchmark": "particles2d", "variant": "mine"}, "variant must be one of 'l2l', 'promp'"),
        ({"benchmark": "bandit-bernoulli", "backend": "mjx"}, "'bandit-bernoulli' has no option 'backend'"),
        (
            {"benchmark": "cartpole", "learner": "pearl"},
            "pearl needs continuous actions, those of cartpole are discrete",
        ),
        ({"benchmark": "particles2d", "root": "data"}, "root and download do not apply to particles2d"),
        ({"split": "vinyals"}, "split does not apply to 'glyphs'"),
    ],
)
def test_wrong_options_are_named(options, message, tmp_path, capsys):
    assert message in refused(command("train", folder=tmp_path / "run", **options), capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [[], ["trian"], ["evaluate"], ["train", "extra"]])
def test_wrong_commands(words, capsys):
    assert "--help" in refused(words, capsys)


def test_impossible_tasks(tmp_path, capsys, shared_data, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))
    for options, message in (
        ({"ways": 5000}, "ways must be at most the number of classes"),
        ({"ways": 1000}, "validation tasks of 'omniglot': ways must be at most the number of classes"),
        ({"shots": 10, "queries": 11}, "shots + queries must be at most the size of the smallest class, got 10 + 11"),
        ({"split": "mine"}, "split must be one of 'vinyals', 'background', 'random', got 'mine'"),
    ):
        words = command("train", benchmark="omniglot", root=shared_data, folder=tmp_path / "run", **options)
        assert message in refused(words, capsys)
        assert not (tmp_path / "run").exists()


def test_missing_and_damaged_data(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    root.mkdir()
    words = command("train", benchmark="omniglot", root=root, folder=tmp_path / "run")
    assert "no images_background.zip" in refused(words, capsys)
    for name in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(root / f"{name}.zip", "w") as archive:
            archive.writestr(f"{name}/Latin/character01/0001_01.png", b"no png")
    assert "images_background" in refused(words, capsys)
    (root / "images_evaluation.zip").write_bytes(b"PK\x03\x04 no zip")
    assert "images_evaluation.zip is not a readable zip" in refused(words, capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def test_divergence_is_one_line_and_evaluate_without_a_checkpoint_another(tmp_path, capsys):
    folder = tmp_path / "run"
    words = command("train", benchmark="sinusoid", folder=folder, **(TINY | {"iterations": 4}), inner_rate=1e30)
    assert "became NaN or infinite at update 1" in refused(words, capsys)
    assert "no checkpoint in" in refused(["evaluate", folder], capsys)
    assert "no config.json" in refused(["evaluate", tmp_path], capsys)
    assert "no config.json" in refused(["evaluate", tmp_path / "nowhere"], capsys)
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_of_something_else_is_left_alone(finished, tmp_path, capsys):
    before = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    words = command("train", folder=finished.folder, **(IMAGES | {"num_tasks": 3}))
    assert "holds another run (num_tasks was 2, now 3)" in refused(words, capsys)
    assert {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()} == before
    for name, text, message in (
        ("config.json", "{}", "config.json does not describe a run"),
        ("config.json", '{"experiment": {"warp": 9}}', "config.json does not describe a run"),
        ("report.md", "mine", "holds report.md of something else"),
    ):
        (tmp_path / name).write_text(text)
        assert message in refused(command("train", benchmark="sinusoid", folder=tmp_path, **TINY), capsys)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: text}
        (tmp_path / name).unlink()
    (tmp_path / "file").touch()
    assert "is a file" in refused(command("train", benchmark="sinusoid", folder=tmp_path / "file", **TINY), capsys)


def test_a_damaged_checkpoint_is_one_line(finished, tmp_path, capsys):
    import shutil

    folder = shutil.copytree(finished.folder, tmp_path / "copy")
    (folder / "checkpoints" / "2" / "default" / "_METADATA").write_bytes(b"")
    assert "checkpoints/2 is damaged" in refused(["evaluate", folder], capsys)
    assert "checkpoints/2 is damaged" in refused(command("train", folder=folder, **IMAGES), capsys)


def test_stopping_by_hand(tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "run", stop)
    assert "run the same command again" in refused(command("train", folder=tmp_path / "run"), capsys)


# What a newcomer reads.


@pytest.mark.parametrize("words", [[], ["train"], ["evaluate"], ["list"]])
def test_help(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "None" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_every_option_is_shown_and_explained(capsys):
    fields = {field.name for run in (Experiment, RLExperiment) for field in dataclasses.fields(run)}
    shown = [name for names in _GROUPS.values() for name in names]
    assert sorted(shown) == sorted(fields)
    assert {name for run in (Run, Experiment, RLExperiment) for name in _field_docs(run)} == fields


def test_list_as_a_program():
    done = subprocess.run([sys.executable, "-m", "jaxmeta", "list"], capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    names = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    in_environments = {*envs.list_envs(), *POLICY_RECIPES}
    assert names == {*jaxmeta.data.list_tasksets(), *LEARNERS, *in_environments, "cnn", "cnn4", "fc", "mlp"}
