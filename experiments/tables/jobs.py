"""Rows that are to run: with a budget and a seed, where their data and their folder are, and how far they have come."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from catalog import of_tables
from pace import Paces, minutes_of
from rows import Row

import jaxmeta
from jaxmeta.training import read_records

_QUICK = ("cnn", "mlp")  # networks whose updates two simulated devices compute faster than one
_CIFAR = ("cifar-fs", "fc100")


class Job(NamedTuple):
    """A row with its budget and its seed."""

    row: Row
    budget: str
    seed: int

    @property
    def key(self) -> str:
        """Key of its result."""
        return self.row.key(self.budget, self.seed)

    def folder(self, within: Path) -> Path:
        """Returns the folder of its training."""
        return within / self.row.folder(self.budget, self.seed)


def jobs_of(
    tables: tuple[str, ...], pattern: str, budget: str | None, seeds: Sequence[int] | None, small: bool = False
) -> list[Job]:
    """Returns jobs, most valuable first, and further seeds of a row after the first ones of all.

    Args:
        tables: names of tables, none for all.
        pattern: regular expression that is searched in the names of the rows.
        budget: name of the budget, by default `"paper"` on an accelerator and `"cpu"` without one.
        seeds: seeds, by default those of each row.
        small: whether to take a few updates, to test how rows run.

    Raises:
        ValueError: if there is no such table, no such row, or the pattern is malformed.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"rows must be a regular expression, got {pattern!r}: {error}") from error
    budget = budget or ("cpu" if jax.default_backend() == "cpu" else "paper")
    rows = [row for row in of_tables(tables) if budget in row.budgets and re.search(pattern, row.name)]
    rows = [row.shrunk() for row in rows] if small else rows
    if not rows:
        of = ", ".join(tables) or "all tables"
        raise ValueError(f"rows must match the name of a row of {of} with a budget {budget!r}, got {pattern!r}")
    found = [
        (place, number, Job(row, budget, seed))
        for number, row in enumerate(rows)
        for place, seed in enumerate(seeds or range(row.budget(budget).seeds))
    ]
    return [job for *_, job in sorted(found, key=lambda entry: entry[:2])]


def root_of(root: Path | None, row: Row) -> str | None:
    """Returns where the data of a row are: in a packed file, in the folder that was given, or nowhere."""
    if row.benchmark == "sinusoid" or root is None:
        return None
    names = (row.benchmark, "cifar100") if row.benchmark in _CIFAR else (row.benchmark,)
    packed = [root / f"{name}.npz" for name in names]
    return str(next((path for path in packed if path.is_file()), root))


def devices_for(job: Job) -> Any:
    """Returns the simulated devices of a CPU's cores for a row that they make faster, as `jaxmeta train` does."""
    settings = job.row.experiment(job.budget, job.seed).resolve()
    count = jax.device_count()
    fit = settings.get("model") in _QUICK and "num_tasks" in settings and settings.num_tasks % count == 0
    return jaxmeta.task_mesh() if jax.default_backend() == "cpu" and count > 1 and fit else None


def updates_done(folder: Path) -> int:
    """Returns how many updates the training in a folder has recorded."""
    return int(max((record["step"] for record in read_records(folder)), default=0)) if folder.is_dir() else 0


def minutes_done(folder: Path) -> float:
    """Returns the minutes of the training in a folder, with those of a pre-training."""
    histories = [read_records(path) for path in (folder, folder / "pretraining") if path.is_dir()]
    return sum(history[-1]["seconds"] for history in histories if history) / 60


def minutes_left(job: Job, folder: Path, known: Paces) -> float | None:
    """Returns the minutes that a row needs, less what its folder has done, or `None` if its speed is not known."""
    speed = known.find(job.row, job.budget)
    if speed is None:
        return None
    of = job.folder(folder)
    done = 1.0 if (of / "result.json").is_file() else updates_done(of) / job.row.budget(job.budget).updates
    return minutes_of(job.row, job.budget, speed, min(1.0, done))
