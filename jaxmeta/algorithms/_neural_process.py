"""Conditional neural processes (Garnelo et al. 2018, https://arxiv.org/abs/1807.01613).

A network encodes each support example, and the mean of the codes represents the support set. Another network predicts
from it a Gaussian at any input.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_integer, check_integers, check_positive
from jaxmeta._types import Batch, MetaLearner, Metrics, PyTree, at_least_float32
from jaxmeta.algorithms._in_context import in_context
from jaxmeta.display import described, short_repr
from jaxmeta.losses import weighted_mean


class Gaussian(NamedTuple):
    """Independent normal distributions."""

    mean: jax.Array
    """Means, `[n, out]`."""
    std: jax.Array
    """Standard deviations, `[n, out]`, positive."""

    __repr__ = short_repr


@described
def conditional_neural_process(
    encode: Callable[..., PyTree], decode: Callable[[PyTree, PyTree, Any], Any]
) -> MetaLearner:
    """Conditional neural process, for regression with uncertainty: `in_context` with a Gaussian likelihood.

    For a support set of pairs `(x_i, y_i)` and an encoder `h` and decoder `g`,

        r = mean_i h(x_i, y_i),    a weighted mean if the support set has weights
        mu(x), sigma(x) = g(r, x)
        loss = -mean_j log N(y_j | mu(x_j), sigma(x_j)^2),    over the query set

    Args:
        encode: `(params, x [n, ...], y [n, ...]) -> representation` of a support set, the `r` above. If the support set
            has weights, they are one more argument, `weight [n]`.
        decode: `(params, representation, x [m, ...]) -> Gaussian` of the targets. A `NeuralProcess` has both functions.

    Returns:
        A `MetaLearner`. Its `adapt` returns a regressor: a `jax.tree_util.Partial` that you call with inputs for a
        `Gaussian`. The loss is the negative log-likelihood per example in nats. The metric `mse` is the squared error
        of the mean.

    Example:
        >>> import functools
        >>> model = NeuralProcess()
        >>> learner = conditional_neural_process(
        ...     functools.partial(model.apply, method="encode"), functools.partial(model.apply, method="decode")
        ... )
        >>> meta = learner.init(model.init(jax.random.key(0), jnp.zeros((1, 1))))
        >>> support = Batch(jnp.zeros((3, 1)), jnp.zeros((3, 1)))
        >>> learner.adapt(meta, support, jax.random.key(1))(jnp.zeros((7, 1))).std.shape
        (7, 1)

    References:
        Garnelo et al., *Conditional Neural Processes*, ICML 2018, https://arxiv.org/abs/1807.01613
    """
    return in_context(encode, decode, _negative_log_likelihood)


class NeuralProcess(nn.Module):
    """The two networks of a conditional neural process, for `conditional_neural_process`.

    Attributes:
        out: number of targets (default: 1).
        encoder: widths of the encoder's layers. The last one is the size of the representation.
        decoder: widths of the decoder's hidden layers.
        min_std: smallest standard deviation of a prediction, positive (default: 0.1).

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> model = NeuralProcess(out=2)
        >>> params = model.init(jax.random.key(0), jnp.zeros((1, 3)))
        >>> model.apply(params, jnp.zeros((5, 3)), jnp.zeros((5, 2)), method="encode").shape
        (128,)

    References:
        Garnelo et al., *Conditional Neural Processes*, ICML 2018, https://arxiv.org/abs/1807.01613
    """

    out: int = 1
    encoder: Sequence[int] = (128, 128, 128)
    decoder: Sequence[int] = (128, 128)
    min_std: float | jax.Array = 0.1

    def __post_init__(self) -> None:
        check_integer(out=self.out)
        check_integers(encoder=self.encoder, decoder=self.decoder)
        check_positive(min_std=self.min_std)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the two networks."""
        self.encoder_net = _dense(self.encoder)
        self.decoder_net = _dense((*self.decoder, 2 * self.out))

    def __call__(self, x: jax.Array) -> Gaussian:
        """Predicts at `x: [n, d]` from targets of zero at the same inputs, for `init`."""
        return self.decode(self.encode(x, jnp.zeros((x.shape[0], self.out), x.dtype)), x)

    def encode(self, x: jax.Array, y: jax.Array, weight: jax.Array | None = None) -> jax.Array:
        """Returns the representation `[encoder[-1]]` of `x: [n, d]` and `y: [n, out]`, zeros if there is no example."""
        codes = self.encoder_net(jnp.concatenate([x, y], 1))
        return weighted_mean(codes, weight, 0) if len(codes) else jnp.zeros_like(codes, shape=codes.shape[1:])

    def decode(self, representation: jax.Array, x: jax.Array) -> Gaussian:
        """Predicts at `x: [m, d]`."""
        repeated = jnp.broadcast_to(representation, (x.shape[0], representation.shape[0]))
        mean, spread = jnp.split(self.decoder_net(jnp.concatenate([repeated, x], 1)), 2, axis=1)
        # sigma = min_std + (1 - min_std) * softplus(spread)
        return Gaussian(mean, self.min_std + (1 - self.min_std) * jax.nn.softplus(spread))


def _dense(widths: Sequence[int]) -> nn.Sequential:
    """Builds linear layers with ReLU between them."""
    layers: list[Callable[..., Any]] = []
    for width in widths:
        layers += [nn.Dense(width), nn.relu]
    return nn.Sequential(layers[:-1])


def _negative_log_likelihood(
    regressor: Callable[[Any], Gaussian], batch: Batch, key: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Returns the negative log-likelihood per example, in nats, and the squared error of the mean."""
    del key
    mean, std = at_least_float32(regressor(batch.x))
    if mean.shape != batch.y.shape:
        raise ValueError(f"decode must return means of the targets' shape {batch.y.shape}, got {mean.shape}")
    log_density = jax.scipy.stats.norm.logpdf(batch.y, mean, std)
    likelihood = weighted_mean(jnp.sum(log_density.reshape(mean.shape[0], -1), 1), batch.weight)
    return -likelihood, {"mse": weighted_mean(jnp.square(mean - batch.y), batch.weight)}
