"""A run described by one value: built, trained, tested and reported with one call, from Python or the command line."""

import dataclasses
import math
import os
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxmeta import data
from jaxmeta._log import best_meta
from jaxmeta._losses import classification, regression
from jaxmeta._options import check_options
from jaxmeta._parts import Parts
from jaxmeta._recipes import RECIPES, Network, build_model, build_optimizer, learners_with, published
from jaxmeta._step import Summary
from jaxmeta._train import Trained, train
from jaxmeta._types import MetaLearner, PyTree
from jaxmeta.algorithms import Contextual


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides the result of a run.

    What is left at None takes the value of the learner's paper for Omniglot, or for sinusoids.
    """

    benchmark: str = "glyphs"
    """Where the tasks come from; `jaxmeta list` shows all."""
    learner: str = "maml"
    """The meta-learning algorithm; `jaxmeta list` shows all."""
    ways: int = 5
    """Classes per task (not for regression)."""
    train_ways: int | None = None
    """The same in meta-training, for learners that fit a head to features, such as protonet: 60 if not given."""
    shots: int | None = None
    """Labelled examples to adapt on: per class 1 if not given, in regression per task 10."""
    train_shots: int | None = None
    """The same in meta-training, if it is to differ (reptile: 10 if not given)."""
    queries: int | None = None
    """Examples of the query set, in meta-training: per class 1 if not given, in regression per task 10."""
    test_queries: int | None = None
    """The same at validation and test, if it is to differ. A model with batch norm sees a query set as a whole (it is
    transductive), so this number matters."""
    split: str | None = None
    """How classes are divided into training, validation and test, if the benchmark offers a choice."""
    model: Literal["cnn", "cnn4", "fc", "mlp"] | None = None
    """cnn: 4 strided convolutions; cnn4: 4 convolutions with max-pooling; fc: fully connected, 256-128-64-64; mlp:
    40-40 for regression, one hidden layer for text. If not given cnn for images, else mlp."""
    norm: Literal["batch", "group", "layer", "none"] = "batch"
    """Normalisation; batch uses the statistics of the batch at hand, at test too (it is transductive). Not for mlp."""
    hidden: int = 64
    """Channels of cnn and cnn4; width of mlp for text."""
    steps: int | None = None
    """Inner steps in meta-training."""
    test_steps: int | None = None
    """Inner steps at validation and test."""
    inner_rate: float | None = None
    """Inner learning rate (meta-sgd: where the learned rates start)."""
    context_size: int | None = None
    """Context parameters per task, for cavia only."""
    proximal: float | None = None
    """Strength of the pull to the initial parameters, for imaml only."""
    inner_batch: int | None = None
    """Examples per inner step in meta-training, for reptile only."""
    test_inner_batch: int | None = None
    """Examples per inner step at validation and test, for reptile only."""
    meta_gradient: Literal["reverse", "mixed", "first-order"] | None = None
    """How the meta-gradient is computed: reverse if not given. fomaml, imaml and reptile have their own."""
    outer_rate: float | None = None
    """Outer learning rate: of Adam, or (reptile) of plain steps towards the adapted parameters."""
    outer_schedule: Literal["constant", "linear", "cosine"] | None = None
    """How the outer rate falls to 0 over the run."""
    iterations: int = 2000
    """Outer updates."""
    num_tasks: int | None = None
    """Tasks per outer update."""
    batch_size: int | None = None
    """Tasks treated at once; if not given, what suits the device. Changes the speed, not the result."""
    validate_every: int = 500
    """Outer updates between validations."""
    validation_tasks: int = 200
    """Tasks per validation."""
    test_tasks: int = 600
    """Tasks of the final test."""
    seed: int = 0
    """Seed of everything random."""

    @property
    def regressing(self) -> bool:
        """Whether the benchmark's targets are numbers, not classes."""
        return self.kind == "regression"

    @property
    def kind(self) -> str:
        """`"images"`, `"text"` or `"regression"`."""
        return data.describe_tasksets(self.benchmark).kind

    @property
    def monitor(self) -> str:
        """The metric that counts."""
        return "loss" if self.regressing else "accuracy"

    def resolve(self) -> "Experiment":
        """The same experiment with every `None` that has a published value filled in.

        Raises:
            ValueError: if a name is unknown, a number is out of range, or an option does not apply.
        """
        check_options(self)
        values = published(self.learner, self.ways, self.kind)
        return dataclasses.replace(self, **{k: v for k, v in values.items() if getattr(self, k) is None})

    def default_folder(self) -> Path:
        """`runs/<benchmark>-<learner>-<ways>way-<shots>shot-seed<seed>`."""
        ways = "" if self.regressing else f"{self.ways}way-"
        return Path("runs", f"{self.benchmark}-{self.learner}-{ways}{self.resolve().shots}shot-seed{self.seed}")

    def build(self, root: str | Path | None = None, download: bool = False) -> Parts:
        """Makes the parts that this description names.

        Args:
            root: folder with the benchmark's files, if it needs any.
            download: allow a download of missing files.

        Raises:
            ValueError: as `resolve`.
            FileNotFoundError: if the benchmark's files are missing.
        """
        this = self.resolve()
        sets = data.get_tasksets(
            this.benchmark,
            None if this.regressing else this.train_ways or this.ways,
            this.train_shots or this.shots,
            this.queries,
            test_ways=this.ways if this.train_ways else None,
            test_shots=this.shots,
            test_queries=this.test_queries,
            split=this.split,
            root=root,
            download=download or None,
        )
        model = build_model(this)

        def forward(params: PyTree, x: jax.Array) -> Any:
            if isinstance(params, Contextual):
                return model.apply(params.params, x, params.context)
            return model.apply(params, x)

        loss_fn = regression(forward) if this.regressing else classification(forward)
        trained = RECIPES[this.learner].build(this, Network(loss_fn, lambda name: partial(model.apply, method=name)))
        learner = trained if isinstance(trained, MetaLearner) else trained(jnp.int32(0))
        init_key, train_key, test_key = jax.random.split(jax.random.key(this.seed), 3)
        context = [] if this.context_size is None else [jnp.zeros(this.context_size)]
        meta = learner.init(model.init(init_key, sets.train.example, *context))
        return Parts(model, learner, trained, build_optimizer(this), sets, meta, train_key, test_key)

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
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     result = Experiment("sinusoid", iterations=50).run(folder, progress=False)
            >>> result.test["loss"].num_tasks
            600
        """
        from jaxmeta._report import claim, write_report

        folder = Path(folder or self.default_folder())
        resolved = self.resolve()
        parts = resolved.build(root, download)
        claim(folder, resolved)
        validate_every = min(resolved.validate_every, resolved.iterations)
        trained = train(
            parts.trained,
            parts.optimizer,
            parts.meta,
            parts.tasksets.train,
            parts.train_key,
            iterations=resolved.iterations,
            num_tasks=resolved.num_tasks or 1,
            batch_size=resolved.batch_size,
            mesh=mesh,
            validation=parts.tasksets.validation,
            validation_tasks=resolved.validation_tasks,
            validate_every=validate_every,
            monitor=resolved.monitor,
            log_every=math.gcd(validate_every, 50),
            folder=folder,
            progress=progress,
        )
        test = parts.test(trained.meta, resolved.test_tasks, resolved.batch_size, mesh)
        result = Result(resolved, folder, trained, test)
        if jax.process_index() == 0:
            write_report(result)
        return result


class Result(NamedTuple):
    """What `Experiment.run` returns."""

    experiment: Experiment
    """The experiment, with all values filled in."""
    folder: Path
    """Where everything is."""
    trained: Trained
    """The best meta-parameters and the history."""
    test: dict[str, Summary]
    """Each metric over the test tasks."""


def evaluate_run(
    folder: str | os.PathLike[str],
    *,
    num_tasks: int | None = None,
    ways: int | None = None,
    test_steps: int | None = None,
    test_queries: int | None = None,
    root: str | Path | None = None,
) -> dict[str, Summary]:
    """Tests the best meta-parameters of a run once more, perhaps with other settings. Changes nothing in the folder.

    Args:
        folder: a folder that `Experiment.run` made.
        num_tasks: test tasks; `None` for the run's.
        ways: classes per task, for learners that fit a head to features; `None` for the run's.
        test_steps: inner steps; `None` for the run's.
        test_queries: query examples per class; `None` for the run's.
        root: folder with the benchmark's files, if it needs any.

    Returns:
        Each metric over the test tasks.

    Raises:
        FileNotFoundError: if `folder` is not the folder of a run, or has no checkpoint yet.
        ValueError: if a number is out of range, the learner cannot do with other `ways`, or the folder is damaged.
    """
    from jaxmeta._report import read_experiment

    experiment = read_experiment(Path(folder))
    if experiment is None:
        raise FileNotFoundError(f"{folder} is not the folder of a run: it has no config.json")
    able = learners_with("train_ways")
    if ways not in (None, experiment.ways) and experiment.learner not in able:
        told = f"ways of {experiment.learner} must be the run's, {experiment.ways}, got {ways}"
        raise ValueError(f"{told}; others are for {', '.join(able)}")
    changes = {"ways": ways, "test_tasks": num_tasks, "test_steps": test_steps, "test_queries": test_queries}
    experiment = dataclasses.replace(experiment, **{k: v for k, v in changes.items() if v is not None})
    parts = experiment.build(root)
    return parts.test(best_meta(folder, parts.meta), experiment.test_tasks, experiment.batch_size)
