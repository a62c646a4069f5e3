"""Figures of a report, as PNG files."""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmeta._summary import Summary
from jaxmeta.catalog import Settings
from jaxmeta.display import one_line
from jaxmeta.reports._findings import Confusion, Fit, Step
from jaxmeta.reports._words import chance

_SIZE = (4.8, 3.2)  # inches, so that the text of a figure is readable on a phone
_BLUE, _ORANGE, _GRAY = "#1f5fa8", "#c8500a", "#555555"


def draw_figure(draw: Callable[[Any], None], size: tuple[float, float] = _SIZE, *, grid: bool = True) -> bytes:
    """Returns a figure with one plot as a PNG file. `draw` gets the axes."""
    return draw_panels([[draw]], size, grid=grid)


def draw_panels(rows: Sequence[Sequence[Callable[[Any], None]]], size: tuple[float, float], *, grid: bool) -> bytes:
    """Returns a figure with rows of plots as a PNG file."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():  # names
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box stands for what the font has not
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        plots = figure.subplots(len(rows), len(rows[0]), squeeze=False)
        for draw, axes in zip((draw for row in rows for draw in row), plots.flat, strict=True):
            draw(axes)
            if grid:
                axes.grid(alpha=0.3)
            if labels := axes.get_legend_handles_labels()[1]:
                _add_legend(axes, labels)
        figure.savefig(content, dpi=160, format="png")
    return content.getvalue()


def _add_legend(axes: Any, labels: Sequence[str]) -> None:
    """Adds a legend: beside the plot if it would hide much of it, and leaves room for it."""
    if 5 < len(labels) < 15 and max(map(len, labels)) < 25:
        axes.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    else:
        axes.legend(fontsize=9).set_in_layout(False)  # the layout would give up at labels wider than the plot


def points_of(history: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    """Returns the updates at which a value was recorded, and its values."""
    points = [(record["step"], record[name]) for record in history if name in record]
    return [step for step, _ in points], [value for _, value in points]


def draw_curve(
    history: Sequence[Mapping[str, float]], metric: str, test: Mapping[str, Summary], settings: Settings
) -> bytes:
    """Draws a metric against outer updates: training as a thin line, validation as points, the test as a level."""
    train, validation = (points_of(history, f"{part}/{metric}") for part in ("train", "validation"))

    def draw(axes: Any) -> None:
        if train[0]:
            marker = "." if len(train[0]) == 1 else None
            axes.plot(*train, marker=marker, color=_BLUE, alpha=0.6, linewidth=1, label="training")
        if validation[0]:
            axes.plot(*validation, color=_ORANGE, marker="o", markersize=5, linewidth=1.8, label="validation")
        level = test[metric].mean
        axes.axhline(level, color="black", linestyle=":", label=f"test {level:.3g}")
        guess = chance(settings) if metric == "accuracy" else None
        if guess is not None:
            axes.axhline(guess, color=_GRAY, linestyle="--", linewidth=1, label=f"chance {guess:.3g}")
            axes.set_ylim(0, 1.02)
        values = np.array([*train[1], *validation[1], level])
        values = values[np.isfinite(values)]
        if metric == "loss" and len(values) and np.all(values > 0):
            _log_axis(axes, values)
        axes.set(xlabel="outer updates", ylabel=f"{metric} (log scale)" if axes.get_yscale() == "log" else metric)
        axes.set_title(f"{settings.learner} on {settings.benchmark}", fontsize=10)

    return draw_figure(draw)


def _log_axis(axes: Any, values: np.ndarray) -> None:
    """Makes the vertical axis logarithmic, with plain numbers as labels."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    decades = np.log10(values.max() / values.min())
    axes.set_yscale("log")
    few = LogLocator(subs=(1, 2, 5) if decades < 2 else (1,))
    axes.yaxis.set_major_locator(MaxNLocator(6) if decades < 1 else few)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def draw_steps(steps: Sequence[Step], metric: str, unit: str, guess: float | None) -> bytes:
    """Draws a metric with its interval in the course of adaptation."""

    def draw(axes: Any) -> None:
        numbers = [step.number for step in steps]
        means = [step.summaries[metric].mean for step in steps]
        intervals = [step.summaries[metric].interval for step in steps]
        axes.errorbar(numbers, means, np.nan_to_num(intervals), color=_BLUE, marker="o", capsize=3)
        if guess is not None:
            axes.axhline(guess, color=_GRAY, linestyle="--", linewidth=1, label=f"chance {guess:.3g}")
        axes.set(xlabel=unit, ylabel=f"test {metric}")
        axes.xaxis.get_major_locator().set_params(integer=True)

    return draw_figure(draw)


def draw_histogram(values: Any, metric: str, mean: float) -> bytes:
    """Draws how many test tasks have which value of a metric."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]

    def draw(axes: Any) -> None:
        levels = np.unique(values)
        if metric == "accuracy" and 1 < len(levels) <= 30:  # few queries: a bar for each possible value
            width = 0.8 * np.diff(levels).min()
            axes.bar(levels, [(values == level).sum() for level in levels], width=width, color=_BLUE)
        else:
            axes.hist(values, bins=30, color=_BLUE)
        if np.isfinite(mean):
            axes.axvline(mean, color="black", linestyle=":", label=f"mean {mean:.3g}")
        if metric == "accuracy":
            axes.set_xlim(-0.1, 1.1)
        axes.set(xlabel=f"{metric} of a test task", ylabel="tasks")

    return draw_figure(draw)


def draw_confusion(confusion: Confusion) -> bytes:
    """Draws the share of each prediction among the queries of a class, where both are in the task."""
    number = len(confusion.names)
    side = min(9.0, max(_SIZE[1], 1.8 + 0.24 * number))
    names = [name if len(name) <= 24 else f"{name[:23]}…" for name in map(one_line, confusion.names)]

    def draw(axes: Any) -> None:
        shares = confusion.counts / np.maximum(confusion.together, 1)
        image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
        size = 9 if number <= 20 else 6.5
        axes.set_xticks(range(number), names, rotation=90, fontsize=size)
        axes.set_yticks(range(number), names, fontsize=size)
        axes.set(xlabel="predicted class", ylabel="class of the query")
        axes.figure.colorbar(image, ax=axes, label="% of the queries", shrink=0.7)

    return draw_figure(draw, (side * 1.15, side), grid=False)


def draw_fit(fit: Fit) -> bytes:
    """Draws a regression task: its target, the support set, and the predictions."""
    styles = {"before adaptation": {"color": _GRAY, "linestyle": "--"}, "after adaptation": {"color": _ORANGE}}

    def draw(axes: Any) -> None:
        axes.plot(*fit.query, ".", color=_BLUE, markersize=3, alpha=0.6, label="target")
        for name, values in fit.curves.items():
            axes.plot(fit.grid, values, label=name, linewidth=1.8, **styles[name])
        axes.plot(*fit.support, "o", color="black", markersize=5, label="support set")
        axes.set(xlabel="x", ylabel="y")

    return draw_figure(draw)
