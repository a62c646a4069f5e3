"""MAML++: how to train your MAML (Antoniou, Edwards & Storkey 2019, https://arxiv.org/abs/1810.09502).

MAML with a learned rate for every tensor and inner step, and with a query loss after every inner step.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_integer, check_number
from jaxmeta._learned import combine
from jaxmeta._types import LossFn, MetaLearner, MetaParams, Metrics, PyTree, Task
from jaxmeta._variables import merge
from jaxmeta.algorithms._inner_loop import grad_of, whole_loop
from jaxmeta.algorithms._maml import maml
from jaxmeta.losses import Loss, as_loss, train_pass
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
    inner = scale_by_learned_rate(inner_rate, per="tensor", steps=max(steps, 1))
    loss, meta_gradient = as_loss(loss_fn), whole_loop(meta_gradient)
    learner = maml(loss_fn, inner, steps, test_steps=test_steps, meta_gradient=meta_gradient)
    if not steps:
        return learner
    weights = multi_step_weights(steps, 0.0) if step_weights is None else jnp.asarray(step_weights)
    if weights.shape != (steps,):
        raise ValueError(f"step_weights must have shape {(steps,)}, got {weights.shape}")

    def objective(
        meta_gradient: MetaGradient, task: Task, meta: MetaParams, key: jax.Array
    ) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
        adapt_key, loss_key = jax.random.split(key)

        def query_loss(params: PyTree) -> tuple[jax.Array, Metrics, PyTree]:
            return train_pass(loss, merge(params, meta.state), task.query, loss_key)

        def support_loss(params: PyTree, batch: Any, key: jax.Array) -> tuple[jax.Array, Metrics]:
            return loss(merge(params, meta.state), batch, key)

        # The loss after a step is the loss before the next one. That after the last step comes with the metrics.
        weighted_sum = _sum_values(lambda params: query_loss(params)[0], jnp.roll(weights, 1).at[0].set(0))
        state = weighted_sum.init(meta.params), combine(meta.learned, inner.init(meta.params))
        keys = jax.random.split(adapt_key, steps)
        optimizer = optax.chain(weighted_sum, inner)
        end = meta_gradient.unroll(support_loss, optimizer, meta.params, state, task.support, keys)
        end_state: Any = end.state
        last, metrics, variables = query_loss(end.params)
        return end_state[0].total + weights[-1].astype(last.dtype) * last, (metrics, variables)

    orders = meta_gradient, first_order()
    full, cheap = (grad_of(partial(objective, order), order) for order in orders)
    if isinstance(second_order, bool):
        return learner._replace(grad=full if second_order else cheap)
    return learner._replace(grad=lambda *args: jax.lax.cond(second_order, full, cheap, *args))


class _SumState(NamedTuple):
    """State of `_sum_values`."""

    step: jax.Array
    """Number of updates so far."""
    total: jax.Array
    """Weighted sum of the values so far."""


def _sum_values(value_of: Callable[[PyTree], jax.Array], weights: jax.Array) -> optax.GradientTransformation:
    """Leaves updates alone, and sums `weights[i] * value_of(params before update i)` in its state."""

    def init(params: PyTree) -> Any:
        return _SumState(jnp.zeros([], jnp.int32), jnp.zeros([], jax.eval_shape(value_of, params).dtype))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        weight = weights[state.step].astype(state.total.dtype)
        # With a checkpoint, a value keeps nothing but the parameters for its derivative.
        value = jax.lax.cond(weight != 0, jax.checkpoint(value_of), lambda _: jnp.zeros_like(state.total), params)
        return updates, _SumState(state.step + 1, state.total + weight * value)

    return optax.GradientTransformation(init, update)
