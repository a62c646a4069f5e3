"""The batch over tasks: one outer update, and evaluation, for any learner, sampler and optax optimizer."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxmeta._checks import check_integer, check_optional_integer, check_transformation
from jaxmeta._parallel import constrain, divided, over_devices
from jaxmeta._types import MetaLearner, MetaParams, Metrics, PyTree, Sampler, Task, Training, TrainingState

Evaluate = Callable[[MetaParams, Sampler, jax.Array], Metrics]


def meta_step(
    learner: MetaLearner | Callable[[jax.Array], MetaLearner],
    optimizer: optax.GradientTransformation,
    num_tasks: int,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    divide_optimizer: bool = False,
) -> Training:
    """Builds the outer update: sample tasks, average their meta-gradients, update.

    The sampled tasks do not depend on `batch_size`. Neither does the result, up to the order of a sum.

    Args:
        learner: the meta-learner, or a function from the number of updates so far (a traced integer) to one, for
            learners that change during training, such as `maml_plus_plus`.
        optimizer: any optax optimizer of `MetaParams`.
        num_tasks: tasks per update.
        batch_size: number of tasks computed at once by `jax.vmap`. Batches follow each other in a `jax.lax.scan` that
            accumulates the gradients. `None` chooses by backend: 1 on a CPU, where one task at a time suits the caches
            and the matrix products, and all of them elsewhere.
        mesh: devices that share the tasks, such as `task_mesh()`. A collective averages their meta-gradients, and
            `batch_size` is that of one device. The tasks do not depend on the mesh, so neither does the result, up to
            the order of a sum. All other values are replicated, except a sampler's data set that is sharded over the
            mesh (`FewShot.from_classes(..., device=)`). All tasks of an update are drawn at once.
        divide_optimizer: whether to shard the optimizer state over the mesh as well, where shapes allow it.

    Returns:
        A `Training`. Its `init(meta)` returns a `TrainingState`. Its `step(state, key, sampler)` is a pure function to
        jit or scan, whose metrics are averaged over the tasks.

    Raises:
        TypeError: if `optimizer` is not an optax transformation.
        ValueError: if `num_tasks` or `batch_size` is less than 1, or if `divide_optimizer` comes without a mesh.

    Example:
        >>> import jaxmeta
        >>> from jaxmeta import data
        >>> learner = jaxmeta.maml(jaxmeta.regression(lambda w, x: x * w), optax.sgd(0.01))
        >>> training = meta_step(learner, optax.adam(1e-3), num_tasks=4)
        >>> state = training.init(learner.init(jnp.array([1.0])))
        >>> state, metrics = jax.jit(training.step)(state, jax.random.key(0), data.Sinusoid())
        >>> sorted(metrics)
        ['loss']
    """
    check_transformation(optimizer=optimizer)
    check_integer(num_tasks=num_tasks)
    size = batch_size_of(num_tasks, batch_size)
    if divide_optimizer and mesh is None:
        raise ValueError("divide_optimizer needs a mesh")

    def init(meta: MetaParams, key: jax.Array | None = None) -> TrainingState:
        del key
        return TrainingState(meta, optimizer.init(meta), jnp.int32(0))

    def step(state: TrainingState, key: jax.Array, sampler: Sampler) -> tuple[TrainingState, Metrics]:
        at_update = learner if isinstance(learner, MetaLearner) else learner(state.update)

        def draw(key: jax.Array) -> tuple[Task, jax.Array]:
            task_key, learner_key = jax.random.split(key)
            return sampler(task_key), learner_key

        def task_grad(meta: MetaParams, drawn: tuple[Task, jax.Array]) -> tuple[Metrics, MetaParams]:
            return at_update.grad(meta, *drawn)

        metrics, grads = _mean(task_grad, draw, state.meta, jax.random.split(key, num_tasks), size, mesh)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.meta)
        meta: Any = optax.apply_updates(state.meta, updates)
        if mesh is not None and divide_optimizer:
            meta, opt_state = constrain(meta, mesh), divided(opt_state, mesh)
        return TrainingState(meta, opt_state, state.update + 1), metrics

    return Training(init, step)


def evaluate(
    learner: MetaLearner, num_tasks: int = 600, *, batch_size: int | None = None, mesh: Mesh | None = None
) -> Evaluate:
    """Builds an evaluation: adapt on each task's support set, measure on its query set.

    Args:
        learner: the meta-learner.
        num_tasks: number of tasks.
        batch_size: see `meta_step`.
        mesh: see `meta_step`.

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
    check_integer(num_tasks=num_tasks)
    size = batch_size_of(num_tasks, batch_size)

    def run(meta: MetaParams, sampler: Sampler, key: jax.Array) -> Metrics:
        def draw(key: jax.Array) -> tuple[Task, jax.Array, jax.Array]:
            task_key, adapt_key, loss_key = jax.random.split(key, 3)
            return sampler(task_key), adapt_key, loss_key

        def task_metrics(meta: MetaParams, drawn: tuple[Task, jax.Array, jax.Array]) -> Metrics:
            task, adapt_key, loss_key = drawn
            loss, metrics = learner.loss(learner.adapt(meta, task.support, adapt_key), task.query, loss_key)
            return {"loss": loss, **metrics}

        def each(fn: Callable[[Any], Metrics], xs: Any) -> Metrics:
            return jax.lax.map(fn, xs, batch_size=None if size == 1 else size)

        keys = jax.random.split(key, num_tasks)
        if mesh is None:
            return each(lambda key: task_metrics(meta, draw(key)), keys)

        def local(meta: MetaParams, drawn: Any, _: jax.Array) -> Metrics:
            return each(lambda drawn: task_metrics(meta, drawn), drawn)

        return over_devices(local, draw, meta, keys, mesh, summed=False)

    return run


