"""Records and checkpoints of a training run, in memory and, given a folder, on disk."""

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax

from jaxmeta._types import PyTree
from jaxmeta.training._chunks import Snapshot
from jaxmeta.training._hold import cannot_write, hold
from jaxmeta.training._identity import check_identity
from jaxmeta.training._records import append_record, read_records, write_records


class Log:
    """Records and checkpoints of a run.

    With a folder that holds some already, `start` and `snapshot` are where they end.

    In a run of several processes all of them see the folder, and the first one writes.

    Args:
        folder: made if it does not exist; `None` keeps nothing on disk.
        snapshot: where a new run starts.
        run: what decides the numbers of the run, to compare with the run in the folder.

    Raises:
        ValueError: if the folder holds a run of another configuration; it is left as it was.
        BlockingIOError: if another training has the folder.
        NotADirectoryError: if the folder is a file.
        FileNotFoundError: if the folder was removed since; nothing is made in its place.
        OSError: if the folder cannot be written, here and later; what was saved before stays whole.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, snapshot: Snapshot, run: Mapping[str, Any]):
        self.start, self.snapshot = 0, snapshot
        self.history: list[dict[str, float]] = []
        self._checkpoints = self._folder = self._lock = None
        self._saved = time.monotonic()
        self._open = contextlib.ExitStack()
        if folder is not None:
            with self._open:
                self._begin(Path(folder), run)
                self._open = self._open.pop_all()

    def _begin(self, folder: Path, run: Mapping[str, Any]) -> None:
        """Goes on where the folder ends, if it holds anything."""
        from jaxmeta.training._checkpoint import Checkpoints  # orbax takes seconds to import

        self._lock = self._open.enter_context(hold(folder))
        records = read_records(folder)
        self._checkpoints = self._open.enter_context(Checkpoints(folder / "checkpoints"))
        self._folder = folder
        check_identity(folder, run, resumes=self._checkpoints.latest is not None)
        if self._checkpoints.latest is not None:
            self.start, self.snapshot = self._checkpoints.latest, self._checkpoints.restore(self.snapshot)
            self.history = [record for record in records if record["step"] <= self.start]
        if jax.process_index() == 0:
            with self._writing():
                write_records(folder, self.history)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def age(self) -> float:
        """Seconds since the last checkpoint."""
        return time.monotonic() - self._saved

    def write(self, record: dict[str, float]) -> None:
        """Adds a record."""
        self.history.append(record)
        if self._folder is not None and jax.process_index() == 0:
            with self._writing():
                append_record(self._folder, record)

    def save(self, step: int, snapshot: Snapshot) -> None:
        """Saves the state after update `step`, unless there is nothing new in it."""
        if self._checkpoints is not None and self._folder is not None and step > self.start:
            with self._writing():
                self._checkpoints.save(step, snapshot)
            self._saved = time.monotonic()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Says in one line why the folder cannot be written, and leaves it alone from then on."""
        folder, lock = self._folder, self._lock
        removed = f"folder {folder} was removed during the run, which ends here"
        try:
            if lock is not None and not lock.is_whole:
                raise FileNotFoundError(removed)
            yield
        except Exception as error:
            self._folder = None
            if lock is not None and not lock.is_whole:
                raise FileNotFoundError(removed) from error
            code = _os_error(error)
            if code is None:
                raise
            told = "once it can, run again to resume from the last checkpoint"
            raise OSError(code, f"{cannot_write(Path(folder or ''), code)}; {told}") from error


def best_meta(folder: str | os.PathLike[str], meta: PyTree) -> Any:
    """The best meta-parameters that a run of `train` has saved so far.

    Args:
        folder: the run's folder.
        meta: meta-parameters of the same structure, e.g. from `learner.init`.

    Returns:
        The meta-parameters.

    Raises:
        FileNotFoundError: if `folder` has no checkpoint.
        ValueError: if the checkpoint is of another configuration, or damaged.
    """
    from jaxmeta.training._checkpoint import Checkpoints

    class Part(NamedTuple):
        best: Any

    path = Path(folder) / "checkpoints"
    if not path.is_dir():
        raise FileNotFoundError(f"no checkpoint in {path}")
    with Checkpoints(path, read_only=True) as checkpoints:
        return checkpoints.restore(Part(meta), part=True).best


def _os_error(error: Exception) -> int | None:
    """The number of the operating system's error; tensorstore, which writes checkpoints, has it in its text only."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return int(found[1]) if found else None
