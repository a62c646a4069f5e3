"""Evaluation of policies: returns by episodes seen, scores between floor and oracle, names, and runs side by side."""

import io
import re
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxmeta
from jaxmeta import envs, rl
from jaxmeta.envs import State
from jaxmeta.reports import PolicyRun, Returns, draw_policies, policy_tables

KEY = jax.random.key(0)


class Race:
    """Race whose steps are the actions: it ends at 6 or after four steps. A step pays the task times its length."""

    observation_size, action_size, discrete, horizon = 1, 1, False, 4

    def sample_tasks(self, key, n, *, split="train"):
        return jnp.arange(1.0, n + 1)

    def reset(self, key, task=None):
        zero = jnp.zeros(())
        return State(zero, jnp.zeros(1), zero, zero, {}, {"task": task, "steps": zero, "truncation": zero})

    def step(self, state, action):
        place, steps = state.pipeline_state + action[0], state.info["steps"] + 1
        end, late = place >= 6, steps >= self.horizon
        info = {**state.info, "steps": steps, "truncation": jnp.where(late & ~end, 1.0, 0.0)}
        done = jnp.where(end | late, 1.0, 0.0)
        return State(place, place[None], state.info["task"] * action[0], done, {}, info)

    def oracle_action(self, state):
        return jnp.full(1, 3.0)

    def floor_return(self, task):
        return 2 * task


class Counting:
    """Policy whose action is the number of the step in the trial, plus 1 if it is sampled."""

    def empty_memory(self, *batch):
        return jnp.zeros(batch)

    def apply(self, params, obs, memory):
        return Shifted(memory[:, None] + params), memory + params


@flax.struct.dataclass
class Shifted:
    """Distribution whose samples are the most probable value plus 1."""

    value: Any

    def mode(self):
        return self.value

    def sample(self, key):
        return self.value + 1

    def log_prob(self, action):
        return jnp.zeros(action.shape[:-1])


def race(episodes, first):
    """The positions of each episode of a race with steps `first`, `first` + 1, ..., by plain Python."""
    found, step = [], first
    for _ in range(episodes):
        places = [0]
        while places[-1] < 6 and len(places) < 5:
            places.append(places[-1] + step)
            step += 1
        found.append(places[1:])
    return found


ENV: Any = Race()
TRIAL = rl.Trial(ENV, episodes=3)
POLICY: Any = Counting()
META = jaxmeta.MetaParams(jnp.ones(()))
TASKS = jnp.array([1.0, 2.0])


def played(trial, params, task, key, /, *, mode, states):
    """A function of one's own that plays a trial."""
    options = {"episodes": 1, "memory": POLICY.empty_memory(1), "mode": mode, "states": states}
    return rl.rollout(trial, POLICY.apply, params, task, key, **options)


