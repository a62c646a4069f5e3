"""Ends of the command line: one line and an exit status, whatever the machine lacks."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest
from PIL import Image

from jaxmeta import Experiment
from jaxmeta import __main__ as command_line
from jaxmeta.__main__ import main
from jaxmeta.runs import compare_runs

TINY = ["--iterations", "2", "--hidden", "4", "--num-tasks", "2", "--validation-tasks", "2", "--test-tasks", "2"]
SINUSOID = ["train", "--benchmark", "sinusoid", *TINY]
FOLDER = ["train", "--benchmark", "folder", "--ways", "2", "--shots", "1", "--queries", "1", "--model", "fc"]
NO_HOME = {"HOME": None, "JAXMETA_CACHE": None, "JAXMETA_DATA": None}


def pictures(root):
    for name in "abcdefgh":
        (root / name).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (4, 4), 10 * i).save(root / name / f"{i}.png")
    return root


def pipe(path):
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        (lambda path: pipe(pictures(path) / "b" / "2.png"), [*FOLDER, "--root", "."], "2.png is a device, a pipe"),
        (
            lambda path: (pictures(path) / "c" / "2.jpg").symlink_to("/dev/zero"),
            [*FOLDER, "--root", "."],
            "2.jpg is a device, a pipe or a socket instead of a file: move it away",
        ),
        (
            lambda path: (pictures(path) / "c" / "2.jpg").symlink_to("nowhere"),
            [*FOLDER, "--root", "."],
            "c/2.jpg",
        ),
        (lambda path: pipe(path / "run"), ["predict", "run", "x.png"], "run is a device, a pipe or a socket"),
        (lambda path: pipe(path / "run"), [*SINUSOID, "--folder", "run"], "must be a folder, but run is a file"),
        (lambda path: pipe(path / "run"), [*SINUSOID, "--folder", "run/1"], "must be a folder, but run is a file"),
        (lambda path: (path / "config.json").write_text("[" * 100_000), ["compare", ".", "."], "config.json"),
        (lambda path: (path / "config.json").write_text('{"a":' * 9_999), ["evaluate", "."], "config.json"),
    ],
    ids=["pipe", "link to a device", "link to nothing", "run", "folder", "below a pipe", "deep list", "deep map"],
)
def test_what_is_no_file_is_named(make, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    make(Path())
    assert main(words) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("jaxmeta: ") and error.count("\n") == 1


def test_a_user_without_a_home(tmp_path, monkeypatch, capsys):
    """A number that no account has, as in containers: data from elsewhere are read without a cache."""
    for name in NO_HOME:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    assert main(["train", "--benchmark", "dtd", "--folder", str(tmp_path / "run")]) == 1
    assert "there is no home folder: set JAXMETA_CACHE, and JAXMETA_DATA or --root" in capsys.readouterr().err
    assert main(["train", "--benchmark", "dtd", "--root", "~/x", "--folder", str(tmp_path / "run")]) == 1
    assert "~/x is in a home folder that does not exist" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="will be read again next time .there is no home folder"):
        parts = Experiment("folder", model="fc", ways=2, shots=1, queries=1).build(pictures(tmp_path / "data"))
    assert parts.facts["classes"]


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize backend 'cuda':\nno driver")])
def test_a_machine_without_the_device(error, monkeypatch, capsys):
    def none(*_):
        raise error

    monkeypatch.setattr(jax, "devices", none)
    assert main(["--version"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("jaxmeta: JAX finds no device for JAX_PLATFORMS=") and told.count("\n") == 1


def test_an_error_of_ours_is_shown_whole(monkeypatch):
    def wrong(name):
        raise AssertionError("a mistake in jaxmeta")

    monkeypatch.setattr(command_line, "list_names", wrong)
    with pytest.raises(AssertionError, match="a mistake"):
        main(["list"])


class Full:
    """A file on a full disk, that says that it is a terminal or not."""

    encoding = "utf-8"

    def __init__(self, terminal):
        self.terminal, self.pending = terminal, ""

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.pending += text
        self.flush()

    def flush(self):
        if self.pending:
            raise OSError(errno.EIO if self.terminal else errno.ENOSPC, "cannot be written")

    def fileno(self):
        raise OSError("no number")


@pytest.mark.parametrize("terminal", [False, True], ids=["full disk", "closed terminal"])
def test_progress_that_cannot_be_shown_ends_nothing(terminal, monkeypatch):
    from jaxmeta.display import progress_bar

    full = Full(terminal)
    monkeypatch.setattr(sys, "stderr", full)
    for _ in range(2):
        with progress_bar("Working", 3, delay=0.0) as bar:
            for _ in range(3):
                bar.update()
                bar.refresh()
    assert full.pending


@pytest.mark.usefixtures("hears_hangups")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_have_their_exit_status(number, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(Experiment, "run", lambda *_, **__: signal.raise_signal(number))
    assert main(["train", "--folder", str(tmp_path / "run")]) == 128 + number
    assert capsys.readouterr().err == f"jaxmeta: stopped by {number.name}; run the same command again to resume\n"


PROGRAM = [sys.executable, "-m", "jaxmeta"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("-OO -m jaxmeta list", 0, ""),
        ("-m jaxmeta list >&-", 1, "standard output is closed"),
        ("-m jaxmeta list >/dev/full", 1, "No space left on device"),
        ("-m jaxmeta list >/dev/full 2>/dev/full", 1, ""),
        ("-m jaxmeta train {tiny} --folder {folder} <&- 2>/dev/full", 0, ""),
        ("-m jaxmeta train {tiny} --folder {folder}; exit $?", 0, "Training: 2 of 2"),
        ("-m jaxmeta train {tiny} --folder {folder}; exit $?", 0, "Testing on 2 tasks\n"),
    ],
    ids=["optimized", "closed", "full", "all full", "no input", "no terminal", "test"],
)
def test_programs_in_a_shell(command, status, said, tmp_path):
    options = {"tiny": " ".join(SINUSOID[1:]), "folder": tmp_path / "run"}
    words = f"{sys.executable} {command.format(**options)}"
    done = subprocess.run(words, shell=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert done.returncode == status and said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_too_little_memory(tmp_path):
    """The line names ways out, and with them the run goes on in its folder."""
    words = [*PROGRAM, "train", "--ways", "20", "--num-tasks", "512", "--iterations", "1", "--test-tasks", "1"]
    words = " ".join([*words, "--validation-tasks", "1", "--model", "fc", "--folder", str(tmp_path / "run")])
    run: dict[str, Any] = {"shell": True, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    done = subprocess.run(f"ulimit -v 4000000; {words} --batch-size 512", **run)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "the memory does not suffice (" in done.stderr and "--batch-size" in done.stderr.splitlines()[-1]
    done = subprocess.run(f"ulimit -v 4000000; {words} --batch-size 8", **run)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["-f 4", "-n 32"], ids=["disk is full", "few files"])
def test_limits_of_the_machine(limit, tmp_path):
    """What was saved stays whole, and the same command goes on."""
    words = " ".join([*PROGRAM, *SINUSOID, "--folder", str(tmp_path / "run")])
    run = {"shell": True, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    done = subprocess.run(f"ulimit {limit}; {words}", **run)
    assert "Traceback" not in done.stderr and done.returncode == (1 if limit == "-f 4" else 0), done.stderr
    assert subprocess.run(words, **run).returncode == 0
    other = [*SINUSOID, "--seed", "1", "--folder", str(tmp_path / "other")]
    assert main(other) == 0
    assert "0" in compare_runs([tmp_path / "run", tmp_path / "other"])
