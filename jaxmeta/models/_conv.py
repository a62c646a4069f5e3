"""A convolution layer that stays fast when every task has its own kernel.

Under `jax.vmap` over tasks an adapted kernel is batched, and `lax.conv_general_dilated` becomes a grouped convolution,
which XLA runs one to two orders of magnitude slower than necessary. The same sum as a matrix product of patches becomes
a batched matrix product, and so do all of its derivatives.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import lax

from jaxmeta._checks import check_choice, check_integer

Lowering: TypeAlias = Literal["im2col", "conv"]
Padding: TypeAlias = str | int | Sequence[int | tuple[int, int]]
Pair: TypeAlias = tuple[int, int]

LOWERINGS = ("im2col", "conv")


class Conv(nn.Module):
    """Two-dimensional convolution with the parameters and results of `flax.linen.Conv`.

    Parameters are `kernel: [kh, kw, cin, cout]` and `bias: [cout]`. The only difference is the method of the sum:

    * `"im2col"` (default): `kh * kw` strided slices of the padded input, concatenated on the channel axis to patches
      `[n * ho * wo, kh * kw * cin]`, times the kernel as a matrix. Derivatives are matrix products, slices and pads.
      Under `vmap` over kernels they are batched matrix products.
    * `"conv"`: `lax.conv_general_dilated`.

    The first one was faster, with less memory, in every case that was measured on a CPU and on a GPU, for adapted and
    for shared kernels. On a TPU neither was measured.

    Attributes:
        features: number of output channels `cout`.
        kernel_size: height and width of the kernel, `(kh, kw)`.
        strides: one stride (default: 1), or one per spatial axis.
        padding: `"SAME"` (default), `"VALID"`, one number for all four sides, or one number or `(low, high)` per
            spatial axis.
        use_bias: add a learned bias (default).
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameters (default: float32).
        kernel_init: initializer of the kernel.
        bias_init: initializer of the bias.
        lowering: `"im2col"` (default) or `"conv"`.

    Raises:
        ValueError: if an attribute is not one of the above, the input has fewer than three axes, or the kernel does not
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
    lowering: Lowering = "im2col"

    def __post_init__(self) -> None:
        check_integer(features=self.features)
        _check_axes("kernel_size", self.kernel_size)
        _check_axes("strides", _pair(self.strides))
        if isinstance(self.padding, str):
            check_choice("padding", self.padding, ("SAME", "VALID"))
        else:
            sides = [side for axis in _pair(self.padding) for side in _pair(axis)]
            if len(sides) != 4:
                raise ValueError(
                    f"padding must have a number or (low, high) for each of the two spatial axes, got {self.padding!r}"
                )
            for side in sides:
                check_integer(least=0, padding=side)
        check_choice("lowering", self.lowering, LOWERINGS)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, add_bias: bool = True) -> jax.Array:
        """Convolves the input with the kernel.

        Args:
            x: input `[..., h, w, cin]`.
            add_bias: add the bias (default). `False` leaves it to the next layer, see `BatchNorm`.

        Returns:
            Output `[..., ho, wo, cout]`.
        """
        if x.ndim < 3:
            raise ValueError(f"Conv needs an input [..., height, width, channels], got shape {x.shape}")
        *batch, height, width, channels = x.shape
        size = (self.kernel_size[0], self.kernel_size[1])
        strides = _pair(self.strides)
        pads = _pads(self.padding, (height, width), size, strides)
        if any(n + low + high < k for n, (low, high), k in zip((height, width), pads, size, strict=True)):
            raise ValueError(f"kernel_size {size} does not fit into the input {x.shape} padded by {pads}")

        kernel = self.param("kernel", self.kernel_init, (*size, channels, self.features), self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)

        convolve = _im2col if self.lowering == "im2col" else _conv
        y = convolve(x.reshape(-1, height, width, channels), kernel, strides, pads)
        if bias is not None and add_bias:
            y = y + bias.reshape(1, 1, 1, -1)
        return y.reshape(*batch, *y.shape[1:])


def _pads(padding: Padding, shape: Pair, size: Pair, strides: Pair) -> tuple[Pair, Pair]:
    """Returns `(low, high)` of both spatial axes."""
    if isinstance(padding, str):
        rows, columns = lax.padtype_to_pads(shape, size, strides, padding)
        return (rows[0], rows[1]), (columns[0], columns[1])
    rows, columns = _pair(padding)
    return _pair(rows), _pair(columns)


def _pair(value: Any) -> tuple[Any, Any]:
    """Returns the two entries of a sequence, or one number twice."""
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)


def _check_axes(name: str, values: Any) -> None:
    """Raises ValueError unless `values` are two integers of at least 1."""
    if not isinstance(values, Sequence) or len(values) != 2:
        raise ValueError(f"{name} must have one entry for each of the two spatial axes, got {values!r}")
    check_integer(**{f"{name}[{i}]": value for i, value in enumerate(values)})


def _im2col(x: jax.Array, kernel: jax.Array, strides: Pair, pads: tuple[Pair, Pair]) -> jax.Array:
    """Multiplies the patches of `x: [n, h, w, cin]` with `kernel: [kh, kw, cin, cout]` as a matrix."""
    (kh, kw, _, features), (sh, sw), (rows, columns) = kernel.shape, strides, pads
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)])
    n, height, width, channels = x.shape
    ho, wo = (height - kh) // sh + 1, (width - kw) // sw + 1
    slices = [
        lax.slice(x, (0, i, j, 0), (n, i + (ho - 1) * sh + 1, j + (wo - 1) * sw + 1, channels), (1, sh, sw, 1))
        for i in range(kh)
        for j in range(kw)
    ]
    # One flat product. With the axes [n, ho, wo] in the product it is 1.4 times slower.
    patches = lax.concatenate(slices, 3).reshape(n * ho * wo, kh * kw * channels)
    return (patches @ kernel.reshape(-1, features)).reshape(n, ho, wo, features)


def _conv(x: jax.Array, kernel: jax.Array, strides: Pair, pads: tuple[Pair, Pair]) -> jax.Array:
    """Computes the convolution with `lax.conv_general_dilated`."""
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