@pytest.mark.parametrize("policy", [POLICY, played], ids=["network", "function"])
def test_the_episodes_of_a_trial(policy):
    """Episodes of three, two and one steps with the most probable actions, and others with sampled ones."""
    curve = jax.jit(rl.trial_curve(TRIAL, policy, states=True))(META, TASKS, KEY)
    assert curve.episodes.tolist() == [0, 1, 2]
    for found, first in ((curve.mode, 1), (curve.sampled, 2)):
        expected = np.array([places[-1] for places in race(3, first)])
        np.testing.assert_allclose(found, TASKS[:, None] * expected[None])
    assert [len(places) for places in race(3, 1)] == [3, 2, 1]
    stay = [places + [places[-1]] * (4 - len(places)) for places in race(3, 1)]
    for states in (jax.tree.map(lambda x, i=i: x[i], curve.states) for i in range(2)):
        np.testing.assert_allclose(states.pipeline_state, stay)
        assert states.done.tolist() == [[0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]


@pytest.mark.parametrize("sampled", [True, False])
def test_the_returns_of_a_trial_are_sums_of_its_rewards(sampled):
    """By NumPy, from the rewards of trials of a bandit, whose episodes have five steps each."""
    trial = rl.Trial(envs.make("bandit-bernoulli", arms=3, horizon=5), 2)
    policy = rl.RecurrentPolicy(trial.action_size, trial.discrete, rl.GRU(4))
    memory = policy.empty_memory(7)
    params = jax.jit(policy.init)(KEY, jnp.zeros((7, trial.observation_size)), memory)
    task = jax.tree.map(lambda x: x[0], trial.sample_tasks(KEY, 1))
    play = partial(rl.rollout, trial, policy.apply, episodes=7, memory=memory, mode=not sampled)
    data = jax.jit(play)(params, task, KEY)
    expected = np.asarray(data.reward).T.reshape(7, 2, 5).sum(axis=2)
    np.testing.assert_allclose(trial.episode_returns(data), expected)
    assert expected.max() > 0


@pytest.mark.parametrize(
    ("trial", "policy", "message"),
    [
        (ENV, POLICY, "trial must be a Trial"),
        (TRIAL, rl.GaussianPolicy(1), "policy must be a network with a memory, .* got GaussianPolicy"),
        (TRIAL, None, "policy must be a network with a memory, .* got None"),
        (TRIAL, Counting, "policy must be a network with a memory"),
    ],
)
def test_what_is_no_trial_and_no_policy(trial, policy, message):
    with pytest.raises(TypeError, match=message):
        rl.trial_curve(trial, policy)


# Scores.

CERTAIN = envs.BernoulliBandit(arms=3, horizon=8)
POINT = envs.Particles2D(horizon=10)
GAUSS = envs.GaussianBandit(arms=2, horizon=9)
SCALES = {
    "certain-arms": (CERTAIN, {"means": [[0.0, 1.0, 0.5], [1.0, 1.0, 1.0]]}, [4.0, 8.0], [8.0, 8.0], 0.0),
    "noisy-arms": (GAUSS, {"means": [[-1.0, 3.0], [0.5, 0.0]]}, [9.0, 2.25], [27.0, 4.5], 4 * 3 / 20),
    "point": (POINT, {"goal": [[0.35, 0.0], [0.0, 0.0], [0.1, -0.1]]}, [-3.5, 0.0, -np.sqrt(2)], [-0.45, 0, 0], 0.0),
    "ends": (ENV, np.array([1.0, 4.0]), [2.0, 8.0], [6.0, 24.0], 0.0),
}


@pytest.mark.parametrize("name", SCALES)
def test_floor_and_oracle_against_closed_forms(name):
    """The best arm at every step, straight to the goal, and nothing after the end of an episode."""
    env, tasks, floor, oracle, noise = SCALES[name]
    tasks = jax.tree.map(jnp.asarray, tasks, is_leaf=lambda x: isinstance(x, list))
    scale = jax.jit(lambda tasks: rl.score_scale(env, tasks, KEY, episodes=400))(tasks)
    np.testing.assert_allclose(scale.floor, floor, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scale.oracle, oracle, rtol=1e-5, atol=noise + 1e-5)


def test_scores_are_defined_where_the_oracle_is_above_the_floor():
    scale = rl.ScoreScale(jnp.array([0.0, 1.0, 2.0]), jnp.array([4.0, 1.0, 1.0]))
    found: Any = scale.score(jnp.array([[0.0, 4.0, 1.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]))
    np.testing.assert_allclose(found, [[0, 1, 0.25], [np.nan] * 3, [np.nan] * 3])
    one: Any = scale.score([2.0, 2.0, 2.0])
    assert one[0] == 0.5
    assert rl.ScoreScale(None, scale.oracle).score([2.0, 2.0, 2.0]) is None
    pendulum = envs.make("pendulum")
    nothing = rl.score_scale(pendulum, pendulum.sample_tasks(KEY, 2), KEY)
    assert nothing.oracle is None and nothing.score(jnp.zeros(2)) is None
    with pytest.raises(ValueError, match="episodes must be an integer of at least 1, got 0"):
        rl.score_scale(POINT, POINT.sample_tasks(KEY, 1), KEY, episodes=0)


def test_runs_that_are_drawn_whole():
    """If all tasks of a run have one score, the tasks do not make the interval narrower."""
    runs = np.array([0.1, 0.5, 0.6, 0.9])
    table = np.repeat(runs[:, None], 50, axis=1)
    alone, whole = rl.interquartile_mean(runs), rl.interquartile_mean(table, whole_runs=True)
    apart = rl.interquartile_mean(table)
    np.testing.assert_allclose(whole.value, alone.value)
    np.testing.assert_allclose([whole.low, whole.high], [alone.low, alone.high], atol=0.05)
    assert apart.high - apart.low < 0.5 * (whole.high - whole.low)


# Names of tasks.


@pytest.mark.parametrize(
    ("env", "task", "name"),
    [
        (envs.HalfCheetahForwardBackward(), {"direction": 1.0}, "forward"),
        (envs.AntForwardBackward(), {"direction": -1.0}, "backward"),
        (envs.HumanoidForwardBackward(), {"direction": np.float32(1)}, "forward"),
        (envs.Particles2D(goals="corners"), {"goal": np.array([0.5, 0.5])}, "top right"),
        (envs.Particles2D(goals="corners"), {"goal": np.array([-0.5, -0.5])}, "bottom left"),
        (envs.Particles2D(), {"goal": np.array([0.3, 0.2])}, None),
    ],
)
def test_names_of_tasks(env, task, name):
    assert env.task_name(task) == name


# Runs side by side.


def returns(sampled, mode=None, **options):
    """Returns in three tasks of which the last has no score; two have names."""
    sampled = np.asarray(sampled, float)
    known = {"floor": np.array([0.0, 10.0, 1.0]), "oracle": np.array([10.0, 20.0, 1.0]), "names": ("up", "down", None)}
    mode = sampled if mode is None else np.asarray(mode, float)
    return Returns(np.arange(sampled.shape[1]), sampled, mode, **(known | options))


FIRST = returns([[0.0, 5.0], [10.0, 12.0], [7.0, 9.0]], [[1.0, 10.0], [11.0, 20.0], [0.0, 0.0]])
SECOND = returns([[2.0, 9.0], [12.0, 18.0], [7.0, 9.0]])


def test_the_metrics_of_a_test():
    found = FIRST.metrics
    expected = {
        "return": [5, 12, 9],
        "mode_return": [10, 20, 0],
        "score": [0.5, 0.2],
        "mode_score": [1, 1],
        "return (up)": [5],
        "return (down)": [12],
        "return_0": [0, 10, 7],
        "mode_score_0": [0.1, 0.1],
        "return_0 (down)": [10],
        "return_1 (up)": [5],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)
    bare = returns([[1.0], [2.0], [3.0]], floor=None, oracle=None, names=())
    assert set(bare.metrics) == {"return", "mode_return", "return_0", "mode_return_0"}


@pytest.mark.parametrize("given", [FIRST, returns([[1.0], [2.0], [3.0]], floor=None, names=())])
def test_a_record_gives_the_same_returns(given):
    again = Returns.from_record(given.as_record())
    jax.tree.map(np.testing.assert_array_equal, again._replace(names=()), given._replace(names=()))
    assert again.names == given.names


@pytest.mark.parametrize(
    ("change", "error"),
    [({"mode": [[1.0]]}, ValueError), ({"episodes": [0]}, ValueError), ({"names": ["up"]}, ValueError)],
)
def test_records_that_do_not_go_together(change, error):
    with pytest.raises(error):
        Returns.from_record(FIRST.as_record() | change)


def run_of(learner, seed, tested, benchmark="particles2d", **options):
    settings = {"benchmark": benchmark, "learner": learner, "horizon": 10, "seed": seed, **options}
    return PolicyRun(settings, tested, [{"step": 0, "validation/return": 1.0}, {"step": 5, "validation/return": 2.0}])


def cells(table):
    return [re.split(r"  +", line.strip()) for line in table.splitlines()]


def test_the_table_of_runs():
    """Runs that differ by the seed are one line, and those without a test are left out."""
    runs = [run_of("promp", 0, FIRST), run_of("promp", 1, SECOND), run_of("rl2", 0, None), run_of("pearl", 0, SECOND)]
    title, head, promp, pearl, floor, oracle = policy_tables(runs).splitlines()
    assert title.startswith("particles2d, horizon 10: mean return by episodes seen")
    assert cells(head) == [["learner", "runs", "0", "1", "score [95 %]", "mode score [95 %]", "down", "up"]]
    scores = np.array([[0.5, 0.2], [0.9, 0.8]])
    expected = rl.interquartile_mean(scores, whole_runs=True)
    modes = rl.interquartile_mean(np.array([[1.0, 1.0], [0.9, 0.8]]), whole_runs=True)
    means = f"{(0 + 10 + 7 + 2 + 12 + 7) / 6:.4g}", f"{(5 + 12 + 9 + 9 + 18 + 9) / 6:.4g}"
    assert cells(promp) == [["promp", "2", *means, str(expected), str(modes), "15", "7"]]
    assert expected.value == pytest.approx(np.mean([0.5, 0.8])) and expected.low < expected.value < expected.high
    assert cells(pearl)[0][:5] == ["pearl", "1", "7", "12", "0.85 [0.85, 0.85]"]
    assert cells(floor) == [["a policy that does nothing useful", "3.667", "3.667", "0.00", "0.00"]]
    assert cells(oracle) == [["a policy that knows the task", "10.33", "10.33", "1.00", "1.00"]]


def test_environments_and_settings_are_told_apart():
    unknown = returns([[4.0], [5.0], [6.0]], oracle=None, names=())
    runs = [run_of("promp", 0, FIRST, inner_rate=0.1), run_of("promp", 0, SECOND, inner_rate=0.2)]
    runs += [run_of("rl2", 0, unknown, "tabular")]
    first, second = policy_tables(runs).split("\n\n")
    assert [row[0] for row in cells(first)[2:4]] == ["promp, inner_rate 0.1", "promp, inner_rate 0.2"]
    head, rl2, floor = cells(second)[1:]
    assert head == ["learner", "runs", "0", "return [95 %]", "mode return [95 %]"]
    assert rl2 == ["rl2", "1", "5", *["5.00 [5.00, 5.00]"] * 2]
    assert floor == ["a policy that does nothing useful", "3.667"]


def test_the_figure_has_a_row_for_each_environment():
    runs = [run_of("promp", 0, FIRST), run_of("promp", 1, SECOND)]
    runs += [
        run_of("rl2", 0, SECOND._replace(episodes=np.array([0, 40])), "tabular"),
        run_of("rl2", 0, None, "pendulum"),
    ]
    with Image.open(io.BytesIO(draw_policies(runs))) as image:
        assert image.size == (1760, 3 * 640)
        assert len(np.unique(np.asarray(image.convert("L")))) > 20
