"""Meta-Curvature (Park & Oliva 2019, https://arxiv.org/abs/1902.03356).

MAML with a learned curvature: matrices along the modes of each gradient, that start as the identity.
"""

import optax

from jaxmeta._types import LossFn, MetaLearner
from jaxmeta.algorithms._maml import maml
from jaxmeta.meta_gradients import MetaGradient
from jaxmeta.optim import scale_by_curvature


def meta_curvature(
    loss_fn: LossFn,
    learning_rate: float = 0.1,
    steps: int = 1,
    *,
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """Meta-Curvature: MAML whose inner gradients go through `jaxmeta.optim.scale_by_curvature`.

    Args:
        loss_fn: see `maml`.
        learning_rate: the inner rate (`alpha`), which is not learned.
        steps: inner steps in meta-training.
        test_steps: inner steps at test; `None` for the same.
        meta_gradient: see `maml`.

    Returns:
        A `MetaLearner` whose `MetaParams.learned` holds the transformation's matrices.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import jaxmeta
        >>> learner = meta_curvature(jaxmeta.regression(lambda w, x: x @ w), learning_rate=0.01)

    References:
        Park & Oliva, *Meta-Curvature*, NeurIPS 2019, https://arxiv.org/abs/1902.03356
    """
    inner = optax.chain(scale_by_curvature(), optax.sgd(learning_rate))
    return maml(loss_fn, inner, steps, test_steps=test_steps, meta_gradient=meta_gradient)
