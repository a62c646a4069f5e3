"""Check of a meta-learner."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta._step import meta_step
from jaxmeta._types import MetaLearner, MetaParams, Metrics, PyTree, Sampler, Training, TrainingState
from jaxmeta.testing._compare import check_close, check_same_types

_NUM_TASKS = 8  # in an update
_UPDATES = 100
_SEEDS = 2
_TEST_TASKS = 64


def check_learner(learner: MetaLearner, params: PyTree, sampler: Sampler) -> None:
    """Checks a meta-learner on a small problem.

    Two programs are compiled: one update of eight tasks, one task at a time, and a hundred such updates of two seeds
    and all tasks side by side. The checks are:

    - Meta-gradients, and adapted values that look like parameters, keep structure, shapes and types, bfloat16 too.
    - Metrics and losses are scalars.
    - An update traces once, and moves nothing between host and device.
    - The two programs agree: the learner is a pure function, and the result depends neither on how tasks are batched
      nor on the seeds beside.
    - Meta-training lowers the query loss.
    - Adapting to a task leads to a lower support loss than adapting to another task, before it or after it.

    Args:
        learner: the learner.
        params: initial model parameters.
        sampler: a sampler of small tasks.

    Raises:
        AssertionError: if a check fails.

    Example:
        >>> import jaxmeta
        >>> learner = jaxmeta.maml(jaxmeta.regression(lambda w, x: x * w), optax.sgd(0.01))
        >>> check_learner(learner, jnp.array([1.0]), jaxmeta.data.Sinusoid())
    """
    meta = learner.init(params)
    learner = _strict(learner)
    _check_half_precision(learner, params, sampler)
    optimizer = optax.flatten(optax.adam(3e-3))  # flat, because it compiles faster
    one_by_one = meta_step(learner, optimizer, _NUM_TASKS, batch_size=1)
    together = meta_step(learner, optimizer, _NUM_TASKS, batch_size=_NUM_TASKS)
    meta, sampler, keys = jax.device_put((meta, sampler, jax.random.split(jax.random.key(0), (_UPDATES, _SEEDS))))
    update = _check_update(one_by_one, meta, sampler, keys[0, 0])
    results = jax.jit(partial(_train_and_test, learner, together))(meta, sampler, keys)
    check_close(
        jax.tree.map(lambda x: x[0], results.update),
        update,
        "an update of all tasks and seeds under vmap differs from one task at a time: the learner treats tasks in a "
        "batch differently, or is not a pure function",
        1e-4,
    )
    before, after = (float(results.query_loss[metas].mean()) for metas in (slice(1), slice(1, None)))
    assert after < before, f"meta-training did not lower the query loss: {before} before it, {after} after it"
    gains = np.diff(np.asarray(results.support_losses).mean(axis=2))
    assert max(gains[0], gains[1:].mean()) > 0, (
        "adapting to a task is no better for its support set than adapting to another task: the losses differ by "
        f"{gains[0]} before meta-training, and by {gains[1:].mean()} after it"
    )


def _check_half_precision(learner: MetaLearner, params: PyTree, sampler: Sampler) -> None:
    """Traces the meta-gradient of parameters in bfloat16."""

    def half(x: jax.Array) -> jax.Array:
        return x.astype(jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x

    def trace(params: PyTree, key: jax.Array) -> tuple[Metrics, MetaParams]:
        return learner.grad(learner.init(jax.tree.map(half, params)), sampler(key), key)

    jax.eval_shape(trace, params, jax.random.key(0))


class _Results(NamedTuple):
    """Results of the program that trains and tests."""

    update: tuple[Any, Metrics]
    """State of the optimizer and metrics after the first update, one per seed."""
    query_loss: jax.Array
    """Query loss of every test task: `[1 + seeds, tasks]`, first before and then after meta-training."""
    support_losses: jax.Array
    """Support loss after adaptation to the task, and to another one: `[1 + seeds, 2, tasks]`."""


def _train_and_test(
    learner: MetaLearner, training: Training, meta: MetaParams, sampler: Sampler, keys: jax.Array
) -> _Results:
    """Meta-trains with each column of `keys: [updates, seeds]`, and tests what comes of it."""
    step = jax.vmap(training.step, (0, 0, None))

    def update(carry: tuple[TrainingState, Any], keys: jax.Array) -> tuple[tuple[TrainingState, Any], Metrics]:
        state, first = carry
        state, metrics = step(state, keys, sampler)
        first = jax.tree.map(lambda new, old: jnp.where(state.update[0] == 1, new, old), state.opt_state, first)
        return (state, first), metrics

    start = jax.tree.map(lambda x: jnp.stack([x] * _SEEDS), training.init(meta))
    (state, first), metrics = jax.lax.scan(update, (start, start.opt_state), keys)
    metas = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), meta, state.meta)
    first_metrics = jax.tree.map(lambda x: x[0], metrics)
    return _Results((first, first_metrics), *jax.lax.map(lambda meta: _test(learner, meta, sampler), metas))


def _test(learner: MetaLearner, meta: MetaParams, sampler: Sampler) -> tuple[jax.Array, jax.Array]:
    """Returns the query losses `[tasks]` and the support losses `[2, tasks]`, see `_Results`."""
    task_keys, adapt_keys, loss_keys = jax.random.split(jax.random.key(1), (3, _TEST_TASKS))
    tasks = jax.vmap(sampler)(task_keys)
    adapted = jax.vmap(partial(learner.adapt, meta))(tasks.support, adapt_keys)
    losses = jax.vmap(jax.jit(lambda *args: learner.loss(*args)[0], inline=True))  # traced once for equal shapes

    def support_losses(others: Any) -> jax.Array:
        return losses(others, tasks.support, loss_keys)

    own_and_other = jax.tree.map(lambda x: jnp.stack([x, jnp.roll(x, 1, axis=0)]), adapted)
    return losses(adapted, tasks.query, loss_keys), jax.vmap(support_losses)(own_and_other)


def _check_update(training: Training, meta: MetaParams, sampler: Sampler, key: jax.Array) -> tuple[Any, Metrics]:
    """Runs one update three times, and returns the optimizer's state and the metrics of the first."""
    step, traces = _counted(training.step)
    start = jax.device_put(training.init(meta))
    state, metrics = step(start, key, sampler)
    later, _ = step(state, key, sampler)
    assert len(traces) == 1, (
        f"an update was traced {len(traces)} times in two calls: the types of its results differ from its arguments'"
    )
    try:
        with jax.transfer_guard("disallow_explicit"):
            jax.block_until_ready(step(later, key, sampler))
    except Exception as error:  # what JAX makes of it depends on the kind of callback
        if "transfer" not in str(error):
            raise
        raise AssertionError("a compiled update moves values between host and device, as a callback does") from error
    return state.opt_state, metrics


