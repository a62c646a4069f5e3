"""One outer update of a process: every run advances by one window, then the meta-parameters are updated."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_integer, check_transformation
from jaxmeta._learned import no_value_fn, update_with
from jaxmeta._step import batch_size_of
from jaxmeta._types import Metrics, PyTree, Training, definite
from jaxmeta.display import described, short_repr
from jaxmeta.estimators._process import GradientEstimator, Process, ProcessRun


class OuterState(NamedTuple):
    """State of `process_step`."""

    meta: PyTree
    """The meta-parameters, the `theta` of the process."""
    opt_state: optax.OptState
    """State of the outer optimizer."""
    runs: ProcessRun
    """The runs, in a leading axis."""

    __repr__ = short_repr


@described
def process_step(
    process: Process,
    estimator: GradientEstimator,
    optimizer: optax.GradientTransformation,
    num_runs: int,
    *,
    batch_size: int | None = None,
) -> Training:
    """Builds one outer update: every run goes on by one window, their gradients are averaged.

    The runs start at ages that are spread evenly over the horizon, so that every update sees all parts of it; the first
    ones are thus cut short.

    Args:
        process: what is meta-trained.
        estimator: how: `truncated_backprop`, `truncated_evolution` or `persistent_evolution`.
        optimizer: any optax optimizer of `theta` without a line search. Gradients through long runs have outliers: clip
            them.
        num_runs: runs side by side, with tasks of their own.
        batch_size: runs treated at once by `jax.vmap`; `None` chooses for the backend: 1 on a CPU, all elsewhere.

    Returns:
        A `Training`, whose `init(meta, key)` starts the runs.

    Raises:
        ValueError: if a number is less than 1, or the horizon is not a multiple of the window.
        TypeError: if `optimizer` is not an optax transformation.

    Example:
        >>> from jaxmeta.estimators import persistent_evolution
        >>> # A falling ball, x' = x + v, that is pushed by theta in each step and should stay near 1.
        >>> def step(theta, state, key):
        ...     x, v = state
        ...     v = v - 0.1 + theta
        ...     return (x + v, v), (x + v - 1) ** 2
        >>> process = Process(lambda key: (jnp.ones([]), jnp.zeros([])), step, horizon=20)
        >>> train = process_step(process, persistent_evolution(5), optax.adam(1e-2), num_runs=100)
        >>> state = train.init(jnp.array(0.0), jax.random.key(0))
        >>> state, metrics = jax.jit(lambda s, keys: jax.lax.scan(train.step, s, keys))(
        ...     state, jax.random.split(jax.random.key(1), 200))
        >>> round(float(state.meta), 1)
        0.1
    """
    check_integer(num_runs=num_runs, horizon=process.horizon)
    check_transformation(optimizer=optimizer)
    if process.horizon % estimator.window:
        raise ValueError(f"horizon must be a multiple of the window ({estimator.window}), got {process.horizon}")

    batch_size = batch_size_of(num_runs, batch_size)

    def init(theta: PyTree, key: jax.Array) -> OuterState:
        theta = definite(theta)
        runs = jax.vmap(lambda k: estimator.init(process, theta, k))(jax.random.split(key, num_runs))
        windows = process.horizon // estimator.window
        ages = estimator.window * (jnp.arange(num_runs) * windows // num_runs)
        return OuterState(theta, optimizer.init(theta), runs._replace(age=ages.astype(jnp.int32)))

    def step(state: OuterState, key: jax.Array) -> tuple[OuterState, Metrics]:
        def window(run_and_key: tuple[ProcessRun, jax.Array]) -> tuple[Metrics, PyTree, ProcessRun]:
            run, key = run_and_key
            start_key, key = jax.random.split(key)
            over = run.age >= process.horizon
            run = jax.lax.cond(over, lambda: estimator.init(process, state.meta, start_key), lambda: run)
            return estimator.grad(process, state.meta, run, key)

        # `jax.lax.map` would batch by `vmap` even for a size of 1.
        in_batches = partial(jax.lax.map, window, batch_size=None if batch_size == 1 else batch_size)
        metrics, gradients, runs = in_batches((state.runs, jax.random.split(key, num_runs)))
        metrics, gradient = jax.tree.map(lambda x: jnp.mean(x, axis=0), (metrics, gradients))
        value_fn = no_value_fn("process_step")
        meta, opt_state = update_with(
            optimizer, gradient, state.opt_state, state.meta, value=metrics["loss"], value_fn=value_fn
        )
        return OuterState(meta, opt_state, runs), metrics

    return Training(init, step)
