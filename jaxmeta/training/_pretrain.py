"""Supervised pre-training: one classifier of all base classes, measured by few-shot tasks."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import nnx, struct

from jaxmeta._checks import check_integer, check_transformation, labels_of
from jaxmeta._learned import update_with
from jaxmeta._step import evaluate
from jaxmeta._summary import summarize
from jaxmeta._types import (
    Batch,
    MetaLearner,
    MetaParams,
    Metrics,
    PyTree,
    Sampler,
    Training,
    TrainingState,
    check_batch,
    definite,
    with_loss,
)
from jaxmeta._variables import carried_like, merge, split
from jaxmeta.algorithms import simpleshot
from jaxmeta.data import ExampleIndex, FewShot
from jaxmeta.display import brief, short_repr
from jaxmeta.losses import classification, has_modes, train_pass
from jaxmeta.models import with_batch_stats
from jaxmeta.training._callback import Callback
from jaxmeta.training._course import Validate
from jaxmeta.training._loop import Trained, loop

Augmentation = Callable[[jax.Array, jax.Array], jax.Array]
"""`(key, x [n, ...]) -> x [n, ...]`."""


@struct.dataclass
class Minibatches:
    """Minibatches of all classes of a few-shot data set, drawn on the device: every example equally likely.

    Examples are drawn with replacement. A class is a row of the table; with rotations, each turn of it is a class.

    Attributes:
        source: the data, whose task sizes play no role.
        size: examples per minibatch.

    Example:
        >>> import numpy as np
        >>> source = FewShot.from_classes(np.zeros((30, 20, 8, 8, 1)), rotations=4)
        >>> batches = Minibatches(source, 64)
        >>> batch = batches(jax.random.key(0))
        >>> batch.x.shape, batch.y.shape, batches.num_classes
        ((64, 8, 8, 1), (64,), 120)
    """

    source: FewShot
    size: int = struct.field(pytree_node=False, default=64)

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_integer(size=self.size)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.source.num_classes

    @property
    def example(self) -> jax.Array:
        """One input of zeros, for `model.init`: `[1, ...]`."""
        return self.source.example

    def __call__(self, key: jax.Array) -> Batch:
        """Draws one minibatch.

        Args:
            key: a random key.

        Returns:
            Inputs `x: [size, ...]` and classes `y: [size]`, int32 in [0, num_classes).
        """
        if not isinstance(self.source, FewShot):
            raise TypeError(f"source must be a FewShot sampler, got {brief(self.source)}")
        key_place, key_turn = jax.random.split(key)
        counts = self.source.counts
        ends = jnp.cumsum(counts)
        place = jax.random.randint(key_place, (self.size,), 0, ends[-1])
        classes = jnp.searchsorted(ends, place, side="right")
        rows = self.source.rows[place]
        turns = jax.random.randint(key_turn, (self.size,), 0, self.source.rotations)
        y = turns * counts.shape[0] + classes
        return Batch(self.source.gather(ExampleIndex(rows, turns)), y.astype(jnp.int32))


def pretrain_step(
    model: nn.Module | nnx.Module, optimizer: optax.GradientTransformation, augment: Augmentation | None = None
) -> Training:
    """Builds one update of supervised pre-training: a minibatch, cross-entropy over all its classes, an optimizer step.

    Args:
        model: a classifier of all base classes.
        optimizer: any optax optimizer of the parameters.
        augment: changes the inputs of a minibatch: `(key, x [n, ...]) -> x [n, ...]`.

    Returns:
        A `Training`. Its `init(variables)` drops statistics of batch norm if the model does not tell training from
        test, so that the minibatch's own are used. Its
        `step(state, key, batches)` takes a function `(key) -> Batch` such as `Minibatches`.

    Raises:
        TypeError: if `optimizer` is not an optax transformation.
    """
    check_transformation(optimizer=optimizer)
    loss_fn, measured = classification(model), not has_modes(model)

    def init(variables: PyTree, key: jax.Array | None = None) -> TrainingState:
        del key
        if measured:
            variables = {"params": variables["params"]}
        trained, carried = split(variables)
        trained = definite(trained)
        return TrainingState(merge(trained, carried), optimizer.init(trained), jnp.int32(0))

    def step(
        state: TrainingState, key: jax.Array, batches: Callable[[jax.Array], Batch]
    ) -> tuple[TrainingState, Metrics]:
        batch_key, augment_key, dropout_key = jax.random.split(key, 3)
        batch = batches(batch_key)
        check_batch(batch)
        if augment is not None:
            batch = batch._replace(x=augment(augment_key, batch.x))
        trained, carried = split(state.meta)

        def objective(trained: PyTree) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
            with labels_of((batch,), batches):
                loss, metrics, variables = train_pass(loss_fn, merge(trained, carried), batch, dropout_key)
            return loss, (metrics, carried_like(carried, variables))

        (loss, (metrics, after)), grads = jax.value_and_grad(objective, has_aux=True)(trained)
        trained, opt_state = update_with(
            optimizer, grads, state.opt_state, trained, value=loss, value_fn=lambda trained: objective(trained)[0]
        )
        return TrainingState(merge(trained, after), opt_state, state.update + 1), with_loss(loss, metrics)

    return Training(init, step)


def pretrain(
    model: nn.Module | nnx.Module,
    optimizer: optax.GradientTransformation,
    params: PyTree,
    batches: Callable[[jax.Array], Batch],
    key: jax.Array,
    *,
    iterations: int,
    minutes: float | None = None,
    augment: Augmentation | None = None,
    validation: Sampler | None = None,
    learner: MetaLearner | None = None,
    validation_tasks: int = 200,
    statistics_batches: int = 20,
    validate_every: int = 500,
    log_every: int = 50,
    skip_nonfinite: bool = False,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
    callback: Callback | Sequence[Callback] = (),
) -> Trained:
    """Trains a model to tell all base classes apart, by `loop`: compiled chunks, checkpoints, resume.

    The first stage of the Baselines, of SimpleShot and of Meta-Baseline. Each update is a minibatch's cross-entropy;
    dropout is active, batch norm takes the minibatch's statistics. Validation is few-shot: by default how well the
    nearest centroid of the features, scaled to length 1 (`simpleshot`), classifies new classes.

    Args:
        model: a Linen or NNX module that returns logits `[n, classes]`, with as many outputs as there are classes. The
            default validation takes its method `features`, or its logits if it has none. A module that tells training
            from test has running statistics of its own. Those of the other ones are measured after training.
        optimizer: any optax optimizer of `params`.
        params: initial parameters, from `model.init`.
        batches: draws one minibatch from a key: `Minibatches`, or any other pytree that is called so.
        key: root of all randomness.
        iterations: number of updates.
        minutes: the time after which training ends before them, see `loop`; `None` for no limit.
        augment: `(key, x) -> x`, applied to each training minibatch.
        validation: sampler of few-shot tasks; `None` for no validation.
        learner: what is measured on them; its model parameters are the variables of `model`. `None` for the nearest
            centroid, with as many ways as `validation.ways`.
        validation_tasks: tasks per validation, the same ones every time.
        statistics_batches: minibatches from which the statistics of batch norm are measured after training, and for
            every validation.
        validate_every: see `loop`, here and below.
        log_every: updates per record.
        skip_nonfinite: skip an update that is not finite, see `loop`.
        folder: where to keep metrics and checkpoints.
        progress: show a progress bar.
        callback: `(record) -> None`, or several of them, called with each record, see `loop`.

    Returns:
        The trained variables and the history; `learner.init(variables)` makes them the parameters of a learner.

    Raises:
        TypeError: if `optimizer` is not an optax transformation.
        ValueError: if a number is out of range, `learner` is given without `validation`, or is needed; as `loop`.
        FloatingPointError: as `loop`.

    Example:
        >>> import numpy as np
        >>> from jaxmeta import models
        >>> images = np.random.default_rng(0).normal(size=(10, 8, 4, 4, 1)).astype(np.float32)
        >>> source = FewShot.from_classes(images, ways=3, queries=2)
        >>> batches, model = Minibatches(source, 16), models.OmniglotFC(ways=10, sizes=(8,))
        >>> done = pretrain(model, optax.adam(1e-2), model.init(jax.random.key(0), batches.example), batches,
        ...                 jax.random.key(1), iterations=4, validation=source, validation_tasks=5, validate_every=2,
        ...                 log_every=2, progress=False)
        >>> sorted(done.meta), [record["step"] for record in done.history]
        (['batch_stats', 'params'], [0, 2, 4])

    References:
        Chen et al., *A Closer Look at Few-shot Classification*, ICLR 2019, https://arxiv.org/abs/1904.04232
        Wang et al., *SimpleShot*, 2019, https://arxiv.org/abs/1911.04623
        Chen et al., *Meta-Baseline: Exploring Simple Meta-Learning for Few-Shot Learning*, ICCV 2021,
        https://arxiv.org/abs/2003.04390
    """
    training = pretrain_step(model, optimizer, augment)
    check_integer(validation_tasks=validation_tasks, statistics_batches=statistics_batches)
    train_key, statistics_key, validation_key = jax.random.split(key, 3)

    def finish(params: PyTree, batches: Any) -> PyTree:
        if isinstance(model, nnx.Module) or has_modes(model):
            return params
        return measure_statistics(model, params, batches, statistics_key, statistics_batches)

    validate = _validator(model, finish, batches, validation, learner, validation_tasks, validation_key)
    done = loop(
        training,
        params,
        train_key,
        batches,
        iterations=iterations,
        minutes=minutes,
        validate=validate,
        validate_every=validate_every,
        log_every=log_every,
        skip_nonfinite=skip_nonfinite,
        folder=folder,
        progress=progress,
        callback=callback,
    )
    return done._replace(meta=jax.jit(finish)(done.meta, batches))


def measure_statistics(
    model: nn.Module, params: PyTree, batches: Callable[[jax.Array], Batch], key: jax.Array, number: int = 20
) -> PyTree:
    """Returns the variables of a model with statistics of batch norm measured on some minibatches."""
    return with_batch_stats(model, params, jax.vmap(lambda key: batches(key).x)(jax.random.split(key, number)))


def _validator(
    model: nn.Module | nnx.Module,
    finish: Callable[[PyTree, Any], PyTree],
    batches: Any,
    tasks: Sampler | None,
    learner: MetaLearner | None,
    num_tasks: int,
    key: jax.Array,
) -> Validate | None:
    """Few-shot metrics of a state, with the statistics that its parameters have by then."""
    if tasks is None:
        if learner is not None:
            raise ValueError("learner is for validation: it needs validation, a sampler of tasks")
        return None
    if learner is None:
        ways = getattr(tasks, "ways", None)
        if ways is None:
            raise ValueError(f"learner must be given, as validation has no ways: {type(tasks).__name__}")
        learner = simpleshot(model, max(ways) if isinstance(ways, tuple) else ways)
    init, run = learner.init, evaluate(learner, num_tasks)

    @jax.jit
    def measure(params: PyTree, batches: Any, tasks: Sampler) -> Metrics:
        meta: MetaParams = init(finish(params, batches))
        return run(meta, tasks, key)

    def validate(params: PyTree) -> dict[str, float]:
        return {name: summary.mean for name, summary in summarize(measure(params, batches, tasks)).items()}

    return validate
