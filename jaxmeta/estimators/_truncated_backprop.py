"""Truncated backpropagation through time (Werbos 1990, https://doi.org/10.1109/5.58337)."""

from functools import partial

import jax

from jaxmeta._checks import check_integer
from jaxmeta._types import Metrics, PyTree
from jaxmeta.display import described
from jaxmeta.estimators._process import GradientEstimator, Process, ProcessRun, advance, start_run


@described
def truncated_backprop(window: int) -> GradientEstimator:
    """Reverse mode through one window; what came before is a constant.

    Exact if the window is the horizon. Otherwise biased towards what pays within the window, the more the shorter it
    is. Needs a differentiable process.

    Args:
        window: steps in a window; must divide the horizon.

    Returns:
        A `GradientEstimator`.

    Raises:
        ValueError: if `window` is less than 1.

    References:
        Werbos, *Backpropagation through Time: What It Does and How to Do It*, Proceedings of the IEEE, 1990,
        https://doi.org/10.1109/5.58337
    """
    check_integer(window=window)

    def grad(process: Process, theta: PyTree, run: ProcessRun, key: jax.Array) -> tuple[Metrics, PyTree, ProcessRun]:
        objective = jax.value_and_grad(partial(advance, process, window), has_aux=True)
        (loss, state), gradient = objective(theta, run.state, key)
        return {"loss": loss}, gradient, ProcessRun(state, run.age + window)

    return GradientEstimator(window, start_run, grad)
