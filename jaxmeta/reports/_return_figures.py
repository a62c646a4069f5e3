"""Figures of returns and scores by the number of episodes that a policy has seen of a task."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmeta._summary import summarize
from jaxmeta.reports._figures import draw_figure
from jaxmeta.reports._returns import Returns

_GRAYS = ("#888888", "black")  # of the levels
_NEAR = 10  # largest number of episodes for an axis with equal steps


class Line(NamedTuple):
    """A line of a figure, with a band around it."""

    label: str
    """Name in the legend."""
    episodes: np.ndarray
    """Number of episodes seen, `[n]`."""
    values: np.ndarray
    """Values, `[n]`."""
    low: np.ndarray
    """Lower end of the band, `[n]`."""
    high: np.ndarray
    """Upper end of the band, `[n]`."""


def draw_lines(
    axes: Any, lines: Sequence[Line], levels: Mapping[str, float], name: str, colors: Sequence[int] = (0, 1)
) -> None:
    """Draws values by the number of episodes seen into a plot, with a dashed line for each level."""
    for number, line in zip(colors, lines, strict=True):
        color = f"C{number}"
        # A band of no width, as around a single run, would be drawn as a faint line.
        if len(line.episodes) > 1 and np.any(line.high > line.low):
            axes.fill_between(line.episodes, line.low, line.high, color=color, alpha=0.2, linewidth=0)
        elif np.any(line.high > line.low):
            errors = np.stack([line.values - line.low, line.high - line.values])
            axes.errorbar(line.episodes, line.values, errors, color=color, capsize=3)
        axes.plot(line.episodes, line.values, color=color, marker="o", markersize=4, label=line.label)
    for color, (label, level) in zip(_GRAYS, levels.items(), strict=False):
        axes.axhline(level, color=color, linestyle="--", linewidth=1.2, label=label)
    _episode_axis(axes, np.unique(np.concatenate([line.episodes for line in lines])))
    axes.set(xlabel="episodes seen", ylabel=name)


def _episode_axis(axes: Any, numbers: np.ndarray) -> None:
    """Marks the numbers of episodes, on an axis that has room for few and for many."""
    from matplotlib.ticker import NullLocator

    last = numbers.max()
    if last > _NEAR and np.any((numbers > 0) & (numbers <= last / _NEAR)):
        axes.set_xscale("symlog", linthresh=1)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(-0.2, 1.2 * last)
        place = np.where(numbers > 0, 1 + np.log10(np.maximum(numbers, 1)), 0)
    else:
        place = numbers.astype(float)
    room, ticks, labeled = place.max() / 12, [], -np.inf
    for number, at in zip(numbers, place, strict=True):
        if at - labeled >= room:
            ticks.append(number)
            labeled = at
    axes.set_xticks(ticks, [str(number) for number in ticks])


def draw_returns(returns: Returns) -> bytes:
    """Draws the mean return of a run in its test tasks, with 95 % intervals over the tasks."""
    lines = []
    for label, values in {"sampled actions": returns.sampled, "most probable actions": returns.mode}.items():
        found = [summarize({"return": column})["return"] for column in values.T]
        mean, width = np.array([x.mean for x in found]), np.nan_to_num([x.interval for x in found])
        lines.append(Line(label, returns.episodes, mean, mean - width, mean + width))
    known = {"floor": returns.floor, "oracle": returns.oracle}
    levels = {
        f"{name} {values.mean():.3g}": float(values.mean()) for name, values in known.items() if values is not None
    }
    return draw_figure(lambda axes: draw_lines(axes, lines, levels, "test return"))
