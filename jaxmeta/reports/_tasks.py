"""Tests on tasks of few-shot learning and regression, and what a report says of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmeta._parallel import replicate
from jaxmeta._step import evaluate
from jaxmeta._summary import Summary, summarize
from jaxmeta._types import MetaLearner, MetaParams, Sampler
from jaxmeta.catalog import Settings
from jaxmeta.data import GaussianProcess, Harmonic, Linear, Sinusoid
from jaxmeta.reports._classes import confusion_of, shown_tasks
from jaxmeta.reports._findings import Findings, Fit, Step, Tested
from jaxmeta.reports._floors import PREFIX, beside_floor, floor_name

_SHOWN = 3  # tasks
_STEPS = (0, 1, 2, 3, 5, 10, 20, 50)  # rows of the table of adaptation, beside the last step


def test_on_tasks(
    settings: Settings,
    learner: MetaLearner,
    metas: Sequence[MetaParams],
    sampler: Sampler,
    key: jax.Array,
    mesh: Mesh | None = None,
) -> list[Tested]:
    """Adapts each of some meta-parameters to the same tasks, with one program."""
    both, size = beside_floor(learner, settings), settings.batch_size or None
    run = jax.jit(evaluate(both, settings.test_tasks, details=True, batch_size=size, mesh=mesh))
    found = []
    for meta in metas:
        metrics, details = jax.device_get(run(*replicate((meta, sampler, key), mesh)))
        floor = {name.removeprefix(PREFIX): values for name, values in metrics.items() if name.startswith(PREFIX)}
        own = {name: values for name, values in metrics.items() if not name.startswith(PREFIX)}
        found.append(Tested(own, details, floor))
    return found


def examine_tasks(
    settings: Settings,
    learner: MetaLearner,
    before: MetaLearner | None,
    meta: MetaParams,
    tested: Tested,
    untrained: Tested,
    sampler: Sampler,
    key: jax.Array,
    bright: bool,
) -> Findings:
    """Returns what a report says of a learner on test tasks.

    Args:
        settings: settings of the run.
        learner: the learner as it was tested.
        before: the learner that takes no inner step, or `None` for learners without inner steps.
        meta: the meta-parameters that were tested.
        tested: the test.
        untrained: the same test of the initial meta-parameters.
        sampler: sampler of the test.
        key: key of the test.
        bright: whether ink is bright in images.
    """
    details: Any = tested.details
    floors: dict[str, Mapping[str, Summary]] = {
        floor_name(settings): summarize(tested.floor),
        "the same learner before training": untrained.summaries,
    }
    steps = [] if details.steps is None else _steps(details.steps, list(tested.metrics))
    if details.outputs is None:
        return Findings(floors, steps)
    first = jax.random.split(key, settings.test_tasks)[:_SHOWN]
    if settings.kind == "regression":
        learners = {"before adaptation": before, "after adaptation": learner}
        return Findings(floors, steps, fits=_fits(learners, jax.device_get(meta), sampler, first))
    draw_keys = jax.vmap(lambda key: jax.random.split(key, 3)[0])(first)
    tasks = jax.device_get(_draw(sampler, draw_keys))
    return Findings(floors, steps, confusion_of(details, sampler), shown_tasks(tasks, tested, sampler, bright))


def _draw(sampler: Sampler, keys: jax.Array) -> Any:
    """Draws a few tasks, by a program that takes little time to compile because it runs once."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(lambda sampler, keys: jax.lax.map(sampler, keys), compiler_options=options)(sampler, keys)


def _steps(values: Mapping[str, np.ndarray], names: Sequence[str]) -> list[Step]:
    """Returns the rows of the table of adaptation, from metrics `[num_tasks, steps + 1]`."""
    last = values["loss"].shape[1] - 1
    numbers = [number for number in _STEPS if number < last] + [last]
    return [Step(number, summarize({name: values[name][:, number] for name in names})) for number in numbers]


def _fits(learners: Mapping[str, MetaLearner | None], meta: MetaParams, sampler: Any, keys: jax.Array) -> list[Fit]:
    """Returns the curves of some tasks, if their inputs and targets are single numbers."""
    if isinstance(sampler, Sinusoid | Harmonic | Linear | GaussianProcess):
        sampler = dataclasses.replace(sampler, queries=200)  # a picture of the target needs more than ten points
    runs = {name: jax.jit(partial(_predict, learner)) for name, learner in learners.items() if learner is not None}
    fits = []
    for key in keys:
        draw_key, adapt_key, _ = jax.random.split(key, 3)
        task = sampler(draw_key)
        if any(part.shape[1:] != (1,) for part in (task.support.x, task.support.y)):
            return []
        (x, y), (query_x, query_y) = (_counted(batch) for batch in task)
        seen = np.concatenate([x, query_x])
        grid = np.linspace(seen.min(), seen.max(), 200, dtype=np.float32)
        args = meta, task.support, adapt_key, grid[:, None]
        curves = {name: np.asarray(run(*args))[:, 0] for name, run in runs.items()}
        order = np.argsort(query_x)
        fits.append(Fit((x, y), (query_x[order], query_y[order]), grid, curves))
    return fits


def _counted(batch: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the inputs and targets of a batch of single numbers, without padding."""
    keep = slice(None) if batch.weight is None else np.asarray(batch.weight) > 0
    return np.asarray(batch.x)[keep, 0], np.asarray(batch.y)[keep, 0]


def _predict(learner: MetaLearner, meta: MetaParams, support: Any, key: jax.Array, x: Any) -> Any:
    """Returns the predictions after adaptation, of a distribution the mean."""
    found = learner.predict(learner.adapt(meta, support, key), x)
    return getattr(found, "mean", found[0]) if isinstance(found, tuple) else found