class Summary(NamedTuple):
    """Statistics of one metric over many tasks."""

    mean: float
    """Mean over the tasks. Infinite or NaN if the value of some task is."""
    interval: float
    """Half the width of the 95 % confidence interval of the mean: 1.96 standard errors."""
    median: float
    """Median over the tasks, with NaN counted as infinite. It is meaningful while most tasks converge."""
    finite: float
    """Share of the tasks whose value is finite, in [0, 1]."""
    num_tasks: int
    """Number of tasks."""

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.interval:.4f}"


def summarize(metrics: Mapping[str, jax.typing.ArrayLike]) -> dict[str, Summary]:
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


def batch_size_of(number: int, batch_size: int | None) -> int:
    """The batch size to use for so many tasks or runs; `None` chooses by backend."""
    check_optional_integer(batch_size=batch_size)
    if batch_size is None:
        return 1 if jax.default_backend() == "cpu" else number
    return min(batch_size, number)


def _mean(
    fn: Callable[[PyTree, Any], Any],
    draw: Callable[[jax.Array], Any],
    meta: PyTree,
    keys: jax.Array,
    batch_size: int,
    mesh: Mesh | None,
) -> Any:
    """Mean of `fn(meta, draw(key))` over the keys."""
    fn = jax.jit(fn, inline=True)  # traced once for the shapes, the types and each place where it is used
    if mesh is None:
        sums = _sum(lambda key: fn(meta, draw(key)), keys, batch_size)
    else:

        def local(meta: PyTree, drawn: Any, counts: jax.Array) -> Any:
            def counted(x: tuple[Any, jax.Array]) -> Any:
                return jax.tree.map(lambda value: jnp.where(x[1], value, jnp.zeros_like(value)), fn(meta, x[0]))

            return _sum(counted, (drawn, counts), batch_size)

        sums = over_devices(local, draw, meta, keys, mesh, summed=True)
    dtypes = jax.tree.map(lambda s: s.dtype, jax.eval_shape(lambda: fn(meta, draw(keys[0]))))
    return jax.tree.map(lambda s, dtype: (s / len(keys)).astype(dtype), sums, dtypes)


def _sum(fn: Callable[[Any], Any], xs: Any, batch_size: int) -> Any:
    """Sum of `fn(x)` over the first axis, in batches of at most `batch_size`, without holding all results at once."""
    number = jax.tree.leaves(xs)[0].shape[0]
    batches, rest = divmod(number, min(batch_size, number))

    def total(xs: Any) -> Any:
        if jax.tree.leaves(xs)[0].shape[0] == 1:
            return jax.tree.map(_widen, fn(jax.tree.map(lambda x: x[0], xs)))
        return jax.tree.map(lambda x: jnp.sum(_widen(x), axis=0), jax.vmap(fn)(xs))

    def part(start: int, end: int) -> Any:
        return jax.tree.map(lambda x: x[start:end], xs)

    if batches == 1:
        sums = total(part(0, number - rest))
    else:
        shapes = jax.eval_shape(total, part(0, batch_size))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        groups = jax.tree.map(lambda x: x.reshape(batches, batch_size, *x.shape[1:]), part(0, number - rest))
        sums, _ = jax.lax.scan(lambda acc, group: (jax.tree.map(jnp.add, acc, total(group)), None), zeros, groups)
    if rest:
        sums = jax.tree.map(jnp.add, sums, total(part(number - rest, number)))
    return sums


def _widen(x: jax.Array) -> jax.Array:
    """At least float32: a sum over many tasks loses too much in half precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
