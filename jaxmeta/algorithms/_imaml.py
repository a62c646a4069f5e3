"""iMAML: MAML with implicit gradients (Rajeswaran, Finn, Kakade & Levine 2019, https://arxiv.org/abs/1909.04630).

The inner loop minimizes the support loss plus a pull to the initial parameters; the meta-gradient needs its end only.
"""

import optax

from jaxmeta._types import LossFn, MetaLearner
from jaxmeta.algorithms._maml import maml
from jaxmeta.meta_gradients import LinearSolver, implicit


def imaml(
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    steps: int = 16,
    *,
    proximal: float = 2.0,
    solver: LinearSolver | None = None,
    test_steps: int | None = None,
) -> MetaLearner:
    """iMAML: `maml` with `meta_gradient=implicit(solver, proximal=...)`.

    Args:
        loss_fn: see `maml`; it should not depend on its key.
        inner: the inner optimizer, run close to convergence.
        steps: inner steps in meta-training; memory does not depend on them. The paper takes 16 for 5-way Omniglot.
        proximal: strength of the pull to the initial parameters, the paper's `lambda`; at test too.
        solver: of the linear system; `jaxmeta.cg(5)` if `None`.
        test_steps: inner steps at test; `None` for the same.

    Returns:
        A `MetaLearner`; `adapt` returns the task's parameters.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if a number of steps is less than 1 or `proximal` is not positive.

    Example:
        >>> import jaxmeta
        >>> learner = imaml(jaxmeta.regression(lambda w, x: x * w), optax.sgd(0.1), steps=16, proximal=2.0)

    References:
        Rajeswaran, Finn, Kakade & Levine, *Meta-Learning with Implicit Gradients*, NeurIPS 2019,
        https://arxiv.org/abs/1909.04630
    """
    meta_gradient = implicit(solver, proximal=proximal)
    return maml(loss_fn, inner, steps, test_steps=test_steps, meta_gradient=meta_gradient)
