"""Runs of several processes on the loopback interface, by CPU collectives: equal to one process, whoever is killed."""

import os
import random
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import data, models

ITERATIONS = 30
HEARTBEAT = 20  # seconds, after which JAX takes a silent process for a dead one
QUICK = {name: value for name, value in os.environ.items() if name.startswith(("XLA_", "JAX_COMP", "JAX_PERS"))}
SECONDS = 240.0  # until the other processes must have ended, on a busy machine


def train(folder, iterations=ITERATIONS, mesh=None):
    model = models.MLP(sizes=(16,))
    sampler = data.Sinusoid(shots=3, queries=4)
    learner = jaxmeta.maml(jaxmeta.regression(model.apply), optax.sgd(0.01))
    return jaxmeta.train(
        learner,
        optax.adam(1e-2),
        learner.init(jax.jit(model.init)(jax.random.key(0), sampler.example)),
        sampler,
        jax.random.key(1),
        iterations=iterations,
        num_tasks=8,
        log_every=2,
        validation=sampler,
        validation_tasks=6,
        validate_every=2,
        monitor="loss",
        folder=folder,
        progress=False,
        mesh=mesh,
        divide_optimizer=mesh is not None,
    )


def main(folder, address, count, index):
    """What one of the processes does; four devices in all."""
    jax.config.update("jax_num_cpu_devices", 4 // int(count))
    jax.distributed.initialize(address, int(count), int(index), heartbeat_timeout_seconds=HEARTBEAT)
    trained = train(folder, mesh=jaxmeta.task_mesh())
    if index == "0":
        np.savez(f"{folder}/result.npz", *map(np.asarray, jax.tree.leaves(trained.meta)), step=trained.step)


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start(folder, count):
    address = free_address()
    return [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), address, str(count), str(i)],
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": "", "JAX_PLATFORMS": "cpu"} | QUICK,
        )
        for i in range(count)
    ]


def finish(processes, seconds=SECONDS):
    """Exit codes and what was said."""
    try:
        said = [process.communicate(timeout=seconds)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


@pytest.fixture(scope="module")
def undisturbed():
    return train(None)


def check_result(folder, undisturbed):
    with np.load(folder / "result.npz") as found:
        assert found["step"] == undisturbed.step
        for i, value in enumerate(jax.tree.leaves(undisturbed.meta)):
            np.testing.assert_allclose(found[f"arr_{i}"], value, rtol=1e-4, atol=1e-5)


def wait_for(condition, processes, seconds=SECONDS):
    end = time.monotonic() + seconds
    while not condition() and all(process.poll() is None for process in processes):
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.02)


def checkpoints(folder):
    return [path for path in (folder / "checkpoints").glob("*") if path.name.isdigit()]


def records(folder):
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def unfinished(folder):
    return list((folder / "checkpoints").glob("*tmp*"))


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_processes_together_equal_one(count, tmp_path, undisturbed):
    codes, said = finish(start(tmp_path, count))
    assert codes == [0] * count, said
    check_result(tmp_path, undisturbed)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1 + ITERATIONS // 2  # with the start


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "asked"),
    [(signal.SIGKILL, "first"), (signal.SIGTERM, "last")],
)
def test_when_a_process_ends_the_others_stop_and_the_run_goes_on(number, asked, tmp_path, undisturbed):
    processes = start(tmp_path, 2)
    victim, other = processes if asked == "first" else processes[::-1]
    wait_for(lambda: len(checkpoints(tmp_path)) > 0, processes)
    victim.send_signal(number)
    codes, said = finish(processes)
    if number == signal.SIGTERM:  # all of them stop at the same update
        assert codes == [-signal.SIGTERM] * 2, said
    else:
        message = said[processes.index(other)]
        assert other.returncode != 0
        # Or JAX's own, if it is faster.
        assert "a process of this run has ended or failed" in message or "coordination service" in message
    assert not (tmp_path / "result.npz").exists()
    assert finish(start(tmp_path, 2))[0] == [0, 0]
    check_result(tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_kills_at_random_moments(seed, tmp_path, undisturbed):
    """One of the processes, or the whole job; every other time while a checkpoint is being written."""
    random_moment = random.Random(seed)
    for _ in range(2):
        known, processes = records(tmp_path), start(tmp_path, 2)
        wait_for(lambda known=known: records(tmp_path) > known, processes)
        time.sleep(random_moment.uniform(0.0, 1.0))
        victims = random_moment.choice([processes[:1], processes[1:], processes])
        if random_moment.random() < 0.5:
            wait_for(lambda: unfinished(tmp_path), processes)
        for victim in victims:
            victim.kill()
        finish(processes)
    codes, said = finish(start(tmp_path, 2))
    assert codes == [0, 0], said
    check_result(tmp_path, undisturbed)


if __name__ == "__main__":
    main(*sys.argv[1:])
