"""The wide four-block convolutional network of R2-D2."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_choice, check_fraction, check_integer, check_integers
from jaxmeta.models._cnn import XAVIER, check_image, max_pool
from jaxmeta.models._conv import Conv, Lowering
from jaxmeta.models._drop_block import Dropout
from jaxmeta.models._norm import NORMS, Norm, make_norm, normalize


class R2D2CNN(nn.Module):
    """Conv-4 with 96-192-384-512 channels: (3x3 conv, norm, 2x2 max-pool, leaky ReLU) for each of `sizes`, linear.

    Features are the outputs of the last two blocks, flattened and concatenated: 51,200 for 84x84 images, 8,192 for
    32x32. There are 2,861,061 parameters for 84x84x3 images and 5 ways, `{"body": ..., "head": ...}`. Dropout after the
    last two blocks acts when a key is given, as `model.apply(params, x, rngs={"dropout": key})`. With `norm="batch"`
    predictions are transductive unless statistics are given (see `BatchNorm`).

    Attributes:
        ways: number of outputs (default: 5).
        sizes: number of channels of each block. Each block halves height and width and drops an odd last row or column.
        joined: number of last blocks whose outputs are the features (default: 2). One makes a plain Conv-4.
        drop_rate: share of the entries that dropout drops after each of the last two blocks, in [0, 1) (default: 0.1).
        norm: `"batch"` (default), `"group"`, `"layer"` or `"none"`.
        lowering: method of the convolutions, see `Conv`.
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameters (default: float32).

    Raises:
        ValueError: if an attribute is out of range, the input is not `[n, h, w, c]`, or the image is too small.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model, x = R2D2CNN(ways=5), jnp.zeros((1, 84, 84, 3))
        >>> jax.eval_shape(lambda key: model.init_with_output(key, x, method="features")[0], jax.random.key(0)).shape
        (1, 51200)

    References:
        Bertinetto et al., "Meta-Learning with Differentiable Closed-Form Solvers", 2019.
        https://arxiv.org/abs/1805.08136
    """

    ways: int = 5
    sizes: Sequence[int] = (96, 192, 384, 512)
    joined: int = 2
    drop_rate: float | jax.Array = 0.1
    norm: Norm = "batch"
    lowering: Lowering = "im2col"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_integer(ways=self.ways, joined=self.joined)
        check_integers(sizes=self.sizes)
        if self.joined > len(self.sizes):
            raise ValueError(f"joined must be at most the number of blocks, {len(self.sizes)}, got {self.joined}")
        check_fraction(below_one=True, drop_rate=self.drop_rate)
        check_choice("norm", self.norm, NORMS)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the body and the head."""
        self.body = _Body(self.sizes, self.drop_rate, self.norm, self.lowering, self.dtype, self.param_dtype)
        self.head = nn.Dense(self.ways, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=XAVIER)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits `[n, ways]` of images `x: [n, h, w, c]`."""
        return self.head(self.features(x))

    def features(self, x: jax.Array) -> jax.Array:
        """Returns features `[n, d]` of the same images."""
        check_image("R2D2CNN", x, 2 ** len(self.sizes))
        return jnp.concatenate([y.reshape(y.shape[0], -1) for y in self.body(x)[-self.joined :]], 1)


class _Body(nn.Module):
    """The blocks, which return the output of each of them."""

    sizes: Sequence[int]
    drop_rate: float | jax.Array
    norm: Norm
    lowering: Lowering
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        outputs = []
        for i, size in enumerate(self.sizes):
            conv = Conv(
                size,
                (3, 3),
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                kernel_init=XAVIER,
                lowering=self.lowering,
                name=f"conv_{i}",
            )
            x = normalize(make_norm(self.norm, self.param_dtype, name=f"norm_{i}"), conv, x)
            x = nn.leaky_relu(max_pool(x), 0.1)
            if i >= len(self.sizes) - 2:
                x = Dropout(self.drop_rate)(x)
            outputs.append(x)
        return outputs
