# pyright: reportArgumentType=false
"""Experiment and the command line: what they build, leave behind and refuse."""

import io
import json
import os
import re
import shutil
import signal
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
from jaxmeta import Experiment, data, envs, models, register
from jaxmeta import __main__ as command_line
from jaxmeta.__main__ import main
from jaxmeta.catalog import KINDS, LEARNERS, META_GRADIENTS, MODELS, kinds_of, learners_for
from jaxmeta.data._benchmarks import BENCHMARKS as BENCHMARKS_BY_NAME
from jaxmeta.runs import OPTIONS, describe
from jaxmeta.runs._task_run import network_of
from jaxmeta.training import read_records

CONFIG: Any = jax.config
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
# Quicker to compile than convolutions.
IMAGES: dict[str, Any] = {k: v for k, v in TINY.items() if k != "hidden"} | {"model": "fc"}
OF_BENCHMARKS = ("split", "split_seed", "test_rotations", "size", "channels", "invert", "augment", "per_class")
OF_BENCHMARKS += ("min_per_class", "base_classes", "variant", "horizon", "backend")
FILES = {
    "checkpoints",
    "config.json",
    "curve.png",
    "meta.msgpack",
    "metrics.jsonl",
    "report.html",
    "report.md",
    "result.json",
    "training.json",
}


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
    assert config["settings"] == dict(Experiment(**IMAGES).resolve()) == dict(finished.settings)
    assert config["settings"] | {"norm": "batch", "inner_rate": 0.4, "shots": 1} == config["settings"]
    assert None not in config["settings"].values()
    assert config["versions"]["jax"] == jax.__version__
    assert "cpu" in config["device"]
    records = read_records(folder)
    assert [record["step"] for record in records] == [0, 1, 2]
    parts = [f"{part}/{metric}" for part in ("train", "validation") for metric in ("loss", "accuracy")]
    assert set(records[1]) == {"step", "seconds", "tasks_per_second", *parts}
    result = json.loads((folder / "result.json").read_text())
    assert result["test"] == values(finished.test)
    assert result["test"]["accuracy"]["num_tasks"] == 3
    assert result["best_step"] == finished.trained.step
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_is_about_this_run(finished):
    text = (finished.folder / "report.md").read_text()
    accuracy = finished.test["accuracy"]
    assert "# maml on glyphs" in text
    shown = f"2-way 1-shot test accuracy {100 * accuracy.mean:.2f} ± {100 * accuracy.interval:.2f} %"
    assert f"{shown} (3 tasks, 95 % interval, chance 50 %)" in text
    assert "*transductive*" in text
    assert "| inner_rate | 0.4 |" in text
    page = (finished.folder / "report.html").read_text()
    assert page.count('class="tile"') == 3 * (2 + 2)  # the pictures of three tasks of two classes


@pytest.mark.slow
def test_the_same_again_returns_the_same_at_once(finished, monkeypatch):
    monkeypatch.setattr("jaxmeta.training._log.Log.write", lambda *_: pytest.fail("an update was run"))
    again = Experiment(**IMAGES).run(finished.folder, progress=False)
    assert again.test == finished.test
    assert again.trained.history == finished.trained.history


@pytest.mark.slow
def test_a_run_that_uses_its_time_up_says_so_and_goes_on_without_a_limit(tmp_path, capsys):
    words = command("train", folder=tmp_path, benchmark="sinusoid", num_tasks=2, **QUICK)
    assert main([*words, "--minutes", "1e-9"]) == 0
    assert "\n1 of 2 updates in 0." in (printed := capsys.readouterr().out)
    assert ", which used its time up\n" in printed
    report = (tmp_path / "report.md").read_text()
    assert "The run did 1 of 2 updates in 0." in report and ", which used its time up. " in report
    assert json.loads((tmp_path / "result.json").read_text())["updates"] == 1
    assert main(words) == 0
    assert "\n2 of 2 updates in 0." in (printed := capsys.readouterr().out)
    assert "time up" not in printed


