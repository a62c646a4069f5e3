"""Normalization as a function of input and variables only, differentiable to any order."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_choice, check_integer, check_not_negative
from jaxmeta._types import at_least_float32
from jaxmeta.models._conv import Conv

Norm: TypeAlias = Literal["batch", "group", "layer", "none"]

NORMS = ("batch", "group", "layer", "none")


class BatchNorm(nn.Module):
    """Batch normalization, which is transductive unless statistics are given.

    | call | mean and variance of each channel |
    | --- | --- |
    | `apply({"params": ...}, x)` | those of the current batch, at training and at test time |
    | `apply({"params": ..., "batch_stats": ...}, x)` | the given ones, so one example does not see the others |
    | `apply({"params": ...}, x, mutable=["batch_stats"])` | those of the current batch, returned too (unbiased) |

    MAML's published few-shot numbers use the first call. Predictions for one query example then depend on the other
    query examples of its task, so report such results as transductive. The second call is for a backbone that was
    trained on many classes, and `with_batch_stats` computes its statistics. They get no gradient. There is no
    train/test switch, and `init` makes no statistics. `GroupNorm` needs none.

    Parameters are `scale: [c]` and `bias: [c]`, statistics `mean: [c]` and `var: [c]`. A batch with one value per
    channel is normalized to `bias`.

    Attributes:
        epsilon: number that is added to the variance (default: 1e-5).
        param_dtype: type of the parameters (default: float32). Statistics are computed in float32 or wider, and the
            result has the type of the input.

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

    def __post_init__(self) -> None:
        check_not_negative(epsilon=self.epsilon)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, shift: jax.Array | None = None) -> jax.Array:
        """Normalizes `x + shift` over all axes except the last one.

        Args:
            x: input `[..., c]`.
            shift: vector `[c]`, such as the bias of the layer before. `None` (default) adds nothing. The statistics of
                the current batch cancel it, so it costs nothing and its derivative is zero.

        Returns:
            Output `[..., c]`.
        """
        if x.ndim < 2:
            raise ValueError(f"BatchNorm needs an input [..., channels] with at least two axes, got shape {x.shape}")
        scale, bias = _affine(self, x.shape[-1], self.param_dtype)
        rows = at_least_float32(x).reshape(-1, x.shape[-1])
        added = 0.0 if shift is None else at_least_float32(shift)
        given = self.has_variable("batch_stats", "mean")
        collect = self.is_mutable_collection("batch_stats") and not given and not self.is_initializing()
        if collect:
            self.put_variable("batch_stats", "mean", jnp.mean(rows, 0) + added)
            self.put_variable("batch_stats", "var", jnp.var(rows, 0) * (len(rows) / max(len(rows) - 1, 1)))
        if given:
            statistics = (self.get_variable("batch_stats", name) for name in ("mean", "var"))
            mean, variance = (jax.lax.stop_gradient(at_least_float32(value)) for value in statistics)
            y = (rows + (added - mean)[None]) * (scale * jax.lax.rsqrt(variance + self.epsilon))[None]
        else:
            y = _standardize(rows, (0,), scale[None], self.epsilon)
        return (y + bias[None]).astype(x.dtype).reshape(x.shape)


