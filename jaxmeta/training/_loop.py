"""The loop around any training: compiled chunks, validation, metrics, and checkpoints that survive a kill."""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmeta._checks import check_integer, check_positive
from jaxmeta._parallel import first_line, replicate
from jaxmeta._types import PyTree, Training
from jaxmeta.display import progress_bar, short_repr
from jaxmeta.training._callback import Callback, Callbacks
from jaxmeta.training._chunks import Chunks, Snapshot, copied, is_gone, is_large
from jaxmeta.training._course import Course, LoopSettings, Validate
from jaxmeta.training._log import Log
from jaxmeta.training._preemption import deferred_signals

INIT = 2**32 - 1  # folded into the key for `Training.init`; updates count from 0


class Trained(NamedTuple):
    """Result of `train`, `loop` and `pretrain`."""

    meta: Any
    """The meta-parameters with the best validation value, or the last ones without validation."""
    step: int
    """The update after which they were taken."""
    history: list[dict[str, float]]
    """Records, one per logged step.

    They hold `step`, `seconds` (of the training so far, validations included), `updates_per_second` (from `train`:
    `tasks_per_second`), and the values `train/...` and `validation/...`.
    """
    state: Any
    """The state after the last update."""

    __repr__ = short_repr


def loop(
    training: Training,
    meta: PyTree,
    key: jax.Array,
    *data: Any,
    iterations: int,
    minutes: float | None = None,
    validate: Validate | None = None,
    validate_every: int = 500,
    monitor: str | None = None,
    log_every: int = 50,
    skip_nonfinite: bool = False,
    mesh: Mesh | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
    callback: Callback | Sequence[Callback] = (),
) -> Trained:
    """Runs any `Training` in compiled chunks, with validation, metrics and checkpoints.

    A chunk takes about two seconds, or one update, so progress and signals do not wait for slow updates. Where a run
    is cut changes no number.

    `train` is this loop for a `MetaLearner`. Use `loop` for the trainings of `jaxmeta.rl` and `jaxmeta.estimators`, or
    for one of your own. See `train` for what a `folder` keeps and how a run resumes.

    A state of 64 MiB or more, such as one with the replay buffers of `pearl`, exists once: each chunk is donated the
    state of the one before. After an error a run with such a state resumes from its last checkpoint, not from its last
    chunk. Arrays that you pass in, or that `validate` gets, stay valid.

    Args:
        training: a pair `(init, step)`; its step is compiled.
        meta: what `training.init` starts from, such as initial parameters.
        key: root of all randomness. The key of update `i` is `fold_in(key, i)`.
        data: passed to every `training.step` after the key: samplers and data, which should not be closed over.
        iterations: number of updates. A finished run continues if you call it with more.
        minutes: end earlier, as if `iterations` were reached, after the chunk in which the training has taken so long:
            with all calls that this one resumes, compilation and validations. Schedules over `iterations` stay as they
            are. A run that has used its time up does no more updates, and continues if you give it more. `None` sets
            no limit.
        validate: `(meta) -> {name: value}`, called every `validate_every` updates and after the last one; `None` for
            no validation.
        validate_every: updates between validations, a multiple of `log_every`.
        monitor: the validation value that selects the best meta-parameters: `"loss"` is minimized, others maximized.
            `None` is the accuracy, or the loss where there is no accuracy.
        log_every: updates per record, over which metrics are averaged.
        skip_nonfinite: skip an update that gives a NaN or infinite metric or meta-parameter, instead of raising: the
            state stays as it was before. The record `train/skipped` counts them.
        mesh: the devices of a `training` that was built with this mesh. State, key and `data` are replicated on them,
            except what is sharded over several devices already.
        folder: where to keep metrics and checkpoints; `None` keeps nothing.
        progress: show a progress bar: in a log file, a line now and then.
        callback: `(record) -> None`, or several of them, called on the host with each record of the history as soon as
            it is logged, in the first of several processes. `True` as the answer ends the training after a validation,
            as if `iterations` were reached. An error of a callback ends it too, when the state is saved. See
            `csv_logger`, `tensorboard_logger` and `wandb_logger`.

    Returns:
        The best meta-parameters, the last state, and the history.

    Raises:
        TypeError: if `training` is not a `Training`, or `callback` is no function.
        ValueError: if a number is less than 1, if `minutes` is not positive, if `validate_every` is not a multiple of
            `log_every`, if `monitor` is not among the validation values or comes without `validate`, or if `folder`
            holds another run or a damaged checkpoint.
        BlockingIOError: if another process trains in `folder`.
        FloatingPointError: if a metric or a meta-parameter becomes NaN or infinite (with `skip_nonfinite`: in all
            updates of a record); with a `folder` the last finite state is saved first.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxmeta import Training, TrainingState
        >>> def init(meta, key):
        ...     return TrainingState(meta, (), jnp.int32(0))
        >>> def step(state, key):
        ...     loss, gradient = jax.value_and_grad(jnp.square)(state.meta)
        ...     return TrainingState(state.meta - 0.1 * gradient, (), state.update + 1), {"loss": loss}
        >>> done = loop(Training(init, step), jnp.array(1.0), jax.random.key(0), iterations=4, log_every=2,
        ...             progress=False)
        >>> [record["step"] for record in done.history], round(float(done.meta), 4)
        ([2, 4], 0.4096)
    """
    found = LoopSettings(iterations, validate_every, log_every, monitor, skip_nonfinite, minutes=minutes)
    key, data = replicate((key, data), mesh)
    place = partial(replicate, mesh=mesh)
    return run_loop(training, meta, key, data, found, validate, folder, progress, callback, place)


