"""What an `RLExperiment` is made of."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.sharding import Mesh

from jaxmeta import envs
from jaxmeta._cost import Cost, cost
from jaxmeta.training import Plan, run_loop
from jaxmeta._parallel import replicate
from jaxmeta._step import Summary, summarize
from jaxmeta.training import Trained
from jaxmeta._types import MetaParams, Metrics, PyTree

if TYPE_CHECKING:
    from jaxmeta.runs._rl_experiment import RLExperiment
    from jaxmeta.runs._rl_recipes import Agent


class PolicyParts(NamedTuple):
    """What an `RLExperiment` is made of."""

    experiment: "RLExperiment"
    """Without open options."""
    env: envs.BaseEnv
    agent_on: "Callable[[Mesh | None], Agent]"
    """On some devices, or on one."""
    meta: MetaParams
    train_key: jax.Array
    test_key: jax.Array

    def train(self, folder: Path, mesh: Mesh | None, progress: bool) -> Trained:
        """Meta-trains."""
        this, agent = self.experiment, self.agent_on(mesh)
        validate_every, num_tasks = min(this.validate_every, this.iterations), this.num_tasks or 1
        train_key, validation_key = jax.random.split(self.train_key)

        def step(state: PyTree, key: jax.Array) -> tuple[PyTree, Metrics]:
            state, metrics = agent.training.step(state, key)
            loss = metrics.pop("loss")
            return state, {**metrics, "return": -loss}

        def validate(meta: MetaParams) -> dict[str, float]:
            # Drawn like the training tasks, but anew: no environment has a split of its own for this.
            found = self._play(agent, meta, this.validation_tasks, "train", validation_key, mesh)
            return {name: summary.mean for name, summary in found.items()}

        plan = Plan(
            this.iterations,
            validate_every,
            math.gcd(validate_every, 10),
            this.monitor,
            keep=lambda state: state.meta,
            kept="meta",
            work=("tasks", num_tasks),
            numbers={"num_tasks": num_tasks},
            skip=this.skip_nonfinite,
        )
        start, place = agent.training.init(self.meta.params), partial(replicate, mesh=mesh)
        done = run_loop(step, start, replicate(train_key, mesh), (), plan, validate, folder, progress, place)
        return Trained(done.best, done.step, done.history)

    def test(self, meta: MetaParams, mesh: Mesh | None = None) -> dict[str, Summary]:
        """Adapts to test tasks and summarizes each metric."""
        return self._play(self.agent_on(mesh), meta, self.experiment.test_tasks, "test", self.test_key, mesh)

    def estimate(self, mesh: Mesh | None = None) -> Cost:
        """Compiles an outer update, and does not run it."""
        training = self.agent_on(mesh).training
        return cost(training.step, *replicate((training.init(self.meta.params), self.train_key), mesh))

    def _play(
        self, agent: "Agent", meta: MetaParams, num_tasks: int, split: str, key: jax.Array, mesh: Mesh | None
    ) -> dict[str, Summary]:
        task_key, key = jax.random.split(key)
        tasks = self.env.sample_tasks(task_key, num_tasks, split=split)
        args: Any = replicate((meta, tasks, key), mesh)
        return summarize(jax.jit(agent.test)(*args))
