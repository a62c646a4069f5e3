"""Baseline and Baseline++ (Chen, Liu, Kira, Wang & Huang 2019, https://arxiv.org/abs/1904.04232).

A new classifier is trained on the support set by gradient steps, either on frozen features (a linear probe) or together
with the network (full fine-tuning).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from jaxmeta._adapt import unroll
from jaxmeta._checks import check_integer, check_optional_integer, check_positive, check_transformation
from jaxmeta._types import Batch, MetaLearner, MetaParams, Metrics, PyTree, Task
from jaxmeta._variables import merge
from jaxmeta.algorithms._embedding import FeaturesFn, TrainFeatures, call, one_hot_labels, with_head
from jaxmeta.algorithms._heads import Head, class_means, mask_absent, masked_head, present_classes, unit_length
from jaxmeta.algorithms._inner_loop import InnerLoss, InnerProblem, inner_loop
from jaxmeta.algorithms._objective import nothing_learned
from jaxmeta.display import described
from jaxmeta.losses import Forward, Loss, classification, cross_entropy, forward


@described
def linear_head(
    inner: optax.GradientTransformation | None = None, steps: int = 100, *, scale: float | jax.Array | None = None
) -> Head:
    """A linear classifier, trained by gradient steps on the weighted cross-entropy of the support set.

    The authors' code steps 100 times through minibatches of 4, by SGD with rate 0.01, momentum 0.9, dampening 0.9 and
    weight decay. That is `optax.sgd(0.001, momentum=0.9)` for 200 steps at 5-way 1-shot and 700 at 5-shot. The default
    here goes further with each step, and takes the whole support set.

    Args:
        inner: optimizer. `None` (default) is SGD with rate 0.01, momentum 0.9 and weight decay 1e-3.
        steps: number of steps, each on the whole support set (default: 100).
        scale: factor of the cosines, positive. With a scale, the logits are `scale` times the cosine between the
            features and the weights of a class, and the weights start at the mean of the class. Without one
            (`None`, the default), the logits are linear with a bias and everything starts at zero.

    Returns:
        A `Head` without learned numbers. Derivatives go through all steps.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if a number is out of range.

    Example:
        >>> head = linear_head(optax.sgd(1.0), steps=1)
        >>> fitted = head.fit((), jnp.eye(2), jnp.eye(2))
        >>> head.logits(fitted, jnp.eye(2)).tolist()
        [[0.25, -0.25], [-0.25, 0.25]]

    References:
        Chen, Liu, Kira, Wang & Huang, *A Closer Look at Few-shot Classification*, ICLR 2019,
        https://arxiv.org/abs/1904.04232
    """
    inner = _default_inner(0.01) if inner is None else inner
    check_transformation(inner=inner)
    check_integer(steps=steps)
    if scale is not None:
        check_positive(scale=scale)

    def loss_fn(weights: PyTree, batch: tuple[jax.Array, jax.Array], step: Any) -> tuple[jax.Array, Metrics]:
        features, one_hot = batch
        return _cross_entropy(_logits(weights, features, scale), one_hot), {}

    def fit(learned: PyTree, features: jax.Array, one_hot: jax.Array) -> PyTree:
        weights = _initial_weights(features, one_hot, scale)
        return unroll(loss_fn, inner, weights, (features, one_hot), jnp.arange(steps)).params

    return masked_head(fit, lambda weights, features: _logits(weights, features, scale), ())


@described
def baseline(
    features_fn: FeaturesFn,
    ways: int,
    inner: optax.GradientTransformation | None = None,
    steps: int = 100,
    *,
    test_ways: int | None = None,
    fine_tune: bool = False,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """Baseline: a linear classifier, trained on the support set.

    The paper trains the network as a classifier of all base classes (see `jaxmeta.pretrain`), and this learner only
    adapts it. Its `grad` would train in tasks, through all steps. See `linear_head` for what differs from the authors'
    steps.

    Args:
        features_fn: see `with_head`.
        ways: number of classes of a task during meta-training.
        inner: see `linear_head`. With `fine_tune`, `None` has the rate 0.001, because a whole network diverges with
            more.
        steps: see `linear_head`.
        test_ways: number of classes of a task at test. `None` (default) takes `ways`.
        fine_tune: train the whole network with the classifier. Otherwise (default) the features are frozen, which is
            a linear probe.
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`. Its `adapt` returns a classifier, see `with_head`.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if a number is out of range.

    Example:
        >>> learner = baseline(lambda w, x: x @ w, 5, optax.adam(1e-2), steps=100)

    References:
        Chen, Liu, Kira, Wang & Huang, *A Closer Look at Few-shot Classification*, ICLR 2019,
        https://arxiv.org/abs/1904.04232
    """
    if fine_tune:
        return _fine_tuned(features_fn, ways, inner, steps, test_ways, train_features, None)
    head = linear_head(inner, steps)
    return with_head(features_fn, head, ways, test_ways=test_ways, train_features=train_features)


@described
def baseline_plus_plus(
    features_fn: FeaturesFn,
    ways: int,
    inner: optax.GradientTransformation | None = None,
    steps: int = 100,
    *,
    scale: float | jax.Array = 2.0,
    test_ways: int | None = None,
    fine_tune: bool = False,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """Baseline++: `baseline` with the cosine between the features and a weight vector of each class.

    The weights start at the means of the classes, where the paper's start at random.

    Args:
        features_fn: see `with_head`.
        ways: number of classes of a task during meta-training.
        inner: see `linear_head`. With `fine_tune`, `None` has the rate 0.001, because a whole network diverges with
            more.
        steps: see `linear_head`.
        scale: factor of the cosines, positive (default: 2).
        test_ways: number of classes of a task at test. `None` (default) takes `ways`.
        fine_tune: see `baseline`.
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`. Its `adapt` returns a classifier, see `with_head`.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if a number is out of range.

    Example:
        >>> learner = baseline_plus_plus(lambda w, x: x @ w, 5, optax.adam(1e-2), steps=100)

    References:
        Chen, Liu, Kira, Wang & Huang, *A Closer Look at Few-shot Classification*, ICLR 2019,
        https://arxiv.org/abs/1904.04232
    """
    check_positive(scale=scale)
    if fine_tune:
        return _fine_tuned(features_fn, ways, inner, steps, test_ways, train_features, scale)
    head = linear_head(inner, steps, scale=scale)
    return with_head(features_fn, head, ways, test_ways=test_ways, train_features=train_features)


def _default_inner(rate: float) -> optax.GradientTransformation:
    """Returns SGD with the paper's momentum and weight decay."""
    return optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(rate, momentum=0.9))


