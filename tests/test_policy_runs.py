"""Runs in environments: what is trained, tested, left in the folder, and resumed."""

import dataclasses
import json
import re
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image, ImageSequence

import jaxmeta
from jaxmeta import Experiment, envs, rl
from jaxmeta.__main__ import main
from jaxmeta._files import read_json, write_json
from jaxmeta.training import read_records

TINY: dict[str, Any] = {
    "horizon": 4,
    "episodes": 2,
    "hidden": 4,
    "num_tasks": 2,
    "iterations": 2,
    "validate_every": 1,
    "validation_tasks": 2,
    "test_tasks": 3,
}


def command(*words, **options):
    return [*words, *(word for k, v in options.items() for word in ("--" + k.replace("_", "-"), str(v)))]


HEAD = ["learner", "runs", "0", "2", "4"]
METRICS = {"return", "mode_return", "score", "mode_score"}  # those after some episodes have their number in the name


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "promp"
    words = command("train", benchmark="particles2d", learner="promp", test_steps=2, folder=folder, **TINY)
    assert main(words) == 0
    return folder


def test_the_folder_says_what_was_run_and_what_came_out(finished):
    settings = json.loads((finished / "config.json").read_text())["settings"]
    assert settings == dict(Experiment("particles2d", test_steps=2, **TINY).resolve())
    assert settings["inner_rate"] == 0.1
    records = read_records(finished)
    assert [record["step"] for record in records] == [0, 1, 2]
    assert records[1]["train/return"] == records[1]["train/return_1"]
    test = json.loads((finished / "result.json").read_text())["test"]
    assert set(test) == {name + seen for name in METRICS for seen in ("", "_0", "_2", "_4")}
    assert test["return"] == test["return_4"]
    assert test["return"]["num_tasks"] == 3
    report = (finished / "report.md").read_text()
    assert "# promp on particles2d\n\n**2-episode test return -" in report
    assert "transductive" not in report


@pytest.mark.slow
def test_the_test_is_an_adaptation_curve_in_held_out_tasks(finished):
    parts: Any = Experiment("particles2d", test_steps=2, **TINY).build()
    meta = jaxmeta.best_meta(finished, parts.meta)
    env = envs.make("particles2d", horizon=4)
    policy = rl.GaussianPolicy(2, (4, 4))
    halved = rl.adaptation_curve(
        rl.Collector(env=env, policy=policy.apply, episodes=2),
        optax.sgd(lambda count: jnp.where(jnp.asarray(count) > 0, 0.05, 0.1)),
        2,
    )
    task_key, key = jax.random.split(parts.test_key)
    curve = jax.jit(halved)(meta, env.sample_tasks(task_key, 3, split="test"), key)
    found = jaxmeta.evaluate_run(finished)
    np.testing.assert_allclose(found["return_2"].mean, curve.sampled[:, 1].mean(), rtol=1e-5)
    np.testing.assert_allclose(found["mode_return"].mean, curve.mode[:, -1].mean(), rtol=1e-5)


def gif_frames(path):
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGB"), int) for frame in ImageSequence.Iterator(image)]


def test_a_film_is_an_episode_of_the_policy(finished, tmp_path):
    run = jaxmeta.load_run(finished)
    assert run.film(tmp_path / "after.gif", 1) == tmp_path / "after.gif"
    frames = gif_frames(tmp_path / "after.gif")
    assert len(frames) == 4 and (frames[0] != frames[-1]).any()
    assert "<h2>The first test task</h2>" in (finished / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["rl2", "promp"])
