"""The tables and the plot of the page "On a GPU", from the results of `gpu.py`."""

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "gpu.md"
REGION = re.compile(r"(<!-- generated: gpu (?P<part>[\w -]+) -->\n)[^<]*(<!-- end -->)")
COLUMNS = {
    "ms": ("ms", ",.4g"),
    "updates/s": ("updates_per_s", ",.0f"),
    "tasks/s": ("tasks_per_s", ",.0f"),
    "env steps/s": ("steps_per_s", ",.0f"),
    "compile s": ("compile_s", ".1f"),
    "temporary MiB": ("temporary_MiB", ",.0f"),
    "gradient error": ("gradient_error", ".0e"),
}
SCALING = re.compile(r"MAML, 1 step, im2col, \d+ tasks")
WAYS = re.compile(r"MAML, 1 step, (?P<how>[^,]+(, (mixed\(\)|vmap of grad|loop over tasks))?), (?P<tasks>\d+) tasks")

Results = list[dict[str, Any]]


def table(results: Results, part: str) -> list[str]:
    """Lines of the table of one part, with the columns that its rows have."""
    chosen = [row for row in results if row["part"] == part]
    if part == "machine":
        facts = [f"{key} {row[key]}" for row in chosen for key in row if key not in ("part", "name", "row_s", "at_s")]
        return [", ".join(facts) + "."]
    if not chosen:
        return ["Not measured yet."]
    columns = {title: column for title, column in COLUMNS.items() if any(column[0] in row for row in chosen)}
    lines = ["| | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for row in chosen:
        cells = [format(row[key], form) if key in row else "" for key, form in columns.values()]
        if "error" in row and columns:
            cells[0] = "failed"
        name = f"`{row['name']}`" if row["name"].startswith("--") else row["name"]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return lines


def generated(page: str, results: Results) -> str:
    """The page's text with its tables made anew."""
    return REGION.sub(lambda m: "\n".join([m[1] + "\n".join(table(results, m["part"])), m[3]]), page)


def plot(results: Results, path: Path) -> None:
    """Tasks per second against the number of tasks, and of the ways to compute 32 tasks."""
    from matplotlib.figure import Figure

    timed = [row for row in results if "tasks_per_s" in row]
    scaling = sorted((row["tasks"], row["tasks_per_s"]) for row in timed if SCALING.fullmatch(row["name"]))
    found = [(match, row) for row in timed if (match := WAYS.fullmatch(row["name"]))]
    fewest = min(int(match["tasks"]) for match, _ in found)
    ways = {match["how"]: row["tasks_per_s"] for match, row in found if int(match["tasks"]) == fewest}
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.loglog(*zip(*scaling, strict=True), "o-")
    left.set_xticks([tasks for tasks, _ in scaling], [str(tasks) for tasks, _ in scaling])
    left.minorticks_off()
    left.set_xlabel("tasks per update (MAML, 1 step, im2col)")
    left.set_ylabel("tasks per second")
    order = sorted(ways, key=ways.__getitem__)
    right.barh(order, [ways[how] for how in order], log=True)
    right.set_xlabel(f"tasks per second (MAML, 1 step, {fewest} tasks)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def write(output: Path) -> None:
    """Writes the tables into the page, and the plot beside it."""
    results = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    PAGE.write_text(generated(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    plot(results, PAGE.parent / "assets" / "gpu.png")
