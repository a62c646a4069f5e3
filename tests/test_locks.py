"""Locks: one process holds a file, others learn who, and the death of the holder frees it, also on another machine."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta
from jaxmeta import Experiment, Training, TrainingState
from jaxmeta.__main__ import main
from jaxmeta.data.sources import cached
from jaxmeta.locks import Lock, Owner, waiting
from jaxmeta.locks import _lock as module

# What any other process does that holds a lock, without our code and without its seconds of imports.
HOLDER = """
import fcntl, json, os, socket, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
os.write(file, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": "noon"}).encode())
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(module, "_BEAT", 0.02)
    monkeypatch.setattr(module, "_POLL", 0.01)
    monkeypatch.setattr(module, "_PATIENCE", 0.3)


@pytest.fixture
def holder():
    """Starts processes that hold a lock until they are killed."""
    started = []

    def start(path):
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], **options))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_one_at_a_time_and_nothing_is_left(tmp_path):
    with Lock(tmp_path / "lock") as first, Lock(tmp_path / "lock") as second:
        assert first.take() is None and first.is_whole
        owner = second.take()
        assert owner is not None and not second.is_whole
        assert (owner.pid, owner.host) == (os.getpid(), socket.gethostname())
        assert str(owner.pid) in str(owner) and owner.host in str(owner)
        first.release()
        assert list(tmp_path.iterdir()) == []
        assert second.take() is None
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_does_not_block(tmp_path, holder):
    process, lock = holder(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert lock.take() == Owner(process.pid, socket.gethostname(), "noon")
    process.kill()
    process.wait()
    assert lock.take() is None
    lock.release()


@pytest.mark.parametrize("lives", [True, False])
@pytest.mark.parametrize("where", ["another machine", "a disk without locks"])
def test_where_locks_do_not_reach_signs_of_life_count(where, lives, tmp_path, impatient, monkeypatch):
    path, ended = tmp_path / "lock", threading.Event()
    host = "elsewhere" if where == "another machine" else socket.gethostname()
    path.write_text(json.dumps({"pid": 7, "host": host, "since": "noon"}))
    if where == "a disk without locks":

        def no_locks(file):
            raise OSError(errno.ENOSYS, "no locks here")

        monkeypatch.setattr(module, "_lock", no_locks)

    def beat():
        while not ended.wait(0.02):
            os.utime(path)

    thread = threading.Thread(target=beat if lives else ended.wait)
    thread.start()
    with Lock(path) as lock:
        found = lock.take()
        ended.set()
        thread.join()
        assert found == (Owner(7, host, "noon") if lives else None)
        if not lives:  # and this one shows that it lives
            with Lock(path) as other:
                owner = other.take()
                assert owner is not None and owner.pid == os.getpid()


@pytest.mark.parametrize("content", [b"", b"no json", b"[1]", b'{"pid": "x"}', b"[" * 3000])
def test_a_file_that_names_nobody_is_free(content, tmp_path):
    (tmp_path / "lock").write_bytes(content)
    with Lock(tmp_path / "lock") as lock:
        assert lock.take() is None


def test_a_lock_whose_file_was_removed_or_replaced_is_not_whole(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with Lock(folder / "lock") as lock, Lock(folder / "lock") as other:
        lock.take()
        shutil.rmtree(folder)
        assert not lock.is_whole
        folder.mkdir()
        assert other.take() is None and other.is_whole and not lock.is_whole
        lock.release()
        assert other.is_whole


def test_those_who_wait_say_so_and_go_on(tmp_path, holder, capsys):
    process = holder(tmp_path / "lock")
    timer = threading.Timer(0.3, process.kill)
    timer.start()
    with waiting(tmp_path / "lock", "fetches it"):
        assert process.wait() == -signal.SIGKILL
    told = f"Waiting for another process, which fetches it (pid {process.pid} on {socket.gethostname()}, since noon)\n"
    assert capsys.readouterr().err == told


def test_one_makes_what_all_take_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))
    made, found = [], []

    def make():
        made.append(time.sleep(0.2))
        return {"x": np.arange(4)}

    threads = [threading.Thread(target=lambda: found.append(cached("x", ["x"], make)["x"].tolist())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and found == [[0, 1, 2, 3]] * 3
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["x.npz"]


# Folders of runs.


def walk(folder, **options):
    """A training that takes no time."""

    def step(state, key):
        return TrainingState(state.meta + 1.0, (), state.update + 1), {"loss": state.meta}

    training = Training(lambda meta, key: TrainingState(meta, (), jnp.int32(0)), step)
    options = {"iterations": 6, "log_every": 2, "progress": False} | options
    return jaxmeta.loop(training, jnp.array(0.0), jax.random.key(0), folder=folder, **options)


def test_a_folder_has_one_training_at_a_time(tmp_path, holder):
    found = []

    def refused():
        with pytest.raises(BlockingIOError) as error:
            walk(tmp_path / "run")
        found.append(str(error.value).split(" (")[0])

    def another(record):
        thread = threading.Thread(target=refused)
        thread.start()
        thread.join()

    whole = walk(tmp_path / "run", callback=another)
    assert found == [f"another thread of this process trains in folder {tmp_path / 'run'}"] * 3
    process = holder(tmp_path / "run" / ".lock")
    with pytest.raises(BlockingIOError, match=rf"another process trains in folder .* \(pid {process.pid} on .*Wait"):
        walk(tmp_path / "run", iterations=8)
    process.kill()
    process.wait()
    assert walk(tmp_path / "run", iterations=8).history[:3] == whole.history
    assert not (tmp_path / "run" / ".lock").exists()


def test_the_command_says_who_trains_there(tmp_path, holder, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    process = holder(folder / ".lock")
    words = ["train", "--benchmark", "sinusoid", "--hidden", "4", "--folder", str(folder)]
    assert main(words) == 1
    _, err = capsys.readouterr()
    assert err.startswith("jaxmeta: another process trains in folder") and f"pid {process.pid} on" in err
    assert err.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxmeta.runs._experiment.claim_folder", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Experiment("sinusoid", hidden=4).run(tmp_path / "runs" / "one", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("remade", [False, True])
def test_a_run_whose_folder_is_removed_ends_and_makes_none(remade, tmp_path):
    def remove(record):
        shutil.rmtree(tmp_path / "run")
        if remade:
            (tmp_path / "run").mkdir()

    with pytest.raises(FileNotFoundError, match="run was removed during the run, which ends here"):
        walk(tmp_path / "run", callback=remove)
    assert [path.name for path in tmp_path.rglob("*")] == ["run"] * remade
