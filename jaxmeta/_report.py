"""What a run leaves for people to read: the numbers, the learning curve and a page that shows both."""

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from jaxmeta._train import write_atomically

if TYPE_CHECKING:
    from jaxmeta._experiment import Result


def write_report(result: "Result") -> None:
    """Writes `result.json`, `curve.png` and `report.md` into the run's folder."""
    config = json.loads((result.folder / "config.json").read_text())
    seconds = result.trained.history[-1]["seconds"]
    record = {
        "test": {name: summary._asdict() for name, summary in result.test.items()},
        "best_step": result.trained.step,
        "train_seconds": seconds,
    }
    write_atomically(result.folder / "result.json", json.dumps(record, indent=2) + "\n")
    _plot_curve(result)

    this = result.experiment
    lines = [f"# {this.learner} on {this.benchmark}", ""]
    lines += [f"**{headline(result)}**", ""]
    lines += ["| test metric | mean ± 95 % interval | median | finite | tasks |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {s} | {s.median:.4f} | {100 * s.finite:.1f} % | {s.num_tasks} |" for name, s in result.test.items()
    ]
    lines += ["", "![learning curve](curve.png)", ""]
    lines += [
        f"Meta-trained for {seconds / 60:.1f} minutes; the meta-parameters after update {result.trained.step} of "
        f"{this.iterations}, the best on validation, were tested.",
        "",
    ]
    if this.norm == "batch" and not this.regressing:
        lines += [
            "Batch norm uses the statistics of the batch at hand, at test too: the numbers are *transductive*.",
            "",
        ]
    lines += ["| setting | value |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in dataclasses.asdict(this).items() if value is not None]
    lines += [f"| {name} | {config[name]} |" for name in ("device", "python", "started")]
    lines += [f"| {name} | {number} |" for name, number in config["versions"].items()]
    write_atomically(result.folder / "report.md", "\n".join(lines) + "\n")


def headline(result: "Result") -> str:
    """The test result in one line."""
    this = result.experiment
    if not this.regressing:
        accuracy = result.test["accuracy"]
        what = f"test accuracy {100 * accuracy.mean:.2f} ± {100 * accuracy.interval:.2f} %"
        return f"{this.ways}-way {this.shots}-shot {what} ({accuracy.num_tasks} tasks, 95 % interval)"
    loss = result.test["loss"]
    return f"{this.shots}-shot test loss {loss} ({loss.num_tasks} tasks, 95 % interval)"


def _plot_curve(result: "Result") -> None:
    """Metric against outer updates, training and validation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metric = result.experiment.monitor
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    styles: dict[str, dict[str, Any]] = {"train": {"alpha": 0.5}, "validation": {"marker": "o", "markersize": 4}}
    for part, style in styles.items():
        points = [(r["step"], r[f"{part}/{metric}"]) for r in result.trained.history if f"{part}/{metric}" in r]
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, label=part, **style)
    test = result.test[metric]
    axes.axhline(test.mean, color="black", linestyle=":", label=f"test {test.mean:.3f}")
    axes.set(xlabel="outer updates", ylabel=f"query {metric}", title=headline(result))
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(result.folder / "curve.png", dpi=150)
