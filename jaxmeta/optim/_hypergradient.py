"""Hypergradient descent: a learning rate that learns while it is used (Baydin et al. 2018).

https://arxiv.org/abs/1703.04782. It works for plain training, and as an inner optimizer whose initial rates are
meta-learned.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_choice, check_number, check_transformation
from jaxmeta._learned import Learned
from jaxmeta._types import PyTree
from jaxmeta.display import described, short_repr


class HypergradientState(NamedTuple):
    """State of `hypergradient_descent`."""

    rate: Learned
    """Current rate, a scalar or a tree of scalars like the parameters."""
    previous: PyTree
    """Last direction, a tree like the parameters."""
    direction: optax.OptState
    """State of `direction`."""

    __repr__ = short_repr


@described
def hypergradient_descent(
    learning_rate: float | jax.Array = 0.01,
    hyper_rate: float | jax.Array = 1e-4,
    *,
    per: Literal["global", "tensor"] = "global",
    direction: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Hypergradient descent: gradient descent on the parameters and on the learning rate itself.

    With gradients `g_t` and directions `d_t` (equal to `g_t` for plain descent), each step computes one inner product:

        alpha_t = alpha_{t-1} + beta * <g_t, d_{t-1}>
        theta_{t+1} = theta_t - alpha_t * d_t

    because `-<g_t, d_{t-1}>` is the derivative of the loss at `theta_t` with respect to `alpha_{t-1}`. The state holds
    one copy of the parameters. In an inner loop the initial rate is a meta-parameter.

    Args:
        learning_rate: initial rate, `alpha_0` (default: 0.01).
        hyper_rate: rate of the rate, `beta` (default: 1e-4). Zero leaves the rate alone.
        per: `"global"` (default) for one rate, as in the paper, or `"tensor"` for one rate per parameter tensor.
        direction: transformation of gradients into directions, such as `optax.trace(0.9)` for the paper's SGDN-HD with
            momentum or `optax.scale_by_adam()` for Adam-HD. `None` (default) takes the gradients. Momentum belongs
            here and not before this optimizer in a chain, where it would replace the gradient in the inner product.

    Returns:
        An optax optimizer whose state holds the rate as `Learned`, in float32 or wider.

    Raises:
        ValueError: if a rate is not a finite number, or `per` is unknown.
        TypeError: if `direction` is not an optax transformation.

    Example:
        >>> optimizer = hypergradient_descent(0.1, 0.01)
        >>> w, state = jnp.array(1.0), optimizer.init(jnp.array(1.0))
        >>> for _ in range(2):  # the loss w^2 / 2
        ...     updates, state = optimizer.update(w, state)
        ...     w = optax.apply_updates(w, updates)
        >>> round(float(state.rate.value), 4)  # 0.1 + 0.01 * 0.9 * 1.0
        0.109

    References:
        Baydin et al., *Online Learning Rate Adaptation with Hypergradient Descent*, ICLR 2018,
        https://arxiv.org/abs/1703.04782
    """
    check_number(learning_rate=learning_rate, hyper_rate=hyper_rate)
    check_choice("per", per, ("global", "tensor"))
    direction = optax.identity() if direction is None else direction
    check_transformation(direction=direction)
    transform = optax.with_extra_args_support(direction)

    def init(params: PyTree) -> Any:
        def rate(*params: jax.Array) -> jax.Array:
            return jnp.asarray(learning_rate, jnp.result_type(jnp.float32, *params))

        rates = rate(*jax.tree.leaves(params)) if per == "global" else jax.tree.map(rate, params)
        return HypergradientState(Learned(rates), jax.tree.map(jnp.zeros_like, params), transform.init(params))

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any) -> tuple[PyTree, Any]:
        rates = state.rate.value
        # alpha_t = alpha_{t-1} + beta * <g_t, d_{t-1}>
        rises = jax.tree.map(_inner_product, updates, state.previous)
        if per == "global":
            rates = rates + hyper_rate * sum(jax.tree.leaves(rises), jnp.zeros_like(rates))
            by_tensor = jax.tree.map(lambda _: rates, updates)
        else:
            rates = by_tensor = jax.tree.map(lambda rate, rise: rate + hyper_rate * rise, rates, rises)
        directions, direction_state = transform.update(updates, state.direction, params, **extra_args)
        steps = jax.tree.map(lambda g, d, rate: (-rate * d).astype(g.dtype), updates, directions, by_tensor)
        previous = jax.tree.map(lambda d, old: d.astype(old.dtype), directions, state.previous)
        return steps, HypergradientState(Learned(rates), previous, direction_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _inner_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns `<a, b>`, computed in float32 or wider."""
    dtype = jnp.result_type(jnp.float32, a)
    return jnp.sum(a.astype(dtype) * b.astype(dtype))
