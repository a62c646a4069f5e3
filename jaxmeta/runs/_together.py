"""Several runs: in one program where their settings allow it and it is faster, else one after another."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxmeta._checks import as_functions
from jaxmeta.catalog import LEARNERS, Settings, check_minutes
from jaxmeta.runs._data import load_tasksets
from jaxmeta.runs._experiment import Experiment, build, conclude
from jaxmeta.runs._folder import check_folder, claim_folder, recorded_classes, resuming
from jaxmeta.runs._parts import Result
from jaxmeta.runs._task_run import TRACED, TaskParts
from jaxmeta.training import Callback, hold

_FREE = ("seed", *TRACED)


def run_all(
    experiments: Mapping[str, Experiment],
    folder: str | os.PathLike[str],
    *,
    root: str | Path | None = None,
    download: bool = False,
    mesh: Mesh | None = None,
    minutes: float | None = None,
    progress: bool = True,
    callbacks: Mapping[str, Callback | Sequence[Callback]] | None = None,
    one_program: bool | None = None,
    done: Callable[[str, Result | FloatingPointError], None] = lambda name, result: None,
) -> dict[str, Result | FloatingPointError]:
    """Runs experiments, such as those of `Experiment.vary`, each in a folder of its own.

    Runs that differ only by the seed and by rates are one program, which compiles once (see `train_many`), where that
    is faster: on an accelerator, and on a CPU with networks of dense layers. Others run one after another.

    Args:
        experiments: the experiments by name.
        folder: the folder in which each has the folder of its name.
        root: see `Experiment.run`, as all arguments up to `progress`.
        download: see `Experiment.run`.
        mesh: see `Experiment.run`. With several devices the runs follow one another.
        minutes: the time of each run.
        progress: see `Experiment.run`.
        callbacks: for each name one function of a record, or some.
        one_program: whether to run them in one program; `None` chooses the faster way.
        done: `(name, result) -> None`, called at the end of each run.

    Returns:
        For each name the `Result`, or the error of a training that diverged.

    Raises:
        ValueError: as `Experiment.run`, or if `one_program` is true and the runs do not fit into one.
        FileNotFoundError: if the benchmark's files are missing.

    Example:
        >>> import tempfile
        >>> runs = Experiment("sinusoid", iterations=50, test_tasks=20).vary(inner_rate=(0.001, 0.01))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     results = run_all(runs, folder, progress=False)
        >>> list(results)
        ['inner-rate=0.001', 'inner-rate=0.01']
    """
    found: dict[str, Result | FloatingPointError] = {}

    def keep(name: str, result: Result | FloatingPointError) -> None:
        found[name] = result
        done(name, result)

    calls = {name: as_functions(callback=(callbacks or {}).get(name, ())) for name in experiments}
    folders = {name: Path(folder, name) for name in experiments}
    settings = {name: experiment.resolve() for name, experiment in experiments.items()}
    for name, s in settings.items():
        check_minutes(s, minutes)
        check_folder(folders[name], s)
    fit = mesh is None and fit_one_program(list(settings.values()), list(folders.values()))
    if one_program and not fit:
        raise ValueError(f"one_program needs runs that differ by {', '.join(_FREE)} only, on one device")
    if fit and (one_program or (one_program is None and is_faster_together(next(iter(settings.values()))))):
        classes = recorded_classes(next(iter(folders.values())))
        read = cache(lambda: load_tasksets(next(iter(settings.values())), root, download, classes))
        with contextlib.ExitStack() as stack:
            runs: list[Any] = []
            for name, s in settings.items():
                with resuming(folders[name]):
                    runs.append(build(s, read))
                stack.enter_context(hold(folders[name]))
                claim_folder(folders[name], s, runs[-1].facts, root)
            first: TaskParts = runs[0]
            trained = first.train_with(runs[1:], list(folders.values()), minutes, progress, list(calls.values()))
            for (name, s), parts, result in zip(settings.items(), runs, trained, strict=True):
                failed = isinstance(result, FloatingPointError)
                keep(name, result if failed else conclude(s, folders[name], parts, result, None, progress))
        return found
    for name, experiment in experiments.items():
        options: dict[str, Any] = {"root": root, "download": download, "mesh": mesh, "minutes": minutes}
        try:
            result = experiment.run(folders[name], **options, progress=progress, callback=calls[name])
        except FloatingPointError as error:  # the others may do better
            result = error
        keep(name, result)
    return found


def fit_one_program(settings: Sequence[Settings], folders: Sequence[Path]) -> bool:
    """Tells whether there are several runs on the same data that differ only in what one program takes."""
    trained_on = {"environment" if s.kind == "environment" else LEARNERS[s.learner].trains_on for s in settings}
    same = [{name: value for name, value in s.items() if name not in _FREE} for s in settings]
    alike = trained_on <= {"tasks", "streams"} and all(each == same[0] for each in same)
    if len(settings) < 2 or not alike or jax.process_count() > 1:
        return False
    first, *others = map(recorded_classes, folders)  # a run that was begun keeps the classes of its parts
    return all(classes == first for classes in others)


def is_faster_together(settings: Settings) -> bool:
    """Tells whether one program of several runs is faster than one run after another.

    On two cores, 4 runs of MAML on 26 sinusoids: 0.91 and 2.10 ms per update of a run, and one compilation
    (`experiments/benchmarks/sweep.py`). Convolutional networks fill the cores of a CPU alone.
    """
    return settings.get("model") in ("mlp", "identity") or jax.default_backend() != "cpu"
