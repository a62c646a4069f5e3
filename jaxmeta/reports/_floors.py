"""The simplest learner for a kind of task, which is measured beside another one on the same tasks."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta._types import Batch, MetaLearner, MetaParams, Metrics, Task, predictions_of, with_loss
from jaxmeta.algorithms import protonet
from jaxmeta.catalog import Settings
from jaxmeta.losses import regression, weighted_mean

PREFIX = "floor "
"""Start of the names of the metrics of the simplest learner."""


def floor_name(settings: Settings) -> str:
    """Returns what the simplest learner predicts."""
    return "mean of the support targets" if settings.kind == "regression" else "nearest class mean of the raw inputs"


def beside_floor(learner: MetaLearner, settings: Settings) -> MetaLearner:
    """Returns a learner with the metrics of the simplest one beside its own, from the same draws of the tasks."""
    simple = _mean_of_targets() if settings.kind == "regression" else _nearest_mean(settings.ways)
    nothing = simple.init({})

    def floor(support: Any, batch: Any, key: jax.Array) -> Metrics:
        found = with_loss(*simple.loss(simple.adapt(nothing, support, key), batch, key))
        return {PREFIX + name: value for name, value in found.items()}

    def adapt(meta: MetaParams, support: Any, key: jax.Array) -> Any:
        return learner.adapt(meta, support, key), support

    def loss(adapted: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, Metrics]:
        own, support = adapted
        value, metrics = learner.loss(own, batch, key)
        return value, metrics | floor(support, batch, key)

    def follow(meta: MetaParams, task: Task, adapt_key: jax.Array, loss_key: jax.Array) -> tuple[Any, Metrics]:
        assert learner.follow is not None
        own, metrics = learner.follow(meta, task, adapt_key, loss_key)
        fixed = floor(task.support, task.query, loss_key)
        return (own, task.support), metrics | jax.tree.map(lambda x: jnp.full(metrics["loss"].shape, x), fixed)

    def predict(adapted: Any, x: Any) -> Any:
        return predictions_of(learner, adapted[0], Batch(x, None))

    return MetaLearner(learner.init, adapt, loss, learner.grad, predict, None if learner.follow is None else follow)


def _nearest_mean(ways: int) -> MetaLearner:
    return protonet(lambda params, x: jnp.reshape(x, (x.shape[0], -1)), ways)


def _mean_of_targets() -> MetaLearner:
    loss = regression(lambda mean, x: jnp.broadcast_to(mean, (x.shape[0], *mean.shape[1:])))

    def adapt(meta: MetaParams, support: Any, key: jax.Array) -> jax.Array:
        return weighted_mean(support.y, support.weight, 0)[None]

    return MetaLearner(MetaParams, adapt, loss.test, lambda meta, task, key: ({}, meta))
