"""The training loop: compiled chunks of outer updates, validation, metrics, and checkpoints that survive a kill."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from jaxmeta._log import Log, State, settings
from jaxmeta._step import evaluate, meta_step, summarize
from jaxmeta._types import MetaLearner, MetaParams, PyTree, Sampler


class Trained(NamedTuple):
    """What `train` returns."""

    meta: MetaParams
    """The meta-parameters with the best validation value, or the last ones without validation."""
    step: int
    """The update after which they were taken."""
    history: list[dict[str, float]]
    """One record per logged step: `step`, `seconds`, `tasks_per_second`, `train/...` and `validation/...` metrics."""


def train(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    meta: MetaParams,
    tasks: Sampler,
    key: jax.Array,
    *,
    iterations: int,
    num_tasks: int,
    batch_size: int | None = None,
    validation: Sampler | None = None,
    validation_tasks: int = 200,
    validate_every: int = 500,
    monitor: str = "accuracy",
    log_every: int = 50,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Trained:
    """Meta-trains: `iterations` outer updates in compiled chunks of `log_every`.

    With a `folder`, metrics go to `metrics.jsonl` there, and a checkpoint is saved at every validation, about once a
    minute, and when training ends for whatever reason. Called again with the same arguments, `train` goes on from the
    last checkpoint to the numbers of an undisturbed run, even if the first call was killed. The key of update `i` is
    `fold_in(key, i)`, so nothing depends on where a run was cut.

    Args:
        learner: the meta-learner.
        optimizer: any optax optimizer of `MetaParams`.
        meta: initial meta-parameters, from `learner.init`.
        tasks: sampler of training tasks.
        key: root of all randomness.
        iterations: number of outer updates; a finished run goes on if it is called with more.
        num_tasks: tasks per update.
        batch_size: see `meta_step`.
        validation: sampler of validation tasks; `None` for no validation.
        validation_tasks: tasks per validation, the same ones every time.
        validate_every: updates between validations, a multiple of `log_every`; there is one after the last update too.
        monitor: the validation metric that selects the best meta-parameters: `"loss"` is minimised, others maximised.
        log_every: updates per compiled chunk; metrics are averaged over it.
        folder: where to keep metrics and checkpoints; `None` keeps nothing.
        progress: show a progress bar.

    Returns:
        The best meta-parameters and the history.

    Raises:
        ValueError: if `validate_every` is not a multiple of `log_every`, if a number is less than 1, if `monitor` is no
            metric, or if `folder` holds a run of another configuration or a damaged checkpoint; nothing is changed.
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
    numbers = {"num_tasks": num_tasks, "validation_tasks": validation_tasks}
    numbers |= {"validate_every": validate_every, "log_every": log_every}
    _check_numbers(iterations=iterations, **numbers)
    train_key, validation_key = jax.random.split(key)
    run_chunk = _chunk_runner(meta_step(learner, optimizer, num_tasks, batch_size=batch_size), tasks, train_key)
    run_validation = jax.jit(evaluate(learner, validation_tasks, batch_size=batch_size))
    validate = _no_validation
    if validation is not None:
        validate = _validator(run_validation, meta, validation, validation_key, monitor)

    state = State(meta, optimizer.init(meta), meta, np.float32(-np.inf), np.int32(0), settings(key, **numbers))
    with Log(folder, state) as log, _bar(iterations, log.start, progress) as bar:
        step, state = log.start, log.state
        seconds = log.history[-1]["seconds"] if log.history else 0.0
        newest: dict[str, float] = {}
        try:
            while step < iterations:
                begin = time.perf_counter()
                size = min(log_every - step % log_every, iterations - step)
                new, averages = run_chunk(state, step, size)
                elapsed = time.perf_counter() - begin
                seconds += elapsed
                record = {"step": step + size, "seconds": seconds, "tasks_per_second": size * num_tasks / elapsed}
                record |= averages
                boundary = record["step"] % validate_every == 0 or record["step"] == iterations
                if boundary:
                    new, values = validate(new, record["step"])
                    record |= values
                log.write(record)
                state, step = new, record["step"]
                if boundary or log.due:
                    log.save(step, state)
                newest |= record
                bar.set_postfix_str(_describe(newest), refresh=False)
                bar.update(size)
        finally:
            log.save(step, state)  # whatever ended the loop: these are the last complete numbers
        return Trained(state.best, int(state.best_step), log.history)


