# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""The gymnasium adapters: gymnasium's own checks, its vector environment, and tasks in other processes."""

import copy
import functools
import pickle
import warnings

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from jaxmeta import envs

NEAR = {"goal": np.array([0.2, 0.0], np.float32)}
FAR = {"goal": np.array([0.5, 0.5], np.float32)}


@functools.cache
def particles():
    return envs.make("particles2d", horizon=5)


@functools.cache
def cartpole():
    return envs.make("cartpole", horizon=15)


@pytest.mark.parametrize("make", [particles, cartpole])
def test_gymnasium_finds_nothing(make):
    env = envs.GymEnv(make())
    assert isinstance(env, envs.GymEnv) and isinstance(env, gymnasium.Env)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*observation space (min|max)imum value is -?infinity")
        check_env(env, skip_render_check=True)
    assert env.observation_space.contains(env.reset()[0])


def test_steps_equal_those_of_the_pure_environment():
    pure, env = particles(), envs.GymEnv(particles())
    env.set_task(NEAR)
    obs, _ = env.reset(seed=3)
    state = pure.reset(jax.random.key(0), NEAR)
    np.testing.assert_array_equal(obs, state.obs)
    for action in ([1.0, 0.3], [0.0, -1.0], [1.0, 0.7]):
        obs, reward, terminated, truncated, info = env.step(np.array(action, np.float32))
        state = pure.step(state, np.array(action))
        np.testing.assert_allclose(obs, state.obs, atol=1e-6)
        assert (reward, terminated, truncated) == (
            pytest.approx(float(state.reward), abs=1e-6),
            bool(state.done),
            False,
        )
        assert info == {"distance": -reward}
    assert terminated


def test_truncation_is_no_termination():
    env = envs.GymEnv(particles())
    env.reset(options={"task": FAR})
    ends = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]


def test_tasks():
    env = envs.GymEnv(particles())
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.get_task()
    env.reset(seed=1)
    first, tasks = env.get_task(), env.sample_tasks(3)
    env.reset()
    assert np.any(env.get_task()["goal"] != first["goal"])  # none is set: a new one each time
    env.reset(seed=1)
    jax.tree.map(np.testing.assert_array_equal, (env.get_task(), env.sample_tasks(3)), (first, tasks))
    assert np.any(env.sample_tasks(1, split="test")[0]["goal"] != tasks[0]["goal"])
    env.set_task(tasks[2])
    for _ in range(2):
        env.reset()
        np.testing.assert_array_equal(env.get_task()["goal"], tasks[2]["goal"])


def test_picture_shows_path_and_goal():
    env = envs.GymEnv(particles(), render_mode="rgb_array")
    env.reset(options={"task": {"goal": np.array([-0.3, 0.45])}})
    env.step(np.array([1.0, 0.0], np.float32))
    image = np.asarray(env.render())
    assert image.shape == (200, 200, 3) and image.dtype == np.uint8
    red, blue = (np.argwhere((image[..., i] > 150) & (image[..., 1] < 100)) for i in (0, 2))
    scale = 100 / 0.6  # pixels per unit; the picture reaches 0.6 to each side
    np.testing.assert_allclose(red.mean(axis=0), [100 - 0.45 * scale, 100 - 0.3 * scale], atol=1)
    np.testing.assert_allclose(blue.mean(axis=0), [100, 100 + 0.1 * scale], atol=5)
    assert envs.GymEnv(particles()).render() is None
    with pytest.raises(ValueError, match="render_mode"):
        envs.GymEnv(cartpole(), render_mode="rgb_array")


