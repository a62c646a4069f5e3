"""Reptile (Nichol, Achiam & Schulman 2018, https://arxiv.org/abs/1803.02999).

It moves the initial parameters towards the parameters at the end of plain training on a task.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta._adapt import unroll
from jaxmeta._checks import check_integer, check_optional_integer, check_transformation
from jaxmeta._types import LossFn, MetaLearner, MetaParams, Metrics, PyTree, Task, call_adapted, with_loss
from jaxmeta._variables import carried_like, merge
from jaxmeta.algorithms._inner_loop import learned_state
from jaxmeta.losses import Loss, as_loss, train_pass


def reptile(
    loss_fn: LossFn | Loss,
    inner: optax.GradientTransformation,
    steps: int = 5,
    *,
    test_steps: int | None = None,
    batch_size: int | None = None,
    test_batch_size: int | None = None,
) -> MetaLearner:
    """Reptile: first-order meta-learning, whose meta-gradient is the initial minus the adapted parameters.

    With initial parameters `phi` and parameters `phi_task` after the inner steps on a task, the meta-gradient is
    `phi - phi_task`. An outer `optax.sgd(epsilon)` makes the paper's update `phi + epsilon * mean(phi_task - phi)` of
    it. Any other optax optimizer works too.

    Inner steps use minibatches from repeated passes over the support set, each in random order. The query set is used
    only for the reported metrics.

    Args:
        loss_fn: see `maml`.
        inner: inner optimizer. The paper's is `optax.adam(1e-3, b1=0.0)`. Its state is initialized for every task. In
            the authors' code it goes on from task to task.
        steps: number of inner steps during meta-training (default: 5).
        test_steps: number of inner steps at test. `None` (default) takes `steps`.
        batch_size: number of examples per inner step, at most those of the support set. `None` (default) takes the
            whole support set.
        test_batch_size: number of examples per inner step at test. `None` (default) takes `batch_size`.

    Returns:
        A `MetaLearner`. Its `adapt` returns the parameters of the task.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if a number of steps or a batch size is not an integer of at least 1. From `init`, if `inner` has
            learned values, for which Reptile has no gradient.

    Example:
        >>> import jaxmeta
        >>> learner = reptile(jaxmeta.regression(lambda w, x: x * w), optax.adam(1e-3, b1=0.0), batch_size=10)

    References:
        Nichol, Achiam & Schulman, *On First-Order Meta-Learning Algorithms*, 2018, https://arxiv.org/abs/1803.02999
    """
    check_transformation(inner=inner)
    check_integer(least=0, steps=steps)
    check_optional_integer(least=0, test_steps=test_steps)
    check_optional_integer(batch_size=batch_size, test_batch_size=test_batch_size)
    loss = as_loss(loss_fn)

    def run(
        meta: MetaParams, support: Any, key: jax.Array, steps: int, batch_size: int | None, training: bool
    ) -> PyTree:
        def minibatch_loss(params: PyTree, support: Any, step: Any) -> tuple[jax.Array, Metrics]:
            key, indices = step
            batch = jax.tree.map(lambda x: x[indices], support)
            return loss.in_mode(training)(merge(params, meta.state), batch, key)

        order_key, step_key = jax.random.split(key)
        indices = _minibatches(order_key, jax.tree.leaves(support)[0].shape[0], steps, batch_size)
        xs = (jax.random.split(step_key, steps), indices)
        return unroll(minibatch_loss, inner, meta.params, support, xs).params

    def init(variables: PyTree) -> MetaParams:
        meta = MetaParams.of(variables)
        if jax.tree.leaves(learned_state(inner, meta.params)):
            raise ValueError("inner must have no jaxmeta.Learned values, because Reptile has no gradient for them")
        return meta

    def adapt_at_test(meta: MetaParams, support: Any, key: jax.Array) -> PyTree:
        number = steps if test_steps is None else test_steps
        return merge(run(meta, support, key, number, test_batch_size or batch_size, False), meta.state)

    def grad(meta: MetaParams, task: Task, key: jax.Array) -> tuple[Metrics, MetaParams]:
        adapt_key, loss_key = jax.random.split(key)
        adapted = run(meta, task.support, adapt_key, steps, batch_size, True)
        value, metrics, variables = train_pass(loss, merge(adapted, meta.state), task.query, loss_key)
        direction = jax.tree.map(jnp.subtract, meta.params, adapted)  # phi - phi_task
        learned = jax.tree.map(jnp.zeros_like, meta.learned)
        return with_loss(value, metrics), MetaParams(direction, learned, carried_like(meta.state, variables))

    return MetaLearner(init, adapt_at_test, loss.test, grad, loss.predict or call_adapted)


def _minibatches(key: jax.Array, num_examples: int, steps: int, batch_size: int | None) -> jax.Array:
    """Draws indices `[steps, batch_size]` from passes over the examples, each in an order of its own."""
    size = num_examples if batch_size is None else min(batch_size, num_examples)
    passes = -(-steps * size // num_examples)
    orders = jax.vmap(lambda k: jax.random.permutation(k, num_examples))(jax.random.split(key, passes))
    return orders.reshape(-1)[: steps * size].reshape(steps, size)