@pytest.fixture
def cache_options():
    """Restores JAX's options of its compilation cache."""
    names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
    before = {name: getattr(CONFIG, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("cache_options")
@pytest.mark.parametrize(
    ("cache", "options", "kept"),
    [
        ("cache", {}, "cache/programs"),
        ("cache", {"jax_compilation_cache_dir": "chosen"}, "chosen"),
        ("cache", {"jax_enable_compilation_cache": False}, None),
        ("file/cache", {}, None),  # cannot be written
        ("~nobody-of-this-name/cache", {}, None),  # has no home
    ],
)
def test_compiled_programs_are_kept_where_they_can_be(cache, options, kept, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXMETA_CACHE", cache)
    for name, value in {"jax_compilation_cache_dir": None, **options}.items():
        jax.config.update(name, value)
    assert "is not the folder of a run" in refused(["evaluate", "missing"], capsys)
    expected = str(tmp_path / kept) if kept == "cache/programs" else kept
    assert CONFIG.jax_compilation_cache_dir == expected
    assert (tmp_path / "cache" / "programs").is_dir() == (kept == "cache/programs")


@pytest.mark.slow
def test_evaluate_repeats_the_test_and_takes_other_settings(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
    assert jaxmeta.evaluate_run(finished.folder) == finished.test
    losses = [jaxmeta.evaluate_run(finished.folder, test_steps=n)["loss"].mean for n in (0, 1)]  # 0: before adaptation
    assert len({*losses, finished.test["loss"].mean}) == 3
    more = jaxmeta.evaluate_run(finished.folder, num_tasks=4, test_queries=2)
    assert more["loss"].num_tasks == 4
    assert main(["evaluate", str(finished.folder)]) == 0
    accuracy = finished.test["accuracy"]
    printed = capsys.readouterr()
    assert f"test accuracy {100 * accuracy.mean:.2f} ± {100 * accuracy.interval:.2f} % (3 tasks" in printed.out
    assert printed.err == ""
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")} == before


@pytest.mark.slow
def test_evaluate_with_other_ways(finished, tmp_path):
    """The same as a learner for that many ways with the run's parameters."""
    options = {name: value for name, value in TINY.items() if name not in ("steps", "test_steps", "hidden")}
    experiment = Experiment(learner="protonet", model="fc", norm="none", train_ways=3, test_queries=2, **options)
    done = experiment.run(tmp_path / "run", progress=False)
    parts: Any = experiment.build()
    learner = jaxmeta.protonet(partial(parts.model.apply, method="features"), 4)
    test = jax.jit(jaxmeta.evaluate(learner, 3))
    expected = test(done.trained.meta, jaxmeta.data.get_tasksets("glyphs", 4, 1, 2).test, parts.test_key)
    assert jaxmeta.evaluate_run(done.folder, ways=4) == jaxmeta.summarize(expected)
    with pytest.raises(ValueError, match="ways of maml cannot be changed after training, got 4. Only those of "):
        jaxmeta.evaluate_run(finished.folder, ways=4)


# What an experiment is made of.

BENCHMARKS = {"images": "glyphs", "text": "clinc150", "regression": "sinusoid", "environment": "tabular"}
QUICK = {"validate_every": 1, "validation_tasks": 2, "test_tasks": 2, "iterations": 2}


def tiny(learner, kind):
    """The options of a run that is small and that the learner has."""
    entry = LEARNERS[learner]
    options = dict(QUICK)
    if kind == "images":
        options |= {"ways": 2, **({"hidden": 4} if learner == "tnet" else {"model": "fc"})}
        options |= {"base_classes": 5} if entry.trains_on in ("classes", "features") else {"num_tasks": 2}
    if kind == "environment":
        options |= {"horizon": 4, "episodes": 2, "hidden": 4, "num_tasks": 2}
    return options | ({"pretraining": 2} if learner == "leo" else {})


def built(*options, **more):
    """The shapes of an experiment's meta-parameters, and of metrics and meta-gradient of its training."""

    def build():
        parts: Any = Experiment(*options, **more).build()
        return parts.meta, *parts.learner.grad(parts.meta, parts.tasksets.train(parts.train_key), parts.train_key)

    return jax.eval_shape(build)


@pytest.mark.parametrize(
    ("learner", "kind"), [(n, k) for n, e in LEARNERS.items() for k in kinds_of(e) if k not in ("text", "vectors")]
)
@pytest.mark.quick("maml-images", "maml-regression", "protonet-*", "promp-*", "oml-*", "baseline-images")
def test_every_learner_builds_on_every_kind_of_benchmark(learner, kind):
    """A meta-gradient has the shapes of the meta-parameters, and metrics are float32 also for models in bfloat16."""
    if kind == "environment":
        check_policy("particles2d", learner)
        return
    half = {} if "pre" in LEARNERS[learner].trains_on else {"dtype": "bfloat16"}
    meta, metrics, grads = built(BENCHMARKS[kind], learner, **tiny(learner, kind), **half)
    assert ("accuracy" in metrics) == (kind == "images")
    assert jax.tree.map(np.shape, grads) == jax.tree.map(np.shape, meta)
    assert {leaf.dtype for leaf in jax.tree.leaves(metrics)} == {np.dtype("float32")}


def check_policy(benchmark, learner):
    def build():
        parts: Any = Experiment(benchmark, learner, horizon=4, episodes=2, hidden=4, num_tasks=2, test_tasks=3).build()
        agent = parts.agent_on(None)
        state = agent.training.init(parts.meta.params)
        tasks = parts.env.sample_tasks(parts.test_key, 3, split="test")
        test = agent.test(parts.meta, tasks, parts.test_key)
        return state, *agent.training.step(state, parts.train_key), test

    state, new, metrics, test = jax.eval_shape(build)
    assert jax.tree.map(np.shape, new) == jax.tree.map(np.shape, state)
    assert "loss" in metrics
    assert test.sampled.shape == test.mode.shape == (3, *test.episodes.shape)


@pytest.mark.parametrize("learner", learners_for("environment"))
@pytest.mark.quick("rl2", "pearl")
def test_learners_of_environments_with_discrete_actions(learner):
    if learner == "pearl":
        with pytest.raises(ValueError, match="pearl needs continuous actions, and those of tabular are discrete"):
            Experiment("tabular", "pearl").build()
        return
    check_policy("tabular", learner)


@pytest.mark.parametrize("learner", ["maml", "cavia", "protonet", "in-context", "baseline-plus-plus", "leo"])
@pytest.mark.quick("protonet")
def test_text_learners_build(learner, monkeypatch):
    """With the sizes of a benchmark of sentences."""
    sampler = data.FewShot.from_classes(np.zeros((9, 30, 12), np.float32), ways=2, shots=1, queries=2)
    monkeypatch.setattr(data, "get_tasksets", lambda *_, **__: data.BenchmarkTasksets(sampler, sampler, sampler))
    options = {"minibatch": 4} if LEARNERS[learner].trains_on in ("classes", "features") else {}
    assert "accuracy" in built("clinc150", learner, hidden=3, ways=2, **options)[1]


RUNS = [("glyphs", "simpleshot"), ("tabular", "rl2")]
RUNS += [("sinusoid", "maml"), ("sinusoid", "conditional-neural-process")]
ALL_RUNS = [(BENCHMARKS[k], n) for n, e in LEARNERS.items() for k in kinds_of(e) if k in ("images", "regression")]
ALL_RUNS += [("particles2d", name) for name in learners_for("environment")]


@pytest.mark.parametrize(
    ("benchmark", "learner"),
    [pytest.param(*run, marks=() if run in RUNS else pytest.mark.slow) for run in dict.fromkeys(RUNS + ALL_RUNS)],
)
@pytest.mark.quick("sinusoid-maml")
def test_learners_run_from_the_command_line(learner, benchmark, tmp_path, capsys):
    kind = next(k for k in kinds_of(LEARNERS[learner]) if benchmark in ("particles2d", BENCHMARKS.get(k)))
    words = command("train", benchmark=benchmark, learner=learner, folder=tmp_path / "run", **tiny(learner, kind))
    assert main(words) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert f"{learner} on {benchmark}" in out
    assert f"report: {tmp_path / 'run' / 'report.html'}" in out
    test = json.loads((tmp_path / "run" / "result.json").read_text())["test"]
    assert {name for name, summary in test.items() if summary["finite"] < 1.0} == set()
    assert jaxmeta.evaluate_run(tmp_path / "run") == {n: jaxmeta.Summary(**summary) for n, summary in test.items()}


@pytest.mark.parametrize("model", ["cnn", "cnn4", "fc"])
@pytest.mark.quick("fc")
def test_models_take_a_context(model):
    width = {} if model == "fc" else {"hidden": 4}
    meta, _, _ = built(learner="cavia", model=model, context_size=3, **width)
    assert any(3 in p.shape or 3 + 784 in p.shape for p in jax.tree.leaves(meta.params))


@pytest.mark.parametrize("model", [name for name, entry in MODELS.items() if "images" in entry.kinds])
@pytest.mark.parametrize("shape", [(28, 28, 1), (84, 84, 3)], ids=str)
@pytest.mark.quick("*-fc", "*-cnn4", "*-resnet12")
def test_every_model_classifies_images(model, shape):
    """A new model needs no test of its own here."""
    from jaxmeta.catalog import build_network

    settings = Experiment(learner="protonet", model=model).resolve()
    network = build_network(settings, 7)
    x = jax.ShapeDtypeStruct((3, *shape), np.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), x)
    assert jax.eval_shape(network.apply, params, x).shape == (3, 7)
    assert jax.eval_shape(partial(network.apply, method="features"), params, x).ndim == 2


@pytest.mark.slow
def test_bfloat16_is_what_the_model_computes_in_and_nothing_else():
    parts: Any = Experiment(dtype="bfloat16", ways=2, hidden=4).build()
    assert {leaf.dtype for leaf in jax.tree.leaves(parts.meta)} == {np.dtype("float32")}
    task = jax.eval_shape(parts.tasksets.test, parts.test_key)
    assert jax.eval_shape(parts.model.apply, parts.meta.params, task.query.x).dtype == "bfloat16"


@pytest.fixture
def precisions(monkeypatch):
    """The precisions for which matrix products are traced."""
    found, product = set(), jax.lax.dot_general

    def spy(*args, **more):
        found.add(CONFIG.jax_default_matmul_precision)
        return product(*args, **more)

    monkeypatch.setattr(jax.lax, "dot_general", spy)
    return found


@pytest.mark.parametrize(
    ("options", "module", "asked"),
    [
        ({"benchmark": "sinusoid"}, "task", "high"),  # what the program of the user has set
        ({"benchmark": "sinusoid", "precision": "highest"}, "task", "highest"),
        ({"benchmark": "tabular", "horizon": 2, "hidden": 4, "precision": "bfloat16"}, "policy", "bfloat16"),
        ({"learner": "baseline", "model": "fc", "precision": "tensorfloat32"}, "pretrained", "tensorfloat32"),
    ],
)
@pytest.mark.quick("options1-*")
def test_updates_are_compiled_with_the_precision_of_the_run(options, module, asked, precisions, monkeypatch):
    monkeypatch.setattr(f"jaxmeta.runs._{module}_run.cost", jax.eval_shape)
    more = {"base_classes": 5} if module == "pretrained" else {"num_tasks": 2}
    parts = Experiment(**more, **options).build()
    precisions.clear()
    with jax.default_matmul_precision("high"):
        parts.estimate()
    assert precisions == {asked}


@pytest.mark.slow
def test_training_and_test_have_the_precision_of_the_run(tmp_path, precisions):
    parts = Experiment("sinusoid", num_tasks=2, precision="highest", **QUICK).build()
    precisions.clear()
    trained = parts.train(tmp_path, None, None, False, [])
    assert precisions == {"highest"}
    precisions.clear()
    parts.test([trained.meta])
    assert precisions == {"highest"}


def test_dropout_acts_in_meta_training_only():
    settings = Experiment(learner="protonet", model="r2d2-cnn", drop_rate=0.5).resolve()
    model = models.R2D2CNN(ways=2, sizes=(2, 2), drop_rate=settings.drop_rate)
    network = network_of(settings, model)
    assert network.train_features is not None
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    params = jax.jit(model.init)(jax.random.key(1), x)
    kept = jax.jit(network.method("features"))(params, x)
    dropped = [jax.jit(network.train_features)(params, x, jax.random.key(i)) for i in range(2)]
    assert (np.asarray(dropped[0]) != np.asarray(dropped[1])).any()
    assert (np.asarray(kept) != np.asarray(dropped[0])).any()
    assert network_of(Experiment().resolve(), model).train_features is None


@pytest.mark.parametrize("name", META_GRADIENTS)
def test_meta_gradients_by_name_with_their_options(name):
    options = {k: v for k, v in META_GRADIENTS[name].options.items() if not isinstance(v, bool)}
    meta, _, grads = built("sinusoid", steps=2, meta_gradient=name.replace("-", "_"), **options)
    assert jax.tree.structure(grads) == jax.tree.structure(meta)


def test_clip_bounds_the_gradient_that_the_outer_optimizer_sees():
    parts: Any = Experiment("sinusoid", learner="reptile", outer_rate=1.0, outer_schedule="constant", clip=1e-3).build()
    grads = jax.tree.map(np.ones_like, parts.meta)
    updates, _ = parts.optimizer.update(grads, parts.optimizer.init(parts.meta), parts.meta)
    np.testing.assert_allclose(optax.tree.norm(updates), 1e-3, rtol=1e-5)


def test_everything_follows_from_the_seed():
    def build(seed):
        parts: Any = Experiment("sinusoid", seed=seed).build()
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
    resolved = dict(Experiment(learner=learner, ways=ways).resolve())
    assert resolved | expected == resolved
    given = Experiment(learner=learner, ways=ways, outer_rate=0.7, num_tasks=9).resolve()
    assert (given.outer_rate, given.num_tasks) == (0.7, 9)
    assert dict(Experiment(**given).resolve()) == dict(given)


def test_sinusoids_take_the_published_values_of_sinusoids():
    resolved = dict(Experiment("sinusoid").resolve())
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
    assert all(re.match("Reading|Compiling|Training|Testing", text) for text in before), printed  # progress
    return line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"benchmark": "imagenet"}, "benchmark must be one of 'banking77', 'cifar-fs'"),
        ({"benchmark": "partcles2d"}, "Did you mean 'particles2d'?"),
        ({"benchmark": "mini_imagenett"}, "Did you mean 'mini-imagenet' or"),
        ({"learner": "mamal"}, "learner of glyphs (images) must be one of 'maml', 'fomaml'"),
        ({"learner": "prototypical"}, "learner of glyphs (images) must be one of"),
        ({"learner": "rl2"}, "got 'rl2', which is a learner for environments"),
        ({"learner": "conditional-neural-process"}, "which is a learner for regression"),
        ({"learner": "sinusoid"}, "got 'sinusoid', which is a benchmark"),
        ({"ways": "many"}, "argument --ways: invalid int value: 'many'"),
        ({"wasy": 5}, "unrecognized arguments: --wasy 5. Did you mean --ways?"),
        ({"epochs": 10}, "unrecognized arguments: --epochs 10. Did you mean --iterations?"),
        ({"inner-lr": 1}, "Did you mean --inner-rate?"),
        ({"ways": 1}, "ways must be an integer of at least 2, got 1"),
        ({"train-shots": 0}, "train_shots must be an integer of at least 1"),
        ({"test-tasks": 0}, "test_tasks must be an integer of at least 1"),
        ({"batch-size": -1}, "batch_size must be an integer of at least 0"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"inner-rate": -0.1}, "inner_rate must be a positive number, got -0.1"),
        ({"outer-rate": "nan"}, "outer_rate must be a positive number, got nan"),
        ({"clip": -1}, "clip must be a number of at least 0, got -1"),
        ({"norm": "instance"}, "norm must be one of 'batch', 'group', 'layer', 'none', got 'instance'"),
        ({"model": "mlp"}, "model of maml must be one of 'cnn', 'cnn4', 'fc'"),
        ({"model": "resnet"}, "Did you mean 'resnet12'?"),
        ({"learner": "cavia", "model": "vit"}, "model of cavia must be one of 'cnn', 'cnn4', 'fc', 'mlp'"),
        ({"model": "fc", "hidden": 3}, "hidden does not apply to model fc, only to cnn, cnn4"),
        ({"model": "vit", "norm": "batch"}, "norm does not apply to model vit"),
        ({"model": "resnet12", "drop-rate": 0.1}, "drop_rate does not apply to maml, only to protonet"),
        ({"benchmark": "sinusoid", "model": "fc"}, "model of maml must be one of 'mlp', got 'fc'"),
        ({"benchmark": "sinusoid", "ways": 3}, "ways does not apply to maml on sinusoid (regression); got 3"),
        ({"benchmark": "sinusoid", "norm": "group"}, "norm does not apply to maml on sinusoid (regression)"),
        ({"inner-batch": 5}, "inner_batch does not apply to maml, only to reptile"),
        ({"learner": "fomaml", "meta-gradient": "mixed"}, "meta_gradient does not apply to fomaml"),
        ({"learner": "tnet", "meta-gradient": "evolution"}, "meta_gradient of tnet must be one of 'reverse', 'mixed'"),
        ({"samples": 5}, "samples does not apply to meta_gradient reverse, only to evolution"),
        ({"context-size": 5}, "context_size does not apply to maml, only to cavia"),
        ({"learner": "protonet", "steps": 5}, "steps does not apply to protonet, only to maml, fomaml"),
        ({"meta-gradient": "first-order", "remat": ""}, "remat does not apply to meta_gradient first-order"),
        ({"train-ways": 5}, "train_ways does not apply to maml, only to protonet"),
        ({"test-rotations": ""}, "test_rotations does not apply to maml on glyphs"),
        ({"horizon": 5}, "horizon does not apply to maml on glyphs (images); got 5"),
        ({"benchmark": "particles2d", "shots": 5}, "shots does not apply to promp on particles2d (environment); got 5"),
        ({"benchmark": "particles2d", "learner": "maml"}, "got 'maml', which is a learner for images and text"),
        ({"benchmark": "particles2d", "learner": "rl2", "steps": 2}, "steps does not apply to rl2, only to maml-trpo"),
        ({"benchmark": "particles2d", "learner": "maml-trpo", "clip": 1.0}, "clip does not apply to maml-trpo"),
        ({"benchmark": "particles2d", "variant": "mine"}, "variant must be one of 'l2l', 'promp'"),
        ({"benchmark": "bandit-bernoulli", "backend": "mjx"}, "backend"),
        ({"benchmark": "cartpole", "learner": "pearl"}, "pearl needs continuous actions, and those of cartpole"),
        ({"benchmark": "particles2d", "root": "data"}, "root and download do not apply to particles2d"),
        ({"split": "vinyals"}, "split does not apply to glyphs"),
        ({"minutes": 0}, "minutes must be a positive number, got 0"),
        ({"minutes": 1, "learner": "protonet"}, "minutes needs outer_schedule 'constant', got 'cosine'"),
        ({"minutes": 1, "learner": "leo", "outer-schedule": "constant"}, "minutes does not apply to leo"),
    ],
)
def test_wrong_options_are_named(options, message, tmp_path, capsys):
    assert message in refused(command("train", folder=tmp_path / "run", **options), capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{"wasy": 5}, {"iterations": 1.5}, {"dtype": 3}, {"remat": "yes"}])
