"""Meta-Curvature (Park & Oliva 2019, https://arxiv.org/abs/1902.03356).

MAML with a learned curvature: matrices along the modes of each gradient, which start as the identity.
"""

import jax
import optax

from jaxmeta._checks import check_number
from jaxmeta._types import LossFn, MetaLearner
from jaxmeta.algorithms._maml import maml
from jaxmeta.display import described
from jaxmeta.meta_gradients import MetaGradient
from jaxmeta.optim import scale_by_curvature


@described
def meta_curvature(
    loss_fn: LossFn,
    inner_rate: float | jax.Array = 0.1,
    steps: int = 1,
    *,
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """Meta-Curvature: MAML whose inner gradients go through `jaxmeta.optim.scale_by_curvature`.

    For the gradient `G` of a dense kernel an inner step is `theta <- theta - alpha * M_i G M_o^T`, with learned
    matrices `M_i` along the inputs and `M_o` along the outputs. Convolutions also have `M_f` along the spatial axes.

    Args:
        loss_fn: see `maml`.
        inner_rate: rate of the inner steps, the paper's `alpha`, which is not learned (default: 0.1).
        steps: number of inner steps during meta-training (default: 1).
        test_steps: number of inner steps at test. `None` (default) takes `steps`.
        meta_gradient: see `maml`.

    Returns:
        A `MetaLearner` whose `MetaParams.learned` holds the matrices of the transformation.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import jaxmeta
        >>> learner = meta_curvature(jaxmeta.regression(lambda w, x: x @ w), inner_rate=0.01)

    References:
        Park & Oliva, *Meta-Curvature*, NeurIPS 2019, https://arxiv.org/abs/1902.03356
    """
    check_number(inner_rate=inner_rate)
    inner = optax.chain(scale_by_curvature(), optax.sgd(inner_rate))
    return maml(loss_fn, inner, steps, test_steps=test_steps, meta_gradient=meta_gradient)
