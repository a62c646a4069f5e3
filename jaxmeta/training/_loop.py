"""The loop around any training: compiled chunks, validation, metrics, and checkpoints that survive a kill."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from jaxmeta._checks import check_integer, check_positive
from jaxmeta._parallel import replicate
from jaxmeta._types import PyTree, Training
from jaxmeta.display import short_repr
from jaxmeta.training._chunks import chunk_runner, copied, is_gone, is_large
from jaxmeta.training._log import Log, Snapshot
from jaxmeta.training._preemption import anywhere, deferred_sigterm

_SAVE_SECONDS = 60.0  # what a kill can cost at most, however far apart validations are
_INIT = 2**32 - 1  # folded into the key for `Training.init`; updates count from 0

Validate = Callable[[PyTree], Mapping[str, float]]
"""`(meta) -> values`, on the host."""


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


class LoopSettings(NamedTuple):
    """Settings of a loop that decide its numbers, and its end."""

    iterations: int
    validate_every: int
    log_every: int
    monitor: str
    skip_nonfinite: bool
    work: tuple[str, int] = ("updates", 1)
    """The unit of the reported speed, and the number of units per update."""
    numbers: Mapping[str, int] = {}
    """Other numbers that decide the result. A run resumes only with the same ones."""
    minutes: float | None = None
    """The time that the training may take, over all calls."""


def loop(
    training: Training,
    meta: PyTree,
    key: jax.Array,
    *data: Any,
    iterations: int,
    minutes: float | None = None,
    validate: Validate | None = None,
    validate_every: int = 500,
    monitor: str = "loss",
    log_every: int = 50,
    skip_nonfinite: bool = False,
    mesh: Mesh | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Trained:
    """Runs any `Training` in compiled chunks, with validation, metrics and checkpoints.

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
        log_every: updates per compiled chunk; metrics are averaged over it.
        skip_nonfinite: skip an update that gives a NaN or infinite metric or meta-parameter, instead of raising: the
            state stays as it was before. The record `train/skipped` counts them.
        mesh: the devices of a `training` that was built with this mesh. State, key and `data` are replicated on them,
            except what is sharded over several devices already.
        folder: where to keep metrics and checkpoints; `None` keeps nothing.
        progress: show a progress bar.

    Returns:
        The best meta-parameters, the last state, and the history.

    Raises:
        TypeError: if `training` is not a `Training`.
        ValueError: if a number is less than 1, if `minutes` is not positive, if `validate_every` is not a multiple of
            `log_every`, if `monitor` is not among the validation values, or if `folder` holds another run or a damaged
            checkpoint.
        FloatingPointError: if a metric or a meta-parameter becomes NaN or infinite (with `skip_nonfinite`: in all
            updates of a chunk); with a `folder` the last finite state is saved first.

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
    return run_loop(training, meta, key, data, found, validate, folder, progress, partial(replicate, mesh=mesh))


def run_loop(
    training: Training,
    meta: PyTree,
    key: jax.Array,
    data: tuple[Any, ...],
    options: LoopSettings,
    validate: Validate | None,
    folder: str | os.PathLike[str] | None,
    progress: bool,
    place: Callable[[Any], Any] = lambda state: state,
) -> Trained:
    """See `loop`; `place` puts the state on its devices."""
    check_settings(training, options)
    start = training.init(meta, jax.random.fold_in(key, _INIT))
    donate = is_large(start)
    run_chunk = chunk_runner(training, data, key, options.skip_nonfinite, donate)
    sizes = {**options.numbers, "validate_every": options.validate_every, "log_every": options.log_every}
    run = {"key": key, **sizes, "training": training}
    log = Log(folder, Snapshot(start, start.meta, np.float32(-np.inf), np.int32(0)), run)
    with deferred_sigterm() as asked, log, _bar(options.iterations, log.start, progress) as bar:
        step, own = log.start, copied if donate else lambda tree: tree  # nobody else's array is donated
        snapshot = log.snapshot._replace(state=own(place(log.snapshot.state)))
        started = time.perf_counter() - (log.history[-1]["seconds"] if log.history else 0.0)
        newest: dict[str, float] = {}
        stop, over = False, _is_over_before(options, log)  # what all processes agree on, unlike `asked`
        try:
            while not over and not stop:
                begin = time.perf_counter()
                size = min(options.log_every - step % options.log_every, options.iterations - step)
                new, averages = run_chunk(snapshot, step, size)
                end = time.perf_counter()
                unit, work = options.work
                record = {"step": step + size, f"{unit}_per_second": size * work / (end - begin), **averages}
                over = _is_over(options, record["step"], end - started)
                if boundary := over or record["step"] % options.validate_every == 0:
                    new, values = _validated(new, own(new.state.meta), record["step"], options, validate)
                    record |= values
                record["seconds"] = time.perf_counter() - started
                log.write(record)
                snapshot, step = new, record["step"]
                stop, due = anywhere(asked.is_set(), log.age > _SAVE_SECONDS)
                if boundary or due:
                    log.save(step, snapshot)
                if stop:
                    asked.set()
                newest |= record
                bar.set_postfix_str(_describe(newest, unit), refresh=False)
                bar.update(size)
        except BaseException as error:
            _save_after(error, log, step, snapshot)
            raise
        log.save(step, snapshot)
        return Trained(snapshot.best, int(snapshot.best_step), log.history, snapshot.state)


