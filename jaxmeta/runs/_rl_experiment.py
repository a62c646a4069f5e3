"""Meta-reinforcement learning as one value, from Python or the command line."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax

from jaxmeta import envs
from jaxmeta.runs._rl_parts import PolicyParts
from jaxmeta.runs._rl_recipes import POLICY_RECIPES
from jaxmeta.runs._run import Run


@dataclasses.dataclass(frozen=True)
class RLExperiment(Run):
    """Meta-reinforcement learning: everything that decides the result of a run.

    What is left at None takes the value of the learner's paper, or of the environment. The policy is a network with two
    layers of `hidden`, with `rl2` a memory of so many numbers. The return of a task is undiscounted, of new episodes
    after adaptation. Inner steps after the first are half as long.

    Example:
        >>> run = RLExperiment("bandit-bernoulli", "rl2", episodes=1)
        >>> run.task, run.resolve().num_tasks, run.resolve().horizon
        ('1-episode', 256, 100)
    """

    benchmark: str = "particles2d"
    """The environment; `jaxmeta list` shows all."""
    learner: str = "promp"
    """The meta-learning algorithm; `jaxmeta list` shows all."""
    variant: str | None = None
    """Whose definition of the environment, where papers differ: l2l, promp or pearl, for some others too."""
    horizon: int | None = None
    """Steps per episode."""
    backend: Literal["spring", "positional", "generalized", "mjx"] | None = None
    """Brax's physics, for environments with a body."""
    episodes: int | None = None
    """Episodes per task before each inner step and after the last; of a trial with rl2, per iteration with pearl."""
    hidden: int = 64
    """Width of the policy's two layers; with rl2 numbers in its memory."""
    meta_gradient: Literal["reverse", "mixed", "first-order"] | None = None
    """How the meta-gradient is computed: reverse if not given."""
    iterations: int = 200
    """Outer updates."""
    validate_every: int = 50
    """Outer updates between validations."""
    validation_tasks: int = 40
    """Tasks per validation."""
    test_tasks: int = 100
    """Tasks of the final test."""

    @property
    def monitor(self) -> str:
        """The metric that counts."""
        return "return"

    @property
    def task(self) -> str:
        """Such as `20-episode`."""
        return f"{self.episodes}-episode"

    def names(self) -> dict[str, tuple[str, ...]]:
        """The environments and the learners that there are."""
        return {"benchmark": envs.list_envs(), "learner": tuple(POLICY_RECIPES)}

    def limited(self) -> dict[str, tuple[str, ...]]:
        """The options that some learners have and others not, and which ones have them."""
        names = {name for recipe in POLICY_RECIPES.values() for name in recipe.options}
        able = {
            name: tuple(learner for learner, recipe in POLICY_RECIPES.items() if name in recipe.options)
            for name in names
        }
        return able | {"clip": able["outer_schedule"]}

    def check(self) -> None:
        """Raises a `ValueError` if the options do not fit the environment."""
        env = self.make_env()
        if self.learner == "pearl" and env.discrete:
            raise ValueError(f"pearl needs continuous actions, those of {self.benchmark} are discrete")

    def published(self) -> dict[str, Any]:
        """The options that the learner has, with the values of its paper."""
        return {**POLICY_RECIPES[self.learner].options, "horizon": self.make_env().horizon}

    def make_env(self) -> envs.BaseEnv:
        """The environment."""
        return envs.make(self.benchmark, horizon=self.horizon, variant=self.variant, backend=self.backend)

    def build(self, root: str | Path | None = None, download: bool = False) -> PolicyParts:
        """Makes the parts that this description names.

        Args:
            root: does not apply: an environment has no files.
            download: does not apply.

        Raises:
            ValueError: as `resolve`, or if an argument does not apply.
        """
        if root is not None or download:
            raise ValueError(f"root and download do not apply to {self.benchmark}, which has no files")
        this = self.resolve()
        init_key, train_key, test_key = jax.random.split(jax.random.key(this.seed), 3)
        recipe, env = POLICY_RECIPES[this.learner], this.make_env()
        agent_on = partial(recipe.build, this, env)
        agent = agent_on(None)
        meta = agent.training.init(jax.jit(agent.init)(init_key)).meta
        return PolicyParts(this, env, agent_on, meta, train_key, test_key)
