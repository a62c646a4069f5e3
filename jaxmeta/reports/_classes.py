"""Few-shot tasks in a report: confusions of classes, and the first tasks of a test."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmeta._types import Details, Task
from jaxmeta.reports._findings import ClassTask, Confusion, Query, Tested
from jaxmeta.reports._pictures import picture_of

_SHOWN = 20  # pictures of support or query examples of a task


def confusion_of(details: Details, sampler: Any) -> Confusion | None:
    """Returns the confusions of all tasks, or `None` if hardly any class is in more than one task."""
    if details.class_ids is None or details.outputs is None:
        return None
    ids, label = np.asarray(details.class_ids), np.asarray(details.y)
    counted, predicted = counted_of(details), np.asarray(details.outputs).argmax(axis=-1)
    task = np.nonzero(counted)[0]
    true, guessed = ids[task, label[counted]], ids[task, predicted[counted]]
    found = np.unique(np.concatenate([true, guessed]))
    present = [np.unique(row) for row in np.split(true, np.cumsum(counted.sum(axis=1))[:-1])]
    if 2 * len(found) > sum(map(len, present)):
        return None
    true, guessed = np.searchsorted(found, true), np.searchsorted(found, guessed)
    counts, together = np.zeros((2, len(found), len(found)), int)
    np.add.at(counts, (true, guessed), 1)
    for number, classes in enumerate(present):
        rows = true[task == number]
        columns = np.searchsorted(found, classes)
        np.add.at(together, (rows[:, None], columns[None]), 1)
    name = namer(sampler) or str
    return Confusion(tuple(name(number) for number in found.tolist()), counts, together)


def counted_of(details: Details) -> np.ndarray:
    """Returns which queries count, `[num_tasks, n]`."""
    return np.ones(np.shape(details.y), bool) if details.weight is None else np.asarray(details.weight) > 0


def probabilities_of(logits: Any) -> np.ndarray:
    """Returns the probabilities of classes, in float64."""
    logits = np.asarray(logits, np.float64)
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


def namer(sampler: Any) -> Callable[[int], str] | None:
    """Returns the function from the number of a class to its name, or `None` if the classes have no names."""
    names = tuple(getattr(sampler, "class_names", ()))

    def name(number: int) -> str:
        turns, base = divmod(number, len(names))
        return f"{names[base]} turned {90 * turns}°" if turns else names[base]

    return name if names else None


def shown_tasks(tasks: Any, tested: Tested, sampler: Any, bright: bool) -> list[ClassTask]:
    """Returns the first tasks of a test.

    Args:
        tasks: the tasks, stacked on the first axis.
        tested: the test, whose learner predicts.
        sampler: sampler of the test.
        bright: whether ink is bright in images.
    """
    number = len(tasks.query.y)
    parts = [jax.tree.map(lambda x, i=i: x[i], tasks) for i in range(number)]
    return [_shown(i, task, tested, namer(sampler), bright) for i, task in enumerate(parts)]


def _shown(number: int, task: Task, tested: Tested, names: Callable[[int], str] | None, bright: bool) -> ClassTask:
    details: Any = tested.details
    ids = None if details.class_ids is None else np.asarray(details.class_ids)[number]

    def name(label: int) -> str:
        return f"class {label + 1}" if names is None or ids is None else names(int(ids[label]))

    support: dict[str, list[bytes]] = {}
    for row in _chosen(task.support):
        picture = picture_of(task.support.x[row], bright)
        support.setdefault(name(int(task.support.y[row])), []).extend([] if picture is None else [picture])
    probabilities = probabilities_of(details.outputs[number])
    asked = []
    for row in _chosen(task.query):
        guess = int(probabilities[row].argmax())
        picture = picture_of(task.query.x[row], bright)
        asked.append(Query(picture, name(int(task.query.y[row])), name(guess), float(probabilities[row, guess])))
    return ClassTask(float(tested.metrics["accuracy"][number]), support, asked)


def _chosen(batch: Any) -> list[int]:
    """Returns rows of a batch, the first ones of each class, as many of each as there is room for."""
    y = np.asarray(batch.y)
    rows = np.arange(len(y)) if batch.weight is None else np.flatnonzero(np.asarray(batch.weight) > 0)
    labels = list(dict.fromkeys(y[rows].tolist()))[:_SHOWN]
    each = max(1, _SHOWN // max(1, len(labels)))
    return [int(row) for label in labels for row in rows[y[rows] == label][:each]]
