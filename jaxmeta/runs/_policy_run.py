"""Runs in environments: the parts of an `Experiment` that meta-trains a policy."""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from jaxmeta import envs
from jaxmeta._cost import Cost, cost
from jaxmeta._parallel import replicate
from jaxmeta._types import MetaParams, Metrics, PyTree, Training
from jaxmeta.catalog import LEARNERS, Agent, Settings
from jaxmeta.reports import Findings, Tested, examine_policy, measure_scale, monitored, test_policy
from jaxmeta.runs._parts import Parts, at_precision
from jaxmeta.training import Callback, LoopSettings, Trained, best_meta, run_loop


class PolicyParts(NamedTuple):
    """The parts of a run that meta-trains a policy."""

    settings: Settings
    env: envs.MetaEnv
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
            tasks, key = self._tasks(s.validation_tasks, "train", validation_key)
            found = test_policy(self.env, agent, meta, tasks, key, mesh=mesh)
            return {name: summary.mean for name, summary in found.summaries.items()}

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

    def untrained(self) -> MetaParams:
        """Returns the meta-parameters before the training."""
        return self.meta

    @at_precision
    def test(self, metas: Sequence[MetaParams], mesh: Mesh | None = None) -> list[Tested]:
        """Adapts each of some meta-parameters to test tasks."""
        agent, (tasks, key) = self.agent_on(mesh), self._tasks(self.settings.test_tasks)
        scale = measure_scale(self.env, tasks, key)
        return [test_policy(self.env, agent, meta, tasks, key, scale, mesh) for meta in metas]

    @at_precision
    def examine(self, meta: MetaParams, tested: Tested, untrained: Tested) -> Findings:
        """Returns what a report shows beside the test."""
        agent = self.agent_on(None)
        tasks, key = self._tasks(self.settings.test_tasks)
        return examine_policy(self.env, agent, meta, tested, untrained, tasks, key)

    @at_precision
    def film(self, meta: MetaParams, task: int) -> PyTree:
        """Returns the states `[n, T]` of episodes in a test task, in the course of adaptation.

        Raises:
            ValueError: if the learner plays no films.
        """
        agent = self.agent_on(None)
        if agent.play is None:
            raise ValueError(f"film does not apply to {self.settings.learner}, whose agent has no play")
        tasks, key = self._tasks(self.settings.test_tasks)
        one = jax.tree.map(lambda x: x[task : task + 1], tasks)
        return jax.tree.map(lambda x: x[0], jax.jit(agent.play)(meta, one, key))

    @at_precision
    def estimate(self, mesh: Mesh | None = None) -> Cost:
        """Compiles an outer update without running it."""
        training = self.agent_on(mesh).training
        return cost(training.step, *replicate((training.init(self.meta.params), self.train_key), mesh))

    def _tasks(self, num_tasks: int, split: str = "test", key: jax.Array | None = None) -> tuple[PyTree, jax.Array]:
        """Returns tasks and the key to play in them, by default those of the test."""
        task_key, play_key = jax.random.split(self.test_key if key is None else key)
        return self.env.sample_tasks(task_key, num_tasks, split=split), play_key


def build(settings: Settings) -> Parts:
    """Makes the parts of a run in an environment."""
    s = settings
    given = {name: s[name] for name in ("variant", "horizon", "backend") if name in s}
    env = envs.make(s.benchmark, **given)
    for name in ("action_scale", "init_std"):
        if env.discrete and s.get(name, 1) != 1:
            raise ValueError(f"{name} needs continuous actions, and those of {s.benchmark} are discrete, got {s[name]}")
    if s.action_scale != 1:
        env = envs.ScaledActions(env, s.action_scale)
    init_key, train_key, test_key = jax.random.split(jax.random.key(s.seed), 3)
    agent_on = cache(partial(LEARNERS[s.learner].build, s, env))  # so that a test is compiled once
    agent = agent_on(None)
    meta = agent.training.init(jax.jit(agent.init)(init_key)).meta
    return PolicyParts(s, env, agent_on, meta, train_key, test_key)
