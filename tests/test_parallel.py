"""Tasks divided over devices: the same numbers on one, two and eight, which tests/conftest.py simulates."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmeta
from jaxmeta import Task, _parallel, data, models
from jaxmeta.__main__ import main

MODEL = models.MLP(sizes=(8,))
LOSS = jaxmeta.regression(MODEL.apply)
SAMPLER = data.Sinusoid(shots=3, queries=4)
KEY = jax.random.key(1)
OPTIMIZER = optax.adam(1e-2)
NET = models.MLP(sizes=(8,), out=3)
TASKS = data.FewShot.from_classes(
    np.random.default_rng(0).normal(size=(10, 6, 4)).astype(np.float32), ways=3, shots=2, queries=2
)


LEARNERS = {
    "maml": (jaxmeta.maml(LOSS, optax.sgd(0.01), steps=2), MODEL, SAMPLER),
    "implicit": (jaxmeta.imaml(LOSS, optax.sgd(0.01), steps=3, proximal=1.0), MODEL, SAMPLER),
    "protonet": (jaxmeta.protonet(NET.apply, 3), NET, TASKS),
    "metaoptnet": (jaxmeta.metaoptnet(NET.apply, 3), NET, TASKS),
}


def start(name):
    learner, model, sampler = LEARNERS[name]
    return learner, learner.init(jax.jit(model.init)(jax.random.key(0), sampler.example)), sampler


def assert_close(actual, expected, tolerance=2e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), actual, expected)


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.quick("maml")
def test_step_does_not_depend_on_the_devices(name):
    learner, meta, sampler = start(name)
    optimizer = optax.sgd(1.0)  # its update is the meta-gradient

    def step(mesh):
        training = jaxmeta.meta_step(learner, optimizer, 8, mesh=mesh)
        return jax.jit(training.step)(training.init(meta), KEY, sampler)

    assert_close(step(jaxmeta.task_mesh(8)), step(None))


@pytest.mark.parametrize(
    ("devices", "num_tasks", "batch_size"),
    [(2, 11, 3), (8, 11, 1), (8, 5, 4)]
    + [pytest.param(*case, marks=pytest.mark.slow) for case in [(1, 11, 3), (2, 16, 2), (8, 16, None)]],
)
@pytest.mark.quick("8-5-4")
def test_any_number_of_tasks_can_be_divided(devices, num_tasks, batch_size):
    learner, meta, sampler = start("maml")

    def both(mesh):
        training = jaxmeta.meta_step(learner, OPTIMIZER, num_tasks, batch_size=batch_size, mesh=mesh)
        run = jaxmeta.evaluate(learner, num_tasks, batch_size=batch_size, mesh=mesh)
        together = jax.jit(lambda state, key, tasks: (training.step(state, key, tasks), run(state.meta, tasks, key)))
        return together(training.init(meta), KEY, sampler)

    found = both(jaxmeta.task_mesh(devices))
    assert found[1]["loss"].shape == (num_tasks,)
    assert_close(found, both(None))


class Numbered:
    """Tasks that are their keys' numbers."""

    example = jnp.zeros(())

    def __call__(self, key):
        keys = jax.vmap(lambda key: jax.random.split(key)[0])(jax.random.split(KEY, 9))
        same = jnp.all(jax.random.key_data(keys) == jax.random.key_data(key)[None], axis=1)
        return Task(jnp.argmax(same).astype(jnp.float32), None)


def test_tasks_that_fill_up_a_device_do_not_count():
    """Nine tasks on eight devices: seven are there twice."""

    def grad(meta, task, key):
        return {"loss": task.support}, jaxmeta.MetaParams(task.support)

    learner = LEARNERS["maml"][0]._replace(grad=grad)
    meta = jaxmeta.MetaParams(jnp.zeros(()))
    training = jaxmeta.meta_step(learner, optax.sgd(1.0), 9, mesh=jaxmeta.task_mesh())
    new, metrics = jax.jit(lambda key: training.step(training.init(meta), key, Numbered()))(KEY)
    assert (float(metrics["loss"]), float(new.meta.params)) == (4.0, -4.0)


@pytest.mark.slow
def test_a_mesh_of_any_shape_and_a_divided_data_set():
    learner, meta, sampler = start("protonet")
    square = jax.make_mesh((2, 4), ("a", "b"))  # axes of type Explicit, JAX's default
    rows = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,))
    classes = np.random.default_rng(0).normal(size=(10, 6, 4)).astype(np.float32)
    there = data.FewShot.from_classes(
        classes, ways=3, shots=2, queries=2, device=NamedSharding(rows, PartitionSpec("rows"))
    )
    plain = jaxmeta.meta_step(learner, OPTIMIZER, 8)
    expected = jax.jit(plain.step)(plain.init(meta), KEY, sampler)
    for mesh, tasks in ((square, sampler), (rows, there)):
        training = jaxmeta.meta_step(learner, OPTIMIZER, 8, mesh=mesh)
        assert_close(jax.jit(training.step)(training.init(meta), KEY, tasks), expected)


