"""Conditional neural processes (Garnelo et al. 2018, https://arxiv.org/abs/1807.01613).

The support set becomes the mean of what a network makes of each example; another network predicts from it a Gaussian
at any input.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_integer
from jaxmeta._types import Batch, MetaLearner, Metrics, PyTree
from jaxmeta.algorithms._heads import check_positive
from jaxmeta.algorithms._in_context import in_context


class Gaussian(NamedTuple):
    """Independent normal distributions."""

    mean: jax.Array
    """`[n, out]`."""
    std: jax.Array
    """Standard deviations, `[n, out]`; positive."""


def conditional_neural_process(
    encode: Callable[[PyTree, Any, Any], PyTree], decode: Callable[[PyTree, PyTree, Any], Any]
) -> MetaLearner:
    """Conditional neural process, for regression with uncertainty: `in_context` with a Gaussian likelihood.

    Args:
        encode: `(params, x [n, ...], y [n, ...]) -> representation` of a support set.
        decode: `(params, representation, x [m, ...]) -> Gaussian` of the targets. `NeuralProcess` has both.

    Returns:
        A `MetaLearner`. `adapt` returns a regressor, a `jax.tree_util.Partial` that is called with inputs and returns a
        `Gaussian`. The loss is the negative log-likelihood per example in nats; the metric `mse` is the squared error
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
    """The networks of a conditional neural process, for `conditional_neural_process`.

    Attributes:
        out: number of targets.
        encoder: widths of the encoder's layers; the last one is the size of the representation.
        decoder: widths of the decoder's hidden layers.
        min_std: least standard deviation that is predicted.

    Raises:
        ValueError: If a number is out of range.

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
    min_std: float = 0.1

    def __post_init__(self) -> None:
        check_integer(out=self.out)
        for width in (*self.encoder, *self.decoder):
            check_integer(width=width)
        check_positive(min_std=self.min_std)
        super().__post_init__()

    def setup(self) -> None:
        """Make the two networks."""
        self.encoder_net = _dense(self.encoder)
        self.decoder_net = _dense((*self.decoder, 2 * self.out))

    def __call__(self, x: jax.Array) -> Gaussian:
        """Prediction at `x: [n, d]` from targets of zero at the same inputs; for `init`."""
        return self.decode(self.encode(x, jnp.zeros((x.shape[0], self.out), x.dtype)), x)

    def encode(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Representation `[encoder[-1]]` of `x: [n, d]` and `y: [n, out]`."""
        return jnp.mean(self.encoder_net(jnp.concatenate([x, y], 1)), 0)

    def decode(self, representation: jax.Array, x: jax.Array) -> Gaussian:
        """Prediction at `x: [m, d]`."""
        repeated = jnp.broadcast_to(representation, (x.shape[0], representation.shape[0]))
        mean, spread = jnp.split(self.decoder_net(jnp.concatenate([repeated, x], 1)), 2, axis=1)
        return Gaussian(mean, self.min_std + (1 - self.min_std) * jax.nn.softplus(spread))


def _dense(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[Callable[..., Any]] = []
    for width in widths:
        layers += [nn.Dense(width), nn.relu]
    return nn.Sequential(layers[:-1])


def _negative_log_likelihood(
    regressor: Callable[[Any], Gaussian], batch: Batch, key: jax.Array
) -> tuple[jax.Array, Metrics]:
    del key
    mean, std = regressor(batch.x)
    if mean.shape != batch.y.shape:
        raise ValueError(f"decode must return means of the targets' shape {batch.y.shape}, got {mean.shape}")
    log_density = jax.scipy.stats.norm.logpdf(batch.y, mean, std)
    return -jnp.mean(jnp.sum(log_density.reshape(mean.shape[0], -1), 1)), {"mse": jnp.mean(jnp.square(mean - batch.y))}
