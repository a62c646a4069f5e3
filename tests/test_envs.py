"""Environments: all of them through `check_env`, and each against numbers that are computed in another way."""

import dataclasses
import subprocess
import sys
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from jaxmeta import envs
from jaxmeta.envs import _registry
from jaxmeta.testing import check_env

KEY = jax.random.key(0)
CHEAP = [
    ("particles2d", "l2l", {"fixed_start": True}),
    ("particles2d", "promp", {"shared_tasks": True}),
    ("particles2d", "promp-sparse", {"shared_tasks": True}),
    ("particles2d", "pearl", {"fixed_start": True}),
    ("bandit-bernoulli", None, {"fixed_start": True}),
    ("bandit-gaussian", None, {"fixed_start": True}),
    ("tabular", None, {"fixed_start": True, "dynamics_differ": True}),
    ("pendulum", None, {"dynamics_differ": True}),
    ("cartpole", None, {"dynamics_differ": True}),
]


def row_id(value):
    return "" if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("name", "variant", "flags"), CHEAP, ids=row_id)
def test_is_a_meta_env(name, variant, flags):
    check_env(envs.make(name, variant=variant, horizon=6), **flags)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Broken(envs.Particles2D):
    """Environment with a fault, by default an observation that shows the goal."""

    fault: str = "leak"

    def begin(self, key, task):
        position, obs = super().begin(key, task)
        return position, task["goal"] if self.fault == "leak" else obs

    def draw_task(self, key, split):
        return super().draw_task(jax.random.key(3) if self.fault == "one task" else key, split)

    def sample_tasks(self, key, n, *, split="train"):
        return super().sample_tasks(key, n, split="train" if self.fault == "split" else split)

    def step(self, state, action):
        state = super().step(state, action)
        if self.fault == "steps":
            return dataclasses.replace(state, info={**state.info, "steps": jnp.ones(())})
        if self.fault == "truncation":
            return dataclasses.replace(state, info={**state.info, "truncation": jnp.zeros(())})
        if self.fault == "dtype":
            return dataclasses.replace(state, done=state.done.astype(int))
        return dataclasses.replace(state, reward=jnp.log(-jnp.ones(()))) if self.fault == "nan" else state


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("leak", "tells the task"),
        ("one task", "share a task"),
        ("split", "share a task"),
        ("steps", "does not count"),
        ("truncation", "no truncation"),
        ("dtype", "int32 != float32"),
        ("nan", "non-finite"),
        ("start", "start with the same observation"),
    ],
)
def test_check_env_finds(fault, message):
    with pytest.raises(AssertionError, match=f"(?is){message}"):
        check_env(Broken(fault=fault, horizon=3), fixed_start=fault != "start")


def particles_reward(variant, before, after, goal):
    """Returns the reward and the end of a step, as in the code of learn2learn, ProMP and PEARL."""
    distance = np.linalg.norm(after - goal)
    if variant == "promp-sparse":
        corners = np.array([[-2, -2], [2, -2], [-2, 2], [2, 2]])
        nearest = np.argmin(np.linalg.norm(after - corners, axis=1))
        if np.abs(after).sum() < 0.5 or np.any(corners[nearest] != goal):
            return 0.0, False
        return np.linalg.norm(before - goal) - distance, False
    if variant == "pearl":
        return (1 - distance if distance <= 0.2 else 0.0), False
    return -distance, variant == "l2l" and bool(np.all(np.abs(after - goal) < 0.01))