def assert_same(ours, theirs):
    """Compares nested infos and arrays of objects."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif theirs.dtype == object:
        assert [x is None for x in ours] == [x is None for x in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            if other is not None:
                np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
    else:
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=lambda mode: mode.value)
@pytest.mark.parametrize("make", [particles, cartpole])
def test_vector_env_equals_gymnasiums(make, mode):
    """Episodes that end by themselves, truncated episodes and different tasks are included."""
    ours = envs.GymVectorEnv(make(), 3, autoreset_mode=mode)
    theirs = SyncVectorEnv([lambda: envs.GymEnv(make())] * 3, autoreset_mode=mode)
    if make is particles:
        ours.set_task([NEAR, FAR, NEAR])
        for env, task in zip(theirs.envs, [NEAR, FAR, NEAR], strict=True):
            env.set_task(task)
    assert ours.action_space == theirs.action_space and ours.observation_space == theirs.observation_space
    ours.action_space.seed(0)
    ends = np.zeros(2, int)
    for ours_out, theirs_out in [(ours.reset(seed=7), theirs.reset(seed=7)), (ours.reset(), theirs.reset())]:
        for mine, other in zip(ours_out, theirs_out, strict=True):
            assert_same(mine, other)
    for i in range(40):
        right = np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], np.float32)
        actions = right if make is particles else np.array([1, i % 2, 1])
        ours_out, theirs_out = ours.step(actions), theirs.step(actions)
        for mine, other in zip(ours_out, theirs_out, strict=True):
            assert_same(mine, other)
        ends += [ours_out[2].sum(), ours_out[3].sum()]
    assert ends.all()


def test_vector_tasks():
    env = envs.GymVectorEnv(particles(), 2)
    env.reset(seed=0)
    own = env.get_task()
    assert np.any(own[0]["goal"] != own[1]["goal"])
    env.set_task(FAR)
    assert [task["goal"].tolist() for task in env.get_task()] == [[0.5, 0.5]] * 2
    with pytest.raises(ValueError, match="list of 2, got a list of 1"):
        env.set_task([FAR])
    with pytest.raises(ValueError, match="seed must be one for each of 2"):
        env.reset(seed=[1])
    for mode in ("Disabled", AutoresetMode.DISABLED):
        with pytest.raises(ValueError, match="autoreset_mode must be one of 'NextStep', 'SameStep', got 'Disabled'"):
            envs.GymVectorEnv(particles(), 2, autoreset_mode=mode)
    with pytest.raises(ValueError, match="num_envs must be an integer of at least 1, got 0"):
        envs.GymVectorEnv(particles(), 0)


class Renamed(envs.GymEnv):
    """Class derived from one whose base is imported later."""

    def __init__(self, env, name):
        super().__init__(env)
        self.name = name

    def reset(self, **options):
        return super().reset(**options)[0], {"name": self.name}


@pytest.mark.parametrize("travel", [lambda env: pickle.loads(pickle.dumps(env)), copy.deepcopy])
def test_environments_travel_between_processes(travel):
    start = envs.GymEnv(particles())
    start.set_task(NEAR)
    env = travel(start)
    assert type(env) is type(start) and env.env == particles() and hash(env.env) == hash(particles())
    env.reset(seed=0)
    np.testing.assert_array_equal(env.get_task()["goal"], NEAR["goal"])


def test_derived_classes():
    env = Renamed(particles(), "a")
    travel = copy.deepcopy(env)
    assert isinstance(travel, Renamed) and isinstance(travel, envs.GymEnv) and isinstance(travel, gymnasium.Env)
    wrapped = gymnasium.wrappers.TimeLimit(travel, 2)
    obs, info = wrapped.reset(seed=3)
    np.testing.assert_array_equal(obs, env.reset(seed=3)[0])
    assert info == {"name": "a"} and wrapped.unwrapped is travel
    vector = envs.GymVectorEnv(particles(), 2)
    assert isinstance(vector, envs.GymVectorEnv) and isinstance(vector, gymnasium.vector.VectorEnv)


def test_async_env_carries_tasks_and_seeds_to_its_processes():
    def make_env():  # with all that it needs inside, local: it is pickled by value
        class Host(gymnasium.Env):
            observation_space = gymnasium.spaces.Box(-10, 10, (1,), np.float64)
            action_space = gymnasium.spaces.Discrete(2)
            task = 0.0

            def sample_tasks(self, num_tasks):
                return list(self.np_random.random(num_tasks))

            def set_task(self, task):
                self.task = task

            def get_task(self):
                return self.task

            def reset(self, *, seed=None, options=None):
                super().reset(seed=seed)
                return np.array([self.np_random.random()]), {}

            def step(self, action):
                return np.array([0.0]), self.task, False, False, {}

        return gymnasium.wrappers.TimeLimit(Host(), 3)

    env = envs.AsyncVectorEnv([make_env for _ in range(2)])
    try:
        start, _ = env.reset(seed=5)
        assert start.ravel().tolist() == [np.random.default_rng(seed).random() for seed in (5, 6)]
        tasks = env.sample_tasks(4)
        env.reset(seed=5)
        assert env.sample_tasks(4) == tasks and len(set(tasks)) == 4
        env.set_task(tasks[0])
        assert env.get_task() == [tasks[0]] * 2
        env.set_task(tasks[:2])
        _, rewards, *_ = env.step(np.array([0, 1]))
        assert rewards.tolist() == tasks[:2]
        with pytest.raises(ValueError, match="list of 2, got a list of 3"):
            env.set_task(tasks[:3])
        env.step_async(np.array([0, 1]))
        with pytest.raises(gymnasium.error.AlreadyPendingCallError):
            env.set_task(tasks[0])
        env.step_wait()
    finally:
        env.close()


@pytest.mark.slow
def test_snippet_3_of_the_learn2learn_paper():
    def make_env():
        env = envs.GymEnv(envs.make("half-cheetah-forward-backward"))
        return gymnasium.wrappers.NormalizeObservation(env)

    env = envs.AsyncVectorEnv([make_env for i in range(2)])
    tasks = env.sample_tasks(20)
    env.set_task(tasks[0])  # all processes run task 0
    try:
        assert {float(task["direction"]) for task in tasks} == {-1.0, 1.0}
        assert env.get_task() == [tasks[0]] * 2
        obs, _ = env.reset(seed=0)
        obs, rewards, *_ = env.step(np.ones((2, 6), np.float32))
        assert np.isfinite(obs).all() and np.isfinite(rewards).all() and np.any(obs[0] != obs[1])
    finally:
        env.close()