def test_wrong_options_in_python(options):
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        Experiment(**options).resolve()


def test_numpy_numbers_are_numbers():
    settings = Experiment(steps=np.int64(2), inner_rate=np.float32(0.5)).resolve()
    assert (settings.steps, settings.inner_rate) == (2, 0.5)
    assert (type(settings.steps), type(settings.inner_rate)) == (int, float)


@pytest.mark.parametrize("words", [["trian"], ["evaluate"], ["train", "extra"]])
def test_wrong_commands(words, capsys):
    assert "--help" in refused(words, capsys)


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
    words = command("train", benchmark="sinusoid", folder=folder, **QUICK | {"iterations": 4}, inner_rate=1e30)
    assert "became NaN or infinite at update 1" in refused(words, capsys)
    assert "no checkpoint in" in refused(["evaluate", folder], capsys)
    assert "no config.json" in refused(["evaluate", tmp_path], capsys)
    assert "no config.json" in refused(["evaluate", tmp_path / "nowhere"], capsys)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.slow
def test_a_folder_of_something_else_is_left_alone(finished, tmp_path, capsys):
    before = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    words = command("train", folder=finished.folder, **(IMAGES | {"num_tasks": 3}))
    assert "holds another run (num_tasks was 2, now 3)" in refused(words, capsys)
    assert {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()} == before
    for name, text, message in (
        ("config.json", "{}", "config.json is damaged, or was not made by this version"),
        ("config.json", '{"settings": {"warp": 9}}', "config.json is damaged, or was not made by this version"),
        ("report.md", "mine", "holds report.md of something else"),
    ):
        (tmp_path / name).write_text(text)
        assert message in refused(command("train", benchmark="sinusoid", folder=tmp_path, **QUICK), capsys)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: text}
        (tmp_path / name).unlink()
    (tmp_path / "file").touch()
    assert "is a file" in refused(command("train", benchmark="sinusoid", folder=tmp_path / "file", **QUICK), capsys)


