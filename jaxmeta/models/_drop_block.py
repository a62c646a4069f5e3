"""Dropout for features and for feature maps, with a rate that may be traced."""

import numbers

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_fraction, check_integer


class Dropout(nn.Module):
    """Dropout that acts when a random key is given, and is the identity otherwise.

    It gives the same numbers as `flax.linen.Dropout`, whose rate must not be traced.

    Attributes:
        rate: share of the entries to drop, in [0, 1).
    """

    rate: float | jax.Array

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Drops entries of `x` if there is a key named `"dropout"`."""
        if _is_zero(self.rate) or not self.has_rng("dropout"):
            return x
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.rate, x.shape)
        return jnp.where(kept, x / jnp.asarray(1.0 - self.rate, x.dtype), jnp.zeros((), x.dtype))


class DropBlock(nn.Module):
    """DropBlock: drops square blocks of each channel of a feature map, and scales up the rest.

    It acts when a random key is given and is the identity otherwise. For training call
    `model.apply(params, x, rngs={"dropout": key})`, and for everything else `model.apply(params, x)`.

    A block may start at every place where a whole block fits. Each starts with the same probability, for which a share
    `rate` of the entries would be dropped if blocks did not overlap. The rest is scaled by one number for the whole
    batch, entries over kept entries. This is MetaOptNet's code, except that its rate rises from 0 over 40,000 updates.

    Attributes:
        rate: share of the entries to drop, in [0, 1).
        size: height and width of a block (default: 5), or less if the map is smaller.

    Raises:
        ValueError: if an attribute is out of range, or the input is not `[n, h, w, c]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.ones((1, 4, 4, 1))
        >>> layer = DropBlock(rate=0.3, size=2)
        >>> bool((layer.apply({}, x) == x).all())
        True
        >>> (layer.apply({}, x, rngs={"dropout": jax.random.key(1)})[0, :, :, 0] > 0).astype(int).tolist()
        [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]

    References:
        Ghiasi, Lin and Le, "DropBlock", 2018. https://arxiv.org/abs/1810.12890
        Lee et al., "Meta-Learning with Differentiable Convex Optimization", 2019. https://arxiv.org/abs/1904.03758
    """

    rate: float | jax.Array
    size: int = 5

    def __post_init__(self) -> None:
        check_fraction(below_one=True, rate=self.rate)
        check_integer(size=self.size)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Drops blocks of `x: [n, h, w, c]` if there is a key named `"dropout"`."""
        if x.ndim != 4:
            raise ValueError(f"DropBlock needs an input [n, height, width, channels], got shape {x.shape}")
        if _is_zero(self.rate) or not self.has_rng("dropout"):
            return x
        n, height, width, channels = x.shape
        size = min(self.size, height, width)
        places = (height - size + 1, width - size + 1)
        # Expected share of dropped entries: probability * size^2 * places / (height * width) = rate
        probability = self.rate * height * width / (size**2 * places[0] * places[1])
        starts = jax.random.bernoulli(self.make_rng("dropout"), probability, (n, *places, channels))
        keep = ~_spread(_spread(starts, size, 1), size, 2)
        scale = keep.size / jnp.maximum(jnp.sum(keep), 1)
        return jnp.where(keep, x * scale.astype(x.dtype), jnp.zeros((), x.dtype))


def _is_zero(rate: float | jax.Array) -> bool:
    """Returns whether the rate is known to be 0."""
    return isinstance(rate, numbers.Real) and bool(rate == 0)


def _spread(starts: jax.Array, size: int, axis: int) -> jax.Array:
    """Extends each true entry over the next `size - 1` entries of an axis, which becomes longer by as many."""
    pads = [[(0, 0)] * axis + [(i, size - 1 - i)] + [(0, 0)] * (starts.ndim - axis - 1) for i in range(size)]
    spread = jnp.pad(starts, pads[0])
    for pad in pads[1:]:
        spread |= jnp.pad(starts, pad)
    return spread
