"""Environments on grids: against plain simulations, exhaustive searches and counts."""

import dataclasses
import functools
import itertools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check

from jaxmeta import envs
from jaxmeta.envs import DarkRoom, GridNavigation
from jaxmeta.testing import check_env

KEY = jax.random.key(0)
FIXED: dict[str, Any] = {"fixed_start": True}
WALK = [(0, 0), (-1, 0), (0, 1), (1, 0), (0, -1)]  # stay, up, right, down, left


@pytest.mark.parametrize(
    ("name", "variant", "flags"),
    [
        ("gridworld", None, {**FIXED, "shared_tasks": True}),
        ("dark-room", "ad", FIXED),
        ("dark-room", "ad-hard", FIXED),
        ("dark-room", "key-to-door", FIXED),
    ],
    ids=str,
)
def test_is_a_meta_env(name, variant, flags):
    check_env(envs.make(name, variant=variant, horizon=6), **flags)


def play(env, task, actions):
    """Returns all states of an episode, the first one included, as NumPy arrays."""

    def step(state, action):
        state = env.step(state, action)
        return state, state

    def episode():
        first = env.reset(KEY, task)
        rest = jax.lax.scan(step, first, jnp.asarray(actions))[1]
        return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, rest)

    return jax.tree.map(np.asarray, jax.jit(episode)())


def oracle_rewards(env, task):
    """Returns the rewards of the oracle's episode."""

    def step(state, _):
        state = env.step(state, env.oracle_action(state))
        return state, state.reward

    return np.asarray(jax.jit(lambda: jax.lax.scan(step, env.reset(KEY, task), length=env.horizon)[1])())


def walked(start, actions, size):
    """Returns the cells after each action."""
    cells, cell = [], start
    for action in actions:
        cell = tuple(min(max(x + dx, 0), size - 1) for x, dx in zip(cell, WALK[action], strict=True))
        cells.append(cell)
    return cells


@pytest.mark.parametrize("observation", ["position", "one-hot"])
def test_gridworld_steps(observation):
    env = GridNavigation(size=4, observation=observation)
    actions = np.random.default_rng(0).integers(0, 5, 60)
    cells = walked((3, 0), actions, 4)
    goal = max(set(cells), key=cells.count)
    states = play(env, {"goal": jnp.array(goal)}, actions)
    expected = np.array([1.0 if cell == goal else -0.1 for cell in cells])
    np.testing.assert_allclose(states.reward[1:], expected)
    np.testing.assert_array_equal(states.metrics["at_goal"][1:], expected == 1)
    rows, columns = np.array([(3, 0), *cells]).T
    obs = np.eye(16)[4 * rows + columns]
    if observation == "position":
        obs = np.stack([rows, columns], axis=-1) / 1.5 - 1
    np.testing.assert_allclose(states.obs, obs, atol=1e-6)


def test_gridworld_goals():
    """There are 21 goals: VariBAD leaves out the start and the three cells around it."""
    goals, counts = np.unique(GridNavigation().sample_tasks(KEY, 4200)["goal"], axis=0, return_counts=True)
    allowed = [cell for cell in itertools.product(range(5), repeat=2) if cell not in [(4, 0), (3, 0), (3, 1), (4, 1)]]
    assert goals.tolist() == [list(cell) for cell in allowed] and len(goals) == 21
    assert ((counts - 200) ** 2 / 200).sum() < 45  # chi-squared with 20 degrees of freedom, p = 0.001


def bayes_adaptive_returns(size, horizon, episodes):
    """Solves the Bayes-adaptive decision process without any assumption on what its policy does."""
    start = (size - 1, 0)
    goals = [c for c in itertools.product(range(size), repeat=2) if not (c[0] >= size - 2 and c[1] <= 1)]

    @functools.cache
    def best(episode, time, cell, belief):
        if time == horizon:
            episode, time, cell = episode + 1, 0, start
        if episode == episodes:
            return np.zeros(episodes)
        options = []
        for action in range(5):
            (after,) = walked(cell, [action], size)
            total = np.zeros(episodes)
            for outcome in ({after} & belief, belief - {after}):
                if outcome:
                    rest = best(episode, time + 1, after, frozenset(outcome)).copy()
                    rest[episode] += 1 if after in outcome else -0.1
                    total += len(outcome) / len(belief) * rest
            options.append(total)
        return max(options, key=lambda x: (round(x.sum(), 9), round(x[0], 9)))

    return best(0, 0, start, frozenset(goals))


