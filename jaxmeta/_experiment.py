"""A run described by one value: built, trained, tested and reported with one call, from Python or the command line."""

import dataclasses
import json
import math
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import optax
from flax import linen as nn

from jaxmeta import data, models
from jaxmeta._losses import classification, regression
from jaxmeta._meta_gradient import first_order, mixed, reverse
from jaxmeta._step import Summary, evaluate, summarize
from jaxmeta._train import Trained, best_meta, train, write_atomically
from jaxmeta._types import LossFn, MetaLearner, MetaParams
from jaxmeta.algorithms import anil, fomaml, maml, meta_sgd, reptile

_SCHEDULES = {
    "constant": lambda rate, steps: optax.constant_schedule(rate),
    "linear": lambda rate, steps: optax.linear_schedule(rate, 0.0, steps),
    "cosine": optax.cosine_decay_schedule,
}
META_GRADIENTS = {"reverse": reverse, "mixed": mixed, "first-order": first_order}

# Values that an Experiment leaves at None: those of each algorithm's paper for Omniglot. `20` holds what changes from
# 20 ways on.
_MAML = {
    "steps": 1,
    "test_steps": 3,
    "inner_rate": 0.4,
    "outer_rate": 1e-3,
    "outer_schedule": "constant",
    "num_tasks": 32,
}
_MAML_20 = {"steps": 5, "test_steps": 5, "inner_rate": 0.1, "num_tasks": 16}
_PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "maml": (_MAML, _MAML_20),
    "fomaml": (_MAML, _MAML_20),
    "anil": (_MAML, _MAML_20),
    "meta-sgd": ({**_MAML, "inner_rate": 0.1, "test_steps": 1}, {"num_tasks": 16}),
    "reptile": (
        {
            "steps": 5,
            "test_steps": 50,
            "inner_rate": 1e-3,
            "outer_rate": 1.0,
            "outer_schedule": "linear",
            "num_tasks": 5,
            "train_shots": 10,
            "inner_batch": 10,
            "test_inner_batch": 5,
        },
        {"steps": 10, "inner_rate": 5e-4, "inner_batch": 20, "test_inner_batch": 10},
    ),
}
LEARNERS = tuple(_PUBLISHED)
_REGRESSION = ("sinusoid",)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides the result of a run.

    Options left at None take the value of the learner's paper for Omniglot.
    """

    benchmark: str = "glyphs"
    """Where the tasks come from: see `jaxmeta list`."""
    learner: Literal["maml", "fomaml", "anil", "meta-sgd", "reptile"] = "maml"
    """The meta-learning algorithm."""
    ways: int = 5
    """Classes per task."""
    shots: int = 1
    """Labelled examples per class to adapt on (regression: examples per task)."""
    train_shots: int | None = None
    """Shots in meta-training, if not the same."""
    queries: int = 1
    """Examples per class (regression: per task) of the query set in meta-training."""
    test_queries: int | None = None
    """The same at validation and test; the same as `queries` if None. Models with batch norm see a query set as a
    whole (they are transductive), so this number matters."""
    model: Literal["cnn", "cnn4", "fc", "mlp"] | None = None
    """cnn: 4 strided convolutions; cnn4: with max-pooling; fc: fully connected; mlp: two layers of 40, for regression
    (the default there; cnn elsewhere)."""
    norm: Literal["batch", "group", "layer", "none"] = "batch"
    """Normalisation. batch uses the statistics of the batch at hand, at test too (transductive)."""
    hidden: int = 64
    """Channels of cnn and cnn4."""
    steps: int | None = None
    """Inner steps in meta-training."""
    test_steps: int | None = None
    """Inner steps at validation and test."""
    inner_rate: float | None = None
    """Inner learning rate (meta-sgd: where the learned rates start)."""
    inner_batch: int | None = None
    """Examples per inner step (reptile)."""
    test_inner_batch: int | None = None
    """The same at test (reptile)."""
    meta_gradient: Literal["reverse", "mixed", "first-order"] = "reverse"
    """How the meta-gradient is computed (not used by fomaml and reptile)."""
    outer_rate: float | None = None
    """Outer learning rate: of Adam, or (reptile) of plain steps towards the adapted parameters."""
    outer_schedule: Literal["constant", "linear", "cosine"] | None = None
    """How the outer rate falls to 0 over the run."""
    num_tasks: int | None = None
    """Tasks per outer update."""
    batch_size: int | None = None
    """Tasks treated at once by vmap; None chooses for the device."""
    iterations: int = 2000
    """Outer updates."""
    validate_every: int = 500
    """Outer updates between validations and checkpoints."""
    validation_tasks: int = 200
    """Tasks per validation."""
    test_tasks: int = 600
    """Tasks of the final test."""
    split: str | None = None
    """Which split of the benchmark, if it has several."""
    seed: int = 0
    """Seed of everything random."""

    @property
    def regressing(self) -> bool:
        """Whether the benchmark's targets are numbers, not classes."""
        return self.benchmark in _REGRESSION

    @property
    def monitor(self) -> str:
        """The metric that counts."""
        return "loss" if self.regressing else "accuracy"

    def resolve(self) -> "Experiment":
        """The same experiment with every `None` that has a published value filled in.

        Raises:
            ValueError: if the learner is unknown or a number is out of range.
        """
        if self.learner not in _PUBLISHED:
            raise ValueError(f"learner must be one of {LEARNERS}, got {self.learner!r}")
        values, from_20_ways = _PUBLISHED[self.learner]
        if self.ways >= 20:
            values = {**values, **from_20_ways}
        missing = {name: value for name, value in values.items() if getattr(self, name) is None}
        resolved = dataclasses.replace(self, **missing)
        for name in ("inner_rate", "outer_rate"):
            if not 0 < getattr(resolved, name) < math.inf:
                raise ValueError(f"{name} must be a positive number, got {getattr(resolved, name)}")
        return resolved

    def default_folder(self) -> Path:
        """`runs/<benchmark>-<learner>-<ways>way-<shots>shot-seed<seed>`."""
        return Path("runs", f"{self.benchmark}-{self.learner}-{self.ways}way-{self.shots}shot-seed{self.seed}")

    def build(self, root: str | Path | None = None, download: bool = False) -> "Parts":
        """Makes the parts that this description names.

        Args:
            root: folder with the benchmark's files, if it needs any.
            download: allow a download of missing files.

        Raises:
            ValueError: if a name is unknown or a number is out of range.
            FileNotFoundError: if the benchmark's files are missing.
        """
        this = self.resolve()
        sets = data.get_tasksets(
            this.benchmark,
            None if this.regressing else this.ways,
            this.train_shots or this.shots,
            this.queries,
            test_shots=this.shots,
            test_queries=this.test_queries,
            split=this.split,
            root=root,
            download=download or None,
        )
        model = this._model()
        loss_fn = regression(model.apply) if this.regressing else classification(model.apply)
        learner, rate = this._learner(loss_fn), this.outer_rate or 0.0
        schedule = _SCHEDULES[this.outer_schedule or "constant"](rate, this.iterations)
        optimizer = optax.sgd(schedule) if this.learner == "reptile" else optax.adam(schedule)
        key = jax.random.key(this.seed)
        init_key, train_key, test_key = jax.random.split(key, 3)
        meta = learner.init(model.init(init_key, sets.train.example))
        return Parts(model, learner, optimizer, sets, meta, train_key, test_key)

    def _model(self) -> nn.Module:
        name = self.model or ("mlp" if self.regressing else "cnn")
        if (name == "mlp") != self.regressing:
            allowed = "'mlp'" if self.regressing else "'cnn', 'cnn4' or 'fc'"
            raise ValueError(f"model must be {allowed} for {self.benchmark!r}, got {name!r}")
        if name == "mlp":
            return models.MLP()
        if name == "fc":
            return models.OmniglotFC(ways=self.ways, norm=self.norm)
        network = models.OmniglotCNN if name == "cnn" else models.CNN4
        return network(ways=self.ways, hidden=self.hidden, norm=self.norm)

    def _learner(self, loss_fn: LossFn) -> MetaLearner:
        steps, test_steps, rate = self.steps or 1, self.test_steps, self.inner_rate or 0.0
        meta_gradient = META_GRADIENTS[self.meta_gradient]()
        match self.learner:
            case "maml":
                return maml(loss_fn, optax.sgd(rate), steps, test_steps=test_steps, meta_gradient=meta_gradient)
            case "fomaml":
                return fomaml(loss_fn, optax.sgd(rate), steps, test_steps=test_steps)
            case "anil":
                return anil(loss_fn, optax.sgd(rate), steps, test_steps=test_steps, meta_gradient=meta_gradient)
            case "meta-sgd":
                return meta_sgd(loss_fn, rate, steps, test_steps=test_steps, meta_gradient=meta_gradient)
            case "reptile":
                inner = optax.adam(rate, b1=0.0)
                return reptile(
                    loss_fn,
                    inner,
                    steps,
                    test_steps=test_steps,
                    batch_size=self.inner_batch,
                    test_batch_size=self.test_inner_batch,
                )

    def run(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        root: str | Path | None = None,
        download: bool = False,
        progress: bool = True,
    ) -> "Result":
        """Meta-trains, tests on the test split, and leaves a folder that says what was run and what came out.

        The folder holds `config.json`, `metrics.jsonl`, `checkpoints/`, `result.json`, `curve.png` and `report.md`. A
        run that was cut short goes on from its last checkpoint when it is called again.

        Args:
            folder: where to; `default_folder()` if `None`.
            root: folder with the benchmark's files, if it needs any.
            download: allow a download of missing files.
            progress: show progress bars.

        Returns:
            The `Result`.

        Raises:
            ValueError: if a name is unknown, a number is out of range, or `folder` holds another experiment's run.
            FileNotFoundError: if the benchmark's files are missing.
            FloatingPointError: if training diverges; the last finite state is kept.

        Example:
            >>> import tempfile
            >>> result = Experiment("sinusoid", shots=10, queries=10, inner_rate=0.001, iterations=50).run(
            ...     tempfile.mkdtemp(), progress=False)
            >>> result.test["loss"].num_tasks
            600
        """
        from jaxmeta._report import write_report

        folder = Path(folder or self.default_folder())
        resolved = self.resolve()
        parts = resolved.build(root, download)
        _claim(folder, resolved)
        trained = train(
            parts.learner,
            parts.optimizer,
            parts.meta,
            parts.tasksets.train,
            parts.train_key,
            iterations=resolved.iterations,
            num_tasks=resolved.num_tasks or 1,
            batch_size=resolved.batch_size,
            validation=parts.tasksets.validation,
            validation_tasks=resolved.validation_tasks,
            validate_every=min(resolved.validate_every, resolved.iterations),
            monitor=resolved.monitor,
            log_every=math.gcd(min(resolved.validate_every, resolved.iterations), 50),
            folder=folder,
            progress=progress,
        )
        test = parts.test(trained.meta, resolved.test_tasks, resolved.batch_size)
        result = Result(resolved, folder, trained, test)
        write_report(result)
        return result


