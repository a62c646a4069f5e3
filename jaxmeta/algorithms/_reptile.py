"""Reptile (Nichol, Achiam & Schulman 2018, https://arxiv.org/abs/1803.02999).

Moves the initial parameters towards the parameters that plain training on a task ends with.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_integer, check_optional_integer, check_transformation
from jaxmeta._types import LossFn, MetaLearner, MetaParams, Metrics, PyTree, Task
from jaxmeta.algorithms._common import learned_state
from jaxmeta.meta_gradients import reverse


def reptile(
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    steps: int = 5,
    *,
    test_steps: int | None = None,
    batch_size: int | None = None,
    test_batch_size: int | None = None,
) -> MetaLearner:
    """Reptile: the meta-gradient is the initial minus the adapted parameters.

    With `optax.sgd(epsilon)` outside this is the paper's update `params + epsilon * mean(adapted - params)`; any other
    optax optimizer works too. Inner steps use minibatches of the support set, which is passed through in random order,
    again and again. The query set is used for the reported metrics only.

    Args:
        loss_fn: see `maml`.
        inner: the inner optimizer; the paper's is `optax.adam(1e-3, b1=0.0)`. Its state starts anew for every task.
        steps: inner steps in meta-training.
        test_steps: inner steps at test; `None` for the same.
        batch_size: examples per inner step, `None` for the whole support set (or as many as it has).
        test_batch_size: the same at test; `None` for `batch_size`.

    Returns:
        A `MetaLearner`; `adapt` returns the task's parameters.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if a number of steps or a batch size is less than 1, or if `inner` has learned values, for which
            Reptile has no gradient (raised by `init`).

    Example:
        >>> import jaxmeta
        >>> learner = reptile(jaxmeta.regression(lambda w, x: x * w), optax.adam(1e-3, b1=0.0), batch_size=10)

    References:
        Nichol, Achiam & Schulman, *On First-Order Meta-Learning Algorithms*, 2018, https://arxiv.org/abs/1803.02999
    """
    check_transformation(inner=inner)
    check_integer(steps=steps)
    check_optional_integer(test_steps=test_steps, batch_size=batch_size, test_batch_size=test_batch_size)
    unroll = reverse().unroll

    def minibatch_loss(params: PyTree, support: Any, step: Any) -> tuple[jax.Array, Metrics]:
        key, indices = step
        return loss_fn(params, jax.tree.map(lambda x: x[indices], support), key)

    def run(params: PyTree, support: Any, key: jax.Array, steps: int, batch_size: int | None) -> PyTree:
        order_key, step_key = jax.random.split(key)
        indices = _minibatches(order_key, jax.tree.leaves(support)[0].shape[0], steps, batch_size)
        xs = (jax.random.split(step_key, steps), indices)
        return unroll(minibatch_loss, inner, params, inner.init(params), support, xs).params

    def init(params: PyTree) -> MetaParams:
        if jax.tree.leaves(learned_state(inner, params)):
            raise ValueError("inner must have no jaxmeta.Learned values: Reptile gives no gradient for them")
        return MetaParams(params)

    def adapt_at_test(meta: MetaParams, support: Any, key: jax.Array) -> PyTree:
        return run(meta.params, support, key, test_steps or steps, test_batch_size or batch_size)

    def grad(meta: MetaParams, task: Task, key: jax.Array) -> tuple[Metrics, MetaParams]:
        adapt_key, loss_key = jax.random.split(key)
        adapted = run(meta.params, task.support, adapt_key, steps, batch_size)
        loss, metrics = loss_fn(adapted, task.query, loss_key)
        direction = jax.tree.map(jnp.subtract, meta.params, adapted)
        return {"loss": loss, **metrics}, meta._replace(params=direction)

    return MetaLearner(init, adapt_at_test, loss_fn, grad)


def _minibatches(key: jax.Array, num_examples: int, steps: int, batch_size: int | None) -> jax.Array:
    """Indices `[steps, batch_size]`: passes over the examples, each in an order of its own."""
    size = num_examples if batch_size is None else min(batch_size, num_examples)
    passes = -(-steps * size // num_examples)
    orders = jax.vmap(lambda k: jax.random.permutation(k, num_examples))(jax.random.split(key, passes))
    return orders.reshape(-1)[: steps * size].reshape(steps, size)
