# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportIncompatibleMethodOverride=false
"""Environments outside of JAX: equal to a simulation by hand, with exactly the steps that they should take."""

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces

import jaxmeta
from jaxmeta import envs, rl
from jaxmeta.testing import check_env

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # so that workers need not import this file, and JAX

JOURNAL: list[tuple[str, int]] = []  # resets and steps of environments in this process, by seed


class Walk(gymnasium.Env):
    """Random walk of a point in `[2]` with wind, which the task tells. It ends by itself when it is far away."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 4.0]), dtype=np.float64)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, far=1.5, render_mode=None):
        self.far, self.render_mode, self.wind, self.seed = far, render_mode, None, 0

    def sample_tasks(self, n):
        return [{"wind": wind} for wind in self.np_random.uniform(-0.1, 0.1, (n, 2))]

    def set_task(self, task):
        self.wind = task["wind"]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = seed
        JOURNAL.append(("reset", seed))
        self.at = self.np_random.uniform(-0.5, 0.5, 2)
        return self.at, {}

    def step(self, action):
        assert self.action_space.contains(action), action
        JOURNAL.append(("step", self.seed))
        self.at += self.wind + 0.1 * action + 0.3 * self.np_random.normal(size=2)  # in place, as some simulators do
        distance = float(np.abs(self.at).max())
        return self.at, -distance, distance > self.far, False, {"distance": distance}

    def render(self):
        image = np.zeros((8, 8, 3), np.uint8)
        x, y = np.clip(np.round(2 * self.at + 4), 0, 7).astype(int)
        image[y, x] = 255
        return image


class Lights(gymnasium.Env):
    """Image whose brightest pixel must be named. Actions are the integers 5 to 8."""

    observation_space = spaces.Box(0, 255, (2, 2, 1), np.uint8)
    action_space = spaces.Discrete(4, start=5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.image = self.np_random.integers(0, 255, (2, 2, 1), np.uint8)
        return self.image, {}

    def step(self, action):
        assert self.action_space.contains(action), action
        reward = float(self.image.argmax() == action - 5 - self.shift)
        self.image = self.np_random.integers(0, 255, (2, 2, 1), np.uint8)
        return self.image, reward, False, False, {}


class Kind:
    """Task that is an object."""

    def __init__(self, wind):
        self.wind = wind


def draw_shifts(rng, n, split):
    return rng.integers(0, 2, n)


def set_shift(env, task):
    env.shift = int(task)


def draw_kinds(rng, n, split):
    return [Kind(wind) for wind in rng.uniform(-0.1, 0.1, (n, 2))]


def set_kind(env, kind):
    env.wind = kind.wind


def walk(processes=1, horizon=12, **options):
    return envs.HostEnv(Walk, processes=processes, horizon=horizon, **options)


def lights(processes=1, **options):
    return envs.HostEnv(Lights, draw_shifts, set_shift, processes=processes, horizon=6, **options)


def gaussian(params, obs):
    return rl.DiagonalGaussian(obs @ params, jnp.zeros_like(obs) - 0.5)


def uniform(params, obs):
    return rl.Categorical(jnp.zeros((len(obs), 4)))


def seed_of(key):
    return int(jax.random.bits(key, (), jnp.uint32) >> 1)


@contextlib.contextmanager
def closing(*opened):
    try:
        yield opened[0] if len(opened) == 1 else opened
    finally:
        for env in opened:
            env.close()


def play(env, policy, params, tasks, key, episodes, by="vmap"):
    """Plays in each of some tasks, in one call or one task after the other."""

    def one(x):
        return rl.rollout(env, policy, params, x[0], x[1], episodes=episodes, states=True)

    keys = jax.random.split(key, len(jax.tree.leaves(tasks)[0]))
    return jax.vmap(lambda *x: one(x))(tasks, keys) if by == "vmap" else jax.lax.map(one, (tasks, keys))


def check_by_hand(data, sim, tasks, set_task, key, scale=lambda action: action):
    """Plays the same actions in a simulator, step by step, and compares everything."""
    data = jax.device_get(data)
    lanes, length, episodes = data.reward.shape
    for i, task_key in enumerate(jax.random.split(key, lanes)):
        reset_keys = jax.random.split(jax.random.split(task_key)[0], episodes)
        for j in range(episodes):
            set_task(sim, jax.tree.map(lambda x, i=i: np.asarray(x)[i], tasks))
            obs, _ = sim.reset(seed=seed_of(reset_keys[j]))
            going = True
            for t in range(length):
                assert data.valid[i, t, j] == going
                shown = data.obs[i, t, j]
                np.testing.assert_array_equal(shown, np.reshape(obs, shown.shape).astype(shown.dtype))
                if not going:
                    assert data.reward[i, t, j] == 0
                    continue
                obs, reward, terminated, truncated, _ = sim.step(scale(data.action[i, t, j]))
                truncated = (truncated or t + 1 == length) and not terminated
                assert data.reward[i, t, j] == np.float32(reward)
                assert (data.terminated[i, t, j], data.truncated[i, t, j]) == (terminated, truncated)
                going = not (terminated or truncated)


def scale_walk(action):
    return np.array([0, 2.0]) + np.array([1.0, 2.0]) * np.clip(action, -1, 1)


def set_wind(env, task):
    env.set_task(task)


@pytest.mark.parametrize("by", ["vmap", "map"])
@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.quick("1-vmap", "3-map")
def test_a_rollout_is_the_simulation_by_hand(processes, by):
    key, params = jax.random.key(1), 0.1 * jnp.ones((2, 2))
    with closing(walk(processes, metrics=("distance",))) as env:
        tasks = env.sample_tasks(jax.random.key(0), 4)
        data = jax.jit(functools.partial(play, env, gaussian, by=by, episodes=5))(params, tasks, key)
        check_by_hand(data, Walk(), tasks, set_wind, key, scale_walk)
        assert data.terminated.any() and data.truncated.any() and not data.valid.all()
        distance = data.states.metrics["distance"]
        np.testing.assert_array_equal(distance[data.valid], -data.reward[data.valid])


@pytest.mark.parametrize("flatten", [True, False])
def test_images_and_discrete_actions(flatten):
    key = jax.random.key(1)
    with closing(lights(2, flatten=flatten)) as env:
        assert env.observation_size == (4 if flatten else (2, 2, 1)) and (env.action_size, env.discrete) == (4, True)
        state = env.reset(key)
        assert state.obs.dtype == (jnp.float32 if flatten else jnp.uint8)
        tasks = env.sample_tasks(jax.random.key(0), 8)
        assert set(tasks.tolist()) == {0, 1}
        if not flatten:
            assert env.step(state, jnp.array(1)).obs.shape == (2, 2, 1)
            return
        data = jax.jit(functools.partial(play, env, uniform, episodes=2))(None, tasks, key)
        check_by_hand(data, Lights(), tasks, set_shift, key, lambda action: int(action) + 5)
        assert 0 < data.reward.sum() < data.valid.sum()


def counted(data):
    JOURNAL.clear()
    return jax.block_until_ready(data())


def steps_by_seed():
    seeds = [seed for what, seed in JOURNAL if what == "step"]
    return {seed: seeds.count(seed) for seed in set(seeds)}


@pytest.mark.parametrize("by", ["vmap", "map"])
def test_every_lane_takes_exactly_its_steps(by):
    env, key = walk(), jax.random.key(1)
    tasks = env.sample_tasks(jax.random.key(0), 3)
    run = jax.jit(functools.partial(play, env, gaussian, by=by, episodes=4))
    for _ in range(2):  # the second time with simulators that have played before
        data = counted(lambda: run(jnp.zeros((2, 2)), tasks, key))
        keys = [jax.random.split(jax.random.split(k)[0], 4) for k in jax.random.split(key, 3)]
        expected = {seed_of(keys[i][j]): int(data.valid[i, :, j].sum()) for i in range(3) for j in range(4)}
        assert steps_by_seed() == expected
        assert sum(what == "reset" for what, _ in JOURNAL) == 12


def test_nothing_is_simulated_that_is_not_used():
    env = walk()
    counted(lambda: jax.jit(lambda key: env.step(env.reset(key), jnp.zeros(2)).info["steps"])(jax.random.key(0)))
    assert JOURNAL == []


def test_what_is_computed_again_under_checkpoint_is_the_same():
    env, key = walk(), jax.random.key(1)
    tasks = env.sample_tasks(jax.random.key(0), 3)

    def loss(params):
        data = play(env, gaussian, params, tasks, key, 4)
        again = gaussian(params, data.obs).log_prob(data.action)
        return jnp.sum(jnp.where(data.valid, again * data.reward, 0)), data

    plain, data = jax.jit(jax.grad(loss, has_aux=True))(jnp.zeros((2, 2)))
    (remat, _) = counted(lambda: jax.jit(jax.grad(jax.checkpoint(loss), has_aux=True))(jnp.zeros((2, 2))))
    np.testing.assert_allclose(remat, plain, rtol=1e-5)
    lengths = sorted(np.asarray(data.valid.sum(axis=1)).ravel().tolist())
    found = sorted(steps_by_seed().values())
    assert found in (lengths, [2 * length for length in lengths])


def test_a_state_may_be_stepped_twice():
    key, task = jax.random.key(0), {"wind": np.array([0.1, 0.0], np.float32)}
    actions = np.linspace(-1, 1, 8).reshape(4, 2)
    env = walk()
    states = [env.reset(key, task)]
    for action in actions:
        states.append(env.step(states[-1], action))
    for start in (1, 3, 0, 2):  # other actions from an earlier state, and the first ones again
        branch = functools.reduce(env.step, -actions[start:], states[start])
        again = functools.reduce(env.step, actions[start:], states[start])
        np.testing.assert_array_equal(again.obs, states[-1].obs)
        sim, reward = Walk(), None
        sim.set_task(task)
        obs, _ = sim.reset(seed=seed_of(key))
        for action in (*actions[:start], *-actions[start:]):
            obs, reward, *_ = sim.step(scale_walk(action.astype(np.float32)))
        np.testing.assert_array_equal(branch.obs, obs.astype(np.float32))
        assert branch.reward == np.float32(reward)


def test_many_actions_from_one_state():
    env = walk()
    state, actions = env.reset(jax.random.key(0)), jnp.linspace(-1, 1, 10).reshape(5, 2)
    found = jax.jit(jax.vmap(env.step, (None, 0)))(state, actions)
    alone = [env.step(state, action) for action in actions]
    np.testing.assert_array_equal(found.obs, [one.obs for one in alone])
    assert len(np.unique(found.obs[:, 0])) == 5


def test_episodes_that_are_left_lose_their_simulators_and_can_still_be_continued():
    made = []

    def make():
        made.append(Walk(far=9))
        return made[-1]

    env = envs.HostEnv(make, horizon=12)
    reset, step = jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))
    batches = [jax.random.split(jax.random.key(i), 10) for i in range(8)]
    actions = jnp.zeros((10, 2))
    left = [step(step(reset(keys), actions), actions) for keys in batches]
    count = len(made)
    assert count <= 20 + 4
    found = [step(state, actions) for state in left]
    assert len(made) == count
    for keys, state in zip(batches, found, strict=True):
        unbroken = step(step(step(reset(keys), actions), actions), actions)
        np.testing.assert_array_equal(state.obs, unbroken.obs)


def test_states_of_long_ago_are_forgotten_and_said_to_be():
    env = walk()
    reset = jax.jit(jax.vmap(env.reset, (0, None)))
    task = jax.tree.map(lambda x: x[0], env.sample_tasks(jax.random.key(0), 1))
    old = env.reset(jax.random.key(0), task)
    for i in range(14):
        jax.block_until_ready(reset(jax.random.split(jax.random.key(i), 100), task))
    with pytest.raises(Exception, match="Walk: LookupError: .*the episode of a state is forgotten"):
        env.step(old, jnp.zeros(2))


def test_a_simulator_of_chance_is_not_played_again_in_silence():
    class Chance(Walk):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=None)

    env = envs.HostEnv(Chance, draw_kinds, set_kind, horizon=9)
    state = env.reset(jax.random.key(0))
    for i in range(3):  # takes the simulator away
        env.step(env.reset(jax.random.key(i)), jnp.zeros(2))
    with pytest.raises(Exception, match="came out differently"):
        env.step(state, jnp.zeros(2))


@pytest.mark.parametrize("make", [functools.partial(walk, horizon=5), lights])
def test_it_is_an_environment(make):
    with closing(make(2)) as env:
        check_env(env, dynamics_differ=True, shared_tasks=make is lights)


def test_float64():
    with jax.enable_x64(True), closing(walk()) as env:
        state = env.step(env.reset(jax.random.key(0)), jnp.zeros(2))
        assert {x.dtype for x in (state.obs, state.reward, state.info["task"]["wind"])} == {jnp.dtype("float64")}
        sim = Walk()
        sim.set_task(jax.device_get(state.info["task"]))
        sim.reset(seed=seed_of(jax.random.key(0)))
        np.testing.assert_array_equal(state.obs, sim.step(scale_walk(np.zeros(2)))[0])


def test_tasks_are_determined_by_the_key_and_differ_between_the_splits():
    with closing(walk(), walk(2)) as (env, other):
        draw = jax.jit(env.sample_tasks, static_argnums=1, static_argnames="split")
        train, test = (draw(jax.random.key(3), 5, split=split)["wind"] for split in ("train", "test"))
        assert train.shape == (5, 2) and not np.isin(train, test).any()
        np.testing.assert_array_equal(train, other.sample_tasks(jax.random.key(3), 5)["wind"])
        many = jax.vmap(lambda key: env.sample_tasks(key, 5))(jnp.stack([jax.random.key(2), jax.random.key(3)]))
        np.testing.assert_array_equal(many["wind"][1], train)


def test_tasks_that_are_objects():
    key = jax.random.key(1)
    options = {"sample_tasks": draw_kinds, "set_task": set_kind}
    with closing(walk(**options), walk(2, **options)) as (env, other):
        tasks = jax.jit(lambda key: env.sample_tasks(key, 3, split="test"))(jax.random.key(0))
        assert {name: x.shape for name, x in tasks.items()} == {"draw": (3, 4), "index": (3,)}
        kinds = other.tasks_of(tasks)  # another process finds the same ones
        assert len({tuple(kind.wind) for kind in kinds}) == 3
        winds = {"wind": np.stack([kind.wind for kind in kinds])}
        for one in (env, other):
            data = jax.jit(functools.partial(play, one, gaussian, episodes=2))(jnp.zeros((2, 2)), tasks, key)
            check_by_hand(data, Walk(), winds, set_wind, key, scale_walk)


@pytest.mark.slow  # the processes import JAX
def test_an_environment_of_ours_in_worker_processes_is_itself():
    pure = envs.make("particles2d", horizon=8)

    def make():
        return jaxmeta.envs.GymEnv(jaxmeta.envs.make("particles2d", horizon=8))

    def draw(rng, n, split):
        return {"goal": rng.uniform(-0.5, 0.5, (n, 2))}

    env = envs.HostEnv(make, draw, lambda env, task: env.set_task(task), processes=2, horizon=8)
    with closing(env):
        tasks, params, key = env.sample_tasks(jax.random.key(0), 3), jnp.zeros((2, 2)), jax.random.key(1)
        ours, theirs = (play(each, gaussian, params, tasks, key, 2) for each in (pure, env))
        for name in ("obs", "reward", "valid", "terminated", "truncated"):
            np.testing.assert_allclose(getattr(theirs, name), getattr(ours, name), atol=1e-6)


def flat_policy(params, obs):
    mean = obs @ params["w"] + jnp.broadcast_to(params["b"], obs.shape)
    return rl.DiagonalGaussian(mean, jnp.broadcast_to(params["log_std"], mean.shape))


START = {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2), "log_std": jnp.full(2, -1.0)}


def collector(env):
    return rl.Collector(env=env, policy=flat_policy, episodes=3)


def with_promp(env):
    return rl.promp(collector(env), optax.sgd(0.1), num_tasks=2, epochs=1), START


def with_maml_trpo(env):
    return rl.maml_trpo(collector(env), optax.sgd(0.1), num_tasks=2, batch_size=1), START


def with_rl2(env):
    trial = rl.Trial(env, episodes=2)
    policy = rl.RecurrentPolicy(trial.action_size, trial.discrete, rl.GRU(4))
    params = policy.init(jax.random.key(0), jnp.zeros((1, trial.observation_size)), policy.empty_memory(1))
    return rl.rl2(trial, policy, num_tasks=2, minibatches=1, epochs=1), params


def with_pearl(env):
    policy = rl.LatentPolicy(env.action_size, sizes=(4,), encoder_sizes=(4,))
    params = policy.init(jax.random.key(0), jnp.zeros((1, env.observation_size)), policy.prior().mean)
    tasks = env.sample_tasks(jax.random.key(5), 3)
    return rl.pearl(env, policy, tasks, num_tasks=2, episodes=2, updates=1, batch_size=4, context_size=4), params


def with_maml(env):
    remat = jaxmeta.reverse(remat=True)
    learner = jaxmeta.maml(rl.policy_gradient(collector(env)), optax.sgd(0.1), meta_gradient=remat)
    training = jaxmeta.meta_step(learner, optax.sgd(0.1), num_tasks=2)

    def step(state, key):
        return training.step(state, key, rl.EnvTasks(env))

    return jaxmeta.Training(training.init, step), learner.init(START)


@pytest.mark.parametrize("build", [with_promp, with_maml_trpo, with_rl2, with_pearl, with_maml])
@pytest.mark.slow
def test_every_learner_resumes_to_the_same_bits_with_other_processes(build, tmp_path):
    options = {"log_every": 1, "progress": False}
    with closing(walk(1, 5), walk(2, 5)) as (env, other):
        run = functools.partial(jaxmeta.loop, key=jax.random.key(0), **options)
        whole = run(*build(env), iterations=2)
        run(*build(env), iterations=1, folder=tmp_path)
        resumed = run(*build(other), iterations=2, folder=tmp_path)
        jax.tree.map(np.testing.assert_array_equal, whole.state, resumed.state)
        times = ("seconds", "updates_per_second")
        first, second = ([{k: v for k, v in r.items() if k not in times} for r in t.history] for t in (whole, resumed))
        assert first == second and len(first) == 2


@pytest.mark.slow
def test_another_simulator_is_another_run(tmp_path):
    run = functools.partial(jaxmeta.loop, key=jax.random.key(0), iterations=1, folder=tmp_path, progress=False)
    run(*with_promp(walk(horizon=3)))
    with pytest.raises(ValueError, match="horizon"):
        run(*with_promp(walk(horizon=4)))


def test_episodes_of_trials_are_those_by_hand():
    """A trial asks for a reset at every step and uses few of them."""
    env, length = walk(horizon=4), 8
    trial = rl.Trial(env, episodes=2)
    tasks = env.sample_tasks(jax.random.key(0), 3)

    def policy(params, obs):
        return rl.DiagonalGaussian(obs[..., :2] @ params, jnp.zeros((*obs.shape[:-1], 2)))

    def one(task, key):
        return rl.rollout(trial, policy, jnp.zeros((2, 2)), task, key, episodes=2)

    keys = jax.random.split(jax.random.key(1), 3)
    data = jax.device_get(counted(lambda: jax.jit(jax.vmap(one))(tasks, keys)))
    for i, j in np.ndindex(3, 2):
        sim = Walk()
        sim.set_task(jax.tree.map(lambda x, i=i: np.asarray(x)[i], tasks))
        seed, key = jax.random.split(jax.random.split(jax.random.split(keys[i])[0], 2)[j])
        obs, _ = sim.reset(seed=seed_of(seed))
        ended, in_episode = 0, 0
        for t in range(length):
            assert data.valid[i, t, j] == (ended < 2)
            if ended == 2:
                break
            np.testing.assert_array_equal(data.obs[i, t, j, :2], obs.astype(np.float32))
            obs, reward, over, *_ = sim.step(scale_walk(data.action[i, t, j]))
            assert data.reward[i, t, j] == np.float32(reward)
            seed, key = jax.random.split(key)
            in_episode += 1
            if over or in_episode == 4:
                ended, in_episode = ended + 1, 0
                obs, _ = sim.reset(seed=seed_of(seed))


@pytest.mark.slow
def test_a_mesh_of_devices_asks_for_the_same_steps():
    mesh = jaxmeta.task_mesh(2)
    with closing(walk(2, 5)) as env:
        alone = rl.promp(collector(env), optax.sgd(0.1), num_tasks=2, epochs=1)
        shared = rl.promp(collector(env), optax.sgd(0.1), num_tasks=2, epochs=1, mesh=mesh)
        run = functools.partial(jaxmeta.loop, key=jax.random.key(0), iterations=1, progress=False)
        first, second = run(alone, START), run(shared, START, mesh=mesh)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), first.meta, second.meta)


def test_films_play_the_episode_again(tmp_path):
    env = envs.HostEnv(functools.partial(Walk, render_mode="rgb_array"), horizon=6)
    task = jax.tree.map(lambda x: x[0], env.sample_tasks(jax.random.key(0), 1))
    data = rl.rollout(env, gaussian, jnp.zeros((2, 2)), task, jax.random.key(1), episodes=2, states=True)
    states = jax.tree.map(lambda x: x[:, 1], data.states)
    for t in (5, 0, 3):
        image = env.render([jax.tree.map(lambda x, t=t: x[t], states)])
        x, y = np.clip(np.round(2 * np.asarray(states.obs[t]) + 4), 0, 7).astype(int)
        assert image[y, x, 0] == 255 and image.sum() == 3 * 255
    envs.save_video(env, states, tmp_path / "walk.gif")
    assert (tmp_path / "walk.gif").stat().st_size > 100
    assert not hasattr(walk(), "render")


class Broken(Walk):
    """Environment in which something goes wrong."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def step(self, action):
        if self.how == "raise":
            raise ZeroDivisionError("the wind is gone")
        if self.how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "exit":
            os._exit(3)
        if self.how == "shape":
            return np.zeros(3), 0.0, False, False, {}
        if self.how == "old":
            return np.zeros(2), 0.0, False, {}
        if self.how == "print":
            os.write(1, b"noise")
        return super().step(action)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", "Broken: ZeroDivisionError: the wind is gone"),
        ("shape", r"Broken: ValueError: observations must have shape \(2,\), got \(3,\)"),
        ("old", r"Broken: TypeError: step must return \(obs, reward, terminated, truncated, info\), got 4 values"),
        ("die", r"Broken: a worker process has died \(SIGKILL\)"),
        ("exit", r"Broken: a worker process has died \(exit status 3\)"),
    ],
)
def test_an_environment_that_fails_says_so_and_goes_on(processes, how, message):
    if processes == 1 and how in ("die", "exit"):
        pytest.skip("this process would die")
    env = envs.HostEnv(functools.partial(Broken, how), processes=processes, horizon=5)
    reset, step = jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))
    keys = jax.random.split(jax.random.key(0), 4)
    with closing(env):
        for _ in range(2):
            state = jax.block_until_ready(reset(keys))
            with pytest.raises(Exception, match=message):
                jax.block_until_ready(step(state, jnp.zeros((4, 2))))