def _is_over(options: LoopSettings, step: int, seconds: float) -> bool:
    """Tells whether all updates are done, or whether the time is over in any process."""
    if options.minutes is None:
        return step >= options.iterations
    return anywhere(step >= options.iterations, seconds >= 60 * options.minutes) != (False, False)


def _is_over_before(options: LoopSettings, log: Log) -> bool:
    """Tells whether earlier calls have done all; one that was cut between validations goes on to the next."""
    if log.start >= options.iterations or options.minutes is None or not log.history:
        return log.start >= options.iterations
    last = log.history[-1]
    validated = int(log.snapshot.best_step) == last["step"] or any(name.startswith("validation/") for name in last)
    return validated and _is_over(options, log.start, last["seconds"])


def _save_after(error: BaseException, log: Log, step: int, snapshot: Snapshot) -> None:
    """Saves the last complete numbers, whatever ended the loop, if all processes can; says so if one is lost."""
    if jax.process_count() == 1 or isinstance(error, FloatingPointError):
        if not is_gone(snapshot.state):
            log.save(step, snapshot)
    elif isinstance(error, jax.errors.JaxRuntimeError):
        raise ConnectionError(
            f"a process of this run has ended or failed ({str(error).splitlines()[0][:200]}). Restart all processes to "
            "resume from the last checkpoint"
        ) from error


def check_settings(training: Training, options: LoopSettings) -> None:
    """Raises a TypeError if `training` is something else, and a ValueError if a number is out of range."""
    if not isinstance(training, Training):
        raise TypeError(f"training must be a jaxmeta.Training, a pair (init, step); got {training!r}")
    if options.minutes is not None:
        check_positive(minutes=options.minutes)
    numbers = {"iterations": options.iterations, **options.numbers}
    check_integer(**numbers, validate_every=options.validate_every, log_every=options.log_every)
    if options.validate_every % options.log_every:
        raise ValueError(
            f"validate_every must be a multiple of log_every ({options.log_every}), got {options.validate_every}"
        )


def _validated(
    snapshot: Snapshot, meta: PyTree, step: int, options: LoopSettings, validate: Validate | None
) -> tuple[Snapshot, dict[str, float]]:
    """Measures the state, and keeps it if it is the best so far; without validation the last is the best."""
    if validate is None:
        return snapshot._replace(best=meta, best_step=np.int32(step)), {}
    values = validate(meta)
    if options.monitor not in values:
        raise ValueError(f"monitor must be one of {sorted(values)}, got {options.monitor!r}")
    score = np.float32(-values[options.monitor] if options.monitor == "loss" else values[options.monitor])
    if score > snapshot.best_score:
        snapshot = snapshot._replace(best=meta, best_score=score, best_step=np.int32(step))
    return snapshot, {f"validation/{name}": float(value) for name, value in values.items()}


def _bar(total: int, initial: int, progress: bool) -> Any:
    """A progress bar; a log file gets a line twice a minute instead."""
    hidden = not progress or initial >= total or jax.process_index() > 0
    if sys.stderr.isatty():
        return tqdm(total=total, initial=initial, disable=hidden, unit="update", mininterval=0.5, miniters=1)
    line = "update {n_fmt} of {total_fmt} [{elapsed}<{remaining}{postfix}]\n"
    return tqdm(total=total, initial=initial, disable=hidden, bar_format=line, mininterval=30, miniters=1)


def _describe(record: Mapping[str, float], unit: str) -> str:
    """The progress bar's numbers."""
    shown = {f"train/{metric}": metric for metric in ("loss", "accuracy", "return")}
    metric = next((metric for metric in ("accuracy", "return") if f"validation/{metric}" in record), "loss")
    shown[f"validation/{metric}"] = f"validation {metric}"
    numbers = [f"{short} {record[name]:.3f}" for name, short in shown.items() if name in record]
    return ", ".join([f"{record[f'{unit}_per_second']:.0f} {unit}/s", *numbers])
