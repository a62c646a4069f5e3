"""Runs on few-shot tasks and regression: the parts of an `Experiment` on a benchmark."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from jaxmeta import data
from jaxmeta._cost import Cost, cost
from jaxmeta._parallel import replicate
from jaxmeta._step import meta_step
from jaxmeta._types import LossFn, MetaLearner, MetaParams, PyTree, Sampler, at_least_float32
from jaxmeta.algorithms import Contextual
from jaxmeta.catalog import LEARNERS, Network, Settings, build_network, clipped, outer_schedule
from jaxmeta.losses import classification, regression
from jaxmeta.reports import Findings, Tested, examine_tasks, test_on_tasks
from jaxmeta.runs._data import facts_of
from jaxmeta.runs._parts import Parts, at_precision
from jaxmeta.training import Callback, Trained, at_first, best_meta, train, train_many


def _crop(key: jax.Array, images: jax.Array) -> jax.Array:
    return data.random_crop(key, images, padding=max(1, images.shape[1] // 8))


def _flip(key: jax.Array, images: jax.Array) -> jax.Array:
    crop_key, flip_key = jax.random.split(key)
    return data.random_flip(flip_key, _crop(crop_key, images))


def _color(key: jax.Array, images: jax.Array) -> jax.Array:
    flip_key, color_key = jax.random.split(key)
    return data.color_jitter(color_key, _flip(flip_key, images))


TRACED = ("inner_rate", "outer_rate", "head_rate", "proximal")
"""Options whose values may be traced numbers, so that runs with different ones are one program."""
_DRAWS = 2000  # tasks from whose targets bars are made
_AUGMENTATIONS = {"crop": _crop, "flip": _flip, "color": _color}


class TaskParts(NamedTuple):
    """The parts of a run that meta-trains on tasks."""

    settings: Settings
    model: nn.Module
    learner: MetaLearner
    learner_at: MetaLearner | Callable[[jax.Array], MetaLearner]
    """The learner that `train` takes: one that may change in training."""
    optimizer: optax.GradientTransformation
    tasksets: data.BenchmarkTasksets
    meta: MetaParams
    train_key: jax.Array
    test_key: jax.Array

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the data."""
        return facts_of(self.settings, self.tasksets)

    @at_precision
    def train(
        self, folder: Path, mesh: Mesh | None, minutes: float | None, progress: bool, callbacks: Sequence[Callback]
    ) -> Trained:
        """Meta-trains."""
        options = self._training_options(minutes, progress) | {"mesh": mesh, "folder": folder, "callback": callbacks}
        return train(self.learner_at, self.optimizer, self.meta, self.tasksets.train, self.train_key, **options)

    @at_precision
    def train_with(
        self,
        others: Sequence["TaskParts"],
        folders: Sequence[Path],
        minutes: float | None,
        progress: bool,
        callbacks: Sequence[Sequence[Callback]],
    ) -> list[Trained | FloatingPointError]:
        """Meta-trains in one program with runs on the same data that differ by the seed and by `TRACED` options."""
        runs = [self, *others]
        differ = [name for name in TRACED if len({run.settings.get(name) for run in runs}) > 1]

        def build_at(point: dict[str, Any]) -> tuple[Any, optax.GradientTransformation]:
            s = Settings(self.settings.kind, {**self.settings, **point})
            return _learner_of(s)[1], _optimizer_of(s)

        return train_many(
            build_at,
            [{name: run.settings[name] for name in differ} for run in runs],
            [run.meta for run in runs],
            self.tasksets.train,
            [run.train_key for run in runs],
            folders=folders,
            callbacks=callbacks,
            **self._training_options(minutes, progress),
        )

    def _training_options(self, minutes: float | None, progress: bool) -> dict[str, Any]:
        s = self.settings
        validate_every = min(s.validate_every, s.iterations)
        return {
            "iterations": s.iterations,
            "minutes": minutes,
            "num_tasks": s.num_tasks,
            "batch_size": s.batch_size or None,
            "validation": self.tasksets.validation,
            "validation_tasks": s.validation_tasks,
            "validate_every": validate_every,
            "log_every": math.gcd(validate_every, 50),
            "skip_nonfinite": s.skip_nonfinite,
            "progress": progress,
        }

    def load(self, folder: Path) -> MetaParams:
        """Returns the best meta-parameters that a run has saved."""
        return best_meta(folder, self.meta)

    def untrained(self) -> MetaParams:
        """Returns the meta-parameters before the training."""
        return self.meta

    @at_precision
    def test(self, metas: Sequence[MetaParams], mesh: Mesh | None = None) -> list[Tested]:
        """Adapts each of some meta-parameters to tasks of the test split."""
        return test_on_tasks(self.settings, self.learner, metas, self.tasksets.test, self.test_key, mesh)

    @at_precision
    def examine(self, meta: MetaParams, tested: Tested, untrained: Tested) -> Findings:
        """Returns what a report shows beside the test."""
        s = self.settings
        before = at_first(_learner_of(Settings(s.kind, {**s, "test_steps": 0}))[1]) if "test_steps" in s else None
        sampler, bright = self.tasksets.test, bool(self.facts["invert"])
        return examine_tasks(s, self.learner, before, meta, tested, untrained, sampler, self.test_key, bright)

    @at_precision
    def estimate(self, mesh: Mesh | None = None) -> Cost:
        """Compiles an outer update without running it."""
        s = self.settings
        training = meta_step(self.learner, self.optimizer, s.num_tasks, batch_size=s.batch_size or None, mesh=mesh)
        args = training.init(self.meta), self.train_key, self.tasksets.train
        return cost(training.step, *replicate(args, mesh))


