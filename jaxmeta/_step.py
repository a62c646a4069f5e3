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
from jaxmeta._parallel import constrain, divided, each_of, mean_of, widen
from jaxmeta._types import (
    Details,
    MetaLearner,
    MetaParams,
    Metrics,
    Sampler,
    Task,
    Training,
    TrainingState,
    check_key,
    check_meta,
    check_state,
    check_task,
    class_ids_of,
    definite,
    predictions_of,
    with_loss,
)
from jaxmeta._variables import change, changed
from jaxmeta.display import described

Reduce = Callable[[Metrics, MetaParams], MetaParams]
"""Reduction over the tasks: `(metrics [num_tasks], gradients [num_tasks, ...]) -> gradient`."""
Evaluate = Callable[[MetaParams, Sampler, jax.Array], Any]


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
            return mean_of(lambda *args: task_grad(*args)[0]["loss"], draw, meta, keys, batch_size, mesh)

        if reduce is None:
            metrics, gradient = mean_of(task_grad, draw, state.meta, keys, batch_size, mesh)
        else:
            every, gradients = each_of(task_grad, draw, state.meta, keys, batch_size, mesh)
            carried, metrics = jax.tree.map(lambda x: jnp.mean(widen(x), 0), (gradients.state, every))
            gradient = reduce(every, _trained(gradients))._replace(state=carried)
        before, grads, value = _trained(state.meta), _trained(gradient), metrics["loss"]
        meta, opt_state = update_with(optimizer, grads, state.opt_state, before, value=value, value_fn=value_fn)
        meta = meta._replace(state=changed(gradient.state, state.meta.state))
        if mesh is not None and divide_optimizer:
            meta, opt_state = constrain(meta, mesh), divided(opt_state, mesh)
        return TrainingState(meta, opt_state, state.update + 1), metrics

    return Training(init, step)


def evaluate(
    learner: MetaLearner,
    num_tasks: int = 600,
    *,
    details: bool = False,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Evaluate:
    """Builds an evaluation: adapt on each task's support set, measure on its query set.

    Args:
        learner: the meta-learner.
        num_tasks: number of tasks.
        details: whether to return the predictions, the classes of the tasks, and the metrics after each inner step too.
        batch_size: see `meta_step`.
        mesh: see `meta_step`.

    Returns:
        `(meta, sampler, key) -> metrics`, a pure function to jit; each metric is an array `[num_tasks]`, one value per
        task. `summarize` turns it into means and intervals. With `details` it is
        `(meta, sampler, key) -> (metrics, Details)`.

    Raises:
        ValueError: if `num_tasks` or `batch_size` is less than 1.

    Example:
        >>> import jaxmeta
        >>> from jaxmeta import data
        >>> learner = jaxmeta.maml(jaxmeta.regression(lambda w, x: x * w), optax.sgd(0.01))
        >>> meta, sampler, key = learner.init(jnp.array([1.0])), data.Sinusoid(), jax.random.key(0)
        >>> jax.jit(evaluate(learner, num_tasks=8))(meta, sampler, key)["loss"].shape
        (8,)
        >>> metrics, details = jax.jit(evaluate(learner, num_tasks=8, details=True))(meta, sampler, key)
        >>> details.outputs.shape, details.steps["loss"].shape
        ((8, 10, 1), (8, 2))
    """
    check_learner(learner)
    check_integer(num_tasks=num_tasks)
    check_mesh(mesh)
    batch_size = batch_size_of(num_tasks, batch_size)

    def run(meta: MetaParams, sampler: Sampler, key: jax.Array) -> Any:
        check_sampler(sampler=sampler)
        check_key(key)

        def draw(key: jax.Array) -> tuple[Task, jax.Array | None, jax.Array, jax.Array]:
            task_key, adapt_key, loss_key = jax.random.split(key, 3)
            class_ids = class_ids_of(sampler, task_key) if details else None
            return check_task(sampler(task_key)), class_ids, adapt_key, loss_key

        def task_metrics(meta: MetaParams, drawn: tuple[Task, jax.Array | None, jax.Array, jax.Array]) -> Any:
            task, class_ids, adapt_key, loss_key = drawn
            with labels_of(task, sampler):
                if not details or learner.follow is None:
                    adapted, steps = learner.adapt(meta, task.support, adapt_key), None
                    metrics = with_loss(*learner.loss(adapted, task.query, loss_key))
                else:
                    adapted, steps = learner.follow(meta, task, adapt_key, loss_key)
                    metrics = {name: values[-1] for name, values in steps.items()}
            if not details:
                return metrics
            y, weight = (getattr(task.query, name, None) for name in ("y", "weight"))
            return metrics, Details(predictions_of(learner, adapted, task.query), y, weight, class_ids, steps)

        return each_of(task_metrics, draw, meta, jax.random.split(key, num_tasks), batch_size, mesh)

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
