"""Meta-training: the loop of updates for any learner, sampler and optax optimizer."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.tree_util import Partial

from jaxmeta._checks import check_sampler
from jaxmeta._parallel import divided, replicate
from jaxmeta._step import evaluate, meta_step
from jaxmeta._summary import summarize
from jaxmeta._types import MetaLearner, MetaParams, Metrics, Sampler, TrainingState, check_key, check_meta
from jaxmeta.training._callback import Callback
from jaxmeta.training._course import LoopSettings, chosen_monitor
from jaxmeta.training._loop import Trained, check_settings, run_loop


def train(
    learner: MetaLearner | Callable[[jax.Array], MetaLearner],
    optimizer: optax.GradientTransformation,
    meta: MetaParams,
    tasks: Sampler,
    key: jax.Array,
    *,
    iterations: int,
    minutes: float | None = None,
    num_tasks: int,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    divide_optimizer: bool = False,
    validation: Sampler | None = None,
    validation_tasks: int = 200,
    validate_every: int = 500,
    monitor: str | None = None,
    log_every: int = 50,
    skip_nonfinite: bool = False,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
    callback: Callback | Sequence[Callback] = (),
) -> Trained:
    """Meta-trains: `iterations` outer updates in compiled chunks.

    With a `folder`, metrics go to `metrics.jsonl` there, and a checkpoint is saved at every validation, about once a
    minute, and when training ends for whatever reason. Called again with the same arguments, `train` goes on from the
    last checkpoint to the numbers of an undisturbed run, even if the first call was killed. The key of update `i` is
    `fold_in(key, i)`, so nothing depends on where a run was cut.

    Args:
        learner: the meta-learner, or a function from the number of the update (traced, from 0) to one, for what changes
            in training (see `maml_plus_plus`). Validation and what is measured afterwards use the learner of update 0.
        optimizer: any optax optimizer of `MetaParams`.
        meta: initial meta-parameters, from `learner.init`.
        tasks: sampler of training tasks, a pytree as those of `jaxmeta.data`, or a function of a key.
        key: root of all randomness.
        iterations: number of outer updates; a finished run goes on if it is called with more.
        minutes: the time after which training ends before `iterations` are reached, see `loop`; `None` for no limit.
        num_tasks: tasks per update.
        batch_size: see `meta_step`.
        mesh: devices to divide the tasks over, see `meta_step`; everything is put there, but for a data set that is
            divided over them already. A run goes on with any other number of devices, to the same numbers up to the
            order of a sum.
        divide_optimizer: see `meta_step`.
        validation: sampler of validation tasks; `None` for no validation. The start is validated too, and is the best
            if no update improves it.
        validation_tasks: tasks per validation, the same ones every time.
        validate_every: updates between validations, a multiple of `log_every`; there is one after the last update too.
        monitor: the validation metric that selects the best meta-parameters: `"loss"` is minimized, others maximized.
            `None` is the accuracy, or the loss where no accuracy is measured.
        log_every: updates per record, over which metrics are averaged.
        skip_nonfinite: leave out an update that is not finite, see `loop`.
        folder: where to keep metrics and checkpoints; `None` keeps nothing.
        progress: show a progress bar.
        callback: `(record) -> None`, or several of them, called with each record, see `loop`.

    Returns:
        The best meta-parameters and the history.

    Raises:
        ValueError: if a number is out of range, if `validate_every` is not a multiple of `log_every`, if `monitor` is
            no metric or comes without `validation`, or if `folder` holds a run of another configuration or a damaged
            checkpoint; nothing is changed.
        BlockingIOError: if another process trains in `folder`.
        FloatingPointError: if a training metric or a meta-parameter becomes NaN or infinite; with a `folder` the last
            finite state is saved first.

    Example:
        >>> import jaxmeta
        >>> from jaxmeta import data
        >>> learner = jaxmeta.maml(jaxmeta.regression(lambda w, x: x * w), optax.sgd(0.01))
        >>> trained = train(learner, optax.adam(1e-3), learner.init(jnp.array([1.0])), data.Sinusoid(),
        ...                 jax.random.key(0), iterations=4, num_tasks=2, log_every=2, progress=False)
        >>> [record["step"] for record in trained.history]
        [2, 4]
    """
    chosen = (iterations, validate_every, log_every, monitor, skip_nonfinite)
    found = task_settings(*chosen, minutes=minutes, num_tasks=num_tasks, validation_tasks=validation_tasks)
    check_meta(meta)
    check_sampler(tasks=tasks, **({} if validation is None else {"validation": validation}))
    check_key(key)
    options: dict[str, Any] = {"batch_size": batch_size, "mesh": mesh}
    training = meta_step(learner, optimizer, num_tasks, divide_optimizer=divide_optimizer, **options)
    check_settings(training, found, validation=validation)
    train_key, validation_key = jax.random.split(key)
    tasks, validation = as_tree(tasks), as_tree(validation)
    tasks, validation, train_key, validation_key = replicate((tasks, validation, train_key, validation_key), mesh)
    validate = None
    if validation is not None:
        run = jax.jit(evaluate(at_first(learner), validation_tasks, **options))
        names = run.eval_shape(meta, validation, validation_key)
        found = found._replace(monitor=chosen_monitor(monitor, names))  # a wrong name is refused at once
        validate = partial(_means, run, validation, validation_key)
    place = partial(_place, mesh=mesh, divide_optimizer=divide_optimizer)
    return run_loop(training, meta, train_key, (tasks,), found, validate, folder, progress, callback, place)


def task_settings(*chosen: Any, minutes: float | None, num_tasks: int, validation_tasks: int) -> LoopSettings:
    """Returns the settings of a loop whose work is tasks."""
    numbers = {"num_tasks": num_tasks, "validation_tasks": validation_tasks}
    return LoopSettings(*chosen, work=("tasks", num_tasks), numbers=numbers, minutes=minutes)


def at_first(learner: MetaLearner | Callable[[jax.Array], MetaLearner]) -> MetaLearner:
    """Returns the learner of the first update, which is the one that is measured."""
    return learner if isinstance(learner, MetaLearner) else learner(jnp.int32(0))


def means(metrics: Metrics) -> dict[str, float]:
    """Returns the mean of each metric over the tasks."""
    return {name: summary.mean for name, summary in summarize(metrics).items()}


def as_tree(tasks: Any) -> Any:
    """Returns a sampler that is a function as a pytree, which a jitted function takes."""
    return Partial(tasks) if callable(tasks) and jax.tree.leaves(tasks) == [tasks] else tasks


def _place(state: TrainingState, mesh: Mesh | None, divide_optimizer: bool) -> TrainingState:
    state = replicate(state, mesh)
    if mesh is None or not divide_optimizer:
        return state
    return state._replace(opt_state=divided(state.opt_state, mesh))


def _means(run: Any, tasks: Sampler, key: jax.Array, meta: MetaParams) -> dict[str, float]:
    return means(run(meta, tasks, key))
