# pyright: reportArgumentType=false
"""`loop` for any update, and learners that change in training."""

import signal
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import Training, TrainingState, data, models
from jaxmeta.training import on_signals
from jaxmeta.training._checkpoint import Checkpoints
from jaxmeta.training._chunks import Chunks
from jaxmeta.training._log import Log

KEY = jax.random.key(0)


@pytest.fixture(params=[False, True], ids=["small", "large"])
def donated(request, monkeypatch):
    """Whether every state counts as large."""
    if request.param:
        monkeypatch.setattr("jaxmeta.training._chunks._LARGE", 0)
    return request.param


class State(NamedTuple):
    """A training's own state: more than meta-parameters."""

    meta: Any
    noise: jax.Array


def init(meta, key):
    return State(meta, jax.random.normal(key))


def step(state, key, drift):
    """A random walk that counts itself, with integers among its meta-parameters."""
    place = state.meta["place"] + drift + jax.random.normal(key)
    return State({"place": place, "count": state.meta["count"] + 1}, state.noise + 1), {"loss": jnp.abs(place)}


START = {"place": jnp.array(0.0), "count": jnp.array(0)}
WALK = Training(init, step)


def plain(step):
    """A training without a random state, of a step of its meta-parameters."""

    def update(state, key):
        meta, metrics = step(state.meta, key)
        return TrainingState(meta, (), state.update + 1), metrics

    return Training(lambda meta, key: TrainingState(meta, (), jnp.int32(0)), update)


def run(folder=None, **options):
    defaults = {"iterations": 10, "log_every": 2, "validate_every": 4, "progress": False}
    return jaxmeta.loop(WALK, START, KEY, 0.5, folder=folder, **{**defaults, **options})


def test_updates_are_those_of_the_step():
    place = sum(0.5 + float(jax.random.normal(jax.random.fold_in(KEY, i))) for i in range(10))
    done = run()
    np.testing.assert_allclose(done.meta["place"], place, rtol=1e-5)
    np.testing.assert_array_equal(done.state.meta["place"], done.meta["place"])
    assert int(done.meta["count"]) == done.step == 10
    assert -4 < float(done.state.noise) - 10 < 4  # drawn once, by init
    assert [record["step"] for record in done.history] == [2, 4, 6, 8, 10]
    assert all(record["updates_per_second"] > 0 for record in done.history)


@pytest.mark.parametrize(("monitor", "best"), [("loss", 4), ("accuracy", 8), ("height", 8)])
def test_the_best_state_is_kept(monitor, best):
    """Validated after 0, 4, 8 and 10 updates: a loss is minimized, anything else maximized."""
    values = iter([2.0, 1.0, 3.0, 2.0])
    done = run(validate=lambda meta: {monitor: next(values)}, monitor=monitor if monitor == "height" else None)
    assert done.step == int(done.meta["count"]) == best
    assert int(done.state.meta["count"]) == 10
    assert [r[f"validation/{monitor}"] for r in done.history if f"validation/{monitor}" in r] == [2.0, 1.0, 3.0, 2.0]


def test_a_run_goes_on_bit_for_bit(tmp_path):
    whole = run()
    run(tmp_path, iterations=6)
    again = run(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again.state, whole.state)
    assert [record["step"] for record in again.history] == [2, 4, 6, 8, 10]


def values(history):
    """The records without what depends on the clock."""
    return [{k: v for k, v in record.items() if "second" not in k} for record in history]


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_where_a_run_is_cut_changes_no_number(monkeypatch, seconds):
    options = {"iterations": 11, "log_every": 4, "validate": lambda meta: {"loss": meta["place"]}}
    whole = run(**options)
    monkeypatch.setattr("jaxmeta.training._course._CHUNK_SECONDS", seconds)
    done = run(**options)
    jax.tree.map(np.testing.assert_array_equal, done.state, whole.state)
    assert values(done.history) == values(whole.history)


@pytest.mark.usefixtures("hears_hangups")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_answered_between_two_records(number, tmp_path, monkeypatch):
    """The averages of the record that was begun are those of an undisturbed run."""
    sizes, run_chunk, options = [], Chunks.run, {"log_every": 5, "validate_every": 10}
    whole = run(**options)

    def slow(chunks, snapshot, start, size):
        sizes.append(size)
        if start == 6:
            signal.raise_signal(number)
        return run_chunk(chunks, snapshot, start, size)

    class StoppedError(Exception):
        pass

    def stop(number, _):
        raise StoppedError(int(number))

    with monkeypatch.context() as patch, on_signals(stop):
        patch.setattr("jaxmeta.training._course._CHUNK_SECONDS", 0.0)
        patch.setattr(Chunks, "run", slow)
        with pytest.raises(StoppedError, match=f"^{int(number)}$"):
            run(tmp_path, **options)
    assert sizes == [0, *[1] * 7]
    assert values(run(tmp_path, **options).history) == values(whole.history)


