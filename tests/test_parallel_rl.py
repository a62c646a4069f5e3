"""Meta-RL with tasks divided over devices: the same numbers on one, two and eight, and divided episodes."""

import functools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import envs, rl
from jaxmeta._parallel import over_tasks, replicate

TASKS = 11  # no multiple of the devices
ENV = envs.make("particles2d", horizon=5)


def policy(params, obs):
    mean = jnp.tanh(obs @ params["weights"] + params["bias"][(None,) * (obs.ndim - 1)])
    return rl.DiagonalGaussian(mean, jnp.full_like(mean, -0.5))


COLLECT = rl.Collector(env=ENV, policy=policy, episodes=3)
INNER = optax.sgd(0.1)
TRIAL = rl.Trial(envs.make("bandit-bernoulli", arms=2, horizon=4))
NETWORK = rl.RecurrentPolicy(TRIAL.action_size, TRIAL.discrete, rl.GRU(4))
LATENT = rl.LatentPolicy(ENV.action_size, latent_size=2, sizes=(4,), encoder_sizes=(3,))

TRAININGS = {
    "maml_trpo": lambda mesh: rl.maml_trpo(COLLECT, INNER, num_tasks=TASKS, mesh=mesh),
    "promp": lambda mesh: rl.promp(COLLECT, INNER, num_tasks=TASKS, epochs=2, optimizer=optax.sgd(0.1), mesh=mesh),
    "maml_a2c": lambda mesh: rl.maml_a2c(COLLECT, INNER, num_tasks=TASKS, optimizer=optax.sgd(0.1), mesh=mesh),
    "e_maml": lambda mesh: rl.e_maml(COLLECT, INNER, num_tasks=TASKS, mesh=mesh),
    "multi_task_ppo": lambda mesh: rl.multi_task_ppo(COLLECT, num_tasks=TASKS, optimizer=optax.sgd(0.1), mesh=mesh),
    "learned_discount": lambda mesh: rl.learned_discount(
        COLLECT, optax.sgd(0.1), optax.sgd(0.1), num_tasks=TASKS, mesh=mesh
    ),
    "rl2": lambda mesh: rl.rl2(
        TRIAL, NETWORK, num_tasks=12, minibatches=2, epochs=2, optimizer=optax.sgd(0.1), mesh=mesh
    ),
    "pearl": lambda mesh: rl.pearl(
        ENV,
        LATENT,
        ENV.sample_tasks(jax.random.key(4), 2 * TASKS),
        num_tasks=TASKS,
        episodes=2,
        updates=3,
        optimizer=optax.sgd(0.1),
        context_size=4,
        batch_size=6,
        capacity=30,
        mesh=mesh,
    ),
}


@pytest.fixture(autouse=True)
def float64():
    """Keeps rounding errors small, even after the conjugate gradients of a trust region."""
    with jax.enable_x64(True):
        yield


def start(name):
    key = jax.random.key(0)
    if name == "rl2":
        return jax.jit(NETWORK.init)(key, jnp.zeros((1, TRIAL.observation_size)), NETWORK.empty_memory(1))
    if name == "pearl":
        return jax.jit(LATENT.init)(key, jnp.zeros((1, ENV.observation_size)), LATENT.prior().mean)
    return {"weights": jnp.array([[0.3, -0.2], [0.1, 0.4]]), "bias": jnp.array([0.2, -0.1])}


@functools.cache
def compiled(name, devices):
    """Returns a compiled iteration and its arguments."""
    training = TRAININGS[name](jaxmeta.task_mesh(devices) if devices else None)
    args = training.init(start(name)), jax.random.key(1)
    return jax.jit(training.step).lower(*args).compile(), args


CASES = [("promp", 8)]
SLOW = [("promp", 1), ("promp", 2)]
SLOW += [(n, 8) for n in ("rl2", "maml_trpo", "maml_a2c", "e_maml", "multi_task_ppo", "learned_discount", "pearl")]


