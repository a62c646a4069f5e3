"""A row of a published table: what its paper states, and the run that repeats it at a named budget."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jaxmeta
from jaxmeta.runs import command_of

PER_CENT, ERROR = "accuracy", "loss"
MARKS = {"paper": "", "quoted": " ‡", "memory": " †"}
"""Behind a published number on the page, by how it was checked."""


@dataclass(frozen=True)
class Published:
    """A number of a paper, in per cent or as an error."""

    value: float
    interval: float | None
    source: str
    """Address of the paper."""
    where: str
    """Table or section in it."""
    read: Literal["paper", "quoted", "memory"]
    """Whether the number was read in the text of the paper, in a text that quotes it, or comes from memory."""

    @property
    def text(self) -> str:
        """The number with its interval and the mark of how it was checked."""
        given = [self.value] if self.interval is None else [self.value, self.interval]
        digits = max(len(str(number).partition(".")[2]) for number in given)
        return " ± ".join(f"{number:.{digits}f}" for number in given) + MARKS[self.read]


@dataclass(frozen=True)
class Budget:
    """How much training and testing a row gets."""

    updates: int
    tasks: int | None = None
    """Tasks per update, `None` for minibatches of supervised pre-training."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Other options that differ at this budget."""
    test_tasks: int = 600
    seeds: int = 1
    """Seeds from 0 on."""

    def __post_init__(self) -> None:
        if self.test_tasks < 600:
            raise ValueError(f"test_tasks must be at least 600, got {self.test_tasks}")


@dataclass(frozen=True)
class Row:
    """A cell of a published table, and how to fill it."""

    table: str
    label: str
    """The learner as the page calls it."""
    setting: str
    """The tasks as the page calls them."""
    benchmark: str
    learner: str
    budgets: Mapping[str, Budget]
    """By name: `"paper"`, for an accelerator, and `"cpu"`, for two cores, if there is one."""
    options: Mapping[str, Any] = field(default_factory=dict)
    test: Mapping[str, Any] = field(default_factory=dict)
    """Options of the test that differ from those of the training. Rows that train alike share one run."""
    paper: Published | None = None
    order: float = 1.0
    """Rows with smaller numbers come first."""

    @property
    def metric(self) -> str:
        """The tested metric."""
        return ERROR if self.benchmark == "sinusoid" else PER_CENT

    def budget(self, name: str) -> Budget:
        """Returns the budget of that name.

        Raises:
            ValueError: if the row has none.
        """
        if name not in self.budgets:
            raise ValueError(f"budget of {self.name} must be one of {', '.join(self.budgets)}, got {name!r}")
        return self.budgets[name]

    @property
    def name(self) -> str:
        """The row in words, as `--rows` searches it."""
        return f"{self.table}: {self.label}, {self.setting}"

    def shrunk(self) -> "Row":
        """Returns the row with budgets of a few updates, to test how it runs."""
        tiny = {
            name: replace(of, updates=4, tasks=None if of.tasks is None else min(of.tasks, 2), seeds=1)
            for name, of in self.budgets.items()
        }
        return replace(self, budgets=tiny)

    def experiment(self, budget: str, seed: int) -> jaxmeta.Experiment:
        """Returns the training."""
        of = self.budget(budget)
        every = max(1, of.updates // 5)
        chosen = {
            "iterations": of.updates,
            "validate_every": min(1000, every // 50 * 50 or every),
            "validation_tasks": 200,
            "test_tasks": of.test_tasks,
            **({} if of.tasks is None else {"num_tasks": of.tasks}),
            **self.options,
            **of.options,
        }
        return jaxmeta.Experiment(self.benchmark, self.learner, seed=seed, **chosen)

    def tested(self, budget: str, seed: int) -> jaxmeta.Experiment:
        """Returns the training with the options of the test, which leave its meta-parameters as they are."""
        return replace(self.experiment(budget, seed), **self.test)

    def command(self, budget: str, seed: int, root: str = "") -> str:
        """Returns the `jaxmeta train` that repeats the training."""
        return command_of(self.experiment(budget, seed).resolve(), root=root)

    def folder(self, budget: str, seed: int) -> str:
        """Returns the name of the folder of the training, which rows that train alike share."""
        mark = _mark(self.experiment(budget, seed))
        return f"{self.benchmark}-{self.learner}-{budget}-seed{seed}-{mark}"

    def key(self, budget: str, seed: int) -> str:
        """Returns the name of the result, which changes with every option that decides it."""
        return f"{self.name}, {budget}, seed {seed}, {_mark(self.tested(budget, seed))}"


def _mark(experiment: jaxmeta.Experiment) -> str:
    """Returns a fingerprint of the settings that decide a result; the batch size decides only the speed."""
    settings = {name: value for name, value in experiment.resolve().items() if name != "batch_size"}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
