# pyright: reportAttributeAccessIssue=false
"""Several trainings in one program: each is the training that it is alone."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import data, models
from jaxmeta.runs import fit_one_program

SAMPLER = data.Sinusoid()
MODEL = models.MLP(sizes=(8,))
LOSS = jaxmeta.regression(MODEL.apply)
CLOCK = ("seconds", "tasks_per_second")
POINTS = [{"inner": 0.01, "outer": 0.01}, {"inner": 0.05, "outer": 0.001}]
KEYS = [jax.random.key(3), jax.random.key(4)]
OPTIONS = {
    "iterations": 9,
    "num_tasks": 2,
    "validation": SAMPLER,
    "validation_tasks": 4,
    "validate_every": 4,
    "log_every": 2,
    "progress": False,
}


def build(point):
    return jaxmeta.maml(LOSS, optax.sgd(point["inner"])), optax.adam(point["outer"])


def start(seed):
    return jaxmeta.MetaParams(jax.jit(MODEL.init)(jax.random.key(seed), SAMPLER.example))


def alone(i, folder=None, **options):
    learner, optimizer = build(POINTS[i])
    return jaxmeta.train(learner, optimizer, start(i), SAMPLER, KEYS[i], folder=folder, **(OPTIONS | options))


def together(points=POINTS, **options):
    metas = [start(i) for i in range(len(points))]
    return jaxmeta.train_many(build, points, metas, SAMPLER, KEYS[: len(points)], **(OPTIONS | options))


def assert_same(found, expected):
    close = lambda *xs: np.testing.assert_allclose(*xs, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, (found.meta, found.state), (expected.meta, expected.state))
    assert found.step == expected.step
    assert [record["step"] for record in found.history] == [record["step"] for record in expected.history]
    for one, other in zip(found.history, expected.history, strict=True):
        assert one.keys() == other.keys()
        np.testing.assert_allclose(
            [one[k] for k in one if k not in CLOCK], [other[k] for k in one if k not in CLOCK], 1e-4
        )


@pytest.fixture(scope="module")
def expected():
    return [alone(i) for i in range(2)]


def test_each_run_is_that_of_train_and_goes_on_alone(expected, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    alone(0, folders[0], iterations=4)  # so the second one starts from another update
    for one, other in zip(together(folders=folders), expected, strict=True):
        assert_same(one, other)
    assert_same(alone(1, folders[1]), expected[1])
    with pytest.raises(ValueError, match=r"inner|step_size was -0.05, now -0.01"):
        jaxmeta.train(*build(POINTS[0]), start(1), SAMPLER, KEYS[1], folder=folders[1], **OPTIONS)


def test_a_run_that_diverges_leaves_the_others_alone(expected, tmp_path):
    bad = POINTS[1] | {"outer": 1e30}
    one, error = together([POINTS[0], bad], folders=[tmp_path / "a", tmp_path / "b"])
    assert_same(one, expected[0])
    assert isinstance(error, FloatingPointError) and "became NaN or infinite" in str(error)
    assert (tmp_path / "b" / "metrics.jsonl").is_file()


def test_a_callback_ends_its_run_only(expected):
    steps = []
    one, other = together(callbacks=[lambda record: steps.append(record["step"]), lambda record: record["step"] == 2])
    assert_same(one, expected[0])
    assert steps == [record["step"] for record in one.history] == [0, 2, 4, 6, 8, 9]
    assert [record["step"] for record in other.history] == [0, 2, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": []}, "points must hold one point or more, got none"),
        ({"folders": ["a"]}, "folders must hold one value for each of the 2 points, got 1"),
        ({"callbacks": [print] * 3}, "callbacks must hold one value for each of the 2 points, got 3"),
        ({"monitor": "return"}, r"monitor must be one of \['loss'\], got 'return'"),
        ({"iterations": 0}, "iterations must be an integer of at least 1"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(ValueError, match=message):
        together(**options)


@pytest.mark.slow
def test_experiments_are_one_program_where_they_fit(tmp_path):
    """With rates that a learner changes while it trains, and the same results as alone."""
    tiny: dict[str, Any] = {
        "iterations": 4,
        "validate_every": 2,
        "validation_tasks": 3,
        "test_tasks": 5,
        "num_tasks": 2,
    }
    runs = jaxmeta.Experiment("sinusoid", "meta-sgd", **tiny).vary(inner_rate=(0.001, 0.02), seed=(0, 1))
    told = []
    found = jaxmeta.run_all(runs, tmp_path, one_program=True, progress=False, done=lambda name, _: told.append(name))
    assert told == list(found) == list(runs)
    for name in list(runs)[1:3]:
        alone = runs[name].run(tmp_path / f"alone-{name}", progress=False)
        assert found[name].test["loss"].mean == pytest.approx(alone.test["loss"].mean, rel=1e-3)
        assert jaxmeta.load_run(tmp_path / name).settings == alone.settings
    others = jaxmeta.Experiment("sinusoid", **tiny).vary(steps=(1, 2))
    with pytest.raises(ValueError, match="one_program needs runs that differ by seed, inner_rate"):
        jaxmeta.run_all(others, tmp_path / "more", one_program=True)


def test_runs_that_were_begun_on_other_classes_are_no_one_program(monkeypatch, tmp_path):
    """As a seed that is added to the runs of a folder which has more classes by now."""
    settings = [run.resolve() for run in jaxmeta.Experiment("sinusoid").vary(seed=(0, 1)).values()]
    assert fit_one_program(settings, [tmp_path / "a", tmp_path / "b"])
    monkeypatch.setattr("jaxmeta.runs._together.recorded_classes", lambda folder: {"train": [folder.name]})
    assert not fit_one_program(settings, [tmp_path / "a", tmp_path / "b"])