def build(settings: Settings, read: Callable[[], data.BenchmarkTasksets]) -> Parts:
    """Makes the parts of a run on a benchmark, whose data `read` returns."""
    s, entry = settings, LEARNERS[settings.learner]
    model, learner_at = _learner_of(s)
    tasksets = read()
    if (fitted := _fitted(s, tasksets)) != s:
        s = fitted
        model, learner_at = _learner_of(s)
    learner = at_first(learner_at)
    if s.get("augment", "none") != "none":
        tasksets = tasksets._replace(train=data.Augmented(tasksets.train, (data.Augment(_AUGMENTATIONS[s.augment]),)))
    if entry.trains_on == "streams" and s.kind != "regression":
        tasksets = data.BenchmarkTasksets(*(data.Streams(sampler, s.ways) for sampler in tasksets))
    init_key, train_key, test_key = jax.random.split(jax.random.key(s.seed), 3)
    given = [jnp.zeros(s.context_size)] if "context_size" in s else []
    given += [_targets(tasksets.train, init_key)] if "bars" in s else []
    meta = learner.init(jax.jit(model.init)(init_key, tasksets.train.example, *given))
    return TaskParts(s, model, learner, learner_at, _optimizer_of(s), tasksets, meta, train_key, test_key)


def _targets(sampler: Sampler, key: jax.Array) -> jax.Array:
    """Returns the query targets of many tasks, as floats, for what a model must know of them before the training."""
    keys = jax.random.split(jax.random.fold_in(key, 1), _DRAWS)
    query = jax.jit(lambda sampler, keys: jax.vmap(sampler)(keys).query)(sampler, keys)
    counted = query.y if query.weight is None else query.y[query.weight > 0]
    return jnp.asarray(counted, jnp.promote_types(counted.dtype, jnp.float32))


def _learner_of(s: Settings) -> tuple[nn.Module, Any]:
    """Returns the model and the learner, which may be a function of the update."""
    entry, ways = LEARNERS[s.learner], 1 if s.kind == "regression" else s.get("train_ways", s.get("ways"))
    model = entry.model(s, build_network(s, ways) if entry.has_network else None, ways)
    return model, entry.build(s, network_of(s, model))


def _optimizer_of(s: Settings) -> optax.GradientTransformation:
    return clipped(s, LEARNERS[s.learner].optimizer(outer_schedule(s)))


def _fitted(s: Settings, tasksets: data.BenchmarkTasksets) -> Settings:
    """Returns settings whose `train_ways` are those of the training tasks, which have at most all training classes."""
    ways = getattr(tasksets.train, "ways", None)
    return Settings(s.kind, {**s, "train_ways": ways}) if "train_ways" in s and isinstance(ways, int) else s


def network_of(s: Settings, model: nn.Module) -> Network:
    """Returns what a learner needs of the model."""
    make_loss: Callable[..., LossFn] = regression if s.kind == "regression" else classification

    def forward(params: PyTree, x: jax.Array) -> Any:
        if isinstance(params, Contextual):
            return model.apply(params.params, x, params.context)
        return model.apply(params, x)

    def method(name: str) -> Any:
        return lambda *args, **options: at_least_float32(model.apply(*args, method=name, **options))

    def head(params: PyTree, features: jax.Array) -> Any:
        return model.apply(params, features, method=lambda module, x: module.head(x))

    def train_features(params: PyTree, x: jax.Array, key: jax.Array) -> Any:
        return method("features")(params, x, rngs={"dropout": key})

    dropped = train_features if s.get("drop_rate") else None
    return Network(model, make_loss(forward), make_loss(head), dropped, method)
