"""Meta-gradients through the last inner steps only."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_integer
from jaxmeta._types import LossFn, PyTree
from jaxmeta.display import described
from jaxmeta.meta_gradients._first_order import constant_grad
from jaxmeta.meta_gradients._reverse import reverse_value_and_grad
from jaxmeta.meta_gradients._unrolling import MetaGradient, Unrolled, check_remat, run_inner_loop


@described
def truncated(steps: int, *, remat: bool | int = False) -> MetaGradient:
    """Differentiates through the last inner steps only; earlier inner gradients are constants.

    `truncated(0)` is `first_order()`, and `truncated(n)` for `n` inner steps or more is `reverse()`. The early steps
    still pass on the derivative of their start, as in first-order MAML. This is not the estimator of Shaban et al.,
    who drop the early steps as a whole: with them the initial parameters would have no gradient.

    Args:
        steps: through how many of the last steps to differentiate.
        remat: see `reverse`.

    Returns:
        A `MetaGradient`: biased. Memory is independent of the number of earlier steps, see `first_order`.

    Raises:
        ValueError: if `steps` is negative, or `remat` a number less than 1.

    References:
        Shaban, Cheng, Hatch & Boots, *Truncated Back-propagation for Bilevel Optimization*, 2019,
        https://arxiv.org/abs/1810.10667
    """
    check_integer(least=0, steps=steps)
    check_remat(remat)

    def run(
        loss_fn: LossFn,
        inner: optax.GradientTransformation,
        params: PyTree,
        state: optax.OptState,
        batch: Any,
        xs: PyTree,
    ) -> Unrolled:
        cut = max(0, jax.tree.leaves(xs)[0].shape[0] - steps)
        early, late = (jax.tree.map(lambda x, part=part: x[part], xs) for part in (slice(cut), slice(cut, None)))
        first = run_inner_loop(constant_grad, loss_fn, inner, params, state, batch, early)
        last = run_inner_loop(reverse_value_and_grad, loss_fn, inner, first.params, first.state, batch, late, remat)
        return last._replace(losses=jnp.concatenate([first.losses, last.losses]))

    return MetaGradient(run, partial(jax.value_and_grad, has_aux=True), inner_constant=steps == 0)
