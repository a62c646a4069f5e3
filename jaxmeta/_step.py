"""The batch over tasks: one outer update, and evaluation, for any learner, sampler and optax optimizer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta._checks import (
    check_integer,
    check_learner,
    check_mesh,
    check_optional_integer,
    check_sampler,
    check_transformation,
    labels_of,
)
from jaxmeta._learned import update_with
from jaxmeta._parallel import constrain, divided, over_devices
from jaxmeta._types import (
    MetaLearner,
    MetaParams,
    Metrics,
    PyTree,
    Sampler,
    Task,
    Training,
    TrainingState,
    check_key,
    check_meta,
    check_state,
    check_task,
    definite,
    with_loss,
)
from jaxmeta._variables import change, changed
from jaxmeta.display import described

Reduce = Callable[[Metrics, MetaParams], MetaParams]
"""Reduction over the tasks: `(metrics [num_tasks], gradients [num_tasks, ...]) -> gradient`."""
Evaluate = Callable[[MetaParams, Sampler, jax.Array], Metrics]


@described
def meta_step(
    learner: MetaLearner | Callable[[jax.Array], MetaLearner],
    optimizer: optax.GradientTransformation,
    num_tasks: int,
    *,
    batch_size: int | None = None,
    reduce: Reduce | None = None,
    mesh: Mesh | None = None,
    divide_optimizer: bool = False,
) -> Training:
    """Builds the outer update: sample tasks, average their meta-gradients, update.

    The sampled tasks do not depend on `batch_size`. Neither does the result, up to the order of a sum.

    Args:
        learner: the meta-learner, or a function from the number of updates so far (a traced integer) to one, for
            learners that change during training, such as `maml_plus_plus`.
        optimizer: any optax optimizer of `MetaParams`, whose `state` it does not see. An optimizer that takes the value
            of the loss, its gradient or a function of it gets them: the mean over the tasks of this update.
        num_tasks: tasks per update.
        batch_size: number of tasks computed at once by `jax.vmap`. Batches follow each other in a `jax.lax.scan` that
            accumulates the gradients. `None` chooses by backend: 1 on a CPU, where one task at a time suits the caches
            and the matrix products, and all of them elsewhere.
        reduce: `(metrics, gradients) -> gradient`, of arrays `[num_tasks, ...]`, for weights of the tasks or another
            reduction than the mean. It needs memory for all gradients at once. `None` (default) is the mean. Metrics
            and the model's state are averaged.
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
    check_learner(learner, changes=True)
    check_transformation(optimizer=optimizer)
    check_integer(num_tasks=num_tasks)
    check_mesh(mesh)
    batch_size = batch_size_of(num_tasks, batch_size)
    if divide_optimizer and mesh is None:
        raise ValueError("divide_optimizer needs a mesh")

    def init(meta: MetaParams, key: jax.Array | None = None) -> TrainingState:
        del key
        check_meta(meta)
        trained = definite(_trained(meta))
        return TrainingState(trained._replace(state=meta.state), optimizer.init(trained), jnp.int32(0))

    def step(state: TrainingState, key: jax.Array, sampler: Sampler) -> tuple[TrainingState, Metrics]:
        check_state(state)
        at_update = _learner_at(learner, state.update)
        check_key(key)
        check_sampler(sampler=sampler)
        keys = jax.random.split(key, num_tasks)

        def draw(key: jax.Array) -> tuple[Task, jax.Array]:
            task_key, learner_key = jax.random.split(key)
            return check_task(sampler(task_key)), learner_key

        def task_grad(meta: MetaParams, drawn: tuple[Task, jax.Array]) -> tuple[Metrics, MetaParams]:
            with labels_of(drawn[0], sampler):
                metrics, gradient = at_update.grad(meta, *drawn)
            return metrics, gradient._replace(state=change(gradient.state, meta.state))

        def value_fn(trained: MetaParams) -> jax.Array:
            meta = trained._replace(state=state.meta.state)
            return _mean(lambda *args: task_grad(*args)[0]["loss"], draw, meta, keys, batch_size, mesh)

        if reduce is None:
            metrics, gradient = _mean(task_grad, draw, state.meta, keys, batch_size, mesh)
        else:
            every, gradients = _each(task_grad, draw, state.meta, keys, batch_size, mesh)
            carried, metrics = jax.tree.map(lambda x: jnp.mean(_widen(x), 0), (gradients.state, every))
            gradient = reduce(every, _trained(gradients))._replace(state=carried)
        before, grads, value = _trained(state.meta), _trained(gradient), metrics["loss"]
        meta, opt_state = update_with(optimizer, grads, state.opt_state, before, value=value, value_fn=value_fn)
        meta = meta._replace(state=changed(gradient.state, state.meta.state))
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
    check_learner(learner)
    check_integer(num_tasks=num_tasks)
    check_mesh(mesh)
    batch_size = batch_size_of(num_tasks, batch_size)

    def run(meta: MetaParams, sampler: Sampler, key: jax.Array) -> Metrics:
        check_sampler(sampler=sampler)
        check_key(key)

        def draw(key: jax.Array) -> tuple[Task, jax.Array, jax.Array]:
            task_key, adapt_key, loss_key = jax.random.split(key, 3)
            return check_task(sampler(task_key)), adapt_key, loss_key

        def task_metrics(meta: MetaParams, drawn: tuple[Task, jax.Array, jax.Array]) -> Metrics:
            task, adapt_key, loss_key = drawn
            with labels_of(task, sampler):
                loss, metrics = learner.loss(learner.adapt(meta, task.support, adapt_key), task.query, loss_key)
            return with_loss(loss, metrics)

        return _each(task_metrics, draw, meta, jax.random.split(key, num_tasks), batch_size, mesh)

    return run


