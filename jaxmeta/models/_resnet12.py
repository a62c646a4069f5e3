"""The twelve-layer residual network of few-shot image classification."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_choice, check_fraction, check_integer, check_integers
from jaxmeta.models._cnn import XAVIER, check_image, max_pool
from jaxmeta.models._conv import Conv, Lowering
from jaxmeta.models._drop_block import DropBlock, Dropout
from jaxmeta.models._norm import NORMS, Norm, make_norm

_HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResNet12(nn.Module):
    """MetaOptNet's ResNet-12: four blocks of three 3x3 convolutions with a shortcut, each max-pooled, mean, linear.

    It has 12,427,525 parameters for 84x84x3 images and 5 ways. TADAM's `sizes=(64, 128, 256, 512)`, which Meta-Baseline
    and others take, have 7,999,365. Parameters are `{"body": ..., "head": ...}`. Dropout (elementwise after the first
    two blocks, DropBlock after the others) acts when a key is given, as
    `model.apply(params, x, rngs={"dropout": key})`. With `norm="batch"` predictions are transductive unless statistics
    are given (see `BatchNorm`).

    Attributes:
        ways: number of outputs (default: 5).
        sizes: number of channels of each block. Each block halves height and width and drops an odd last row or column.
        mean: take the mean over space as features (default). Otherwise they are the whole last feature map, flattened,
            16,000 for 84x84 images.
        drop_rate: share of the entries that dropout drops, in [0, 1) (default: 0.1).
        block_size: height and width of DropBlock's blocks (default: 5, for ImageNet's 84x84 images). CIFAR's 32x32
            images take 2.
        norm: `"batch"` (default), `"group"`, `"layer"` or `"none"`.
        lowering: method of the convolutions, see `Conv`.
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameters (default: float32).

    Raises:
        ValueError: if an attribute is out of range, the input is not `[n, h, w, c]`, or the image is too small.

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
    drop_rate: float | jax.Array = 0.1
    block_size: int = 5
    norm: Norm = "batch"
    lowering: Lowering = "im2col"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_integer(ways=self.ways, block_size=self.block_size)
        check_integers(sizes=self.sizes)
        if len(self.sizes) == 0:
            raise ValueError("sizes must have at least one block, got none")
        check_fraction(below_one=True, drop_rate=self.drop_rate)
        check_choice("norm", self.norm, NORMS)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the body and the head."""
        self.body = _ResidualBody(
            self.sizes, self.drop_rate, self.block_size, self.norm, self.lowering, self.dtype, self.param_dtype
        )
        self.head = nn.Dense(self.ways, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=XAVIER)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits `[n, ways]` of images `x: [n, h, w, c]`."""
        return self.head(self.features(x))

    def features(self, x: jax.Array) -> jax.Array:
        """Returns features `[n, sizes[-1]]`, or `[n, h / 2**4 * w / 2**4 * sizes[-1]]`, of the same images."""
        check_image("ResNet12", x, 2 ** len(self.sizes))
        x = self.body(x)
        return jnp.mean(x, (1, 2)) if self.mean else x.reshape(x.shape[0], -1)


class _ResidualBody(nn.Module):
    """The blocks, with `conv_i_j` and `norm_i_j` for layer j of block i, and `conv_i` and `norm_i` for its shortcut."""

    sizes: Sequence[int]
    drop_rate: float | jax.Array
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
            elementwise = i < len(self.sizes) - 2
            drop = Dropout(self.drop_rate) if elementwise else DropBlock(self.drop_rate, self.block_size)
            x = drop(max_pool(y))
        return x

    def _conv_norm(self, x: jax.Array, size: int, width: int, name: str) -> jax.Array:
        """Applies a convolution without bias and a norm."""
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
