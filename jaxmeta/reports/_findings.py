"""Values that a report shows: the test, what it is compared with, and pictures of some tasks."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxmeta._summary import Summary, summarize
from jaxmeta._types import Details
from jaxmeta.reports._returns import Returns


class Tested(NamedTuple):
    """A test: a value of each metric for every task."""

    metrics: Mapping[str, Any]
    """Metrics, each `[num_tasks]`, or shorter if only some of the tasks have it."""
    details: Details | None = None
    """Predictions, classes and inner steps, for learners on tasks of data."""
    floor: Mapping[str, Any] = MappingProxyType({})
    """Metrics of the simplest learner on the same tasks, each `[num_tasks]`. Empty in environments."""
    returns: Returns | None = None
    """Returns of a policy, in environments."""

    @property
    def summaries(self) -> dict[str, Summary]:
        """Each metric over the tasks."""
        return summarize(self.metrics)


class Step(NamedTuple):
    """A row of the table of adaptation."""

    number: int
    """Number of inner steps, or in an environment of episodes seen before."""
    summaries: Mapping[str, Summary]
    """Metrics after so many."""


class Confusion(NamedTuple):
    """Counts of the predicted classes of the queries of each class, over all test tasks."""

    names: tuple[str, ...]
    """Names of the `C` classes."""
    counts: np.ndarray
    """Number of queries of the class of the row for which the class of the column was predicted, `[C, C]`."""
    together: np.ndarray
    """Number of queries of the class of the row in tasks that have the class of the column too, `[C, C]`."""

    def worst(self, number: int) -> list[tuple[str, str, int, float]]:
        """Returns the pairs that are confused most: class, prediction, count, share where both are in the task."""
        wrong = self.counts * (1 - np.eye(len(self.names), dtype=int))
        order = np.argsort(-wrong, axis=None, kind="stable")[:number]
        pairs = [np.unravel_index(place, wrong.shape) for place in order]
        shares = self.counts / np.maximum(self.together, 1)
        return [(self.names[i], self.names[j], int(wrong[i, j]), float(shares[i, j])) for i, j in pairs if wrong[i, j]]


class Query(NamedTuple):
    """A query of a task that is shown."""

    picture: bytes | None
    """Picture as a PNG file, if inputs are images."""
    name: str
    """Name of its class."""
    predicted: str
    """Name of the predicted class."""
    probability: float
    """Probability of that class, by the learner."""

    @property
    def right(self) -> bool:
        """True if the prediction is right."""
        return self.name == self.predicted


class ClassTask(NamedTuple):
    """A few-shot task that is shown."""

    accuracy: float
    """Accuracy in this task, over all its queries."""
    support: Mapping[str, list[bytes]]
    """Pictures of the support set by the name of the class, PNG files. No pictures if inputs are no images."""
    queries: list[Query]
    """Some of the queries."""


class Fit(NamedTuple):
    """A regression task of one input and one output that is shown."""

    support: tuple[np.ndarray, np.ndarray]
    """Inputs and targets of the support set, `[n]`."""
    query: tuple[np.ndarray, np.ndarray]
    """Inputs and targets of the query set, in the order of the inputs."""
    grid: np.ndarray
    """Inputs of the curves, `[m]`."""
    curves: Mapping[str, np.ndarray]
    """Predictions for the grid, such as those before and after adaptation."""


class Film(NamedTuple):
    """A film of a policy in a test task."""

    title: str
    """Title in a few words."""
    gif: bytes
    """GIF file."""


class Findings(NamedTuple):
    """Everything that a report adds to the test."""

    floors: Mapping[str, Mapping[str, Summary]]
    """Results that a learner should beat, by their names."""
    steps: Sequence[Step] = ()
    """Results before adaptation, and in the course of it."""
    confusion: Confusion | None = None
    """Confusions, where classes come back from task to task."""
    tasks: Sequence[ClassTask] = ()
    """The first tasks of the test, for classification."""
    fits: Sequence[Fit] = ()
    """The first tasks of the test, for regression of one number by one number."""
    films: Sequence[Film] = ()
    """Films of the first task of the test, in environments that can be drawn."""
