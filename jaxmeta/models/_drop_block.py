"""DropBlock: dropout for feature maps."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class DropBlock(nn.Module):
    """Drops square blocks of each channel of a feature map, and scales up what is left.

    It acts when a random key is given and is the identity otherwise:
    `model.apply(params, x, rngs={"dropout": key})` for training, `model.apply(params, x)` for everything else.

    Blocks start where a coin says so, at every place where a whole block fits, each with the probability for which a
    share `rate` of the entries would be dropped if blocks did not overlap. What is left is scaled by one number for the
    whole batch, entries over kept entries. As in MetaOptNet's code, but for the rate, which there rises from 0 over
    40,000 updates.

    Attributes:
        rate: Share of the entries to drop, in [0, 1).
        size: Height and width of a block; less if the map is smaller.

    Raises:
        ValueError: If an attribute is out of range, or the input is not `[n, h, w, c]`.

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

    rate: float
    size: int = 5

    def __post_init__(self) -> None:
        check_rate(rate=self.rate)
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Drop blocks of `x: [n, h, w, c]` if there is a key named `"dropout"`."""
        if x.ndim != 4:
            raise ValueError(f"DropBlock needs an input [n, height, width, channels], got shape {x.shape}")
        if self.rate == 0 or not self.has_rng("dropout"):
            return x
        n, height, width, channels = x.shape
        size = min(self.size, height, width)
        places = (height - size + 1, width - size + 1)
        probability = self.rate * height * width / (size**2 * places[0] * places[1])
        starts = jax.random.bernoulli(self.make_rng("dropout"), probability, (n, *places, channels))
        keep = ~_spread(_spread(starts, size, 1), size, 2)
        scale = keep.size / jnp.maximum(jnp.sum(keep), 1)
        return jnp.where(keep, x * scale.astype(x.dtype), jnp.zeros((), x.dtype))


def check_rate(**rates: float) -> None:
    """Raises ValueError unless every rate is in [0, 1)."""
    for name, rate in rates.items():
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"{name} must be in [0, 1), got {rate!r}")


def _spread(starts: jax.Array, size: int, axis: int) -> jax.Array:
    """True also at the `size - 1` entries after a True, on an axis that gets so much longer."""
    pads = [[(0, 0)] * axis + [(i, size - 1 - i)] + [(0, 0)] * (starts.ndim - axis - 1) for i in range(size)]
    spread = jnp.pad(starts, pads[0])
    for pad in pads[1:]:
        spread |= jnp.pad(starts, pad)
    return spread