@pytest.mark.parametrize(
    ("size", "horizon", "episodes"), [(3, 6, 1), (3, 6, 3), (3, 3, 3), (3, 4, 2), (4, 6, 1), (4, 5, 2)]
)
def test_bayes_optimal_return(size, horizon, episodes):
    env = GridNavigation(size=size, horizon=horizon)
    expected = bayes_adaptive_returns(size, horizon, episodes)
    np.testing.assert_allclose(env.bayes_optimal_return(episodes), expected, atol=1e-9)


def test_bayes_optimal_return_of_the_paper():
    """In VariBAD's world 14 of 21 goals fit into the first episode, one in each step but the first."""
    returns = GridNavigation().bayes_optimal_return(4)
    at_step = [-0.1 * (t - 1) + 15 - t + 1 for t in range(2, 16)]
    known = [-0.1 * (d - 1) + 15 - d + 1 for d in range(2, 9) for _ in range([0, 0, 2, 4, 5, 4, 3, 2, 1][d])]
    assert len(known) == 21
    np.testing.assert_allclose(returns[0], (sum(at_step) - 1.5 * 7) / 21)
    np.testing.assert_allclose(returns[2:], np.mean(known))
    assert returns[1] <= returns[2]


@pytest.mark.parametrize(
    ("env", "task", "floor", "best"),
    [
        (GridNavigation(), {"goal": [1, 3]}, -1.5, 10 - 0.5),
        (GridNavigation(horizon=4), {"goal": [0, 4]}, -0.4, -0.4),
        (DarkRoom(), {"goal": [1, 8]}, 0, 14),
        (DarkRoom(), {"goal": [4, 4]}, 20, 20),
        (DarkRoom(sparse=True), {"goal": [1, 8]}, 0, 1),
        (DarkRoom(sparse=True), {"goal": [4, 4]}, 1, 1),
        (DarkRoom(key=True), {"goal": [1, 8], "key": [4, 4]}, 1, 2),
        (DarkRoom(key=True), {"goal": [1, 8], "key": [8, 8]}, 0, 2),
        (DarkRoom(key=True, horizon=14), {"goal": [1, 8], "key": [8, 8]}, 0, 1),
        (DarkRoom(key=True), {"goal": [4, 4], "key": [4, 4]}, 2, 2),
        (DarkRoom(key=True, horizon=1), {"goal": [4, 4], "key": [4, 4]}, 1, 1),
    ],
    ids=str,
)
def test_floor_and_oracle(env, task, floor, best):
    task = jax.tree.map(jnp.array, task, is_leaf=lambda x: isinstance(x, list))
    staying = play(env, task, np.zeros(env.horizon, int)).reward.sum()
    assert float(env.floor_return(task)) == pytest.approx(floor, abs=1e-5) == staying
    assert oracle_rewards(env, task).sum() == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize(("sparse", "key"), [(False, False), (True, False), (False, True)])
