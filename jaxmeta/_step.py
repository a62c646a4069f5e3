"""The batch over tasks: one outer update, and evaluation, for any learner, sampler and optax optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta._types import MetaLearner, MetaParams, Metrics, PyTree, Sampler

MetaStep = Callable[[MetaParams, optax.OptState, Sampler, jax.Array], tuple[MetaParams, optax.OptState, Metrics]]
Evaluate = Callable[[MetaParams, Sampler, jax.Array], Metrics]


def meta_step(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    num_tasks: int,
    *,
    batch_size: int | None = None,
) -> MetaStep:
    """Builds one outer update: sample tasks, average their meta-gradients, update.

    The result is a pure function to jit (and to scan). Its tasks and, up to the order of a sum, its result do not
    depend on `batch_size`.

    Args:
        learner: the meta-learner.
        optimizer: any optax optimizer of `MetaParams`.
        num_tasks: tasks per update.
        batch_size: tasks treated at once by `jax.vmap`; batches follow each other in a `jax.lax.scan` that accumulates
            the gradients. `None` chooses for the backend: 1 on a CPU, whose caches and matrix products like one task
            at a time, all of them elsewhere.

    Returns:
        `(meta, opt_state, sampler, key) -> (meta, opt_state, metrics)`, with metrics averaged over the tasks.

    Raises:
        ValueError: if `num_tasks` or `batch_size` is less than 1.

    Example:
        >>> import jaxmeta
        >>> from jaxmeta import data
        >>> learner = jaxmeta.maml(jaxmeta.regression(lambda w, x: x * w), optax.sgd(0.01))
        >>> optimizer = optax.adam(1e-3)
        >>> meta = learner.init(jnp.array([1.0]))
        >>> step = jax.jit(meta_step(learner, optimizer, num_tasks=4))
        >>> meta, opt_state, metrics = step(meta, optimizer.init(meta), data.Sinusoid(), jax.random.key(0))
        >>> sorted(metrics)
        ['loss']
    """
    batch_size = _check_sizes(num_tasks, batch_size)

    def step(
        meta: MetaParams, opt_state: optax.OptState, sampler: Sampler, key: jax.Array
    ) -> tuple[MetaParams, optax.OptState, Metrics]:
        def task_grad(key: jax.Array) -> tuple[Metrics, MetaParams]:
            task_key, learner_key = jax.random.split(key)
            return learner.grad(meta, sampler(task_key), learner_key)

        metrics, grads = _mean(task_grad, jax.random.split(key, num_tasks), batch_size)
        updates, opt_state = optimizer.update(grads, opt_state, meta)
        new_meta: Any = optax.apply_updates(meta, updates)
        return new_meta, opt_state, metrics

    return step


def evaluate(learner: MetaLearner, num_tasks: int = 600, *, batch_size: int | None = None) -> Evaluate:
    """Builds an evaluation: adapt on each task's support set, measure on its query set.

    Args:
        learner: the meta-learner.
        num_tasks: how many tasks.
        batch_size: see `meta_step`.

    Returns:
        `(meta, sampler, key) -> metrics`, a pure function to jit; each metric is an array `[num_tasks]`, one value per
        task. `summarize` turns it into means and intervals.

    Raises:
        ValueError: if `num_tasks` or `batch_size` is less than 1.

    Example:
        >>> import jaxmeta
        >>> from jaxmeta import data
        >>> learner = jaxmeta.maml(jaxmeta.regression(lambda w, x: x * w), optax.sgd(0.01))
        >>> run = jax.jit(evaluate(learner, num_tasks=8))
        >>> run(learner.init(jnp.array([1.0])), data.Sinusoid(), jax.random.key(0))["loss"].shape
        (8,)
    """
    batch_size = _check_sizes(num_tasks, batch_size)

    def run(meta: MetaParams, sampler: Sampler, key: jax.Array) -> Metrics:
        def task_metrics(key: jax.Array) -> Metrics:
            task_key, adapt_key, loss_key = jax.random.split(key, 3)
            task = sampler(task_key)
            loss, metrics = learner.loss(learner.adapt(meta, task.support, adapt_key), task.query, loss_key)
            return {"loss": loss, **metrics}

        return jax.lax.map(task_metrics, jax.random.split(key, num_tasks), batch_size=_or_none(batch_size))

    return run


class Summary(NamedTuple):
    """What one metric did over many tasks."""

    mean: float
    """Mean over the tasks; infinite or NaN if some task's value is."""
    interval: float
    """Half the width of the 95 % confidence interval of the mean: 1.96 standard errors."""
    median: float
    """Median over the tasks, a NaN counting as infinite: it stays telling while less than half of the tasks diverge."""
    finite: float
    """Share of the tasks whose value is finite, in [0, 1]."""
    num_tasks: int
    """How many tasks."""

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.interval:.4f}"


