"""Few-shot learning and regression as one value, from Python or the command line."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxmeta import data
from jaxmeta._losses import at_least_float32, classification, regression
from jaxmeta.runs._few_shot_parts import TasksetParts
from jaxmeta.runs._recipes import RECIPES, SPECIFIC, Network, build_model, build_optimizer, learners_with, published
from jaxmeta.runs._run import Run
from jaxmeta._types import MetaLearner, PyTree
from jaxmeta.algorithms import Contextual


@dataclasses.dataclass(frozen=True)
class Experiment(Run):
    """Few-shot learning or regression: everything that decides the result of a run.

    What is left at None takes the value of the learner's paper for Omniglot, or for sinusoids.

    Example:
        >>> experiment = Experiment(learner="protonet", ways=20).resolve()
        >>> experiment.train_ways, experiment.outer_rate
        (60, 0.003)
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
    """Labeled examples to adapt on: per class 1 if not given, in regression per task 10."""
    train_shots: int | None = None
    """The same in meta-training, if it is to differ (reptile: 10 if not given)."""
    queries: int | None = None
    """Examples of the query set, in meta-training: per class 1 if not given, in regression per task 10."""
    test_queries: int | None = None
    """The same at validation and test, if it is to differ. A model with batch norm sees a query set as a whole (it is
    transductive), so this number matters."""
    test_rotations: bool = False
    """Let turned characters be classes of their own at validation and test too, as in ProtoNets' paper (Omniglot)."""
    split: str | None = None
    """How classes are divided into training, validation and test, if the benchmark offers a choice."""
    model: Literal["cnn", "cnn4", "fc", "mlp"] | None = None
    """cnn: 4 strided convolutions; cnn4: 4 convolutions with max-pooling; fc: fully connected, 256-128-64-64; mlp:
    40-40 for regression, one hidden layer for text. If not given cnn for images, else mlp."""
    norm: Literal["batch", "group", "layer", "none"] = "batch"
    """Normalization; batch uses the statistics of the batch at hand, at test too (it is transductive). Not for mlp."""
    hidden: int = 64
    """Channels of cnn and cnn4; width of mlp for text; of the policy's two layers or its memory."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in; parameters, losses and normalization stay float32."""
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
    remat: bool = False
    """Compute the inner steps again in the backward pass instead of storing them: less memory, more time."""
    batch_size: int | None = None
    """Tasks treated at once; if not given, what suits the device. Changes the speed, not the result."""

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

    @property
    def task(self) -> str:
        """Such as `5-way 1-shot`."""
        return f"{self.shots}-shot" if self.regressing else f"{self.ways}-way {self.shots}-shot"

    @property
    def note(self) -> str:
        """Whether the numbers are transductive."""
        if self.norm != "batch" or self.regressing:
            return ""
        return "Batch norm uses the statistics of the batch at hand, at test too: the numbers are *transductive*."

    @property
    def unused(self) -> tuple[str, ...]:
        """Options that mean nothing here and say nothing in the report."""
        return ("ways", "norm", "hidden") if self.regressing else ()

    def names(self) -> dict[str, tuple[str, ...]]:
        """The benchmarks and the learners that there are."""
        return {"benchmark": data.list_tasksets(), "learner": tuple(RECIPES)}

    def limited(self) -> dict[str, tuple[str, ...]]:
        """The options that some learners have and others not, and which ones have them."""
        return {name: learners_with(name) for name in SPECIFIC} | {"remat": learners_with("meta_gradient")}

    def check(self) -> None:
        """Raises a `ValueError` if model or learner do not fit the benchmark."""
        if self.model is not None and (self.model == "mlp") != (self.kind != "images"):
            allowed = "cnn, cnn4 or fc" if self.kind == "images" else "mlp"
            raise ValueError(f"model must be {allowed} for {self.benchmark}, got {self.model!r}")
        kind, what = ("regression", "regression") if self.regressing else ("images", "classification")
        able = [name for name, recipe in RECIPES.items() if getattr(recipe, kind) is not None]
        if self.learner not in able:
            raise ValueError(f"learner must be one for {what} ({', '.join(able)}), got {self.learner!r}")
        if self.remat and self.meta_gradient == "first-order":
            raise ValueError("remat does not apply to meta_gradient='first-order', which stores nothing")

    def published(self) -> dict[str, Any]:
        """The options that the learner has, with the values of its paper."""
        return published(self.learner, self.ways, self.kind)

    def build(self, root: str | Path | None = None, download: bool = False) -> TasksetParts:
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
            test_rotations=this.test_rotations or None,
            split=this.split,
            root=root,
            download=download or None,
        )
        model = build_model(this)

        def forward(params: PyTree, x: jax.Array) -> Any:
            if isinstance(params, Contextual):
                return model.apply(params.params, x, params.context)
            return model.apply(params, x)

        def method(name: str) -> Any:
            return lambda *args, **options: at_least_float32(model.apply(*args, method=name, **options))

        loss_fn = regression(forward) if this.regressing else classification(forward)
        trained = RECIPES[this.learner].build(this, Network(loss_fn, method))
        learner = trained if isinstance(trained, MetaLearner) else trained(jnp.int32(0))
        init_key, train_key, test_key = jax.random.split(jax.random.key(this.seed), 3)
        context = [] if this.context_size is None else [jnp.zeros(this.context_size)]
        meta = learner.init(model.init(init_key, sets.train.example, *context))
        return TasksetParts(this, model, learner, trained, build_optimizer(this), sets, meta, train_key, test_key)
