# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""Callbacks of a training, and the logs that they write: all records once, also of a run that resumes."""

import csv
import json
import struct
import sys
import time
import types
from functools import partial

import jax
import jax.numpy as jnp
import pytest

import jaxmeta
from jaxmeta import Experiment, Training, TrainingState, training
from jaxmeta.__main__ import main
from jaxmeta.training._checkpoint import Checkpoints

KEY = jax.random.key(0)


def step(state, key):
    return TrainingState(state.meta + jax.random.normal(key), (), state.update + 1), {"loss": state.meta**2}


WALK = Training(lambda meta, key: TrainingState(meta, (), jnp.int32(0)), step)


def run(folder=None, **options):
    defaults = {"iterations": 10, "log_every": 2, "validate_every": 4, "progress": False}
    validate = {"validate": lambda meta: {"loss": float(meta)}}
    return jaxmeta.loop(WALK, jnp.array(0.0), KEY, folder=folder, **{**defaults, **validate, **options})


def saved(folder):
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.latest


def test_every_record_goes_to_every_callback():
    first, second = [], []
    history = run(callback=[first.append, second.append]).history
    assert first == second == history
    seen = []
    assert run(callback=seen.append).history[-1]["train/loss"] == seen[-1]["train/loss"]


@pytest.mark.parametrize(("end", "steps"), [(4, [0, 2, 4]), (6, [0, 2, 4, 6, 6])])
def test_a_callback_ends_the_training_after_a_validation(tmp_path, end, steps):
    done = run(tmp_path, callback=lambda record: record["step"] >= end)
    assert [record["step"] for record in done.history] == steps
    assert saved(tmp_path) == end == done.state.update
    assert "validation/loss" in done.history[-1]
    whole, more = run(), run(tmp_path)
    assert more.state.meta == whole.state.meta
    assert more.history[-1]["validation/loss"] == whole.history[-1]["validation/loss"]


def test_without_validation_the_state_at_the_end_is_the_result():
    done = run(validate=None, callback=lambda record: record["step"] >= 6)
    assert (done.step, len(done.history)) == (6, 3)
    assert done.meta == done.state.meta


@pytest.mark.parametrize(
    ("callback", "error", "message"),
    [
        (lambda record: None if record["step"] == 0 else 1 / 0, ZeroDivisionError, "division"),
        (
            lambda record: 57 if record["step"] else None,
            TypeError,
            "callback must return None, or True to end the training, got 57",
        ),
    ],
    ids=["raises", "answers"],
)
def test_an_error_of_a_callback_comes_after_the_state_is_saved(tmp_path, callback, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path, callback=callback)
    assert saved(tmp_path) == 2
    assert run(tmp_path).meta == run().meta


@pytest.mark.parametrize("callback", [None, [print, "wandb"]])
def test_what_is_no_function_is_refused_before_anything_is_made(tmp_path, callback):
    with pytest.raises(TypeError, match="callback must be a function, got"):
        run(tmp_path / "loop", callback=callback)
    with pytest.raises(TypeError, match="callback must be a function, got"):
        Experiment("sinusoid").run(tmp_path / "run", callback=callback)
    assert not list(tmp_path.iterdir())


# Logs. Each reader returns {name: [(step, value), ...]} as the tool shows it.


def read_csv(folder):
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: [(int(row["step"]), float(row[name])) for row in rows if row[name]] for name in rows[0]}


