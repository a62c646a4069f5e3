"""MAML++: how to train your MAML (Antoniou, Edwards & Storkey 2019, https://arxiv.org/abs/1810.09502).

MAML with a learned rate for every tensor and inner step, and with a query loss after every inner step.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_integer, check_number
from jaxmeta._types import LossFn, MetaLearner
from jaxmeta.algorithms._inner_loop import inner_loop, model_problem
from jaxmeta.algorithms._objective import whole_loop
from jaxmeta.display import described
from jaxmeta.losses import Loss
from jaxmeta.meta_gradients import MetaGradient, first_order
from jaxmeta.optim import scale_by_learned_rate


def multi_step_weights(steps: int, progress: float | jax.Array) -> jax.Array:
    """Returns the weights of MAML++'s multi-step loss, which go from equal ones to the last step's alone.

    With `p` the progress, clipped to [0, 1], and `K` inner steps, each weight is `(1 - p) / K` and the last one is
    larger by `p`.

    Args:
        steps: number of inner steps, `K`.
        progress: progress of the annealing, from 0 (equal weights) to 1 (only the last step) and beyond. On Omniglot
            the authors anneal over the first tenth of training. It may be traced, see `maml_plus_plus`.

    Returns:
        Weights `[steps]` that sum to 1.

    Raises:
        ValueError: if `steps` is not an integer of at least 1, or `progress` is not a finite number.

    Example:
        >>> [multi_step_weights(4, progress).tolist() for progress in (0.0, 0.5, 1.0)]
        [[0.25, 0.25, 0.25, 0.25], [0.125, 0.125, 0.125, 0.625], [0.0, 0.0, 0.0, 1.0]]
    """
    check_integer(steps=steps)
    check_number(progress=progress)
    done = jnp.clip(jnp.asarray(progress, float), 0.0, 1.0)
    return jnp.full(steps, (1.0 - done) / steps).at[-1].add(done)


@described
def maml_plus_plus(
    loss_fn: LossFn | Loss,
    inner_rate: float | jax.Array = 0.1,
    steps: int = 5,
    *,
    step_weights: Sequence[float] | jax.Array | None = None,
    second_order: bool | jax.Array = True,
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """MAML++: MAML with learned rates per tensor and inner step, and a query loss after every inner step.

    With initial parameters `theta_0`, a learned rate `alpha[i, l]` of inner step `i` and tensor `l`, and weights `w_i`,

        theta_{i+1}[l] = theta_i[l] - alpha[i, l] * (grad L_support(theta_i))[l]
        outer loss = sum_i w_i * L_query(theta_i),    i = 1 ... steps

    A learner is a value and does not know the time of training. The two things that change during training,
    `step_weights` and `second_order`, may be traced. So the paper's schedules are a function from the number of the
    outer update to a learner (see Example).

    Two of the paper's changes are not implemented. Its batch norm has running statistics and affine parameters for each
    inner step. `jaxmeta.models.BatchNorm` has no running statistics (it is transductive) and one scale and bias, which
    are adapted as the other parameters are. The decay of the outer rate belongs to the outer optimizer:
    `optax.cosine_decay_schedule`. The authors' code also keeps each of the early weights above 0.03 / `steps`, and the
    outer rate above 1e-5.

    Args:
        loss_fn: see `maml`.
        inner_rate: initial value of every rate (default: 0.1, the paper's on Omniglot). On mini-ImageNet it is 0.01.
        steps: number of inner steps during meta-training (default: 5). Test steps after these use the last step's
            rates.
        step_weights: weights of the query losses after each inner step, `[steps]`. `None` (default) takes equal
            weights. A step of weight zero costs nothing. See `multi_step_weights`.
        second_order: use `meta_gradient` (default) instead of `first_order()`.
        test_steps: number of inner steps at test. `None` (default) takes `steps`.
        meta_gradient: see `maml`. `implicit()` is refused, because it knows only the end of the inner loop.

    Returns:
        A `MetaLearner` whose `MetaParams.learned` holds the rates. The loss that `grad` reports is the weighted sum.
        Its other metrics are those after the last step.

    Raises:
        ValueError: if `inner_rate` is not finite, a number of steps is not an integer of at least 0, or `step_weights`
            has another shape than `[steps]`.

    Example:
        >>> import jax, jax.numpy as jnp, optax, jaxmeta
        >>> loss_fn = jaxmeta.regression(lambda w, x: x * w)
        >>> def learner_at(update):
        ...     weights = multi_step_weights(5, update / 5_000)
        ...     return maml_plus_plus(loss_fn, 0.01, steps=5, step_weights=weights, second_order=update >= 10_000)
        >>> meta = learner_at(0).init(jnp.array([1.0]))
        >>> trained = jaxmeta.train(learner_at, optax.adam(1e-3), meta, jaxmeta.data.Sinusoid(), jax.random.key(0),
        ...                         iterations=2, num_tasks=2, log_every=2, progress=False)

    References:
        Antoniou, Edwards & Storkey, *How to Train Your MAML*, ICLR 2019, https://arxiv.org/abs/1810.09502
    """
    check_integer(least=0, steps=steps)
    check_number(inner_rate=inner_rate)
    meta_gradient = whole_loop(meta_gradient)
    inner = scale_by_learned_rate(inner_rate, per="tensor", steps=max(steps, 1))
    if step_weights is None and steps:
        step_weights = multi_step_weights(steps, 0.0)

    def of_order(meta_gradient: MetaGradient) -> MetaLearner:
        return inner_loop(
            model_problem(loss_fn),
            inner,
            steps,
            outer_loss=loss_fn,
            step_weights=step_weights,
            test_steps=test_steps,
            meta_gradient=meta_gradient,
        )

    full, cheap = of_order(meta_gradient), of_order(first_order())
    if isinstance(second_order, bool):
        return full if second_order else cheap
    return full._replace(grad=lambda *args: jax.lax.cond(second_order, full.grad, cheap.grad, *args))
