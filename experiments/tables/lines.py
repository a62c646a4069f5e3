"""Results as JSON lines: one line per finished row, appended so that a kill at any moment loses at most that line."""

import json
import math
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
from rows import Row

from jaxmeta.runs import versions

LINES = Path(__file__).parents[1] / "results" / "tables.jsonl"
HERE = Path(__file__).parent
Line = dict[str, Any]


def read(path: Path) -> list[Line]:
    """Returns the results of a file, without a last line that a kill has torn.

    Raises:
        ValueError: if another line is no result.
    """
    if not path.exists():
        return []
    *whole, _ = path.read_bytes().split(b"\n")
    found = []
    for number, text in enumerate(whole, 1):
        try:
            line = json.loads(text)
            found.append({"key": line["key"], **line})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number} of {path} is no result ({type(error).__name__}: {error})") from error
    return found


def repair(path: Path) -> None:
    """Removes a last line that a kill has torn."""
    if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def append(path: Path, line: Line) -> None:
    """Adds a line with one write, and waits until the disk has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        os.fsync(file.fileno())


def result_line(row: Row, budget: str, seed: int, numbers: Line, minutes: float) -> Line:
    """Returns the line of a finished row.

    Args:
        row: the row.
        budget: name of its budget.
        seed: its seed.
        numbers: `value`, `interval`, `median` and `diverged`, as `numbers_of` gives them.
        minutes: time of the training.
    """
    of, settings = row.budget(budget), row.tested(budget, seed).resolve()
    return {
        "key": row.key(budget, seed),
        "table": row.table,
        "label": row.label,
        "setting": row.setting,
        "seed": seed,
        "budget": budget,
        "updates": of.updates,
        "tasks": settings.get("num_tasks"),
        "metric": row.metric,
        **numbers,
        "test_tasks": settings.test_tasks,
        "minutes": float(f"{minutes:.3g}"),
        "hardware": hardware(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit(),
        "versions": {name: versions()[name] for name in ("jaxmeta", "jax")},
        "options": dict(settings),
    }


def numbers_of(values: Any, limit: float | None) -> Line:
    """Returns mean, interval and median over the test tasks, and the share of tasks that diverged.

    A mean that is not finite is `None`, because JSON has no other word for it.

    Args:
        values: the metric of each task.
        limit: the value above which a task has diverged, `None` if only what is not finite has.
    """
    import numpy as np

    values = np.asarray(values, np.float64)
    good = np.isfinite(values) if limit is None else values <= limit
    mean, interval = float(values.mean()), float(1.96 * values.std(ddof=1) / math.sqrt(values.size))
    median = float(np.median(np.where(np.isnan(values), np.inf, values)))
    found = {"value": mean, "interval": interval, "median": median}
    rounded = {name: float(f"{x:.6g}") if math.isfinite(x) else None for name, x in found.items()}
    return rounded | {"diverged": float(np.mean(~good))}


DIVERGED: Line = {"value": None, "interval": None, "median": None, "diverged": 1.0}
"""Numbers of a row whose training ended with numbers that are not finite."""


def hardware() -> str:
    """Returns the accelerator's name, or the processor's with its cores."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    cores = num_cores()
    return f"{_processor()}, {cores} core{'s' if cores > 1 else ''}"


def num_cores() -> int:
    """Returns how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str:
    """Returns the short name of the checkout's commit, with "+" if files differ from it; empty without git."""
    git = ["git", "--no-optional-locks", "-C", str(HERE)]
    try:
        found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    others = [line for line in dirty.stdout.splitlines() if not line.endswith(LINES.name)]
    return found.stdout.strip() + ("+" if others else "")
