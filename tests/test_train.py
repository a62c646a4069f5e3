# pyright: reportArgumentType=false, reportOperatorIssue=false
"""train: its numbers, its best meta-parameters, and what is left of a run that was cut short."""

import io
import random
import re
import signal
import subprocess
import sys
import time
import types
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import jaxmeta
import jaxmeta.training._log
from jaxmeta import data, models
from jaxmeta.display import progress_bar
from jaxmeta.training import read_records
from jaxmeta.training._records import append_record

MODEL = models.MLP(sizes=(8,))
SAMPLER = data.Sinusoid(shots=3, queries=3)
KEY = jax.random.key(0)
CLOCK = ("seconds", "tasks_per_second")


@cache
def parameters(model):
    return jax.jit(model.init)(jax.random.key(0), SAMPLER.example)


def run(folder=None, *, model=MODEL, make=jaxmeta.maml, inner_rate=0.01, outer=None, key=KEY, **options):
    learner = make(jaxmeta.regression(model.apply), optax.sgd(inner_rate))
    meta = learner.init(parameters(model))
    defaults = {
        "iterations": 20,
        "num_tasks": 2,
        "validation": SAMPLER,
        "validation_tasks": 4,
        "validate_every": 6,
        "log_every": 2,
        "progress": False,
    }
    return jaxmeta.train(
        learner, outer or optax.adam(1e-2), meta, SAMPLER, key, folder=folder, **{**defaults, **options}
    )


def numbers(records):
    """The records without what depends on the clock."""
    return [{k: v for k, v in record.items() if k not in CLOCK} for record in records]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def steps_saved(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())


def assert_same_run(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual.meta, expected.meta)  # bit for bit
    assert actual.step == expected.step
    assert numbers(actual.history) == numbers(expected.history)


@pytest.fixture(scope="module")
def uninterrupted():
    return run()


def test_history(uninterrupted):
    history = uninterrupted.history
    assert [record["step"] for record in history] == list(range(0, 21, 2))
    validated = [record["step"] for record in history if "validation/loss" in record]
    assert validated == [0, 6, 12, 18, 20]  # the start, and the end too
    assert all(np.isfinite(record["train/loss"]) for record in history[1:])


def test_updates_are_those_of_meta_step():
    learner = jaxmeta.maml(jaxmeta.regression(MODEL.apply), optax.sgd(0.01))
    optimizer = optax.adam(1e-2)
    meta = learner.init(parameters(MODEL))
    training = jaxmeta.meta_step(learner, optimizer, 2)
    state, step = training.init(meta), jax.jit(training.step)
    train_key, _ = jax.random.split(KEY)
    last = {}
    for i in range(5):
        state, last = step(state, jax.random.fold_in(train_key, i), SAMPLER)
    trained = run(iterations=5, validation=None, log_every=1, validate_every=1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), trained.meta, state.meta)
    assert trained.history[-1]["train/loss"] == pytest.approx(float(last["loss"]), rel=1e-4)
    assert trained.step == 5


def test_a_folder_changes_no_number(tmp_path, uninterrupted):
    assert_same_run(run(tmp_path / "a" / "b"), uninterrupted)
    assert numbers(read_records(tmp_path / "a" / "b")) == numbers(uninterrupted.history)


