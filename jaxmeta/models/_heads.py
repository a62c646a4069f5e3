"""The cosine head, and a backbone with another head than its own."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jaxmeta._checks import check_integer, check_positive


class CosineDense(nn.Module):
    """A linear layer without bias on vectors of length 1.

    Its outputs are `scale * cos(x, w_k)` for the input `x` and each column `w_k` of the kernel. Parameters are
    `kernel: [d, features]` and `scale: []`. A vector of zeros has cosine 0 with everything.

    Attributes:
        features: number of outputs.
        scale: initial value of the learned factor of the cosines, positive (default: 10).
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameters (default: float32).
        kernel_init: initializer of the kernel.

    Raises:
        ValueError: if `features` is not an integer of at least 1, or `scale` is not positive.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> layer = CosineDense(2, scale=10.0)
        >>> params = {"params": {"kernel": jnp.array([[2.0, 0.0], [0.0, 3.0]]), "scale": jnp.array(10.0)}}
        >>> [[round(y, 3) for y in row] for row in layer.apply(params, jnp.array([[3.0, 4.0]])).tolist()]
        [[6.0, 8.0]]

    References:
        Gidaris and Komodakis, "Dynamic Few-Shot Visual Learning without Forgetting", 2018.
        https://arxiv.org/abs/1804.09458
        Chen et al., "A Closer Look at Few-shot Classification", 2019 (Baseline++). https://arxiv.org/abs/1904.04232
    """

    features: int
    scale: float | jax.Array = 10.0
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    def __post_init__(self) -> None:
        check_integer(features=self.features)
        check_positive(scale=self.scale)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns scaled cosines `[..., features]` of `x: [..., d]`."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), self.param_dtype)
        scale = self.param("scale", nn.initializers.constant(self.scale), (), self.param_dtype)
        x, kernel, scale = promote_dtype(x, kernel, scale, dtype=self.dtype)
        return scale * (_unit(x, -1) @ _unit(kernel, 0))


class Classifier(nn.Module):
    """A backbone with another head than its own.

    Parameters are `{"body": ..., "head": ...}`, where those of the body are the backbone's without its head.

    Attributes:
        body: any model of this package, or any module with a method `features` that returns `[n, d]`.
        head: any module from features to logits.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxmeta.models import CNN4
        >>> model = Classifier(CNN4(hidden=8), CosineDense(64))
        >>> params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> list(params["params"]["body"]), jax.tree.map(lambda p: p.shape, params["params"]["head"])
        (['body'], {'kernel': (8, 64), 'scale': ()})
    """

    body: nn.Module
    head: nn.Module

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits `[n, ways]` of inputs `x: [n, ...]`."""
        return self.head(self.features(x))

    def features(self, x: jax.Array) -> jax.Array:
        """Returns the backbone's features `[n, d]` of the same inputs."""
        return self.body.features(x)


def _unit(x: jax.Array, axis: int) -> jax.Array:
    """Scales `x` to length 1 along `axis`, differentiably at zero, which stays zero."""
    squares = jnp.sum(jnp.square(x), axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(squares > 0, squares, 1))
