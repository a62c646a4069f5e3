"""What a run's folder says to people: what was run, what came out, and a page and a plot that show both."""

import dataclasses
import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from jaxmeta._files import write_atomically
from jaxmeta._step import Summary

if TYPE_CHECKING:
    from jaxmeta.runs._run import Result, Run

_FILES = ("checkpoints", "metrics.jsonl", "result.json", "curve.png", "report.md")


def run_type(benchmark: Any) -> "type[Run]":
    """The kind of run that a benchmark is for."""
    from jaxmeta import envs
    from jaxmeta.runs._experiment import Experiment
    from jaxmeta.runs._rl_experiment import RLExperiment

    return RLExperiment if benchmark in envs.list_envs() else Experiment


def read_experiment(folder: Path) -> "Run | None":
    """The experiment that `claim` wrote into the folder; `None` if it wrote nothing."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        options = json.loads(path.read_text())["experiment"]
        return run_type(options["benchmark"])(**options).resolve()
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} does not describe a run of this version of jaxmeta ({error})") from error


def claim(folder: Path, experiment: "Run") -> None:
    """Writes what is being run into the folder, or checks that it is what was run there before.

    Of several processes all check and the first one writes.
    """
    found = read_experiment(folder)
    if found is not None:
        old, new = dataclasses.asdict(found), dataclasses.asdict(experiment)
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        different = [f"{name} was {old.get(name)!r}, now {new.get(name)!r}" for name in names]
        if different:
            raise ValueError(f"folder {folder} holds another run ({'; '.join(different)}); choose another folder")
        return
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"folder must be a folder, but {folder} is a file")
    foreign = [name for name in _FILES if (folder / name).exists()]
    if foreign:
        raise ValueError(f"folder {folder} holds {foreign[0]} of something else; choose another folder")
    if jax.process_index() > 0:
        return
    folder.mkdir(parents=True, exist_ok=True)
    device = jax.devices()[0]
    config = {
        "experiment": dataclasses.asdict(experiment),
        "versions": {name: version(name) for name in ("jaxmeta", "jax", "jaxlib", "flax", "optax", "numpy")},
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform}, {os.cpu_count()} host cores)",
        "python": platform.python_version(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_atomically(folder / "config.json", json.dumps(config, indent=2) + "\n")


def show(name: str, summary: Summary) -> str:
    """One metric over test tasks, accuracy in percent."""
    if name == "accuracy":
        return f"{100 * summary.mean:.2f} ± {100 * summary.interval:.2f} %"
    return str(summary)


def headline(result: "Result") -> str:
    """The test result in one line."""
    metric = result.experiment.monitor
    summary = result.test[metric]
    what = f"{result.experiment.task} test {metric} {show(metric, summary)}"
    return f"{what} ({summary.num_tasks} tasks, 95 % interval)"


def write_report(result: "Result") -> None:
    """Writes `result.json`, `curve.png` and `report.md` into the run's folder."""
    config = json.loads((result.folder / "config.json").read_text())
    history = result.trained.history
    seconds = history[-1]["seconds"] if history else float("nan")
    record = {
        "test": {name: summary._asdict() for name, summary in result.test.items()},
        "best_step": result.trained.step,
        "train_seconds": seconds,
    }
    _plot_curve(result)
    write_atomically(result.folder / "report.md", "\n".join(_page(result, config, seconds)) + "\n")
    write_atomically(result.folder / "result.json", json.dumps(record, indent=2) + "\n")


def _page(result: "Result", config: dict[str, Any], seconds: float) -> list[str]:
    this = result.experiment
    lines = [f"# {this.learner} on {this.benchmark}", "", f"**{headline(result)}**", ""]
    lines += ["| test metric | mean ± 95 % interval | median | finite | tasks |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {show(name, s)} | {s.median:.4f} | {100 * s.finite:.1f} % | {s.num_tasks} |"
        for name, s in result.test.items()
    ]
    lines += ["", "![learning curve](curve.png)", ""]
    lines += [
        f"Meta-trained for {seconds / 60:.1f} minutes; the meta-parameters after update {result.trained.step} of "
        f"{this.iterations}, the best on validation, were tested.",
        "",
    ]
    if this.note:
        lines += [this.note, ""]
    settings = {k: v for k, v in dataclasses.asdict(this).items() if v is not None and k not in this.unused}
    settings |= {name: config[name] for name in ("device", "python", "started")} | config["versions"]
    return [
        *lines,
        "| setting | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in settings.items()),
    ]


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
    axes.set(xlabel="outer updates", ylabel=metric, title=headline(result))
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.3)
    axes.legend()
    temporary = result.folder / "curve.png.tmp"
    figure.savefig(temporary, dpi=150, format="png")
    os.replace(temporary, result.folder / "curve.png")