@pytest.mark.parametrize(("name", "devices"), CASES + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW])
@pytest.mark.slow
def test_an_iteration_does_not_depend_on_the_devices(name, devices):
    step, (start, key) = compiled(name, None)
    expected = step(start, key)  # state and metrics
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), start.meta, expected[0].meta)
    assert max(jax.tree.leaves(moved)) > 1e-3

    mesh = jaxmeta.task_mesh(devices)
    step, args = compiled(name, devices)
    found = step(*replicate(args, mesh))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-8), found, expected)
    assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(found))


@pytest.mark.slow
def test_episodes_and_losses_are_divided():
    """Each device computes, and holds, two of the eleven tasks throughout the program."""
    programs: list[Any] = [compiled("promp", devices)[0] for devices in (None, 8)]
    memory = [program.memory_analysis().temp_size_in_bytes for program in programs]
    operations = [program.cost_analysis()["flops"] for program in programs]
    assert memory[1] < 0.3 * memory[0]
    assert operations[1] < 0.3 * operations[0]


CURVES = {
    "promp": lambda mesh: rl.adaptation_curve(COLLECT, INNER, 1, mesh=mesh),
    "pearl": lambda mesh: rl.pearl_curve(ENV, LATENT, 1, mesh=mesh),
    "rl2": lambda mesh: rl.trial_curve(rl.Trial(TRIAL.env, 2), NETWORK, mesh=mesh),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CURVES)
def test_the_adaptation_curve(name):
    def run(mesh):
        tasks = (TRIAL if name == "rl2" else ENV).sample_tasks(jax.random.key(2), TASKS, split="test")
        return jax.jit(CURVES[name](mesh))(jaxmeta.MetaParams(start(name)), tasks, jax.random.key(3))

    expected, found = run(None), run(jaxmeta.task_mesh())
    assert expected.mode.shape == (TASKS, 2)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-8), found, expected)
    assert found.mode.sharding.is_fully_replicated


@pytest.mark.slow
@pytest.mark.parametrize("name", ["promp", "learned_discount", "rl2", "pearl"])
def test_the_loop_on_a_mesh(name, tmp_path):
    """A training on two devices gives the numbers of one device, and resumes with another number of devices."""

    def run(devices, iterations, folder=None):
        mesh = jaxmeta.task_mesh(devices) if devices else None
        training = TRAININGS[name](mesh)
        options = {"log_every": 1, "validate_every": 1, "mesh": mesh, "folder": folder, "progress": False}
        return jaxmeta.loop(training, start(name), jax.random.key(1), iterations=iterations, **options)

    expected = run(None, 2)
    run(2, 1, tmp_path)
    found = run(8, 2, tmp_path)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-7), found.state, expected.state)
    assert all(x.sharding.is_fully_replicated and len(x.devices()) == 8 for x in jax.tree.leaves(found.state))


def test_the_loop_resumes_with_another_number_of_devices(tmp_path):
    def run(devices, iterations, folder):
        mesh = jaxmeta.task_mesh(devices) if devices else None

        def init(meta, key):
            return jaxmeta.TrainingState(meta, (), jnp.int32(0))

        def step(state, key, scale):
            keys = over_tasks(jax.random.split(key, TASKS), mesh)
            draws = jax.vmap(jax.random.normal)(keys)
            meta = state.meta + scale * jnp.mean(draws)
            return jaxmeta.TrainingState(meta, (), state.update + 1), {"loss": jnp.mean(draws**2)}

        return jaxmeta.loop(
            jaxmeta.Training(init, step),
            jnp.array(0.0),
            jax.random.key(0),
            jnp.array(2.0),
            iterations=iterations,
            log_every=2,
            validate_every=2,
            mesh=mesh,
            folder=folder,
            progress=False,
        )

    expected = run(None, 4, None)
    run(8, 2, tmp_path)
    again = run(2, 4, tmp_path)
    np.testing.assert_allclose(again.state.meta, expected.state.meta, rtol=1e-8)
    assert len(again.state.meta.sharding.device_set) == 2
    for ours, theirs in zip(again.history, expected.history, strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-8)
