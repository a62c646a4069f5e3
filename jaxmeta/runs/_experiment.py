"""A run as one value, for few-shot learning, regression and reinforcement learning alike."""

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from jaxmeta._summary import Summary
from jaxmeta.catalog import CLASSES, LEARNERS, TASKS, Same, Settings, option, options_of, resolve
from jaxmeta.runs import _policy_run, _pretrained_run, _task_run
from jaxmeta.runs._folder import check_folder, claim_folder
from jaxmeta.runs._parts import Parts, task_name
from jaxmeta.runs._report import write_report
from jaxmeta.training import Trained


@dataclasses.dataclass(frozen=True)
class Experiment:
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

    benchmark: str | None = option("Benchmark or environment; `jaxmeta list` shows all.", "tasks", default="glyphs")
    learner: str | None = option(
        "Meta-learning algorithm; `jaxmeta list` shows all.",
        "learner",
        default={**dict.fromkeys(TASKS, "maml"), "environment": "promp"},
        known_as=("algorithm", "algo", "method"),
    )
    ways: int | None = option(
        "Classes per task.", "tasks", default=5, kinds=CLASSES, least=2, known_as=("n-way", "way", "num-classes")
    )
    train_ways: int | None = option("Classes per task in meta-training.", "tasks", least=2)
    shots: int | None = option(
        "Labeled examples to adapt on: per class, in regression per task.",
        "tasks",
        default={**dict.fromkeys(CLASSES, 1), "regression": 10},
        known_as=("k-shot", "shot"),
    )
    train_shots: int | None = option("The same in meta-training.", "tasks", default=dict.fromkeys(TASKS, Same("shots")))
    queries: int | None = option(
        "Query examples in meta-training: per class, in regression per task.",
        "tasks",
        default={**dict.fromkeys(CLASSES, 1), "regression": 10},
        known_as=("query",),
    )
    test_queries: int | None = option(
        "Query examples at validation and test. With batch norm the number matters: the network sees a query set as a "
        "whole (it is transductive).",
        "tasks",
        default=dict.fromkeys(TASKS, Same("queries")),
    )
    test_rotations: bool | None = option(
        "Rotated characters are classes of their own at validation and test too, as in ProtoNets' paper.", "tasks"
    )
    split: str | None = option("Division of the classes into training, validation and test.", "tasks")
    base_classes: int | None = option(
        "Classes to pre-train on, for benchmarks that draw classes without end.", "tasks", known_as=("classes",)
    )
    variant: str | None = option("Paper whose environment is used, where definitions differ.", "environment")
    horizon: int | None = option("Steps per episode.", "environment", known_as=("episode-length", "max-steps"))
    backend: str | None = option("Physics engine of brax, for environments with a body.", "environment")
    episodes: int | None = option(
        "Episodes per task before each inner step and after the last one. "
        "With rl2: of a trial. With pearl: per update.",
        "environment",
    )
    model: str | None = option(
        "Network; `jaxmeta list` shows all.",
        "model",
        default={"images": "cnn", "text": "mlp", "regression": "mlp"},
        known_as=("network", "backbone", "arch"),
    )
    norm: str | None = option(
        "Normalization. `batch` uses the statistics of the batch at hand, at test too, so it is transductive.",
        "model",
        choices=("batch", "group", "layer", "none"),
    )
    hidden: int | None = option(
        "Width: channels of a convolutional network, units of a hidden layer, size of a policy's two layers or memory.",
        "model",
        default={"environment": 64},
        known_as=("width", "channels", "filters"),
    )
    drop_rate: float | None = option("Dropout rate in training.", "model", least=0, known_as=("dropout",))
    patch: int | None = option("Height and width of the patches that become tokens.", "model")
    dtype: str | None = option(
        "Number type in which the model computes. Parameters, losses and normalization stay float32.",
        "model",
        default="float32",
        kinds=TASKS,
        choices=("float32", "bfloat16"),
    )
    steps: int | None = option(
        "Inner steps in meta-training.", "learner", known_as=("inner-steps", "adaptation-steps", "num-steps")
    )
    test_steps: int | None = option("Inner steps at validation and test.", "learner", least=0)
    inner_rate: float | None = option(
        "Inner learning rate. With meta-sgd: where the learned rates start.",
        "learner",
        known_as=("lr", "inner-lr", "fast-lr", "adapt-lr", "learning-rate"),
    )
    head_rate: float | None = option("Learning rate of the weights after the codes.", "learner")
    context_size: int | None = option("Context parameters per task.", "learner")
    proximal: float | None = option("Strength of the pull to the initial parameters.", "learner")
    inner_batch: int | None = option("Examples per inner step in meta-training.", "learner")
    test_inner_batch: int | None = option("Examples per inner step at validation and test.", "learner")
    fine_tune: bool | None = option("Train the whole network on a task, not the classifier alone.", "learner")
    layers: int | None = option("Layers of the learned transformation of gradients.", "learner")
    latents: int | None = option("Length of the codes.", "learner")
    meta_gradient: str | None = option(
        "Way to compute the meta-gradient; `jaxmeta list` shows all.", "learner", known_as=("first-order",)
    )
    remat: bool | None = option(
        "Recompute inner steps in the backward pass instead of storing them: less memory, more time.", "learner"
    )
    last_steps: int | None = option("Number of last inner steps to differentiate through.", "learner")
    solver_steps: int | None = option("Iterations of conjugate gradients.", "learner")
    samples: int | None = option("Perturbations per task.", "learner")
    noise: float | None = option("Standard deviation of the perturbations.", "learner")
    iterations: int | None = option(
        "Outer updates.",
        "outer loop",
        default={**dict.fromkeys(TASKS, 2000), "environment": 200},
        known_as=("epochs", "updates", "num-iterations", "max-steps", "meta-iterations"),
    )
    num_tasks: int | None = option(
        "Tasks per outer update.", "outer loop", known_as=("meta-batch-size", "meta-bsz", "tasks-per-batch")
    )
    minibatch: int | None = option("Examples per minibatch of pre-training.", "outer loop")
    pretraining: int | None = option("Minibatches of pre-training before the meta-training.", "outer loop")
    outer_rate: float | None = option(
        "Outer learning rate of Adam. With reptile: of plain steps towards the adapted parameters. With maml-trpo and "
        "e-maml: largest divergence of an update in nats.",
        "outer loop",
        known_as=("meta-lr", "outer-lr"),
    )
    outer_schedule: str | None = option(
        "Schedule of the outer rate over the run: constant, or a decay to 0.",
        "outer loop",
        choices=("constant", "linear", "cosine"),
    )
    clip: float | None = option(
        "Largest norm of a meta-gradient; larger ones are scaled down to it. 0 clips nothing.",
        "outer loop",
        default=dict.fromkeys(TASKS, 0.0),
        least=0,
    )
    skip_nonfinite: bool | None = option(
        "Skip an outer update that is not finite, instead of stopping.", "outer loop", default=False
    )
    batch_size: int | None = option(
        "Tasks computed at once. It changes the speed, not the result. 0 chooses what suits the device.",
        "outer loop",
        default=0,
        kinds=TASKS,
        least=0,
    )
    validate_every: int | None = option(
        "Outer updates between validations.", "run", default={**dict.fromkeys(TASKS, 500), "environment": 50}
    )
    validation_tasks: int | None = option(
        "Tasks per validation, the same ones every time.",
        "run",
        default={**dict.fromkeys(TASKS, 200), "environment": 40},
    )
    test_tasks: int | None = option(
        "Tasks of the final test.",
        "run",
        default={**dict.fromkeys(TASKS, 600), "environment": 100},
        known_as=("num-test-tasks", "episodes-test"),
    )
    seed: int | None = option("Seed of everything random.", "run", default=0, least=0)

    def resolve(self) -> Settings:
        """Returns the settings of the run: every option that applies, with its final value.

        Raises:
            ValueError: if a name is unknown, a number is out of range, or an option does not apply.
            ModuleNotFoundError: if the environment needs a package that is not installed.
        """
        return resolve(OPTIONS, dataclasses.asdict(self))

    def default_folder(self) -> Path:
        """Returns `runs/<benchmark>-<learner>-<task>-seed<seed>`, with a task such as `5way-1shot`."""
        settings = self.resolve()
        task = task_name(settings).replace("-", "").replace(" ", "-")
        return Path("runs", f"{settings.benchmark}-{settings.learner}-{task}-seed{settings.seed}")

    def build(self, root: str | Path | None = None, download: bool = False) -> Parts:
        """Makes the parts of the run: data, model, learner and optimizer.

        Args:
            root: folder with the benchmark's files, if it needs any.
            download: whether to fetch missing files.

        Raises:
            ValueError: as `resolve`, or if an argument does not apply.
            FileNotFoundError: if the benchmark's files are missing.
        """
        settings = self.resolve()
        modules = {"environment": _policy_run, "classes": _pretrained_run, "features": _pretrained_run}
        module = modules.get(LEARNERS[settings.learner].trains_on, _task_run)
        return module.build(settings, root, download)

    def run(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        root: str | Path | None = None,
        download: bool = False,
        mesh: Mesh | None = None,
        progress: bool = True,
    ) -> "Result":
        """Meta-trains, tests on the test split, and leaves a folder that records the settings and the results.

        The folder holds `config.json`, `training.json`, `metrics.jsonl`, `checkpoints/`, `result.json`, `curve.png` and
        `report.md`. A run that was interrupted resumes from its last checkpoint when you call it again.

        Args:
            folder: folder of the run; `default_folder()` if `None`.
            root: folder with the benchmark's files, if it needs any.
            download: whether to fetch missing files.
            mesh: devices to divide the tasks over, see `train`. With several processes each one calls this.
            progress: whether to show progress bars.

        Returns:
            The `Result`.

        Raises:
            ValueError: as `resolve`, or if `folder` holds something else. This is found before any data are read.
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
        folder = Path(folder or self.default_folder())
        check_folder(folder, settings)
        parts = self.build(root, download)
        claim_folder(folder, settings)
        trained = parts.train(folder, mesh, progress)
        result = Result(settings, folder, trained, parts.test(trained.meta, mesh))
        if jax.process_index() == 0:
            write_report(result.folder, settings, trained, result.test)
        return result


OPTIONS = options_of(Experiment)


class Result(NamedTuple):
    """Result of `Experiment.run`."""

    settings: Settings
    """The settings, with all values filled in."""
    folder: Path
    """The run's folder."""
    trained: Trained
    """The best meta-parameters and the history."""
    test: dict[str, Summary]
    """Each metric over the test tasks."""
