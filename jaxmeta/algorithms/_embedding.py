"""Learners that embed the examples of a task and fit a classifier, the head, to the features of its support set."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx
from jax.tree_util import Partial

from jaxmeta._checks import check_integer, check_labels, check_optional_integer
from jaxmeta._learned import learned_or
from jaxmeta._types import (
    Batch,
    LossFn,
    MetaLearner,
    MetaParams,
    Metrics,
    PyTree,
    Task,
    check_batch,
    check_meta,
    check_task,
    with_loss,
)
from jaxmeta._variables import carried_like
from jaxmeta.algorithms._heads import Head
from jaxmeta.display import brief, described
from jaxmeta.losses import Forward, as_loss, classification, forward

FeaturesFn = Callable[[PyTree, Any], Any] | nn.Module | nnx.Module
"""An embedding: `(params, x) -> features [n, d]`, or a module with a method `features`."""
TrainFeatures = Callable[[PyTree, Any, jax.Array], Any]
"""A random embedding: `(params, x, key) -> features [n, d]`."""


@described
def with_head(
    features_fn: FeaturesFn,
    head: Head,
    ways: int,
    *,
    test_ways: int | None = None,
    train_features: TrainFeatures | None = None,
    loss_fn: LossFn | None = None,
) -> MetaLearner:
    """Builds a learner that fits `head` to the features of the support set, and meta-learns the features.

    Tasks have integer labels from 0 to `ways - 1`. Other labels raise a `ValueError`, or inside a jitted function give
    logits that are all NaN. Examples of weight 0 are padding: their labels and inputs do not matter, as long as the
    inputs are finite. A class without support examples has the logit -inf. A query of such a class has an infinite
    loss, so give it the weight 0.

    Args:
        features_fn: `(params, x) -> features [n, d]`, or a Linen or NNX module, of which the method `features` is
            called, or the module itself if it has none. A module drops out in training only, and its state, such as
            running statistics, sees the support set and then the query set of each task.
        head: head that is fitted to the features.
        ways: number of classes of a task during meta-training.
        test_ways: number of classes of the tasks of `MetaLearner.adapt`. `None` (default) takes `ways`.
        train_features: `(params, x, key) -> features`, which replaces a function `features_fn` during meta-training,
            for a model with dropout.
        loss_fn: `(classifier, batch, key) -> (loss, metrics)`, where `classifier(x)` returns logits. `None` (default)
            is cross-entropy and accuracy.

    Returns:
        A `MetaLearner`. Its `adapt` returns a classifier: a `jax.tree_util.Partial`, which is a pytree of arrays that
        you call with inputs `[m, ...]` for logits `[m, test_ways]`. `MetaParams.learned` holds the numbers that the
        head learns.

    Raises:
        ValueError: if `ways` or `test_ways` is not an integer of at least 1. When called, if the features are not
            `[n, d]`.

    Example:
        >>> import jaxmeta
        >>> learner = with_head(lambda w, x: x @ w, jaxmeta.euclidean_head(), ways=2)
        >>> support = Batch(jnp.array([[0.0], [2.0], [7.0]]), jnp.array([0, 0, 1]))
        >>> classifier = learner.adapt(learner.init(jnp.eye(1)), support, jax.random.key(0))
        >>> classifier(jnp.array([[2.0]])).tolist()
        [[-1.0, -25.0]]
    """
    if not isinstance(head, Head):
        raise TypeError(f"head must be a Head, such as euclidean_head(), got {brief(head)}")

    def init(variables: PyTree) -> MetaParams:
        meta = MetaParams.of(variables)
        dtype = jnp.result_type(*jax.tree.leaves(meta.params) or [jnp.float32])
        return meta._replace(learned=jax.tree.map(lambda value: jnp.asarray(value, dtype), head.learned))

    def fit(meta: MetaParams, features: jax.Array, one_hot: jax.Array) -> PyTree:
        return head.fit(learned_or(head.learned, meta.learned, "head"), _rows(features), one_hot)

    def logits(params: PyTree, fitted: PyTree, features: jax.Array) -> jax.Array:
        del params
        return head.logits(fitted, _rows(features))

    return by_features(features_fn, fit, logits, ways, test_ways, train_features, loss_fn, init)


def by_features(
    features_fn: FeaturesFn,
    fit: Callable[[MetaParams, jax.Array, jax.Array], PyTree],
    logits: Callable[[PyTree, PyTree, jax.Array], jax.Array],
    ways: int,
    test_ways: int | None,
    train_features: TrainFeatures | None,
    loss_fn: LossFn | None = None,
    init: Callable[[PyTree], MetaParams] | None = None,
) -> MetaLearner:
    """Builds the learner of `with_head` for a head with parameters.

    Args:
        features_fn: see `with_head`.
        fit: `(meta, features, one_hot) -> fitted`.
        logits: `(params, fitted, features) -> logits`.
        ways: see `with_head`.
        test_ways: see `with_head`.
        train_features: see `with_head`.
        loss_fn: see `with_head`.
        init: see `by_fit`.
    """
    check_integer(ways=ways)
    check_optional_integer(test_ways=test_ways)
    passes = forward(features_fn, train_features, method="features", argument="features_fn")
    embed = embedding(passes)

    def fit_support(meta: MetaParams, support: Batch, key: jax.Array | None) -> tuple[PyTree, PyTree]:
        check_meta(meta)
        check_batch(support)
        variables = meta.variables
        features = embed(variables, support.x, key)
        one_hot = one_hot_labels(support, ways if key is not None else test_ways or ways, features)
        return variables, fit(meta, features, one_hot)

    def predict(fitted: tuple[PyTree, PyTree], x: Any, key: jax.Array | None) -> jax.Array:
        return logits(*fitted, embed(fitted[0], x, key))

    return by_fit(fit_support, predict, classification(call) if loss_fn is None else loss_fn, passes, init)


def embedding(passes: Forward) -> Callable[[PyTree, Any, jax.Array | None], jax.Array]:
    """Builds `(variables, x, key) -> features`, where the key is `None` outside meta-training."""

    def embed(variables: PyTree, x: Any, key: jax.Array | None) -> jax.Array:
        return passes.test(variables, x) if key is None else passes.train(variables, x, key)[0]

    return embed


def by_fit(
    fit: Callable[[MetaParams, Any, jax.Array | None], PyTree],
    predict: Callable[[PyTree, Any, jax.Array | None], Any],
    loss_fn: LossFn,
    passes: Forward | None = None,
    init: Callable[[PyTree], MetaParams] | None = None,
) -> MetaLearner:
    """Builds a learner that is fitted to the support set by one differentiable function.

    Args:
        fit: `(meta, support, key) -> fitted`. Here and in `predict` the key is `None` outside meta-training.
        predict: `(fitted, x, key) -> predictions`.
        loss_fn: `(predictor, batch, key) -> (loss, metrics)`, where `predictor(x)` returns predictions.
        passes: the model, whose state moves with the inputs of the support and the query set. `None` (default) leaves
            the state as it is.
        init: see `MetaLearner`. `None` (default) is that of a learner with nothing learned but the model.
    """

    def predict_at_test(fitted: PyTree, x: Any) -> Any:
        return predict(fitted, x, None)

    def checked_fit(meta: MetaParams, support: Any, key: jax.Array | None) -> PyTree:
        if init is None:
            learned_or((), meta.learned, "learner")
        return fit(meta, support, key)

    def adapt(meta: MetaParams, support: Any, key: jax.Array) -> Partial:
        del key
        return Partial(predict_at_test, checked_fit(meta, support, None))

    def grad(meta: MetaParams, task: Task, key: jax.Array) -> tuple[Metrics, MetaParams]:
        check_meta(meta)
        check_task(task)
        fit_key, predict_key, loss_key = jax.random.split(key, 3)

        def objective(trained: MetaParams) -> tuple[jax.Array, Metrics]:
            fitted = checked_fit(trained._replace(state=meta.state), task.support, fit_key)
            return loss_fn(lambda x: predict(fitted, x, predict_key), task.query, loss_key)

        (loss, metrics), gradient = jax.value_and_grad(objective, has_aux=True)(meta._replace(state=()))
        state = meta.state
        if passes is not None and jax.tree.leaves(state):  # the compiler finds these passes in the objective
            _, variables = passes.train(meta.variables, task.support.x, fit_key)
            _, variables = passes.train(variables, task.query.x, predict_key)
            state = carried_like(state, variables)
        return with_loss(loss, metrics), gradient._replace(state=state)

    return MetaLearner(MetaParams.of if init is None else init, adapt, as_loss(loss_fn).test, grad)


def call(predictor: Callable[[Any], Any], x: Any) -> Any:
    """Calls a predictor that holds its own parameters: the `apply` for `classification` and `regression`."""
    return predictor(x)


def _rows(features: jax.Array) -> jax.Array:
    """Returns the features, and raises ValueError unless they are `[n, d]`."""
    if features.ndim != 2:
        raise ValueError(f"features_fn must return features [n, d], got shape {features.shape}")
    return features


def one_hot_labels(batch: Batch, ways: int, features: jax.Array) -> jax.Array:
    """Returns one-hot labels `[n, ways]`, in float32 or wider, each row multiplied by the weight of the example.

    All are NaN if a label is out of range. No shape shows this mistake, so nothing else could report it inside a jitted
    function.

    Raises:
        ValueError: if a concrete label is out of range.
    """
    check_labels(batch.y, ways, batch.weight, features.shape[:1])
    one_hot = jax.nn.one_hot(batch.y, ways, dtype=jnp.promote_types(features.dtype, jnp.float32))
    known = jnp.any(one_hot, 1)
    if batch.weight is not None:
        weight = jnp.asarray(batch.weight, one_hot.dtype)
        one_hot, known = weight[:, None] * one_hot, known | (weight == 0)
    return one_hot + 0 / jnp.all(known).astype(one_hot.dtype)  # 0 / 0 is NaN, and no literal that debug_nans would find
