"""Reptile (Nichol, Achiam & Schulman 2018, https://arxiv.org/abs/1803.02999).

It moves the initial parameters towards the parameters at the end of plain training on a task.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_optional_integer
from jaxmeta._types import LossFn, MetaLearner, MetaParams, Metrics, PyTree, Task, with_loss
from jaxmeta._variables import carried_like, split
from jaxmeta.algorithms._inner_loop import InnerLoss, inner_loop, model_problem, with_losses
from jaxmeta.algorithms._objective import check_labels_of, nothing_learned
from jaxmeta.display import described
from jaxmeta.losses import Loss, as_loss, train_pass


@described
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
    check_optional_integer(batch_size=batch_size, test_batch_size=test_batch_size)
    loss = as_loss(loss_fn)

    def of_minibatch(loss_fn: InnerLoss) -> InnerLoss:
        def minibatch_loss(adapted: PyTree, meta: MetaParams, batch: Any, key: jax.Array) -> tuple[jax.Array, Metrics]:
            support, indices = batch
            return loss_fn(adapted, meta, jax.tree.map(lambda x: x[indices], support), key)

        return minibatch_loss

    problem = with_losses(model_problem(loss), of_minibatch)

    def of_size(batch_size: int | None) -> Any:
        def stream(meta: MetaParams, support: Any, key: jax.Array, steps: int) -> jax.Array:
            check_labels_of(loss.test, meta.variables, support, key)
            return _minibatches(key, jax.tree.leaves(support)[0].shape[0], steps, batch_size)

        return stream

    in_training = problem._replace(test_loss=None, stream=of_size(batch_size))
    at_test = problem._replace(stream=of_size(test_batch_size or batch_size))
    adapt = inner_loop(in_training, inner, steps, outer_loss=loss).adapt
    learner = inner_loop(at_test, inner, steps, outer_loss=loss, test_steps=test_steps)

    def grad(meta: MetaParams, task: Task, key: jax.Array) -> tuple[Metrics, MetaParams]:
        adapt_key, loss_key = jax.random.split(key)
        adapted = adapt(meta, task.support, adapt_key)
        value, metrics, variables = train_pass(loss, adapted, task.query, loss_key)
        direction = jax.tree.map(jnp.subtract, meta.params, split(adapted)[0])  # phi - phi_task
        learned = jax.tree.map(jnp.zeros_like, meta.learned)
        return with_loss(value, metrics), MetaParams(direction, learned, carried_like(meta.state, variables))

    return nothing_learned(learner, "Reptile has no gradient for them")._replace(grad=grad)


def _minibatches(key: jax.Array, num_examples: int, steps: int, batch_size: int | None) -> jax.Array:
    """Draws indices `[steps, batch_size]` from passes over the examples, each in an order of its own."""
    size = num_examples if batch_size is None else min(batch_size, num_examples)
    passes = -(-steps * size // num_examples)
    orders = jax.vmap(lambda k: jax.random.permutation(k, num_examples))(jax.random.split(key, passes))
    return orders.reshape(-1)[: steps * size].reshape(steps, size)
