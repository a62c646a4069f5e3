"""Normalization as a function of input and variables only, differentiable to any order."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.models._conv import Conv

Norm: TypeAlias = Literal["batch", "group", "layer", "none"]

NORMS = ("batch", "group", "layer", "none")


class BatchNorm(nn.Module):
    """Batch normalization: **transductive**, unless statistics are given.

    | call | the mean and variance of each channel |
    | --- | --- |
    | `apply({"params": ...}, x)` | of the batch at hand, at training and at test time |
    | `apply({"params": ..., "batch_stats": ...}, x)` | the given ones; one example does not see the others |
    | `apply(..., x, mutable=["batch_stats"])` | of the batch at hand, and they are returned (unbiased) |

    The first is what MAML's published few-shot numbers use: predictions for one query example depend on the other query
    examples of its task; say "transductive" beside results. The second is for a backbone that was trained on many
    classes; `with_batch_stats` makes its statistics. They get no gradient. There is no train/test switch, and `init`
    makes no statistics. `GroupNorm` needs none.

    Parameters are `scale: [c]` and `bias: [c]`, statistics `mean: [c]` and `var: [c]`. A batch with one value per
    channel is normalized to `bias`.

    Attributes:
        epsilon: Added to the variance.
        param_dtype: Of the parameters. Statistics are computed in float32 or better; the result has the input's type.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = 3 + 2 * jax.random.normal(jax.random.key(0), (64, 7, 7, 2))
        >>> y, params = BatchNorm().init_with_output(jax.random.key(1), x)
        >>> print(jnp.round(jnp.abs(y.mean()), 3), jnp.round(y.std(), 3))
        0.0 1.0
        >>> _, statistics = BatchNorm().apply(params, x, mutable=["batch_stats"])
        >>> bool(jnp.allclose(BatchNorm().apply({**params, **statistics}, x), y, atol=1e-3))
        True

    References:
        Ioffe and Szegedy, "Batch Normalization", 2015. https://arxiv.org/abs/1502.03167
    """

    epsilon: float = 1e-5
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, shift: jax.Array | None = None) -> jax.Array:
        """Normalize `x + shift` over all axes but the last.

        Args:
            x: `[..., c]`.
            shift: `[c]`, such as the bias of the layer before. The statistics of the batch at hand cancel it: it costs
                nothing, and its derivative is zero.

        Returns:
            `[..., c]`.
        """
        if x.ndim < 2:
            raise ValueError(f"BatchNorm needs an input [..., channels] with at least two axes, got shape {x.shape}")
        scale, bias = _affine(self, x.shape[-1], self.param_dtype)
        rows = _at_least_float32(x).reshape(-1, x.shape[-1])
        added = 0.0 if shift is None else _at_least_float32(shift)
        collect = self.is_mutable_collection("batch_stats") and not self.is_initializing()
        if collect:
            self.put_variable("batch_stats", "mean", jnp.mean(rows, 0) + added)
            self.put_variable("batch_stats", "var", jnp.var(rows, 0) * (len(rows) / max(len(rows) - 1, 1)))
        if self.has_variable("batch_stats", "mean") and not collect:
            given = (self.get_variable("batch_stats", name) for name in ("mean", "var"))
            mean, variance = (jax.lax.stop_gradient(_at_least_float32(value)) for value in given)
            y = (rows + (added - mean)[None]) * (scale * jax.lax.rsqrt(variance + self.epsilon))[None]
        else:
            y = _standardize(rows, (0,), scale[None], self.epsilon)
        return (y + bias[None]).astype(x.dtype).reshape(x.shape)


class GroupNorm(nn.Module):
    """Group normalization: each example by the statistics of its own channel groups over space. Not transductive.

    Parameters are `scale: [c]` and `bias: [c]`. With `groups=1` it is layer normalization over space and channels.

    Attributes:
        groups: Number of channel groups; divides the number of channels.
        epsilon: Added to the variance.
        param_dtype: Of the parameters. Statistics are computed in float32 or better; the result has the input's type.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jax.random.normal(jax.random.key(0), (4, 7, 7, 16))
        >>> GroupNorm(groups=8).init_with_output(jax.random.key(1), x)[0].shape
        (4, 7, 7, 16)

    References:
        Wu and He, "Group Normalization", 2018. https://arxiv.org/abs/1803.08494
        Ba, Kiros and Hinton, "Layer Normalization", 2016. https://arxiv.org/abs/1607.06450
    """

    groups: int = 8
    epsilon: float = 1e-5
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalize `x: [n, ..., c]` within each example and channel group."""
        if x.ndim < 2:
            raise ValueError(f"GroupNorm needs an input [n, ..., channels], got shape {x.shape}")
        channels = x.shape[-1]
        if self.groups < 1 or channels % self.groups:
            raise ValueError(f"groups must divide the {channels} channels of the input {x.shape}, got {self.groups}")
        scale, bias = _affine(self, channels, self.param_dtype)
        grouped = (x.shape[0], math.prod(x.shape[1:-1]), self.groups, channels // self.groups)
        affine = (1, 1, *grouped[2:])
        y = _standardize(_at_least_float32(x).reshape(grouped), (1, 3), scale.reshape(affine), self.epsilon)
        return (y + bias.reshape(affine)).astype(x.dtype).reshape(x.shape)


def make_norm(
    norm: Norm, param_dtype: Any = jnp.float32, epsilon: float = 1e-5, *, name: str | None = None
) -> Callable[[jax.Array], jax.Array]:
    """The normalization layer called `norm`; call it inside a compact module.

    Args:
        norm: `"batch"`, `"group"` (8 groups), `"layer"` (one group) or `"none"`.
        param_dtype: Of the parameters.
        epsilon: Added to the variance.
        name: Of the submodule.

    Returns:
        A module, or the identity for `"none"`.

    Raises:
        ValueError: If there is no such normalization.
    """
    check_norm(norm)
    if norm == "batch":
        return BatchNorm(epsilon, param_dtype, name=name)
    if norm == "none":
        return lambda x: x
    return GroupNorm(8 if norm == "group" else 1, epsilon, param_dtype, name=name)


def normalize(norm: Callable[..., jax.Array], conv: Conv, x: jax.Array) -> jax.Array:
    """`norm(conv(x))`; batch norm, which may cancel the convolution's bias, is given it apart."""
    if conv.use_bias and isinstance(norm, BatchNorm):
        return norm(conv(x, add_bias=False), conv.get_variable("params", "bias"))
    return norm(conv(x))


def check_norm(norm: str) -> None:
    """Raise ValueError unless `norm` is a known name."""
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {NORMS}, got {norm!r}")


def _at_least_float32(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _affine(module: nn.Module, channels: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """`scale` and `bias`, in at least float32."""
    scale = module.param("scale", nn.initializers.ones_init(), (channels,), dtype)
    bias = module.param("bias", nn.initializers.zeros_init(), (channels,), dtype)
    return _at_least_float32(scale), _at_least_float32(bias)


@partial(jax.custom_jvp, nondiff_argnums=(1, 3))
def _standardize(x: jax.Array, axes: tuple[int, ...], scale: jax.Array, epsilon: float) -> jax.Array:
    """`x` to mean zero and standard deviation `scale` over `axes`.

    The derivative is JAX's own, written so that its transpose passes over a large `x` three times: for the sum of the
    gradient, for the sum of its product with the centered `x`, and for the result.
    """
    centered, inverse = _center(x, axes, epsilon)
    return centered * (scale * inverse)


@_standardize.defjvp
def _(axes: Any, epsilon: float, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x, scale), (dx, dscale) = primals, tangents
    centered, inverse = _center(x, axes, epsilon)
    slope = scale * inverse
    along = dscale * inverse - slope * jnp.square(inverse) * jnp.mean(centered * dx, axes, keepdims=True)
    return centered * slope, slope * dx + (centered * along - slope * jnp.mean(dx, axes, keepdims=True))


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _center(x: jax.Array, axes: tuple[int, ...], epsilon: float) -> tuple[jax.Array, jax.Array]:
    """`x` without its mean over `axes`, and the inverse of its standard deviation."""
    centered = x - jnp.mean(x, axes, keepdims=True)
    return centered, jax.lax.rsqrt(jnp.mean(jnp.square(centered), axes, keepdims=True) + epsilon)


@_center.defjvp
def _(axes: Any, epsilon: float, primals: Any, tangents: Any) -> tuple[Any, Any]:
    (x,), (dx,) = primals, tangents
    centered, inverse = _center(x, axes, epsilon)
    dinverse = -(inverse**3) * jnp.mean(centered * dx, axes, keepdims=True)
    return (centered, inverse), (dx - jnp.mean(dx, axes, keepdims=True), dinverse)
