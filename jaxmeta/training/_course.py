"""The course of a training: chunk after chunk, with records, validation, callbacks, checkpoints and an end."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmeta._types import PyTree
from jaxmeta.display import short_repr
from jaxmeta.training._callback import Callbacks
from jaxmeta.training._chunks import Chunks, Snapshot
from jaxmeta.training._log import Log
from jaxmeta.training._preemption import anywhere, greatest

_CHUNK_SECONDS = 2.0  # until progress is shown and signals are answered
_SAVE_SECONDS = 60.0  # what a kill can cost at most, however far apart validations are

Validate = Callable[[PyTree], Mapping[str, float]]
"""`(meta) -> values`, on the host."""


class LoopSettings(NamedTuple):
    """Settings of a loop that decide its numbers, and its end."""

    iterations: int
    validate_every: int
    log_every: int
    monitor: str | None
    skip_nonfinite: bool
    work: tuple[str, int] = ("updates", 1)
    """The unit of the reported speed, and the number of units per update."""
    numbers: Mapping[str, int] = {}
    """Other numbers that decide the result. A run resumes only with the same ones."""
    minutes: float | None = None
    """The time that the training may take, over all calls."""

    __repr__ = short_repr


class Course:
    """The course of a training from where its log ends.

    Args:
        options: settings of the loop.
        chunks: the compiled updates.
        log: records and checkpoints.
        snapshot: where the training goes on, on its devices.
        own: returns meta-parameters whose memory no later chunk takes.
        validate: what to measure, or `None`.
        callbacks: what to call with each record.
        bar: progress bar.
    """

    def __init__(
        self,
        options: LoopSettings,
        chunks: Chunks,
        log: Log,
        snapshot: Snapshot,
        own: Callable[[PyTree], PyTree],
        validate: Validate | None,
        callbacks: Callbacks,
        bar: Any,
    ):
        self.snapshot, self.step = snapshot, log.start
        self._options, self._chunks, self._log, self._own = options, chunks, log, own
        self._validate, self._callbacks, self._bar = validate, callbacks, bar
        last = log.history[-1] if log.history else {"step": 0, "seconds": 0.0}
        self._recorded = int(last["step"])
        self._start = time.perf_counter() - max(last["seconds"], float(snapshot.seconds))
        self._pace = 0.0  # seconds per update of the last chunk
        self._done, self._busy = 0, 0.0  # updates of this call since the last record, and their seconds
        self._shown: dict[str, str] = {}

    def run(self, asked: threading.Event) -> None:
        """Goes on to the end, or until the event is set in any process.

        Raises:
            Exception: what a callback or `validate` raises, and FloatingPointError as `Chunks.run`.
        """
        over, stop, size = self._is_over_before(), False, 1
        if not over:
            self.snapshot = self._chunks.run(self.snapshot, self.step, 0)  # compiles
            self._bar.unpause()
            self._bar.set_description_str("Training")
            (stop,) = anywhere(asked.is_set())
        while not over and not stop:
            over, validated = self._advance(size)
            called = self._callbacks
            flags = asked.is_set(), self._log.age > _SAVE_SECONDS, called.ended, called.error is not None
            stop, due, ended, failed = anywhere(*flags)
            if ended and not over:
                over, validated = True, validated or self._validate_late()
                (failed,) = anywhere(called.error is not None)
            if validated or due or failed:
                self._log.save(self.step, self.snapshot)
            if failed:
                called.raise_error()
            size = self._next_size()
        if stop:
            asked.set()

    def _next_size(self) -> int:
        """Returns as many updates as take seconds, at most those up to the next record; the first chunk is one."""
        (pace,) = greatest(self._pace)
        return int(max(1.0, _CHUNK_SECONDS / max(pace, 1e-9)))

    def _advance(self, size: int) -> tuple[bool, bool]:
        """Runs at most so many updates, and returns whether the training is over and whether it was validated."""
        s, step = self._options, self.step
        size = min(size, s.log_every - step % s.log_every, s.iterations - step)
        begin = time.perf_counter()
        new = self._chunks.run(self.snapshot, step, size)
        end = time.perf_counter()
        new = new._replace(seconds=np.float32(end - self._start))
        self._pace = (end - begin) / size
        self._done, self._busy, step = self._done + size, self._busy + end - begin, step + size
        over = self._is_over(step, end - self._start)
        validated = over or step % s.validate_every == 0
        if not over and step % s.log_every:
            self.snapshot, self.step = new, step
        else:
            record = self._record(new, step)
            if validated:
                new, values = self._validated(new, step)
                record |= values
            self._write(record, new, step)
        self._bar.update(size)
        return over, validated

    def _record(self, snapshot: Snapshot, step: int) -> dict[str, float]:
        """Returns the speed and the averages since the last record."""
        unit, work = self._options.work
        first = max(self._recorded, (step - 1) // self._options.log_every * self._options.log_every)
        speed = self._done * work / max(self._busy, 1e-9)
        return {"step": step, f"{unit}_per_second": speed, **self._chunks.averages(snapshot.metrics, first, step)}

    def _write(self, record: dict[str, float], snapshot: Snapshot, step: int) -> None:
        """Keeps and shows a record, and then tells the callbacks."""
        record["seconds"] = time.perf_counter() - self._start
        self._log.write(record)
        self.snapshot, self.step, self._recorded = snapshot, step, step
        self._done, self._busy = 0, 0.0
        self._shown |= _shown(record)
        self._bar.set_postfix_str(", ".join(self._shown.values()), refresh=False)
        self._callbacks(record)

    def _validated(self, snapshot: Snapshot, step: int) -> tuple[Snapshot, dict[str, float]]:
        """Measures the state, and keeps it if it is the best so far; without validation the last is the best."""
        meta = self._own(snapshot.state.meta)
        if self._validate is None:
            return snapshot._replace(best=meta, best_step=np.int32(step)), {}
        self._bar.set_description_str("Validating")
        values = self._validate(meta)
        self._bar.set_description_str("Training", refresh=False)
        monitor = chosen_monitor(self._options.monitor, values)
        score = np.float32(-values[monitor] if monitor == "loss" else values[monitor])
        if score > snapshot.best_score:
            snapshot = snapshot._replace(best=meta, best_score=score, best_step=np.int32(step))
        return snapshot, {f"validation/{name}": float(value) for name, value in values.items()}

    def _validate_late(self) -> bool:
        """Validates a state whose record is written, because a callback has ended the training there."""
        self.snapshot, values = self._validated(self.snapshot, self.step)
        if values:
            self._write({"step": self.step, **values}, self.snapshot, self.step)
        return True

    def _is_over(self, step: int, seconds: float) -> bool:
        """Tells whether all updates are done, or whether the time is over in any process."""
        s = self._options
        if s.minutes is None:
            return step >= s.iterations
        return anywhere(step >= s.iterations, seconds >= 60 * s.minutes) != (False, False)

    def _is_over_before(self) -> bool:
        """Tells whether earlier calls have done all; one that was cut between validations goes on to the next."""
        s, log = self._options, self._log
        if log.start >= s.iterations or s.minutes is None or not log.history:
            return log.start >= s.iterations
        last = log.history[-1]
        measured = int(log.snapshot.best_step) == last["step"] or any(name.startswith("validation/") for name in last)
        return measured and log.start == last["step"] and self._is_over(log.start, last["seconds"])


def chosen_monitor(monitor: str | None, values: Iterable[str]) -> str:
    """Returns the name of the chosen_monitor value: accuracy before loss if none was chosen."""
    names = sorted(values)
    if monitor in names:
        return monitor
    found = next((name for name in ("accuracy", "loss") if name in names), None)
    if monitor is not None or found is None:
        raise ValueError(f"monitor must be one of {names}, got {monitor!r}")
    return found


def _shown(record: Mapping[str, float]) -> dict[str, str]:
    """Returns what the progress bar says about a record, by its name. A validation says when it was."""
    found = {f"train/{metric}": f"{metric} " for metric in ("loss", "accuracy", "return")}
    metric = next((metric for metric in ("accuracy", "return") if f"validation/{metric}" in record), "loss")
    texts = {name: f"{short}{record[name]:.3f}" for name, short in found.items() if name in record}
    if (name := f"validation/{metric}") in record:
        texts["validation"] = f"validation {metric} {record[name]:.3f} at update {record['step']}"
    return texts
