"""Few-shot tasks in a report: confusions of classes, and the first tasks of a test."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmeta._types import Queries, Sampler
from jaxmeta.reports._findings import ClassTask, Confusion, Query
from jaxmeta.reports._pictures import picture_of

_SHOWN = 20  # pictures of support or query examples of a task


def confusion_of(queries: Queries, sampler: Any) -> Confusion | None:
    """Returns the confusions of all tasks, or `None` if hardly any class is in more than one task."""
    if queries.class_ids is None:
        return None
    ids = np.asarray(queries.class_ids)
    counted, label, predicted = _answers(queries)
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
    name = namer(sampler)
    return Confusion(tuple(name(number) for number in found.tolist()), counts, together)


def _answers(queries: Queries) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns which queries count, their labels, and the predicted labels, each `[num_tasks, n]`."""
    label, predicted = np.asarray(queries.y), np.asarray(queries.outputs).argmax(axis=-1)
    return np.ones(label.shape, bool) if queries.weight is None else np.asarray(queries.weight) > 0, label, predicted


def namer(sampler: Any) -> Callable[[int], str]:
    """Returns the function from the number of a class to its name."""
    names = tuple(getattr(sampler, "class_names", ()))

    def name(number: int) -> str:
        if not names:
            return f"class {number}"
        turns, base = divmod(number, len(names))
        return f"{names[base]} turned {90 * turns}°" if turns else names[base]

    return name


def shown_tasks(queries: Queries, accuracies: Any, sampler: Sampler, key: jax.Array, bright: bool) -> list[ClassTask]:
    """Returns the first tasks of a test, as many as there are accuracies.

    Args:
        queries: predictions of the test.
        accuracies: accuracy in each of the tasks.
        sampler: sampler of the test.
        key: key of the test.
        bright: whether ink is bright in images.
    """
    return [_shown(number, queries, float(a), sampler, key, bright) for number, a in enumerate(accuracies)]


def _shown(number: int, queries: Queries, accuracy: float, sampler: Any, key: jax.Array, bright: bool) -> ClassTask:
    num_tasks = len(queries.y)
    task = jax.device_get(sampler(jax.random.split(jax.random.split(key, num_tasks)[number], 3)[0]))
    ids = None if queries.class_ids is None else np.asarray(queries.class_ids)[number]
    recurring = bool(getattr(sampler, "class_names", ()))
    names = namer(sampler)

    def name(label: int) -> str:
        return names(int(ids[label])) if ids is not None and recurring else f"class {label + 1}"

    support: dict[str, list[bytes]] = {}
    for row in _chosen(task.support):
        picture = picture_of(task.support.x[row], bright)
        support.setdefault(name(int(task.support.y[row])), []).extend([] if picture is None else [picture])
    logits = np.asarray(queries.outputs, np.float64)[number]
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = odds / odds.sum(axis=-1, keepdims=True)
    asked = []
    for row in _chosen(task.query):
        guess = int(probabilities[row].argmax())
        picture = picture_of(task.query.x[row], bright)
        asked.append(Query(picture, name(int(task.query.y[row])), name(guess), float(probabilities[row, guess])))
    return ClassTask(accuracy, support, asked)


def _chosen(batch: Any) -> list[int]:
    """Returns rows of a batch, the first ones of each class, as many of each as there is room for."""
    y = np.asarray(batch.y)
    rows = np.arange(len(y)) if batch.weight is None else np.flatnonzero(np.asarray(batch.weight) > 0)
    labels = list(dict.fromkeys(y[rows].tolist()))[:_SHOWN]
    each = max(1, _SHOWN // max(1, len(labels)))
    return [int(row) for label in labels for row in rows[y[rows] == label][:each]]