def train(folder, mesh, iterations, **options):
    learner, meta, sampler = start("maml")
    return jaxmeta.train(
        learner,
        OPTIMIZER,
        meta,
        sampler,
        KEY,
        iterations=iterations,
        num_tasks=8,
        log_every=5,
        validation=sampler,
        validation_tasks=6,
        validate_every=10,
        monitor="loss",
        folder=folder,
        progress=False,
        mesh=mesh,
        **options,
    )


@pytest.mark.slow
def test_training_goes_on_with_another_number_of_devices(tmp_path):
    expected = train(None, None, 20)
    train(tmp_path, jaxmeta.task_mesh(8), 10, divide_optimizer=True)
    there = train(tmp_path, jaxmeta.task_mesh(2), 20)
    assert_close(there.meta, expected.meta)
    times = ("seconds", "tasks_per_second")
    for ours, theirs in zip(there.history, expected.history, strict=True):
        ours, theirs = ({k: v for k, v in record.items() if k not in times} for record in (ours, theirs))
        assert_close(ours, theirs)


def test_the_optimizers_state_is_divided():
    _, meta, sampler = start("maml")
    wide = models.MLP(sizes=(64,))
    learner = jaxmeta.maml(jaxmeta.regression(wide.apply), optax.sgd(0.01))
    meta = learner.init(wide.init(jax.random.key(0), sampler.example))
    mesh = jaxmeta.task_mesh()
    training = jaxmeta.meta_step(learner, OPTIMIZER, 8, mesh=mesh, divide_optimizer=True)
    state, _ = jax.jit(training.step)(training.init(meta), KEY, sampler)
    plain = jaxmeta.meta_step(learner, OPTIMIZER, 8)
    assert_close(state, jax.jit(plain.step)(plain.init(meta), KEY, sampler)[0])
    moments = jax.tree.leaves(state.opt_state[0].mu)
    assert all((x.size < 8) == x.sharding.is_fully_replicated for x in moments)
    assert sum(x.addressable_shards[0].data.size for x in moments) < sum(x.size for x in moments) / 7


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxmeta.task_mesh(9), "devices must be from 1 to 8, the number that JAX finds, got 9"),
        (lambda: jaxmeta.task_mesh(0), "got 0"),
        (lambda: jaxmeta.meta_step(LEARNERS["maml"][0], OPTIMIZER, 8, divide_optimizer=True), "needs a mesh"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_command_line(tmp_path, capsys):
    options = ["train", "--benchmark", "sinusoid", "--iterations", "4", "--test-tasks", "5", "--validation-tasks", "2"]
    for name, more in (("one", []), ("eight", ["--devices", "8"])):
        assert main([*options, *more, "--folder", str(tmp_path / name)]) == 0
    one, eight = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "eight"))
    assert one["test"]["loss"]["mean"] == pytest.approx(eight["test"]["loss"]["mean"], rel=1e-4)
    capsys.readouterr()
    assert main([*options, "--estimate", "--devices", "2"]) == 0
    assert "an outer update needs" in capsys.readouterr().out


WITHOUT_DEVICES = """
from jaxmeta import Experiment
import jaxmeta.__main__ as command_line

command_line.available_cores = lambda: 2
for options in (
    {"benchmark": "sinusoid", "num_tasks": 3},
    {"learner": "simpleshot"},
    {"model": "resnet12"},
    {"benchmark": "particles2d", "num_tasks": 2},
    {"benchmark": "gp-prior", "learner": "pfn", "num_tasks": 2},  # whose factorizations would wait for a thread
    {"benchmark": "sinusoid", "num_tasks": 4},
    {"learner": "oml", "num_tasks": 2},
):
    mesh = command_line._mesh_of_cores(Experiment(**options).resolve())
    print(mesh and mesh.size)
"""


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({}, "None None None None None 2 2"), ({"JAX_NUM_CPU_DEVICES": "3"}, "None None None None None None None")],
    ids=["nothing", "three devices"],
)
@pytest.mark.quick("nothing")
def test_a_cpu_has_a_device_for_each_core_if_nothing_is_chosen(chosen, expected):
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | chosen
    done = subprocess.run([sys.executable, "-c", WITHOUT_DEVICES], capture_output=True, text=True, check=True, env=env)
    assert " ".join(done.stdout.split()) == expected


@pytest.mark.parametrize(
    ("quota", "cores"),
    [(None, 4), ("max 100000", 4), ("800000 100000", 4), ("250000 100000", 2), ("50000 100000", 1)],
)
def test_cores_are_those_that_the_process_may_use(quota, cores, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 3, 5}, raising=False)
    monkeypatch.setattr(_parallel, "_CPU_QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert _parallel.available_cores() == cores


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--devices", "9"], "devices must be from 1 to 8"),
        (["--num-processes", "2"], "need --coordinator"),
        (["--coordinator", "localhost:1"], "--coordinator needs --num-processes and --process-id"),
    ],
)
def test_bad_devices_on_the_command_line(options, message, capsys):
    assert main(["train", *options]) == 1
    assert message in capsys.readouterr().err
