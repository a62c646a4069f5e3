"""Matching networks (Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra 2016, https://arxiv.org/abs/1606.04080).

A query's label is the mean of the support labels, weighted by a softmax of cosines; full-context embeddings let each
feature depend on the whole support set.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_integer
from jaxmeta._types import MetaLearner, MetaParams, PyTree
from jaxmeta.algorithms._embedding import FeaturesFn, TrainFeatures, by_features, with_head
from jaxmeta.algorithms._heads import Head, check_positive, unit_length


def attention_head(scale: float = 1.0) -> Head:
    """Attention over the support set: logits are the logarithms of the attended labels.

    Args:
        scale: factor of the cosines in the softmax; positive. The paper's is 1.

    Returns:
        A `Head` without learned numbers.

    Raises:
        ValueError: if `scale` is not positive.

    Example:
        >>> head = attention_head(scale=50.0)
        >>> fitted = head.fit((), jnp.eye(2), jnp.eye(2))
        >>> jnp.exp(head.logits(fitted, jnp.array([[0.0, 3.0]]))).round(3).tolist()
        [[0.0, 1.0]]

    References:
        Vinyals et al., *Matching Networks for One Shot Learning*, NeurIPS 2016, https://arxiv.org/abs/1606.04080
    """
    check_positive(scale=scale)

    def fit(learned: PyTree, features: jax.Array, one_hot: jax.Array) -> tuple[jax.Array, jax.Array]:
        return unit_length(features), one_hot

    def logits(fitted: tuple[jax.Array, jax.Array], features: jax.Array) -> jax.Array:
        support, one_hot = fitted
        attention = jax.nn.log_softmax(scale * unit_length(features) @ support.T)
        return jax.scipy.special.logsumexp(attention[:, :, None], axis=1, b=one_hot[None])

    return Head(fit, logits)


def matching_network(
    features_fn: FeaturesFn,
    ways: int,
    *,
    test_ways: int | None = None,
    scale: float = 1.0,
    support_context: Callable[[PyTree, jax.Array], Any] | None = None,
    query_context: Callable[[PyTree, jax.Array, jax.Array], Any] | None = None,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """Matching networks: `with_head` of `attention_head`, or with full-context embeddings.

    Args:
        features_fn: see `with_head`.
        ways: classes of a task in meta-training.
        test_ways: classes of a task at test; `None` for the same.
        scale: see `attention_head`.
        support_context: `(params, features [n, d]) -> [n, d]`, the support features in the light of each other, such as
            `FullContext`'s. With it the order of the support set matters, if it does to this function.
        query_context: `(params, features [m, d], support [n, d]) -> [m, d]`, the query features in the light of the
            support set. Given if and only if `support_context` is.
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`; `adapt` returns a classifier, see `with_head`.

    Raises:
        ValueError: if a number is out of range, or one of the two contexts is missing.

    Example:
        >>> import functools
        >>> from jaxmeta import models
        >>> model = FullContext(models.OmniglotCNN())
        >>> learner = matching_network(
        ...     functools.partial(model.apply, method="features"),
        ...     ways=5,
        ...     support_context=functools.partial(model.apply, method="support"),
        ...     query_context=functools.partial(model.apply, method="query"),
        ... )

    References:
        Vinyals et al., *Matching Networks for One Shot Learning*, NeurIPS 2016, https://arxiv.org/abs/1606.04080
    """
    head = attention_head(scale)
    if support_context is None and query_context is None:
        return with_head(features_fn, head, ways, test_ways=test_ways, train_features=train_features)
    if support_context is None or query_context is None:
        raise ValueError("support_context and query_context must be given together")

    def fit(meta: MetaParams, features: jax.Array, one_hot: jax.Array) -> tuple[Any, jax.Array]:
        support = support_context(meta.params, features)
        return head.fit((), support, one_hot), support

    def logits(params: PyTree, fitted: tuple[Any, jax.Array], features: jax.Array) -> jax.Array:
        head_state, support = fitted
        return head.logits(head_state, query_context(params, features, support))

    return by_features(features_fn, fit, logits, ways, test_ways, train_features)


class FullContext(nn.Module):
    """A network with the full-context embeddings of matching networks, for `matching_network`.

    Support features get a bidirectional LSTM's view of all of them, in their order; query features that of an LSTM that
    reads the support set `steps` times by attention.

    Attributes:
        backbone: a network with a `features` method, such as the models of `jaxmeta.models`.
        steps: how often the support set is read for a query.

    Raises:
        ValueError: If `steps` is below 1.

    Example:
        >>> from jaxmeta import models
        >>> model = FullContext(models.MLP(sizes=(8,)), steps=2)
        >>> params = model.init(jax.random.key(0), jnp.zeros((1, 3)))
        >>> model.apply(params, jnp.zeros((4, 8)), jnp.zeros((5, 8)), method="query").shape
        (4, 8)

    References:
        Vinyals et al., *Matching Networks for One Shot Learning*, NeurIPS 2016, https://arxiv.org/abs/1606.04080
    """

    backbone: Any
    steps: int = 5

    def __post_init__(self) -> None:
        check_integer(steps=self.steps)
        super().__post_init__()

    def setup(self) -> None:
        """Make the two context networks."""
        self.support_net = _SupportContext()
        self.query_net = _QueryContext(self.steps)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features `[n, d]` of `x: [n, ...]` in the light of each other; for `init`."""
        support = self.support(self.features(x))
        return self.query(support, support)

    def features(self, x: jax.Array) -> jax.Array:
        """Features `[n, d]` of `x: [n, ...]`, without context."""
        return self.backbone.features(x)

    def support(self, features: jax.Array) -> jax.Array:
        """Support features `[n, d]` in the light of each other."""
        return self.support_net(features)

    def query(self, features: jax.Array, support: jax.Array) -> jax.Array:
        """Query features `[m, d]` in the light of the support set's, `[n, d]`, which have their context."""
        return self.query_net(features, support)


class _SupportContext(nn.Module):
    """Features plus what LSTMs in both directions make of them: `[n, d] -> [n, d]`."""

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        width = features.shape[-1]
        forward: Any = nn.RNN(nn.OptimizedLSTMCell(width), name="forward")
        backward: Any = nn.RNN(nn.OptimizedLSTMCell(width), reverse=True, keep_order=True, name="backward")
        start = jnp.zeros_like(features[0])  # flax's own has the type of the parameters at `init`
        return features + sum(lstm(features, initial_carry=(start, start)) for lstm in (forward, backward))


class _QueryContext(nn.Module):
    """An LSTM that reads the support set by attention: `[m, d], [n, d] -> [m, d]`."""

    steps: int

    @nn.compact
    def __call__(self, features: jax.Array, support: jax.Array) -> jax.Array:

        def read(cell: Any, carry: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
            memory, state = carry
            attended = jax.nn.softmax(state @ support.T) @ support
            (memory, output), _ = cell((memory, state), jnp.concatenate([features, attended], 1))
            return (memory, output + features), None

        cell = nn.OptimizedLSTMCell(features.shape[-1], name="cell")
        scan = nn.scan(read, variable_broadcast="params", split_rngs={"params": False}, length=self.steps)
        start = jnp.zeros_like(features)
        return scan(cell, (start, start), None)[0][1]
