"""Runs that pre-train a network as a classifier of all training classes, and learners on its frozen features."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from jaxmeta import data
from jaxmeta._cost import Cost, cost
from jaxmeta._step import meta_step
from jaxmeta._types import Batch, MetaLearner, MetaParams, PyTree, Task, Training
from jaxmeta.algorithms import leo_params
from jaxmeta.catalog import LEARNERS, Settings, build_network, build_optimizer
from jaxmeta.reports import Findings, Tested, examine_tasks, test_on_tasks
from jaxmeta.runs._data import facts_of
from jaxmeta.runs._parts import at_precision
from jaxmeta.runs._task_run import network_of
from jaxmeta.training import (
    Callback,
    Minibatches,
    Trained,
    best_meta,
    measure_statistics,
    pretrain,
    pretrain_step,
    train,
)


class PretrainedParts(NamedTuple):
    """The parts of a run that pre-trains a network, and meta-trains a learner on its features if it can."""

    settings: Settings
    model: nn.Module
    learner: MetaLearner
    meta: MetaParams
    tasksets: data.BenchmarkTasksets
    batches: Minibatches
    start: PyTree
    """Initial variables of the network."""
    train_key: jax.Array
    test_key: jax.Array

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the data."""
        return facts_of(self.settings, self.tasksets)

    @property
    def on_features(self) -> bool:
        """Tells a learner that is meta-trained on features from one that only adapts."""
        return LEARNERS[self.settings.learner].trains_on == "features"

    @at_precision
    def train(
        self, folder: Path, mesh: Mesh | None, minutes: float | None, progress: bool, callbacks: Sequence[Callback]
    ) -> Trained:
        """Pre-trains the network, and then meta-trains the learner if it has meta-parameters of its own."""
        _check_one_device(self.settings, mesh)
        if not self.on_features:
            done = self._pretrain(folder, self.settings.iterations, progress, minutes, callbacks)
            return done._replace(meta=self.learner.init(done.meta))
        s = self.settings
        done = self._pretrain(folder / "pretraining", s.pretraining, progress)
        return train(
            self.learner,
            build_optimizer(s),
            self.meta._replace(state={"network": done.meta}),
            self.tasksets.train,
            jax.random.fold_in(self.train_key, 1),
            num_tasks=s.num_tasks,
            batch_size=s.batch_size or None,
            folder=folder,
            progress=progress,
            callback=callbacks,
            **self._schedule(s.iterations),
        )

    @at_precision
    def load(self, folder: Path) -> MetaParams:
        """Returns the best meta-parameters that a run has saved."""
        if self.on_features:
            return best_meta(folder, self.meta)
        params = best_meta(folder, {"params": self.start["params"]})
        return self.learner.init(self._with_statistics(params))

    @at_precision
    def untrained(self) -> MetaParams:
        """Returns the meta-parameters before the training, with the statistics of the untrained network."""
        return self.meta if self.on_features else self.learner.init(self._with_statistics(self.start))

    @at_precision
    def test(self, metas: Sequence[MetaParams], mesh: Mesh | None = None) -> list[Tested]:
        """Adapts each of some meta-parameters to tasks of the test split."""
        _check_one_device(self.settings, mesh)
        return test_on_tasks(self.settings, self.learner, metas, self.tasksets.test, self.test_key)

    @at_precision
    def examine(self, meta: MetaParams, tested: Tested, untrained: Tested) -> Findings:
        """Returns what a report shows beside the test."""
        sampler, bright = self.tasksets.test, bool(self.facts["invert"])
        return examine_tasks(self.settings, self.learner, None, meta, tested, untrained, sampler, self.test_key, bright)

    @at_precision
    def estimate(self, mesh: Mesh | None = None) -> Cost:
        """Compiles an update of the longer part of the training without running it."""
        _check_one_device(self.settings, mesh)
        s = self.settings
        if self.on_features:
            training: Training = meta_step(self.learner, build_optimizer(s), s.num_tasks)
            return cost(training.step, training.init(self.meta), self.train_key, self.tasksets.train)
        training = pretrain_step(self.model, build_optimizer(s))
        return cost(training.step, training.init(self.start), self.train_key, self.batches)

    def _pretrain(
        self,
        folder: Path,
        iterations: int,
        progress: bool,
        minutes: float | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Trained:
        own = optax.adam(optax.cosine_decay_schedule(1e-3, iterations))
        return pretrain(
            self.model,
            own if self.on_features else build_optimizer(self.settings),
            self.start,
            self.batches,
            self.train_key,
            minutes=minutes,
            learner=None if self.on_features else self.learner,
            folder=folder,
            progress=progress,
            callback=callbacks,
            **self._schedule(iterations),
        )

    def _schedule(self, iterations: int) -> dict[str, Any]:
        """Returns the options of a training of so many updates that both stages share."""
        s = self.settings
        validate_every = min(s.validate_every, iterations)
        return {
            "iterations": iterations,
            "validation": self.tasksets.validation,
            "validation_tasks": s.validation_tasks,
            "validate_every": validate_every,
            "log_every": math.gcd(validate_every, 50),
            "skip_nonfinite": s.skip_nonfinite,
        }

    def _with_statistics(self, params: PyTree) -> PyTree:
        statistics_key = jax.random.split(self.train_key, 3)[1]  # as in `pretrain`
        run = jax.jit(lambda params, batches: measure_statistics(self.model, params, batches, statistics_key))
        return run(params, self.batches)


def build(settings: Settings, read: Callable[[], data.BenchmarkTasksets]) -> PretrainedParts:
    """Makes the parts of a run that pre-trains a network, with the data that `read` returns."""
    s, entry, tasksets = settings, LEARNERS[settings.learner], read()
    source: Any = tasksets.train
    batches = Minibatches(source, s.minibatch)
    model = entry.model(s, build_network(s, batches.num_classes), batches.num_classes)
    learner: MetaLearner = entry.build(s, network_of(s, model))
    init_key, train_key, test_key = jax.random.split(jax.random.key(s.seed), 3)
    start = jax.jit(model.init)(init_key, batches.example)
    measure = partial(measure_statistics, model)
    if entry.trains_on == "features":
        features = partial(model.apply, method="features")
        size = jax.eval_shape(features, start, batches.example).shape[-1]
        learner = _on_frozen(learner, features)
        variables = measure(start, batches, init_key)
        meta = learner.init({"network": variables, "learner": leo_params(init_key, size, s.latents)})
    else:
        shapes = jax.eval_shape(measure, start, batches, init_key)  # the statistics are measured after the training
        meta = learner.init({**jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), **start})
    return PretrainedParts(s, model, learner, meta, tasksets, batches, start, train_key, test_key)


