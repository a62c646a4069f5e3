"""Lists of rows: which are there, how long the missing ones take, and how much memory an update needs."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from jobs import Job, devices_for, minutes_left, root_of
from lines import Line, read
from pace import Paces, made_up, memory_of


def told(line: Line) -> str:
    """Returns what is said of a finished row."""
    interval = "" if line["interval"] is None else f" ± {line['interval']:.4f}"
    here = "diverged" if line["value"] is None else f"{line['value']:.4f}{interval}"
    return f"{line['key']}: {here} in {line['minutes']:.3g} minutes"


def list_rows(jobs: Sequence[Job], output: Path, folder: Path, root: Path | None, measure: float) -> None:
    """Prints all rows, and the minutes of the missing ones.

    Args:
        jobs: the rows.
        output: file of the results.
        folder: folder of the trainings.
        root: folder of the data.
        measure: minutes that may go into measuring the speed of learners of which none is known, on made-up pictures if
            there are no data.
    """
    end, lines = time.monotonic() + 60 * measure, read(output)
    have = {line["key"]: line for line in lines}
    known, trainings, unknown = Paces(folder / "pace.jsonl", lines), {}, 0
    for job in jobs:
        if job.key in have:
            print(f"there    {told(have[job.key])}")
            continue
        minutes = minutes_left(job, folder, known)
        if minutes is None and time.monotonic() < end:
            try:
                known.measure(job.row, job.budget, root_of(root, job.row), devices_for(job))
            except FileNotFoundError:
                with tempfile.TemporaryDirectory() as made:
                    known.measure(job.row, job.budget, made_up(job.row.benchmark, Path(made)), devices_for(job))
            jax.clear_caches()
            minutes = minutes_left(job, folder, known)
        place = job.folder(folder)
        if minutes is None:
            unknown += 1
            print(f"missing  {job.key}: ? (--measure runs a few updates)", flush=True)
        elif place in trainings:
            print(f"missing  {job.key}: a test of a training that is listed above", flush=True)
        else:
            trainings[place] = minutes
            print(f"missing  {job.key}: {minutes:.1f} minutes", flush=True)
    print(f"{sum(trainings.values()):.0f} minutes for what is missing, and {unknown} rows of unknown speed")


def estimate_rows(jobs: Sequence[Job], root: Path | None) -> None:
    """Prints the memory of an update of each training, from made-up pictures if there are no data."""
    seen: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        for job in jobs:
            name = job.row.folder(job.budget, 0)
            if name in seen:
                continue
            seen.add(name)
            experiment = job.row.experiment(job.budget, 0)
            try:
                found = memory_of(experiment, root_of(root, job.row))
            except FileNotFoundError:
                found = memory_of(experiment, made_up(job.row.benchmark, Path(folder)))
            updates = job.row.budget(job.budget).updates
            print(f"{job.row.name}: {updates:,} updates of {found:,.0f} MiB beside the data", flush=True)
            jax.clear_caches()