def test_what_simulators_print_does_no_harm():
    with closing(envs.HostEnv(functools.partial(Broken, "print"), processes=2, horizon=5)) as env:
        state = env.reset(jax.random.key(0))
        assert env.step(state, jnp.zeros(2)).info["steps"] == 1


def children():
    found = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return {line.split()[0] for line in found.stdout.splitlines() if line.split()[1] != "ps"}


def test_processes_start_with_the_first_call_and_end_with_close():
    before = children()
    with walk(3) as env:
        assert children() == before
        state = env.reset(jax.random.key(0))
        assert len(children() - before) == 3
    assert children() == before
    with pytest.raises(Exception, match="is forgotten"):
        env.step(state, jnp.zeros(2))
    env.step(env.reset(jax.random.key(0)), jnp.zeros(2))
    env.close()
    env.close()


SCRIPT = """
import os, signal, sys, time
import gymnasium, jax, jax.numpy as jnp, numpy as np
from jaxmeta import envs

class Slow(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))
    def reset(self, *, seed=None, options=None):
        return np.zeros(1), {}
    def step(self, action):
        time.sleep(0.02)
        return np.zeros(1), 0.0, False, False, {}

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let what runs in the background ignore it
env = envs.HostEnv(Slow, lambda rng, n, split: rng.normal(size=n), lambda env, task: None, processes=2, horizon=10)

@jax.jit
def play(key):
    state = jax.vmap(env.reset)(jax.random.split(key, 4))
    return jax.lax.scan(lambda s, _: (jax.vmap(env.step)(s, jnp.zeros((4, 1))), None), state, length=1_000)[0].obs

env.reset(jax.random.key(0))
print("ready", *[w._process.pid for w in env._workers._workers], flush=True)
for i in range(1000):
    play(jax.random.key(i)).block_until_ready()
    if sys.argv[1] == "end" and i == 1:
        break
"""