def _strict(learner: MetaLearner) -> MetaLearner:
    """Returns the learner with checks of what it returns, which run whenever it is traced."""

    def adapt(meta: MetaParams, support: Any, key: jax.Array) -> Any:
        adapted = learner.adapt(meta, support, key)
        if jax.tree.structure(adapted) == jax.tree.structure(meta.params):
            check_same_types("the adapted parameters", adapted, "the initial ones", meta.params)
        return adapted

    def loss(adapted: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, Metrics]:
        value, metrics = learner.loss(adapted, batch, key)
        _check_scalars({"loss": value, **metrics})
        return value, metrics

    def grad(meta: MetaParams, task: Any, key: jax.Array) -> tuple[Metrics, MetaParams]:
        metrics, gradient = learner.grad(meta, task, key)
        check_same_types("the meta-gradient", gradient, "meta", meta)
        _check_scalars(metrics)
        return metrics, gradient

    return MetaLearner(learner.init, adapt, loss, grad)


def _check_scalars(metrics: Metrics) -> None:
    for name, value in metrics.items():
        assert jnp.shape(value) == (), f"metric {name!r} is no scalar, its shape is {jnp.shape(value)}"


def _counted(fn: Callable[..., Any]) -> tuple[Callable[..., Any], list[int]]:
    """Returns the jitted function, and a list that grows by one with every trace."""
    traces: list[int] = []

    def call(*args: Any) -> Any:
        traces.append(1)
        return fn(*args)

    return jax.jit(call), traces
