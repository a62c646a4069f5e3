"""The page `report.html`: one file, with everything in it."""

import base64
from importlib import resources
from pathlib import Path
from typing import Any

from jaxmeta._files import write_atomically
from jaxmeta._summary import Summary
from jaxmeta.reports._figures import draw_confusion, draw_curve, draw_fit, draw_histogram, draw_steps
from jaxmeta.reports._report import Report
from jaxmeta.reports._return_figures import draw_returns
from jaxmeta.reports._words import chance, encoded, headline, monitored, show

_MATRIX = 40  # classes that a heat map has room for
_PAIRS = 15  # rows of the table of confusions


def write_page(path: Path, report: Report) -> None:
    """Writes a report as one HTML file, which needs no network."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"uri": _uri, "code": _code}
    template = environment.from_string(
        resources.files("jaxmeta.reports").joinpath("report.html").read_text(encoding="utf-8")
    )
    write_atomically(path, encoded(template.render(_content(report))))


def _uri(content: bytes, kind: str = "image/png") -> str:
    """Returns a file as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _code(text: str) -> Any:
    """Returns a text whose parts in backticks are code."""
    import markupsafe

    parts = [str(markupsafe.escape(part)) for part in text.split("`")]
    return markupsafe.Markup("".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts)))


def _content(report: Report) -> dict[str, Any]:
    """Returns the values of the template's variables."""
    s, findings, metric = report.settings, report.findings, monitored(report.settings.kind)
    unit, adaptation = report.adaptation
    confusion = findings.confusion
    metrics = [metric, "loss"] if metric == "accuracy" else [metric]
    options, words = {name: report.options[name] for name in s}, report.command.split()
    return {
        "title": report.title,
        "headline": headline(s, report.test),
        "command": report.command,
        "metric": metric,
        "compared": report.compared,
        "tests": [(n, show(n, summary), *_rest(summary)) for n, summary in report.last.items()],
        "notes": report.notes,
        "training": report.training,
        "unit": unit,
        "adaptation": adaptation,
        "steps": _adaptation(report) if adaptation else None,
        "curves": {name: draw_curve(report.trained.history, name, report.test, s) for name in metrics},
        "histogram": draw_histogram(report.tested.metrics[metric], metric, report.test[metric].mean),
        "tasks": findings.tasks,
        "fits": [draw_fit(fit) for fit in findings.fits],
        "films": findings.films,
        "matrix": draw_confusion(confusion) if confusion and len(confusion.names) <= _MATRIX else None,
        "pairs": confusion.worst(_PAIRS) if confusion else [],
        "settings": [(o.flag, _text(s[name]), o.help, o.flag in words) for name, o in options.items()],
        "facts": report.facts,
    }


def _adaptation(report: Report) -> bytes:
    """Returns the figure beside the table of adaptation."""
    if report.tested.returns is not None:
        return draw_returns(report.tested.returns)
    s = report.settings
    return draw_steps(report.findings.steps, monitored(s.kind), report.adaptation[0], chance(s))


def _rest(summary: Summary) -> tuple[str, str, int]:
    return f"{summary.median:.4f}", f"{100 * summary.finite:.1f} %", summary.num_tasks


def _text(value: Any) -> str:
    """Returns the value of a setting as text."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