@pytest.mark.parametrize("ending", ["end", "SIGINT", "SIGTERM", "SIGKILL"])
@pytest.mark.quick("SIGINT")
def test_no_process_is_left_behind(ending, tmp_path):
    """A script without `if __name__ == "__main__"`, which ends in the middle of a program."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, str(script), ending], **options) as run:
        workers = [int(pid) for pid in run.stdout.readline().split()[1:]]
        assert len(workers) == 2
        if ending != "end":
            time.sleep(0.5)
            kill = os.killpg if ending == "SIGINT" else os.kill  # Ctrl-C is for the workers too
            kill(run.pid, getattr(signal, ending))
        try:
            code = run.wait(30)
        finally:
            run.kill()  # else the end of the block would wait for it
        assert (code == 0) == (ending == "end")
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


class Goals(gymnasium.Env):
    """Point that must find a goal at distance 1 from the origin."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-0.2, 0.2, (2,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = 0.05 * self.np_random.normal(size=2)
        return self.at, {}

    def step(self, action):
        self.at = self.at + action
        return self.at, -float(np.linalg.norm(self.at - self.goal)), False, False, {}


def draw_goals(rng, n, split):
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def set_goal(env, goal):
    env.goal = goal


@pytest.mark.slow
def test_promp_learns_in_eight_processes(tmp_path):
    """Staying at the origin gives -15, and the fastest way to the goal, which takes five steps or more, about -2."""
    start = {**START, "log_std": jnp.full(2, -0.5)}
    made = [envs.HostEnv(Goals, draw_goals, set_goal, processes=count, horizon=15) for count in (8, 1)]
    with closing(*made):
        trainings, curves = [], []
        for env in made:
            collect = rl.Collector(env=env, policy=flat_policy, episodes=10)
            trainings.append(rl.promp(collect, optax.sgd(0.3), num_tasks=10, optimizer=optax.adam(0.02)))
            curves.append(jax.jit(rl.adaptation_curve(collect, optax.sgd(0.3), 1)))
        run = functools.partial(jaxmeta.loop, key=jax.random.key(0), log_every=10, progress=False)
        whole = run(trainings[0], start, iterations=60)
        run(trainings[0], start, iterations=20, folder=tmp_path)
        resumed = run(trainings[1], start, iterations=60, folder=tmp_path)
        returns = [[record["train/return_1"] for record in trained.history] for trained in (whole, resumed)]
        assert returns[0] == returns[1] and len(returns[0]) == 6
        jax.tree.map(np.testing.assert_array_equal, whole.state, resumed.state)

        tasks, key = made[0].sample_tasks(jax.random.key(3), 40, split="test"), jax.random.key(4)
        before = curves[0](trainings[0].init(start).meta, tasks, key).sampled.mean(axis=0)
        after = curves[0](whole.meta, tasks, key)
        assert after.sampled.mean(axis=0)[1] > before[1] + 4  # about -5.5 from -12.7
        assert after.sampled.mean(axis=0)[0] < -14  # without a task there is nowhere to go
        jax.tree.map(np.testing.assert_array_equal, after, curves[1](resumed.meta, tasks, key))


