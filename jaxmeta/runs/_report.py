"""The report of a run: the result as numbers, a page, and a plot."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxmeta._files import write_atomically
from jaxmeta._summary import Summary
from jaxmeta.catalog import LEARNERS, Settings
from jaxmeta.runs._parts import monitored, task_name
from jaxmeta.training import Trained


def show(name: str, summary: Summary) -> str:
    """Returns one metric over test tasks as text, accuracy in percent."""
    if name == "accuracy":
        return f"{100 * summary.mean:.2f} ± {100 * summary.interval:.2f} %"
    return str(summary)


def headline(settings: Settings, test: dict[str, Summary]) -> str:
    """Returns the test result in one line."""
    metric = monitored(settings.kind)
    summary = test[metric]
    chance = f", chance {100 / settings.ways:.3g} %" if metric == "accuracy" else ""
    facts = f"{summary.num_tasks} tasks, 95 % interval{chance}"
    return f"{task_name(settings)} test {metric} {show(metric, summary)} ({facts})"


def effort(settings: Settings, trained: Trained) -> str:
    """Returns how long the training was, and whether its time ended it."""
    updates, seconds = _updates_and_seconds(trained)
    cut = ", which used its time up" if updates < settings.iterations else ""
    return f"{updates} of {settings.iterations} updates in {seconds / 60:.1f} minutes of training{cut}"


def _updates_and_seconds(trained: Trained) -> tuple[int, float]:
    if not trained.history:  # someone has removed the metrics
        return trained.step, float("nan")
    return int(trained.history[-1]["step"]), trained.history[-1]["seconds"]


def write_report(folder: Path, settings: Settings, trained: Trained, test: dict[str, Summary]) -> None:
    """Writes `result.json`, `curve.png` and `report.md` into a run's folder."""
    config = json.loads((folder / "config.json").read_text())
    updates, seconds = _updates_and_seconds(trained)
    record = {
        "test": {name: summary._asdict() for name, summary in test.items()},
        "best_step": trained.step,
        "updates": updates,
        "train_seconds": seconds,
    }
    _plot_curve(folder, settings, trained, test)
    page = "\n".join(_page(settings, trained, test, config))
    write_atomically(folder / "report.md", page + "\n")
    write_atomically(folder / "result.json", json.dumps(record, indent=2) + "\n")


def _page(settings: Settings, trained: Trained, test: dict[str, Summary], config: dict[str, Any]) -> list[str]:
    rows = [
        f"| {name} | {show(name, s)} | {s.median:.4f} | {100 * s.finite:.1f} % | {s.num_tasks} |"
        for name, s in test.items()
    ]
    facts = {name: config[name] for name in ("device", "python", "started")} | config["versions"]
    return [
        f"# {settings.learner} on {settings.benchmark}",
        "",
        f"**{headline(settings, test)}**",
        "",
        "| test metric | mean ± 95 % interval | median | finite | tasks |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        "![learning curve](curve.png)",
        "",
        f"The run did {effort(settings, trained)}. The meta-parameters after update {trained.step} were the best on "
        "validation, and they were tested.",
        "",
        *_notes(settings),
        "| setting | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in {**settings, **facts}.items()),
    ]


def _notes(settings: Settings) -> list[str]:
    """Facts that a reader of the numbers must know."""
    own_statistics = LEARNERS[settings.learner].trains_on in ("classes", "features")
    if settings.get("norm") != "batch" or own_statistics:
        return []
    return ["Batch norm uses the statistics of the batch at hand, at test too: the numbers are *transductive*.", ""]


def _plot_curve(folder: Path, settings: Settings, trained: Trained, test: dict[str, Summary]) -> None:
    """Plots the metric against outer updates, for training and validation."""
    metric = monitored(settings.kind)

    def draw(axes: Any) -> None:
        styles: dict[str, dict[str, Any]] = {"train": {"alpha": 0.5}, "validation": {"marker": "o", "markersize": 4}}
        for part, style in styles.items():
            points = [(r["step"], r[f"{part}/{metric}"]) for r in trained.history if f"{part}/{metric}" in r]
            if points:
                steps, values = zip(*points, strict=True)
                axes.plot(steps, values, label=part, **style)
        axes.axhline(test[metric].mean, color="black", linestyle=":", label=f"test {test[metric].mean:.3f}")
        axes.set(xlabel="outer updates", ylabel=metric)
        axes.set_title(f"{settings.learner} on {settings.benchmark}\n{headline(settings, test)}", fontsize=10)

    save_figure(folder / "curve.png", draw)


def save_figure(path: Path, draw: Callable[[Any], None]) -> None:
    """Saves a figure with one plot as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(alpha=0.3)
    axes.legend()
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    write_atomically(path, content.getvalue())