def summarize(metrics: Metrics) -> dict[str, Summary]:
    """Mean, 95 % interval, median and share of finite values of every metric that `evaluate` gave.

    Args:
        metrics: arrays `[num_tasks]`.

    Returns:
        A `Summary` per metric.

    Example:
        >>> str(summarize({"accuracy": jnp.array([0.0, 1.0, 1.0, 1.0])})["accuracy"])
        '0.7500 ± 0.4900'
    """

    def summary(values: PyTree) -> Summary:
        array = np.asarray(values, np.float64)
        n = array.size
        with np.errstate(all="ignore"):
            spread = float(np.std(array, ddof=1)) if n > 1 else float("nan")
            return Summary(
                float(np.mean(array)),
                1.96 * spread / n**0.5,
                float(np.median(np.nan_to_num(array, nan=np.inf, posinf=np.inf, neginf=-np.inf))),
                float(np.mean(np.isfinite(array))),
                n,
            )

    return {name: summary(values) for name, values in metrics.items()}


def _check_sizes(num_tasks: int, batch_size: int | None) -> int:
    if num_tasks < 1:
        raise ValueError(f"num_tasks must be at least 1, got {num_tasks}")
    if batch_size is None:
        return 1 if jax.default_backend() == "cpu" else num_tasks
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1 or None, got {batch_size}")
    return min(batch_size, num_tasks)


def _or_none(batch_size: int) -> int | None:
    """`jax.lax.map` batches by `vmap` even for a size of 1; one task at a time should see no batch axis."""
    return None if batch_size == 1 else batch_size


def _mean(fn: Callable[[jax.Array], Any], keys: jax.Array, batch_size: int) -> Any:
    """Mean of `fn(key)` over the keys, in batches of at most `batch_size`, without holding all results at once."""
    num = keys.shape[0]
    batches, rest = divmod(num, batch_size)

    def total(keys: jax.Array) -> Any:
        if keys.shape[0] == 1:
            return jax.tree.map(_widen, fn(keys[0]))
        return jax.tree.map(lambda x: jnp.sum(_widen(x), axis=0), jax.vmap(fn)(keys))

    if batches == 1:
        sums = total(keys[:batch_size])
    else:
        shapes = jax.eval_shape(total, keys[:batch_size])
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        groups = keys[: batches * batch_size].reshape(batches, batch_size)
        sums, _ = jax.lax.scan(lambda acc, group: (jax.tree.map(jnp.add, acc, total(group)), None), zeros, groups)
    if rest:
        sums = jax.tree.map(jnp.add, sums, total(keys[-rest:]))
    dtypes = jax.tree.map(lambda s: s.dtype, jax.eval_shape(fn, keys[0]))
    return jax.tree.map(lambda s, dtype: (s / num).astype(dtype), sums, dtypes)


def _widen(x: jax.Array) -> jax.Array:
    """At least float32: a sum over many tasks loses too much in half precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
