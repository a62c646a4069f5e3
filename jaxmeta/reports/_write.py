"""The files of a report: the result as numbers, a page of text, and a page with pictures."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmeta._files import write_atomically, write_json
from jaxmeta._summary import Summary
from jaxmeta.display import one_line
from jaxmeta.reports._figures import draw_curve
from jaxmeta.reports._page import write_page
from jaxmeta.reports._report import Report
from jaxmeta.reports._words import encoded, headline, monitored, show, updates_and_seconds


def write_report(folder: Path, report: Report) -> None:
    """Writes `result.json`, `curve.png`, `report.md` and `report.html` into a run's folder."""
    updates, seconds = updates_and_seconds(report.trained)
    findings = report.findings
    record = {
        "test": _plain(report.test),
        "floors": {name: _plain(summaries) for name, summaries in findings.floors.items()},
        "steps": [{"number": step.number, **_plain(step.summaries)} for step in findings.steps],
        "best_step": report.trained.step,
        "updates": updates,
        "train_seconds": seconds,
    }
    if report.tested.returns is not None:
        record["returns"] = report.tested.returns.as_record()
    metric = monitored(report.settings.kind)
    write_atomically(folder / "curve.png", draw_curve(report.trained.history, metric, report.test, report.settings))
    write_atomically(folder / "report.md", encoded("\n".join(_page(report)) + "\n"))
    write_page(folder / "report.html", report)
    write_json(folder / "result.json", record)


def _plain(summaries: Mapping[str, Summary]) -> dict[str, dict[str, float]]:
    return {name: summary._asdict() for name, summary in summaries.items()}


def _page(report: Report) -> list[str]:
    """Returns the lines of `report.md`."""
    rows = [
        _row(name, show(name, s), f"{s.median:.4f}", f"{100 * s.finite:.1f} %", s.num_tasks)
        for name, s in report.last.items()
    ]
    unit, adaptation = report.adaptation
    names = list(adaptation[0][1]) if adaptation else []
    steps = [_row(number, *(values[name] for name in names)) for number, values in adaptation]
    steps = [_row(unit, *names), f"| ---{' | ---' * len(names)} |", *steps, ""] if steps else []
    metric = monitored(report.settings.kind)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", report.command)), default=0))
    return [
        f"# {_escaped(report.title)}",
        "",
        f"**{headline(report.settings, report.test)}**",
        "",
        f"{fence}bash",
        report.command,
        fence,
        "",
        "| test metric | mean ± 95 % interval | median | finite | tasks |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        f"| beside | test {metric} |",
        "| --- | --- |",
        *(_row(name, value) for name, value in report.compared.items()),
        "",
        *steps,
        "![learning curve](curve.png)",
        "",
        report.training,
        "",
        *(line for note in report.notes for line in (note.replace("transductive", "*transductive*"), "")),
        "| setting | value |",
        "| --- | --- |",
        *(_row(name, value) for name, value in {**report.settings, **report.facts}.items()),
    ]


def _row(*cells: Any) -> str:
    return f"| {' | '.join(_escaped(str(cell)) for cell in cells)} |"


def _escaped(text: str) -> str:
    """Returns a text that Markdown shows as it is, in one line."""
    return re.sub(r"[\\`*\[\]<>|&#~$]|\b_|_\b", r"\\\g<0>", one_line(text))
