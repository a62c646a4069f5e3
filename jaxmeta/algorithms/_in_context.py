"""A transformer that learns in context (Kirsch, Harrison, Sohl-Dickstein & Metz 2022, https://arxiv.org/abs/2212.04458).

It is a black box, as SNAIL (Mishra et al. 2018, https://arxiv.org/abs/1707.03141): attention reads the support set, and
meta-training finds out how to learn from it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_integer
from jaxmeta._types import Batch, LossFn, MetaLearner, MetaParams, PyTree
from jaxmeta.algorithms._embedding import by_fit, call
from jaxmeta.algorithms._matching import log_weights
from jaxmeta.display import described
from jaxmeta.losses import classification


@described
def in_context(
    encode: Callable[..., PyTree],
    decode: Callable[[PyTree, PyTree, Any], Any],
    loss_fn: LossFn | None = None,
) -> MetaLearner:
    """In-context learning: a learner whose adaptation is a forward pass over the support set.

    Args:
        encode: `(params, x [n, ...], y [n, ...]) -> context`, the summary of a support set that the queries read. If
            the support set has weights, they are one more argument, `weight [n]`.
        decode: `(params, context, x [m, ...]) -> predictions [m, ...]`. A `ContextTransformer` has both functions.
        loss_fn: `(predictor, batch, key) -> (loss, metrics)`, where `predictor(x)` returns predictions. `None`
            (default) takes the predictions for logits and computes cross-entropy and accuracy. For regression take
            `jaxmeta.regression(lambda f, x: f(x))`.

    Returns:
        A `MetaLearner`. Its `adapt` returns a predictor: a `jax.tree_util.Partial` that you call with inputs
        `[m, ...]`.

    Example:
        >>> import functools
        >>> from jaxmeta import models
        >>> model = ContextTransformer(out=5, backbone=models.OmniglotCNN())
        >>> learner = in_context(
        ...     functools.partial(model.apply, method="encode"), functools.partial(model.apply, method="decode")
        ... )

    References:
        Kirsch, Harrison, Sohl-Dickstein & Metz, *General-Purpose In-Context Learning by Meta-Learning Transformers*,
        2022, https://arxiv.org/abs/2212.04458
        Mishra, Rohaninejad, Chen & Abbeel, *A Simple Neural Attentive Meta-Learner*, ICLR 2018,
        https://arxiv.org/abs/1707.03141
    """

    def fit(meta: MetaParams, support: Batch, key: jax.Array | None) -> tuple[PyTree, PyTree]:
        del key
        variables = meta.variables
        weight = [] if support.weight is None else [support.weight]
        return variables, encode(variables, support.x, support.y, *weight)

    def predict(fitted: tuple[PyTree, PyTree], x: Any, key: jax.Array | None) -> Any:
        del key
        return decode(*fitted, x)

    return by_fit(fit, predict, classification(call) if loss_fn is None else loss_fn)


class ContextTransformer(nn.Module):
    """A transformer over labeled examples, for `in_context`.

    A token is the sum of a linear map of the input and, for a support example, a linear map of its label. All tokens
    attend to the support tokens and to no query. So the support set is read once, its order does not matter, and
    queries do not see each other. Layers normalize first. The weight of an example multiplies the attention to it.

    Attributes:
        out: number of outputs, which are classes or targets.
        width: length of the tokens (default: 64).
        layers: number of attention layers, each with a two-layer network (default: 3).
        heads: number of heads of each attention, a divisor of `width` (default: 4).
        backbone: network with a `features` method for the inputs, such as the models of `jaxmeta.models`. `None`
            (default) takes inputs `[n, d]` as they are.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> model = ContextTransformer(out=3)
        >>> x = jnp.zeros((4, 2))
        >>> params = model.init(jax.random.key(0), x)
        >>> context = model.apply(params, x, jnp.array([0, 1, 2, 0]), method="encode")
        >>> model.apply(params, context, jnp.zeros((7, 2)), method="decode").shape
        (7, 3)
    """

    out: int
    width: int = 64
    layers: int = 3
    heads: int = 4
    backbone: Any = None

    def __post_init__(self) -> None:
        check_integer(out=self.out, width=self.width, layers=self.layers, heads=self.heads)
        if self.width % self.heads:
            raise ValueError(f"heads must divide width {self.width}, got {self.heads}")
        super().__post_init__()

    def setup(self) -> None:
        """Makes the layers."""
        self.input, self.label = nn.Dense(self.width), nn.Dense(self.width)
        self.blocks = [_Block(self.heads) for _ in range(self.layers)]
        self.norm, self.output = nn.LayerNorm(), nn.Dense(self.out)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns outputs `[n, out]` for `x: [n, ...]` from labels of zero at the same inputs, for `init`."""
        return self.decode(self.encode(x, jnp.zeros((x.shape[0], self.out), x.dtype)), x)

    def encode(
        self, x: jax.Array, y: jax.Array, weight: jax.Array | None = None
    ) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
        """Returns the support tokens before each layer, `layers` times `[n, width]`, and the weights.

        Args:
            x: inputs `[n, ...]`.
            y: integer classes `[n]`, or targets `[n, out]`.
            weight: weights of the examples `[n]`. `None` (default) counts all alike.
        """
        features = self._features(x)
        labels = jax.nn.one_hot(y, self.out, dtype=features.dtype) if jnp.issubdtype(y.dtype, jnp.integer) else y
        tokens = self.input(features) + self.label(labels)
        context = []
        for block in self.blocks:
            context.append(tokens)
            tokens = block(tokens, tokens, weight)
        return tuple(context), weight

    def decode(self, context: tuple[tuple[jax.Array, ...], jax.Array | None], x: jax.Array) -> jax.Array:
        """Returns outputs `[m, out]` for `x: [m, ...]`."""
        layers, weight = context
        tokens = self.input(self._features(x))
        for block, support in zip(self.blocks, layers, strict=True):
            tokens = block(tokens, support, weight)
        return self.output(self.norm(tokens))

    def _features(self, x: jax.Array) -> jax.Array:
        """Returns the features of the inputs, which are the inputs themselves without a backbone."""
        return x if self.backbone is None else self.backbone.features(x)


class _Block(nn.Module):
    """A layer: attention to `support: [n, width]` and a two-layer network, each added to the tokens `[m, width]`."""

    heads: int

    @nn.compact
    def __call__(self, tokens: jax.Array, support: jax.Array, weight: jax.Array | None) -> jax.Array:
        norm = nn.LayerNorm(name="norm")
        bias, some = None, support.shape[0] > 0
        if weight is not None:
            some = some & jnp.any(weight != 0)
            bias = jnp.where(some, log_weights(weight), 0).astype(tokens.dtype)[None, None]
        attention = nn.MultiHeadDotProductAttention(
            self.heads, use_bias=False, attention_fn=partial(nn.dot_product_attention, bias=bias), name="attention"
        )
        if support.shape[0]:  # an empty support set adds nothing, nor does one of padding alone
            tokens = tokens + jnp.where(some, attention(norm(tokens), norm(support)), 0)
        hidden = nn.gelu(nn.Dense(2 * tokens.shape[-1], name="hidden")(nn.LayerNorm(name="hidden_norm")(tokens)))
        return tokens + nn.Dense(tokens.shape[-1], name="out")(hidden)
