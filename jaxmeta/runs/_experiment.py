"""A run as one value, for few-shot learning, regression and reinforcement learning alike."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxmeta._checks import as_functions
from jaxmeta._names import find_name
from jaxmeta._save import save
from jaxmeta.catalog import LEARNERS, Settings, check_minutes, resolve
from jaxmeta.data import BenchmarkTasksets
from jaxmeta.display import progress_bar, short_repr
from jaxmeta.reports import task_name, write_report
from jaxmeta.runs import _policy_run, _pretrained_run, _task_run
from jaxmeta.runs._data import load_tasksets
from jaxmeta.runs._folder import META_FILE, check_folder, claim_folder, recorded_classes, report_of, resuming
from jaxmeta.runs._options import OPTIONS, Options
from jaxmeta.runs._parts import Parts, Result
from jaxmeta.training import Callback, Trained, hold


@dataclasses.dataclass(frozen=True)
class Experiment(Options):
    """A run: a benchmark, a learner, and every option that decides the result.

    An option that is `None` takes the value of the learner's paper, or the default of the benchmark, the model or the
    kind of run. `resolve` shows the final values. An option that does not apply is an error. The documentation of the
    command line and `jaxmeta train --help` describe all options.

    Example:
        >>> settings = Experiment("glyphs", "protonet", ways=20).resolve()
        >>> settings.train_ways, settings.outer_rate
        (60, 0.003)
        >>> Experiment("bandit-bernoulli", "rl2", episodes=1).resolve().num_tasks
        256
    """

    __repr__ = short_repr

    def resolve(self) -> Settings:
        """Returns the settings of the run: every option that applies, with its final value.

        Raises:
            ValueError: if a name is unknown, a number is out of range, or an option does not apply.
            ModuleNotFoundError: if the environment needs a package that is not installed.
        """
        return resolve(OPTIONS, dataclasses.asdict(self))

    def vary(self, **values: Sequence[Any]) -> "dict[str, Experiment]":
        """Returns an experiment for each combination of some values, by names such as `outer-rate=0.01,seed=0`.

        Args:
            values: values of options. The names hold the options with more than one.

        Raises:
            ValueError: if an option is unknown, or its values are none or not different.

        Example:
            >>> runs = Experiment("sinusoid").vary(outer_rate=(0.001, 0.01), seed=(0, 1))
            >>> list(runs)
            ['outer-rate=0.001,seed=0', 'outer-rate=0.001,seed=1', 'outer-rate=0.01,seed=0', 'outer-rate=0.01,seed=1']
            >>> runs["outer-rate=0.01,seed=1"].outer_rate
            0.01
        """
        for name, some in values.items():
            find_name("option", name, OPTIONS)
            if isinstance(some, str) or len(some) == 0 or len(set(some)) < len(some):
                raise ValueError(f"{name} must be different values in a list or a tuple, got {some!r}")
        values = {name: values[name] for name in OPTIONS if name in values}
        found = {}
        for chosen in itertools.product(*values.values()):
            options = dict(zip(values, chosen, strict=True))
            named = [f"{OPTIONS[name].flag[2:]}={value}" for name, value in options.items() if len(values[name]) > 1]
            found[",".join(named)] = dataclasses.replace(self, **options)
        return found

    def default_folder(self, varied: bool = False) -> Path:
        """Returns `runs/<benchmark>-<learner>-<task>-seed<seed>`, with a task such as `5way-1shot`.

        Args:
            varied: whether it is for several experiments (see `vary`), with `sweep` in place of the seed.
        """
        settings = self.resolve()
        task = task_name(settings).replace("-", "").replace(" ", "-")
        end = "sweep" if varied else f"seed{settings.seed}"
        return Path("runs", f"{settings.benchmark}-{settings.learner}-{task}-{end}")

    def build(
        self,
        root: str | Path | None = None,
        download: bool = False,
        classes: Mapping[str, Sequence[str]] | None = None,
    ) -> Parts:
        """Makes the parts of the run: data, model, learner and optimizer.

        Args:
            root: folder with the benchmark's files, if it needs any.
            download: whether to fetch missing files.
            classes: class names of each part in place of the benchmark's division, see `BenchmarkTasksets.classes`.

        Raises:
            ValueError: as `resolve`, or if an argument does not apply.
            FileNotFoundError: if the benchmark's files are missing.
        """
        settings = self.resolve()
        if settings.kind == "environment":
            if root is not None or download:
                raise ValueError(f"root and download do not apply to {settings.benchmark}, which has no files")
            return build(settings)
        return build(settings, partial(load_tasksets, settings, root, download, classes))

    def run(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        root: str | Path | None = None,
        download: bool = False,
        mesh: Mesh | None = None,
        minutes: float | None = None,
        progress: bool = True,
        callback: Callback | Sequence[Callback] = (),
    ) -> Result:
        """Meta-trains, tests on the test split, and leaves a folder that records the settings and the results.

        The folder holds `config.json`, `training.json`, `metrics.jsonl`, `checkpoints/`, `meta.msgpack` (the best
        meta-parameters, for `load_run`), `result.json`, `curve.png`, `report.md` and `report.html`. A run that was
        interrupted resumes from its last checkpoint when you call it again.

        Args:
            folder: folder of the run; `default_folder()` if `None`.
            root: folder with the benchmark's files, if it needs any.
            download: whether to fetch missing files.
            mesh: devices to divide the tasks over, see `train`. With several processes each one calls this.
            minutes: end the training when it has taken so long, as if `iterations` were reached, see `loop`. It is no
                part of the settings, so a run resumes with another limit or without one.
            progress: whether to show progress bars.
            callback: `(record) -> None`, or several of them, called with each record of the training, see `loop`.

        Returns:
            The `Result`.

        Raises:
            ValueError: as `resolve`, if `minutes` is given and the outer rate decays over all updates, or if `folder`
                holds something else. This is found before any data are read. Also if a run is resumed with other data.
            BlockingIOError: if another process trains in `folder`.
            FileNotFoundError: if the benchmark's files are missing.
            FloatingPointError: if training diverges; the last finite state is kept.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     result = Experiment("sinusoid", iterations=50).run(folder, progress=False)
            >>> result.test["loss"].num_tasks
            600
        """
        settings = self.resolve()
        check_minutes(settings, minutes)
        callbacks = as_functions(callback=callback)
        folder = Path(folder or self.default_folder())
        check_folder(folder, settings)
        with resuming(folder):
            parts = self.build(root, download, recorded_classes(folder))
        with hold(folder):
            claim_folder(folder, settings, parts.facts, root)
            trained = parts.train(folder, mesh, minutes, progress, callbacks)
            return conclude(settings, folder, parts, trained, mesh, progress)


def conclude(
    settings: Settings, folder: Path, parts: Parts, trained: Trained, mesh: Mesh | None, progress: bool
) -> Result:
    """Tests what was trained, and leaves the report in the folder."""
    shown = progress and jax.process_index() == 0
    with progress_bar(f"Testing on {settings.test_tasks} tasks", shown=shown, delay=0.0):
        tested, untrained = parts.test([trained.meta, parts.untrained()], mesh)
    if jax.process_index() == 0:
        save(folder / META_FILE, trained.meta)
        findings = parts.examine(trained.meta, tested, untrained)
        write_report(folder, report_of(folder, settings, trained, tested, findings))
    return Result(settings, folder, trained, tested.summaries)


def build(settings: Settings, read: Callable[[], BenchmarkTasksets] | None = None) -> Parts:
    """Makes the parts of a run with the data that `read` returns, or without data for an environment."""
    if read is None:
        return _policy_run.build(settings)
    module = _pretrained_run if LEARNERS[settings.learner].trains_on in ("classes", "features") else _task_run
    return module.build(settings, read)
