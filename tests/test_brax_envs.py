"""Bodies: rewards against NumPy without physics, and physics against the environments of brax."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import envs
from jaxmeta.testing import check_env

KEY = jax.random.key(0)
BODIES = tuple(name for name in envs.list_envs() if hasattr(envs.make(name), "backend"))


class FakePhysics:
    """Physics of a point that moves by the control, so that rewards need no simulator."""

    dt = jnp.array(0.5)

    def step(self, state, control):
        after = state.x.pos + 0.1 * control[None, :3]
        return SimpleNamespace(x=SimpleNamespace(pos=after), q=state.q + 1, qd=20 * state.qd)

    def center_of_mass(self, state):
        return 2 * state.x.pos[0]

    def humanoid_observation(self, state, control):
        return jnp.concatenate([state.q, control])


def numpy_reward(name, before, after, velocity, action, task):
    """Returns the reward of the code of learn2learn, ProMP, PEARL and rand_param_envs, without contact forces."""
    cost = np.square(action).sum()
    x_velocity = velocity[0]
    return {
        "half-cheetah-forward-backward": lambda: task["direction"] * x_velocity - 0.5 * 1e-1 * cost,
        "half-cheetah-velocity": lambda: -abs(x_velocity - task["velocity"]) - 0.5 * 0.1 * cost,
        "ant-forward-backward": lambda: task["direction"] * x_velocity - 0.5 * cost + 1,
        "ant-direction": lambda: np.sum(task["direction"] * velocity[:2]) - 0.5 * cost + 1,
        "ant-goal": lambda: -np.abs(after[:2] - task["goal"]).sum() - 0.1 * cost,
        # 0.25 / 0.003 per step of 0.015 s, of the center of mass; controls are 0.4 of actions
        "humanoid-forward-backward": lambda: (
            0.25 * task["direction"] * 2 * x_velocity * 0.015 / 0.003 - 0.1 * 0.16 * cost + 5
        ),
        "humanoid-direction": lambda: (
            0.25 * np.sum(task["direction"] * 2 * velocity[:2]) * 0.015 / 0.003 - 0.1 * 0.16 * cost + 5
        ),
        "walker2d-params": lambda: x_velocity + 1 - 1e-3 * cost,
        "hopper-params": lambda: x_velocity + 1 - 1e-3 * cost,
    }[name]()


TASKS = {
    "half-cheetah-forward-backward": {"direction": -1.0},
    "half-cheetah-velocity": {"velocity": 1.7},
    "ant-forward-backward": {"direction": -1.0},
    "ant-direction": {"direction": np.array([0.6, -0.8])},
    "ant-goal": {"goal": np.array([1.0, -2.0])},
    "humanoid-forward-backward": {"direction": -1.0},
    "humanoid-direction": {"direction": np.array([0.6, -0.8])},
    "walker2d-params": {},
    "hopper-params": {},
}


@pytest.mark.parametrize("name", BODIES)
def test_reward(name, monkeypatch):
    env: Any = envs.make(name)
    monkeypatch.setattr(type(env), "physics", lambda self, task: FakePhysics())
    rng = np.random.default_rng(0)
    before = rng.normal(size=(2, 3))
    action = rng.uniform(-1, 1, env.action_size)
    action[-1] = 3.0  # beyond the range: clipped
    state = SimpleNamespace(
        x=SimpleNamespace(pos=jnp.array(before)), q=jnp.array(rng.normal(size=9)), qd=jnp.array(rng.normal(size=9))
    )
    outcome = env.move(state, jnp.array(action), TASKS[name])
    action = np.clip(action, -1, 1)
    after = before[0] + 0.1 * action[:3] * (0.4 if "humanoid" in name else 1)
    velocity = (after - before[0]) / 0.5
    expected = numpy_reward(name, before[0], after, velocity, action, TASKS[name])
    assert float(outcome.reward) == pytest.approx(expected, rel=1e-5)
    assert sum(float(x) for x in outcome.metrics.values()) == pytest.approx(expected, rel=1e-5)
    assert set(outcome.metrics) == set(env.metric_names)


def state_at(height, angle=0.0, speed=0.0):
    q = jnp.array([50.0, 0.0, angle, 0.0])
    return SimpleNamespace(x=SimpleNamespace(pos=jnp.array([[0.0, 0.0, height]])), q=q, qd=jnp.array([speed] * 4))


@pytest.mark.parametrize(
    ("name", "variant", "alive", "fallen"),
    [
        ("half-cheetah-forward-backward", None, [(-5.0,), (50.0,)], []),
        ("half-cheetah-velocity", None, [(-5.0,)], []),
        ("ant-goal", None, [(-5.0,)], []),
        ("ant-direction", "l2l", [(0.01,), (0.99,)], [(-0.01,), (1.01,), (np.nan,)]),
        ("ant-forward-backward", "pearl", [(0.21,), (0.99,)], [(0.19,), (1.01,)]),
        ("humanoid-direction", None, [(1.01,), (1.99,)], [(0.99,), (2.01,), (np.nan,)]),
        ("walker2d-params", None, [(0.81, 0.99), (1.99, -0.99)], [(0.79,), (2.01,), (1.0, 1.01), (1.0, -1.01)]),
        ("hopper-params", None, [(0.71, 0.19), (9.0, -0.19, 99.0)], [(0.69,), (1.0, 0.21), (1.0, 0.0, -101.0)]),
    ],
)
def test_falling(name, variant, alive, fallen):
    env: Any = envs.make(name, variant=variant)
    assert [bool(env.has_fallen(state_at(*x))) for x in [*alive, *fallen]] == [False] * len(alive) + [True] * len(
        fallen
    )


def test_observations_without_physics():
    """Some positions are left out, the height of walkers is that of the torso, and their velocities are clipped."""
    state: Any = SimpleNamespace(
        x=SimpleNamespace(pos=jnp.array([[7.0, 8.0, 9.0], [0.0, 0.0, 0.0]])),
        q=jnp.array([0.0, 1.0, 2.0, 3.0]),
        qd=jnp.array([-50.0, 5.0]),
    )
    expected = {
        ("half-cheetah-forward-backward", "l2l"): [1, 2, 3, -50, 5, 7, 8, 9],
        ("half-cheetah-forward-backward", "promp"): [1, 2, 3, -50, 5],
        ("ant-direction", "l2l"): [2, 3, -50, 5],
        ("ant-goal", "promp"): [0, 1, 2, 3, -50, 5],
        ("walker2d-params", None): [9, 2, 3, -10, 5],
    }
    for (name, variant), obs in expected.items():
        env: Any = envs.make(name, variant=variant)
        assert env.observe(None, state, jnp.zeros(env.action_size)).tolist() == obs


def test_horizons_and_tasks_of_variants():
    horizons = {
        ("half-cheetah-forward-backward", "l2l"): 100,
        ("half-cheetah-forward-backward", "pearl"): 200,
        ("half-cheetah-velocity", "promp"): 100,
        ("half-cheetah-velocity", "maml"): 200,
        ("ant-direction", "l2l"): 100,
        ("ant-direction", "pearl"): 200,
        ("ant-goal", "promp"): 100,
        ("humanoid-direction", None): 200,
        ("walker2d-params", None): 200,
    }
    for (name, variant), horizon in horizons.items():
        assert envs.make(name, variant=variant).horizon == horizon
    signs = envs.make("ant-forward-backward").sample_tasks(KEY, 400)["direction"]
    assert set(signs.tolist()) == {-1.0, 1.0} and abs(float(signs.mean())) < 0.15
    directions = np.asarray(envs.make("humanoid-direction").sample_tasks(KEY, 400)["direction"])
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, rtol=1e-5)
    assert np.abs(directions.mean(axis=0)).max() < 0.15
    radii = np.linalg.norm(envs.make("ant-goal").sample_tasks(KEY, 400)["goal"], axis=1)
    assert radii.max() < 3 and np.mean(radii < 3 / np.sqrt(2)) == pytest.approx(0.5, abs=0.1)  # uniform in area
    slow = envs.make("half-cheetah-velocity", variant="maml").sample_tasks(KEY, 400)["velocity"]
    assert 1.9 < float(slow.max()) < 2 and float(slow.min()) < 0.1


@pytest.mark.slow
def test_half_cheetah_with_physics():
    """The two directions differ only in the reward, which is opposite except for the control."""
    env = envs.make("half-cheetah-forward-backward")
    actions = jax.random.uniform(KEY, (3, 6), minval=-1)

    def episode(direction):
        def step(state, action):
            after = env.step(state, action)
            return after, (after.obs, after.reward, after.pipeline_state.x.pos[0, 0])

        first = env.reset(KEY, {"direction": direction})
        return first.pipeline_state.x.pos[0, 0], jax.lax.scan(step, first, actions)[1]

    start, (obs, rewards, x) = jax.jit(jax.vmap(episode))(jnp.array([1.0, -1.0]))
    assert obs.shape == (2, 3, 20)
    np.testing.assert_array_equal(obs[0], obs[1])
    costs = 0.05 * np.square(actions).sum(axis=1)
    np.testing.assert_allclose(rewards.sum(axis=0), -2 * costs, atol=1e-5)
    velocity = np.diff(np.array([start[0], *x[0]], np.float32)) / 0.05
    np.testing.assert_allclose(rewards[0], velocity - costs, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", BODIES[::2])  # every other one, because the physics takes long to compile
def test_is_a_meta_env(name):
    check_env(
        envs.make(name, horizon=4),
        dynamics_differ=name.endswith("params"),
        shared_tasks=name.endswith("forward-backward"),
    )


def brax_env(name, backend):
    """Returns brax's own environment of the body with our weights, and the task with the same reward."""
    from brax.envs import get_environment

    body, options, task = {
        "half-cheetah-forward-backward": ("halfcheetah", {"ctrl_cost_weight": 0.05}, {"direction": jnp.array(1.0)}),
        "ant-direction": ("ant", {"healthy_z_range": (0.0, 1.0)}, {"direction": jnp.array([1.0, 0.0])}),
        "humanoid-forward-backward": ("humanoid", {}, {"direction": jnp.array(1.0)}),
        "hopper-params": ("hopper", {}, None),
        "walker2d-params": ("walker2d", {"n_frames": 5}, None),
    }[name]
    return get_environment(body, backend=backend, **options), task


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("half-cheetah-forward-backward", "spring"),
        ("ant-direction", "spring"),
        ("humanoid-forward-backward", "spring"),
        ("hopper-params", "generalized"),
        ("walker2d-params", "mjx"),
    ],
)
def test_equals_brax_where_the_task_is_its_own(name, backend):
    variant = "promp" if "cheetah" in name else None
    env = envs.make(name, variant=variant, backend=backend)
    with jax.numpy_rank_promotion("allow"):
        theirs, task = brax_env(name, backend)
        if task is None:  # all multipliers are 1
            task = jax.tree.map(lambda x: jnp.ones_like(x[0]), env.sample_tasks(KEY, 1))
        state = jax.jit(env.reset)(KEY, task)
        brax_state = jax.jit(theirs.reset)(KEY)
        step, brax_step = jax.jit(env.step), jax.jit(theirs.step)
        for key in jax.random.split(KEY, 3):
            action = jax.random.uniform(key, (env.action_size,), minval=-1)
            brax_state = brax_step(brax_state.replace(pipeline_state=state.pipeline_state), action)
            state = step(state, action)
            np.testing.assert_allclose(state.obs, brax_state.obs, rtol=1e-3, atol=1e-3)
            assert float(state.reward) == pytest.approx(float(brax_state.reward), rel=1e-3, abs=1e-3)
            assert float(state.done) == float(brax_state.done)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["generalized", "mjx"])
