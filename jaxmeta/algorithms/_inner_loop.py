"""The one learner with an inner loop: what adapts, from where, on which loss, are the values of an inner problem."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._adapt import unroll
from jaxmeta._checks import check_integer, check_meta_gradient, check_optional_integer, check_transformation
from jaxmeta._learned import combine
from jaxmeta._types import (
    LossFn,
    MetaLearner,
    MetaParams,
    Metrics,
    PyTree,
    Task,
    call_adapted,
    check_key,
    check_meta,
    with_loss,
)
from jaxmeta._variables import merge, split
from jaxmeta.algorithms._hoist import hoisted
from jaxmeta.algorithms._objective import grad_of, learned_state, whole_loop
from jaxmeta.algorithms._observe import record_values, sum_values
from jaxmeta.algorithms._part import Part
from jaxmeta.display import brief, described, short_repr
from jaxmeta.losses import Loss, as_loss, train_pass
from jaxmeta.meta_gradients import MetaGradient, reverse

InnerLoss = Callable[[PyTree, MetaParams, Any, jax.Array], tuple[jax.Array, Metrics]]
"""`(adapted, meta, batch, key) -> (loss, metrics)`."""


class InnerProblem(NamedTuple):
    """The parameters that the inner loop of one task moves, and the loss that it minimizes."""

    start: Callable[[MetaParams, Any, jax.Array], PyTree]
    """`(meta, support, key) -> adapted`: what adapts, before the first step. It is all parameters in MAML, the head in
    ANIL, zeros in CAVIA, prototypes in ProtoMAML. `MetaLearner.init` calls it with `support=None`, for its shapes."""
    loss: InnerLoss
    """`(adapted, meta, support, key) -> (loss, metrics)` in training. Learned losses, regularizers and weights of the
    data are functions of `meta` here."""
    finish: Callable[[PyTree, MetaParams], Any]
    """`(adapted, meta) -> variables`: what the outer loss takes, and what `MetaLearner.adapt` returns."""
    test_loss: InnerLoss | None = None
    """The loss of the inner loop at test. `None` takes `loss`."""
    stream: Callable[[MetaParams, Any, jax.Array, int], Any] | None = None
    """`(meta, support, key, steps) -> entries`: what differs between steps, such as the indices of a minibatch. The
    leading axis is the number of steps. The loss of a step then gets `(support, entry)` in place of the support set."""

    __repr__ = short_repr


@described
def inner_loop(
    problem: InnerProblem,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    outer_loss: LossFn | Loss,
    step_weights: Sequence[float] | jax.Array | None = None,
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
        step_weights: weights of the outer losses after each inner step, `[steps]`. They may be traced. A step of weight
            zero costs nothing. `None` (default) takes the loss after the last step alone.
        test_steps: number of inner steps of `MetaLearner.adapt`, at test. `None` (default) takes `steps`.
        meta_gradient: method that computes the meta-gradient. `None` (default) is `reverse()`.

    Returns:
        A `MetaLearner`. Its `adapt` returns what `problem.finish` does.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if a number of steps is not an integer of at least 0, `step_weights` has another shape than
            `[steps]`, or `meta_gradient` sees only the end of the inner loop, as `implicit()`, where there are
            `step_weights` or a stream. From `init`, if `inner` has learned values and `meta_gradient` has no derivative
            for them.

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
    _check_arguments(problem, inner, steps, test_steps, meta_gradient)
    outer = as_loss(outer_loss)
    weights: Any = None if step_weights is None else jnp.asarray(step_weights)
    if weights is not None and weights.shape != (steps,):
        raise ValueError(f"step_weights must have shape {(steps,)}, got {weights.shape}")
    if weights is not None or problem.stream is not None:
        meta_gradient = whole_loop(meta_gradient)
    meta_gradient = reverse() if meta_gradient is None else meta_gradient

    def init(variables: PyTree) -> MetaParams:
        meta = MetaParams.of(variables)
        start, _ = split(problem.start(meta, None, jax.random.key(0)))
        return meta._replace(learned=learned_state(inner, start, meta_gradient))

    run = partial(_run, problem, inner)
    at_test = problem.loss if problem.test_loss is None else problem.test_loss
    steps_at_test = steps if test_steps is None else test_steps

    def adapt(meta: MetaParams, support: Any, key: jax.Array) -> Any:
        return run(meta, support, key, steps_at_test, at_test, meta_gradient)[0]

    def follow(meta: MetaParams, task: Task, adapt_key: jax.Array, loss_key: jax.Array) -> tuple[Any, Metrics]:
        def measure(adapted: Any) -> Metrics:
            return with_loss(*outer.test(adapted, task.query, loss_key))

        def observer(finish: Any, steps: int) -> optax.GradientTransformation:
            return record_values(lambda trained: measure(finish(trained)), steps)

        adapted, seen = run(meta, task.support, adapt_key, steps_at_test, at_test, meta_gradient, observer)
        return adapted, jax.tree.map(lambda x, last: jnp.append(x, last), seen.values, measure(adapted))

    def objective(task: Task, meta: MetaParams, key: jax.Array) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
        adapt_key, loss_key = jax.random.split(key)
        query_loss = partial(train_pass, outer, batch=task.query, key=loss_key)

        def observer(finish: Any, _: int) -> optax.GradientTransformation:
            return sum_values(lambda trained: query_loss(finish(trained))[0], weights)

        summed = observer if weights is not None and steps else None
        adapted, seen = run(meta, task.support, adapt_key, steps, problem.loss, meta_gradient, summed)
        loss, metrics, variables = query_loss(adapted)
        if summed is not None and weights is not None:
            loss = seen.total + weights[-1].astype(loss.dtype) * loss
        return loss, (metrics, variables)

    predict = outer.predict or call_adapted
    return MetaLearner(init, adapt, outer.test, grad_of(objective, meta_gradient), predict, follow)


def _run(
    problem: InnerProblem,
    inner: optax.GradientTransformation,
    meta: MetaParams,
    support: Any,
    key: jax.Array,
    steps: int,
    loss: Any,
    meta_gradient: MetaGradient,
    observer: Callable[[Any, int], optax.GradientTransformation] | None = None,
) -> tuple[Any, Any]:
    """Returns what comes out of the loop, and the state of an optax transformation that observes it.

    `observer` makes one of a function from what adapts to what the outer loss takes, and of the number of steps. A
    stream may have another number than `steps`.
    """
    check_meta(meta)
    check_key(key)
    start = problem.start(meta, support, key)
    step_loss, xs = _step_loss(problem, loss, start, meta, support, key, steps)
    trained, carried = split(start)
    optimizer, state = inner, combine(meta.learned, inner.init(trained))
    if observer is not None:
        number = jax.tree.leaves(xs)[0].shape[0]
        observing = observer(lambda trained: problem.finish(merge(trained, carried), meta), number)
        optimizer, state = optax.chain(observing, inner), (observing.init(trained), state)
    end: Any = unroll(step_loss, optimizer, start, support, xs, state=state, meta_gradient=meta_gradient)
    return problem.finish(end.params, meta), None if observer is None else end.state[0]


def _check_arguments(problem: Any, inner: Any, steps: Any, test_steps: Any, meta_gradient: Any) -> None:
    if not isinstance(problem, InnerProblem):
        raise TypeError(f"problem must be an InnerProblem, such as model_problem(loss_fn), got {brief(problem)}")
    check_transformation(inner=inner)
    check_meta_gradient(meta_gradient)
    check_integer(least=0, steps=steps)
    check_optional_integer(least=0, test_steps=test_steps)


def _step_loss(
    problem: InnerProblem, loss: Any, start: PyTree, meta: MetaParams, support: Any, key: jax.Array, steps: int
) -> tuple[LossFn, Any]:
    """Returns the loss `(adapted, support, x)` of an inner step, and what it takes as `x` in each step."""
    stream = None if problem.stream is None else problem.stream(meta, support, key, steps)
    number = steps if stream is None else jax.tree.leaves(stream)[0].shape[0]
    xs = stream, jax.random.split(key, number)

    def step_loss(adapted: PyTree, support: Any, x: Any) -> tuple[jax.Array, Metrics]:
        entry, key = x
        return loss(adapted, meta, support if stream is None else (support, entry), key)

    stays = len(jax.tree.leaves(start)) < len(jax.tree.leaves(meta.params))
    if stream is None and stays and number > 1:
        return hoisted(step_loss, start, support, jax.tree.map(lambda leaf: leaf[0], xs)), xs
    return step_loss, xs


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

    def in_mode(loss_fn: LossFn) -> InnerLoss:
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

    def pulled(loss: InnerLoss) -> InnerLoss:
        def with_pull(adapted: PyTree, meta: MetaParams, batch: Any, key: jax.Array) -> tuple[jax.Array, Metrics]:
            value, metrics = loss(adapted, meta, batch, key)
            distance = optax.tree.norm(
                jax.tree.map(jnp.subtract, adapted, problem.start(meta, batch, key)), squared=True
            )
            return value + 0.5 * strength * distance, metrics

        return with_pull

    return with_losses(problem, pulled)


def with_losses(problem: InnerProblem, change: Callable[[InnerLoss], InnerLoss]) -> InnerProblem:
    """Returns the inner problem with its loss, and that of test if it has one, put through `change`."""
    test_loss = None if problem.test_loss is None else change(problem.test_loss)
    return problem._replace(loss=change(problem.loss), test_loss=test_loss)
