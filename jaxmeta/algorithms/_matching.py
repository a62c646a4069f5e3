"""Matching networks (Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra 2016, https://arxiv.org/abs/1606.04080).

The label of a query is the mean of the support labels, weighted by a softmax of cosines. With full-context embeddings
each feature depends on the whole support set.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_integer, check_positive
from jaxmeta._types import MetaLearner, MetaParams, PyTree
from jaxmeta.algorithms._embedding import FeaturesFn, TrainFeatures, by_features, with_head
from jaxmeta.algorithms._heads import Head, example_weights, masked_head, present_classes, unit_length
from jaxmeta.display import described


@described
def attention_head(scale: float | jax.Array = 1.0) -> Head:
    """A head of attention over the support set.

    With support features `x_i` and one-hot labels `y_i`, a query `x` has the probabilities

        p(y | x) = sum_i a_i y_i,    a = softmax_i(scale * cos(x, x_i))

    and the logits are their logarithms. With weights `w_i` of the examples, `a_i` is proportional to
    `w_i exp(scale * cos(x, x_i))`.

    Args:
        scale: factor of the cosines in the softmax, positive (default: 1, as in the paper).

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

    def fit(learned: PyTree, features: jax.Array, one_hot: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        members = (one_hot != 0) | ~present_classes(one_hot)[None]  # an empty sum has no derivative
        return unit_length(features), log_weights(example_weights(one_hot)), members.astype(one_hot.dtype)

    def logits(fitted: tuple[jax.Array, jax.Array, jax.Array], features: jax.Array) -> jax.Array:
        support, log_weight, members = fitted
        scores = jnp.asarray(scale, features.dtype) * unit_length(features) @ support.T
        # log a_i, and then log sum_i a_i y_i
        attention = jax.nn.log_softmax(scores + log_weight[None])
        return jax.scipy.special.logsumexp(attention[:, :, None], axis=1, b=members[None])

    return masked_head(fit, logits, ())


def log_weights(weight: jax.Array) -> jax.Array:
    """Returns the logarithms of the weights `[n]`, -inf for padding, as a bias of the scores of an attention."""
    return jnp.where(weight == 0, -jnp.inf, jnp.log(jnp.where(weight == 0, 1, weight)))


@described
def matching_network(
    features_fn: FeaturesFn,
    ways: int,
    *,
    test_ways: int | None = None,
    scale: float | jax.Array = 1.0,
    support_context: Callable[[PyTree, jax.Array, jax.Array], Any] | None = None,
    query_context: Callable[[PyTree, jax.Array, jax.Array, jax.Array], Any] | None = None,
    train_features: TrainFeatures | None = None,
) -> MetaLearner:
    """Matching networks: `with_head` of `attention_head`, optionally with full-context embeddings.

    Args:
        features_fn: see `with_head`.
        ways: number of classes of a task during meta-training.
        test_ways: number of classes of a task at test. `None` (default) takes `ways`.
        scale: see `attention_head`.
        support_context: `(params, features [n, d], weight [n]) -> [n, d]`, the paper's `g(x, S)`: support features that
            depend on each other, such as those of `FullContext`. Examples of weight 0 are padding. `None` (default)
            keeps the features. The order of the support set matters if it matters to this function.
        query_context: `(params, features [m, d], support [n, d], weight [n]) -> [m, d]`, the paper's `f(x, S)`: query
            features that depend on the support set. Give both contexts or neither.
        train_features: see `with_head`.

    Returns:
        A `MetaLearner`. Its `adapt` returns a classifier, see `with_head`.

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

    def fit(meta: MetaParams, features: jax.Array, one_hot: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
        weight = example_weights(one_hot)
        support = support_context(meta.variables, features, weight)
        return head.fit((), support, one_hot), support, weight

    def logits(params: PyTree, fitted: tuple[Any, jax.Array, jax.Array], features: jax.Array) -> jax.Array:
        head_state, support, weight = fitted
        return head.logits(head_state, query_context(params, features, support, weight))

    return by_features(features_fn, fit, logits, ways, test_ways, train_features)


class FullContext(nn.Module):
    """A network with the full-context embeddings of matching networks, for `matching_network`.

    A bidirectional LSTM reads the support features in their order and is added to them. An LSTM with attention reads
    the support set `steps` times for each query. Padding is skipped. All other examples are read alike, and their
    weights enter the attention.

    Attributes:
        backbone: network with a `features` method, such as the models of `jaxmeta.models`.
        steps: number of times that the support set is read for a query (default: 5).

    Raises:
        ValueError: if `steps` is not an integer of at least 1.

    Example:
        >>> from jaxmeta import models
        >>> model = FullContext(models.MLP(sizes=(8,)), steps=2)
        >>> params = model.init(jax.random.key(0), jnp.zeros((1, 3)))
        >>> model.apply(params, jnp.zeros((4, 8)), jnp.zeros((5, 8)), jnp.ones(5), method="query").shape
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
        """Makes the two context networks."""
        self.support_net = _SupportContext()
        self.query_net = _QueryContext(self.steps)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns features `[n, d]` of `x: [n, ...]`, with themselves as the support set, for `init`."""
        features, weight = self.features(x), jnp.ones(x.shape[0])
        support = self.support(features, weight)
        return self.query(support, support, weight)

    def features(self, x: jax.Array) -> jax.Array:
        """Returns features `[n, d]` of `x: [n, ...]`, without context."""
        return self.backbone.features(x)

    def support(self, features: jax.Array, weight: jax.Array) -> jax.Array:
        """Returns support features `[n, d]` that depend on each other, for examples with `weight: [n]`."""
        return self.support_net(features, weight)

    def query(self, features: jax.Array, support: jax.Array, weight: jax.Array) -> jax.Array:
        """Returns query features `[m, d]` that depend on the result `[n, d]` of `support`."""
        return self.query_net(features, support, weight)


class _SupportContext(nn.Module):
    """The support embedding `g(x_i, S) = h_forward_i + h_backward_i + x_i` of two LSTMs: `[n, d] -> [n, d]`."""

    @nn.compact
    def __call__(self, features: jax.Array, weight: jax.Array) -> jax.Array:
        order = jnp.argsort(weight == 0, stable=True)  # padding comes last, where nothing is read after it
        length, features = jnp.sum(weight != 0), features[order]
        width = features.shape[-1]
        forward: Any = nn.RNN(nn.OptimizedLSTMCell(width), name="forward")
        backward: Any = nn.RNN(nn.OptimizedLSTMCell(width), reverse=True, keep_order=True, name="backward")
        start = jnp.zeros_like(features[0])  # flax's own has the type of the parameters at `init`
        context = sum(lstm(features, initial_carry=(start, start), seq_lengths=length) for lstm in (forward, backward))
        return (features + context)[jnp.argsort(order)]


class _QueryContext(nn.Module):
    """The query embedding `f(x, S)`, an LSTM that reads the support set by attention: `[m, d], [n, d] -> [m, d]`."""

    steps: int

    @nn.compact
    def __call__(self, features: jax.Array, support: jax.Array, weight: jax.Array) -> jax.Array:
        support = jnp.where((weight != 0)[:, None], support, 0)
        bias = log_weights(weight).astype(support.dtype)

        def read(cell: Any, carry: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
            # r = sum_i softmax_i(h g_i) g_i, and then h <- LSTM([x, r], h) + x
            memory, state = carry
            attended = jax.nn.softmax(state @ support.T + bias[None]) @ support
            (memory, output), _ = cell((memory, state), jnp.concatenate([features, attended], 1))
            return (memory, output + features), None

        cell = nn.OptimizedLSTMCell(features.shape[-1], name="cell")
        scan = nn.scan(read, variable_broadcast="params", split_rngs={"params": False}, length=self.steps)
        start = jnp.zeros_like(features)
        return scan(cell, (start, start), None)[0][1]
