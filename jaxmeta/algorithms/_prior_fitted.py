"""Prior-fitted networks (Müller et al. 2022, https://arxiv.org/abs/2112.10510).

A transformer reads a support set and predicts the whole distribution of a target. Trained on draws of a prior, it
learns to compute the posterior of that prior in one forward pass.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_integer
from jaxmeta._types import Batch, MetaLearner, Metrics, PyTree
from jaxmeta.algorithms._in_context import ContextTransformer, in_context
from jaxmeta.display import brief, described
from jaxmeta.losses import BarDistribution, bar_edges, weighted_mean


@described
def prior_fitted_network(
    encode: Callable[..., PyTree], decode: Callable[[PyTree, PyTree, Any], BarDistribution]
) -> MetaLearner:
    """Prior-fitted network, for regression with uncertainty: `in_context` with a likelihood of bars.

    For a support set `D` and a query `(x, y)`, both drawn from a prior, and a network `q` with meta-parameters
    `theta`,

        loss = -log q_theta(y | x, D)

    Its mean over the prior is the mean divergence of the exact posterior from `q_theta(. | x, D)`, up to a constant.
    So the network that minimizes it is the posterior. Draw the size of `D` at random, as `data.GaussianProcess` does
    with a pair `shots`, and one network serves all sizes.

    Args:
        encode: `(params, x [n, ...], y [n, 1]) -> context`, the summary of a support set that the queries read. If the
            support set has weights, they are one more argument, `weight [n]`.
        decode: `(params, context, x [m, ...]) -> BarDistribution` of the targets `[m, 1]`. A `BarTransformer` has both
            functions.

    Returns:
        A `MetaLearner`. Its `adapt` returns a regressor: a `jax.tree_util.Partial` that you call with inputs for a
        `BarDistribution`. The loss is the negative log-likelihood per example in nats. The metric `mse` is the squared
        error of the mean.

    Example:
        >>> import functools
        >>> model = BarTransformer(bars=20, width=16, layers=1)
        >>> learner = prior_fitted_network(
        ...     functools.partial(model.apply, method="encode"), functools.partial(model.apply, method="decode")
        ... )
        >>> draws = jax.random.normal(jax.random.key(0), (1000,))
        >>> meta = learner.init(model.init(jax.random.key(1), jnp.zeros((1, 1)), draws))
        >>> support = Batch(jnp.zeros((3, 1)), jnp.zeros((3, 1)))
        >>> predicted = learner.adapt(meta, support, jax.random.key(2))(jnp.zeros((7, 1)))
        >>> predicted.mean.shape, predicted.quantile(0.9).shape
        ((7, 1), (7, 1))

    References:
        Müller, Hollmann, Pineda Arango, Grabocka & Hutter, *Transformers Can Do Bayesian Inference*, ICLR 2022,
        https://arxiv.org/abs/2112.10510
    """
    return in_context(encode, decode, _negative_log_likelihood)


class BarTransformer(nn.Module):
    """A `ContextTransformer` that predicts a `BarDistribution` of one target, for `prior_fitted_network`.

    The edges of the bars are variables of the collection `"bars"`. They are carried and saved with the parameters, and
    no optimizer changes them.

    Attributes:
        bars: number of bars (default: 100).
        width: see `ContextTransformer`, here and below.
        layers: number of attention layers (default: 3).
        heads: number of heads of each attention (default: 4).
        backbone: network with a `features` method for the inputs, or `None` (default).

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> model = BarTransformer(bars=10, width=8, layers=1)
        >>> draws = jax.random.uniform(jax.random.key(0), (1000,))
        >>> variables = model.init(jax.random.key(1), jnp.zeros((1, 2)), draws)
        >>> variables["bars"]["edges"].shape, model.apply(variables, jnp.zeros((5, 2))).mean.shape
        ((11,), (5, 1))
    """

    bars: int = 100
    width: int = 64
    layers: int = 3
    heads: int = 4
    backbone: Any = None

    def __post_init__(self) -> None:
        check_integer(least=2, bars=self.bars)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the transformer and the edges of the bars."""
        self.transformer = ContextTransformer(self.bars, self.width, self.layers, self.heads, self.backbone)
        self.edges = self.variable("bars", "edges", jnp.zeros, (self.bars + 1,))

    def __call__(self, x: jax.Array, targets: jax.Array | None = None) -> BarDistribution:
        """Predicts at `x: [n, ...]` from targets of zero at the same inputs, for `init`.

        Args:
            x: inputs.
            targets: draws of targets from the prior, any shape, from which `init` makes bars of equal probability by
                `bar_edges`. `None` (default) makes those of a standard normal distribution.
        """
        if self.is_initializing():
            if targets is None:
                targets = jax.scipy.stats.norm.ppf((jnp.arange(100 * self.bars) + 0.5) / (100 * self.bars))
            self.edges.value = bar_edges(targets, self.bars)
        return self.decode(self.encode(x, jnp.zeros((x.shape[0], 1), x.dtype)), x)

    def encode(self, x: jax.Array, y: jax.Array, weight: jax.Array | None = None) -> Any:
        """Returns what queries read of a support set, see `ContextTransformer.encode`, for targets `y: [n, 1]`."""
        if y.shape != (x.shape[0], 1):
            raise ValueError(f"y must be targets of shape {(x.shape[0], 1)}, one for each input, got {brief(y)}")
        return self.transformer.encode(x, y.astype(jnp.result_type(y.dtype, float)), weight)

    def decode(self, context: Any, x: jax.Array) -> BarDistribution:
        """Predicts targets `[m, 1]` at `x: [m, ...]`."""
        logits = self.transformer.decode(context, x)
        edges = jnp.broadcast_to(self.edges.value, (logits.shape[0], 1, self.bars + 1))  # one row for each query
        return BarDistribution(logits[:, None], edges)


def _negative_log_likelihood(
    regressor: Callable[[Any], BarDistribution], batch: Batch, key: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Returns the negative log-likelihood per example, in nats, and the squared error of the mean."""
    del key
    predicted = regressor(batch.x)
    if not isinstance(predicted, BarDistribution) or predicted.logits.shape[:-1] != batch.y.shape:
        raise ValueError(
            f"decode must return a BarDistribution of the targets' shape {batch.y.shape}, got {brief(predicted)}"
        )
    likelihood = weighted_mean(predicted.log_prob(batch.y), batch.weight)
    return -likelihood, {"mse": weighted_mean(jnp.square(predicted.mean - batch.y), batch.weight)}
