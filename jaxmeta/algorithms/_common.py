"""Parts that the algorithms with an inner loop share."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax

from jaxmeta._checks import check_integer, check_optional_integer, check_transformation
from jaxmeta._learned import partition
from jaxmeta._types import LossFn, MetaLearner, MetaParams, Metrics, PyTree, Task, definite
from jaxmeta.meta_gradients import MetaGradient

Run = Callable[[MetaParams, Any, jax.Array, int], Any]
"""An inner loop: `(meta, support, key, steps) -> adapted`."""


def by_inner_loop(
    loss_fn: LossFn,
    init: Callable[[PyTree], MetaParams],
    run: Run,
    steps: int,
    test_steps: int | None,
    meta_gradient: MetaGradient,
) -> MetaLearner:
    """Builds a learner from an inner loop on the support set and a loss on the query set."""
    check_integer(steps=steps)
    check_optional_integer(test_steps=test_steps)

    def adapt_at_test(meta: MetaParams, support: Any, key: jax.Array) -> Any:
        return run(meta, support, key, test_steps or steps)

    def objective(task: Task, meta: MetaParams, key: jax.Array) -> tuple[jax.Array, Metrics]:
        adapt_key, loss_key = jax.random.split(key)
        return loss_fn(run(meta, task.support, adapt_key, steps), task.query, loss_key)

    return MetaLearner(init, adapt_at_test, loss_fn, grad_of(objective, meta_gradient))


def grad_of(
    objective: Callable[[Task, MetaParams, jax.Array], tuple[jax.Array, Metrics]], meta_gradient: MetaGradient
) -> Callable[[MetaParams, Task, jax.Array], tuple[Metrics, MetaParams]]:
    """Builds `MetaLearner.grad` from an objective `(task, meta, key) -> (loss, metrics)`."""

    def grad(meta: MetaParams, task: Task, key: jax.Array) -> tuple[Metrics, MetaParams]:
        (loss, metrics), gradient = meta_gradient.value_and_grad(partial(objective, task))(meta, key)
        return {"loss": loss, **metrics}, gradient

    return grad


def learned_state(inner: optax.GradientTransformation, params: PyTree) -> PyTree:
    """Returns the learned part of the initial state of `inner`, with strong types."""
    learned, _ = partition(inner.init(params))
    return definite(learned)


def part_only(
    inner: optax.GradientTransformation, name: str, *, inside: bool = True, argument: str = "head"
) -> optax.GradientTransformation:
    """Restricts `inner` to a part of the parameters, and leaves the rest unchanged.

    Args:
        inner: transformation of the part.
        name: key in the path of the part's parameters.
        inside: take the parameters that have `name` in their path (default). Otherwise take all others.
        argument: name of the argument `name` in the error message.

    Returns:
        A transformation of all parameters. Its `init` raises a `ValueError` if one of the two parts is empty.

    Raises:
        TypeError: if `inner` is not an optax transformation.
    """
    check_transformation(inner=inner)

    def label(path: tuple[Any, ...], _: Any) -> str:
        names = (str(getattr(entry, "key", getattr(entry, "name", entry))) for entry in path)
        return "adapted" if (name in names) == inside else "frozen"

    def labels(params: PyTree) -> PyTree:
        tree = jax.tree.map_with_path(label, params)
        if len(set(jax.tree.leaves(tree))) < 2:
            paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(params)]
            raise ValueError(f"{argument} must name a part of the parameters, got {name!r}. The parameters are {paths}")
        return tree

    return optax.partition({"adapted": inner, "frozen": optax.set_to_zero()}, labels)