MODULE = """
import gymnasium, numpy as np
from jaxmeta import envs, register

class Line(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-9, 9, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))
    render_mode = "rgb_array"
    def reset(self, *, seed=None, options=None):
        self.at = np.zeros(1, np.float32)
        return self.at, {}
    def step(self, action):
        self.at = np.clip(self.at + action, -9, 9)
        return self.at, -float(abs(self.at[0] - self.goal)), False, False, {}
    def render(self):
        return np.full((4, 4, 3), int(20 * abs(self.at[0])), np.uint8)

def draw(rng, n, split):
    return rng.uniform(-2, 2, n)

def set_goal(env, goal):
    env.goal = goal

def line(horizon=5):
    return envs.HostEnv(Line, draw, set_goal, processes=2, horizon=horizon)

register.environment("line-of-the-test", line)
"""


@pytest.mark.slow
def test_a_registered_one_trains_on_the_command_line(tmp_path):
    """The module is a file that the worker processes cannot import."""
    (tmp_path / "line_module.py").write_text(MODULE)
    sizes = (
        "--episodes 2 --hidden 4 --num-tasks 2 --iterations 2 --validate-every 1 --validation-tasks 2 --test-tasks 2"
    )
    words = f"train --benchmark line-of-the-test --learner promp --horizon 5 {sizes}".split()
    run = functools.partial(subprocess.run, check=True, cwd=tmp_path)  # names stay registered in a process
    run([sys.executable, "-m", "jaxmeta", *words, "--module", "line_module.py", "--folder", "run"])
    run([sys.executable, "-c", "import jaxmeta; jaxmeta.load_run('run').film('line.gif')"])
    assert (tmp_path / "line.gif").exists()


