"""Meta-KFO (Arnold, Iqbal & Sha 2019, https://arxiv.org/abs/1910.13603).

MAML with a learned, Kronecker-factored map of each gradient, that starts as the identity.
"""

import jax
import optax

from jaxmeta._types import LossFn, MetaLearner
from jaxmeta.algorithms._maml import maml
from jaxmeta.meta_gradients import MetaGradient
from jaxmeta.optim import scale_by_kronecker


def meta_kfo(
    loss_fn: LossFn,
    learning_rate: float = 0.1,
    steps: int = 1,
    *,
    layers: int = 1,
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """Meta-KFO: MAML whose inner gradients go through `jaxmeta.optim.scale_by_kronecker`.

    Args:
        loss_fn: see `maml`.
        learning_rate: the inner rate (`alpha`), which is not learned.
        steps: inner steps in meta-training.
        layers: layers of the map, see `scale_by_kronecker`; more than one have a ReLU between them, as in the paper.
        test_steps: inner steps at test; `None` for the same.
        meta_gradient: see `maml`.

    Returns:
        A `MetaLearner` whose `MetaParams.learned` holds the transformation's matrices.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import jaxmeta
        >>> learner = meta_kfo(jaxmeta.regression(lambda w, x: x @ w), learning_rate=0.01)

    References:
        Arnold, Iqbal & Sha, *When MAML Can Adapt Fast and How to Assist When It Cannot*, AISTATS 2021,
        https://arxiv.org/abs/1910.13603
    """
    inner = optax.chain(scale_by_kronecker(layers, jax.nn.relu if layers > 1 else None), optax.sgd(learning_rate))
    return maml(loss_fn, inner, steps, test_steps=test_steps, meta_gradient=meta_gradient)
