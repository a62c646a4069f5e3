"""The test of a run once more."""

import os
import warnings
from pathlib import Path
from typing import Any

from jaxmeta._checks import check_optional_integer
from jaxmeta._summary import Summary
from jaxmeta.catalog import learners_with
from jaxmeta.reports import check_predictions_path, write_page, write_predictions
from jaxmeta.runs._data import changed_data
from jaxmeta.runs._experiment import Experiment
from jaxmeta.runs._folder import Record, load_modules, read_record, read_result, report_of
from jaxmeta.training import Trained, read_records


def evaluate_run(
    folder: str | os.PathLike[str],
    *,
    num_tasks: int | None = None,
    ways: int | None = None,
    test_steps: int | None = None,
    test_queries: int | None = None,
    test_rotations: bool | None = None,
    root: str | Path | None = None,
    report: str | os.PathLike[str] | None = None,
    predictions: str | os.PathLike[str] | None = None,
) -> dict[str, Summary]:
    """Tests the best meta-parameters of a run once more, with other settings if you like.

    It changes nothing in the folder. The classes of each part are those of the run, by name. If the data have changed,
    a warning says how.

    Args:
        folder: a folder that `Experiment.run` made.
        num_tasks: number of test tasks; `None` for the run's.
        ways: classes per task, for learners that fit a head to features; `None` for the run's.
        test_steps: inner steps; `None` for the run's.
        test_queries: query examples per class, for few-shot learning; `None` for the run's.
        test_rotations: whether rotated characters of Omniglot are classes of their own; `None` for the run's.
        root: folder with the benchmark's files, if it needs any.
        report: path of a page of HTML about this test, or `None` for no page.
        predictions: path of a file with the predictions for all queries, or `None`. A table `.csv` has a line for each
            query with its class, the predicted class and the probability. A file `.npz` has the arrays of
            `jaxmeta.evaluate` with `details=True`.

    Returns:
        Each metric over the test tasks.

    Raises:
        FileNotFoundError: if `folder` is not the folder of a run, or has no checkpoint yet.
        ValueError: if a number is out of range, the learner cannot do with other `ways`, or the folder is damaged. If
            `predictions` has another ending, or the learner has no predictions.
    """
    folder = Path(folder)
    record = read_record(folder)
    if predictions is not None:
        check_predictions_path(Path(predictions))
    check_optional_integer(num_tasks=num_tasks)
    settings = experiment_of(folder, record).resolve()
    able = learners_with("train_ways")
    if ways is not None and ways != settings.get("ways") and settings.learner not in able:
        told = f"ways of {settings.learner} cannot be changed after training, got {ways}"
        raise ValueError(f"{told}. Only those of {', '.join(able)} can")
    changes = {
        "ways": ways,
        "test_tasks": num_tasks,
        "test_steps": test_steps,
        "test_queries": test_queries,
        "test_rotations": test_rotations,
    }
    changed = record.settings | {k: v for k, v in changes.items() if v is not None}
    experiment = experiment_of(folder, record._replace(settings=changed))
    parts = experiment.build(root, classes=record.data.get("classes"))
    if told := changed_data(record.data, parts.facts):
        warnings.warn(f"{told}. The numbers are for other data", stacklevel=2)
    meta = parts.load(folder)
    tested, *untrained = parts.test([meta] if report is None else [meta, parts.untrained()])
    if predictions is not None:
        of_tasks: Any = parts
        if tested.details is None or tested.details.outputs is None:
            raise ValueError(f"predictions do not apply to {settings.learner} on {settings.benchmark}, which has none")
        write_predictions(Path(predictions), tested.details, of_tasks.tasksets.test)
    if report is not None:
        result = read_result(folder) or {}
        trained = Trained(meta, result.get("best_step", 0), read_records(folder), None)
        findings = parts.examine(meta, tested, untrained[0])
        write_page(Path(report), report_of(folder, experiment.resolve(), trained, tested, findings))
    return tested.summaries


def experiment_of(folder: Path, record: Record) -> Experiment:
    """Returns the experiment that a record describes, after the modules of the user are loaded.

    Raises:
        ValueError: if there is no such option.
    """
    load_modules(folder, record)
    try:
        return Experiment(**record.settings)
    except TypeError as error:
        path = folder / "config.json"
        raise ValueError(f"{path} does not describe a run of this version of jaxmeta ({error})") from error