def batch_size_of(number: int, batch_size: int | None) -> int:
    """The batch size to use for so many tasks or runs; `None` chooses by backend."""
    check_optional_integer(batch_size=batch_size)
    if batch_size is None:
        return 1 if jax.default_backend() == "cpu" else number
    return min(batch_size, number)


def _learner_at(learner: MetaLearner | Callable[[jax.Array], MetaLearner], update: jax.Array) -> MetaLearner:
    found = learner if isinstance(learner, MetaLearner) else learner(update)
    check_learner(found)
    return found


def _trained(meta: MetaParams) -> MetaParams:
    """Returns meta-parameters without the model's state."""
    return meta._replace(state=())


def _each(
    fn: Callable[[PyTree, Any], Any],
    draw: Callable[[jax.Array], Any],
    meta: PyTree,
    keys: jax.Array,
    batch_size: int,
    mesh: Mesh | None,
) -> Any:
    """Results `[n, ...]` of `fn(meta, draw(key))` for each of the keys."""

    def each(fn: Callable[[Any], Any], xs: Any) -> Any:
        return jax.lax.map(fn, xs, batch_size=None if batch_size == 1 else batch_size)

    if mesh is None:
        return each(lambda key: fn(meta, draw(key)), keys)

    def local(meta: PyTree, drawn: Any, _: jax.Array) -> Any:
        return each(lambda drawn: fn(meta, drawn), drawn)

    return over_devices(local, draw, meta, keys, mesh, summed=False)


def _mean(
    fn: Callable[[PyTree, Any], Any],
    draw: Callable[[jax.Array], Any],
    meta: PyTree,
    keys: jax.Array,
    batch_size: int,
    mesh: Mesh | None,
) -> Any:
    """Mean of `fn(meta, draw(key))` over the keys, in float32 for integers and booleans."""
    fn = jax.jit(fn, inline=True)  # traced once for the shapes, the types and each place where it is used
    if mesh is None:
        sums = _sum(lambda key: fn(meta, draw(key)), keys, batch_size)
    else:

        def local(meta: PyTree, drawn: Any, counts: jax.Array) -> Any:
            def counted(x: tuple[Any, jax.Array]) -> Any:
                return jax.tree.map(lambda value: jnp.where(x[1], value, jnp.zeros_like(value)), fn(meta, x[0]))

            return _sum(counted, (drawn, counts), batch_size)

        sums = over_devices(local, draw, meta, keys, mesh, summed=True)
    shapes = jax.eval_shape(lambda: fn(meta, draw(keys[0])))

    def mean(total: jax.Array, one: jax.ShapeDtypeStruct) -> jax.Array:
        return (total / len(keys)).astype(one.dtype if jnp.issubdtype(one.dtype, jnp.inexact) else total.dtype)

    return jax.tree.map(mean, sums, shapes)


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
