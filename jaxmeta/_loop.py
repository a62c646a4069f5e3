"""The loop around any update: compiled chunks, validation, metrics, and checkpoints that survive a kill."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from jaxmeta._log import Log, State, settings
from jaxmeta._parallel import replicate
from jaxmeta._processes import anywhere, deferred_sigterm
from jaxmeta._types import Metrics, PyTree

Step = Callable[..., tuple[PyTree, Metrics]]
"""`(state, key, *args) -> (state, metrics)`: one update."""
_SAVE_SECONDS = 60.0  # what a kill can cost at most, however far apart validations are
Validate = Callable[[PyTree], Mapping[str, float]]
"""`(state) -> values`, on the host."""


class Looped(NamedTuple):
    """What `loop` returns."""

    state: PyTree
    """The state after the last update."""
    best: PyTree
    """The state with the best validation value, or the last one without validation."""
    step: int
    """The update after which `best` was taken."""
    history: list[dict[str, float]]
    """One record per logged step: `step`, `seconds`, `updates_per_second`, `train/...` and `validation/...` values."""


class Plan(NamedTuple):
    """What the loops of this package differ in."""

    iterations: int
    validate_every: int
    log_every: int
    monitor: str
    keep: Callable[[PyTree], PyTree]
    """What of the state is worth keeping if it is the best; it must stay finite."""
    kept: str
    """What that is called in messages."""
    work: tuple[str, int]
    """What is counted per second, and how many of them are in an update."""
    numbers: Mapping[str, int]
    """Other numbers that decide the result: a run goes on only with the same ones."""
    skip: bool
    """Whether an update that is not finite is left out, and not an error."""


def loop(
    step: Step,
    state: PyTree,
    key: jax.Array,
    *args: Any,
    iterations: int,
    validate: Validate | None = None,
    validate_every: int = 500,
    monitor: str = "loss",
    log_every: int = 50,
    skip_nonfinite: bool = False,
    mesh: Mesh | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Looped:
    """Repeats any update in compiled chunks, with metrics and checkpoints; `train` is this loop for a `MetaLearner`.

    For algorithms whose update carries more than meta-parameters: the inner problems of a learned optimizer, the
    environments and buffers of reinforcement learning. See `train` for what a `folder` keeps and how a run goes on.

    Args:
        step: one update, `(state, key, *args) -> (state, metrics)` with scalar metrics; it is compiled.
        state: any pytree of arrays, where to start.
        key: root of all randomness; the key of update `i` is `fold_in(key, i)`.
        args: handed to every `step`: samplers and data, which should not be closed over.
        iterations: number of updates; a finished run goes on if it is called with more.
        validate: `(state) -> {name: value}`, called every `validate_every` updates and after the last one; `None` for
            no validation.
        validate_every: updates between validations, a multiple of `log_every`.
        monitor: the validation value that selects the best state: `"loss"` is minimised, others maximised.
        log_every: updates per compiled chunk; metrics are averaged over it.
        skip_nonfinite: leave out an update that gives a NaN or infinite metric or state, instead of raising: the state
            stays as it was before. The record `train/skipped` counts them.
        mesh: the devices of a `step` that was built with this mesh; state, key and `args` are put on all of them, but
            for what is divided over them already.
        folder: where to keep metrics and checkpoints; `None` keeps nothing.
        progress: show a progress bar.

    Returns:
        The last and the best state, and the history.

    Raises:
        ValueError: if a number is less than 1 or `validate_every` is not a multiple of `log_every`, if `monitor` is not
            among the validation values, or if `folder` holds a run of another configuration or a damaged checkpoint.
        FloatingPointError: if a metric or a part of the state becomes NaN or infinite (with `skip_nonfinite`: in all
            updates of a chunk); with a `folder` the last finite state is saved first.

    Example:
        >>> def step(state, key):
        ...     return state + jax.random.normal(key), {"loss": state**2}
        >>> done = loop(step, jnp.array(0.0), jax.random.key(0), iterations=4, log_every=2, progress=False)
        >>> [record["step"] for record in done.history], done.state == done.best
        ([2, 4], Array(True, dtype=bool))
    """
    work = ("updates", 1)
    plan = Plan(iterations, validate_every, log_every, monitor, lambda state: state, "state", work, {}, skip_nonfinite)
    key, args = replicate((key, args), mesh)
    return run_loop(step, state, key, args, plan, validate, folder, progress, partial(replicate, mesh=mesh))


def run_loop(
    step_fn: Step,
    start: PyTree,
    key: jax.Array,
    args: tuple[Any, ...],
    plan: Plan,
    validate: Validate | None,
    folder: str | os.PathLike[str] | None,
    progress: bool,
    place: Callable[[PyTree], PyTree] = lambda state: state,
) -> Looped:
    """See `loop`; `validate` gets what `plan.keep` takes of the state, `place` puts the state where it belongs."""
    check_plan(plan)
    run_chunk = _chunk_runner(step_fn, args, key, plan)
    numbers = {**plan.numbers, "validate_every": plan.validate_every, "log_every": plan.log_every}
    first = State(start, plan.keep(start), np.float32(-np.inf), np.int32(0), settings(key, **numbers))
    with deferred_sigterm() as asked, Log(folder, first) as log, _bar(plan.iterations, log.start, progress) as bar:
        step, state = log.start, log.state._replace(state=place(log.state.state))
        seconds = log.history[-1]["seconds"] if log.history else 0.0
        newest: dict[str, float] = {}
        stop = False  # what all processes agree on, unlike `asked`
        try:
            while step < plan.iterations and not stop:
                begin = time.perf_counter()
                size = min(plan.log_every - step % plan.log_every, plan.iterations - step)
                new, averages = run_chunk(state, step, size)
                elapsed = time.perf_counter() - begin
                seconds += elapsed
                unit, work = plan.work
                record = {"step": step + size, "seconds": seconds, f"{unit}_per_second": size * work / elapsed}
                record |= averages
                boundary = record["step"] % plan.validate_every == 0 or record["step"] == plan.iterations
                if boundary:
                    new, values = _validated(new, record["step"], plan, validate)
                    record |= values
                log.write(record)
                state, step = new, record["step"]
                stop, due = anywhere(asked.is_set(), log.age > _SAVE_SECONDS)
                if boundary or due:
                    log.save(step, state)
                if stop:
                    asked.set()
                newest |= record
                bar.set_postfix_str(_describe(newest, unit), refresh=False)
                bar.update(size)
        except BaseException as error:
            _save_after(error, log, step, state)
            raise
        log.save(step, state)
        return Looped(state.state, state.best, int(state.best_step), log.history)


def _save_after(error: BaseException, log: Log, step: int, state: State) -> None:
    """Saves the last complete numbers, whatever ended the loop, if all processes can; says so if one is lost."""
    if jax.process_count() == 1 or isinstance(error, FloatingPointError):
        log.save(step, state)
    elif isinstance(error, jax.errors.JaxRuntimeError):
        raise ConnectionError(
            f"a process of this run has ended or failed ({str(error).splitlines()[0][:200]}); start all of them again "
            "to go on from the last checkpoint"
        ) from error


def check_plan(plan: Plan) -> None:
    """Raises a `ValueError` if a number is out of range."""
    numbers = {"iterations": plan.iterations, **plan.numbers}
    numbers |= {"validate_every": plan.validate_every, "log_every": plan.log_every}
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if plan.validate_every % plan.log_every:
        raise ValueError(
            f"validate_every must be a multiple of log_every ({plan.log_every}), got {plan.validate_every}"
        )


def _chunk_runner(
    step_fn: Step, args: tuple[Any, ...], key: jax.Array, plan: Plan
) -> Callable[[State, int, int], tuple[State, dict[str, float]]]:
    """`size` updates after update `start`, as one program; raises if anything in them is not finite."""

    def run(state: PyTree, key: jax.Array, numbers: jax.Array, args: tuple[Any, ...]) -> Any:
        def body(state: PyTree, number: jax.Array) -> tuple[PyTree, Metrics]:
            new, metrics = step_fn(state, jax.random.fold_in(key, number), *args)
            if not plan.skip:
                return new, metrics
            finite = jnp.stack(jax.tree.leaves(jax.tree.map(_is_finite, (plan.keep(new), metrics)))).all()
            new = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
            return new, {**metrics, "skipped": 1.0 - finite}

        state, metrics = jax.lax.scan(body, state, numbers)
        return state, metrics, jax.tree.map(_is_finite, plan.keep(state))

    compiled = jax.jit(run)

    def run_chunk(state: State, start: int, size: int) -> tuple[State, dict[str, float]]:
        numbers = np.arange(start, start + size, dtype=np.int32)
        new, metrics, finite = compiled(state.state, key, numbers, args)
        values = {name: np.asarray(value, np.float64) for name, value in metrics.items()}
        skipped = values.pop("skipped") > 0 if plan.skip else np.zeros(size, bool)
        if skipped.all():
            raise _not_finite(f"every update from {start + 1} to {start + size} gave a NaN or infinite value", start)
        values = {name: value[~skipped] for name, value in values.items()}
        _check_finite(values, finite, plan.kept, start, start + size)
        averages = {f"train/{name}": float(value.mean()) for name, value in values.items()}
        if plan.skip:
            averages["train/skipped"] = float(skipped.sum())
        return state._replace(state=new), averages

    return run_chunk


def _is_finite(x: jax.Array) -> jax.Array:
    return jnp.isfinite(x).all() if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.asarray(True)


def _check_finite(metrics: Mapping[str, np.ndarray], finite: PyTree, kept: str, start: int, end: int) -> None:
    first = {name: start + 1 + int(np.argmin(np.isfinite(v))) for name, v in metrics.items() if not _all_finite(v)}
    bad = [jax.tree_util.keystr(path) for path, good in jax.tree.leaves_with_path(finite) if not good]
    if first:
        name = min(first, key=first.__getitem__)
        what = f"{name} became NaN or infinite at update {first[name]}"
    elif bad:
        what = f"{kept}{bad[0]} became NaN or infinite by update {end}"
    else:
        return
    raise _not_finite(what, start)


def _not_finite(what: str, start: int) -> FloatingPointError:
    return FloatingPointError(
        f"{what}; the state after update {start} is the last one known to be good. Try a smaller inner or outer "
        "learning rate, or optax.clip_by_global_norm in the outer optimizer"
    )


def _all_finite(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all())


def _validated(state: State, step: int, plan: Plan, validate: Validate | None) -> tuple[State, dict[str, float]]:
    """Measures the state, and keeps it if it is the best so far; without validation the last is the best."""
    kept = plan.keep(state.state)
    if validate is None:
        return state._replace(best=kept, best_step=np.int32(step)), {}
    values = validate(kept)
    if plan.monitor not in values:
        raise ValueError(f"monitor must be one of {sorted(values)}, got {plan.monitor!r}")
    score = np.float32(-values[plan.monitor] if plan.monitor == "loss" else values[plan.monitor])
    if score > state.best_score:
        state = state._replace(best=kept, best_score=score, best_step=np.int32(step))
    return state, {f"validation/{name}": float(value) for name, value in values.items()}


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
