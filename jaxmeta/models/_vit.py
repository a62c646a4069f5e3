"""A small vision transformer."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.models._cnn import XAVIER, check_image, check_sizes
from jaxmeta.models._conv import Conv, Lowering
from jaxmeta.models._drop_block import check_rate

_SMALL = nn.initializers.truncated_normal(0.02)


class ViT(nn.Module):
    """A vision transformer; at the defaults ViT-Tiny: patches as tokens, pre-norm blocks, the class token, linear.

    With patches of 16 for 224x224x3 images and 1000 ways, 5,717,416 parameters, and with `hidden=384, heads=6`
    (ViT-Small) 22,050,664: DeiT's 5 and 22 million. For small images take small patches: 4 make 49 tokens of 28x28.
    Parameters are `{"body": ..., "head": ...}`; those of the positions fit one image size only. There is no batch norm,
    so nothing is transductive. Dropout acts when a key is given, as `model.apply(params, x, rngs={"dropout": key})`.

    Attributes:
        ways: Number of outputs.
        patch: Height and width of a patch; divides those of the image.
        hidden: Width of a token, and length of the features.
        depth: Number of blocks.
        heads: Attention heads; divides `hidden`.
        drop_rate: Share of the entries dropped from the result of each attention and each perceptron.
        lowering: Of the convolution that embeds the patches, see `Conv`.
        dtype: Of the computation; None takes the common type of input and parameters.
        param_dtype: Of the parameters.

    Raises:
        ValueError: If an attribute is out of range, the input is not `[n, h, w, c]`, or patches do not tile it.

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
    drop_rate: float = 0.0
    lowering: Lowering = "auto"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_sizes(ways=self.ways, patch=self.patch, hidden=self.hidden, depth=self.depth, heads=self.heads)
        if self.hidden % self.heads:
            raise ValueError(f"heads must divide hidden, {self.hidden}, got {self.heads}")
        check_rate(drop_rate=self.drop_rate)
        super().__post_init__()

    def setup(self) -> None:
        """Make the body and the head."""
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
        """Logits `[n, ways]` of images `x: [n, h, w, c]`."""
        return self.head(self.features(x))

    def features(self, x: jax.Array) -> jax.Array:
        """Features `[n, hidden]` of the same images: the class token."""
        check_image("ViT", x, self.patch)
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ValueError(f"ViT needs images that patches of {self.patch} tile, got shape {x.shape}")
        return self.body(x)


class _Tokens(nn.Module):
    """The class token after all blocks."""

    patch: int
    hidden: int
    depth: int
    heads: int
    drop_rate: float
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
            x = x + self._drop(self._attend(self._norm(x, f"norm_{i}_0"), f"attention_{i}"))
            y = nn.gelu(self._dense(self._norm(x, f"norm_{i}_1"), 4 * self.hidden, f"dense_{i}_0"), approximate=False)
            x = x + self._drop(self._dense(y, self.hidden, f"dense_{i}_1"))
        return self._norm(x[:, 0], "norm")

    def _attend(self, x: jax.Array, name: str) -> jax.Array:
        attention = nn.MultiHeadDotProductAttention(
            self.heads, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=XAVIER, name=name
        )
        return attention(x)

    def _dense(self, x: jax.Array, size: int, name: str) -> jax.Array:
        return nn.Dense(size, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=XAVIER, name=name)(x)

    def _norm(self, x: jax.Array, name: str) -> jax.Array:
        norm = nn.LayerNorm(1e-6, self.dtype, self.param_dtype, use_fast_variance=False, name=name)
        return norm(x)

    def _drop(self, x: jax.Array) -> jax.Array:
        return nn.Dropout(self.drop_rate, deterministic=not self.has_rng("dropout"))(x)