@pytest.mark.parametrize(
    ("variant", "goals", "step"),
    [
        ("l2l", [(0.5, -0.3), (0.1, 0.025), (0.1, 0.0)], 0.1),
        ("promp", [(2.0, -2.0), (-2.0, 2.0)], 0.2),
        ("promp-sparse", [(2.0, 2.0), (-2.0, 2.0)], 0.2),
        ("pearl", [(1.0, 0.0), (0.2, 0.1)], 0.1),
    ],
)
def test_particles_rewards(variant, goals, step):
    env = envs.make("particles2d", variant=variant)
    move, ends, paid = jax.jit(env.move), 0, 0.0
    for goal in np.array(goals):
        for before in [*np.random.default_rng(0).uniform(-0.6, 0.6, (20, 2)).tolist(), [0.0, 0.0]]:
            for action in ([1.0, 0.3], [-3.0, 0.5]):
                outcome = move(jnp.array(before), jnp.array(action), {"goal": jnp.array(goal)})
                after = np.array(before) + step * np.clip(action, -1, 1)
                reward, terminated = particles_reward(variant, np.array(before), after, goal)
                np.testing.assert_allclose(outcome.obs, after, atol=1e-6)
                assert float(outcome.reward) == pytest.approx(reward, abs=1e-5)
                assert bool(outcome.terminated) == terminated
                ends, paid = ends + terminated, paid + abs(reward)
    assert paid > 0
    if variant == "l2l":
        done = move(jnp.array([0.0, 0.0]), jnp.array([1.0, 0.05]), {"goal": jnp.array([0.1, 0.0])})
        assert bool(done.terminated)


def test_particles_tasks():
    goals = {v: envs.make("particles2d", variant=v).sample_tasks(KEY, 2000)["goal"] for v in ("l2l", "promp", "pearl")}
    assert scipy.stats.kstest(np.ravel(goals["l2l"]), scipy.stats.uniform(-0.5, 1).cdf).pvalue > 1e-3
    corners, counts = np.unique(goals["promp"], axis=0, return_counts=True)
    assert corners.tolist() == [[-2, -2], [-2, 2], [2, -2], [2, 2]] and counts.min() > 400
    pearl = np.unique(goals["pearl"], axis=0)
    np.testing.assert_allclose(np.linalg.norm(pearl, axis=1), 1, rtol=1e-5)
    assert len(pearl) == 80 and pearl[:, 1].min() > -1e-6
    held_out = np.unique(envs.make("particles2d", variant="pearl").sample_tasks(KEY, 500, split="test")["goal"], axis=0)
    assert len(held_out) == 20
    angles = np.sort(np.arctan2(*np.concatenate([pearl, held_out]).T[::-1]))
    np.testing.assert_allclose(np.abs(angles), np.linspace(0, np.pi, 100), atol=1e-5)


def test_particles_floor_and_oracle():
    """The returns of staying and of the best policy are -38.19 and -0.50 over 100,000 tasks."""
    env: Any = envs.make("particles2d")

    def episode(key, task):
        def step(carry, _):
            state, alive = carry
            state = env.step(state, env.oracle_action(state))
            return (state, alive * (1 - state.done)), state.reward * alive

        return jax.lax.scan(step, (env.reset(key, task), 1.0), length=env.horizon)[1].sum()

    tasks = env.sample_tasks(KEY, 5000)
    assert float(jax.vmap(env.floor_return)(tasks).mean()) == pytest.approx(-38.19, abs=0.7)
    best = jax.jit(jax.vmap(episode))(jax.random.split(KEY, 5000), tasks)
    assert float(best.mean()) == pytest.approx(-0.50, abs=0.01)


def rewards_of(env, task, action):
    """Returns the rewards of 4000 steps."""

    def step(state, _):
        state = env.step(state, action)
        return state, state.reward

    return np.asarray(jax.jit(lambda state: jax.lax.scan(step, state, length=4000)[1])(env.reset(KEY, task)))


