"""MetaOptNet (Lee, Maji, Ravichandran & Soatto 2019, https://arxiv.org/abs/1904.03758).

A convex solver fits a linear classifier, a multi-class support vector machine, to the support set. The features are
learned by the derivative of its solution.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_fraction, check_integer, check_positive
from jaxmeta._types import Batch, LossFn, MetaLearner, Metrics, PyTree
from jaxmeta.algorithms._embedding import FeaturesFn, TrainFeatures, call, with_head
from jaxmeta.algorithms._heads import Head, masked_head
from jaxmeta.algorithms._r2d2 import linear_logits
from jaxmeta.algorithms._svm import crammer_singer
from jaxmeta.display import described
from jaxmeta.losses import classification, weighted_mean


@described
def svm_head(
    c: float | jax.Array = 0.1,
    scale: float | jax.Array = 1.0,
    *,
    iterations: int = 15,
    damping: float | jax.Array = 1.0,
) -> Head:
    """A head that is a linear multi-class support vector machine (Crammer & Singer).

    With features `X: [n, d]`, one-hot labels `Y: [n, ways]` and the Gram matrix `G = X X^T + damping I`, the dual
    variables `A: [n, ways]` minimize

        tr(A^T G A) / 2 - sum(Y * A)    subject to    A <= c Y,  each row of A sums to zero

    The weights are `W = X^T A`, and the logits of a query `x` are `scale * x W`. An interior-point method solves the
    quadratic program on the device. The derivative is that of the solution, by the implicit function theorem. The
    weight of an example multiplies its `c`.

    Args:
        c: weight of the margin violations, the paper's `C`, positive (default: 0.1).
        scale: initial value of the learned scale, positive (default: 1).
        iterations: number of iterations of the solver (default: 15, which reach the precision of float32). The paper
            finds 3 sufficient for training.
        damping: number that is added to the diagonal of the Gram matrix, as in the authors' code (default: 1). It makes
            the solution unique and should be small compared with the squared length of the features.

    Returns:
        A `Head`.

    Raises:
        ValueError: if a number is out of range. When fitted, if there are fewer than 2 classes.

    Example:
        >>> head = svm_head(c=1.0, damping=1e-3)
        >>> weights = head.fit(head.learned, jnp.eye(2), jnp.eye(2))
        >>> [[round(x, 2) for x in row] for row in head.logits(weights, jnp.eye(2)).tolist()]
        [[0.5, -0.5], [-0.5, 0.5]]

    References:
        Lee, Maji, Ravichandran & Soatto, *Meta-Learning with Differentiable Convex Optimization*, CVPR 2019,
        https://arxiv.org/abs/1904.03758
        Crammer & Singer, *On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines*, JMLR 2001,
        https://jmlr.org/papers/v2/crammer01a.html
    """
    check_positive(c=c, scale=scale, damping=damping)
    check_integer(iterations=iterations)

    def fit(learned: PyTree, features: jax.Array, one_hot: jax.Array) -> jax.Array:
        check_integer(least=2, ways=one_hot.shape[1])
        gram = features @ features.T + damping * jnp.eye(len(features), dtype=features.dtype)
        return learned["scale"] * (features.T @ crammer_singer(gram, one_hot, c, iterations))

    return masked_head(fit, linear_logits, {"scale": scale})


@described
def metaoptnet(
    features_fn: FeaturesFn,
    ways: int,
    *,
    test_ways: int | None = None,
    head: Head | None = None,
    label_smoothing: float | jax.Array = 0.0,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """MetaOptNet: `with_head` of `svm_head`, with smoothed labels.

    The paper trains with more shots than it tests with: 15 on mini-ImageNet.

    Args:
        features_fn: see `with_head`.
        ways: number of classes of a task during meta-training.
        test_ways: number of classes of a task at test. `None` (default) takes `ways`.
        head: head of the learner. `None` (default) takes `svm_head()`. The paper's other head is
            `ridge_head(50.0, 1.0, learn_regularization=False)`.
        label_smoothing: share of the query targets that is spread over all classes, in [0, 1) (default: 0). The paper
            takes 0.1 for mini-ImageNet. Its code spreads it over the wrong classes only: for 5 ways the right one keeps
            0.9 there, and 0.92 here.
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`. Its `adapt` returns a classifier, see `with_head`.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import functools
        >>> from jaxmeta import models
        >>> learner = metaoptnet(functools.partial(models.CNN4().apply, method="features"), ways=5)

    References:
        Lee, Maji, Ravichandran & Soatto, *Meta-Learning with Differentiable Convex Optimization*, CVPR 2019,
        https://arxiv.org/abs/1904.03758
    """
    check_fraction(below_one=True, label_smoothing=label_smoothing)
    head = svm_head() if head is None else head
    loss_fn = _smoothed(label_smoothing)
    return with_head(features_fn, head, ways, test_ways=test_ways, train_features=train_features, loss_fn=loss_fn)


def _smoothed(share: float | jax.Array) -> LossFn:
    """Builds the loss `(1 - share) * cross_entropy(y) + share * mean_k cross_entropy(k)`, with accuracy."""
    plain = classification(call)

    def loss_fn(classifier: Callable[[Any], jax.Array], batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        logits = classifier(batch.x)
        loss, metrics = plain(lambda _: logits, batch, key)
        present = logits > -jnp.inf  # the other classes have no support examples
        log_p = jnp.where(present, jax.nn.log_softmax(logits), 0)
        uniform = -weighted_mean(jnp.sum(log_p, 1) / jnp.sum(present, 1), batch.weight)
        return (1 - share) * loss + share * uniform, metrics

    return loss_fn
