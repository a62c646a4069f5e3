"""LR-D2: logistic regression as the inner solver (Bertinetto, Henriques, Torr & Vedaldi 2019).

https://arxiv.org/abs/1805.08136. Each class has a binary classifier against all others. It is fitted by a few Newton
steps (iteratively reweighted least squares), and each of them solves a system of the size of the support set.
"""

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_integer, check_positive
from jaxmeta._types import MetaLearner, PyTree
from jaxmeta.algorithms._embedding import FeaturesFn, TrainFeatures, with_head
from jaxmeta.algorithms._heads import Head, example_weights, logarithm, masked_head
from jaxmeta.algorithms._r2d2 import linear_logits
from jaxmeta.display import described


@described
def logistic_head(regularization: float | jax.Array = 1.0, scale: float | jax.Array = 1.0, *, steps: int = 5) -> Head:
    """A head of regularized logistic regression, one class against all others.

    The logits are `scale` times the log-odds of each class. The authors' code appends a column of ones to the
    features, and has a regularization of 50.

    Args:
        regularization: initial value of the learned regularization, positive (default: 1).
        scale: initial value of the learned scale, positive (default: 1). Both are learned as logarithms.
        steps: number of Newton steps from weights of zero (default: 5). Derivatives go through them.

    Returns:
        A `Head`.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> head = logistic_head()
        >>> weights = head.fit(head.learned, jnp.eye(2), jnp.eye(2))
        >>> head.logits(weights, jnp.eye(2)).argmax(1).tolist()
        [0, 1]

    References:
        Bertinetto, Henriques, Torr & Vedaldi, *Meta-learning with Differentiable Closed-form Solvers*, ICLR 2019,
        https://arxiv.org/abs/1805.08136
    """
    check_positive(regularization=regularization, scale=scale)
    check_integer(steps=steps)
    start = {"log_regularization": logarithm(regularization), "log_scale": logarithm(scale)}

    def fit(learned: PyTree, features: jax.Array, one_hot: jax.Array) -> jax.Array:
        targets, weight = (one_hot != 0).astype(one_hot.dtype), example_weights(one_hot)
        weights = logistic(features, targets, jnp.exp(learned["log_regularization"]), steps, weight)
        return jnp.exp(learned["log_scale"]) * weights

    return masked_head(fit, linear_logits, start)


@described
def lr_d2(
    features_fn: FeaturesFn,
    ways: int,
    *,
    test_ways: int | None = None,
    regularization: float | jax.Array = 1.0,
    scale: float | jax.Array = 1.0,
    steps: int = 5,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """LR-D2, logistic regression as the inner solver: `with_head` of `logistic_head`.

    Args:
        features_fn: see `with_head`.
        ways: number of classes of a task during meta-training.
        test_ways: number of classes of a task at test. `None` (default) takes `ways`.
        regularization: see `logistic_head`.
        scale: see `logistic_head`.
        steps: see `logistic_head`. The paper reports results for 1 and 5.
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`. Its `adapt` returns a classifier, see `with_head`.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import functools
        >>> from jaxmeta import models
        >>> learner = lr_d2(functools.partial(models.CNN4().apply, method="features"), ways=20, test_ways=5)

    References:
        Bertinetto, Henriques, Torr & Vedaldi, *Meta-learning with Differentiable Closed-form Solvers*, ICLR 2019,
        https://arxiv.org/abs/1805.08136
    """
    head = logistic_head(regularization, scale, steps=steps)
    return with_head(features_fn, head, ways, test_ways=test_ways, train_features=train_features)


def logistic(
    features: jax.Array, targets: jax.Array, regularization: jax.Array, steps: int, weight: jax.Array
) -> jax.Array:
    """Returns the weights `[d, k]` after Newton steps on the logistic losses.

    Each column `w` minimizes `sum_i weight_i loss_i + regularization / 2 * |w|^2` for `targets: [n, k]` in {0, 1}. The
    weights are `X^T a` for features `X: [n, d]` and dual variables `a: [n]`. With the Gram matrix `K = X X^T`,
    predictions `p = sigmoid(K a)` and `S = diag(weight p (1 - p))`, a Newton step on the weights is the step on the
    dual variables

        a <- a + (regularization I + S K)^-1 (weight (y - p) - regularization a)

    which needs no inverse of `S`.
    """
    x, y = features, targets
    gram = x @ x.T
    ridge = regularization * jnp.eye(len(gram), dtype=x.dtype)

    def newton(dual: jax.Array, y: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(gram @ dual)
        curvature = ridge + (weight * p * (1 - p))[:, None] * gram
        return dual + jnp.linalg.solve(curvature, weight * (y - p) - ridge[0, 0] * dual)

    def step(dual: jax.Array, _: None) -> tuple[jax.Array, None]:
        return jax.vmap(newton, 1, 1)(dual, y), None

    dual, _ = jax.lax.scan(step, jnp.zeros_like(y), None, length=steps)
    return x.T @ dual
