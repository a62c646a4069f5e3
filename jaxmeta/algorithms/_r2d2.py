"""R2-D2: ridge regression as the inner solver (Bertinetto, Henriques, Torr & Vedaldi 2019).

https://arxiv.org/abs/1805.08136. A linear classifier is fitted to one-hot targets in closed form, by a system of the
size of the support set; how strongly it is regularized is meta-learned with the features.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from jaxmeta._types import MetaLearner, PyTree
from jaxmeta.algorithms._embedding import FeaturesFn, TrainFeatures, with_head
from jaxmeta.algorithms._heads import Head, check_positive


def ridge_head(regularization: float = 1.0, scale: float = 10.0, *, learn_regularization: bool = True) -> Head:
    """Ridge regression on one-hot targets: logits are `scale` times the predictions.

    The weights are `X^T (X X^T + regularization I)^-1 Y` for features `X: [n, d]` if `n <= d` (Woodbury's form), else
    the equal `(X^T X + regularization I)^-1 X^T Y`.

    Args:
        regularization: where the learned regularization starts; positive.
        scale: where the learned scale starts; positive. Both are learned as logarithms. The paper also learns a bias:
            it is the same for all classes, and so without effect on a softmax.
        learn_regularization: if false, the regularization stays.

    Returns:
        A `Head`.

    Raises:
        ValueError: if a number is not positive.

    Example:
        >>> head = ridge_head(1.0, 10.0)
        >>> weights = head.fit(head.learned, jnp.eye(2), jnp.eye(2))
        >>> [[round(x, 3) for x in row] for row in head.logits(weights, jnp.array([[3.0, 1.0]])).tolist()]
        [[15.0, 5.0]]

    References:
        Bertinetto, Henriques, Torr & Vedaldi, *Meta-learning with Differentiable Closed-form Solvers*, ICLR 2019,
        https://arxiv.org/abs/1805.08136
    """
    check_positive(regularization=regularization, scale=scale)
    learned = {"log_scale": math.log(scale)}
    if learn_regularization:
        learned["log_regularization"] = math.log(regularization)

    def fit(learned: PyTree, features: jax.Array, one_hot: jax.Array) -> jax.Array:
        strength = jnp.exp(learned["log_regularization"]) if learn_regularization else regularization
        return jnp.exp(learned["log_scale"]) * ridge(features, one_hot, strength)

    return Head(fit, linear_logits, learned)


def r2d2(
    features_fn: FeaturesFn,
    ways: int,
    *,
    test_ways: int | None = None,
    regularization: float = 1.0,
    scale: float = 10.0,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """R2-D2: `with_head` of `ridge_head`.

    Args:
        features_fn: see `with_head`.
        ways: classes of a task in meta-training; the paper takes 60 for Omniglot and 20 for CIFAR-FS.
        test_ways: classes of a task at test; `None` for the same.
        regularization: see `ridge_head`.
        scale: see `ridge_head`.
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`; `adapt` returns a classifier, see `with_head`.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import functools
        >>> from jaxmeta import models
        >>> learner = r2d2(functools.partial(models.CNN4().apply, method="features"), ways=20, test_ways=5)

    References:
        Bertinetto, Henriques, Torr & Vedaldi, *Meta-learning with Differentiable Closed-form Solvers*, ICLR 2019,
        https://arxiv.org/abs/1805.08136
    """
    head = ridge_head(regularization, scale)
    return with_head(features_fn, head, ways, test_ways=test_ways, train_features=train_features)


def ridge(features: jax.Array, targets: jax.Array, regularization: jax.Array | float) -> jax.Array:
    """Weights `[d, k]` that minimize `|features @ weights - targets|^2 + regularization |weights|^2`, in float32."""
    dtype = features.dtype
    x, y = (a.astype(jnp.promote_types(dtype, jnp.float32)) for a in (features, targets))
    wide = x.shape[0] <= x.shape[1]
    weights = x.T @ _solve(x @ x.T, regularization, y) if wide else _solve(x.T @ x, regularization, x.T @ y)
    return weights.astype(dtype)


def _solve(gram: jax.Array, regularization: jax.Array | float, y: jax.Array) -> jax.Array:
    return cho_solve(cho_factor(gram + regularization * jnp.eye(len(gram), dtype=gram.dtype)), y)


def linear_logits(weights: jax.Array, features: jax.Array) -> jax.Array:
    """Logits `[m, ways]` of `features: [m, d]` by `weights: [d, ways]`."""
    return features @ weights
