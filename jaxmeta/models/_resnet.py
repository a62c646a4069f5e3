"""The residual networks of ImageNet: ResNet-18 to ResNet-152, wide ones and ResNeXt."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_choice, check_integer, check_integers
from jaxmeta.models._cnn import XAVIER, check_image, standardize
from jaxmeta.models._conv import Conv, Lowering
from jaxmeta.models._norm import NORMS, Norm, make_norm

_HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResNet(nn.Module):
    """A residual network for large photos: a 7x7 convolution, max-pool, stages of residual blocks, mean, linear.

    | network | attributes |
    | --- | --- |
    | ResNet-18, ResNet-34 | `blocks=(2, 2, 2, 2)` (default), `blocks=(3, 4, 6, 3)` |
    | ResNet-50, 101, 152 | `bottleneck=True`, with `blocks=(3, 4, 6, 3)`, `(3, 4, 23, 3)`, `(3, 8, 36, 3)` |
    | Wide ResNet-50-2 | those of ResNet-50 and `inner=128` |
    | ResNeXt-50 32x4d | those of ResNet-50, `inner=128` and `groups=32` |

    It is the network of torchvision and timm, whose weights `from_torch` reads, and `recognize` finds the attributes
    from the weights. The stride of a bottleneck is in its 3x3 convolution. With 1000 ways ResNet-18 has 11,689,512
    parameters, and ResNet-50 has 25,557,032. Parameters are `{"body": ..., "head": ...}`. With `norm="batch"`
    predictions are transductive unless statistics are given (see `BatchNorm`), as those from PyTorch are.

    Attributes:
        ways: number of outputs (default: 5).
        blocks: number of blocks of each stage. Each stage but the first halves height and width.
        bottleneck: blocks of a 1x1, a 3x3 and a 1x1 convolution, the last with four times as many channels. By default
            blocks of two 3x3 convolutions.
        hidden: number of channels of the first stage, doubled from stage to stage (default: 64).
        inner: number of channels inside the bottlenecks of the first stage. `None` (default) takes `hidden`.
        groups: number of groups of the 3x3 convolutions in bottlenecks (default: 1).
        mean: mean of each channel, or of all, which is subtracted from the images (default: 0).
        std: standard deviation of each channel, or of all, by which they are then divided (default: 1).
        norm: `"batch"` (default), `"group"`, `"layer"` or `"none"`.
        lowering: method of the convolutions, see `Conv`.
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameters (default: float32).

    Raises:
        ValueError: if an attribute is out of range, or the input is not `[n, h, w, c]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params = jax.eval_shape(ResNet(ways=1000).init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
        >>> sum(p.size for p in jax.tree.leaves(params))
        11689512

    References:
        He et al., "Deep Residual Learning for Image Recognition", 2016. https://arxiv.org/abs/1512.03385
        Zagoruyko and Komodakis, "Wide Residual Networks", 2016. https://arxiv.org/abs/1605.07146
        Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", 2017.
        https://arxiv.org/abs/1611.05431
    """

    ways: int = 5
    blocks: Sequence[int] = (2, 2, 2, 2)
    bottleneck: bool = False
    hidden: int = 64
    inner: int | None = None
    groups: int = 1
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    norm: Norm = "batch"
    lowering: Lowering = "im2col"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_integer(ways=self.ways, hidden=self.hidden, groups=self.groups)
        check_integers(blocks=self.blocks)
        if len(self.blocks) == 0:
            raise ValueError("blocks must have at least one stage, got none")
        if not self.bottleneck and (self.groups > 1 or self.inner not in (None, self.hidden)):
            raise ValueError(f"groups and inner need bottleneck=True, got {self.groups} and {self.inner}")
        check_integer(inner=self.inner or self.hidden)
        if (self.inner or self.hidden) % self.groups:
            raise ValueError(f"groups must divide inner {self.inner or self.hidden}, got {self.groups}")
        check_choice("norm", self.norm, NORMS)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the body and the head."""
        self.body = _Stages(
            tuple(self.blocks),
            self.bottleneck,
            self.hidden,
            self.inner or self.hidden,
            self.groups,
            self.norm,
            self.lowering,
            self.dtype,
            self.param_dtype,
        )
        self.head = nn.Dense(self.ways, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=XAVIER)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits `[n, ways]` of images `x: [n, h, w, c]`."""
        return self.head(self.features(x))

    def features(self, x: jax.Array) -> jax.Array:
        """Returns features `[n, d]` of the same images, where `d` is 512 for ResNet-18 and 2048 for ResNet-50."""
        check_image("ResNet", x, 1)
        return jnp.mean(self.body(standardize("ResNet", x, self.mean, self.std)), (1, 2))


class _Stages(nn.Module):
    """The layers `conv` and `norm`, and `conv_i_j`, `norm_i_j` and shortcut `conv_i`, `norm_i` of block i."""

    blocks: tuple[int, ...]
    bottleneck: bool
    hidden: int
    inner: int
    groups: int
    norm: Norm
    lowering: Lowering
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(self._conv_norm(x, self.hidden, 7, 2, ""))
        x = nn.max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (2, 2))  # nothing is below 0 here
        number = 0
        for stage, blocks in enumerate(self.blocks):
            for place in range(blocks):
                x = self._block(x, number, 2**stage, 2 if stage and not place else 1)
                number += 1
        return x

    def _block(self, x: jax.Array, i: int, times: int, stride: int) -> jax.Array:
        size, inner = self.hidden * times, self.inner * times
        if self.bottleneck:
            size = 4 * size
            y = nn.relu(self._conv_norm(x, inner, 1, 1, f"_{i}_0"))
            y = nn.relu(self._conv_norm(y, inner, 3, stride, f"_{i}_1", self.groups))
            y = self._conv_norm(y, size, 1, 1, f"_{i}_2")
        else:
            y = nn.relu(self._conv_norm(x, size, 3, stride, f"_{i}_0"))
            y = self._conv_norm(y, size, 3, 1, f"_{i}_1")
        same = stride == 1 and size == x.shape[-1]
        return nn.relu(y + (x if same else self._conv_norm(x, size, 1, stride, f"_{i}")))

    def _conv_norm(self, x: jax.Array, size: int, width: int, stride: int, name: str, groups: int = 1) -> jax.Array:
        """Applies a convolution without bias, padded to keep height and width at stride 1, and a norm."""
        options: dict[str, Any] = {"strides": stride, "padding": width // 2, "use_bias": False, "kernel_init": _HE}
        options |= {"dtype": self.dtype, "param_dtype": self.param_dtype, "name": f"conv{name}"}
        if groups > 1:
            conv = nn.Conv(size, (width, width), feature_group_count=groups, **options)
        else:
            conv = Conv(size, (width, width), lowering=self.lowering, **options)
        return make_norm(self.norm, self.param_dtype, name=f"norm{name}")(conv(x))
