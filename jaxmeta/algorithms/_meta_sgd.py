"""Meta-SGD: learned initial parameters and a learned rate per weight (Li et al. 2017).

https://arxiv.org/abs/1707.09835. MAML whose inner optimizer is `jaxmeta.optim.scale_by_learned_rate`.
"""

import jax

from jaxmeta._checks import check_number
from jaxmeta._types import LossFn, MetaLearner
from jaxmeta.algorithms._maml import maml
from jaxmeta.display import described
from jaxmeta.meta_gradients import MetaGradient
from jaxmeta.optim import scale_by_learned_rate


@described
def meta_sgd(
    loss_fn: LossFn,
    inner_rate: float | jax.Array = 0.1,
    steps: int = 1,
    *,
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """Meta-SGD: MAML with a learned rate for every weight, which gives direction and length of its inner step.

    With learned rates `alpha`, one per weight, an inner step is `theta <- theta - alpha * grad L(theta)`, elementwise.

    Args:
        loss_fn: see `maml`.
        inner_rate: initial value of every rate, the paper's `alpha` (default: 0.1). The paper draws them at random in
            [0.005, 0.1].
        steps: number of inner steps during meta-training (default: 1, as in the paper).
        test_steps: number of inner steps at test. `None` (default) takes `steps`.
        meta_gradient: see `maml`.

    Returns:
        A `MetaLearner` whose `MetaParams.learned` holds the rates.

    Raises:
        ValueError: if `inner_rate` is not finite, or a number of steps is not an integer of at least 1.

    Example:
        >>> import jaxmeta
        >>> learner = meta_sgd(jaxmeta.regression(lambda w, x: x * w), inner_rate=0.01)

    References:
        Li, Zhou, Chen & Li, *Meta-SGD: Learning to Learn Quickly for Few-Shot Learning*, 2017,
        https://arxiv.org/abs/1707.09835
    """
    check_number(inner_rate=inner_rate)
    inner = scale_by_learned_rate(inner_rate)
    return maml(loss_fn, inner, steps, test_steps=test_steps, meta_gradient=meta_gradient)
