"""R2-D2: ridge regression as the inner solver (Bertinetto, Henriques, Torr & Vedaldi 2019).

https://arxiv.org/abs/1805.08136. A linear classifier is fitted to one-hot targets in closed form, by a system of the
size of the support set. The strength of the regularization is meta-learned together with the features.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from jaxmeta._checks import check_positive
from jaxmeta._types import MetaLearner, PyTree
from jaxmeta.algorithms._embedding import FeaturesFn, TrainFeatures, with_head
from jaxmeta.algorithms._heads import Head, example_weights, logarithm, masked_head
from jaxmeta.display import described


@described
def ridge_head(
    regularization: float | jax.Array = 1.0,
    scale: float | jax.Array = 10.0,
    *,
    learn_regularization: bool = True,
) -> Head:
    """A head of ridge regression on one-hot targets, fitted in closed form.

    With features `X: [n, d]`, one-hot targets `Y: [n, ways]` and regularization `lambda`, the weights are
    `W = X^T (X X^T + lambda I)^-1 Y` if `n <= d` (Woodbury's form), otherwise the equal
    `W = (X^T X + lambda I)^-1 X^T Y`. The logits of a query `x` are `scale * x W`.

    Args:
        regularization: initial value of the learned regularization, the paper's `lambda`, positive (default: 1). The
            authors' code takes 50 times the number of support examples, not learned, and appends a column of ones to
            the features. Here there is none.
        scale: initial value of the learned scale, the paper's `alpha`, positive (default: 10). Both are learned as
            logarithms. The paper also learns a bias. It is the same for all classes and so does not change a softmax.
        learn_regularization: meta-learn the regularization (default). Otherwise it stays.

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
    learned = {"log_scale": logarithm(scale)}
    if learn_regularization:
        learned["log_regularization"] = logarithm(regularization)

    def fit(learned: PyTree, features: jax.Array, one_hot: jax.Array) -> jax.Array:
        strength = jnp.exp(learned["log_regularization"]) if learn_regularization else regularization
        # The weighted squares `w |x W - y|^2` are those of `sqrt(w) x` and `sqrt(w) y`.
        root = _square_root(example_weights(one_hot))[:, None]
        return jnp.exp(learned["log_scale"]) * ridge(root * features, one_hot / jnp.where(root == 0, 1, root), strength)

    return masked_head(fit, linear_logits, learned)


@described
def r2d2(
    features_fn: FeaturesFn,
    ways: int,
    *,
    test_ways: int | None = None,
    regularization: float | jax.Array = 1.0,
    scale: float | jax.Array = 10.0,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """R2-D2, ridge regression as the inner solver: `with_head` of `ridge_head`.

    Args:
        features_fn: see `with_head`.
        ways: number of classes of a task during meta-training. The paper takes 60 for Omniglot and 20 for CIFAR-FS.
        test_ways: number of classes of a task at test. `None` (default) takes `ways`.
        regularization: see `ridge_head`.
        scale: see `ridge_head`.
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`. Its `adapt` returns a classifier, see `with_head`.

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
    """Returns the weights `[d, k]` of ridge regression.

    They minimize `|features @ weights - targets|^2 + regularization * |weights|^2`.
    """
    x, y = features, targets
    if x.shape[0] <= x.shape[1]:
        return x.T @ _solve(x @ x.T, regularization, y)  # X^T (X X^T + lambda I)^-1 Y
    return _solve(x.T @ x, regularization, x.T @ y)  # (X^T X + lambda I)^-1 X^T Y


def _square_root(weight: jax.Array) -> jax.Array:
    """Returns the square roots, with a derivative of zero at zero."""
    return jnp.where(weight == 0, 0, jnp.sqrt(jnp.where(weight == 0, 1, weight)))


def _solve(gram: jax.Array, regularization: jax.Array | float, y: jax.Array) -> jax.Array:
    """Returns `(gram + regularization I)^-1 y`."""
    return cho_solve(cho_factor(gram + regularization * jnp.eye(len(gram), dtype=gram.dtype)), y)


def linear_logits(weights: jax.Array, features: jax.Array) -> jax.Array:
    """Returns the logits `[m, ways]` of `features: [m, d]` by `weights: [d, ways]`."""
    return features @ weights
