"""The course of a training: chunk after chunk, with records, validation, callbacks, checkpoints and an end."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmeta._types import PyTree
from jaxmeta.display import short_repr
from jaxmeta.training._callback import Callbacks
from jaxmeta.training._chunks import Snapshot, averages
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
    """The course of a training from where its log ends: what follows each chunk of updates.

    Args:
        options: settings of the loop.
        log: records and checkpoints.
        snapshot: where the training goes on, on its devices.
        own: returns meta-parameters whose memory no later chunk takes.
        validate: what to measure, or `None`.
        callbacks: what to call with each record.
        bar: progress bar.
        asked: an event that asks the training to stop.
    """

    def __init__(
        self,
        options: LoopSettings,
        log: Log,
        snapshot: Snapshot,
        own: Callable[[PyTree], PyTree],
        validate: Validate | None,
        callbacks: Callbacks,
        bar: Any,
        asked: threading.Event,
    ):
        self.snapshot, self.step = snapshot, log.start
        self.log, self._options, self._own, self._asked = log, options, own, asked
        self._validate, self._callbacks, self._bar = validate, callbacks, bar
        last = log.history[-1] if log.history else {"step": 0, "seconds": 0.0}
        self._recorded = int(last["step"])
        self._start = time.perf_counter() - max(last["seconds"], float(snapshot.seconds))
        self._pace = 0.0  # seconds per update of the last chunk
        self._done, self._busy = 0, 0.0  # updates of this call since the last record, and their seconds
        self._shown: dict[str, str] = {}
        self._over, self._stopped = self._is_over_before(), False

    @property
    def goes_on(self) -> bool:
        """False when the training is over, or was asked to stop."""
        return not self._over and not self._stopped

    def begin(self) -> None:
        """Starts when the program is compiled: validates the start, which is best if no update improves it."""
        self._bar.unpause()
        if self.step == 0 and self._validate is not None:
            self.snapshot, values = self._validated(self.snapshot, 0)
            self._write({"step": 0, **values}, self.snapshot, 0)
        self._over, failed = self._heard()
        if failed:
            self._callbacks.raise_error()
        self._bar.set_description_str("Training")

    def size(self) -> int:
        """Returns as many updates as take seconds, at most those up to the next record; the first chunk is one."""
        s, (pace,) = self._options, greatest(self._pace)
        size = int(max(1.0, _CHUNK_SECONDS / pace)) if pace else 1
        return min(size, s.log_every - self.step % s.log_every, s.iterations - self.step)

    def take(self, new: Snapshot, size: int, busy: float) -> None:
        """Goes on to the state after a chunk of `size` updates, which took `busy` seconds.

        Raises:
            Exception: what a callback or `validate` raises, and FloatingPointError as `averages`.
        """
        self._over, validated = self._advance(new, size, busy)
        ended, failed = self._heard()
        (due,) = anywhere(self.log.age > _SAVE_SECONDS)
        if ended and not self._over:
            self._over, validated = True, validated or self._validate_late()
            (failed,) = anywhere(self._callbacks.error is not None)
        if validated or due or failed:
            self.log.save(self.step, self.snapshot)
        if failed:
            self._callbacks.raise_error()

    def _heard(self) -> tuple[bool, bool]:
        """Tells whether a callback has ended the training, and whether one has failed; stops if that was asked."""
        called = self._callbacks
        ended, failed, self._stopped = anywhere(called.ended, called.error is not None, self._asked.is_set())
        if self._stopped:
            self._asked.set()
        return ended, failed

    def _advance(self, new: Snapshot, size: int, busy: float) -> tuple[bool, bool]:
        """Keeps what is due after a chunk, and returns whether the training is over and whether it was validated."""
        s, step, seconds = self._options, self.step + size, time.perf_counter() - self._start
        new = new._replace(seconds=np.float32(seconds))
        self._pace = busy / size
        self._done, self._busy = self._done + size, self._busy + busy
        over = self._is_over(step, seconds)
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
        means = averages(snapshot.metrics, first, step, self._options.skip_nonfinite)
        return {"step": step, f"{unit}_per_second": speed, **means}

    def _write(self, record: dict[str, float], snapshot: Snapshot, step: int) -> None:
        """Keeps and shows a record, and then tells the callbacks."""
        record["seconds"] = time.perf_counter() - self._start
        self.log.write(record)
        self.snapshot, self.step, self._recorded = snapshot, step, step
        self._done, self._busy = 0, 0.0
        self._shown |= _shown(record)
        names = sorted(self._shown, key=lambda name: name == "validation")  # which comes last
        self._bar.set_postfix_str(", ".join(self._shown[name] for name in names), refresh=False)
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
        s, log = self._options, self.log
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