def test_a_signal_that_is_ignored_stays_so():
    """As SIGHUP after nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        asked = []
        done = run(callback=lambda record: asked.append(signal.raise_signal(signal.SIGHUP)))
        assert len(asked) == 5 and done.history[-1]["step"] == 10
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("gone", ["all of it", "a part of it"])
def test_a_reader_takes_the_newest_checkpoint_that_is_there(gone, tmp_path):
    def tree(step):
        return {"w": jnp.full(3, step)}

    with Checkpoints(tmp_path) as writer:
        writer.save(1, tree(1))
        with Checkpoints(tmp_path, read_only=True) as reader:
            assert reader.latest == 1
            writer.save(2, tree(2))
            if gone == "all of it":
                writer.save(3, tree(3))
                assert not (tmp_path / "1").exists()
            else:
                (tmp_path / "1" / "default" / "_METADATA").unlink()
            np.testing.assert_array_equal(reader.restore(tree(0))["w"], writer.latest)


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by fifteen seconds with each update."""
    seconds, run_chunk = [0.0], Chunks.run

    def slow(chunks, snapshot, start, size):
        seconds[0] += 15.0 * size
        return run_chunk(chunks, snapshot, start, size)

    monkeypatch.setattr(Chunks, "run", slow)
    for module in ("_course", "_loop"):
        monkeypatch.setattr(f"jaxmeta.training.{module}.time", SimpleNamespace(perf_counter=lambda: seconds[0]))


@pytest.mark.usefixtures("clock")
def test_the_time_ends_a_run_as_its_last_update_would(tmp_path, monkeypatch):
    validated = []

    def validate(meta):
        validated.append(int(meta["count"]))
        return {"height": float(meta["count"])}

    def limited(**options):
        return run(tmp_path, validate=validate, monitor="height", **options)

    whole = run()
    done = limited(minutes=1.2)
    assert [(record["step"], record["seconds"]) for record in done.history] == [(0, 0), (2, 30), (4, 60), (5, 75)]
    assert validated == [0, 4, 5]
    assert int(done.meta["count"]) == done.step == 5
    with monkeypatch.context() as patch:
        patch.setattr(Log, "write", lambda *_: pytest.fail("an update was run"))
        assert limited(minutes=1.2).step == 5
    assert limited(minutes=1.6).history[-1]["seconds"] == 105  # the time of all calls
    jax.tree.map(np.testing.assert_array_equal, limited().state, whole.state)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("validate", [None, lambda meta: {"loss": -float(meta["count"])}])
def test_a_run_that_was_cut_before_its_time_was_up_is_validated_after_it(tmp_path, monkeypatch, validate):
    write = Log.write

    def interrupted(log, record):
        if record["step"] > 2:
            raise KeyboardInterrupt
        write(log, record)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Log, "write", interrupted)
        run(tmp_path, validate=validate)
    done = run(tmp_path, validate=validate, minutes=0.1)
    assert done.step == int(done.meta["count"]) == done.history[-1]["step"] == 4


def test_only_a_large_state_is_donated_and_never_an_array_of_somebody_else(donated, tmp_path, monkeypatch):
    start = {"place": jnp.array(0.0), "count": jnp.array(0), "key": jax.random.key(1)}
    states, seen, whole = [], [], run()
    run_chunk = Chunks.run

    def recording(chunks, snapshot, *more):
        states.append(snapshot.state)
        return run_chunk(chunks, snapshot, *more)

    def validate(meta):
        seen.append(meta)
        return {"loss": float(len(seen))}

    def step(state, key, drift):
        new, metrics = WALK.step(State({k: state.meta[k] for k in START}, state.noise), key, drift)
        return State({**new.meta, "key": state.meta["key"]}, new.noise), metrics

    monkeypatch.setattr(Chunks, "run", recording)
    options = {"iterations": 10, "log_every": 2, "validate_every": 4, "folder": tmp_path, "progress": False}
    done = jaxmeta.loop(Training(init, step), start, KEY, 0.5, validate=validate, **options)
    arrays = [x for state in states for x in jax.tree.leaves(state)]
    assert [x.is_deleted() for x in arrays] == [donated] * len(arrays)
    assert not any(x.is_deleted() for x in jax.tree.leaves((start, seen, done.meta, done.state)))
    assert [int(meta["count"]) for meta in seen] == [0, 4, 8, 10]
    assert (done.step, int(done.meta["count"])) == (0, 0)
    np.testing.assert_array_equal(done.state.meta["place"], whole.state.meta["place"])


