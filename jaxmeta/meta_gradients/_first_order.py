"""First-order meta-gradients (Finn et al. 2017, https://arxiv.org/abs/1703.03400)."""

from collections.abc import Callable
from typing import Any

import jax

from jaxmeta._types import LossFn, PyTree
from jaxmeta.display import described
from jaxmeta.meta_gradients._unrolling import MetaGradient, by_autodiff


@described
def first_order() -> MetaGradient:
    """Treats the inner gradients as constants: first-order MAML (Finn et al. 2017, https://arxiv.org/abs/1703.03400).

    Everything else is differentiated: the inner optimizer's own learned values (a learned rate, say) and the losses of
    the inner steps.

    Returns:
        A `MetaGradient`: biased, about half the time of an exact one. Memory is independent of the number of steps,
        unless the inner optimizer has learned values: then each step keeps its gradient.
    """
    return by_autodiff(constant_grad)._replace(inner_constant=True)


def constant_grad(loss_fn: LossFn) -> Callable[[PyTree, Any, Any], tuple[jax.Array, PyTree]]:
    """The differentiable loss, and its gradient as a constant."""

    def apply(params: PyTree, batch: Any, x: Any) -> tuple[jax.Array, PyTree]:
        # Stopping the parameters too spares the trace of a second derivative that is dropped. The compiler merges the
        # two evaluations of the loss.
        grads, _ = jax.grad(loss_fn, has_aux=True)(jax.lax.stop_gradient(params), batch, x)
        return loss_fn(params, batch, x)[0], jax.lax.stop_gradient(grads)

    return apply