def test_a_damaged_checkpoint_is_one_line(finished, tmp_path, capsys):
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


def test_every_option_is_declared_once_and_explained(capsys):
    """The parser, the checks and the pages read the fields of `Experiment` and nothing else."""
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for option in OPTIONS.values():
        assert option.flag in text
        assert option.help[0].isupper() and option.help.endswith("."), option
        owned = [e for e in LEARNERS.values() for r in e.recipes if option.name in r.values]
        owned += [e for e in (*MODELS.values(), *META_GRADIENTS.values()) if option.name in e.options]
        of_benchmark = option.name in OF_BENCHMARKS
        assert option.defaults or owned or of_benchmark, f"{option.name} applies to nothing"


def test_recipes_name_options_and_sources():
    for name, entry in LEARNERS.items():
        assert entry.about and not entry.about.startswith(f"{name}("), name
        for recipe in entry.recipes:
            assert recipe.source and set(recipe.kinds) <= set(KINDS)
            assert set(recipe.values) <= set(OPTIONS), f"{name} has options that are not declared"
            assert None not in recipe.values.values()


def test_without_a_command_there_is_help_and_a_version(capsys):
    assert main([]) == 0
    assert "train" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert f"jax {jax.__version__}" in capsys.readouterr().out


def test_output_that_nobody_reads(monkeypatch, capfd):
    """As with `jaxmeta list | head -1`, with a terminal without ±, and with a closed output."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        assert main(["list"]) == 128 + signal.SIGPIPE
    assert capfd.readouterr().err == ""
    with monkeypatch.context() as patch:
        written = io.BytesIO()
        patch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
        patch.setattr(command_line, "list_names", lambda name: "72.5 ± 1.5 %")
        assert main(["list"]) == 0
        assert written.getvalue() == b"72.5 ? 1.5 %\n"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert main(["list"]) == 1
    assert capfd.readouterr().err == "jaxmeta: standard output is closed\n"


@pytest.mark.slow
def test_list_as_a_program():
    done = subprocess.run([sys.executable, "-m", "jaxmeta", "list"], capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    names = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert names == {*data.list_tasksets(), *LEARNERS, *envs.list_envs(), *MODELS, *META_GRADIENTS}


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("maml", ["(learner)", "arxiv.org/abs/1703.03400", "--inner-rate 0.4", "_maml.py"]),
        ("resnet12", ["(model)", "--drop-rate 0.1"]),
        ("first_order", ["first-order (meta-gradient)"]),
        ("particles2d", ["(environment)", "variants:", "promp"]),
        ("omniglot", ["(benchmark)", "vinyals", "images_background"]),
    ],
)
def test_list_says_everything_about_one_name(name, facts):
    text = describe(name)
    assert [fact for fact in facts if fact not in text] == []
    with pytest.raises(ValueError, match="Did you mean 'protonet'"):
        describe("protonett")


# What a user adds.

MODULE = """
import optax
import jaxmeta
from jaxmeta import data, models, register

