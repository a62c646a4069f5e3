"""The two small convolutional networks of few-shot image classification."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxmeta._checks import channels_first, check_choice, check_integer
from jaxmeta.models._conv import Conv, Lowering, Padding
from jaxmeta.models._norm import NORMS, Norm, make_norm, normalize
from jaxmeta.models._warp import Warp

XAVIER = nn.initializers.xavier_uniform()


class OmniglotCNN(nn.Module):
    """The strided network for Omniglot: (3x3 conv of stride 2, norm, ReLU) x `layers`, mean over space, linear.

    The default network has 112,261 parameters for one channel. Parameters are `{"body": ..., "head": ...}`. Kernels
    start Xavier uniform, biases at zero. With `norm="batch"` predictions are transductive (see `BatchNorm`).

    Attributes:
        ways: number of outputs (default: 5).
        hidden: number of channels of each layer, and length of the features (default: 64).
        layers: number of convolutions, each of which halves height and width (default: 4).
        padding: padding of the convolutions, see `Conv`. `"SAME"` (default), as in MAML's code, pads an even height by
            one row at the end. `padding=1`, as in PyTorch and learn2learn, pads it by one row at the start, which is
            another function.
        norm: `"batch"` (default), `"group"`, `"layer"` or `"none"`.
        lowering: method of the convolutions, see `Conv`.
        warp: put a `Warp` after each convolution, for `jaxmeta.tnet` (default: false).
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameters (default: float32).

    Raises:
        ValueError: if an attribute is out of range, the input is not `[n, h, w, c]`, or the image is too small.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = OmniglotCNN(ways=5)
        >>> x = jnp.zeros((10, 28, 28, 1))
        >>> params = model.init(jax.random.key(0), x)
        >>> model.apply(params, x).shape, model.apply(params, x, method="features").shape
        ((10, 5), (10, 64))

    References:
        Vinyals et al., "Matching Networks for One Shot Learning", 2016. https://arxiv.org/abs/1606.04080
        Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning", 2017. https://arxiv.org/abs/1703.03400
    """

    ways: int = 5
    hidden: int = 64
    layers: int = 4
    padding: Padding = "SAME"
    norm: Norm = "batch"
    lowering: Lowering = "im2col"
    warp: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_integer(ways=self.ways, hidden=self.hidden, layers=self.layers)
        check_choice("norm", self.norm, NORMS)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the body and the head."""
        self.body = _ConvBody(
            self.hidden, self.layers, 2, self.padding, self.norm, self.lowering, self.warp, self.dtype, self.param_dtype
        )
        self.head = nn.Dense(self.ways, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=XAVIER)

    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Returns logits `[n, ways]` of images `x: [n, h, w, c]`, modulated by `context: [d]` if there is one."""
        return self.head(self.features(x, context))

    def features(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Returns features `[n, hidden]` of the same arguments."""
        check_image("OmniglotCNN", x, 2 ** (self.layers - 1))
        return jnp.mean(self.body(x, context), (1, 2))


