"""What algorithms with an inner loop share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_optional_size, check_size
from jaxmeta._learned import partition
from jaxmeta._meta_gradient import MetaGradient
from jaxmeta._types import LossFn, MetaLearner, MetaParams, Metrics, PyTree, Task

Run = Callable[[MetaParams, Any, jax.Array, int], Any]
"""`(meta, support, key, steps) -> adapted`."""


def by_inner_loop(
    loss_fn: LossFn,
    init: Callable[[PyTree], MetaParams],
    run: Run,
    steps: int,
    test_steps: int | None,
    meta_gradient: MetaGradient,
) -> MetaLearner:
    """The learner that runs an inner loop on the support set and is judged by `loss_fn` on the query set."""
    check_size(steps=steps)
    check_optional_size(test_steps=test_steps)

    def adapt_at_test(meta: MetaParams, support: Any, key: jax.Array) -> Any:
        return run(meta, support, key, test_steps or steps)

    def grad(meta: MetaParams, task: Task, key: jax.Array) -> tuple[Metrics, MetaParams]:
        def objective(meta: MetaParams, key: jax.Array) -> tuple[jax.Array, Metrics]:
            adapt_key, loss_key = jax.random.split(key)
            return loss_fn(run(meta, task.support, adapt_key, steps), task.query, loss_key)

        (loss, metrics), gradient = meta_gradient.value_and_grad(objective)(meta, key)
        return {"loss": loss, **metrics}, gradient

    return MetaLearner(init, adapt_at_test, loss_fn, grad)


def learned_state(inner: optax.GradientTransformation, params: PyTree) -> PyTree:
    """The learned part of the initial state of `inner`; with definite types, so that a jitted step traces once."""
    learned, _ = partition(inner.init(params))
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), learned)