def test_bandits_pay_as_their_means_say():
    task = {"means": jnp.array([0.2, 0.7, 0.4])}
    bernoulli = rewards_of(envs.make("bandit-bernoulli", arms=3), task, jnp.array(1))
    assert set(bernoulli.tolist()) == {0.0, 1.0} and bernoulli.mean() == pytest.approx(0.7, abs=0.03)
    gaussian = rewards_of(envs.make("bandit-gaussian", arms=3), task, jnp.array(2))
    assert scipy.stats.kstest(gaussian, scipy.stats.norm(0.4, 1).cdf).pvalue > 1e-3
    env: Any = envs.make("bandit-bernoulli", arms=3, horizon=50)
    state = env.step(env.reset(KEY, task), jnp.array(0))
    assert int(env.oracle_action(state)) == 1
    assert float(state.metrics["regret"]) == pytest.approx(0.5)
    assert float(env.floor_return(task)) == pytest.approx(50 * 1.3 / 3)
    means = envs.make("bandit-bernoulli").sample_tasks(KEY, 1000)["means"]
    assert means.shape == (1000, 5) and scipy.stats.kstest(np.ravel(means), "uniform").pvalue > 1e-3
    means = envs.make("bandit-gaussian").sample_tasks(KEY, 1000)["means"]
    assert scipy.stats.kstest(np.ravel(means), "norm").pvalue > 1e-3


def test_tabular_moves_and_pays_as_the_task_says():
    env = envs.make("tabular", states=3, actions=2)
    transitions = np.full((3, 2, 3), [0.1, 0.3, 0.6], np.float32)
    task = {"transitions": jnp.array(transitions), "rewards": jnp.array([[1.0, 5.0]] * 3)}

    def step(state, _):
        state = env.step(state, jnp.array(1))
        return state, (state.obs, state.reward)

    _, (obs, rewards) = jax.jit(lambda s: jax.lax.scan(step, s, length=4000))(env.reset(KEY, task))
    np.testing.assert_allclose(obs.mean(axis=0), [0.1, 0.3, 0.6], atol=0.03)
    assert scipy.stats.kstest(np.asarray(rewards), scipy.stats.norm(5, 1).cdf).pvalue > 1e-3
    tasks = env.sample_tasks(KEY, 2000)
    np.testing.assert_allclose(tasks["transitions"].sum(-1), 1, atol=1e-5)
    # each coordinate of a flat Dirichlet distribution of three
    assert scipy.stats.kstest(np.asarray(tasks["transitions"])[:, 0, 0, 1], scipy.stats.beta(1, 2).cdf).pvalue > 1e-3
    assert scipy.stats.kstest(np.ravel(tasks["rewards"]), scipy.stats.norm(1, 1).cdf).pvalue > 1e-3


def test_pendulum_equals_gymnasiums():
    theirs: Any = gymnasium.make("Pendulum-v1").unwrapped
    theirs.reset(seed=0)
    env = envs.make("pendulum")
    move = jax.jit(env.move)
    rng = np.random.default_rng(0)
    for _ in range(30):
        theirs.m, theirs.l = rng.uniform(0.5, 2, 2)
        theirs.state = rng.uniform([-8, -8], [8, 8])
        action = rng.uniform(-1.5, 1.5, 1)
        outcome = move(jnp.array(theirs.state), jnp.array(action), {"mass": theirs.m, "length": theirs.l})
        obs, reward, *_ = theirs.step(2 * action)
        np.testing.assert_allclose(outcome.obs, obs, atol=2e-4)
        assert float(outcome.reward) == pytest.approx(float(reward), abs=1e-3)


def test_cartpole_equals_gymnasiums():
    theirs: Any = gymnasium.make("CartPole-v1").unwrapped
    theirs.reset(seed=0)
    env = envs.make("cartpole")
    move = jax.jit(env.move)
    rng, ends = np.random.default_rng(0), 0
    for _ in range(30):
        theirs.force_mag, theirs.length = rng.uniform(5, 15), rng.uniform(0.3, 0.8)
        theirs.polemass_length = theirs.masspole * theirs.length
        theirs.state = rng.uniform(-1, 1, 4) * [2.5, 2, 0.25, 2]
        theirs.steps_beyond_terminated = None
        action = int(rng.integers(2))
        task = {"force": theirs.force_mag, "length": theirs.length}
        outcome = move(jnp.array(theirs.state), jnp.array(action), task)
        obs, reward, terminated, *_ = theirs.step(action)
        np.testing.assert_allclose(outcome.obs, obs, atol=1e-5)
        assert (float(outcome.reward), bool(outcome.terminated)) == (reward, terminated)
        ends += terminated
    assert 0 < ends < 30


