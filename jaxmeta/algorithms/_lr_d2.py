"""LR-D2: logistic regression as the inner solver (Bertinetto, Henriques, Torr & Vedaldi 2019).

https://arxiv.org/abs/1805.08136. One binary classifier per class, by a few Newton steps (iteratively reweighted least
squares), each one a system of the size of the support set.
"""

import math

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_integer
from jaxmeta._types import MetaLearner, PyTree
from jaxmeta.algorithms._embedding import FeaturesFn, TrainFeatures, with_head
from jaxmeta.algorithms._heads import Head, check_positive
from jaxmeta.algorithms._r2d2 import linear_logits


def logistic_head(regularization: float = 1.0, scale: float = 1.0, *, steps: int = 5) -> Head:
    """Regularized logistic regression, one class against all others: logits are `scale` times the log-odds.

    Args:
        regularization: where the learned regularization starts; positive.
        scale: where the learned scale starts; positive. Both are learned as logarithms.
        steps: Newton steps, from weights of zero; the derivative goes through them.

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
    start = {"log_regularization": math.log(regularization), "log_scale": math.log(scale)}

    def fit(learned: PyTree, features: jax.Array, one_hot: jax.Array) -> jax.Array:
        weights = logistic(features, one_hot, jnp.exp(learned["log_regularization"]), steps)
        return jnp.exp(learned["log_scale"]) * weights

    return Head(fit, linear_logits, start)


def lr_d2(
    features_fn: FeaturesFn,
    ways: int,
    *,
    test_ways: int | None = None,
    regularization: float = 1.0,
    scale: float = 1.0,
    steps: int = 5,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """LR-D2: `with_head` of `logistic_head`.

    Args:
        features_fn: see `with_head`.
        ways: classes of a task in meta-training.
        test_ways: classes of a task at test; `None` for the same.
        regularization: see `logistic_head`.
        scale: see `logistic_head`.
        steps: see `logistic_head`; the paper reports 1 and 5.
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`; `adapt` returns a classifier, see `with_head`.

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


def logistic(features: jax.Array, targets: jax.Array, regularization: jax.Array, steps: int) -> jax.Array:
    """Weights `[d, k]` after Newton steps on the logistic losses of `targets: [n, k]` in {0, 1}, in float32.

    Each column minimizes `sum_i loss_i + regularization / 2 |w|^2`. The weights are `features.T @ dual`, and a step on
    them is one on the dual: `(regularization I + S K)^-1 (targets - p - regularization dual)` for the Gram matrix `K`
    and `S = diag(p (1 - p))`, which needs no inverse of `S`.
    """
    dtype = features.dtype
    x, y = (a.astype(jnp.promote_types(dtype, jnp.float32)) for a in (features, targets))
    gram = x @ x.T
    ridge = regularization.astype(x.dtype) * jnp.eye(len(gram), dtype=x.dtype)

    def newton(dual: jax.Array, y: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(gram @ dual)
        return dual + jnp.linalg.solve(ridge + (p * (1 - p))[:, None] * gram, y - p - ridge[0, 0] * dual)

    def step(dual: jax.Array, _: None) -> tuple[jax.Array, None]:
        return jax.vmap(newton, 1, 1)(dual, y), None

    dual, _ = jax.lax.scan(step, jnp.zeros_like(y), None, length=steps)
    return (x.T @ dual).astype(dtype)