def _on_frozen(learner: MetaLearner, features: Any) -> MetaLearner:
    """A learner on the features of a frozen network, scaled to length 1.

    It starts from `{"network": variables, "learner": parameters}`. The network is state, which nothing trains.
    """

    def represent(variables: PyTree, batch: Batch) -> Batch:
        x = features(jax.lax.stop_gradient(variables), batch.x)
        return batch._replace(x=x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-8))

    def init(params: PyTree) -> MetaParams:
        return learner.init(params["learner"])._replace(state={"network": params["network"]})

    def own(meta: MetaParams) -> MetaParams:
        return meta._replace(state=())

    def adapt(meta: MetaParams, support: Batch, key: jax.Array) -> Any:
        variables = meta.state["network"]
        return variables, learner.adapt(own(meta), represent(variables, support), key)

    def loss(adapted: Any, batch: Batch, key: jax.Array) -> Any:
        variables, rest = adapted
        return learner.loss(rest, represent(variables, batch), key)

    def grad(meta: MetaParams, task: Task, key: jax.Array) -> Any:
        variables = meta.state["network"]
        metrics, found = learner.grad(own(meta), Task(*(represent(variables, part) for part in task)), key)
        return metrics, found._replace(state=meta.state)

    def predict(adapted: Any, x: Any) -> Any:
        variables, rest = adapted
        return learner.predict(rest, represent(variables, Batch(x, None)).x)

    return MetaLearner(init, adapt, loss, grad, predict)


def _check_one_device(s: Settings, mesh: Mesh | None) -> None:
    if mesh is not None:
        raise ValueError(f"several devices do not apply to {s.learner}, whose network is pre-trained on one")