def _initial_weights(features: jax.Array, one_hot: jax.Array, scale: float | jax.Array | None) -> PyTree:
    """Returns the weights before the first step: the class means for cosines, otherwise zeros."""
    means = class_means(features, one_hot).T
    if scale is not None:
        return {"kernel": means}
    return {"kernel": jnp.zeros_like(means), "bias": jnp.zeros_like(means[0])}


def _logits(weights: PyTree, features: jax.Array, scale: float | jax.Array | None) -> jax.Array:
    """Returns `x W + b`, or `scale * cos(x, w_k)` for each class `k`: `[n, ways]`."""
    if scale is None:
        return features @ weights["kernel"] + weights["bias"][None]
    return jnp.asarray(scale, features.dtype) * unit_length(features) @ unit_length(weights["kernel"].T).T


def _cross_entropy(logits: jax.Array, one_hot: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy of the classes that have examples, for weighted labels `[n, ways]`."""
    losses = optax.softmax_cross_entropy(logits, one_hot, where=present_classes(one_hot)[None])
    return jnp.sum(losses) / jnp.sum(one_hot)


def _fine_tuned(
    features_fn: FeaturesFn,
    ways: int,
    inner: optax.GradientTransformation | None,
    steps: int,
    test_ways: int | None,
    train_features: TrainFeatures | None,
    scale: float | jax.Array | None,
) -> MetaLearner:
    """Builds the learner that trains classifier and network together."""
    optimizer = _default_inner(0.001) if inner is None else inner
    check_integer(ways=ways, steps=steps)
    check_optional_integer(test_ways=test_ways)
    passes = forward(features_fn, train_features, method="features", argument="features_fn")

    def logits(fitted: _FineTuned, features: jax.Array) -> jax.Array:
        return mask_absent(_logits(fitted.weights, features, scale), fitted.present)

    def train_loss(fitted: _FineTuned, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics, PyTree]:
        features, variables = passes.train(fitted.network, batch.x, key)
        return *cross_entropy(logits(fitted, features), batch), variables

    def predict(fitted: _FineTuned, x: Any) -> jax.Array:
        return logits(fitted, passes.test(fitted.network, x))

    outer = Loss(train_loss, classification(predict).test, predict)
    in_training, at_test = (
        inner_loop(_classifier_problem(passes, number, scale), optimizer, steps, outer_loss=outer)
        for number in (ways, test_ways or ways)
    )

    def adapt(meta: MetaParams, support: Batch, key: jax.Array) -> Partial:
        return Partial(predict, at_test.adapt(meta, support, key))

    def follow(meta: MetaParams, task: Task, adapt_key: jax.Array, loss_key: jax.Array) -> tuple[Partial, Metrics]:
        assert at_test.follow is not None
        fitted, metrics = at_test.follow(meta, task, adapt_key, loss_key)
        return Partial(predict, fitted), metrics

    learner = nothing_learned(in_training, "the classifier has no parameters before the first task")
    return learner._replace(adapt=adapt, loss=classification(call).test, predict=call, follow=follow)


class _FineTuned(NamedTuple):
    """A network and its classifier."""

    network: PyTree
    """Parameters of the network."""
    weights: PyTree
    """Weights of the classifier."""
    present: Any
    """The classes that had support examples, as booleans, which no optimizer sees: `[ways]`."""


def _classifier_problem(passes: Forward, ways: int, scale: float | jax.Array | None) -> InnerProblem:
    """Returns the inner problem of a network together with a new classifier of `ways` classes."""

    def start(meta: MetaParams, support: Batch | None, key: jax.Array) -> _FineTuned:
        if support is None:
            return _FineTuned(meta.params, None, None)
        features = passes.test(meta.variables, support.x)
        one_hot = one_hot_labels(support, ways, features)
        return _FineTuned(meta.params, _initial_weights(features, one_hot, scale), present_classes(one_hot))

    def loss(embed: Callable[[PyTree, Any, jax.Array], jax.Array]) -> InnerLoss:
        def support_loss(
            adapted: _FineTuned, meta: MetaParams, batch: Batch, key: jax.Array
        ) -> tuple[jax.Array, Metrics]:
            features = embed(merge(adapted.network, meta.state), batch.x, key)
            one_hot = one_hot_labels(batch, ways, features)
            return _cross_entropy(_logits(adapted.weights, features, scale), one_hot), {}

        return support_loss

    def finish(adapted: _FineTuned, meta: MetaParams) -> _FineTuned:
        return adapted._replace(network=merge(adapted.network, meta.state))

    in_training = loss(lambda network, x, key: passes.train(network, x, key)[0])
    return InnerProblem(start, in_training, finish, loss(lambda network, x, key: passes.test(network, x)))
