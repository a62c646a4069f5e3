"""Fully connected networks."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_choice, check_function, check_integer, check_integers
from jaxmeta.models._norm import NORMS, Norm, make_norm
from jaxmeta.models._warp import Warp


class MLP(nn.Module):
    """A multi-layer perceptron: linear layers with an activation between them.

    The default is MAML's regressor for sinusoids, 1-40-40-1. Parameters are `{"body": ..., "head": ...}`. Kernels start
    Xavier uniform, biases at zero. MAML's own code starts kernels at
    `flax.linen.initializers.truncated_normal(0.01)`.

    Attributes:
        sizes: width of each hidden layer (default: two layers of 40). Without a layer this is a linear model, which has
            no `"body"`.
        out: number of outputs (default: 1).
        activation: function after each hidden layer (default: ReLU).
        kernel_init: initializer of all kernels.
        warp: put a `Warp` after each hidden linear layer, for `jaxmeta.tnet` (default: false).
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameters (default: float32).

    Raises:
        ValueError: if a width is not an integer of at least 1, or the input has no axes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = MLP(sizes=(40, 40))
        >>> params = model.init(jax.random.key(0), jnp.zeros((1, 1)))
        >>> sum(p.size for p in jax.tree.leaves(params))
        1761

    References:
        Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning", 2017. https://arxiv.org/abs/1703.03400
    """

    sizes: Sequence[int] = (40, 40)
    out: int = 1
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()
    warp: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_integer(out=self.out)
        check_function(activation=self.activation)
        check_integers(sizes=self.sizes)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the body and the head."""
        self.body = _DenseBody(
            self.sizes, "none", 0.0, self.activation, self.kernel_init, self.warp, self.dtype, self.param_dtype
        )
        self.head = nn.Dense(self.out, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=self.kernel_init)

    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Returns outputs `[..., out]` for `x: [..., d]`, with `context: [c]` next to each input if there is one."""
        return self.head(self.features(x, context))

    def features(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Returns features `[..., sizes[-1]]` of the same arguments."""
        if x.ndim < 1:
            raise ValueError(f"MLP needs an input [..., d], got shape {x.shape}")
        return self.body(_append_context(x, context))


class OmniglotFC(nn.Module):
    """The fully connected network for Omniglot: flatten, (linear, norm, ReLU) for each of `sizes`, linear.

    It has 247,621 parameters for 28x28 images and 5 ways. Parameters are `{"body": ..., "head": ...}`. Kernels start
    from a truncated normal of standard deviation 0.01 as in MAML's code, which the norm makes harmless, biases at zero.
    With `norm="batch"` predictions are transductive (see `BatchNorm`).

    Attributes:
        ways: number of outputs (default: 5).
        sizes: width of each hidden layer (default: 256, 128, 64 and 64).
        norm: `"batch"` (default), `"group"`, `"layer"` or `"none"`.
        epsilon: number that the norm adds to the variance (default: 1e-5). MAML's and learn2learn's code take 1e-3.
        kernel_init: initializer of all kernels.
        warp: put a `Warp` after each hidden linear layer, for `jaxmeta.tnet` (default: false).
        dtype: type of the computation. `None` (default) takes the common type of input and parameters.
        param_dtype: type of the parameters (default: float32).

    Raises:
        ValueError: if a width is not an integer of at least 1, `norm` is unknown, or the input has fewer than two axes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = OmniglotFC(ways=5)
        >>> params = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> sum(p.size for p in jax.tree.leaves(params))
        247621

    References:
        Santoro et al., "Meta-Learning with Memory-Augmented Neural Networks", 2016.
        https://proceedings.mlr.press/v48/santoro16.html
        Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning", 2017. https://arxiv.org/abs/1703.03400
    """

    ways: int = 5
    sizes: Sequence[int] = (256, 128, 64, 64)
    norm: Norm = "batch"
    epsilon: float = 1e-5
    kernel_init: nn.initializers.Initializer = nn.initializers.truncated_normal(0.01)
    warp: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        check_integer(ways=self.ways)
        check_integers(sizes=self.sizes)
        check_choice("norm", self.norm, NORMS)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the body and the head."""
        self.body = _DenseBody(
            self.sizes, self.norm, self.epsilon, nn.relu, self.kernel_init, self.warp, self.dtype, self.param_dtype
        )
        self.head = nn.Dense(self.ways, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=self.kernel_init)

    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Returns logits `[n, ways]` of images `x: [n, ...]`, with `context: [c]` next to each if there is one."""
        return self.head(self.features(x, context))

    def features(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Returns features `[n, sizes[-1]]` of the same arguments."""
        if x.ndim < 2:
            raise ValueError(f"OmniglotFC needs a batch of images [n, ...], got shape {x.shape}")
        return self.body(_append_context(x.reshape(x.shape[0], -1), context))


class _DenseBody(nn.Module):
    """A linear layer, a norm and an activation for each width."""

    widths: Sequence[int]
    norm: Norm
    epsilon: float
    activation: Callable[[jax.Array], jax.Array]
    kernel_init: nn.initializers.Initializer
    warp: bool
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, width in enumerate(self.widths):
            dense = nn.Dense(
                width,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                kernel_init=self.kernel_init,
                name=f"dense_{i}",
            )
            x = dense(x)
            if self.warp:
                x = Warp(self.dtype, self.param_dtype, name=f"warp_{i}")(x)
            x = self.activation(make_norm(self.norm, self.param_dtype, self.epsilon, name=f"norm_{i}")(x))
        return x


def _append_context(x: jax.Array, context: jax.Array | None) -> jax.Array:
    """Appends the same `context: [c]` to each input of `x: [..., d]`, for `[..., d + c]`."""
    if context is None:
        return x
    return jnp.concatenate([x, jnp.broadcast_to(context, (*x.shape[:-1], context.shape[-1]))], axis=-1)