def test_every_parameter_of_the_body_matters(backend):
    env = envs.make("hopper-params", backend=backend)
    plain = jax.tree.map(lambda x: jnp.ones_like(x[0]), env.sample_tasks(KEY, 1))
    tasks = [plain, *({**plain, name: 2 * plain[name]} for name in plain)]

    def last(task):
        def step(state, action):
            return env.step(state, action), None

        actions = jax.random.uniform(KEY, (30, 3), minval=-1)
        return jax.lax.scan(step, env.reset(KEY, task), actions)[0].obs

    obs = np.asarray(jax.jit(jax.vmap(last))(jax.tree.map(lambda *x: jnp.stack(x), *tasks)))
    assert np.isfinite(obs).all()
    for name, other in zip(plain, obs[1:], strict=True):
        assert np.abs(other - obs[0]).max() > 1e-3, f"{name} changes nothing"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "episodes"), [("half-cheetah-forward-backward", 1000), ("ant-direction", 200), ("humanoid-direction", 200)]
)
def test_no_nan_in_random_steps(name, episodes):
    env = envs.make(name, horizon=100)

    def episode(key):
        def step(state, key):  # bodies that have fallen continue
            state = env.step(state, jax.random.uniform(key, (env.action_size,), minval=-1))
            return state, state.reward + state.obs.sum()

        return jax.lax.scan(step, env.reset(key), jax.random.split(key, 100))[1]

    assert bool(jnp.isfinite(jax.jit(jax.vmap(episode))(jax.random.split(KEY, episodes))).all())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_brax_wrappers_take_the_view_of_a_task():
    from brax.envs.wrappers.training import AutoResetWrapper, EpisodeWrapper, EvalWrapper, VmapWrapper

    task = {"direction": jnp.array(-1.0)}
    view: Any = envs.make("half-cheetah-forward-backward").with_task(task)
    wrapped = EvalWrapper(AutoResetWrapper(EpisodeWrapper(VmapWrapper(view), 3, 2)))
    state = jax.jit(wrapped.reset)(jax.random.split(jax.random.PRNGKey(0), 2))
    step = jax.jit(wrapped.step)
    for steps, done in [(2, 0), (4, 1), (2, 0)]:
        state = step(state, jnp.zeros((2, 6)))
        assert state.info["steps"].tolist() == [steps] * 2 and state.done.tolist() == [done] * 2
        assert state.info["task"]["direction"].tolist() == [-1.0] * 2
    assert wrapped.backend == "spring" and wrapped.observation_size == 20 and wrapped.action_size == 6


@pytest.mark.slow
def test_bodies_are_loaded_without_a_word():
    """Humanoid's file makes MuJoCo's compiler write to standard error; what the program itself writes there stays."""
    code = (
        "import sys; from jaxmeta import envs; envs.make('humanoid-direction').reset(__import__('jax').random.key(0));"
    )
    code += "print('mine', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "mine\n")
