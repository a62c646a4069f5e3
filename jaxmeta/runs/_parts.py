"""The parts that every kind of run has, and small facts about runs."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

import jax
from jax.sharding import Mesh

from jaxmeta._cost import Cost
from jaxmeta._summary import Summary
from jaxmeta._types import MetaParams
from jaxmeta.catalog import Settings
from jaxmeta.display import short_repr
from jaxmeta.reports import Findings, Tested
from jaxmeta.training import Callback, Trained

P = ParamSpec("P")
T = TypeVar("T")


class Parts(Protocol):
    """A run that is ready to train."""

    @property
    def meta(self) -> MetaParams:
        """Initial meta-parameters."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the data for the record of the run."""
        ...

    def train(
        self, folder: Path, mesh: Mesh | None, minutes: float | None, progress: bool, callbacks: Sequence[Callback]
    ) -> Trained:
        """Meta-trains in the time that it may take, with metrics and checkpoints in the folder."""
        ...

    def load(self, folder: Path) -> MetaParams:
        """Returns the best meta-parameters that a run has saved in its folder."""
        ...

    def untrained(self) -> MetaParams:
        """Returns the meta-parameters before the training, ready for a test."""
        ...

    def test(self, metas: Sequence[MetaParams], mesh: Mesh | None = None) -> list[Tested]:
        """Adapts each of some meta-parameters to the test tasks, with one program."""
        ...

    def examine(self, meta: MetaParams, tested: Tested, untrained: Tested) -> Findings:
        """Returns what a report shows beside the test."""
        ...

    def estimate(self, mesh: Mesh | None = None) -> Cost:
        """Compiles an outer update without running it."""
        ...


def at_precision(method: Callable[P, T]) -> Callable[P, T]:
    """Makes a method of `Parts` compile with the precision of the run; `default` leaves that to JAX."""

    @functools.wraps(method)
    def run(*args: P.args, **options: P.kwargs) -> T:
        parts: Any = args[0]
        precision = parts.settings.precision
        chosen = contextlib.nullcontext() if precision == "default" else jax.default_matmul_precision(precision)
        with chosen:
            return method(*args, **options)

    return run


class Result(NamedTuple):
    """Result of `Experiment.run`."""

    settings: Settings
    """The settings, with all values filled in."""
    folder: Path
    """The run's folder."""
    trained: Trained
    """The best meta-parameters and the history."""
    test: dict[str, Summary]
    """Each metric over the test tasks."""

    __repr__ = short_repr