def test_a_finished_run_is_not_run_again(tmp_path, uninterrupted, monkeypatch):
    first = run(tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(jaxmeta.training._log.Log, "write", lambda *_: pytest.fail("an update was run"))
    again = run(tmp_path)
    assert_same_run(again, uninterrupted)
    assert again.history == first.history
    assert contents(tmp_path) == before


def test_more_iterations_go_on(tmp_path, uninterrupted):
    run(tmp_path, iterations=7)  # a chunk of one update; a validation that the longer run has not
    longer = run(tmp_path)
    assert [record["step"] for record in longer.history] == [0, 2, 4, 6, 7, *range(8, 21, 2)]
    assert longer.history[-1]["train/loss"] == pytest.approx(uninterrupted.history[-1]["train/loss"], rel=1e-4)


@pytest.mark.parametrize("sizes", [{"log_every": 50, "validate_every": 50}, {"validate_every": 1000}])
def test_intervals_longer_than_the_run(sizes):
    trained = run(iterations=5, **sizes)
    assert trained.history[-1]["step"] == 5
    assert "validation/loss" in trained.history[-1]
    assert trained.step == 5


def test_the_best_on_validation_is_returned_not_the_last(tmp_path):
    def outer():
        return optax.sgd(lambda count: jnp.where(count < 12, 0.01, -0.01))  # up again after update 12

    trained = run(tmp_path, outer=outer(), iterations=30)
    values = {r["step"]: r["validation/loss"] for r in trained.history if "validation/loss" in r}
    assert trained.step == min(values, key=values.__getitem__) < 30
    shorter = run(outer=outer(), iterations=trained.step)
    jax.tree.map(np.testing.assert_array_equal, trained.meta, shorter.meta)
    jax.tree.map(np.testing.assert_array_equal, jaxmeta.best_meta(tmp_path, shorter.meta), trained.meta)


@pytest.mark.parametrize("monitor", ["loss", "score"])
def test_the_first_of_equals_is_kept(monitor):
    """Also if the value is no float32, and whether it is to be small or large."""

    def loss_fn(params, batch, key):
        return 0.0 * params.sum() + 0.1, {"score": jnp.float32(1 / 3)}

    learner = jaxmeta.maml(loss_fn, optax.sgd(0.1))
    options = {"iterations": 4, "num_tasks": 1, "validation": SAMPLER, "validation_tasks": 7, "progress": False}
    trained = jaxmeta.train(
        learner,
        optax.sgd(0.1),
        learner.init(jnp.ones(2)),
        SAMPLER,
        KEY,
        monitor=monitor,
        log_every=1,
        validate_every=1,
        **options,
    )
    assert trained.step == 0


# What goes wrong.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations must be an integer of at least 1, got 0"),
        ({"log_every": 0}, "log_every must be an integer of at least 1"),
        ({"validate_every": 0}, "validate_every must be an integer of at least 1"),
        ({"num_tasks": 0}, "num_tasks must be an integer of at least 1"),
        ({"validation_tasks": 0}, "validation_tasks must be an integer of at least 1"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"validate_every": 5}, r"validate_every must be a multiple of log_every \(2\), got 5"),
        ({"monitor": "accuracy"}, r"monitor must be one of \['loss'\], got 'accuracy'"),
        ({"monitor": "loss", "validation": None}, "monitor applies with validation only, got 'loss' without it"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_made(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("conv", [nn.Conv, models.Conv])
def test_a_convolution_that_is_slow_in_a_loop_is_told(conv, recwarn):
    """Inside the model and inside the loop of updates, which a short run never leaves."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(nn.relu(conv(2, (3, 3))(x)).mean((1, 2)))

    sampler = data.Glyphs(ways=2, shots=1, queries=1, size=8)
    learner = jaxmeta.fomaml(jaxmeta.classification(Net()), optax.sgd(0.1))
    meta = learner.init(Net().init(KEY, sampler.example))
    jaxmeta.train(learner, optax.sgd(0.1), meta, sampler, KEY, iterations=1, num_tasks=1, log_every=1, progress=False)
    told = [str(warning.message) for warning in recwarn if "convolutions of XLA" in str(warning.message)]
    assert len(told) == (conv is nn.Conv) and all("jaxmeta.models.Conv" in text for text in told)


def test_divergence_at_once():
    with pytest.raises(FloatingPointError, match="update 1. The state after update 0 is the last"):
        run(inner_rate=1e30)


def test_divergence_names_the_update_and_keeps_the_last_finite_state(tmp_path):
    outer = optax.sgd(lambda count: jnp.where(count < 8, 1e-3, 1e30))  # update 9 throws the parameters away
    with pytest.raises(FloatingPointError, match="loss became NaN or infinite at update 10. The state after update 8"):
        run(tmp_path, outer=outer)
    assert steps_saved(tmp_path)[-1] == 8
    assert [record["step"] for record in read_records(tmp_path)] == [0, 2, 4, 6, 8]
    good = jaxmeta.best_meta(tmp_path, run(iterations=1).meta)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(good))
    with pytest.raises(FloatingPointError, match="update 10"):
        run(tmp_path, outer=outer)  # the same again


def test_divergence_in_the_last_update_of_a_chunk_is_found_in_the_parameters():
    outer = optax.sgd(lambda count: jnp.where(count < 3, 1e-3, jnp.inf))
    with pytest.raises(FloatingPointError, match=r"meta\.params.* by update 4. The state after update 2"):
        run(outer=outer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": jax.random.key(1)}, r"key was key<fry>\[\]"),
        ({"num_tasks": 3}, "num_tasks was 2, now 3"),
        ({"log_every": 3}, "log_every was 2, now 3"),
        ({"inner_rate": 0.02}, "step_size was -0.01, now -0.02"),
        ({"inner_rate": lambda step: 0.01}, "was <scale.update_fn>, now <scale_by_schedule.update_fn>"),
        ({"outer": optax.adam(1e-2, b1=0.8)}, "b1 was 0.9, now 0.8"),
        ({"outer": optax.sgd(0.1)}, "was <scale_by_adam.init_fn>, now <init_empty_state>"),
        ({"model": models.MLP(sizes=(9,))}, "sizes.0 was 8, now 9"),
        ({"model": models.MLP(sizes=(8,), activation=jnp.sin)}, "activation.*now <sin>"),
        ({"make": jaxmeta.fomaml}, "was <reverse_value_and_grad>, now <constant_grad>"),
        ({"make": partial(jaxmeta.maml, steps=2)}, "steps was 1, now 2"),
    ],
)
def test_a_folder_of_another_run_is_refused_and_left_alone(tmp_path, options, message):
    run(tmp_path, iterations=4)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **options)
    assert contents(tmp_path) == before


def test_a_metrics_file_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(ValueError, match=r"line 1 of .*metrics\.jsonl is damaged, or was not made by"):
        run(tmp_path)
    assert contents(tmp_path) == {"metrics.jsonl": b'{"epoch": 1}\n'}


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="file is a file"):
        run(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    try:
        (tmp_path / "locked" / "probe").mkdir()
    except PermissionError:
        with pytest.raises(PermissionError, match="locked"):
            run(tmp_path / "locked")
    else:
        pytest.skip("this user may write anywhere")


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_still_good(tmp_path, uninterrupted):
    run(tmp_path)
    (newest,) = (path for path in (tmp_path / "checkpoints").iterdir() if path.name == "20")
    (newest / "default" / "_METADATA").write_bytes(b"")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"checkpoints/20 is damaged; remove that folder to go on"):
        run(tmp_path)
    assert contents(tmp_path) == before
    newest.rename(tmp_path / "away")
    assert_same_run(run(tmp_path), uninterrupted)


def test_best_meta_needs_a_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        jaxmeta.best_meta(tmp_path, run(iterations=1).meta)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_checkpoints_hold_every_kind_of_leaf(tmp_path):
    from jaxmeta.training._checkpoint import Checkpoints

    tree = {
        "half": jnp.ones(3, jnp.bfloat16),
        "key": jax.random.key(3),
        "empty": jnp.zeros((0, 4)),
        "number": np.float32(2),
    }
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, tree)
        restored = checkpoints.restore(tree)
    assert restored["half"].dtype == jnp.bfloat16
    assert restored["empty"].shape == (0, 4)
    assert jax.random.key_data(restored["key"]).tolist() == jax.random.key_data(tree["key"]).tolist()


# What is left of a run that was cut short.


@pytest.mark.parametrize("at", [1, 3, 4])  # records after that of the start; the third is at a validation
def test_an_interrupted_run_goes_on_from_the_last_chunk(tmp_path, uninterrupted, monkeypatch, at):
    write = jaxmeta.training._log.Log.write

    def interrupted(log, record):
        write(log, record)
        if len(log.history) > at + 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jaxmeta.training._log.Log, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert steps_saved(tmp_path)[-1] == 2 * at
    assert_same_run(run(tmp_path), uninterrupted)
    assert numbers(read_records(tmp_path)) == numbers(uninterrupted.history)


def test_a_half_written_line_is_dropped(tmp_path, uninterrupted):
    run(tmp_path, iterations=6)
    append_record(tmp_path, {"step": 8, "train/loss": 1.0})  # after the checkpoint: a kill came before the next
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "tra')
    assert_same_run(run(tmp_path), uninterrupted)
    assert numbers(read_records(tmp_path)) == numbers(uninterrupted.history)


@pytest.mark.parametrize("record", [{"epoch": 1}, {"step": -1}, {"step": "2"}], ids=str)
def test_a_record_without_a_step_is_refused(tmp_path, record):
    append_record(tmp_path, record)
    with pytest.raises(ValueError, match=r"line 1 of .*metrics\.jsonl is no record of a training: its step is"):
        run(tmp_path)


def test_a_record_that_has_changed_is_refused_and_left_alone(tmp_path):
    run(tmp_path, iterations=6)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    changed = re.sub(r"(\d)\.", r"\1.1", lines[2], count=1)  # one digit more
    assert changed != lines[2]
    path.write_text("".join([*lines[:2], changed, *lines[3:]]))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"line 3 of .*metrics\.jsonl is damaged or was edited"):
        run(tmp_path)
    assert contents(tmp_path) == before


def test_checkpoints_come_in_time_even_if_validation_does_not(tmp_path, monkeypatch):
    from jaxmeta.training._checkpoint import Checkpoints

    saved = []
    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, tree: (saved.append(step), save(self, step, tree)))
    run(tmp_path / "a", iterations=8, validate_every=100)
    assert set(saved) == {8}
    saved.clear()
    monkeypatch.setattr("jaxmeta.training._course._SAVE_SECONDS", 0.0)
    run(tmp_path / "b", iterations=8, validate_every=100)
    assert set(saved) >= {2, 4, 6, 8}


def start(folder):
    """The run, in a process of its own."""
    return subprocess.Popen([sys.executable, __file__, str(folder)], stderr=subprocess.PIPE, text=True)


def kill_when(process, ready, seconds=120.0, number=signal.SIGKILL):
    """Sends the process a signal as soon as `ready()`; False if it ended before."""
    end = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr.read()
            return False
        assert time.monotonic() < end, "the run did not get that far"
        time.sleep(0.001)
    process.send_signal(number)
    process.communicate()
    assert process.returncode in (-number, 0)
    return True


def lines(folder):
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.slow
def test_a_run_killed_between_and_within_checkpoints(tmp_path, uninterrupted):
    assert kill_when(start(tmp_path), lambda: lines(tmp_path) >= 5)  # that of the start too
    written = tmp_path / "checkpoints"
    known = set(steps_saved(tmp_path))
    assert kill_when(
        start(tmp_path),
        lambda: any(p.name.split(".")[0] not in map(str, known) and "tmp" in p.name for p in written.iterdir()),
    )
    assert steps_saved(tmp_path)[-1] < 20
    assert_same_run(run(tmp_path), uninterrupted)
    assert numbers(read_records(tmp_path)) == numbers(uninterrupted.history)
    assert not [path.name for path in written.iterdir() if "tmp" in path.name]


@pytest.mark.slow
def test_a_run_that_is_asked_to_end_saves_what_it_has(tmp_path, uninterrupted):
    """SIGTERM, as before a preemption."""
    process = start(tmp_path)
    assert kill_when(process, lambda: lines(tmp_path) >= 2, number=signal.SIGTERM)
    assert process.returncode == -signal.SIGTERM
    assert steps_saved(tmp_path)[-1] == read_records(tmp_path)[-1]["step"] < 20
    assert_same_run(run(tmp_path), uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_at_random_moments(tmp_path, uninterrupted, seed):
    moment = random.Random(seed)
    killed = True
    while killed:
        target, delay = min(lines(tmp_path) + moment.randint(0, 6), 10), moment.uniform(0, 0.2)

        def ready(target=target, delay=delay):
            return lines(tmp_path) >= target and not time.sleep(delay)

        killed = kill_when(start(tmp_path), ready) and lines(tmp_path) < 10
    assert_same_run(run(tmp_path), uninterrupted)
    assert numbers(read_records(tmp_path)) == numbers(uninterrupted.history)


# What is seen of a run.


def test_progress_in_a_log_file_is_lines(capsys):
    run(progress=True)
    first, *_, last = lines = capsys.readouterr().err.splitlines()
    assert first == "Compiling: 0 of 20 updates"
    assert re.fullmatch(r"Training: 20 of 20 \[.*update.*, loss \d.*, validation loss \d.* at update 20\]", last)
    assert len(set(lines)) == len(lines) <= 4
    assert "\r" not in "".join(lines)
    run(progress=False)
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self):
        return True


def test_progress_in_a_terminal_is_a_bar_that_says_what_happens(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    run(progress=True)
    shown = terminal.getvalue().split("\r")
    kinds = [text.split(":")[0] for text in shown if ":" in text]
    assert list(dict.fromkeys(kinds)) == ["Compiling", "Validating", "Training"]
    assert kinds[-1] == "Training"
    assert "100%" in shown[-1]
    assert sum("100%" in text and text.startswith("Training") for text in shown) == 1


def test_progress_in_a_notebook(monkeypatch, capsys):
    """Widgets if there are any, and no text in red."""
    import tqdm.auto
    import tqdm.std

    class tqdm_notebook(tqdm.std.tqdm):
        pass

    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    with progress_bar("Reading", 2, delay=0):
        pass
    assert capsys.readouterr() == ("Reading: 0 of 2 steps\n", "")
    monkeypatch.setattr(tqdm.auto, "tqdm", tqdm_notebook)
    with progress_bar("Reading", 2, delay=0) as bar:
        assert isinstance(bar, tqdm_notebook)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
