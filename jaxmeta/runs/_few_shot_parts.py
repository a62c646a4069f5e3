"""What an `Experiment` is made of."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import optax
from flax import linen as nn
from jax.sharding import Mesh

from jaxmeta import data
from jaxmeta._cost import Cost, cost
from jaxmeta._parallel import replicate
from jaxmeta._step import Summary, evaluate, meta_step, summarize
from jaxmeta.training import Trained, train
from jaxmeta._types import MetaLearner, MetaParams

if TYPE_CHECKING:
    from pathlib import Path

    from jaxmeta.runs._experiment import Experiment


class TasksetParts(NamedTuple):
    """What an `Experiment` is made of."""

    experiment: "Experiment"
    """Without open options."""
    model: nn.Module
    learner: MetaLearner
    trained: MetaLearner | Callable[[jax.Array], MetaLearner]
    """The learner that `train` takes: one that may change in training."""
    optimizer: optax.GradientTransformation
    tasksets: data.TaskSets
    meta: MetaParams
    train_key: jax.Array
    test_key: jax.Array

    def train(self, folder: "Path", mesh: Mesh | None, progress: bool) -> Trained:
        """Meta-trains."""
        this = self.experiment
        validate_every = min(this.validate_every, this.iterations)
        return train(
            self.trained,
            self.optimizer,
            self.meta,
            self.tasksets.train,
            self.train_key,
            iterations=this.iterations,
            num_tasks=this.num_tasks or 1,
            batch_size=this.batch_size,
            mesh=mesh,
            validation=self.tasksets.validation,
            validation_tasks=this.validation_tasks,
            validate_every=validate_every,
            monitor=this.monitor,
            log_every=math.gcd(validate_every, 50),
            skip_nonfinite=this.skip_nonfinite,
            folder=folder,
            progress=progress,
        )

    def test(self, meta: MetaParams, mesh: Mesh | None = None) -> dict[str, Summary]:
        """Adapts to tasks of the test split and summarizes each metric."""
        run = jax.jit(
            evaluate(self.learner, self.experiment.test_tasks, batch_size=self.experiment.batch_size, mesh=mesh)
        )
        return summarize(run(*replicate((meta, self.tasksets.test, self.test_key), mesh)))

    def estimate(self, mesh: Mesh | None = None) -> Cost:
        """Compiles an outer update, and does not run it."""
        this = self.experiment
        step = meta_step(self.learner, self.optimizer, this.num_tasks or 1, batch_size=this.batch_size, mesh=mesh)
        args = self.meta, self.optimizer.init(self.meta), self.tasksets.train, self.train_key
        return cost(step, *replicate(args, mesh))