def build(settings, network):
    return jaxmeta.maml(network.loss, optax.sgd(settings.inner_rate), settings.steps)

outer = {"outer_rate": 1e-3, "outer_schedule": "constant", "num_tasks": 2}
row = register.recipe("images", "my notes", steps=2, inner_rate=0.1, **outer)
register.learner("my-learner", build, [row])
register.model("my-model", lambda settings, ways: models.OmniglotFC(ways, sizes=(settings.hidden,), norm="none"),
               options={"hidden": 3})

def tasks(ways=2, shots=1, queries=1, test_ways=2, test_shots=1, test_queries=1):
    parts = ("train", "validation", "test")
    return data.BenchmarkTasksets(*(data.Glyphs(ways, shots, queries, part, size=8) for part in parts))

register.benchmark("my-glyphs", tasks, about="Small glyphs.", kind="images")
"""


@pytest.fixture
def registries():
    """Names that a test registers are gone after it."""
    named: tuple[Any, ...] = (LEARNERS, MODELS, BENCHMARKS_BY_NAME)
    before = [(registry, dict(registry)) for registry in named]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


@pytest.mark.slow
def test_a_module_of_the_user_adds_names(tmp_path, capsys, registries):
    (tmp_path / "mine.py").write_text(MODULE)
    names = {"benchmark": "my-glyphs", "learner": "my_learner", "model": "my-model"}
    module = {"module": str(tmp_path / "mine.py")}
    words = command("train", folder=tmp_path / "run", **module, **names, **QUICK)
    assert main(words) == 0, capsys.readouterr().err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["modules"] == ["modules/mine.py"]
    assert (tmp_path / "run" / "modules" / "mine.py").read_text() == MODULE
    assert (config["settings"]["steps"], config["settings"]["hidden"]) == (2, 3)
    assert main(command("evaluate", str(tmp_path / "run"), **module)) == 0
    capsys.readouterr()
    assert main(command("list", "my-learner", **module)) == 0
    assert "my notes" in capsys.readouterr().out
    assert "Did you mean 'my-learner'" in refused(command("train", learner="my-lerner"), capsys)
    assert "does not exist" in refused(command("train", module=tmp_path / "absent.py"), capsys)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: register.learner("maml", lambda s, n: None, []), "there is a learner 'maml' already"),
        (lambda: register.learner("My Learner", lambda s, n: None, []), "name must consist of"),
        (lambda: register.learner("x", lambda s, n: None, [], trains_on="days"), "trains_on must be one of"),
        (lambda: register.model("cnn", lambda s, w: models.MLP(), about=models.MLP), "there is a model 'cnn' already"),
        (lambda: register.model("x", lambda s, w: models.MLP(), kinds=("sounds",)), "kinds must be among images"),
        (lambda: register.benchmark("glyphs", lambda: None, about="", kind="images"), "glyphs"),
    ],
)
def test_what_cannot_be_registered(call, message):
    with pytest.raises(ValueError, match=message):
        call()
