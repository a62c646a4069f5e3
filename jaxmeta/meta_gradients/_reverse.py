"""Plain reverse mode through the unrolled inner loop."""

from collections.abc import Callable
from typing import Any

import jax

from jaxmeta._types import LossFn, PyTree
from jaxmeta.display import described
from jaxmeta.meta_gradients._unrolling import MetaGradient, by_autodiff


@described
def reverse(*, remat: bool | int = False) -> MetaGradient:
    """Plain reverse mode through the unrolled inner loop: exact, memory grows with the number of steps.

    Args:
        remat: recompute each inner step in the backward pass instead of storing its intermediate values; memory then
            grows by one copy of the parameters per step, for about a third more work. A number `n` nests this: only
            every `n`-th copy is kept, and memory is least for `n` near the square root of the number of steps.

    Returns:
        A `MetaGradient`.

    Raises:
        ValueError: if `remat` is a number less than 1.
    """
    return by_autodiff(reverse_value_and_grad, remat)


def reverse_value_and_grad(loss_fn: LossFn) -> Callable[[PyTree, Any, Any], tuple[jax.Array, PyTree]]:
    def apply(params: PyTree, batch: Any, x: Any) -> tuple[jax.Array, PyTree]:
        (loss, _), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, batch, x)
        return loss, grads

    return apply
