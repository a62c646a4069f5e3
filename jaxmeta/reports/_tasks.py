"""Findings on tasks of few-shot learning and regression: floors, adaptation step by step, and the first tasks."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._step import evaluate
from jaxmeta._summary import Summary, summarize
from jaxmeta._types import MetaLearner, MetaParams, Sampler, call_adapted
from jaxmeta.algorithms import protonet
from jaxmeta.catalog import Settings
from jaxmeta.data import Harmonic, Linear, Sinusoid
from jaxmeta.losses import regression
from jaxmeta.reports._classes import confusion_of, shown_tasks
from jaxmeta.reports._findings import Findings, Fit, Step, Tested

_SHOWN = 3  # tasks
_STEPS = (0, 1, 2, 3, 5, 10, 20, 50)  # rows of the table of adaptation, until the last step


def can_predict(learner: MetaLearner, meta: MetaParams, sampler: Sampler) -> bool:
    """Tells whether a learner knows its model, so that it has predictions beside its loss."""
    if learner.predict is not call_adapted:
        return True
    key = jax.random.key(0)
    return callable(jax.eval_shape(lambda meta, task: learner.adapt(meta, task.support, key), meta, sampler(key)))


def examine_tasks(
    settings: Settings,
    learner_at: Callable[[int], MetaLearner] | None,
    learner: MetaLearner,
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
        learner_at: maps a number of inner steps to the learner that takes so many. `None` if it takes none.
        learner: the learner as it was tested.
        meta: the meta-parameters that were tested.
        tested: the test.
        untrained: the same test of the initial meta-parameters.
        sampler: sampler of the test.
        key: key of the test.
        bright: whether ink is bright in images.
    """
    meta = jax.device_get(meta)

    def measure(learner: MetaLearner, meta: MetaParams) -> dict[str, Summary]:
        run = jax.jit(evaluate(learner, settings.test_tasks, batch_size=settings.batch_size or None))
        return summarize(run(meta, sampler, key))

    steps = []
    if learner_at is not None:
        last = settings.test_steps
        steps = [Step(k, measure(learner_at(k), meta)) for k in _STEPS if k < last] + [Step(last, tested.summaries)]
    name, simple = _simple(settings)
    floors: dict[str, Mapping[str, Summary]] = {name: measure(simple, simple.init({}))}
    floors["the same learner before training"] = untrained.summaries
    if settings.kind == "regression":
        before = None if learner_at is None else learner_at(0)
        return Findings(floors, steps, fits=_fits(before, learner, meta, sampler, key, len(tested.metrics["loss"])))
    queries = tested.queries
    if queries is None:
        return Findings(floors, steps)
    shown = shown_tasks(queries, np.asarray(tested.metrics["accuracy"])[:_SHOWN], sampler, key, bright)
    return Findings(floors, steps, confusion_of(queries, sampler), shown)


def _simple(settings: Settings) -> tuple[str, MetaLearner]:
    """Returns a learner without parameters, and what it does."""
    if settings.kind != "regression":
        flat = protonet(lambda params, x: jnp.reshape(x, (x.shape[0], -1)), settings.ways)
        return "nearest class mean of the raw inputs", flat
    loss = regression(lambda mean, x: jnp.broadcast_to(mean, (x.shape[0], *mean.shape[1:])))

    def adapt(meta: MetaParams, support: Any, key: jax.Array) -> jax.Array:
        return jnp.mean(support.y, axis=0, keepdims=True)

    learner = MetaLearner(MetaParams, adapt, loss.test, lambda meta, task, key: ({}, meta))
    return "mean of the support targets", learner


def _fits(
    before: MetaLearner | None, after: MetaLearner, meta: MetaParams, sampler: Any, key: jax.Array, num_tasks: int
) -> list[Fit]:
    """Returns the curves of the first tasks, if their inputs and targets are single numbers."""
    if isinstance(sampler, Sinusoid | Harmonic | Linear):
        sampler = dataclasses.replace(sampler, queries=200)  # a picture of the target needs more than ten points
    learners = {"before adaptation": before, "after adaptation": after}
    fits = []
    for task_key in jax.random.split(key, num_tasks)[:_SHOWN]:
        draw_key, adapt_key, _ = jax.random.split(task_key, 3)
        task = sampler(draw_key)
        if any(part.shape[1:] != (1,) for part in (task.support.x, task.support.y)):
            return []
        (x, y), (query_x, query_y) = (tuple(np.asarray(part)[:, 0] for part in batch[:2]) for batch in task)
        grid = np.linspace(min(x.min(), query_x.min()), max(x.max(), query_x.max()), 200, dtype=np.float32)
        curves = {}
        for name, learner in learners.items():
            if learner is not None and can_predict(learner, meta, sampler):
                run = jax.jit(lambda meta, s, k, g, use=learner: use.predict(use.adapt(meta, s, k), g))
                curves[name] = np.asarray(run(meta, task.support, adapt_key, grid[:, None]))[:, 0]
        order = np.argsort(query_x)
        fits.append(Fit((x, y), (query_x[order], query_y[order]), grid, curves))
    return fits
