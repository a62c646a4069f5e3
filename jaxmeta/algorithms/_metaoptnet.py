"""MetaOptNet (Lee, Maji, Ravichandran & Soatto 2019, https://arxiv.org/abs/1904.03758).

A linear classifier is fitted by a convex solver, a multi-class support vector machine; the features are learned by the
derivative of its solution.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_integer
from jaxmeta._losses import classification
from jaxmeta._types import Batch, LossFn, MetaLearner, Metrics, PyTree
from jaxmeta.algorithms._embedding import FeaturesFn, TrainFeatures, call, with_head
from jaxmeta.algorithms._heads import Head, check_positive
from jaxmeta.algorithms._r2d2 import linear_logits
from jaxmeta.algorithms._svm import crammer_singer


def svm_head(c: float = 0.1, scale: float = 1.0, *, iterations: int = 15, damping: float = 1.0) -> Head:
    """A linear multi-class support vector machine (Crammer & Singer): logits are `scale` times its scores.

    Its dual, a quadratic program of `n * ways` variables, is solved by an interior-point method on the device; the
    derivative is that of the solution, by the implicit function theorem.

    Args:
        c: weight of the margin violations; positive.
        scale: where the learned scale starts.
        iterations: of the solver; 15 reach the precision of float32, the paper finds 3 enough for training.
        damping: added to the diagonal of the Gram matrix, as in the authors' code: it makes the solution unique. Small
            beside the squared length of the features.

    Returns:
        A `Head`.

    Raises:
        ValueError: if a number is out of range; when fitted, if there are fewer than 2 classes.

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
        if one_hot.shape[1] < 2:
            raise ValueError(f"ways must be at least 2 for a support vector machine, got {one_hot.shape[1]}")
        x, y = (a.astype(jnp.promote_types(features.dtype, jnp.float32)) for a in (features, one_hot))
        gram = x @ x.T + damping * jnp.eye(len(x), dtype=x.dtype)
        weights = x.T @ crammer_singer(gram, y, c, iterations)
        return learned["scale"] * weights.astype(features.dtype)

    return Head(fit, linear_logits, {"scale": scale})


def metaoptnet(
    features_fn: FeaturesFn,
    ways: int,
    *,
    test_ways: int | None = None,
    head: Head | None = None,
    label_smoothing: float = 0.0,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """MetaOptNet: `with_head` of `svm_head`, and smoothed labels.

    The paper trains with more shots than it tests with: 15 on mini-ImageNet.

    Args:
        features_fn: see `with_head`.
        ways: classes of a task in meta-training.
        test_ways: classes of a task at test; `None` for the same.
        head: `svm_head()` if `None`; the paper's other one is `ridge_head(50.0, 1.0, learn_regularization=False)`.
        label_smoothing: share of the query targets that is spread over all classes; 0.1 for the paper's mini-ImageNet.
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`; `adapt` returns a classifier, see `with_head`.

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
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
    head = svm_head() if head is None else head
    loss_fn = _smoothed(label_smoothing)
    return with_head(features_fn, head, ways, test_ways=test_ways, train_features=train_features, loss_fn=loss_fn)


def _smoothed(share: float) -> LossFn:
    """Cross-entropy with smoothed labels, and accuracy."""
    plain = classification(call)

    def loss_fn(classifier: Callable[[Any], jax.Array], batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        logits = classifier(batch.x)
        loss, metrics = plain(lambda _: logits, batch, key)
        evenly = -jnp.mean(jax.nn.log_softmax(logits))
        return (1 - share) * loss + share * evenly, metrics

    return loss_fn