def test_reset_draws_a_task_if_none_is_given():
    env = envs.make("particles2d", variant="promp")
    state = env.reset(KEY)
    again = env.reset(KEY, state.info["task"])
    jax.tree.map(np.testing.assert_array_equal, state, again)
    goals = jax.vmap(env.reset)(jax.random.split(KEY, 50)).info["task"]["goal"]
    assert len(np.unique(goals, axis=0)) == 4


def test_view_of_one_task_has_no_horizon():
    env = envs.make("particles2d", horizon=2)
    task = {"goal": jnp.array([0.5, 0.0])}
    view = env.with_task(task)
    assert (view.observation_size, view.action_size, view.backend, view.unwrapped) == (2, 2, "jax", view)
    state = view.reset(KEY)
    for _ in range(5):
        assert (float(state.done), float(state.info["steps"])) == (0.0, 0.0)
        state = view.step(state, jnp.array([1.0, 0.0]))
    assert float(state.done) == 1.0 and float(state.info["truncation"]) == 0.0  # it is at the goal


def two_arms(horizon=10, arms=2):
    """Bandit with two arms.

    References:
        Someone, *Arms*, 2020, https://example.org/arms, with legs

        Another, https://example.org/legs
    """
    return envs.BernoulliBandit(horizon=horizon, arms=arms)


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(_registry, "_REGISTRY", dict(_registry._REGISTRY))


def test_register_adds_an_environment(registry):
    envs.register("two-arms", two_arms, {"short": {"horizon": 3}, "long": {"horizon": 30}})
    assert envs.list_envs()[-1] == "two-arms"
    assert envs.make("two-arms") == envs.make("Two_Arms", variant="short") == envs.BernoulliBandit(horizon=3, arms=2)
    assert envs.make("two-arms", variant="long", arms=4) == envs.BernoulliBandit(horizon=30, arms=4)
    info = envs.describe("two_arms")
    assert info.about == "Bandit with two arms."
    assert info.paper == "Someone, *Arms*, 2020, https://example.org/arms"
    assert list(info.variants) == ["short", "long"] and info.options == {"horizon": 10, "arms": 2}
    envs.register("two-arms", two_arms)  # the same once more
    assert not envs.describe("two-arms").variants
    envs.register("dark-particles", envs.Particles2D)
    assert envs.make("dark-particles", size=0.1) == envs.Particles2D(size=0.1)
    with pytest.raises(ValueError, match="must be one of .*'two-arms'.*Did you mean 'two-arms'"):
        envs.make("two-arm")


@pytest.mark.parametrize(
    ("name", "build", "variants", "error", "message"),
    [
        ("tabular", two_arms, {}, ValueError, "there is a registered environment 'tabular' already"),
        (
            "cart-pole",
            two_arms,
            {},
            ValueError,
            "there is a registered environment 'cartpole' already, got 'cart-pole'",
        ),
        ("Two Arms", two_arms, {}, ValueError, "lower-case letters, digits and hyphens, got 'Two Arms'"),
        ("two-arms", 3, {}, TypeError, "build must be a function, got 3"),
        ("two-arms", lambda arms: two_arms(arms=arms), {}, TypeError, "a default for every argument, .* arms"),
        ("two-arms", two_arms, {"a": {"legs": 2}}, ValueError, "'two-arms' has no option 'legs': it has horizon, arms"),
    ],
)
def test_register_rejects(registry, name, build, variants, error, message):
    known = envs.list_envs()
    with pytest.raises(error, match=message):
        envs.register(name, build, variants)
    assert envs.list_envs() == known


def test_every_environment_is_described():
    for name in envs.list_envs():
        info = envs.describe(name)
        assert (info.about.endswith(".") and "https://" in info.paper) or "http://" in info.paper
        assert info.options["horizon"] > 0
        for variant in info.variants:
            assert envs.make(name, variant=variant)


