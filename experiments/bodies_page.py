"""Scores of the lines of `bodies.py`, and their table."""

import json
import statistics
from pathlib import Path
from typing import Any

Line = dict[str, Any]
"""One line of results: a part with its settings, returns and times."""
COLUMNS = ("environment", "learner", "task", "returns", "most probable actions", "after - before", "score", "updates")
COLUMNS += ("seeds", "steps/s", "compile s", "minutes")
SETTINGS = ("horizon", "action_scale")
"""Settings that must be equal for returns to be on one scale."""


def read(path: Path) -> list[Line]:
    """Returns the lines of a file, none if there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def over_seeds(line: Line, task: str, actions: str = "sampled") -> list[float]:
    """Returns the mean returns over seeds in a task, by the number of episodes that were seen."""
    return [statistics.fmean(column) for column in zip(*line["returns"][task][actions], strict=True)]


def gains(line: Line, task: str) -> list[float]:
    """Returns for each seed the return after the first adaptation minus that before it, nothing if there is none."""
    return (
        [after - before for before, after, *_ in line["returns"][task]["sampled"]] if len(line["episodes"]) > 1 else []
    )


def scores(line: Line, lines: list[Line]) -> dict[str, list[float]]:
    """Returns the scores in each task by episodes seen, 0 for random play and 1 for the oracle.

    A task is left out if a line of either is missing, or if the oracle is not above random play.
    """
    found = {}
    ends = {kind: _last(lines, line, kind) for kind in ("random", "oracle")}
    for task in line["returns"]:
        if (floor_line := ends["random"]) is None or (oracle_line := ends["oracle"]) is None:
            continue
        floor, oracle = over_seeds(floor_line, task)[0], over_seeds(oracle_line, task)[0]
        if oracle > floor:
            found[task] = [(value - floor) / (oracle - floor) for value in over_seeds(line, task)]
    return found


def _last(lines: list[Line], like: Line, kind: str) -> Line | None:
    """Returns the last line of a kind with the environment and the scale of another line."""

    def scale(line: Line) -> tuple[Any, ...]:
        return line["environment"], *(line["settings"][name] for name in SETTINGS)

    return next((line for line in reversed(lines) if line["kind"] == kind and scale(line) == scale(like)), None)


def rows(line: Line, lines: list[Line]) -> list[str]:
    """Returns the table's rows of a line, one for each task."""
    found, score = [], scores(line, lines)
    for task in line["returns"]:
        gain = gains(line, task)
        deviation = f" ± {statistics.stdev(gain):.0f}" if len(gain) > 1 else ""
        cells = [
            line["environment"],
            line["kind"],
            task,
            *(", ".join(f"{x:.1f}" for x in over_seeds(line, task, actions)) for actions in ("sampled", "mode")),
            f"{statistics.fmean(gain):+.1f}{deviation}" if gain else "",
            ", ".join(f"{x:.2f}" for x in score.get(task, [])),
            str(line["updates"]),
            str(len(line["returns"][task]["sampled"])),
            f"{line['steps_per_s']:,.0f}",
            f"{line['compile_s']:.0f}",
            f"{line['seconds'] / 60:.1f}",
        ]
        found.append(f"| {' | '.join(cells)} |")
    return found


def table(lines: list[Line]) -> str:
    """Returns the Markdown table of all lines."""
    head = [f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|"]
    return "\n".join([*head, *(row for line in lines for row in rows(line, lines))])
