"""What every run has: its options, a folder that says what was run and what came out, a test that can be repeated."""

import abc
import dataclasses
import os
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, Self

import jax
from jax.sharding import Mesh

from jaxmeta._cost import Cost
from jaxmeta.runs._options import check_options
from jaxmeta._step import Summary
from jaxmeta.training import Trained
from jaxmeta._types import MetaParams


class Parts(Protocol):
    """What a run is made of."""

    @property
    def meta(self) -> MetaParams:
        """Where it starts."""
        ...

    def train(self, folder: Path, mesh: Mesh | None, progress: bool) -> Trained:
        """Meta-trains."""
        ...

    def test(self, meta: MetaParams, mesh: Mesh | None = None) -> dict[str, Summary]:
        """Adapts to the test tasks and summarizes each metric."""
        ...

    def estimate(self, mesh: Mesh | None = None) -> Cost:
        """Compiles an outer update, and does not run it."""
        ...


@dataclasses.dataclass(frozen=True)
class Run(abc.ABC):
    """What `Experiment` and `RLExperiment` share."""

    benchmark: str
    """Where the tasks come from; `jaxmeta list` shows all."""
    learner: str
    """The meta-learning algorithm; `jaxmeta list` shows all."""
    steps: int | None = None
    """Inner steps in meta-training."""
    test_steps: int | None = None
    """Inner steps at validation and test."""
    inner_rate: float | None = None
    """Inner learning rate (meta-sgd: where the learned rates start)."""
    outer_rate: float | None = None
    """Outer learning rate: of Adam; reptile: of plain steps towards the adapted parameters; maml-trpo and e-maml: the
    largest divergence of an update in nats."""
    outer_schedule: Literal["constant", "linear", "cosine"] | None = None
    """How the outer rate falls to 0 over the run."""
    clip: float | None = None
    """Scale a meta-gradient whose norm is larger down to this norm; if not given none is."""
    skip_nonfinite: bool = False
    """Leave out an outer update that is not finite, instead of stopping."""
    num_tasks: int | None = None
    """Tasks per outer update."""
    iterations: int = 2000
    """Outer updates."""
    validate_every: int = 500
    """Outer updates between validations."""
    validation_tasks: int = 200
    """Tasks per validation."""
    test_tasks: int = 600
    """Tasks of the final test."""
    seed: int = 0
    """Seed of everything random."""

    @property
    @abc.abstractmethod
    def monitor(self) -> str:
        """The metric that counts."""

    @property
    @abc.abstractmethod
    def task(self) -> str:
        """The kind of task in a few words, such as `5-way 1-shot`."""

    @property
    def note(self) -> str:
        """What a reader of the report must know."""
        return ""

    @property
    def unused(self) -> tuple[str, ...]:
        """Options that mean nothing here and say nothing in the report."""
        return ()

    @abc.abstractmethod
    def names(self) -> dict[str, tuple[str, ...]]:
        """The benchmarks and the learners that there are."""

    @abc.abstractmethod
    def limited(self) -> dict[str, tuple[str, ...]]:
        """The options that some learners have and others not, and which ones have them."""

    @abc.abstractmethod
    def check(self) -> None:
        """Raises a `ValueError` if options do not fit together."""

    @abc.abstractmethod
    def published(self) -> dict[str, object]:
        """The options that the learner has, with the values of its paper."""

    @abc.abstractmethod
    def build(self, root: str | Path | None = None, download: bool = False) -> Parts:
        """Makes the parts that this description names."""

    def resolve(self) -> Self:
        """The same run with every `None` that has a published value filled in.

        Raises:
            ValueError: if a name is unknown, a number is out of range, or an option does not apply.
        """
        check_options(self)
        self.check()
        return dataclasses.replace(self, **{k: v for k, v in self.published().items() if getattr(self, k) is None})

    def default_folder(self) -> Path:
        """`runs/<benchmark>-<learner>-<task>-seed<seed>`, with a task such as `5way-1shot`."""
        task = self.resolve().task.replace("-", "").replace(" ", "-")
        return Path("runs", f"{self.benchmark}-{self.learner}-{task}-seed{self.seed}")

    def run(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        root: str | Path | None = None,
        download: bool = False,
        mesh: Mesh | None = None,
        progress: bool = True,
    ) -> "Result":
        """Meta-trains, tests on the test split, and leaves a folder that says what was run and what came out.

        The folder holds `config.json`, `metrics.jsonl`, `checkpoints/`, `result.json`, `curve.png` and `report.md`. A
        run that was cut short goes on from its last checkpoint when it is called again.

        Args:
            folder: where to; `default_folder()` if `None`.
            root: folder with the benchmark's files, if it needs any.
            download: allow a download of missing files.
            mesh: devices to divide the tasks over, see `train`; of several processes each one calls this.
            progress: show progress bars.

        Returns:
            The `Result`.

        Raises:
            ValueError: as `resolve`, or if `folder` holds something else.
            FileNotFoundError: if the benchmark's files are missing.
            FloatingPointError: if training diverges; the last finite state is kept.

        Example:
            >>> import tempfile
            >>> from jaxmeta import Experiment
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     result = Experiment("sinusoid", iterations=50).run(folder, progress=False)
            >>> result.test["loss"].num_tasks
            600
        """
        from jaxmeta.runs._report import claim, write_report

        folder = Path(folder or self.default_folder())
        resolved = self.resolve()
        parts = resolved.build(root, download)
        claim(folder, resolved)
        trained = parts.train(folder, mesh, progress)
        result = Result(resolved, folder, trained, parts.test(trained.meta, mesh))
        if jax.process_index() == 0:
            write_report(result)
        return result


class Result(NamedTuple):
    """What `Experiment.run` and `RLExperiment.run` return."""

    experiment: Run
    """The experiment, with all values filled in."""
    folder: Path
    """Where everything is."""
    trained: Trained
    """The best meta-parameters and the history."""
    test: dict[str, Summary]
    """Each metric over the test tasks."""
