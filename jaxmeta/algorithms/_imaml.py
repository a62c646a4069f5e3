"""iMAML: MAML with implicit gradients (Rajeswaran, Finn, Kakade & Levine 2019, https://arxiv.org/abs/1909.04630).

The inner loop minimizes the support loss plus a quadratic pull to the initial parameters. The meta-gradient depends
only on the end of the inner loop.
"""

import optax

from jaxmeta._types import LossFn, MetaLearner
from jaxmeta.algorithms._maml import maml
from jaxmeta.display import described
from jaxmeta.meta_gradients import LinearSolver, implicit


@described
def imaml(
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    steps: int = 16,
    *,
    proximal: float = 2.0,
    solver: LinearSolver | None = None,
    test_steps: int | None = None,
) -> MetaLearner:
    """iMAML, MAML with implicit gradients: `maml` with `meta_gradient=implicit(solver, proximal=...)`.

    With initial parameters `theta`, strength `lambda`, support loss `L` and query loss `M`, the inner loop approaches

        phi = argmin_phi L(phi) + lambda / 2 * |phi - theta|^2

    and the meta-gradient is

        d M(phi) / d theta = (I + H / lambda)^-1 grad M(phi),    H the Hessian of L at phi

    Args:
        loss_fn: see `maml`. It should not depend on its key.
        inner: inner optimizer, to be run close to convergence.
        steps: number of inner steps during meta-training (default: 16, as in the paper for 5-way Omniglot). The memory
            does not depend on it.
        proximal: strength of the pull to the initial parameters, the paper's `lambda`, positive (default: 2). It also
            acts at test.
        solver: solver of the linear system. `None` (default) takes `jaxmeta.cg(5)`. The authors' code damps the system,
            which is `jaxmeta.cg(5, damping=22.0)` in this form, and pulls once, after the last inner step.
        test_steps: number of inner steps at test. `None` (default) takes `steps`.

    Returns:
        A `MetaLearner`. Its `adapt` returns the parameters of the task.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if a number of steps is not an integer of at least 1, or `proximal` is not positive.

    Example:
        >>> import jaxmeta
        >>> learner = imaml(jaxmeta.regression(lambda w, x: x * w), optax.sgd(0.1), steps=16, proximal=2.0)

    References:
        Rajeswaran, Finn, Kakade & Levine, *Meta-Learning with Implicit Gradients*, NeurIPS 2019,
        https://arxiv.org/abs/1909.04630
    """
    # d phi / d theta = lambda * (H + lambda I)^-1 = (I + H / lambda)^-1
    meta_gradient = implicit(solver, proximal=proximal)
    return maml(loss_fn, inner, steps, test_steps=test_steps, meta_gradient=meta_gradient)
