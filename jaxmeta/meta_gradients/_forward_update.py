"""Steps of an optimizer with a derivative in forward mode."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxmeta._learned import all_zero, with_extra_args, without_nan
from jaxmeta._types import PyTree
from jaxmeta.meta_gradients._explicit import explicit_closure


def update_with_tangents(
    optimizer: optax.GradientTransformation,
    grads: PyTree,
    state: optax.OptState,
    params: PyTree,
    *,
    value: jax.Array,
    value_fn: Callable[[PyTree], jax.Array],
) -> tuple[Any, Any]:
    """Takes a step of an optimizer, for forward mode.

    As in `update_with`, the update counts as constant in a number that is zero or whose gradient is, where its
    derivative is NaN. Reverse mode cleans what flows out of each argument, so the tangents of the arguments are
    followed one by one here.
    """

    def plain(grads: PyTree, state: optax.OptState, params: PyTree, value: jax.Array) -> tuple[PyTree, optax.OptState]:
        extra = {"value": value, "grad": grads, "value_fn": value_fn}
        return with_extra_args(optimizer).update(grads, state, params, **extra)

    explicit, closure = explicit_closure(plain, grads, state, params, value)
    step = jax.custom_jvp(explicit)

    @step.defjvp
    def _sum_tangents(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        _, grads, _, params, _ = primals
        zero_grads = jax.tree.map(lambda g: g == 0, grads)
        zero_places = jax.tree.map(lambda g, p: (g == 0) | (p == 0), grads, params)
        nothing = all_zero(grads)
        end, total = explicit(*primals), None
        for place, tangent in enumerate(tangents):

            def of_one(x: Any, place: int = place) -> Any:
                return explicit(*primals[:place], x, *primals[place + 1 :])

            _, (updates, state) = jax.jvp(of_one, (primals[place],), (tangent,))
            if place > 0:
                constant = zero_places if place == 3 else zero_grads
                updates = jax.tree.map(without_nan, updates, constant)
                state = jax.tree.map(lambda t: without_nan(t, nothing), state)
            total = (updates, state) if total is None else jax.tree.map(_add, total, (updates, state))
        return end, total

    updates, state = step(closure, grads, state, params, value)
    return optax.apply_updates(params, updates), state


def _add(a: Any, b: Any) -> Any:
    return a if a.dtype == jax.dtypes.float0 else a + b
