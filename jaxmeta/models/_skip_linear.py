"""Given features with learned ones beside them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_fraction, check_integer, check_positive
from jaxmeta.models._drop_block import Dropout


class SkipLinear(nn.Module):
    """The inputs themselves as features, with learned linear features of them beside, and a linear classifier.

    For inputs that are good features already, such as hashed sentences (`jaxmeta.data.hash_ngrams`) and embeddings. The
    learned features start small and the classifier at zero, so that an untrained network is as good as the inputs, and
    training on few classes cannot forget them. Parameters are `{"body": ..., "head": ...}`.

    Attributes:
        ways: number of outputs.
        hidden: number of learned features (default: 256).
        scale: factor of all features (default: 8). Inputs of length 1 become as long as those that inner learning rates
            of images are made for.
        kernel_init: initializer of the learned features' kernel (default: normal, of variance `1 / (100 hidden)`).
        drop_rate: share of the inputs dropped in training, in [0, 1) (default: 0).
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameters (default: float32).

    Raises:
        ValueError: if an attribute is out of range, or the input is not `[..., d]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = SkipLinear(ways=5, hidden=3)
        >>> params = model.init(jax.random.key(0), jnp.zeros((1, 7)))
        >>> model.apply(params, jnp.ones((2, 7)), method="features").shape
        (2, 10)
    """

    ways: int
    hidden: int = 256
    scale: float = 8.0
    kernel_init: nn.initializers.Initializer | None = None
    drop_rate: float | jax.Array = 0.0
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_integer(ways=self.ways, hidden=self.hidden)
        check_positive(scale=self.scale)
        check_fraction(below_one=True, drop_rate=self.drop_rate)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the body and the head."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        kernel_init = self.kernel_init or nn.initializers.normal(0.1 * self.hidden**-0.5)
        self.body = nn.Dense(self.hidden, use_bias=False, kernel_init=kernel_init, **types)
        self.head = nn.Dense(self.ways, kernel_init=nn.initializers.zeros, **types)
        self.dropout = Dropout(self.drop_rate)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits `[..., ways]` of `x: [..., d]`."""
        return self.head(self.features(x))

    def features(self, x: jax.Array) -> jax.Array:
        """Returns features `[..., d + hidden]` of `x: [..., d]`."""
        if x.ndim < 1:
            raise ValueError(f"SkipLinear needs an input [..., d], got shape {x.shape}")
        x = self.dropout(self.scale * x)
        return jnp.concatenate([x, self.body(x)], axis=-1)
