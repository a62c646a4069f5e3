"""Relation networks (Sung, Yang, Zhang, Xiang, Torr & Hospedales 2018, https://arxiv.org/abs/1711.06025).

A second network compares the features of a query with those of each class, instead of a fixed distance.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_choice, check_integer
from jaxmeta._types import Batch, MetaLearner, MetaParams, Metrics, PyTree, at_least_float32
from jaxmeta.algorithms._embedding import FeaturesFn, TrainFeatures, by_features, call
from jaxmeta.algorithms._heads import mask_absent, present_classes
from jaxmeta.display import described
from jaxmeta.losses import classification, weighted_mean


@described
def relation_network(
    features_fn: FeaturesFn,
    relation_fn: Callable[[PyTree, jax.Array], Any],
    ways: int,
    *,
    test_ways: int | None = None,
    loss: Literal["mse", "cross-entropy"] = "mse",
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """Relation networks: a learned network `g` compares queries with classes.

    With features `f`, the class features are the weighted sum over the support examples of class `k`,

        c_k = sum_i f(x_i),    logits_k(x) = g([c_k, f(x)]),    r_k = sigmoid(logits_k)

    and the paper's loss is the mean of `(r_k - 1)^2` for the right class and `r_k^2` for the others.

    Args:
        features_fn: `(params, x) -> features [n, ..., c]`, which are vectors, or feature maps as in the paper.
        relation_fn: `(params, pairs [k, ..., 2c]) -> logits [k, 1]` that class and query belong together. The first
            half of the last axis is the class, the second half the query. A `RelationNet` has both functions. Its
            relation module takes vectors, where the paper's is convolutional.
        ways: number of classes of a task during meta-training.
        test_ways: number of classes of a task at test. `None` (default) takes `ways`.
        loss: `"mse"` (default), the paper's squared error of the sigmoid, or `"cross-entropy"` of the softmax over the
            classes.
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`. Its `adapt` returns a classifier, see `with_head`.

    Raises:
        ValueError: if a number is out of range or `loss` is unknown.

    Example:
        >>> import functools
        >>> from jaxmeta import models
        >>> model = RelationNet(models.OmniglotCNN())
        >>> learner = relation_network(
        ...     functools.partial(model.apply, method="features"),
        ...     functools.partial(model.apply, method="relation"),
        ...     ways=5,
        ... )

    References:
        Sung et al., *Learning to Compare: Relation Network for Few-Shot Learning*, CVPR 2018,
        https://arxiv.org/abs/1711.06025
    """
    check_choice("loss", loss, ("mse", "cross-entropy"))

    def fit(meta: MetaParams, features: jax.Array, one_hot: jax.Array) -> tuple[jax.Array, jax.Array]:
        del meta
        classes = jnp.tensordot(one_hot.T, features, 1)  # c_k = sum_i f(x_i)
        return classes.astype(features.dtype), present_classes(one_hot)

    def logits(params: PyTree, fitted: tuple[jax.Array, jax.Array], features: jax.Array) -> jax.Array:
        classes, present = fitted
        shape = features.shape[0], *classes.shape
        pairs = jnp.concatenate([jnp.broadcast_to(classes, shape), jnp.broadcast_to(features[:, None], shape)], -1)
        relations = relation_fn(params, pairs.reshape(-1, *pairs.shape[2:])).reshape(shape[:2])  # g([c_k, f(x)])
        return mask_absent(relations, present)

    loss_fn = _squared_error if loss == "mse" else classification(call)
    return by_features(features_fn, fit, logits, ways, test_ways, train_features, loss_fn)


class RelationNet(nn.Module):
    """A network with a relation module of two layers on pairs of its features, for `relation_network`.

    Attributes:
        backbone: network with a `features` method that returns vectors, such as the models of `jaxmeta.models`.
        hidden: width of the relation module (default: 64).

    Raises:
        ValueError: if `hidden` is not an integer of at least 1.

    Example:
        >>> from jaxmeta import models
        >>> model = RelationNet(models.MLP(sizes=(8,)))
        >>> params = model.init(jax.random.key(0), jnp.zeros((1, 3)))
        >>> model.apply(params, jnp.zeros((4, 16)), method="relation").shape
        (4, 1)

    References:
        Sung et al., *Learning to Compare: Relation Network for Few-Shot Learning*, CVPR 2018,
        https://arxiv.org/abs/1711.06025
    """

    backbone: Any
    hidden: int = 64

    def __post_init__(self) -> None:
        check_integer(hidden=self.hidden)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the relation module."""
        self.relation_net = nn.Sequential([nn.Dense(self.hidden), nn.relu, nn.Dense(1)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits `[n, 1]` that each of `x: [n, ...]` is of its own class, for `init`."""
        features = self.features(x)
        return self.relation(jnp.concatenate([features, features], 1))

    def features(self, x: jax.Array) -> jax.Array:
        """Returns features `[n, d]` of `x: [n, ...]`."""
        return self.backbone.features(x)

    def relation(self, pairs: jax.Array) -> jax.Array:
        """Returns logits `[k, 1]` that the two halves of `pairs: [k, 2d]` are of one class."""
        return self.relation_net(pairs)


def _squared_error(classifier: Callable[[Any], jax.Array], batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
    """Returns the mean of `(r_k - 1)^2` for the right class and `r_k^2` for the others, and the accuracy.

    Classes without support examples do not count.
    """
    logits = at_least_float32(classifier(batch.x))
    _, metrics = classification(call)(lambda _: logits, batch, key)
    targets = jax.nn.one_hot(batch.y, logits.shape[1], dtype=logits.dtype)
    errors, present = jnp.square(jax.nn.sigmoid(logits) - targets), logits > -jnp.inf
    return weighted_mean(jnp.sum(errors, 1, where=present) / jnp.sum(present, 1), batch.weight), metrics