@pytest.mark.parametrize("environment", ["dark-room", "gridworld", "rule-world"])
def test_runs_in_grids_end_with_a_film(environment, learner, tmp_path):
    run = Experiment(environment, learner, **TINY).run(tmp_path / "run", progress=False)
    assert np.isfinite(run.test["return"].mean)
    assert "<h2>The first test task</h2>" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_films_are_of_the_tasks_of_the_test(finished):
    run = jaxmeta.load_run(finished)
    parts: Any = Experiment("particles2d", test_steps=2, **TINY).build()
    task_key, _ = jax.random.split(parts.test_key)
    goal = envs.make("particles2d").sample_tasks(task_key, 3, split="test")["goal"][1]
    states = parts.film(run.meta, 1)
    assert states.obs.shape == (3, 4, 2) and (states.info["task"]["goal"] == goal[None, None]).all()
    assert (states.obs[0] != states.obs[2]).any()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": "a.html"}, ".html does not apply to particles2d. Save a .gif"),
        ({"path": "a.png"}, "the ending of path must be one of '.html', '.gif', '.mp4', got '.png'"),
        ({"path": "a.gif", "task": 3}, "task must be below 3, the number of test tasks, got 3"),
        pytest.param(
            {"path": "a.gif", "step": 3}, "step must be at most 2, got 3", marks=pytest.mark.slow, id="no-such-step"
        ),
    ],
)
def test_films_that_there_are_not(finished, given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        jaxmeta.load_run(finished).film(**given)


def test_a_report_of_a_policy_has_a_floor_and_a_ceiling(finished):
    result = json.loads((finished / "result.json").read_text())
    assert [step["number"] for step in result["steps"]] == [0, 2, 4]  # of two episodes each
    for name in METRICS:
        assert [step[name] for step in result["steps"]] == [result["test"][f"{name}_{i}"] for i in (0, 2, 4)]
    floors = {name: values["return"]["mean"] for name, values in result["floors"].items()}
    parts: Any = Experiment("particles2d", **TINY).build()
    task_key, _ = jax.random.split(parts.test_key)
    tasks = envs.make("particles2d", horizon=4).sample_tasks(task_key, 3, split="test")
    distances = np.linalg.norm(tasks["goal"], axis=-1)
    assert floors["a policy that does nothing useful"] == pytest.approx(-4 * distances.mean(), rel=1e-5)
    assert floors["a policy that knows the task"] > floors["a policy that does nothing useful"]


def test_evaluate_takes_other_settings_and_refuses_what_does_not_apply(finished):
    found = jaxmeta.evaluate_run(finished, test_steps=1, num_tasks=2)
    assert set(found) == {name + seen for name in METRICS for seen in ("", "_0", "_2")}
    with pytest.raises(ValueError, match="test_queries does not apply to promp on particles2d"):
        jaxmeta.evaluate_run(finished, test_queries=3)
    with pytest.raises(ValueError, match="ways of promp cannot be changed"):
        jaxmeta.evaluate_run(finished, ways=3)
    with pytest.raises(ValueError, match="num_tasks must be an integer of at least 1, got 0"):
        jaxmeta.evaluate_run(finished, num_tasks=0)


def test_a_result_holds_the_returns_in_each_task(finished):
    result = json.loads((finished / "result.json").read_text())
    kept = {name: np.array(result["returns"][name], float) for name in ("sampled", "mode", "floor", "oracle")}
    assert result["returns"]["episodes"] == [0, 2, 4] and result["returns"]["names"] == []
    np.testing.assert_allclose(kept["mode"].mean(0), [result["test"][f"mode_return_{i}"]["mean"] for i in (0, 2, 4)])
    score = (kept["sampled"][:, -1] - kept["floor"]) / (kept["oracle"] - kept["floor"])
    np.testing.assert_allclose(score.mean(), result["test"]["score"]["mean"], rtol=1e-4)


def test_runs_of_policies_side_by_side(finished, tmp_path, capsys):
    assert main(["compare", str(finished), str(finished), "--plot", str(tmp_path / "plot.png")]) == 0
    runs, table = capsys.readouterr().out.split("\n\n")
    assert len(runs.splitlines()) == 3
    title, head, promp, floor, oracle = table.splitlines()
    assert title.startswith("particles2d, variant l2l, horizon 4: mean return") and head.split()[:5] == HEAD
    test = json.loads((finished / "result.json").read_text())["test"]
    assert promp.split()[:5] == ["promp", "2", *(f"{test[f'return_{i}']['mean']:.4g}" for i in (0, 2, 4))]
    assert floor.startswith("a policy that does nothing useful") and oracle.startswith("a policy that knows the task")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.size == (1760, 640)
    broken = shutil.copytree(finished, tmp_path / "broken")
    result = read_json(broken / "result.json")
    write_json(broken / "result.json", {name: value for name, value in result.items() if name != "returns"})
    assert main(["compare", str(finished), str(broken)]) == 1
    assert "holds records that are damaged (KeyError: 'returns')" in capsys.readouterr().err


def test_another_run_in_its_folder_is_refused(finished, capsys):
    assert main(command("train", benchmark="particles2d", folder=finished, **TINY)) == 1
    assert "holds another run (test_steps was 2, now 3)" in capsys.readouterr().err
    assert main(command("train", folder=finished)) == 1
    assert "benchmark was 'particles2d', now 'glyphs'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_was_interrupted_resumes_to_the_same_numbers(finished, tmp_path):
    run = Experiment("particles2d", test_steps=2, **TINY)
    dataclasses.replace(run, iterations=1).build().train(tmp_path / "run", None, None, False, ())
    parts = run.build()
    trained = parts.train(tmp_path / "run", None, None, False, ())
    whole = parts.load(finished)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), trained.meta, whole)


PUBLISHED = [
    ("maml-trpo", {"steps": 1, "inner_rate": 0.1, "episodes": 20, "outer_rate": 0.01, "horizon": 100}),
    ("promp", {"steps": 1, "inner_rate": 0.1, "episodes": 20, "outer_rate": 1e-3}),
    ("rl2", {"outer_schedule": "constant", "episodes": 2}),
    ("multi-task-ppo", {"inner_rate": 0.1, "test_steps": 3}),
]


@pytest.mark.parametrize(("learner", "expected"), PUBLISHED)
def test_what_is_left_open_takes_the_published_value(learner, expected):
    resolved = dict(Experiment("particles2d", learner).resolve())
    assert resolved | expected == resolved
    assert Experiment("particles2d", learner, num_tasks=9).resolve().num_tasks == 9
    folder = Experiment("particles2d", learner, episodes=3).default_folder()
    assert str(folder) == f"runs/particles2d-{learner}-3episode-seed0"