def test_after_an_error_a_large_state_resumes_from_its_last_checkpoint(donated, tmp_path):
    values = iter([1.0, 1.0, FloatingPointError("no")])

    def validate(meta):
        value = next(values, 1.0)
        if isinstance(value, Exception):
            raise value
        return {"loss": value}

    with pytest.raises(FloatingPointError, match="no"):
        run(tmp_path, validate=validate)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest == (4 if donated else 6)
    jax.tree.map(np.testing.assert_array_equal, run(tmp_path).state, run().state)


def test_a_state_that_is_not_finite_is_named():
    def diverge(state, key):
        return {**state, "place": jnp.where(state["count"] > 2, jnp.nan, 1.0), "count": state["count"] + 1}, {}

    with pytest.raises(FloatingPointError, match=r"meta\['place'\] became NaN or infinite by update 4"):
        jaxmeta.loop(plain(diverge), START, KEY, iterations=6, log_every=2, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations must be an integer of at least 1, got 0"),
        ({"minutes": 0}, "minutes must be a positive number, got 0"),
        ({"validate_every": 3}, r"validate_every must be a multiple of log_every \(2\), got 3"),
        ({"validate": lambda state: {"a": 0.0}, "monitor": "b"}, r"monitor must be one of \['a'\], got 'b'"),
        ({"validate": lambda state: {"a": 0.0}}, r"monitor must be one of \['a'\], got None"),
        ({"monitor": "return"}, "monitor applies with validate only, got 'return' without it"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_a_step_alone_is_no_training():
    with pytest.raises(TypeError, match=r"training must be a jaxmeta.Training, a pair \(init, step\)"):
        jaxmeta.loop(step, START, KEY, iterations=1)


def test_updates_that_are_not_finite_are_left_out():
    def step(state, key):
        bad = jax.random.bernoulli(key, 0.3)
        return state + jnp.where(bad, jnp.inf, 1.0), {"loss": state}

    def bad(number):
        return bool(jax.random.bernoulli(jax.random.fold_in(KEY, number), 0.3))

    options = {"iterations": 12, "log_every": 4, "progress": False}
    done = jaxmeta.loop(plain(step), jnp.array(0.0), KEY, skip_nonfinite=True, **options)
    skipped = [sum(map(bad, range(start, start + 4))) for start in (0, 4, 8)]
    assert any(skipped)
    assert [record["train/skipped"] for record in done.history] == skipped
    assert float(done.state.meta) == 12 - sum(skipped)
    with pytest.raises(FloatingPointError, match="loss became NaN or infinite at update"):
        jaxmeta.loop(plain(step), jnp.array(0.0), KEY, **options)
    with pytest.raises(FloatingPointError, match="every update from 1 to 4 gave a NaN or infinite value"):
        jaxmeta.loop(plain(lambda s, k: (s, {"loss": s / 0})), jnp.array(0.0), KEY, skip_nonfinite=True, **options)


def test_a_learner_that_changes_in_training():
    """The loss counts from update 2 on: before it nothing moves, and all of it is one compiled loop."""
    model = models.MLP(sizes=(4,))
    mse = jaxmeta.regression(model.apply)
    sampler = data.Sinusoid(shots=3, queries=3)
    asked = []

    def learner_at(number):
        asked.append(number)

        def loss_fn(params, batch, key):
            return jnp.where(number < 2, 0.0, 1.0) * mse(params, batch, key)[0], {}

        return jaxmeta.maml(loss_fn, optax.sgd(0.01))

    meta = learner_at(jnp.int32(0)).init(jax.jit(model.init)(KEY, sampler.example))
    options = {"num_tasks": 2, "log_every": 1, "validate_every": 1, "progress": False}
    still, moved = (
        jaxmeta.train(learner_at, optax.sgd(0.1), meta, sampler, KEY, iterations=n, **options) for n in (2, 4)
    )
    jax.tree.map(np.testing.assert_array_equal, still.meta, meta)
    assert not np.array_equal(moved.meta.params["params"]["head"]["kernel"], meta.params["params"]["head"]["kernel"])
    assert [record["train/loss"] == 0 for record in moved.history] == [True, True, False, False]
    assert len(asked) < 20  # traced, not called in every update
