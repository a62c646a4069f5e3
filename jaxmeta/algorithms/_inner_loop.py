"""The one learner with an inner loop: what adapts, from where, on which loss, are the values of an inner problem."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._adapt import adapt
from jaxmeta._checks import check_integer, check_optional_integer, check_transformation
from jaxmeta._learned import partition
from jaxmeta._types import LossFn, MetaLearner, MetaParams, Metrics, PyTree, Task, call_adapted, definite, with_loss
from jaxmeta._variables import carried_like, merge
from jaxmeta.algorithms._hoist import hoisted
from jaxmeta.algorithms._part import Part
from jaxmeta.losses import Loss, as_loss, train_pass
from jaxmeta.meta_gradients import MetaGradient, reverse


class InnerProblem(NamedTuple):
    """The parameters that the inner loop of one task moves, and the loss that it minimizes."""

    start: Callable[[MetaParams, Any, jax.Array], PyTree]
    """`(meta, support, key) -> adapted`: what adapts, before the first step. It is all parameters in MAML, the head in
    ANIL, zeros in CAVIA, prototypes in ProtoMAML. `MetaLearner.init` calls it with `support=None`, for its shapes."""
    loss: Callable[[PyTree, MetaParams, Any, jax.Array], tuple[jax.Array, Metrics]]
    """`(adapted, meta, support, key) -> (loss, metrics)` in training. Learned losses, regularizers and weights of the
    data are functions of `meta` here."""
    finish: Callable[[PyTree, MetaParams], Any]
    """`(adapted, meta) -> variables`: what the outer loss takes, and what `MetaLearner.adapt` returns."""
    test_loss: Callable[[PyTree, MetaParams, Any, jax.Array], tuple[jax.Array, Metrics]] | None = None
    """The loss of the inner loop at test. `None` takes `loss`."""


def inner_loop(
    problem: InnerProblem,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    outer_loss: LossFn | Loss,
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """Builds a learner from an inner problem: `steps` steps of `inner`, then the outer loss on the query set.

    The gradient of the inner loop is taken with respect to what adapts alone. What does not depend on it, such as the
    features below an adapted head, is computed once per task.

    Args:
        problem: what adapts, and on which loss.
        inner: inner optimizer, any optax transformation. If its state holds `jaxmeta.Learned` values, then their
            initial values are meta-learned.
        steps: number of inner steps during meta-training (default: 1). With 0 nothing adapts.
        outer_loss: `(problem.finish(...), batch, key) -> (loss, metrics)` on the query set, a function or a `Loss`.
        test_steps: number of inner steps of `MetaLearner.adapt`, at test. `None` (default) takes `steps`.
        meta_gradient: method that computes the meta-gradient. `None` (default) is `reverse()`.

    Returns:
        A `MetaLearner`. Its `adapt` returns what `problem.finish` does.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if a number of steps is not an integer of at least 0. From `init`, if `inner` has learned values
            and `meta_gradient` has no derivative for them, as `implicit()`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmeta
        >>> loss_fn = jaxmeta.regression(lambda p, x: p["slope"] * x + p["shift"])
        >>> def loss(shift, meta, batch, key):  # only the shift adapts, and is pulled to zero
        ...     value, metrics = loss_fn({**meta.params, "shift": shift}, batch, key)
        ...     return value + meta.params["pull"] * shift**2, metrics
        >>> problem = InnerProblem(
        ...     start=lambda meta, support, key: jnp.zeros_like(meta.params["shift"]),
        ...     loss=loss,
        ...     finish=lambda shift, meta: {**meta.params, "shift": shift},
        ... )
        >>> learner = inner_loop(problem, optax.sgd(0.5), outer_loss=loss_fn)
        >>> meta = learner.init({"slope": jnp.array(0.0), "shift": jnp.array(9.0), "pull": jnp.array(0.1)})
        >>> one = jaxmeta.Batch(jnp.ones((1, 1)), jnp.ones((1, 1)))
        >>> learner.predict(learner.adapt(meta, one, jax.random.key(0)), jnp.ones((1, 1))).tolist()
        [[1.0]]
    """
    check_transformation(inner=inner)
    meta_gradient = reverse() if meta_gradient is None else meta_gradient

    def init(variables: PyTree) -> MetaParams:
        meta = MetaParams.of(variables)
        return meta._replace(learned=learned_state(inner, problem.start(meta, None, jax.random.key(0)), meta_gradient))

    def run(meta: MetaParams, support: Any, key: jax.Array, steps: int, training: bool) -> Any:
        loss = problem.loss if training or problem.test_loss is None else problem.test_loss
        start = problem.start(meta, support, key)

        def loss_of_adapted(adapted: PyTree, batch: Any, key: jax.Array) -> tuple[jax.Array, Metrics]:
            return loss(adapted, meta, batch, key)

        stays = len(jax.tree.leaves(start)) < len(jax.tree.leaves(meta.params))
        step_loss = hoisted(loss_of_adapted, start, support, key) if stays and steps > 1 else loss_of_adapted
        adapted = adapt(
            step_loss, inner, start, support, key, steps=steps, learned=meta.learned, meta_gradient=meta_gradient
        )
        return problem.finish(adapted, meta)

    return by_inner_loop(as_loss(outer_loss), init, run, steps, test_steps, meta_gradient)


def model_problem(loss_fn: LossFn | Loss, part: Part | None = None) -> InnerProblem:
    """Returns the inner problem of a model: its own loss, minimized by all its parameters or by a part of them.

    Args:
        loss_fn: `(variables, batch, key) -> (loss, metrics)`.
        part: the parameters that adapt. `None` (default) takes all.

    Returns:
        An `InnerProblem`. Its `finish` gives the variables of the model.

    Example:
        >>> import jaxmeta
        >>> loss_fn = jaxmeta.regression(lambda p, x: x * p["body"] * p["head"])
        >>> head = model_problem(loss_fn, jaxmeta.named("head"))
        >>> anil = inner_loop(head, optax.sgd(0.5), outer_loss=loss_fn)
    """
    loss = as_loss(loss_fn)
    part = Part(lambda params: params, lambda part, params: part) if part is None else part

    def finish(adapted: PyTree, meta: MetaParams) -> PyTree:
        return merge(part.put(adapted, meta.params), meta.state)

    def in_mode(loss_fn: LossFn) -> Callable[[PyTree, MetaParams, Any, jax.Array], tuple[jax.Array, Metrics]]:
        return lambda adapted, meta, batch, key: loss_fn(finish(adapted, meta), batch, key)

    return InnerProblem(lambda meta, support, key: part.take(meta.params), in_mode(loss), finish, in_mode(loss.test))


def proximal(problem: InnerProblem, strength: float | jax.Array) -> InnerProblem:
    """Adds to an inner problem a pull towards its start: `strength / 2 * |adapted - start|^2`.

    Args:
        problem: inner problem, whose start must not depend on the key.
        strength: the `lambda` of proximal methods. It may be traced.

    Returns:
        An `InnerProblem`.

    Example:
        >>> import jaxmeta
        >>> loss_fn = jaxmeta.regression(lambda w, x: x * w)
        >>> learner = inner_loop(proximal(model_problem(loss_fn), 0.1), optax.sgd(0.5), 5, outer_loss=loss_fn)
    """

    def pulled(loss: Callable[..., tuple[jax.Array, Metrics]]) -> Callable[..., tuple[jax.Array, Metrics]]:
        def with_pull(adapted: PyTree, meta: MetaParams, batch: Any, key: jax.Array) -> tuple[jax.Array, Metrics]:
            value, metrics = loss(adapted, meta, batch, key)
            distance = optax.tree.norm(
                jax.tree.map(jnp.subtract, adapted, problem.start(meta, batch, key)), squared=True
            )
            return value + 0.5 * strength * distance, metrics

        return with_pull

    test_loss = None if problem.test_loss is None else pulled(problem.test_loss)
    return problem._replace(loss=pulled(problem.loss), test_loss=test_loss)


Run = Callable[[MetaParams, Any, jax.Array, int, bool], Any]
"""An inner loop: `(meta, support, key, steps, training) -> adapted`."""


def by_inner_loop(
    outer: Loss,
    init: Callable[[PyTree], MetaParams],
    run: Run,
    steps: int,
    test_steps: int | None,
    meta_gradient: MetaGradient,
) -> MetaLearner:
    """Builds a learner from an inner loop on the support set and a loss on the query set."""
    check_integer(least=0, steps=steps)
    check_optional_integer(least=0, test_steps=test_steps)

    def adapt_at_test(meta: MetaParams, support: Any, key: jax.Array) -> Any:
        return run(meta, support, key, steps if test_steps is None else test_steps, False)

    def objective(task: Task, meta: MetaParams, key: jax.Array) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
        adapt_key, loss_key = jax.random.split(key)
        adapted = run(meta, task.support, adapt_key, steps, True)
        loss, metrics, variables = train_pass(outer, adapted, task.query, loss_key)
        return loss, (metrics, variables)

    grad = grad_of(objective, meta_gradient)
    return MetaLearner(init, adapt_at_test, outer.test, grad, outer.predict or call_adapted)


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

        trained = meta._replace(state=())
        (loss, (metrics, state)), gradient = meta_gradient.value_and_grad(of_trained)(trained, key)
        return with_loss(loss, metrics), gradient._replace(state=state)

    return grad


def whole_loop(meta_gradient: MetaGradient | None) -> MetaGradient:
    """Returns the meta-gradient of an algorithm that is not defined for one of the end of the inner loop alone.

    Raises:
        ValueError: if it is one, as `implicit()`.
    """
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
