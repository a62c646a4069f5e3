"""Common parts of the learners with an inner loop: the meta-gradient, and limits of their inner optimizer."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.core import Tracer

from jaxmeta._checks import check_meta_gradient
from jaxmeta._learned import partition
from jaxmeta._types import (
    LossFn,
    MetaLearner,
    MetaParams,
    Metrics,
    PyTree,
    Task,
    check_meta,
    check_task,
    definite,
    with_loss,
)
from jaxmeta._variables import carried_like
from jaxmeta.meta_gradients import MetaGradient, reverse


def grad_of(
    objective: Callable[[Task, MetaParams, jax.Array], tuple[jax.Array, tuple[Metrics, PyTree]]],
    meta_gradient: MetaGradient,
) -> Callable[[MetaParams, Task, jax.Array], tuple[Metrics, MetaParams]]:
    """Builds `MetaLearner.grad` from an objective `(task, meta, key) -> (loss, (metrics, variables))`.

    The state of the model is no argument of the derivative. Its new value is taken from the variables after the pass.
    """

    def grad(meta: MetaParams, task: Task, key: jax.Array) -> tuple[Metrics, MetaParams]:
        def of_trained(trained: MetaParams, key: jax.Array) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
            loss, (metrics, variables) = objective(task, trained._replace(state=meta.state), key)
            return loss, (metrics, carried_like(meta.state, variables))

        check_meta(meta)
        check_task(task)
        trained = meta._replace(state=())
        (loss, (metrics, state)), gradient = meta_gradient.value_and_grad(of_trained)(trained, key)
        return with_loss(loss, metrics), gradient._replace(state=state)

    return grad


def whole_loop(meta_gradient: MetaGradient | None) -> MetaGradient:
    """Returns the meta-gradient of an algorithm that is not defined for one of the end of the inner loop alone.

    Raises:
        ValueError: if it is one, as `implicit()`.
        TypeError: if it is no `MetaGradient`.
    """
    check_meta_gradient(meta_gradient)
    if meta_gradient is not None and meta_gradient.end_only:
        raise ValueError("meta_gradient must see the whole inner loop here, and implicit() sees only its end")
    return reverse() if meta_gradient is None else meta_gradient


def learned_state(
    inner: optax.GradientTransformation, params: PyTree, meta_gradient: MetaGradient | None = None
) -> PyTree:
    """Returns the learned part of the initial state of `inner`, with strong types, or `()` if it has none.

    Raises:
        ValueError: if there is one, and `meta_gradient` sees only the end of the inner loop.
    """
    learned, _ = partition(inner.init(params))
    if not jax.tree.leaves(learned):
        return ()
    if meta_gradient is not None and meta_gradient.end_only:
        raise ValueError("inner must have no jaxmeta.Learned values for this meta_gradient, which has none for them")
    return definite(learned)


def check_labels_of(loss_fn: LossFn, variables: Any, batch: Any, key: jax.Array) -> None:
    """Raises what a loss raises for a concrete batch, for steps that see parts of it only inside a loop."""
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(batch)):
        jax.eval_shape(lambda variables, key: loss_fn(variables, batch, key), variables, key)


def nothing_learned(learner: MetaLearner, reason: str) -> MetaLearner:
    """Returns the learner with an `init` that raises ValueError if its inner optimizer has learned values."""

    def init(variables: PyTree) -> MetaParams:
        meta = learner.init(variables)
        if jax.tree.leaves(meta.learned):
            raise ValueError(f"inner must have no jaxmeta.Learned values, because {reason}")
        return meta

    return learner._replace(init=init)