def read_tensorboard(folder):
    """The points that are left when each start of a session drops what comes later, as TensorBoard does."""
    from tensorboardX.proto import event_pb2

    found = {}
    for path in sorted((folder / "events").iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length
            if event.HasField("session_log"):
                found = {name: [point for point in some if point[0] < event.step] for name, some in found.items()}
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


class Wandb(types.ModuleType):
    """As much of wandb as is used: runs by their numbers, whose steps only grow."""

    def __init__(self):
        super().__init__("wandb")
        self.runs, self.options = {}, []

    def init(self, **options):
        self.options.append(options)
        assert (options["resume"], options["reinit"]) == ("allow", "finish_previous")
        points = self.runs.setdefault(options["id"], {})
        last = max((step for some in points.values() for step, _ in some), default=-1)

        def log(values, step):
            for name, value in values.items():
                if step > last:
                    points.setdefault(name, []).append((step, value))

        return types.SimpleNamespace(log=log)


@pytest.fixture
def wandb(monkeypatch):
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    return module


def read_wandb(folder):
    (points,) = sys.modules["wandb"].runs.values()
    return points


LOGS = {
    "csv": (lambda folder: training.csv_logger(folder / "log.csv"), read_csv),
    "tensorboard": (lambda folder: training.tensorboard_logger(folder / "events"), read_tensorboard),
    "wandb": (lambda folder: training.wandb_logger(folder, project="mine"), read_wandb),
}


@pytest.mark.usefixtures("wandb")
@pytest.mark.parametrize("name", LOGS)
@pytest.mark.quick("csv")
def test_a_log_has_every_record_once_also_if_the_run_was_killed(tmp_path, monkeypatch, name):
    """The checkpoint of the kill is older than the last record: its update is run, and logged, again."""
    make, read = LOGS[name]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", lambda *_: None)
        stop = iter([None, None, None, KeyboardInterrupt])

        def kill(record):
            if (error := next(stop)) is not None:
                raise error

        run(tmp_path, callback=[make(tmp_path), kill])
    if name == "tensorboard":
        time.sleep(1.1)  # its files are named after the second
    history = run(tmp_path, callback=make(tmp_path)).history
    found = read(tmp_path)
    for column in ("train/loss", "validation/loss"):
        expected = [(record["step"], record[column]) for record in history if column in record]
        assert [step for step, _ in found[column]] == [step for step, _ in expected]
        assert [value for _, value in found[column]] == pytest.approx([value for _, value in expected], rel=1e-6)


def test_a_file_of_something_else_is_no_log(tmp_path):
    (tmp_path / "log.csv").write_text("name,age\nann,3\n")
    with pytest.raises(ValueError, match=r"log\.csv does not hold the records of a run; choose another file"):
        training.csv_logger(tmp_path / "log.csv")


def test_a_row_that_a_kill_has_cut_is_dropped(tmp_path):
    (tmp_path / "log.csv").write_text("step,seconds\n2,1.0\n10")
    training.csv_logger(tmp_path / "log.csv")({"step": 12, "seconds": 2.0})
    assert (tmp_path / "log.csv").read_text() == "step,seconds\n2,1.0\n12,2.0\n"


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_package_is_named_first_of_all(tmp_path, monkeypatch, capsys, name, package):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["train", "--benchmark", "sinusoid", "--folder", str(tmp_path / "run"), "--log", name]) == 1
    assert capsys.readouterr().err == f'jaxmeta: {name}_logger needs {package}: pip install "jaxmeta[{name}]"\n'
    assert not (tmp_path / "run").exists()


QUICK = ["--iterations", "4", "--test-tasks", "4", "--validation-tasks", "2", "--num-tasks", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("logs", [("csv",), ("csv", "wandb")], ids=["one-program", "one-after-another"])
def test_several_values_are_a_run_for_each_and_a_table(tmp_path, capsys, wandb, logs):
    arguments = ["train", "--benchmark", "sinusoid", "--folder", str(tmp_path), *QUICK]
    arguments += ["--seed", "0", "1", "--outer-rate", "0.001", "1e38", "--log", *logs]
    assert main(arguments) == 1  # for two of them
    names = [f"outer-rate={rate},seed={seed}" for rate in (0.001, 1e38) for seed in (0, 1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    printed = capsys.readouterr().out
    assert printed.count("became NaN or infinite") == 2
    table = printed.splitlines()[-5:]
    assert table[0].split() == ["run", "test", "minutes", "outer_rate", "seed"]
    assert [line.split()[0] for line in table[1:]] == [str(tmp_path / name) for name in names]
    assert ["not finished" in line for line in table[1:]] == [False, False, True, True]
    if "wandb" in logs:
        assert [options["name"] for options in wandb.options[:2]] == names[:2]
        assert [options["config"]["seed"] for options in wandb.options[:2]] == [0, 1]
    one = Experiment("sinusoid", iterations=4, test_tasks=4, validation_tasks=2, num_tasks=2, seed=1, outer_rate=0.001)
    one = one.run(tmp_path / "one", progress=False)
    found = json.loads((tmp_path / "outer-rate=0.001,seed=1" / "result.json").read_text())
    assert found["test"]["loss"]["mean"] == pytest.approx(one.test["loss"].mean, rel=1e-4)
    assert len((tmp_path / "outer-rate=0.001,seed=1" / "metrics.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seeds": (0, 1)}, "option must be one of .* got 'seeds'. Did you mean 'seed'"),
        ({"seed": ()}, r"seed must be different values in a list or a tuple, got \(\)"),
        ({"seed": (1, 1)}, "seed must be different values"),
        ({"learner": "maml"}, "learner must be different values in a list or a tuple, got 'maml'"),
    ],
)
def test_values_that_make_no_runs(values, message):
    with pytest.raises(ValueError, match=message):
        Experiment("sinusoid").vary(**values)


@pytest.mark.slow
@pytest.mark.parametrize(
    "experiment",
    [
        partial(Experiment, "glyphs", "simpleshot", hidden=2, base_classes=6),
        partial(Experiment, "bandit-bernoulli", "rl2", num_tasks=4),
    ],
    ids=["classes", "environment"],
)
def test_every_kind_of_run_calls_back(tmp_path, experiment):
    seen = []
    result = experiment(iterations=4, validate_every=2, validation_tasks=2, test_tasks=2).run(
        tmp_path, callback=seen.append, progress=False
    )
    assert seen == result.trained.history