class Parts(NamedTuple):
    """What an `Experiment` is made of."""

    model: nn.Module
    learner: MetaLearner
    optimizer: optax.GradientTransformation
    tasksets: data.TaskSets
    meta: MetaParams
    train_key: jax.Array
    test_key: jax.Array

    def test(self, meta: MetaParams, num_tasks: int, batch_size: int | None = None) -> dict[str, Summary]:
        """Adapts to `num_tasks` tasks of the test split and summarises each metric."""
        run = jax.jit(evaluate(self.learner, num_tasks, batch_size=batch_size))
        return summarize(run(meta, self.tasksets.test, self.test_key))


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
    num_tasks: int = 600,
    test_steps: int | None = None,
    test_queries: int | None = None,
    root: str | Path | None = None,
) -> dict[str, Summary]:
    """Tests the best meta-parameters of a run once more, perhaps with other settings.

    Args:
        folder: a folder that `Experiment.run` made.
        num_tasks: test tasks.
        test_steps: inner steps; `None` for the run's.
        test_queries: query examples per class; `None` for the run's.
        root: folder with the benchmark's files, if it needs any.

    Returns:
        Each metric over the test tasks.

    Raises:
        FileNotFoundError: if `folder` is not the folder of a run, or has no checkpoint yet.
    """
    config = _read_config(Path(folder))
    if config is None:
        raise FileNotFoundError(f"{folder} is not the folder of a run: it has no config.json")
    experiment = Experiment(**config["experiment"])
    changes = {"test_steps": test_steps, "test_queries": test_queries}
    parts = dataclasses.replace(experiment, **{k: v for k, v in changes.items() if v is not None}).build(root)
    return parts.test(best_meta(folder, parts.meta, parts.optimizer), num_tasks, experiment.batch_size)


def _read_config(folder: Path) -> dict[str, Any] | None:
    path = folder / "config.json"
    return json.loads(path.read_text()) if path.exists() else None


def _claim(folder: Path, experiment: Experiment) -> None:
    """Writes what is being run into the folder, or checks that it is what was run there before."""
    wanted = dataclasses.asdict(experiment)
    old = _read_config(folder)
    if old is not None:
        different = [
            f"{name} was {old['experiment'].get(name)!r}, now {value!r}"
            for name, value in wanted.items()
            if old["experiment"].get(name) != value
        ]
        if different:
            raise ValueError(
                f"folder {folder} holds another experiment ({'; '.join(different)}); choose another folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    device = jax.devices()[0]
    config = {
        "experiment": wanted,
        "versions": {name: version(name) for name in ("jaxmeta", "jax", "jaxlib", "flax", "optax", "numpy")},
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform}, {os.cpu_count()} host cores)",
        "python": platform.python_version(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_atomically(folder / "config.json", json.dumps(config, indent=2) + "\n")
