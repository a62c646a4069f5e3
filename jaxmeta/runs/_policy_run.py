"""Runs in environments: the parts of an `Experiment` that meta-trains a policy."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from jaxmeta import envs
from jaxmeta._cost import Cost, cost
from jaxmeta._parallel import replicate
from jaxmeta._summary import Summary, summarize
from jaxmeta._types import MetaParams, Metrics, Training
from jaxmeta.catalog import LEARNERS, Agent, Settings
from jaxmeta.runs._parts import Parts, at_precision, monitored
from jaxmeta.training import Callback, LoopSettings, Trained, best_meta, run_loop


class PolicyParts(NamedTuple):
    """The parts of a run that meta-trains a policy."""

    settings: Settings
    env: envs.BaseEnv
    agent_on: Callable[[Mesh | None], Agent]
    """Makes the agent for some devices, or for one."""
    meta: MetaParams
    train_key: jax.Array
    test_key: jax.Array

    @property
    def facts(self) -> dict[str, Any]:
        """Nothing, because there are no data."""
        return {}

    @at_precision
    def train(
        self, folder: Path, mesh: Mesh | None, minutes: float | None, progress: bool, callbacks: Sequence[Callback]
    ) -> Trained:
        """Meta-trains."""
        s, agent = self.settings, self.agent_on(mesh)
        validate_every = min(s.validate_every, s.iterations)
        train_key, validation_key = jax.random.split(self.train_key)

        def step(state: Any, key: jax.Array) -> tuple[Any, Metrics]:
            state, metrics = agent.training.step(state, key)
            loss = metrics.pop("loss")
            return state, {**metrics, "return": -loss}

        def validate(meta: MetaParams) -> dict[str, float]:
            # Drawn like the training tasks, with another key: no environment has a split of its own for this.
            found = self._play(agent, meta, s.validation_tasks, "train", validation_key, mesh)
            return {name: summary.mean for name, summary in found.items()}

        options = LoopSettings(
            s.iterations,
            validate_every,
            math.gcd(validate_every, 10),
            monitored(s.kind),
            s.skip_nonfinite,
            work=("tasks", s.num_tasks),
            numbers={"num_tasks": s.num_tasks},
            minutes=minutes,
        )
        training, place = Training(agent.training.init, step), partial(replicate, mesh=mesh)
        key = replicate(train_key, mesh)
        return run_loop(training, self.meta.params, key, (), options, validate, folder, progress, callbacks, place)

    def load(self, folder: Path) -> MetaParams:
        """Returns the best meta-parameters that a run has saved."""
        return best_meta(folder, self.meta)

    @at_precision
    def test(self, meta: MetaParams, mesh: Mesh | None = None) -> dict[str, Summary]:
        """Adapts to test tasks and summarizes each metric."""
        return self._play(self.agent_on(mesh), meta, self.settings.test_tasks, "test", self.test_key, mesh)

    @at_precision
    def estimate(self, mesh: Mesh | None = None) -> Cost:
        """Compiles an outer update without running it."""
        training = self.agent_on(mesh).training
        return cost(training.step, *replicate((training.init(self.meta.params), self.train_key), mesh))

    def _play(
        self, agent: Agent, meta: MetaParams, num_tasks: int, split: str, key: jax.Array, mesh: Mesh | None
    ) -> dict[str, Summary]:
        task_key, key = jax.random.split(key)
        tasks = self.env.sample_tasks(task_key, num_tasks, split=split)
        args: Any = replicate((meta, tasks, key), mesh)
        return summarize(jax.jit(agent.test)(*args))


def build(settings: Settings) -> Parts:
    """Makes the parts of a run in an environment."""
    s = settings
    given = {name: s[name] for name in ("variant", "horizon", "backend") if name in s}
    env = envs.make(s.benchmark, **given)
    init_key, train_key, test_key = jax.random.split(jax.random.key(s.seed), 3)
    agent_on = partial(LEARNERS[s.learner].build, s, env)
    agent = agent_on(None)
    meta = agent.training.init(jax.jit(agent.init)(init_key)).meta
    return PolicyParts(s, env, agent_on, meta, train_key, test_key)