class CNN4(nn.Module):
    """The max-pooled four-block network: (3x3 conv, norm, ReLU, 2x2 max-pool) x `blocks`, flatten, linear.

    It suits 28x28, 32x32 and 84x84 images. The head is as wide as the last feature map, flattened. For 84x84x3 images
    and 5 ways it has 121,093 parameters with `hidden=64` (Vinyals) and 32,901 with `hidden=32` (MAML on mini-ImageNet).
    Parameters are `{"body": ..., "head": ...}`. Kernels start Xavier uniform, biases at zero. With `norm="batch"`
    predictions are transductive (see `BatchNorm`).

    Attributes:
        ways: number of outputs (default: 5).
        hidden: number of channels of each block (default: 64).
        blocks: number of blocks, each of which halves height and width (default: 4).
        max_pool: max-pool after each block (default), which drops an odd last row or column. Otherwise the convolutions
            have stride 2.
        padding: padding of the convolutions, see `OmniglotCNN`. With `max_pool`, `"SAME"` (default) and 1 are the same.
        norm: `"batch"` (default), `"group"`, `"layer"` or `"none"`.
        lowering: method of the convolutions, see `Conv`.
        warp: put a `Warp` after each convolution, for `jaxmeta.tnet` (default: false).
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameters (default: float32).

    Raises:
        ValueError: if an attribute is out of range, the input is not `[n, h, w, c]`, or the image is too small.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = CNN4(ways=5, hidden=32)
        >>> params = model.init(jax.random.key(0), jnp.zeros((1, 84, 84, 3)))
        >>> sum(p.size for p in jax.tree.leaves(params))
        32901

    References:
        Vinyals et al., "Matching Networks for One Shot Learning", 2016. https://arxiv.org/abs/1606.04080
        Ravi and Larochelle, "Optimization as a Model for Few-Shot Learning", 2017. https://openreview.net/forum?id=rJY0-Kcll
    """

    ways: int = 5
    hidden: int = 64
    blocks: int = 4
    max_pool: bool = True
    padding: Padding = "SAME"
    norm: Norm = "batch"
    lowering: Lowering = "im2col"
    warp: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_integer(ways=self.ways, hidden=self.hidden, blocks=self.blocks)
        check_choice("norm", self.norm, NORMS)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the body and the head."""
        stride = 1 if self.max_pool else 2
        self.body = _ConvBody(
            self.hidden,
            self.blocks,
            stride,
            self.padding,
            self.norm,
            self.lowering,
            self.warp,
            self.dtype,
            self.param_dtype,
        )
        self.head = nn.Dense(self.ways, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=XAVIER)

    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Returns logits `[n, ways]` of images `x: [n, h, w, c]`, modulated by `context: [d]` if there is one."""
        return self.head(self.features(x, context))

    def features(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Returns features `[n, (h / 2**blocks) * (w / 2**blocks) * hidden]` of the same arguments."""
        check_image("CNN4", x, 2**self.blocks if self.max_pool else 2 ** (self.blocks - 1))
        return self.body(x, context).reshape(x.shape[0], -1)


class _ConvBody(nn.Module):
    """Blocks that halve height and width, by the convolution's stride of 2 or by a max-pool after stride 1.

    A context scales and shifts the channels of the second to last block (FiLM, Perez et al. 2018):
    `x * (1 + scale) + shift`. CAVIA's code has `x * scale + shift`, after the pooling.
    """

    hidden: int
    layers: int
    stride: int
    padding: Padding
    norm: Norm
    lowering: Lowering
    warp: bool
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        for i in range(self.layers):
            conv = Conv(
                self.hidden,
                (3, 3),
                strides=self.stride,
                padding=self.padding,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                kernel_init=XAVIER,
                lowering=self.lowering,
                name=f"conv_{i}",
            )
            norm = make_norm(self.norm, self.param_dtype, name=f"norm_{i}")
            if self.warp:
                x = norm(Warp(self.dtype, self.param_dtype, name=f"warp_{i}")(conv(x)))
            else:
                x = normalize(norm, conv, x)
            if context is not None and i == max(0, self.layers - 2):
                film = nn.Dense(2 * self.hidden, dtype=self.dtype, param_dtype=self.param_dtype, name="film")
                scale, shift = jnp.split(jnp.expand_dims(film(context), (0, 1, 2)), 2, axis=-1)
                x = x * (1 + scale) + shift
            x = nn.relu(x)
            if self.stride == 1:
                x = max_pool(x)
        return x


def max_pool(x: jax.Array) -> jax.Array:
    """Computes the 2x2 max-pool of `x: [n, h, w, c]` with stride 2, where a tie goes to the first entry.

    `reduce_window` has a slow second derivative. The derivative of `jnp.max` looks for the entries that equal the
    maximum. XLA may compute these twice, with different roundings, and then it finds none. On a CPU in float64 this
    made a meta-gradient wrong by 0.5 %.
    """
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, channels)
    x = _larger(x[:, :, 0], x[:, :, 1])
    return _larger(x[:, :, :, 0], x[:, :, :, 1])


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the larger one of each pair, `a` if they are equal."""
    return jnp.where(a >= b, a, b)


def check_image(model: str, x: jax.Array, smallest: int) -> None:
    """Raises ValueError unless `x` is a batch of images of at least `smallest` by `smallest`."""
    if x.ndim != 4 or channels_first(x.shape):
        hint = ": x.transpose(0, 2, 3, 1) puts the channels last" if x.ndim == 4 else ""
        raise ValueError(f"{model} needs images [n, height, width, channels], got shape {x.shape}{hint}")
    if min(x.shape[1:3]) < smallest:
        raise ValueError(f"{model} needs images of at least {smallest}x{smallest}, got shape {x.shape}")


def standardize(model: str, x: jax.Array, mean: float | Sequence[float], std: float | Sequence[float]) -> jax.Array:
    """Subtracts the mean of each channel from images and divides by the standard deviation.

    Raises:
        ValueError: if there are numbers for other channels, or the images are whole numbers and so not in [0, 1].
    """
    if np.all(np.equal(mean, 0.0)) and np.all(np.equal(std, 1.0)):
        return x
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{model} needs images in [0, 1], got {x.dtype}: divide them by 255")
    for name, value in (("mean", mean), ("std", std)):
        if np.shape(value) not in ((), (x.shape[-1],)):
            raise ValueError(f"{name} must be a number or have one for each channel, got {value} for {x.shape}")
    shift, scale = (jnp.reshape(jnp.asarray(value, x.dtype), (1, 1, 1, -1)) for value in (mean, std))
    return (x - shift) / scale