def _check_numbers(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    every, chunk = numbers["validate_every"], numbers["log_every"]
    if every % chunk:
        raise ValueError(f"validate_every must be a multiple of log_every ({chunk}), got {every}")


def _chunk_runner(
    step_fn: Callable[..., Any], tasks: Sampler, key: jax.Array
) -> Callable[[State, int, int], tuple[State, dict[str, float]]]:
    """`size` updates after update `start`, as one program; raises if anything in them is not finite."""

    def run(meta: MetaParams, opt_state: PyTree, tasks: Sampler, key: jax.Array, numbers: jax.Array) -> Any:
        def body(carry: tuple[MetaParams, PyTree], number: jax.Array) -> tuple[Any, Any]:
            meta, opt_state, metrics = step_fn(*carry, tasks, jax.random.fold_in(key, number))
            return (meta, opt_state), metrics

        (meta, opt_state), metrics = jax.lax.scan(body, (meta, opt_state), numbers)
        return meta, opt_state, metrics, jax.tree.map(lambda x: jnp.isfinite(x).all(), meta)

    compiled = jax.jit(run)

    def run_chunk(state: State, start: int, size: int) -> tuple[State, dict[str, float]]:
        numbers = np.arange(start, start + size, dtype=np.int32)
        meta, opt_state, metrics, finite = compiled(state.meta, state.opt_state, tasks, key, numbers)
        values = {name: np.asarray(value, np.float64) for name, value in metrics.items()}
        _check_finite(values, finite, start, start + size)
        averages = {f"train/{name}": float(value.mean()) for name, value in values.items()}
        return state._replace(meta=meta, opt_state=opt_state), averages

    return run_chunk


def _check_finite(metrics: Mapping[str, np.ndarray], finite: PyTree, start: int, end: int) -> None:
    first = {name: start + 1 + int(np.argmin(np.isfinite(v))) for name, v in metrics.items() if not _all_finite(v)}
    bad = [jax.tree_util.keystr(path) for path, good in jax.tree.leaves_with_path(finite) if not good]
    if first:
        name = min(first, key=first.__getitem__)
        what = f"{name} became NaN or infinite at update {first[name]}"
    elif bad:
        what = f"meta{bad[0]} became NaN or infinite by update {end}"
    else:
        return
    raise FloatingPointError(
        f"{what}; the state after update {start} is the last one known to be good. Try a smaller inner or outer "
        "learning rate, or optax.clip_by_global_norm in the outer optimizer"
    )


def _all_finite(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all())


def _no_validation(state: State, step: int) -> tuple[State, dict[str, float]]:
    return state._replace(best=state.meta, best_step=np.int32(step)), {}


def _validator(
    run: Any, meta: MetaParams, tasks: Sampler, key: jax.Array, monitor: str
) -> Callable[[State, int], tuple[State, dict[str, float]]]:
    """Measures the meta-parameters, and keeps them if they are the best so far."""
    names = sorted(run.eval_shape(meta, tasks, key))
    if monitor not in names:
        raise ValueError(f"monitor must be one of {names}, got {monitor!r}")

    def validate(state: State, step: int) -> tuple[State, dict[str, float]]:
        values = {name: summary.mean for name, summary in summarize(run(state.meta, tasks, key)).items()}
        score = np.float32(-values[monitor] if monitor == "loss" else values[monitor])
        if score > state.best_score:
            state = state._replace(best=state.meta, best_score=score, best_step=np.int32(step))
        return state, {f"validation/{name}": value for name, value in values.items()}

    return validate


def _bar(total: int, initial: int, progress: bool) -> Any:
    """A progress bar; a log file gets a line twice a minute instead."""
    hidden = not progress or initial >= total
    if sys.stderr.isatty():
        return tqdm(total=total, initial=initial, disable=hidden, unit="update", mininterval=0.5, miniters=1)
    line = "update {n_fmt} of {total_fmt} [{elapsed}<{remaining}{postfix}]\n"
    return tqdm(total=total, initial=initial, disable=hidden, bar_format=line, mininterval=30, miniters=1)


def _describe(record: Mapping[str, float]) -> str:
    """The progress bar's numbers."""
    shown = {"train/loss": "loss", "train/accuracy": "accuracy"}
    metric = "accuracy" if "validation/accuracy" in record else "loss"
    shown[f"validation/{metric}"] = f"validation {metric}"
    numbers = [f"{short} {record[name]:.3f}" for name, short in shown.items() if name in record]
    return ", ".join([f"{record['tasks_per_second']:.0f} tasks/s", *numbers])
