"""Several runs side by side: their results, the settings that differ, and their learning curves in one plot."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxmeta._files import write_atomically
from jaxmeta._summary import Summary
from jaxmeta.display import one_line
from jaxmeta.reports import (
    PolicyRun,
    Returns,
    aligned,
    draw_figure,
    draw_policies,
    monitored,
    points_of,
    policy_tables,
    show,
)
from jaxmeta.runs._evaluate_run import experiment_of
from jaxmeta.runs._folder import damaged, read_record, read_result
from jaxmeta.training import read_records

_POLICIES = "environment"


class Compared(NamedTuple):
    """One of several runs that are compared."""

    folder: Path
    """Folder of the run."""
    settings: dict[str, Any]
    """Every option with its final value."""
    metric: str
    """Name of the metric that heads the report."""
    test: Summary | None
    """The test of a run that has finished."""
    seconds: float
    """Time of the training so far."""
    history: list[dict[str, float]]
    """Records of the training, see `Trained.history`."""
    returns: Returns | None = None
    """Returns of a policy in the test tasks, of a run that has finished."""


def compare_runs(folders: Sequence[str | os.PathLike[str]], plot: str | os.PathLike[str] | None = None) -> str:
    """Compares runs by their folders, finished or not, without their data.

    Args:
        folders: folders of two runs or more.
        plot: path of a PNG file with the learning curves, or `None` for no plot. For policies it also has the scores,
            or the returns where there is no score, by the number of episodes seen.

    Returns:
        A table with a line for each run: the test result, minutes, and the settings in which the runs differ. For
        policies also a table for each environment, with a line for the runs that differ by the seed only: the mean
        return by the number of episodes seen, the scores after the last one (`rl.interquartile_mean` over runs and
        tasks, with its interval over runs), the return by the name of the task, and the floor and the oracle.

    Raises:
        FileNotFoundError: if a folder is not that of a run.
        ValueError: if a folder is damaged, there are fewer than two, or the plot would mix different metrics.
    """
    if isinstance(folders, str | os.PathLike) or len(folders) < 2:
        found = len(folders) if isinstance(folders, Sequence) and not isinstance(folders, str) else repr(folders)
        raise ValueError(f"folders must be of two runs or more, got {found}")
    runs = [_read(Path(folder)) for folder in folders]
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    differ = [name for name in names if len({str(run.settings.get(name)) for run in runs}) > 1]
    rows = [["run", "test", "minutes", *differ]]
    for run in runs:
        test = "not finished" if run.test is None else f"{run.metric} {show(run.metric, run.test)}"
        values = (str(run.settings.get(name, "")) for name in differ)
        rows.append([str(run.folder), test, f"{run.seconds / 60:.1f}", *values])
    policies = [PolicyRun(run.settings, run.returns, run.history) for run in runs if run.metric == monitored(_POLICIES)]
    if plot is not None:
        _plot(runs, policies, differ, Path(plot))
    return "\n\n".join(table for table in (aligned(rows), policy_tables(policies)) if table)


def _read(folder: Path) -> Compared:
    record = read_record(folder)
    kind = experiment_of(folder, record).resolve().kind
    metric = monitored(kind)
    result, history = read_result(folder), read_records(folder)
    try:
        test = None if result is None else Summary(**result["test"][metric])
        seconds = float(history[-1]["seconds"]) if history else 0.0
        returns = None if result is None or kind != _POLICIES else Returns.from_record(result["returns"])
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(folder, error) from error
    return Compared(folder, record.settings, metric, test, seconds, history, returns)


def _plot(runs: Sequence[Compared], policies: Sequence[PolicyRun], differ: Sequence[str], path: Path) -> None:
    """Plots the validation of each run, or the training where there is none, against the outer updates."""
    metrics = sorted({run.metric for run in runs})
    if len(metrics) > 1:
        raise ValueError(f"plot needs runs with one metric, got {', '.join(metrics)}")
    if policies:
        write_atomically(path, draw_policies(policies))
        return

    def draw(axes: Any) -> None:
        for run in runs:
            label = ", ".join(str(run.settings[name]) for name in differ if name in run.settings) or str(run.folder)
            for part in ("validation", "train"):
                points = points_of(run.history, f"{part}/{run.metric}")
                if points[0]:
                    axes.plot(*points, marker="o", markersize=3, label=f"{part}, {one_line(label)}")
                    break
        axes.set(xlabel="outer updates", ylabel=metrics[0])

    write_atomically(path, draw_figure(draw, (7, 4)))
