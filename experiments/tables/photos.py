"""The rows that tables of photos share: learners with four layers or ResNet-12, 5-way 1-shot and 5-shot."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rows import Budget, Published, Row

SHOTS = (1, 5)
FOUR = {"model": "cnn4"}
WIDE = {"model": "r2d2-cnn"}
DEEP = {"model": "resnet12"}
INNER = {"steps": 5, "test_steps": 10, "inner_rate": 0.01, "queries": 15}
"""Of MAML on photos, with which its relatives are compared."""


@dataclass(frozen=True)
class Entry:
    """A learner of a table of photos: its row for each number of shots."""

    learner: str
    budgets: Mapping[str, Budget]
    options: Mapping[str, Any] = field(default_factory=dict)
    paper: tuple[Published | None, Published | None] = (None, None)
    """Its numbers, 1-shot and 5-shot."""
    label: str = ""
    order: float = 1.0


def gradient(updates: int, small: tuple[int, int] | None = None, tasks: int = 4) -> dict[str, Budget]:
    """Budgets of a learner with inner steps."""
    found = {"paper": Budget(updates, tasks, seeds=3)}
    return found if small is None else found | {"cpu": Budget(small[0], small[1], {"outer_schedule": "cosine"})}


def head(updates: int, tasks: int = 1, small: tuple[int, int] | None = None) -> dict[str, Budget]:
    """Budgets of a learner with a head on features, whose rate falls at any budget."""
    found = {"paper": Budget(updates, tasks)}
    return found if small is None else found | {"cpu": Budget(*small)}


def numbers(
    source: str, where: str, read: Any, one: tuple[float, float | None], five: tuple[float, float | None]
) -> Any:
    """Returns the numbers of a learner for 1 and 5 shots."""
    return Published(*one, source, where, read), Published(*five, source, where, read)


def rows(table: str, benchmark: str, entries: list[Entry]) -> list[Row]:
    """Returns a row for each learner and number of shots, in this order of value."""
    found = []
    for at, shots in enumerate(SHOTS):
        for place, entry in enumerate(entries):
            options = {"ways": 5, "shots": shots, **entry.options}
            rank = entry.order + at + 0.01 * place
            label = entry.label or entry.learner
            setting = f"5-way {shots}-shot"
            found.append(
                Row(
                    table,
                    label,
                    setting,
                    benchmark,
                    entry.learner,
                    entry.budgets,
                    options,
                    paper=entry.paper[at],
                    order=rank,
                )
            )
    return found
