"""Meta-KFO (Arnold, Iqbal & Sha 2019, https://arxiv.org/abs/1910.13603).

MAML with a learned, Kronecker-factored map of each gradient, which starts as the identity.
"""

import jax
import optax

from jaxmeta._checks import check_integer, check_number
from jaxmeta._types import LossFn, MetaLearner
from jaxmeta.algorithms._maml import maml
from jaxmeta.display import described
from jaxmeta.meta_gradients import MetaGradient
from jaxmeta.optim import scale_by_kronecker


@described
def meta_kfo(
    loss_fn: LossFn,
    inner_rate: float | jax.Array = 0.1,
    steps: int = 1,
    *,
    layers: int = 1,
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """Meta-KFO: MAML whose inner gradients go through `jaxmeta.optim.scale_by_kronecker`.

    For a gradient `G`, as a matrix, an inner step is `theta <- theta - alpha * L G R^T` with learned factors `L` and
    `R`, which is the Kronecker product `(L ⊗ R) vec(G)`.

    Args:
        loss_fn: see `maml`.
        inner_rate: rate of the inner steps, the paper's `alpha`, which is not learned (default: 0.1).
        steps: number of inner steps during meta-training (default: 1).
        layers: number of layers of the map, see `scale_by_kronecker` (default: 1). Several layers have a ReLU between
            them, as in the paper.
        test_steps: number of inner steps at test. `None` (default) takes `steps`.
        meta_gradient: see `maml`.

    Returns:
        A `MetaLearner` whose `MetaParams.learned` holds the matrices of the transformation.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import jaxmeta
        >>> learner = meta_kfo(jaxmeta.regression(lambda w, x: x @ w), inner_rate=0.01)

    References:
        Arnold, Iqbal & Sha, *When MAML Can Adapt Fast and How to Assist When It Cannot*, AISTATS 2021,
        https://arxiv.org/abs/1910.13603
    """
    check_number(inner_rate=inner_rate)
    check_integer(layers=layers)
    inner = optax.chain(scale_by_kronecker(layers, jax.nn.relu if layers > 1 else None), optax.sgd(inner_rate))
    return maml(loss_fn, inner, steps, test_steps=test_steps, meta_gradient=meta_gradient)
