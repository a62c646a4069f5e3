"""A small vision transformer."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_fraction, check_integer
from jaxmeta.models._cnn import XAVIER, check_image, standardize
from jaxmeta.models._conv import Conv, Lowering
from jaxmeta.models._drop_block import Dropout

_SMALL = nn.initializers.truncated_normal(0.02)


class ViT(nn.Module):
    """A vision transformer: patches as tokens, pre-norm blocks, the class token, linear.

    The default is ViT-Tiny. With patches of 16 for 224x224x3 images and 1000 ways it has 5,717,416 parameters, and with
    `hidden=384, heads=6` (ViT-Small) 22,050,664, DeiT's 5 and 22 million. Take small patches for small images: patches
    of 4 make 49 tokens of a 28x28 image. Parameters are `{"body": ..., "head": ...}`. Those of the positions fit only
    one image size. There is no batch norm, so nothing is transductive. `from_torch` reads weights of torchvision and
    timm, and `recognize` finds the attributes from them. Dropout acts when a key is given, as
    `model.apply(params, x, rngs={"dropout": key})`.

    Attributes:
        ways: number of outputs (default: 5).
        patch: height and width of a patch, a divisor of those of the image (default: 16).
        hidden: width of a token, and length of the features (default: 192).
        depth: number of blocks (default: 12).
        heads: number of attention heads, a divisor of `hidden` (default: 3).
        mean: mean of each channel, or of all, which is subtracted from the images (default: 0).
        std: standard deviation of each channel, or of all, by which they are then divided (default: 1).
        drop_rate: share of the entries dropped from the result of each attention and each perceptron, in [0, 1)
            (default: 0).
        lowering: method of the convolution that embeds the patches, see `Conv`.
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameters (default: float32).

    Raises:
        ValueError: if an attribute is out of range, the input is not `[n, h, w, c]`, or patches do not tile it.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params = jax.eval_shape(ViT(ways=1000).init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
        >>> sum(p.size for p in jax.tree.leaves(params))
        5717416

    References:
        Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021. https://arxiv.org/abs/2010.11929
        Touvron et al., "Training Data-Efficient Image Transformers", 2021. https://arxiv.org/abs/2012.12877
    """

    ways: int = 5
    patch: int = 16
    hidden: int = 192
    depth: int = 12
    heads: int = 3
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    drop_rate: float | jax.Array = 0.0
    lowering: Lowering = "im2col"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_integer(ways=self.ways, patch=self.patch, hidden=self.hidden, depth=self.depth, heads=self.heads)
        if self.hidden % self.heads:
            raise ValueError(f"heads must divide hidden {self.hidden}, got {self.heads}")
        check_fraction(below_one=True, drop_rate=self.drop_rate)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the body and the head."""
        self.body = _Tokens(
            self.patch,
            self.hidden,
            self.depth,
            self.heads,
            self.drop_rate,
            self.lowering,
            self.dtype,
            self.param_dtype,
        )
        self.head = nn.Dense(self.ways, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=_SMALL)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits `[n, ways]` of images `x: [n, h, w, c]`."""
        return self.head(self.features(x))

    def features(self, x: jax.Array) -> jax.Array:
        """Returns features `[n, hidden]` of the same images, which are the class token."""
        check_image("ViT", x, self.patch)
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ValueError(f"ViT needs images that patches of {self.patch} tile, got shape {x.shape}")
        return self.body(standardize("ViT", x, self.mean, self.std))


class _Tokens(nn.Module):
    """The blocks, which return the class token."""

    patch: int
    hidden: int
    depth: int
    heads: int
    drop_rate: float | jax.Array
    lowering: Lowering
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        embed = Conv(
            self.hidden,
            (self.patch, self.patch),
            strides=self.patch,
            padding="VALID",
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            lowering=self.lowering,
            name="embed",
        )
        x = embed(x)
        x = x.reshape(x.shape[0], -1, self.hidden)
        token = self.param("token", nn.initializers.zeros_init(), (1, 1, self.hidden), self.param_dtype)
        position = self.param("position", _SMALL, (1, x.shape[1] + 1, self.hidden), self.param_dtype)
        x = jnp.concatenate([jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, self.hidden)), x], 1)
        x = x + position.astype(x.dtype)
        for i in range(self.depth):
            x = x + Dropout(self.drop_rate)(self._attend(self._norm(x, f"norm_{i}_0"), f"attention_{i}"))
            y = nn.gelu(self._dense(self._norm(x, f"norm_{i}_1"), 4 * self.hidden, f"dense_{i}_0"), approximate=False)
            x = x + Dropout(self.drop_rate)(self._dense(y, self.hidden, f"dense_{i}_1"))
        return self._norm(x[:, 0], "norm")

    def _attend(self, x: jax.Array, name: str) -> jax.Array:
        """Applies self-attention."""
        attention = nn.MultiHeadDotProductAttention(
            self.heads, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=XAVIER, name=name
        )
        return attention(x)

    def _dense(self, x: jax.Array, size: int, name: str) -> jax.Array:
        """Applies a linear layer."""
        return nn.Dense(size, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=XAVIER, name=name)(x)

    def _norm(self, x: jax.Array, name: str) -> jax.Array:
        """Applies layer normalization."""
        norm = nn.LayerNorm(1e-6, self.dtype, self.param_dtype, use_fast_variance=False, name=name)
        return norm(x)