def run_loop(
    training: Training,
    meta: PyTree,
    key: jax.Array,
    data: tuple[Any, ...],
    options: LoopSettings,
    validate: Validate | None,
    folder: str | os.PathLike[str] | None,
    progress: bool,
    callback: Callback | Sequence[Callback] = (),
    place: Callable[[Any], Any] = lambda state: state,
) -> Trained:
    """See `loop`; `place` puts the state on its devices."""
    check_settings(training, options, validate=validate)
    callbacks = Callbacks(callback)
    start = training.init(meta, jax.random.fold_in(key, INIT))
    donate = is_large(start)
    chunks = Chunks(training, data, key, options.log_every, options.skip_nonfinite, donate)
    fresh = first_snapshot(start, chunks.no_metrics(start))
    with (
        deferred_signals() as asked,
        Log(folder, fresh, what_decides(training, key, options)) as log,
        training_bar(options.iterations, log.start, progress) as bar,
    ):
        own = copied if donate else lambda tree: tree  # nobody else's array is donated
        snapshot = log.snapshot._replace(state=own(place(log.snapshot.state)))
        course = Course(options, log, snapshot, own, validate, callbacks, bar, asked)
        try:
            if course.goes_on:
                course.snapshot = chunks.run(course.snapshot, course.step, 0)  # compiles
                course.begin()
            while course.goes_on:
                size, begin = course.size(), time.perf_counter()
                new = chunks.run(course.snapshot, course.step, size)
                course.take(new, size, time.perf_counter() - begin)
        except BaseException as error:
            save_after(error, course)
            raise
        return finished(course)


def first_snapshot(state: Any, metrics: dict[str, np.ndarray]) -> Snapshot:
    """Returns where a new training starts."""
    return Snapshot(state, state.meta, np.float32(-np.inf), np.int32(0), metrics)


def what_decides(training: Training, key: jax.Array, options: LoopSettings) -> dict[str, Any]:
    """Returns what decides the numbers of a training, to compare with those of a run in its folder."""
    chosen = {name: getattr(options, name) for name in ("validate_every", "log_every", "monitor")}
    return {"key": key, **options.numbers, **chosen, "training": training}


def finished(course: Course) -> Trained:
    """Saves the last state, and returns what a training gives."""
    course.log.save(course.step, course.snapshot)
    best = course.snapshot
    return Trained(best.best, int(best.best_step), course.log.history, best.state)


def save_after(error: BaseException, course: Course) -> None:
    """Saves the last complete numbers, whatever ended the loop, if all processes can; says so if one is lost."""
    if jax.process_count() == 1 or isinstance(error, FloatingPointError):
        if not is_gone(course.snapshot.state):
            course.log.save(course.step, course.snapshot)
    elif isinstance(error, jax.errors.JaxRuntimeError):
        raise ConnectionError(
            f"a process of this run has ended or failed ({first_line(error)}). Restart all processes to "
            "resume from the last checkpoint"
        ) from error


def check_settings(training: Training, options: LoopSettings, **validation: Any) -> None:
    """Raises a TypeError if `training` is something else, and a ValueError for a number or `monitor`.

    The last argument has the name under which the user knows the validation.
    """
    if not isinstance(training, Training):
        raise TypeError(f"training must be a jaxmeta.Training, a pair (init, step); got {training!r}")
    if options.minutes is not None:
        check_positive(minutes=options.minutes)
    if options.monitor is not None and (missing := [name for name, value in validation.items() if value is None]):
        raise ValueError(f"monitor applies with {missing[0]} only, got {options.monitor!r} without it")
    numbers = {"iterations": options.iterations, **options.numbers}
    check_integer(**numbers, validate_every=options.validate_every, log_every=options.log_every)
    if options.validate_every % options.log_every:
        raise ValueError(
            f"validate_every must be a multiple of log_every ({options.log_every}), got {options.validate_every}"
        )


def training_bar(total: int, initial: int, progress: bool) -> Any:
    """Returns the progress bar of a training."""
    shown = progress and initial < total and jax.process_index() == 0
    options = {"initial": initial, "delay": 0.0, "mininterval": 0.5, "miniters": 1}
    return progress_bar("Compiling", total, "update", shown=shown, **options)
