"""Warp layers: linear layers between the adapted ones, which precondition the adaptation."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype


class Warp(nn.Module):
    """A square linear map of the last axis, which starts as the identity.

    On an image it is a 1x1 convolution. Its only parameter is called `"warp"`, `[c, c]`. This is the name for which
    `jaxmeta.tnet` looks. The parameter is meta-learned, and the inner loop leaves it alone.

    Attributes:
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameter (default: float32).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> y, params = Warp().init_with_output(jax.random.key(0), jnp.array([[1.0, 2.0]]))
        >>> y.tolist(), params["params"]["warp"].tolist()
        ([[1.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]])

    References:
        Lee and Choi, "Gradient-Based Meta-Learning with Learned Layerwise Metric and Subspace", 2018.
        https://arxiv.org/abs/1801.05558
        Flennerhag et al., "Meta-Learning with Warped Gradient Descent", 2020. https://arxiv.org/abs/1909.00025
    """

    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `x: [..., c]` to an array of the same shape."""
        matrix = self.param("warp", lambda _, size, dtype: jnp.eye(size, dtype=dtype), x.shape[-1], self.param_dtype)
        x, matrix = promote_dtype(x, matrix, dtype=self.dtype)
        return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(x.shape)
