"""The twelve-layer residual network of few-shot image classification."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.models._cnn import XAVIER, check_image, check_sizes, max_pool
from jaxmeta.models._conv import Conv, Lowering
from jaxmeta.models._drop_block import DropBlock, check_rate
from jaxmeta.models._norm import Norm, check_norm, make_norm

_HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResNet12(nn.Module):
    """MetaOptNet's ResNet-12: four blocks of three 3x3 convolutions with a shortcut, each max-pooled, mean, linear.

    12,427,525 parameters for 84x84x3 images and 5 ways; 7,999,365 with `sizes=(64, 128, 256, 512)`, TADAM's, which
    Meta-Baseline and others take. Parameters are `{"body": ..., "head": ...}`. Dropout (elementwise after the first two
    blocks, DropBlock after the others) acts when a key is given, as `model.apply(params, x, rngs={"dropout": key})`.
    With `norm="batch"` predictions are transductive unless statistics are given (see `BatchNorm`).

    Attributes:
        ways: Number of outputs.
        sizes: Channels of each block; each halves height and width, an odd last row or column is dropped.
        mean: Features are the mean over space; otherwise all of the last map, flat, 16,000 for 84x84 images.
        drop_rate: Share of the entries that dropout drops.
        block_size: Height and width of DropBlock's blocks: 5 for ImageNet's 84x84 images, 2 for CIFAR's 32x32.
        norm: `"batch"`, `"group"`, `"layer"` or `"none"`.
        lowering: Of the convolutions, see `Conv`.
        dtype: Of the computation; None takes the common type of input and parameters.
        param_dtype: Of the parameters.

    Raises:
        ValueError: If an attribute is out of range, the input is not `[n, h, w, c]`, or the image is too small.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params = jax.eval_shape(ResNet12(ways=5).init, jax.random.key(0), jnp.zeros((1, 84, 84, 3)))
        >>> sum(p.size for p in jax.tree.leaves(params))
        12427525

    References:
        Lee et al., "Meta-Learning with Differentiable Convex Optimization", 2019. https://arxiv.org/abs/1904.03758
        Oreshkin, Rodriguez and Lacoste, "TADAM", 2018. https://arxiv.org/abs/1805.10123
    """

    ways: int = 5
    sizes: Sequence[int] = (64, 160, 320, 640)
    mean: bool = True
    drop_rate: float = 0.1
    block_size: int = 5
    norm: Norm = "batch"
    lowering: Lowering = "auto"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_sizes(ways=self.ways, sizes=min(self.sizes, default=0), block_size=self.block_size)
        check_rate(drop_rate=self.drop_rate)
        check_norm(self.norm)
        super().__post_init__()

    def setup(self) -> None:
        """Make the body and the head."""
        self.body = _ResidualBody(
            self.sizes, self.drop_rate, self.block_size, self.norm, self.lowering, self.dtype, self.param_dtype
        )
        self.head = nn.Dense(self.ways, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=XAVIER)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits `[n, ways]` of images `x: [n, h, w, c]`."""
        return self.head(self.features(x))

    def features(self, x: jax.Array) -> jax.Array:
        """Features `[n, sizes[-1]]`, or `[n, h / 2**4 * w / 2**4 * sizes[-1]]`, of the same images."""
        check_image("ResNet12", x, 2 ** len(self.sizes))
        x = self.body(x)
        return jnp.mean(x, (1, 2)) if self.mean else x.reshape(x.shape[0], -1)


class _ResidualBody(nn.Module):
    """The blocks: `conv_i_j`, `norm_i_j` for the layers j of block i, `conv_i` and `norm_i` for its shortcut."""

    sizes: Sequence[int]
    drop_rate: float
    block_size: int
    norm: Norm
    lowering: Lowering
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, size in enumerate(self.sizes):
            y = x
            for j in range(3):
                y = self._conv_norm(y, size, 3, f"{i}_{j}")
                y = nn.leaky_relu(y, 0.1) if j < 2 else y
            y = nn.leaky_relu(y + self._conv_norm(x, size, 1, f"{i}"), 0.1)
            x = max_pool(y)
            if i < len(self.sizes) - 2:
                x = nn.Dropout(self.drop_rate, deterministic=not self.has_rng("dropout"))(x)
            else:
                x = DropBlock(self.drop_rate, self.block_size)(x)
        return x

    def _conv_norm(self, x: jax.Array, size: int, width: int, name: str) -> jax.Array:
        conv = Conv(
            size,
            (width, width),
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=_HE,
            lowering=self.lowering,
            name=f"conv_{name}",
        )
        return make_norm(self.norm, self.param_dtype, name=f"norm_{name}")(conv(x))
