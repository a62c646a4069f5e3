"""A convolution layer that stays fast when every task has its own kernel.

Under `jax.vmap` over tasks an adapted kernel is batched, and `lax.conv_general_dilated` becomes a grouped convolution,
which XLA runs one to two orders of magnitude slower than need be on a CPU. The same sum written as a matrix product of
patches becomes a batched matrix product, and so do all of its derivatives.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import lax

Lowering: TypeAlias = Literal["auto", "im2col", "conv"]
Padding: TypeAlias = str | int | Sequence[int | tuple[int, int]]
Pair: TypeAlias = tuple[int, int]

LOWERINGS = ("auto", "im2col", "conv")


class Conv(nn.Module):
    """Two-dimensional convolution with the parameters and results of `flax.linen.Conv`.

    Parameters are `kernel: [kh, kw, cin, cout]` and `bias: [cout]`. How the sum is computed is the only difference:

    * `"im2col"`: `kh * kw` strided slices of the padded input, concatenated on the channel axis to patches
      `[n * ho * wo, kh * kw * cin]`, times the kernel as a matrix. Derivatives are matrix products, slices and pads;
      under `vmap` over kernels a batched matrix product.
    * `"conv"`: `lax.conv_general_dilated`.
    * `"auto"`: the first on a CPU, the second elsewhere, decided by `jax.default_backend()` when traced.

    Attributes:
        features: Number of output channels `cout`.
        kernel_size: `(kh, kw)`.
        strides: One stride, or one per spatial axis.
        padding: `"SAME"`, `"VALID"`, one number for all four sides, or one number or `(low, high)` per spatial axis.
        use_bias: Add a learned bias.
        dtype: Of the computation; None takes the common type of input and parameters.
        param_dtype: Of the parameters.
        kernel_init: Initializer of the kernel.
        bias_init: Initializer of the bias.
        lowering: `"auto"`, `"im2col"` or `"conv"`.

    Raises:
        ValueError: If an attribute is not one of the above, the input has fewer than three axes, or the kernel does not
            fit into it.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> layer = Conv(64, (3, 3), strides=2)
        >>> x = jnp.zeros((5, 28, 28, 1))
        >>> params = layer.init(jax.random.key(0), x)
        >>> layer.apply(params, x).shape
        (5, 14, 14, 64)
    """

    features: int
    kernel_size: Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()
    lowering: Lowering = "auto"

    def __post_init__(self) -> None:
        if self.features < 1:
            raise ValueError(f"features must be at least 1, got {self.features}")
        if isinstance(self.kernel_size, int) or len(self.kernel_size) != 2 or min(self.kernel_size) < 1:
            raise ValueError(f"kernel_size must be two positive integers, got {self.kernel_size!r}")
        strides = (self.strides,) * 2 if isinstance(self.strides, int) else tuple(self.strides)
        if len(strides) != 2 or min(strides) < 1:
            raise ValueError(f"strides must be one or two positive integers, got {self.strides!r}")
        if isinstance(self.padding, str):
            if self.padding not in ("SAME", "VALID"):
                raise ValueError(f"padding must be 'SAME', 'VALID' or numbers, got {self.padding!r}")
        elif not isinstance(self.padding, int) and len(self.padding) != 2:
            raise ValueError(f"padding must have one entry for each of the two spatial axes, got {self.padding!r}")
        if self.lowering not in LOWERINGS:
            raise ValueError(f"lowering must be one of {LOWERINGS}, got {self.lowering!r}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, add_bias: bool = True) -> jax.Array:
        """Convolve.

        Args:
            x: `[..., h, w, cin]`.
            add_bias: `False` leaves the bias to the layer that comes after, see `BatchNorm`.

        Returns:
            `[..., ho, wo, cout]`.
        """
        if x.ndim < 3:
            raise ValueError(f"Conv needs an input [..., height, width, channels], got shape {x.shape}")
        *batch, height, width, channels = x.shape
        size = (self.kernel_size[0], self.kernel_size[1])
        strides = (self.strides, self.strides) if isinstance(self.strides, int) else (self.strides[0], self.strides[1])
        pads = _pads(self.padding, (height, width), size, strides)
        if any(n + low + high < k for n, (low, high), k in zip((height, width), pads, size, strict=True)):
            raise ValueError(f"kernel_size {size} does not fit into the input {x.shape} padded by {pads}")

        kernel = self.param("kernel", self.kernel_init, (*size, channels, self.features), self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)

        lowering = self.lowering
        if lowering == "auto":
            lowering = "im2col" if jax.default_backend() == "cpu" else "conv"
        convolve = _im2col if lowering == "im2col" else _conv
        y = convolve(x.reshape(-1, height, width, channels), kernel, strides, pads)
        if bias is not None and add_bias:
            y = y + bias.reshape(1, 1, 1, -1)
        return y.reshape(*batch, *y.shape[1:])


def _pads(padding: Padding, shape: Pair, size: Pair, strides: Pair) -> tuple[Pair, Pair]:
    """`(low, high)` of both spatial axes."""
    if isinstance(padding, str):
        rows, columns = lax.padtype_to_pads(shape, size, strides, padding)
    else:
        both = (padding, padding) if isinstance(padding, int) else padding
        rows, columns = ((p, p) if isinstance(p, int) else (p[0], p[1]) for p in both)
    return (rows[0], rows[1]), (columns[0], columns[1])


def _im2col(x: jax.Array, kernel: jax.Array, strides: Pair, pads: tuple[Pair, Pair]) -> jax.Array:
    """Matrix product of the patches of `x: [n, h, w, cin]` with `kernel: [kh, kw, cin, cout]`."""
    (kh, kw, _, features), (sh, sw), (rows, columns) = kernel.shape, strides, pads
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)])
    n, height, width, channels = x.shape
    ho, wo = (height - kh) // sh + 1, (width - kw) // sw + 1
    slices = [
        lax.slice(x, (0, i, j, 0), (n, i + (ho - 1) * sh + 1, j + (wo - 1) * sw + 1, channels), (1, sh, sw, 1))
        for i in range(kh)
        for j in range(kw)
    ]
    # One flat product: keeping [n, ho, wo, :] in the product is 1.4 times slower.
    patches = lax.concatenate(slices, 3).reshape(n * ho * wo, kh * kw * channels)
    return (patches @ kernel.reshape(-1, features)).reshape(n, ho, wo, features)


def _conv(x: jax.Array, kernel: jax.Array, strides: Pair, pads: tuple[Pair, Pair]) -> jax.Array:
    """The same by XLA's convolution."""
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
