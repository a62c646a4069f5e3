"""MAML++: how to train your MAML (Antoniou, Edwards & Storkey 2019, https://arxiv.org/abs/1810.09502).

MAML with a learned rate of every tensor and inner step, which is judged after every inner step.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_integer
from jaxmeta._learned import combine
from jaxmeta._types import LossFn, MetaLearner, MetaParams, Metrics, PyTree, Task
from jaxmeta.algorithms._common import grad_of
from jaxmeta.algorithms._maml import maml
from jaxmeta.meta_gradients import MetaGradient, first_order, reverse
from jaxmeta.optim import scale_by_learned_rate


def multi_step_weights(steps: int, progress: float | jax.Array) -> jax.Array:
    """The weights of MAML++'s multi-step loss: from equal ones to the last step's alone.

    Args:
        steps: inner steps.
        progress: how far the annealing has gone, from 0 (equal weights) to 1 (the last step only) and beyond; on
            Omniglot the authors anneal over the first tenth of training. It may be traced, see `maml_plus_plus`.

    Returns:
        Weights `[steps]` that sum to 1.

    Raises:
        ValueError: if `steps` is less than 1.

    Example:
        >>> [multi_step_weights(4, progress).tolist() for progress in (0.0, 0.5, 1.0)]
        [[0.25, 0.25, 0.25, 0.25], [0.125, 0.125, 0.125, 0.625], [0.0, 0.0, 0.0, 1.0]]
    """
    check_integer(steps=steps)
    done = jnp.clip(jnp.asarray(progress, float), 0.0, 1.0)
    return jnp.full(steps, (1.0 - done) / steps).at[-1].add(done)


def maml_plus_plus(
    loss_fn: LossFn,
    learning_rate: float = 0.1,
    steps: int = 5,
    *,
    step_weights: Sequence[float] | jax.Array | None = None,
    second_order: bool | jax.Array = True,
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """MAML++: learned rates per tensor and inner step, and a query loss after every inner step.

    A learner is a value and knows no training time. What changes in training, `step_weights` and `second_order`, may
    be traced, so the paper's schedules are a function from the number of the outer update to a learner (see Example).

    Two of the paper's changes are not here. Its batch norm has running statistics and affine parameters of each inner
    step; `jaxmeta.models.BatchNorm` has no running statistics (it is transductive), and one scale and bias, adapted
    like the other parameters. The falling outer rate is the optimizer's: `optax.cosine_decay_schedule`.

    Args:
        loss_fn: see `maml`.
        learning_rate: where every rate starts; the paper's is 0.1 on Omniglot, 0.01 on mini-ImageNet.
        steps: inner steps in meta-training. Test steps beyond them use the last step's rates.
        step_weights: weight of the query loss after each inner step, `[steps]`; equal ones if `None`. A step of weight
            zero costs nothing. See `multi_step_weights`.
        second_order: whether to use `meta_gradient`, or `first_order()` in its place.
        test_steps: inner steps at test; `None` for the same.
        meta_gradient: see `maml`; not `implicit()`, which knows only the end of the inner loop.

    Returns:
        A `MetaLearner` whose `MetaParams.learned` holds the rates. The loss that `grad` reports is the weighted sum,
        its other metrics are those after the last step.

    Raises:
        ValueError: if `learning_rate` is not finite, a number of steps is less than 1, or `step_weights` has another
            shape than `[steps]`.

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
    inner = scale_by_learned_rate(learning_rate, per="tensor", steps=steps)
    learner = maml(loss_fn, inner, steps, test_steps=test_steps, meta_gradient=meta_gradient)
    weights = multi_step_weights(steps, 0.0) if step_weights is None else jnp.asarray(step_weights)
    if weights.shape != (steps,):
        raise ValueError(f"step_weights must have shape {(steps,)}, got {weights.shape}")

    def objective(
        meta_gradient: MetaGradient, task: Task, meta: MetaParams, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        adapt_key, loss_key = jax.random.split(key)

        def query_loss(params: PyTree) -> tuple[jax.Array, Metrics]:
            return loss_fn(params, task.query, loss_key)

        # The loss after a step is the loss before the next one; that after the last step comes with the metrics.
        watch = _watch(lambda params: query_loss(params)[0], jnp.roll(weights, 1).at[0].set(0))
        state = watch.init(meta.params), combine(meta.learned, inner.init(meta.params))
        keys = jax.random.split(adapt_key, steps)
        end = meta_gradient.unroll(loss_fn, optax.chain(watch, inner), meta.params, state, task.support, keys)
        watched: Any = end.state
        loss, metrics = query_loss(end.params)
        return watched[0].total + weights[-1].astype(loss.dtype) * loss, metrics

    orders = reverse() if meta_gradient is None else meta_gradient, first_order()
    full, cheap = (grad_of(partial(objective, order), order) for order in orders)
    if isinstance(second_order, bool):
        return learner._replace(grad=full if second_order else cheap)
    return learner._replace(grad=lambda *args: jax.lax.cond(second_order, full, cheap, *args))


class _Watched(NamedTuple):
    """State of `_watch`."""

    step: jax.Array
    """The number of updates so far."""
    total: jax.Array
    """The weighted sum of the values so far."""


def _watch(value_of: Callable[[PyTree], jax.Array], weights: jax.Array) -> optax.GradientTransformation:
    """Leaves updates alone, and sums `weights[i] * value_of(params before update i)` in its state."""

    def init(params: PyTree) -> Any:
        return _Watched(jnp.zeros([], jnp.int32), jnp.zeros([], jax.eval_shape(value_of, params).dtype))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        weight = weights[state.step].astype(state.total.dtype)
        # A checkpoint: all that a value has to keep for its derivative is the parameters.
        value = jax.lax.cond(weight != 0, jax.checkpoint(value_of), lambda _: jnp.zeros_like(state.total), params)
        return updates, _Watched(state.step + 1, state.total + weight * value)

    return optax.GradientTransformation(init, update)
