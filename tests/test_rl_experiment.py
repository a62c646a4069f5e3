"""Meta-reinforcement learning from the command line: what is trained, tested, left in the folder, gone on with."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import RLExperiment, envs, rl
from jaxmeta.__main__ import main
from jaxmeta.runs._rl_recipes import POLICY_RECIPES

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


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "promp"
    words = command("train", benchmark="particles2d", learner="promp", test_steps=2, folder=folder, **TINY)
    assert main(words) == 0
    return folder


def test_the_folder_says_what_was_run_and_what_came_out(finished):
    config = json.loads((finished / "config.json").read_text())["experiment"]
    assert RLExperiment(**config) == RLExperiment(test_steps=2, **TINY).resolve()
    assert config["inner_rate"] == 0.1
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2]
    assert records[0]["train/return"] == records[0]["train/return_1"]
    test = json.loads((finished / "result.json").read_text())["test"]
    assert set(test) == {"return", "return_0", "return_1", "return_2", "mode_return"}
    assert test["return"] == test["return_2"]
    assert test["return"]["num_tasks"] == 3
    assert "# promp on particles2d\n\n**2-episode test return -" in (finished / "report.md").read_text()


def test_the_test_is_an_adaptation_curve_in_held_out_tasks(finished):
    run = RLExperiment(test_steps=2, **TINY)
    parts = run.build()
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
    np.testing.assert_allclose(found["return_1"].mean, curve.sampled[:, 1].mean(), rtol=1e-5)
    np.testing.assert_allclose(found["mode_return"].mean, curve.mode[:, -1].mean(), rtol=1e-5)


def test_evaluate_takes_other_settings_and_refuses_what_does_not_apply(finished, capsys):
    assert set(jaxmeta.evaluate_run(finished, test_steps=1, num_tasks=2)) == {
        "return",
        "return_0",
        "return_1",
        "mode_return",
    }
    with pytest.raises(ValueError, match="test_queries does not apply to particles2d, got 3"):
        jaxmeta.evaluate_run(finished, test_queries=3)
    with pytest.raises(ValueError, match="ways of promp cannot be changed"):
        jaxmeta.evaluate_run(finished, ways=3)


def test_another_run_in_its_folder_is_refused(finished, capsys):
    assert main(command("train", benchmark="particles2d", folder=finished, **TINY)) == 1
    assert "holds another run (test_steps was 2, now 3)" in capsys.readouterr().err
    assert main(command("train", folder=finished)) == 1
    assert "benchmark was 'particles2d', now 'glyphs'" in capsys.readouterr().err


def test_a_run_that_was_cut_goes_on_to_the_same_numbers(finished, tmp_path):
    run = RLExperiment(test_steps=2, **TINY)
    dataclasses.replace(run, iterations=1).build().train(tmp_path / "run", None, False)
    parts = run.build()
    trained = parts.train(tmp_path / "run", None, False)
    whole = jaxmeta.best_meta(finished, parts.meta)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), trained.meta, whole)


@pytest.mark.parametrize(
    ("benchmark", "learner"),
    [("particles2d", learner) for learner in POLICY_RECIPES]
    + [
        pytest.param("bandit-bernoulli", name, marks=() if name in ("promp", "rl2", "pearl") else pytest.mark.slow)
        for name in POLICY_RECIPES
    ],
)
def test_every_learner_builds_on_every_kind_of_action(learner, benchmark):
    run = RLExperiment(benchmark, learner, **{k: v for k, v in TINY.items() if k != "iterations"})
    if learner == "pearl" and benchmark == "bandit-bernoulli":
        with pytest.raises(ValueError, match="pearl needs continuous actions"):
            run.build()
        return
    parts = run.build()
    agent = parts.agent_on(None)
    state = jax.eval_shape(agent.training.init, parts.meta.params)
    new, metrics = jax.eval_shape(agent.training.step, state, parts.train_key)
    assert jax.tree.map(np.shape, new) == jax.tree.map(np.shape, state)
    assert "loss" in metrics
    tasks = parts.env.sample_tasks(parts.test_key, 3, split="test")
    test = jax.eval_shape(agent.test, parts.meta, tasks, parts.test_key)
    assert test["return"].shape == (3,)


PUBLISHED = [
    ("maml-trpo", {"steps": 1, "inner_rate": 0.1, "episodes": 20, "outer_rate": 0.01, "horizon": 100}),
    ("promp", {"steps": 1, "inner_rate": 0.1, "episodes": 20, "outer_rate": 1e-3}),
    ("rl2", {"steps": None, "inner_rate": None, "outer_schedule": "constant"}),
    ("multi-task-ppo", {"steps": None, "inner_rate": 0.1, "test_steps": 3}),
]


@pytest.mark.parametrize(("learner", "expected"), PUBLISHED)
def test_what_is_left_open_takes_the_published_value(learner, expected):
    resolved = dataclasses.asdict(RLExperiment(learner=learner).resolve())
    assert resolved | expected == resolved
    assert RLExperiment(learner=learner, num_tasks=9).resolve().num_tasks == 9
    assert (
        str(RLExperiment(learner=learner, episodes=3).default_folder()) == f"runs/particles2d-{learner}-3episode-seed0"
    )


@pytest.mark.slow
@pytest.mark.parametrize("learner", POLICY_RECIPES)
def test_learners_run_from_the_command_line(learner, tmp_path, capsys):
    words = command("train", benchmark="particles2d", learner=learner, folder=tmp_path / "run", **TINY)
    assert main(words) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test"]["return"]["finite"] == 1.0
