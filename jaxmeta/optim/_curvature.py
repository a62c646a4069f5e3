"""Meta-Curvature (Park & Oliva 2019, https://arxiv.org/abs/1902.03356).

It multiplies the gradient of each tensor along its output, input and spatial axes with a learned matrix each.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_optional_integer
from jaxmeta._learned import Learned
from jaxmeta._types import PyTree
from jaxmeta.display import described, short_repr
from jaxmeta.optim._factors import identity, multiply


class CurvatureState(NamedTuple):
    """State of `scale_by_curvature`."""

    matrices: Learned
    """A tree like the parameters, with a `Curvature` in place of each of them."""

    __repr__ = short_repr


class Curvature(NamedTuple):
    """The learned matrices of one tensor."""

    m_o: jax.Array
    """Matrix along the outputs, `[cout, cout]` or its diagonal `[cout]`. A vector has one weight per entry here."""
    m_i: jax.Array | None = None
    """Matrix along the inputs, `[cin, cin]` or its diagonal `[cin]`."""
    m_f: jax.Array | None = None
    """Matrix along the flattened spatial axes, `[kh*kw, kh*kw]` or its diagonal `[kh*kw]`."""

    __repr__ = short_repr


@described
def scale_by_curvature(*, max_size: int | None = 512) -> optax.GradientTransformation:
    """Multiplies the gradient of each tensor, mode by mode, with learned matrices that start as the identity.

    The axes are those of Flax: the last one is the output, the one before it the input, all others are spatial.

    | tensor | its update |
    | --- | --- |
    | dense kernel `[din, dout]` | `M_i G M_oᵀ` |
    | convolution kernel `[kh, kw, cin, cout]` | mode products of `G [kh*kw, cin, cout]` with `M_f`, `M_i`, `M_o` |
    | vector (bias, scale) or scalar | elementwise product with `m_o`, as in learn2learn |

    The transformation has no learning rate. Chain it with `optax.sgd(0.4)` or `scale_by_learned_rate(0.4)`.

    Args:
        max_size: largest number of rows of a full matrix (default: 512). Larger ones are held as their diagonals,
            because a dense 784 x 784 matrix for a layer on flat images costs many times more than the layer. `None`
            sets no limit, as in the paper.

    Returns:
        A transformation whose state holds the matrices as `Learned`.

    Raises:
        ValueError: if `max_size` is not an integer of at least 1.

    Example:
        >>> inner = optax.chain(scale_by_curvature(), optax.sgd(0.5))
        >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
        >>> updates, state = inner.update(params, inner.init(params))
        >>> updates["bias"].tolist()
        [-0.5, -0.5]
        >>> jax.tree.map(jnp.shape, state[0].matrices.value["kernel"])
        Curvature(m_o=(2, 2), m_i=(3, 3))

    References:
        Park & Oliva, *Meta-Curvature*, NeurIPS 2019, https://arxiv.org/abs/1902.03356
    """
    check_optional_integer(max_size=max_size)

    def matrices(param: jax.Array) -> Curvature:
        shape, dtype = jnp.shape(param), jnp.result_type(param)
        if len(shape) < 2:
            return Curvature(jnp.ones(shape, dtype))
        *spatial, cin, cout = shape
        m_f = identity(math.prod(spatial), dtype, max_size) if spatial else None
        return Curvature(identity(cout, dtype, max_size), identity(cin, dtype, max_size), m_f)

    def product(grad: jax.Array, m: Curvature) -> jax.Array:
        if m.m_i is None:
            return m.m_o * grad
        g = multiply(m.m_i, multiply(m.m_o, grad, -1), -2)  # M_i G M_oᵀ
        if m.m_f is None:
            return g
        return multiply(m.m_f, g.reshape(-1, *grad.shape[-2:]), 0).reshape(grad.shape)

    def init(params: PyTree) -> Any:
        return CurvatureState(Learned(jax.tree.map(matrices, params)))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        del params
        return jax.tree.map(product, updates, state.matrices.value), state

    return optax.GradientTransformation(init, update)
