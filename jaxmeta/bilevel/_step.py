"""Outer updates of a bilevel problem whose inner training goes on: online hyper-parameter optimization."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._adapt import check_through_loss, unroll
from jaxmeta._checks import check_integer, check_sampler, check_transformation
from jaxmeta._learned import combine, partition, update_with
from jaxmeta._types import (
    LossFn,
    MetaParams,
    Metrics,
    PyTree,
    Sampler,
    Training,
    check_key,
    check_task,
    definite,
    with_loss,
)
from jaxmeta._variables import merge, split
from jaxmeta.algorithms import InnerProblem
from jaxmeta.display import brief, described, short_repr
from jaxmeta.losses import Loss, as_loss, train_pass
from jaxmeta.meta_gradients import MetaGradient, reverse


class BilevelState(NamedTuple):
    """State of `bilevel_step`."""

    meta: MetaParams
    """The hyper-parameters, in `params`, and what the inner optimizer learns, in `learned`."""
    opt_state: optax.OptState
    """State of the outer optimizer."""
    params: PyTree
    """The parameters in training, where the inner loop stands."""
    inner_state: optax.OptState
    """State of the inner optimizer, without what it learns."""

    __repr__ = short_repr


@described
def bilevel_step(
    problem: InnerProblem,
    inner: optax.GradientTransformation,
    optimizer: optax.GradientTransformation,
    steps: int = 1,
    *,
    outer_loss: LossFn | Loss,
    meta_gradient: MetaGradient | None = None,
) -> Training:
    """Builds one outer update of a bilevel problem, whose inner training goes on from update to update.

    With the parameters `theta`, the hyper-parameters `lambda` and the inner optimizer `phi`, an update is::

        theta' = phi(... phi(theta, lambda) ..., lambda)       # `steps` steps, each on data of its own
        lambda <- optimizer(lambda, d outer_loss(theta') / d lambda)
        theta <- theta'

    `theta` and the state of `phi` before the update count as constants, so the gradient is that of the last `steps`
    steps. With `implicit()` it is that of the minimum instead, and with `sama()` a cheap estimate of the last step's.
    To start each update anew, and to differentiate through a whole training, take `jaxmeta.inner_loop` with
    `jaxmeta.meta_step`.

    Args:
        problem: inner problem. Its `start(meta, None, key)` gives the first parameters, and its
            `loss(params, meta, batch, key)` is minimized, with the hyper-parameters in `meta.params`. It has no
            `stream`.
        inner: inner optimizer, any optax transformation. `jaxmeta.Learned` values in its state are hyper-parameters
            too, used as they are in every step.
        optimizer: outer optimizer, any optax transformation.
        steps: number of inner steps for each outer update (default: 1).
        outer_loss: `(problem.finish(...), batch, key) -> (loss, metrics)`, a function or a `Loss`.
        meta_gradient: method that computes the gradient. `None` (default) is `reverse()`. `first_order()` and
            `truncated(0)` are refused, as hyper-parameters of the inner loss have no derivative by them.

    Returns:
        A `Training`. Its `init(hyper, key)` takes the hyper-parameters, any variables, or `MetaParams`. Its
        `step(state, key, sampler)` takes a sampler of tasks. Each inner step draws a task and sees its `support`, and
        the outer loss sees the `query` of another one. The metrics are those of the outer loss, and `inner_loss`, the
        mean over the inner steps. What a model only carries, such as running statistics, does not change.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if `steps` is less than 1, `problem` has a stream, or `meta_gradient` is refused. From `init`, if
            `inner` has learned values and `meta_gradient` has no derivative for them.

    Example:
        >>> # Data 1 pull the parameter with a learned strength, data 2 are the truth, so the strength goes up.
        >>> import jaxmeta
        >>> problem = InnerProblem(
        ...     start=lambda meta, support, key: jnp.zeros(()),
        ...     loss=lambda w, meta, target, key: (jnp.exp(meta.params) * (w - target) ** 2 + w**2, {}),
        ...     finish=lambda w, meta: w,
        ... )
        >>> outer_loss = lambda w, target, key: ((w - target) ** 2, {})
        >>> training = bilevel_step(problem, optax.sgd(0.1), optax.adam(0.1), steps=5, outer_loss=outer_loss)
        >>> sampler = lambda key: jaxmeta.Task(1.0, 2.0)
        >>> keys = jax.random.split(jax.random.key(0), 100)
        >>> state = training.init(jnp.array(0.0), keys[0])
        >>> state, metrics = jax.jit(lambda s: jax.lax.scan(lambda s, k: training.step(s, k, sampler), s, keys))(state)
        >>> bool(state.meta.params > 0.5)
        True

    References:
        Luketina, Berglund, Greff & Raiko, *Scalable Gradient-Based Tuning of Continuous Regularization
        Hyperparameters*, ICML 2016, https://arxiv.org/abs/1511.06727
    """
    _check_arguments(problem, inner, optimizer, meta_gradient)
    check_integer(steps=steps)
    method = reverse() if meta_gradient is None else meta_gradient
    outer = as_loss(outer_loss)

    def init(hyper: PyTree, key: jax.Array) -> BilevelState:
        check_key(key)
        meta = hyper if isinstance(hyper, MetaParams) else MetaParams.of(hyper)
        started, carried = split(problem.start(meta, None, key))
        started = definite(started)
        meta, inner_state = _with_learned(meta, inner, started, method)
        trained = definite(meta._replace(state=()))
        return BilevelState(
            trained._replace(state=meta.state), optimizer.init(trained), merge(started, carried), inner_state
        )

    def step(state: BilevelState, key: jax.Array, sampler: Sampler) -> tuple[BilevelState, Metrics]:
        check_key(key)
        check_sampler(sampler=sampler)
        support_key, query_key, inner_key, loss_key, method_key = jax.random.split(key, 5)
        xs = jax.random.split(support_key, steps), jax.random.split(inner_key, steps)
        query = check_task(sampler(query_key)).query

        def objective(trained: MetaParams, _: jax.Array) -> tuple[jax.Array, Any]:
            meta = trained._replace(state=state.meta.state)

            def inner_loss(params: PyTree, _: None, x: Any) -> tuple[jax.Array, Metrics]:
                data_key, key = x
                return problem.loss(params, meta, check_task(sampler(data_key)).support, key)

            before = combine(meta.learned, state.inner_state)
            end = unroll(inner_loss, inner, state.params, None, xs, state=before, meta_gradient=method)
            loss, metrics, _ = train_pass(outer, problem.finish(end.params, meta), query, loss_key)
            metrics = with_loss(loss, {**metrics, "inner_loss": jnp.mean(end.losses)})
            return loss, (metrics, end.params, partition(end.state)[1])

        trained = state.meta._replace(state=())
        (loss, (metrics, params, inner_state)), gradient = method.value_and_grad(objective)(trained, method_key)
        trained, opt_state = update_with(
            optimizer,
            gradient,
            state.opt_state,
            trained,
            value=loss,
            value_fn=lambda trained: objective(trained, method_key)[0],
        )
        return BilevelState(trained._replace(state=state.meta.state), opt_state, params, inner_state), metrics

    return Training(init, step)


def _check_arguments(problem: Any, inner: Any, optimizer: Any, meta_gradient: Any) -> None:
    if not isinstance(problem, InnerProblem):
        raise TypeError(f"problem must be an InnerProblem, such as weighted_losses(...), got {brief(problem)}")
    if problem.stream is not None:
        raise ValueError("problem must have no stream: each inner step draws data of its own here")
    check_transformation(inner=inner, optimizer=optimizer)
    check_through_loss(meta_gradient)


def _with_learned(
    meta: MetaParams, inner: optax.GradientTransformation, params: PyTree, method: MetaGradient
) -> tuple[MetaParams, optax.OptState]:
    """Returns the meta-parameters with what the inner optimizer learns, and the rest of its first state."""
    learned, rest = partition(inner.init(params))
    if not jax.tree.leaves(learned):
        return meta, rest
    if method.end_only:
        raise ValueError("inner must have no jaxmeta.Learned values for this meta_gradient, which has none for them")
    return meta._replace(learned=meta.learned if jax.tree.leaves(meta.learned) else learned), rest