def test_dark_room_steps(sparse, key):
    env = DarkRoom(size=3, sparse=sparse, key=key)
    actions = np.random.default_rng(1).integers(0, 5, 60)
    cells = walked((1, 1), actions, 3)
    task = {"goal": (0, 1), "key": (2, 2)}
    rewards, has_key, paid = [], [], False
    for cell in cells:
        had = bool(has_key and has_key[-1])
        pays = cell == task["goal"] and (had or not key) and not (paid and (sparse or key))
        paid |= pays
        rewards.append(pays + (key and cell == task["key"] and not had))
        has_key.append(had or cell == task["key"])
    states = play(env, {name: jnp.array(task[name]) for name in (["goal", "key"] if key else ["goal"])}, actions)
    np.testing.assert_array_equal(states.reward[1:], rewards)
    assert sum(rewards) == (2 if key else 1 if sparse else cells.count((0, 1)))
    assert cells.count((0, 1)) > 1 and 0 < sum(has_key) < 60
    for obs, cell, has in zip(states.obs[1:], cells, has_key, strict=True):
        assert np.argwhere(obs[..., 0]).tolist() == [list(cell)]
        walls = [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
        np.testing.assert_array_equal(obs[..., 1], np.full((3, 3), has) if key else walls)


def test_dark_room_goals():
    """Every row and column of nine has one or two held-out goals, and all others are for training."""
    seen = {
        split: np.unique(DarkRoom().sample_tasks(KEY, 3000, split=split)["goal"], axis=0) for split in ("train", "test")
    }
    mask = np.zeros((9, 9), int)
    for split, value in (("train", 1), ("test", 2)):
        mask[tuple(seen[split].T)] += value
    assert set(mask.ravel().tolist()) == {1, 2} and (mask == 2).sum() == 16
    assert set((mask == 2).sum(axis=0).tolist()) | set((mask == 2).sum(axis=1).tolist()) <= {1, 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named(DarkRoom):
    """Dark room whose observation is a dictionary, by default one that is what it says."""

    fault: str = ""

    @property
    def observation_size(self) -> Any:
        names: dict[str, Any] = {"image": super().observation_size, "parts": {"cell": 2, "number": ()}}
        return {"none": 1} if self.fault == "names" else {**names, "image": (3, 3)} if self.fault == "shape" else names

    def begin(self, key, task) -> Any:
        state, image = super().begin(key, task)
        return state, self.named(state, image)

    def move(self, pipeline_state, action, task):
        outcome = super().move(pipeline_state, action, task)
        cell = task["goal"] if self.fault == "leak" else outcome.pipeline_state["cell"]
        return dataclasses.replace(outcome, obs=self.named({"cell": cell}, outcome.obs))

    def named(self, state, image):
        return {"image": image, "parts": {"cell": state["cell"].astype(float), "number": jnp.uint8(3)}}


def test_check_env_takes_dictionaries():
    check_env(Named(size=3, horizon=3), **FIXED)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("names", "observation_size is {'none': 1}"),
        ("shape", r"observation_size\['image'\] is \(3, 3\)"),
        ("leak", "the observation tells the task"),
    ],
)
def test_check_env_finds_faults_of_dictionaries(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_env(Named(size=3, horizon=3, fault=fault), **FIXED)


@pytest.mark.parametrize("env", [DarkRoom(size=3, horizon=4), Named(size=3, horizon=4)], ids=["array", "dictionary"])
def test_gymnasium_adapters(env):
    one = envs.GymEnv(env)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*Box observation space")
        gymnasium_check(one, skip_render_check=True)
    many = envs.GymVectorEnv(env, num_envs=2, autoreset_mode="SameStep")
    obs, _ = many.reset(seed=5)
    first, _ = one.reset(seed=5)
    assert one.observation_space.contains(first) and many.observation_space.contains(obs)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y), obs, first)
    for _ in range(3):
        many.step(np.array([1, 2]))
        one.step(1)
    obs, *_, infos = many.step(np.array([1, 2]))
    last, *_ = one.step(1)
    jax.tree.map(np.testing.assert_array_equal, infos["final_obs"][0], last)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y), obs, first)


def test_pictures():
    env = DarkRoom(size=5, key=True)
    states = [env.reset(KEY, {"goal": jnp.array([0, 1]), "key": jnp.array([4, 4])})]
    states.append(env.step(states[0], jnp.array(1)))
    image = env.render(states)
    colors = [
        tuple(image[40 * row + 20, 40 * column + 20].tolist()) for row, column in [(0, 1), (4, 4), (1, 2), (2, 2)]
    ]
    assert image.shape == (200, 200, 3) and image.dtype == np.uint8
    assert colors == [(200, 30, 30), (220, 170, 30), (30, 60, 200), (190, 210, 250)]
    at_goal = env.step(env.step(states[1], jnp.array(1)), jnp.array(4))
    assert env.render([*states, at_goal])[20, 60].tolist() == [115, 45, 115]
    grid = GridNavigation(size=4)
    image = grid.render([grid.reset(KEY, {"goal": jnp.array([0, 1])})])
    assert image[25, 75].tolist() == [200, 30, 30] and image[175, 25].tolist() == [30, 60, 200]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GridNavigation(size=2), "size must be an integer of at least 3, got 2"),
        (lambda: GridNavigation(observation="image"), "observation must be"),  # pyright: ignore[reportArgumentType]
        (lambda: GridNavigation().bayes_optimal_return(0), "episodes must be an integer of at least 1, got 0"),
        (lambda: GridNavigation(size=9).bayes_optimal_return(), "size must be less for an exact search"),
        (lambda: DarkRoom(size=1), "size must be an integer of at least 2, got 1"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_types_follow_those_of_jax():
    with jax.enable_x64(True):
        for env in (GridNavigation(horizon=2), DarkRoom(size=3, horizon=2)):
            state = env.step(env.reset(jax.random.key(0)), jnp.array(1))
            assert state.obs.dtype == state.reward.dtype == state.done.dtype == jnp.float64
