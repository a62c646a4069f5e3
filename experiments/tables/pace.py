"""Estimates of the time that a row needs on this machine, from results and from updates that are run for it."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from lines import Line, append, hardware, num_cores, read, repair
from rows import Row

import jaxmeta
from jaxmeta import data
from jaxmeta.data.sources import standard_splits

EVALUATION = 0.4  # of the time of a training task: forward passes alone
_EXAMPLES = 25  # of each class of made-up data, enough for all rows
_SHORT = {"validation_tasks": 2, "test_tasks": 2}


class Pace(NamedTuple):
    """Speed of a program."""

    seconds: float
    """Of a unit of work, see `work_of`."""
    overhead: float
    """Seconds to read data and to compile."""


def work_of(settings: Mapping[str, Any]) -> float:
    """Returns the work of an update: examples that go through the network, those of inner steps once per step."""
    if "minibatch" in settings and "num_tasks" not in settings:
        return settings["minibatch"]
    return settings["num_tasks"] * _work_of_task(settings, "train_ways", "train_shots", "steps", "queries")


def _work_of_task(settings: Mapping[str, Any], ways: str, shots: str, steps: str, queries: str) -> float:
    classes = settings.get(ways, settings.get("ways", 1))
    return classes * (settings[shots] * max(1, settings.get(steps, 1)) + settings[queries])


def work_of_tests(settings: Mapping[str, Any]) -> float:
    """Returns the work of the tests of a run, of its network before and after the training."""
    return (
        2 * EVALUATION * settings["test_tasks"] * _work_of_task(settings, "ways", "shots", "test_steps", "test_queries")
    )


def work_of_run(settings: Mapping[str, Any]) -> float:
    """Returns the work of a run with its validations and its tests."""
    task = _work_of_task(settings, "ways", "shots", "test_steps", "test_queries")
    validations = 1 + settings["iterations"] / settings["validate_every"]
    validated = EVALUATION * validations * settings["validation_tasks"] * task
    return settings["iterations"] * work_of(settings) + validated + work_of_tests(settings)


class Paces:
    """Known speeds on this machine.

    Args:
        path: file of the speeds that were measured.
        results: lines of finished rows.
    """

    def __init__(self, path: Path, results: list[Line]):
        self.path, self._here = path, hardware()
        self._known: list[tuple[Mapping[str, Any], Pace]] = []
        for line in results:
            if line["hardware"] == self._here and line["options"].get("iterations") and line["minutes"]:
                settings = line["options"]
                trained = work_of_run(settings) - work_of_tests(settings)
                self._known.append((settings, Pace(60 * line["minutes"] / trained, 20.0)))
        repair(path)
        for line in read(path):
            if line["hardware"] == self._here:
                self._known.append((line["options"], Pace(line["seconds"], line["overhead"])))

    def find(self, row: Row, budget: str) -> Pace | None:
        """Returns the speed of the most similar known run of the same learner and network, if there is one."""
        wanted = row.experiment(budget, 0).resolve()
        same = ("benchmark", "learner", "model")
        alike = [known for known in self._known if all(known[0].get(name) == wanted.get(name) for name in same)]

        def distance(settings: Mapping[str, Any]) -> float:
            return sum(
                abs(np.log(max(1, settings.get(name, 1)) / max(1, wanted.get(name, 1))))
                for name in ("ways", "train_ways", "train_shots", "queries", "steps", "num_tasks", "minibatch")
            )

        return min(alike, key=lambda known: distance(known[0]))[1] if alike else None

    def measure(self, row: Row, budget: str, root: str | None, mesh: Any = None) -> Pace:
        """Runs a few updates, and remembers their speed.

        On a CPU it is the time of the processor divided by its cores: other processes make a run longer than that.
        """
        experiment = row.experiment(budget, 0)
        settings = experiment.resolve()
        number = min(900 if row.benchmark == "sinusoid" else 6, settings.iterations)
        own = {"pretraining": 2} if "pretraining" in settings else {}
        short = replace(experiment, iterations=number, validate_every=number, **_SHORT, **own)
        alone = jax.default_backend() == "cpu"
        clock, cores = (time.process_time, num_cores()) if alone else (time.monotonic, 1)
        marks: list[tuple[float, float]] = []

        def mark(record: dict[str, float]) -> None:
            marks.append((record["step"], clock()))

        begin = clock()
        with tempfile.TemporaryDirectory() as folder:
            short.build(root).train(Path(folder), mesh, None, False, (mark,))
        passed = clock() - begin
        between = [(step, at) for step, at in marks if 0 < step < number]  # the last one comes after a validation
        (first, start), *_, (last, end) = between if len(between) > 1 else marks
        update = (end - start) / (last - first)
        pace = Pace(update / cores / work_of(settings), max(0.0, passed - number * update))
        line = {"key": row.folder(budget, 0), "hardware": self._here, **pace._asdict(), "options": dict(settings)}
        append(self.path, line)
        self._known.append((settings, pace))
        return pace


def minutes_of(row: Row, budget: str, pace: Pace, done: float = 0.0) -> float:
    """Returns the minutes that a row needs, if a share of its training is done."""
    settings = row.experiment(budget, 0).resolve()
    tests = work_of_tests(settings)
    return (pace.overhead + pace.seconds * ((1 - done) * (work_of_run(settings) - tests) + tests)) / 60


def made_up(benchmark: str, folder: Path) -> str:
    """Writes black pictures of a benchmark's classes into a file that stands for its files, and returns its path.

    Raises:
        FileNotFoundError: if its classes are not known without its files.
    """
    lists = next(iter(standard_splits(benchmark).values()), None)
    if lists is None:
        raise FileNotFoundError(f"{benchmark}: its files are needed, name their folder with --root")
    names = [name for part in lists.values() for name in part for _ in range(_EXAMPLES)]
    size = 32 if benchmark in ("cifar-fs", "fc100") else 84
    path = folder / f"{benchmark}.npz"
    data.Examples.of(np.zeros((len(names), size, size, 3), np.uint8), names).save(path)
    return str(path)


def memory_of(experiment: jaxmeta.Experiment, root: str | None) -> float:
    """Returns the MiB that an update needs beside its arguments, by the compiler."""
    return experiment.build(root).estimate().temporary_bytes / 2**20
