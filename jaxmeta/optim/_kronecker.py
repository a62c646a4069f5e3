"""Meta-KFO: a Kronecker-factored meta-optimizer (Arnold, Iqbal & Sha 2019, https://arxiv.org/abs/1910.13603).

It maps the gradient `G` of each tensor, as a matrix, to `L G R^T` with learned `L` and `R`, in one or several layers.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_function, check_integer, check_optional_integer
from jaxmeta._learned import Learned
from jaxmeta._types import PyTree
from jaxmeta.display import described, short_repr
from jaxmeta.optim._factors import identity, multiply


class KroneckerState(NamedTuple):
    """State of `scale_by_kronecker`."""

    layers: Learned
    """A tree like the parameters, with a list of `Factors`, one per layer, in place of each of them."""

    __repr__ = short_repr


class Factors(NamedTuple):
    """Factors of one layer for one tensor, whose gradient is a matrix `[m, n]`."""

    left: jax.Array
    """Left factor `L: [m, m]`, or its diagonal `[m]`."""
    right: jax.Array
    """Right factor `R: [n, n]`, or its diagonal `[n]`."""

    __repr__ = short_repr


@described
def scale_by_kronecker(
    layers: int = 1,
    nonlinearity: Callable[[jax.Array], jax.Array] | None = None,
    *,
    max_size: int | None = 512,
) -> optax.GradientTransformation:
    """Maps the gradient of each tensor through a small learned network whose layers are Kronecker-factored.

    A layer maps a matrix `G` to `L G Rᵀ`, which is `(L ⊗ R) vec(G)` with rows concatenated. A full linear map of the
    gradient would have `(m*n)²` entries. The two factors have `m² + n²`.

    | tensor | its gradient as a matrix `[m, n]` |
    | --- | --- |
    | dense kernel `[din, dout]` | `[din, dout]` |
    | convolution kernel `[kh, kw, cin, cout]` | one `[kh*kw, cin]` per output (all outputs share the factors) |
    | vector `[d]`, scalar | `[d, 1]`, `[1, 1]` |

    With `layers=K` and no `nonlinearity` the update is `L_K … L_1 G R_1ᵀ … R_Kᵀ`, and all factors start as the
    identity. With a nonlinearity `f` the layers after the first one are residual: `X_1 = L_1 G R_1ᵀ` and
    `X_k = X_{k-1} + L_k f(X_{k-1}) R_kᵀ`, where `L_k` starts at zero. So the update starts as the gradient in both
    cases. The transformation has no learning rate. Chain it with `optax.sgd(0.4)` or `scale_by_learned_rate(0.4)`.

    Args:
        layers: number of layers, `K` (default: 1).
        nonlinearity: elementwise function `f` between the layers, such as `jax.nn.relu`. `None` (default) makes the map
            linear.
        max_size: largest number of rows of a full factor (default: 512). Larger ones are held as their diagonals,
            because a dense 784 x 784 factor for a layer on flat images made a meta-update 30 times slower. `None` sets
            no limit.

    Returns:
        A transformation whose state holds the factors as `Learned`.

    Raises:
        ValueError: if `layers` or `max_size` is not an integer of at least 1, or `nonlinearity` is given for a single
            layer.
        TypeError: if `nonlinearity` is not callable.

    Example:
        >>> inner = optax.chain(scale_by_kronecker(), optax.sgd(0.5))
        >>> params = jnp.ones((3, 2))
        >>> updates, state = inner.update(params, inner.init(params))
        >>> updates.tolist()
        [[-0.5, -0.5], [-0.5, -0.5], [-0.5, -0.5]]
        >>> jax.tree.map(jnp.shape, state[0].layers.value)
        [Factors(left=(3, 3), right=(2, 2))]

    References:
        Arnold, Iqbal & Sha, *When MAML Can Adapt Fast and How to Assist When It Cannot*, AISTATS 2021,
        https://arxiv.org/abs/1910.13603
    """
    check_integer(layers=layers)
    check_optional_integer(max_size=max_size)
    if nonlinearity is not None:
        check_function(nonlinearity=nonlinearity)
        if layers < 2:
            raise ValueError(f"nonlinearity goes between layers, so it needs layers of at least 2, got {layers}")

    def factors(param: jax.Array) -> list[Factors]:
        shape, dtype = jnp.shape(param), jnp.result_type(param)
        *_, m, n = _as_matrices(shape)

        def layer(index: int) -> Factors:
            left, right = identity(m, dtype, max_size), identity(n, dtype, max_size)
            return Factors(left if index == 0 or nonlinearity is None else jnp.zeros_like(left), right)

        return [layer(index) for index in range(layers)]

    def network(grad: jax.Array, factors: list[Factors]) -> jax.Array:
        x = jnp.moveaxis(grad, -1, 0) if grad.ndim > 2 else grad
        x = _layer(factors[0], x.reshape(_as_matrices(grad.shape)))
        for layer in factors[1:]:  # X_k = L_k X_{k-1} R_kᵀ, or X_{k-1} + L_k f(X_{k-1}) R_kᵀ
            x = _layer(layer, x) if nonlinearity is None else x + _layer(layer, nonlinearity(x))
        if grad.ndim > 2:
            return jnp.moveaxis(x.reshape(grad.shape[-1], *grad.shape[:-1]), 0, -1)
        return x.reshape(grad.shape)

    def init(params: PyTree) -> Any:
        return KroneckerState(Learned(jax.tree.map(factors, params)))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        del params
        return jax.tree.map(network, updates, state.layers.value), state

    return optax.GradientTransformation(init, update)


def _as_matrices(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of the gradient of a tensor as matrices, `[..., m, n]`."""
    if len(shape) > 2:
        *spatial, cin, cout = shape
        return cout, math.prod(spatial), cin
    return shape if len(shape) == 2 else (*(shape or (1,)), 1)


def _layer(factors: Factors, x: jax.Array) -> jax.Array:
    """Returns `L x Rᵀ`."""
    return multiply(factors.left, multiply(factors.right, x, -1), -2)