class GroupNorm(nn.Module):
    """Group normalization, by the statistics of the channel groups of each example over space.

    It is not transductive. Parameters are `scale: [c]` and `bias: [c]`. With `groups=1` it is layer normalization over
    space and channels.

    Attributes:
        groups: number of channel groups, a divisor of the number of channels (default: 8).
        epsilon: number that is added to the variance (default: 1e-5).
        param_dtype: type of the parameters (default: float32). Statistics are computed in float32 or wider, and the
            result has the type of the input.

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

    def __post_init__(self) -> None:
        check_integer(groups=self.groups)
        check_not_negative(epsilon=self.epsilon)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes `x: [n, ..., c]` within each example and channel group."""
        if x.ndim < 2:
            raise ValueError(f"GroupNorm needs an input [n, ..., channels], got shape {x.shape}")
        channels = x.shape[-1]
        if channels % self.groups:
            raise ValueError(f"groups must divide the {channels} channels of the input {x.shape}, got {self.groups}")
        scale, bias = _affine(self, channels, self.param_dtype)
        grouped = (x.shape[0], math.prod(x.shape[1:-1]), self.groups, channels // self.groups)
        affine = (1, 1, *grouped[2:])
        y = _standardize(at_least_float32(x).reshape(grouped), (1, 3), scale.reshape(affine), self.epsilon)
        return (y + bias.reshape(affine)).astype(x.dtype).reshape(x.shape)


def make_norm(
    norm: Norm, param_dtype: Any = jnp.float32, epsilon: float = 1e-5, *, name: str | None = None
) -> Callable[[jax.Array], jax.Array]:
    """Builds a normalization layer, inside a compact module.

    Args:
        norm: `"batch"`, `"group"` (8 groups), `"layer"` (one group) or `"none"`.
        param_dtype: type of the parameters (default: float32).
        epsilon: number that is added to the variance (default: 1e-5).
        name: name of the submodule.

    Returns:
        A module, or the identity for `"none"`.

    Raises:
        ValueError: if `norm` is unknown.
    """
    check_choice("norm", norm, NORMS)
    if norm == "batch":
        return BatchNorm(epsilon, param_dtype, name=name)
    if norm == "none":
        return lambda x: x
    return GroupNorm(8 if norm == "group" else 1, epsilon, param_dtype, name=name)


def normalize(norm: Callable[..., jax.Array], conv: Conv, x: jax.Array) -> jax.Array:
    """Computes `norm(conv(x))`, where batch norm, which may cancel the convolution's bias, gets it separately."""
    if conv.use_bias and isinstance(norm, BatchNorm):
        return norm(conv(x, add_bias=False), conv.get_variable("params", "bias"))
    return norm(conv(x))


def _affine(module: nn.Module, channels: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Returns `scale` and `bias` of a module, in float32 or wider."""
    scale = module.param("scale", nn.initializers.ones_init(), (channels,), dtype)
    bias = module.param("bias", nn.initializers.zeros_init(), (channels,), dtype)
    return at_least_float32(scale), at_least_float32(bias)


@partial(jax.custom_jvp, nondiff_argnums=(1, 3))
def _standardize(x: jax.Array, axes: tuple[int, ...], scale: jax.Array, epsilon: float) -> jax.Array:
    """Scales `x` to mean zero and standard deviation `scale` over `axes`.

    The derivative is equal to JAX's own. It is written so that its transpose passes over a large `x` three times: for
    the sum of the gradient, for the sum of its product with the centered `x`, and for the result.
    """
    centered, inverse = _center(x, axes, epsilon)
    return centered * (scale * inverse)


@_standardize.defjvp
def _(axes: Any, epsilon: float, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """Returns the result of `_standardize` and its derivative."""
    (x, scale), (dx, dscale) = primals, tangents
    centered, inverse = _center(x, axes, epsilon)
    slope = scale * inverse
    along = dscale * inverse - slope * jnp.square(inverse) * jnp.mean(centered * dx, axes, keepdims=True)
    return centered * slope, slope * dx + (centered * along - slope * jnp.mean(dx, axes, keepdims=True))


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _center(x: jax.Array, axes: tuple[int, ...], epsilon: float) -> tuple[jax.Array, jax.Array]:
    """Returns `x` minus its mean over `axes`, and the inverse of its standard deviation."""
    centered = x - jnp.mean(x, axes, keepdims=True)
    return centered, jax.lax.rsqrt(jnp.mean(jnp.square(centered), axes, keepdims=True) + epsilon)


@_center.defjvp
def _(axes: Any, epsilon: float, primals: Any, tangents: Any) -> tuple[Any, Any]:
    """Returns the result of `_center` and its derivative."""
    (x,), (dx,) = primals, tangents
    centered, inverse = _center(x, axes, epsilon)
    dinverse = -(inverse**3) * jnp.mean(centered * dx, axes, keepdims=True)
    return (centered, inverse), (dx - jnp.mean(dx, axes, keepdims=True), dinverse)
