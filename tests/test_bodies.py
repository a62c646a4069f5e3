"""The scores and the table of `experiments/bodies.py` from made-up lines, and the lines that it skips."""

import importlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import envs, rl

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
MODULES = ("bodies", "bodies_page", "bodies_parts")


@pytest.fixture
def bodies(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    yield importlib.import_module("bodies")
    for name in MODULES:
        sys.modules.pop(name)


def line(kind, episodes=(0, 20), horizon=200, **returns):
    """A line whose tasks have the given returns, `[seeds, n]`."""
    found = {task: {"sampled": values, "mode": values} for task, values in returns.items()}
    settings = {"horizon": horizon, "action_scale": 0.1}
    times = {"updates": 7, "steps_per_s": 4000.4, "compile_s": 31.4, "seconds": 90.0}
    part = {"part": f"body/{kind}", "environment": "body", "kind": kind, "settings": settings}
    return {**part, "episodes": list(episodes), "returns": found, **times}


RANDOM = line("random", forward=[[0.0, 1.0], [4.0, 1.0]], backward=[[-2.0, 1.0], [-2.0, 1.0]])
ORACLE = line("oracle", (0,), forward=[[102.0], [102.0]], backward=[[-2.0], [-4.0]])
PROMP = line("promp", forward=[[2.0, 52.0], [2.0, 92.0]], backward=[[0.0, 9.0], [0.0, 9.0]])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([RANDOM, ORACLE, PROMP], {"forward": [0.0, 0.7]}),  # backward, the oracle is below random play
        ([RANDOM, PROMP], {}),
        ([line("random", horizon=100, forward=[[0.0, 0.0]]), ORACLE, PROMP], {}),  # another scale
    ],
)
def test_scores_lie_between_random_play_and_the_oracle(bodies, lines, expected):
    found = bodies.bodies_page.scores(PROMP, lines)
    assert found.keys() == expected.keys()
    for task in expected:
        np.testing.assert_allclose(found[task], expected[task])


def test_the_table_has_a_row_for_each_task(bodies):
    head, rule, *rows = bodies.bodies_page.table([RANDOM, ORACLE, PROMP]).splitlines()
    assert len(rows) == 6 and len({row.count("|") for row in (head, rule, *rows)}) == 1
    assert rows[4] == (
        "| body | promp | forward | 2.0, 72.0 | 2.0, 72.0 | +70.0 ± 28 | 0.00, 0.70 | 7 | 2 | 4,000 | 31 | 1.5 |"
    )
    assert rows[2].split(" | ")[5] == ""  # an oracle does not adapt


def test_numbers_become_those_of_json(bodies):
    found = bodies.rounded({"a": np.array([[1.23456789, 2.0]]), "b": [np.float64(3.0), 4], "c": "d"})
    assert json.loads(json.dumps(found)) == {"a": [[1.2346, 2.0]], "b": [3.0, 4], "c": "d"}


def test_a_part_with_its_line_is_skipped_and_one_with_other_settings_is_not(bodies, monkeypatch, tmp_path):
    measured = []

    def measure(args, part):
        measured.append((part, args.seeds))
        settings = {name: getattr(args, name) for name in bodies.SETTINGS}
        return {**line(part.split("/")[1], forward=[[0.0, 1.0]]), "part": part, "settings": settings}

    monkeypatch.setattr(bodies, "measure", measure)
    parts = ("half-cheetah-velocity/random", "ant-direction/promp")
    for seeds in (3, 3, 2):
        bodies.main(bodies.Args(parts=parts[: seeds - 1], seeds=seeds, output=tmp_path / "lines.jsonl"))
    assert measured == [(parts[0], 3), (parts[1], 3), (parts[0], 2)]
    assert len((tmp_path / "lines.jsonl").read_text().splitlines()) == 3
    with pytest.raises(ValueError, match="parts must be among half-cheetah-forward-backward/random, .*, got legs"):
        bodies.main(bodies.Args(parts=("legs",), output=tmp_path / "lines.jsonl"))


GOALS = {"goal": jnp.array([[0.3, 0.0], [0.0, -0.4]])}
KEY = jax.random.key(0)


@pytest.fixture
def parts(bodies, monkeypatch):
    """The parts with particles in place of bodies, which compile in no time."""
    found = importlib.import_module("bodies_parts")
    monkeypatch.setitem(found.ENVIRONMENTS, "particles2d", {})
    monkeypatch.setitem(found.TASKS, "particles2d", {"right": {"goal": [0.3, 0.0]}, "down": {"goal": [0.0, -0.4]}})
    return found


def sizes(parts):
    return parts.Sizes(horizon=4, num_tasks=8, episodes=3, steps=2, repeats=5, action_scale=0.5, film=True)


@pytest.mark.parametrize("kind", ["random", "oracle", "promp", "multi-task-ppo", "maml-trpo", "rl2"])
@pytest.mark.quick("random")
def test_each_kind_trains_and_is_tested_in_the_named_tasks(parts, kind):
    """A batch of seeds, as the experiment runs it, with the states of one episode for each number of episodes."""
    program = parts.make_program("particles2d", kind, sizes(parts))
    keys = jax.random.split(KEY, 2)
    states = jax.jit(jax.vmap(program.start))(keys)
    before = jax.tree.leaves(states.meta.params)
    if program.step is not None:
        states, metrics = jax.jit(jax.vmap(program.step))(states, keys)
        assert np.isfinite(metrics["loss"]).all()
        after = jax.tree.leaves(states.meta.params)
        assert all((np.abs(x - y).max() > 0) for x, y in zip(before, after, strict=True))
    curve = jax.jit(jax.vmap(program.curve))(states, keys)
    seen = {"oracle": [0], "rl2": [0, 1]}.get(kind, [0, 3, 6])
    assert curve.episodes.tolist() == [seen, seen]
    assert curve.sampled.shape == curve.mode.shape == (2, 2, 5, len(seen))
    assert curve.states.obs.shape == (2, 2, len(seen), 4, 2)
    goals = np.broadcast_to(GOALS["goal"][None, :, None, None], (2, 2, len(seen), 4, 2))
    np.testing.assert_allclose(curve.states.info["task"]["goal"], goals)


def test_an_oracle_is_ppo_in_its_task_alone(parts):
    class Alone(envs.Particles2D):
        def draw_task(self, key, split):
            return {"goal": GOALS["goal"][1]}

    program = parts.make_program("particles2d", "oracle", sizes(parts))
    start_key, step_key = jax.random.split(KEY)
    state = jax.jit(program.start)(start_key)
    found, _ = jax.jit(program.step)(state, step_key)
    env = envs.ScaledActions(Alone(horizon=4), 0.5)
    collect = rl.Collector(env=env, policy=rl.GaussianPolicy(2).apply, episodes=3)
    training = rl.multi_task_ppo(collect, num_tasks=2, epochs=10)
    mine = jax.tree.map(lambda x: x[1], (state, found))
    expected, _ = jax.jit(training.step)(mine[0], jax.random.split(step_key, 2)[1])
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), mine[1].meta.params, expected.meta.params
    )
