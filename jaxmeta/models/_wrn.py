"""The wide residual network of few-shot image classification."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_choice, check_fraction, check_integer
from jaxmeta.models._cnn import XAVIER, check_image
from jaxmeta.models._conv import Conv, Lowering
from jaxmeta.models._drop_block import Dropout
from jaxmeta.models._norm import NORMS, Norm, make_norm

_HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class WRN28(nn.Module):
    """WRN-28-10: a 3x3 convolution, three stages of four pre-activation residual blocks, norm, ReLU, mean, linear.

    It has 36,486,085 parameters for 3 channels and 5 ways, with learn2learn's biases in the convolutions. Parameters
    are `{"body": ..., "head": ...}`. Dropout acts when a key is given, as
    `model.apply(params, x, rngs={"dropout": key})`. With `norm="batch"` predictions are transductive unless statistics
    are given (see `BatchNorm`).

    Attributes:
        ways: number of outputs (default: 5).
        widen: factor of the numbers of channels 16, 32 and 64 (default: 10).
        blocks: number of residual blocks, with two convolutions each, in each of the three stages (default: 4, which
            make 28 layers). The second and the third stage halve height and width.
        drop_rate: share of the entries dropped between the two convolutions of each block, in [0, 1) (default: 0).
        norm: `"batch"` (default), `"group"`, `"layer"` or `"none"`.
        lowering: method of the convolutions, see `Conv`.
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameters (default: float32).

    Raises:
        ValueError: if an attribute is out of range, or the input is not `[n, h, w, c]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params = jax.eval_shape(WRN28(ways=5).init, jax.random.key(0), jnp.zeros((1, 84, 84, 3)))
        >>> sum(p.size for p in jax.tree.leaves(params))
        36486085

    References:
        Zagoruyko and Komodakis, "Wide Residual Networks", 2016. https://arxiv.org/abs/1605.07146
        Rusu et al., "Meta-Learning with Latent Embedding Optimization", 2019. https://arxiv.org/abs/1807.05960
    """

    ways: int = 5
    widen: int = 10
    blocks: int = 4
    drop_rate: float | jax.Array = 0.0
    norm: Norm = "batch"
    lowering: Lowering = "im2col"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_integer(ways=self.ways, widen=self.widen, blocks=self.blocks)
        check_fraction(below_one=True, drop_rate=self.drop_rate)
        check_choice("norm", self.norm, NORMS)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the body and the head."""
        self.body = _WideBody(
            self.widen, self.blocks, self.drop_rate, self.norm, self.lowering, self.dtype, self.param_dtype
        )
        self.head = nn.Dense(self.ways, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=XAVIER)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits `[n, ways]` of images `x: [n, h, w, c]`."""
        return self.head(self.features(x))

    def features(self, x: jax.Array) -> jax.Array:
        """Returns features `[n, 64 * widen]` of the same images."""
        check_image("WRN28", x, 1)
        return jnp.mean(self.body(x), (1, 2))


class _WideBody(nn.Module):
    """The layers `conv`, `norm_i_0`, `conv_i_0`, `norm_i_1`, `conv_i_1` and shortcut `conv_i` of block i, `norm`."""

    widen: int
    blocks: int
    drop_rate: float | jax.Array
    norm: Norm
    lowering: Lowering
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self._conv(x, 16, 3, 1, "conv")
        for i in range(3 * self.blocks):
            stage, place = divmod(i, self.blocks)
            size, stride = 16 * 2**stage * self.widen, 2 if stage and not place else 1
            y = self._conv(self._activate(x, f"norm_{i}_0"), size, 3, 1, f"conv_{i}_0")
            y = Dropout(self.drop_rate)(y)
            y = self._conv(self._activate(y, f"norm_{i}_1"), size, 3, stride, f"conv_{i}_1")
            same = stride == 1 and size == x.shape[-1]
            x = y + (x if same else self._conv(x, size, 1, stride, f"conv_{i}"))
        return self._activate(x, "norm")

    def _activate(self, x: jax.Array, name: str) -> jax.Array:
        """Applies a norm and ReLU."""
        return nn.relu(make_norm(self.norm, self.param_dtype, name=name)(x))

    def _conv(self, x: jax.Array, size: int, width: int, stride: int, name: str) -> jax.Array:
        """Applies a convolution, padded to keep height and width at stride 1."""
        conv = Conv(
            size,
            (width, width),
            strides=stride,
            padding=width // 2,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=_HE,
            lowering=self.lowering,
            name=name,
        )
        return conv(x)
