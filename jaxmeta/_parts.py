"""What an `Experiment` is made of."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from flax import linen as nn
from jax.sharding import Mesh

from jaxmeta import data
from jaxmeta._cost import Cost, cost
from jaxmeta._parallel import replicate
from jaxmeta._step import Summary, evaluate, meta_step, summarize
from jaxmeta._types import MetaLearner, MetaParams


class Parts(NamedTuple):
    """What an `Experiment` is made of."""

    model: nn.Module
    learner: MetaLearner
    trained: MetaLearner | Callable[[jax.Array], MetaLearner]
    """The learner that `train` takes: one that may change in training."""
    optimizer: optax.GradientTransformation
    tasksets: data.TaskSets
    meta: MetaParams
    train_key: jax.Array
    test_key: jax.Array

    def test(
        self, meta: MetaParams, num_tasks: int, batch_size: int | None = None, mesh: Mesh | None = None
    ) -> dict[str, Summary]:
        """Adapts to `num_tasks` tasks of the test split and summarises each metric."""
        run = jax.jit(evaluate(self.learner, num_tasks, batch_size=batch_size, mesh=mesh))
        args = meta, self.tasksets.test, self.test_key
        return summarize(run(*(args if mesh is None else replicate(args, mesh))))

    def estimate(self, num_tasks: int, batch_size: int | None = None, mesh: Mesh | None = None) -> Cost:
        """Compiles an outer update, and does not run it."""
        step = meta_step(self.learner, self.optimizer, num_tasks, batch_size=batch_size, mesh=mesh)
        args = self.meta, self.optimizer.init(self.meta), self.tasksets.train, self.train_key
        return cost(step, *(args if mesh is None else replicate(args, mesh)))
