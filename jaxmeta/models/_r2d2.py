"""The wide four-block convolutional network of R2-D2."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.models._cnn import XAVIER, check_image, check_sizes, max_pool
from jaxmeta.models._conv import Conv, Lowering
from jaxmeta.models._drop_block import check_rate
from jaxmeta.models._norm import Norm, check_norm, make_norm, normalize


class R2D2CNN(nn.Module):
    """Conv-4 with 96-192-384-512 channels: (3x3 conv, norm, 2x2 max-pool, leaky ReLU) for each of `sizes`, linear.

    Features are the outputs of the last two blocks, flat and side by side: 51,200 for 84x84 images, 8,192 for 32x32.
    2,861,061 parameters for 84x84x3 and 5 ways. Parameters are `{"body": ..., "head": ...}`. Dropout after the last two
    blocks acts when a key is given, as `model.apply(params, x, rngs={"dropout": key})`. With `norm="batch"` predictions
    are transductive unless statistics are given (see `BatchNorm`).

    Attributes:
        ways: Number of outputs.
        sizes: Channels of each block; each halves height and width, an odd last row or column is dropped.
        joined: How many of the last blocks the features are taken from; 1 for a plain Conv-4.
        drop_rate: Share of the entries that dropout drops after each of the last two blocks.
        norm: `"batch"`, `"group"`, `"layer"` or `"none"`.
        lowering: Of the convolutions, see `Conv`.
        dtype: Of the computation; None takes the common type of input and parameters.
        param_dtype: Of the parameters.

    Raises:
        ValueError: If an attribute is out of range, the input is not `[n, h, w, c]`, or the image is too small.

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
    drop_rate: float = 0.1
    norm: Norm = "batch"
    lowering: Lowering = "auto"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_sizes(ways=self.ways, sizes=min(self.sizes, default=0), joined=self.joined)
        if self.joined > len(self.sizes):
            raise ValueError(f"joined must be at most the number of blocks, {len(self.sizes)}, got {self.joined}")
        check_rate(drop_rate=self.drop_rate)
        check_norm(self.norm)
        super().__post_init__()

    def setup(self) -> None:
        """Make the body and the head."""
        self.body = _Body(self.sizes, self.drop_rate, self.norm, self.lowering, self.dtype, self.param_dtype)
        self.head = nn.Dense(self.ways, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=XAVIER)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits `[n, ways]` of images `x: [n, h, w, c]`."""
        return self.head(self.features(x))

    def features(self, x: jax.Array) -> jax.Array:
        """Features `[n, d]` of the same images."""
        check_image("R2D2CNN", x, 2 ** len(self.sizes))
        return jnp.concatenate([y.reshape(y.shape[0], -1) for y in self.body(x)[-self.joined :]], 1)


class _Body(nn.Module):
    """The output of every block."""

    sizes: Sequence[int]
    drop_rate: float
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
                x = nn.Dropout(self.drop_rate, deterministic=not self.has_rng("dropout"))(x)
            outputs.append(x)
        return outputs
