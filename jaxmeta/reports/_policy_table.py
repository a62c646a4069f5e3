"""Several runs of policies side by side: one table and one figure for each environment."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmeta.reports._figures import draw_panels, points_of
from jaxmeta.reports._policies import FLOOR, ORACLE
from jaxmeta.reports._return_figures import Line, draw_lines
from jaxmeta.reports._returns import Returns
from jaxmeta.reports._words import aligned
from jaxmeta.rl import Interval, interquartile_mean

_ENVIRONMENT = ("benchmark", "variant", "horizon", "backend")  # settings that make the environment


class PolicyRun(NamedTuple):
    """A run in an environment."""

    settings: Mapping[str, Any]
    """Every option with its final value."""
    returns: Returns | None
    """The test of a run that has finished."""
    history: Sequence[Mapping[str, float]]
    """Records of the training."""


class _Group(NamedTuple):
    """Runs that differ by their seed only."""

    label: str
    runs: Sequence[PolicyRun]

    @property
    def tested(self) -> list[Returns]:
        """Tests of the runs that have finished."""
        return [run.returns for run in self.runs if run.returns is not None]

    @property
    def episodes(self) -> np.ndarray:
        """Number of episodes seen before each measurement, `[n]`."""
        return self.tested[0].episodes

    def means(self) -> dict[int, float]:
        """Mean return by the number of episodes seen."""
        values = np.mean([returns.sampled.mean(axis=0) for returns in self.tested], axis=0)
        return {int(number): float(value) for number, value in zip(self.episodes, values, strict=True)}

    def aggregates(self, of_mode: bool, scored: bool) -> list[Interval]:
        """Interquartile mean over runs and tasks after each number of episodes, of the scores or of the returns.

        Tasks without a score in one of the runs are left out.
        """
        if scored:
            found = np.stack([returns.scores[..., int(of_mode)] for returns in self.tested])
            found = found[:, ~np.isnan(found).any(axis=(0, 2))]
        else:
            found = np.stack([returns.mode if of_mode else returns.sampled for returns in self.tested])
        return [interquartile_mean(found[..., place], whole_runs=True) for place in range(found.shape[2])]

    def named(self) -> dict[str, float]:
        """Mean return after all episodes in the tasks of each name."""
        found: dict[str, list[np.ndarray]] = {}
        for returns in self.tested:
            for name, values in returns.named(returns.sampled[:, -1]).items():
                found.setdefault(name, []).append(values)
        return {name: float(np.concatenate(values).mean()) for name, values in found.items()}


class _Compared(NamedTuple):
    """Groups of runs in one environment."""

    title: str
    groups: Sequence[_Group]

    @property
    def finished(self) -> list[_Group]:
        """Groups with a test, without the runs that have none."""
        return [group for group in self.groups if group.tested]

    @property
    def scored(self) -> bool:
        """True if every test has scores in some tasks that all runs of its group share."""
        scores = [np.stack([returns.scores for returns in group.tested]) for group in self.finished]
        return all((~np.isnan(some).any(axis=(0, 2, 3))).any() for some in scores)

    def levels(self) -> dict[str, float]:
        """Mean return of the floor and of the oracle, as far as they are known."""
        tests = [returns for group in self.finished for returns in group.tested]
        found = {}
        for name, values in {FLOOR: [r.floor for r in tests], ORACLE: [r.oracle for r in tests]}.items():
            known = [each for each in values if each is not None]
            if known:
                found[name] = float(np.concatenate(known).mean())
        return found


def policy_tables(runs: Sequence[PolicyRun]) -> str:
    """Returns a table for each environment, where runs that differ by the seed are one line."""
    return "\n\n".join(_table(compared) for compared in _compared(runs) if compared.finished)


def _table(compared: _Compared) -> str:
    groups, scored = compared.finished, compared.scored
    numbers = sorted({int(number) for group in groups for number in group.episodes})
    names = sorted({name for group in groups for name in group.named()})
    what = "score" if scored else "return"
    head = ["learner", "runs", *map(str, numbers), f"{what} [95 %]", f"mode {what} [95 %]", *names]
    rows = [head]
    for group in groups:
        means, named = group.means(), group.named()
        columns = [f"{means[number]:.4g}" if number in means else "" for number in numbers]
        last = [str(group.aggregates(of_mode, scored)[-1]) for of_mode in (False, True)]
        own = [f"{named[name]:.4g}" if name in named else "" for name in names]
        rows.append([group.label, str(len(group.tested)), *columns, *last, *own])
    for name, level in compared.levels().items():
        at = {FLOOR: "0.00", ORACLE: "1.00"}[name] if scored else ""
        rows.append([name, "", *[f"{level:.4g}"] * len(numbers), at, at, *[""] * len(names)])
    told = f"{compared.title}: mean return by episodes seen, interquartile mean of the last {what}"
    return f"{told}\n{aligned(rows)}"


def draw_policies(runs: Sequence[PolicyRun]) -> bytes:
    """Draws the learning curves of runs, and beside them what they reach by the number of episodes seen."""
    found = _compared(runs)
    labels = list(dict.fromkeys(group.label for compared in found for group in compared.groups))
    colors = {label: number for number, label in enumerate(labels)}
    rows = [[_learning(compared, colors), _adaptation(compared, colors)] for compared in found]
    return draw_panels(rows, (11, 4 * len(rows)), grid=True)


def _learning(compared: _Compared, colors: Mapping[str, int]) -> Any:
    """Returns what draws the validations of all runs, with one color for each group."""

    def draw(axes: Any) -> None:
        for group in compared.groups:
            for run, label in zip(group.runs, [group.label, *[None] * len(group.runs)], strict=False):
                points = points_of(run.history, "validation/return")
                axes.plot(*points, color=f"C{colors[group.label]}", marker="o", markersize=3, alpha=0.8, label=label)
        axes.set(xlabel="outer updates", ylabel="validation return")
        axes.set_title(compared.title, fontsize=10)
        axes.xaxis.get_major_locator().set_params(integer=True)

    return draw


def _adaptation(compared: _Compared, colors: Mapping[str, int]) -> Any:
    """Returns what draws the score, or the return, by the number of episodes seen."""
    groups, scored = compared.finished, compared.scored
    levels = {"floor": 0.0, "oracle": 1.0}
    if not scored:
        levels = {{FLOOR: "floor", ORACLE: "oracle"}[name]: level for name, level in compared.levels().items()}

    def draw(axes: Any) -> None:
        if not groups:
            axes.set_axis_off()
            return
        lines = [
            Line(g.label, g.episodes, *map(np.array, zip(*g.aggregates(False, scored), strict=True))) for g in groups
        ]
        axes.set_title("interquartile mean, 95 % interval over runs", fontsize=10)
        draw_lines(axes, lines, levels, f"test {'score' if scored else 'return'}", [colors[g.label] for g in groups])

    return draw


def _compared(runs: Sequence[PolicyRun]) -> list[_Compared]:
    """Returns the groups of each environment, in the order of the runs."""
    found: dict[str, list[PolicyRun]] = {}
    for run in runs:
        benchmark, *others = (name for name in _ENVIRONMENT if name in run.settings)
        parts = [str(run.settings[benchmark]), *(f"{name} {run.settings[name]}" for name in others)]
        found.setdefault(", ".join(parts), []).append(run)
    return [_Compared(title, _groups(some)) for title, some in found.items()]


def _groups(runs: Sequence[PolicyRun]) -> list[_Group]:
    """Returns the groups of runs that differ by the seed only, with a label that tells them apart."""
    alike: dict[str, list[PolicyRun]] = {}
    for run in runs:
        alike.setdefault(str({k: v for k, v in sorted(run.settings.items()) if k != "seed"}), []).append(run)
    groups = list(alike.values())
    found = []
    for group in groups:
        own = group[0].settings
        others = [other[0].settings for other in groups if other[0].settings["learner"] == own["learner"]]
        differ = [name for name in own if name != "seed" and len({str(other.get(name)) for other in others}) > 1]
        found.append(_Group(", ".join([str(own["learner"]), *(f"{name} {own[name]}" for name in differ)]), group))
    return found
