"""Meta-SGD: learned initial parameters and a learned rate per weight (Li et al. 2017).

https://arxiv.org/abs/1707.09835. MAML whose inner optimizer is `jaxmeta.optim.scale_by_learned_rate`.
"""

from jaxmeta._types import LossFn, MetaLearner
from jaxmeta.algorithms._maml import maml
from jaxmeta.meta_gradients import MetaGradient
from jaxmeta.optim import scale_by_learned_rate


def meta_sgd(
    loss_fn: LossFn,
    learning_rate: float = 0.1,
    steps: int = 1,
    *,
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """Meta-SGD: direction and length of each weight's inner step are learned.

    Args:
        loss_fn: see `maml`.
        learning_rate: where every rate (the paper's `alpha`) starts.
        steps: inner steps in meta-training; the paper takes 1.
        test_steps: inner steps at test; `None` for the same.
        meta_gradient: see `maml`.

    Returns:
        A `MetaLearner` whose `MetaParams.learned` holds the rates.

    Raises:
        ValueError: if `learning_rate` is not finite, or a number of steps is less than 1.

    Example:
        >>> import jaxmeta
        >>> learner = meta_sgd(jaxmeta.regression(lambda w, x: x * w), learning_rate=0.01)

    References:
        Li, Zhou, Chen & Li, *Meta-SGD: Learning to Learn Quickly for Few-Shot Learning*, 2017,
        https://arxiv.org/abs/1707.09835
    """
    inner = scale_by_learned_rate(learning_rate)
    return maml(loss_fn, inner, steps, test_steps=test_steps, meta_gradient=meta_gradient)
