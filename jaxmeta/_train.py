"""The training loop: compiled chunks of outer updates, validation, metrics, and checkpoints that survive a kill."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from jaxmeta._step import evaluate, meta_step, summarize
from jaxmeta._types import MetaLearner, MetaParams, Sampler


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

    With a `folder`, metrics go to `metrics.jsonl` there and a checkpoint is saved at every validation. Called again
    with the same arguments, `train` goes on from the last checkpoint to the numbers of an undisturbed run, however the
    first call ended. The key of update `i` is `fold_in(key, i)`, so nothing depends on where a run was cut.

    Args:
        learner: the meta-learner.
        optimizer: any optax optimizer of `MetaParams`.
        meta: initial meta-parameters, from `learner.init`.
        tasks: sampler of training tasks.
        key: root of all randomness.
        iterations: number of outer updates.
        num_tasks: tasks per update.
        batch_size: see `meta_step`.
        validation: sampler of validation tasks; `None` for no validation.
        validation_tasks: tasks per validation, the same ones every time.
        validate_every: updates between validations (and checkpoints); a multiple of `log_every`.
        monitor: the validation metric that selects the best meta-parameters: `"loss"` is minimised, others maximised.
        log_every: updates per compiled chunk; metrics are averaged over it.
        folder: where to keep metrics and checkpoints; `None` keeps nothing.
        progress: show a progress bar.

    Returns:
        The best meta-parameters and the history.

    Raises:
        ValueError: if `validate_every` is not a multiple of `log_every`, if a number is less than 1, if `monitor` is no
            metric, or if `folder` holds checkpoints of another configuration.
        FloatingPointError: if a loss or parameter becomes NaN or infinite; with a `folder` the last finite state is
            saved first.

    Example:
        >>> import jaxmeta
        >>> from jaxmeta import data
        >>> learner = jaxmeta.maml(jaxmeta.regression(lambda w, x: x * w), optax.sgd(0.01))
        >>> trained = train(learner, optax.adam(1e-3), learner.init(jnp.array([1.0])), data.Sinusoid(),
        ...                 jax.random.key(0), iterations=4, num_tasks=2, log_every=2, progress=False)
        >>> [record["step"] for record in trained.history]
        [2, 4]
    """
    for name, value in (("iterations", iterations), ("log_every", log_every), ("validate_every", validate_every)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if validate_every % log_every:
        raise ValueError(f"validate_every must be a multiple of log_every ({log_every}), got {validate_every}")

    train_key, validation_key = jax.random.split(key)
    state = _State(meta, optimizer.init(meta), meta, jnp.array(-jnp.inf), jnp.array(0), jax.random.key_data(key))
    run_chunk = _chunk_runner(meta_step(learner, optimizer, num_tasks, batch_size=batch_size))
    run_validation = jax.jit(evaluate(learner, validation_tasks, batch_size=batch_size))

    def validate(state: _State, step: int) -> tuple[_State, dict[str, float]]:
        if validation is None:
            return state._replace(best=state.meta, best_step=jnp.array(step)), {}
        values = {name: s.mean for name, s in summarize(run_validation(state.meta, validation, validation_key)).items()}
        if monitor not in values:
            raise ValueError(f"monitor must be one of {sorted(values)}, got {monitor!r}")
        score = -values["loss"] if monitor == "loss" else values[monitor]
        if score > float(state.best_score):
            state = state._replace(best=state.meta, best_score=jnp.array(score), best_step=jnp.array(step))
        return state, {f"validation/{name}": value for name, value in values.items()}

    with _Log(folder, state) as log:
        step, state = log.start, log.state
        seconds = log.history[-1]["seconds"] if log.history else 0.0
        pause = 0.5 if sys.stderr.isatty() else 30.0  # a log file wants few lines
        with tqdm(total=iterations, initial=step, disable=not progress, unit="step", mininterval=pause) as bar:
            while step < iterations:
                begin = time.perf_counter()
                size = min(log_every - step % log_every, iterations - step)
                new_state, metrics = run_chunk(state, tasks, train_key, step, size)
                try:
                    averages = _finite_means(metrics, new_state.meta, step)
                except FloatingPointError:
                    log.save(step, state)
                    raise
                state, step = new_state, step + size
                elapsed = time.perf_counter() - begin
                seconds += elapsed
                record = {"step": step, "seconds": seconds, "tasks_per_second": size * num_tasks / elapsed}
                record |= {f"train/{name}": value for name, value in averages.items()}
                boundary = step % validate_every == 0 or step == iterations
                if boundary:
                    state, values = validate(state, step)
                    record |= values
                log.write(record)
                if boundary:
                    log.save(step, state)
                bar.set_postfix_str(_describe(log.history), refresh=False)
                bar.update(size)
        return Trained(state.best, int(state.best_step), log.history)


class _State(NamedTuple):
    """All that a checkpoint holds."""

    meta: MetaParams
    opt_state: optax.OptState
    best: MetaParams
    best_score: jax.Array
    best_step: jax.Array
    key_data: jax.Array


def best_meta(folder: str | os.PathLike[str], meta: MetaParams, optimizer: optax.GradientTransformation) -> MetaParams:
    """The best meta-parameters that a run of `train` has saved so far.

    Args:
        folder: the run's folder.
        meta: meta-parameters of the same structure, e.g. from `learner.init`.
        optimizer: the run's outer optimizer.

    Returns:
        The meta-parameters.

    Raises:
        FileNotFoundError: if `folder` has no checkpoint.
        ValueError: if the checkpoint is of another configuration.
    """
    from jaxmeta._checkpoint import Checkpoints

    path = Path(folder) / "checkpoints"
    if not path.is_dir():
        raise FileNotFoundError(f"no checkpoint in {path}")
    zero = jnp.array(0)
    like = _State(meta, optimizer.init(meta), meta, jnp.array(0.0), zero, jax.random.key_data(jax.random.key(0)))
    with Checkpoints(path) as checkpoints:
        return checkpoints.restore(like).best


def _chunk_runner(step_fn: Callable[..., Any]) -> Callable[..., tuple[_State, dict[str, np.ndarray]]]:
    """`size` updates from update `start` on, as one program; the metrics come back per update."""

    def run(state: _State, tasks: Sampler, key: jax.Array, numbers: jax.Array) -> tuple[_State, Any]:
        def body(carry: tuple[MetaParams, optax.OptState], number: jax.Array) -> tuple[Any, Any]:
            meta, opt_state, metrics = step_fn(*carry, tasks, jax.random.fold_in(key, number))
            return (meta, opt_state), metrics

        (meta, opt_state), metrics = jax.lax.scan(body, (state.meta, state.opt_state), numbers)
        return state._replace(meta=meta, opt_state=opt_state), metrics

    compiled = jax.jit(run)
    return lambda state, tasks, key, start, size: compiled(state, tasks, key, jnp.arange(start, start + size))


def _finite_means(metrics: Mapping[str, Any], meta: MetaParams, start: int) -> dict[str, float]:
    """Means over the chunk that began at `start`; raises if anything in it is not finite."""
    values = {name: np.asarray(value) for name, value in metrics.items()}
    bad = {name: start + 1 + int(np.argmin(np.isfinite(v))) for name, v in values.items() if not np.isfinite(v).all()}
    bad |= {
        f"meta{jax.tree_util.keystr(path)}": start + 1
        for path, leaf in jax.tree.leaves_with_path(meta)
        if not bad and not bool(jnp.isfinite(leaf).all())
    }
    if bad:
        name, step = min(bad.items(), key=lambda item: item[1])
        raise FloatingPointError(
            f"{name} became NaN or infinite at update {step} or soon after; the state after update {start} is the last "
            "one known to be good. Try a smaller inner or outer learning rate, or optax.clip_by_global_norm outside"
        )
    return {name: float(value.mean()) for name, value in values.items()}


def _describe(history: list[dict[str, float]]) -> str:
    """The progress bar's numbers: the newest of each kind."""
    newest: dict[str, float] = {}
    for record in history[-100:]:
        newest |= record
    parts = [f"{newest['tasks_per_second']:.0f} tasks/s"]
    for name, short in (
        ("train/loss", "loss"),
        ("train/accuracy", "accuracy"),
        ("validation/accuracy", "val accuracy"),
    ):
        if name in newest:
            parts.append(f"{short} {newest[name]:.3f}")
    if "validation/accuracy" not in newest and "validation/loss" in newest:
        parts.append(f"val loss {newest['validation/loss']:.3f}")
    return ", ".join(parts)


class _Log:
    """The run's records and checkpoints, in memory and, if there is a folder, on disk."""

    def __init__(self, folder: str | os.PathLike[str] | None, state: _State):
        self.start, self.state = 0, state
        self.history: list[dict[str, float]] = []
        self._checkpoints = self._file = None
        if folder is None:
            return
        from jaxmeta._checkpoint import Checkpoints  # orbax takes seconds to import

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._checkpoints = Checkpoints(folder / "checkpoints")
        if self._checkpoints.latest is not None:
            self.start, self.state = self._checkpoints.latest, self._checkpoints.restore(state)
            if not np.array_equal(self.state.key_data, state.key_data):
                raise ValueError(f"{folder} holds a run with another key; choose another folder or the same seed")
        path = folder / "metrics.jsonl"
        self.history = [record for record in _records(path) if record["step"] <= self.start]
        write_atomically(path, "".join(json.dumps(record) + "\n" for record in self.history))
        self._file = path.open("a")

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        if self._checkpoints is not None:
            self._checkpoints.__exit__(None, None, None)

    def write(self, record: dict[str, float]) -> None:
        self.history.append(record)
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def save(self, step: int, state: _State) -> None:
        if self._checkpoints is not None and step > 0:
            self._checkpoints.save(step, state)


def _records(path: Path) -> Iterator[dict[str, float]]:
    """The finished lines of a metrics file; a kill can cut the last one."""
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file so that it is either the old one or the new one, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
