"""Callbacks that write the records of a training for other tools. A run that resumes goes on in the same log."""

import csv
import importlib
import io
import os
import time
import uuid
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jaxmeta._checks import check_choice, check_installed
from jaxmeta._files import write_atomically
from jaxmeta.training._callback import Callback

LOGGERS = ("csv", "tensorboard", "wandb")
"""Names of the logs that `named_loggers` makes."""


def csv_logger(path: str | os.PathLike[str]) -> Callback:
    """Returns a callback that writes records as comma-separated values, with a column for each name.

    Args:
        path: the file. The rows that it has from the first new record on are written anew.

    Raises:
        ValueError: if the file holds something else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = csv_logger(f"{folder}/metrics.csv")
        ...     log({"step": 50, "train/loss": 0.5})
        ...     log({"step": 100, "train/loss": 0.25, "validation/loss": 0.3})
        ...     print(Path(folder, "metrics.csv").read_text())
        step,train/loss,validation/loss
        50,0.5,
        100,0.25,0.3
        <BLANKLINE>
    """
    path = Path(path)
    _rows(path)
    columns: list[str] = []

    def log(record: dict[str, float]) -> None:
        if not record.keys() <= set(columns):
            rows = _rows(path)
            if not columns:  # the first record
                rows = [row for row in rows if float(row["step"]) < record["step"]]
                columns.extend(rows[0] if rows else ())
            columns.extend(name for name in record if name not in columns)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, _text(columns, [dict(zip(columns, columns, strict=True)), *rows]))
        with path.open("a", encoding="utf-8") as file:
            file.write(_text(columns, [record]))

    return log


def tensorboard_logger(folder: str | os.PathLike[str]) -> Callback:
    """Returns a callback that writes records for TensorBoard, with tensorboardX.

    Args:
        folder: folder of the event files, for `tensorboard --logdir`.

    Raises:
        ModuleNotFoundError: if tensorboardX is not installed.
    """
    check_installed("tensorboardX", "tensorboard_logger", "tensorboard")
    writers: list[Any] = []

    def log(record: dict[str, float]) -> None:
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        event: Any = event_pb2  # whose names type checkers do not know
        new = partial(event.Event, wall_time=time.time(), step=int(record["step"]))
        if not writers:
            Path(folder).mkdir(parents=True, exist_ok=True)
            writers.append(event_file_writer.EventsWriter(str(Path(folder, "events"))))
            weakref.finalize(log, writers[0].close)
            # From here on TensorBoard drops what earlier files say about this step and later ones.
            writers[0].write_event(new(session_log=event.SessionLog(status=event.SessionLog.START)))
        for name, value in _numbers(record).items():
            writers[0].write_event(new(summary=summary.scalar(name, value)))
        writers[0].flush()  # a `SummaryWriter` writes from a thread, the last values later

    return log


def wandb_logger(folder: str | os.PathLike[str], **options: Any) -> Callback:
    """Returns a callback that sends records to Weights & Biases.

    The run on Weights & Biases begins with the first record. It ends with the program, with `wandb.finish()`, or when
    the next one begins.

    Args:
        folder: folder of the training, for the number of the run and for W&B's own files. A training that resumes in
            the folder goes on in the same run.
        options: arguments of `wandb.init`, such as `project` and `config`.

    Raises:
        ModuleNotFoundError: if wandb is not installed.
    """
    check_installed("wandb", "wandb_logger", "wandb")
    path = Path(folder, "wandb-id.txt")
    runs: list[Any] = []

    def log(record: dict[str, float]) -> None:
        if not runs:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                write_atomically(path, uuid.uuid4().hex)
            resumed = {"dir": str(folder), "id": path.read_text(), "resume": "allow", "reinit": "finish_previous"}
            runs.append(importlib.import_module("wandb").init(**{**resumed, **options}))
        runs[0].log(_numbers(record), step=int(record["step"]))  # W&B drops steps that it has

    return log


def named_loggers(names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> list[Callback]:
    """Returns the callbacks of some `LOGGERS` that write into the folder of a run.

    Args:
        names: names of the logs.
        folder: folder of the run.
        config: settings of the run, for tools that show them.

    Raises:
        ValueError: if there is no log of a name.
        ModuleNotFoundError: if a package is not installed.
    """
    found = []
    for name in names:
        check_choice("log", name, LOGGERS)
        if name == "csv":
            found.append(csv_logger(folder / "metrics.csv"))
        elif name == "tensorboard":
            found.append(tensorboard_logger(folder / "tensorboard"))
        else:
            project = os.environ.get("WANDB_PROJECT", "jaxmeta")
            found.append(wandb_logger(folder, project=project, name=folder.name, config=dict(config)))
    return found


def _numbers(record: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in record.items() if name != "step"}


def _rows(path: Path) -> list[dict[str, str]]:
    """Returns the finished rows of a file, by column; a kill can cut the last one."""
    if not path.exists():
        return []
    finished, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    rows = list(csv.DictReader(finished.splitlines()))
    if finished and "step" not in finished.splitlines()[0].split(","):
        raise ValueError(f"{path} does not hold the records of a run; choose another file")
    return rows


def _text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows as comma-separated values."""
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue()
