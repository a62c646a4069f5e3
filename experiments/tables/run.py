"""The published tables, at the published budgets on an accelerator, and at small stated ones on a CPU.

Rows that `experiments/results/tables.jsonl` lacks are run, most valuable first, until the time is over. A row that fits
into what is left of it comes before one that does not. When none fits, the most valuable one begins, is cut in time,
and goes on with the next call. A finished row is one line of the file, from which `make docs` writes the tables of the
page of results. A kill at any moment loses nothing but the row that runs, which goes on from its last checkpoint.

`rows.py` says what a row is, and `omniglot.py`, `cifar_fs.py` and so on which there are. Real data are read from the
folder that `--root` names: as the page of benchmarks describes, or one file for each that `pack.py` has written.

    python experiments/tables/run.py --minutes 10 --root <folder>                    # ten minutes of what is missing
    python experiments/tables/run.py --tables omniglot --rows "maml.*1-shot" --root <folder>
    python experiments/tables/run.py --list --measure 5 --root <folder>              # with minutes for each missing row
    python experiments/tables/run.py --tables mini-imagenet --budget paper --estimate  # memory, without the data
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import pace
import tyro
from jobs import Job, devices_for, jobs_of, minutes_done, minutes_left, root_of, updates_done
from lines import DIVERGED, LINES, Line, append, num_cores, numbers_of, read, repair, result_line
from rows import ERROR
from show import estimate_rows, list_rows, told

from jaxmeta.training import on_signals

# The error of predicting 0 for the largest sinusoid, 5^2 / 2: a task above it is worse than no learning at all.
WORST = 12.5
MEASURING = 0.2  # of the time of a call, at most, for the speed of learners that have not run here


@dataclass(frozen=True)
class Args:
    """Run the rows of the published tables that are missing."""

    minutes: float = 10
    """Minutes after which everything ends, but for the test of the running row."""
    tables: tuple[str, ...] = ()
    """Which tables, all if none is named; omniglot stands for omniglot-heads and so on too."""
    rows: str = ""
    """Only rows whose name has a match of this regular expression, such as "protonet, 5-way"."""
    budget: Literal["cpu", "paper"] | None = None
    """paper on an accelerator and cpu without one, if not given."""
    seeds: tuple[int, ...] | None = None
    """Which seeds, those of each row if not given."""
    root: Path | None = None
    """Folder with the data, or with <benchmark>.npz that pack.py has written."""
    folder: Path = Path("runs/tables")
    """Each training has a folder of its own in it."""
    output: Path = LINES
    """Where the results go."""
    list: bool = False
    """Only print all rows, and the minutes that a missing one needs on this machine."""
    measure: float = 0
    """With --list: minutes for a few updates of each learner whose speed is not known."""
    estimate: bool = False
    """Only print the memory of an update of each row, with made-up pictures if there are no data."""
    commands: bool = False
    """Only print the command of each training."""
    small: bool = False
    """A few updates instead of the budget, to test how rows run; needs another --output."""


class Cut(BaseException):
    """A signal asks to end, or the time is over. A training has saved its state before this is raised."""


def _cut(number: int, _: object) -> None:
    raise Cut(number)


class Clock:
    """The time of a call.

    Args:
        minutes: its length.
    """

    def __init__(self, minutes: float):
        self.end = time.monotonic() + 60 * minutes
        self.rang = False
        """True if the time was over before a signal came from elsewhere."""

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    @contextmanager
    def cut(self, reserve: float = 0.0) -> Iterator[threading.Timer]:
        """Ends the block by a signal some seconds before the end. A training hears it within two seconds and saves."""
        timer = threading.Timer(max(0.0, self.left - reserve), self._ring)
        timer.daemon = True
        timer.start()
        try:
            yield timer
        finally:
            timer.cancel()

    def _ring(self) -> None:
        self.rang = True
        signal.raise_signal(signal.SIGTERM)


def finish(job: Job, args: Args, clock: Clock, known: pace.Paces) -> Line:
    """Trains and tests one row, or goes on where it was cut, and returns its line.

    Raises:
        Cut: if the time is over before the training is.
    """
    row, budget, seed = job
    folder, root = job.folder(args.folder), root_of(args.root, row)
    experiment, tested = row.experiment(budget, seed), row.tested(budget, seed)
    total = row.budget(budget).updates
    speed = known.find(row, budget)
    reserve = 0.0 if speed is None else speed.seconds * pace.work_of_tests(experiment.resolve())
    if not (folder / "result.json").is_file():
        with clock.cut(min(reserve, clock.left / 4)) as timer:  # of a short call some time must be left for training
            if updates_done(folder) >= total:
                timer.cancel()  # only its test is missing, which is never cut

            def watch(record: dict[str, float]) -> None:
                if record["step"] >= total:
                    timer.cancel()

            try:
                experiment.run(folder, root=root, mesh=devices_for(job), progress=False, callback=watch)
            except FloatingPointError:
                return result_line(row, budget, seed, DIVERGED, minutes_done(folder))
    parts = tested.build(root)
    values = parts.test([parts.load(folder)])[0].metrics[row.metric]
    numbers = numbers_of(values, WORST if row.metric == ERROR else None)
    return result_line(row, budget, seed, numbers, minutes_done(folder))


def run(args: Args, jobs: Sequence[Job]) -> int:
    """Runs rows until the time is over, and returns the exit status."""
    clock, without_data, failed = Clock(args.minutes), 0, 0
    repair(args.output)
    have = {line["key"] for line in read(args.output)}
    waiting = [job for job in jobs if job.key not in have]
    print(f"{len(waiting)} rows are missing", flush=True)
    try:
        while waiting and clock.left > 0:
            known = pace.Paces(args.folder / "pace.jsonl", read(args.output))
            job = _next(waiting, args, known, clock)
            try:
                line = finish(job, args, clock, known)
            except FileNotFoundError as error:  # the data of other rows of the benchmark are missing too
                print(f"{job.row.benchmark}: {error}", flush=True)
                others = [other for other in waiting if other.row.benchmark != job.row.benchmark]
                without_data += len(waiting) - len(others)
                waiting = others
                continue
            except (OSError, RuntimeError, MemoryError) as error:  # of this row, such as too little memory
                print(f"{job.key} failed: {error}", flush=True)
                failed += 1
            else:
                append(args.output, line)
                print(told(line), flush=True)
            waiting.remove(job)
            jax.clear_caches()
    except Cut as stop:
        if not clock.rang:
            print(f"stopped by {signal.Signals(stop.args[0]).name}; the same command goes on", flush=True)
            return 128 + stop.args[0]
    left = {"are left; the same command goes on": len(waiting), "lack their data": without_data, "failed": failed}
    said = [f"{number} rows {words}" for words, number in left.items() if number]
    print("\n".join(said or ["all rows are there"]), flush=True)
    return 1 if without_data or failed else 0


def _next(waiting: Sequence[Job], args: Args, known: pace.Paces, clock: Clock) -> Job:
    """Returns the first job that fits into the time that is left, or else the first of all, which will be cut.

    On an accelerator compilation takes longer than most rows, so that a row of unknown speed begins unmeasured. On a
    CPU such rows are measured for a part of the time, and wait for another call when it is over.
    """
    enough = clock.left * (1 - MEASURING)
    for job in waiting:
        minutes = minutes_left(job, args.folder, known)
        if minutes is None and jax.default_backend() != "cpu":
            return job
        if minutes is None and clock.left > enough:
            try:
                with clock.cut():
                    known.measure(job.row, job.budget, root_of(args.root, job.row), devices_for(job))
            except FileNotFoundError:
                return job
            minutes = minutes_left(job, args.folder, known)
        if minutes is not None and 60 * minutes <= clock.left:
            return job
    return waiting[0]


def _prepare(folder: Path) -> None:
    """Lets JAX use each core as a device, and keep compiled programs, unless the environment says something else."""
    config: Any = jax.config
    if "device_count" not in os.environ.get("XLA_FLAGS", ""):
        config.update("jax_num_cpu_devices", num_cores())
    if config.jax_compilation_cache_dir is None:
        config.update("jax_compilation_cache_dir", str(folder.absolute() / "programs"))


def main(args: Args) -> int:
    """Run, or print."""
    if args.small and args.output == LINES:
        raise ValueError(f"output must be another file for small runs, got {args.output}")
    if not args.minutes > 0:
        raise ValueError(f"minutes must be positive, got {args.minutes}")
    _prepare(args.folder)
    jobs = jobs_of(args.tables, args.rows, args.budget, args.seeds, args.small)
    if not (args.list or args.estimate or args.commands):
        with on_signals(_cut):
            return run(args, jobs)
    if args.list:
        list_rows(jobs, args.output, args.folder, args.root, args.measure)
    elif args.estimate:
        estimate_rows(jobs, args.root)
    else:
        for job in jobs:
            print(job.row.command(job.budget, job.seed, "" if args.root is None else str(args.root)))
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