class Odd(Walk):
    """Environment with other spaces."""

    def __init__(self, **spaces):
        super().__init__()
        vars(self).update(spaces)


@pytest.mark.parametrize(
    ("spaces", "error", "message"),
    [
        ({"observation_space": spaces.Discrete(3)}, TypeError, "observation_space of Odd must be a Box, got Discrete"),
        ({"observation_space": spaces.Dict(a=spaces.Discrete(3))}, TypeError, "gymnasium.wrappers.FlattenObservation"),
        ({"action_space": spaces.MultiDiscrete([2, 2])}, TypeError, "action_space of Odd must be a Box of floats or"),
        ({"action_space": spaces.Box(0, 9, (1,), np.int64)}, TypeError, "action_space of Odd must be a Box of floats"),
        ({"action_space": spaces.Box(-np.inf, 1, (1,))}, ValueError, "action_space of Odd must have finite bounds"),
    ],
)
def test_other_spaces_are_refused_by_name(spaces, error, message):
    with pytest.raises(error, match=message):
        envs.HostEnv(lambda: Odd(**spaces), horizon=3)


def random_tasks(rng, n, split):
    return np.random.default_rng().normal(size=n)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"make": 3}, TypeError, "make must be a function, got 3"),
        ({"make": lambda: 3}, TypeError, "make must return an environment with the interface of gymnasium, got 3"),
        ({"make": Lights}, TypeError, "Lights must have a method sample_tasks, or HostEnv an argument sample_tasks"),
        ({"make": Lights, "sample_tasks": draw_shifts}, TypeError, "Lights must have a method set_task, or HostEnv"),
        ({"set_task": 1}, TypeError, "set_task must be a function, got 1"),
        ({"horizon": None}, ValueError, "horizon must be given, because Walk has no spec with max_episode_steps"),
        ({"horizon": 0}, ValueError, "horizon must be an integer of at least 1, got 0"),
        ({"processes": 0}, ValueError, "processes must be an integer of at least 1, got 0"),
        ({"sample_tasks": random_tasks}, ValueError, "sample_tasks of Walk must draw the same tasks from the same rng"),
        ({"sample_tasks": lambda r, n, s: np.zeros(n + 1)}, ValueError, r"arrays with leading axis \[2\]"),
        ({"sample_tasks": lambda r, n, s: [0.0]}, TypeError, "sample_tasks must return a list of 2 tasks"),
        ({"sample_tasks": lambda r, n, s: [np.zeros(i) for i in range(n)]}, ValueError, "must have the same shapes"),
        ({"sample_tasks": lambda r, n, s: Kind(0)}, TypeError, "sample_tasks must return a list of 2 tasks"),
    ],
)
def test_mistakes_are_named(options, error, message):
    with pytest.raises(error, match=message):
        envs.HostEnv(**{"make": Walk, "horizon": 5, **options})


def test_tasks_of_another_form_and_unknown_metrics_are_named():
    with pytest.raises(ValueError, match=re.escape("tasks of Walk must have the shapes {'wind': (2,)}, got {'wind'")):
        walk().reset(jax.random.key(0), {"wind": jnp.zeros(3)})
    env = walk(metrics=("success",))
    with pytest.raises(Exception, match="info has no 'success', which is among metrics: it has distance"):
        env.step(env.reset(jax.random.key(0)), jnp.zeros(2))
    with pytest.raises(ValueError, match="split must be one of 'train', 'test', got 'all'"):
        env.sample_tasks(jax.random.key(0), 1, split="all")