def test_names_and_what_was_meant():
    assert envs.make("half_cheetah_velocity") == envs.make("half-cheetah-velocity") == envs.make("HalfCheetahVelocity")
    with pytest.raises(ValueError, match=r"got 'half-cheeta-velocity'\. Did you mean 'half-cheetah-velocity'\?"):
        envs.make("half-cheeta-velocity")
    with pytest.raises(ValueError, match="got 'breakout'$"):
        envs.describe("breakout")


def test_import_needs_no_other_package_and_errors_say_what_to_install():
    code = """
import sys
hidden = ("brax", "gymnasium", "mujoco", "metaworld", "PIL")
sys.modules |= dict.fromkeys(hidden)
import jax
from jaxmeta import envs, rl
env = envs.make("particles2d")
for make in (
    lambda: envs.make("half-cheetah-velocity"),
    lambda: envs.HalfCheetahVelocity().reset(jax.random.key(0)),
    lambda: envs.GymEnv(env),
    lambda: envs.GymVectorEnv(env, 2),
    lambda: envs.AsyncVectorEnv([]),
    lambda: envs.MetaWorld("ML10"),
):
    try:
        make()
    except ModuleNotFoundError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        'half-cheetah-velocity needs brax: pip install "jaxmeta[envs]"',
        "the body 'halfcheetah' needs brax: pip install \"jaxmeta[envs]\"",
        'GymEnv needs gymnasium: pip install "jaxmeta[envs]"',
        'GymVectorEnv needs gymnasium: pip install "jaxmeta[envs]"',
        'AsyncVectorEnv needs gymnasium: pip install "jaxmeta[envs]"',
        'MetaWorld needs gymnasium: pip install "jaxmeta[metaworld]"',
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "particle"}, "name must be one of 'particles2d', .*got 'particle'. Did you mean 'particles2d'"),
        ({"name": "particles2d", "variant": "rl2"}, "variant must be one of 'l2l', 'promp', .*got 'rl2'"),
        ({"name": "tabular", "variant": "l2l"}, "'tabular' has no variants, got variant='l2l'"),
        ({"name": "tabular", "arms": 3}, "'tabular' has no option 'arms': it has horizon, states"),
        ({"name": "pendulum", "backend": "spring"}, "'pendulum' has no option 'backend'"),
        ({"name": "tabular", "horizon": 0}, "horizon must be an integer of at least 1, got 0"),
        ({"name": "bandit-gaussian", "arms": 0}, "arms must be an integer of at least 1"),
        ({"name": "pendulum", "mass": (2.0, 1.0)}, r"mass must be a range .*got \(2.0, 1.0\)"),
        ({"name": "pendulum", "mass": (1.0,)}, r"mass must be a range .*got \(1.0,\)"),
        ({"name": "cartpole", "force": (0.0, 1.0)}, r"force\[0\] must be a positive number, got 0.0"),
        ({"name": "tabular", "noise": -1.0}, "noise must be a number of at least 0, got -1.0"),
        ({"name": "particles2d", "max_step": 0}, "max_step must be a positive number, got 0"),
        ({"name": "half-cheetah-velocity", "max_velocity": -1}, "max_velocity must be a positive number, got -1"),
        ({"name": "particles2d", "reward": "sparse"}, "reward must be one of 'distance'"),
        ({"name": "ant-goal", "backend": "mujoco"}, "backend must be one of 'spring', .*got 'mujoco'"),
        ({"name": "walker2d-params", "backend": "spring"}, "backend must be one of 'generalized', 'mjx', got 'spring'"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_errors_say_what_is_allowed(arguments, message):
    with pytest.raises(ValueError, match=message):
        envs.make(**arguments)


def test_sample_tasks_checks_its_arguments():
    env = envs.make("particles2d")
    with pytest.raises(ValueError, match="split must be one of 'train', 'test', got 'validation'"):
        env.sample_tasks(KEY, 2, split="validation")
    with pytest.raises(ValueError, match="n must be an integer of at least 1, got 0"):
        env.sample_tasks(KEY, 0)
