"""Meta-RL learners side by side: the return and the score by the number of episodes that they have seen of a task.

Every learner trains with its defaults on Particles2D, where a point must find a goal that it does not observe (Finn et
al. 2017, https://arxiv.org/abs/1703.03400), and on Bernoulli bandits with five arms (Duan et al. 2016,
https://arxiv.org/abs/1611.02779). Only the numbers of `UPDATES` and the options of `OPTIONS` differ from the defaults.
PEARL needs continuous actions, so it is not on the bandits.

Each run is tested on 100 held-out tasks, after 0, 1, ... episodes for learners with a memory or a belief, and after 0,
20, 40 and 60 for those that adapt by steps on 20 episodes. The score is 0 for a policy that does nothing useful and 1
for one that knows the task. The table has the interquartile mean over seeds and tasks with its bootstrap interval over
seeds (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264), the figure the same after every number of episodes.

The time is that of the whole command, with compilation and tests. Each run may use an equal part of what is left, so
what a short one saves is for the next ones. Runs that were interrupted go on, and finished ones are not repeated, when
you run the same command again.

    python experiments/meta_rl_table.py
    python experiments/meta_rl_table.py --seeds 5 --minutes 240 --learners promp rl2 varibad
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

import jaxmeta
from jaxmeta.catalog import LEARNERS

UPDATES = {
    "promp": 100,
    "maml-trpo": 20,
    "multi-task-ppo": 100,
    "rl2": 100,
    "varibad": 100,
    "pearl": 30,
}
OPTIONS = {("varibad", "particles2d"): {"entropy_weight": 0.005}}  # as `rl.varibad` advises for continuous actions
CONTINUOUS = ("pearl",)  # learners that need continuous actions
DISCRETE = ("bandit-bernoulli",)  # environments that have none


@dataclass(frozen=True)
class Args:
    """Meta-RL learners side by side."""

    learners: tuple[str, ...] = tuple(UPDATES)
    """Learners to train."""
    environments: tuple[str, ...] = ("particles2d", "bandit-bernoulli")
    """Environments to train in."""
    seeds: int = 3
    """Number of runs of each learner."""
    minutes: float = 30.0
    """Time of the whole command."""
    updates: int | None = None
    """Outer updates of each run, if not those of the table `UPDATES`."""
    num_tasks: int | None = None
    """Tasks per outer update, if not the default of the learner."""
    episodes: int | None = None
    """Episodes per task, if not the default of the learner."""
    horizon: int | None = None
    """Steps per episode, if not the default of the environment."""
    test_tasks: int = 100
    """Held-out tasks of the test."""
    folder: Path = Path("runs/meta-rl")
    """Folder of the runs and of the figure."""


def experiments(args: Args) -> dict[str, jaxmeta.Experiment]:
    """Returns the runs by the names of their folders."""
    found = {}
    for seed in range(args.seeds):  # the first seed of everything first
        for environment in args.environments:
            for learner in args.learners:
                if learner not in LEARNERS or (learner in CONTINUOUS and environment in DISCRETE):
                    continue
                updates = args.updates or UPDATES[learner]
                options: dict[str, Any] = {
                    "iterations": updates,
                    "validate_every": max(1, updates // 10),
                    "num_tasks": args.num_tasks,
                    "episodes": args.episodes,
                    "horizon": args.horizon,
                    "test_tasks": args.test_tasks,
                    **OPTIONS.get((learner, environment), {}),
                }
                experiment = jaxmeta.Experiment(environment, learner, seed=seed, **options)
                found[f"{environment}-{learner}-seed{seed}"] = experiment
    return found


def main(args: Args) -> None:
    """Trains what is not finished, and prints the table."""
    begin, others = time.monotonic(), 0.5  # minutes of a run beside its training: compilation and tests
    runs = experiments(args)
    missing = [name for name in runs if not (args.folder / name / "result.json").is_file()]
    for done, name in enumerate(missing):
        start = time.monotonic()
        left = args.minutes - (start - begin) / 60
        share = max(0.1, left / (len(missing) - done) - others)
        result = runs[name].run(args.folder / name, minutes=share, progress=False)
        others = max(0.0, (time.monotonic() - start - result.trained.history[-1]["seconds"]) / 60)
        print(f"{name}: return {result.test['return']}", flush=True)
    figure = args.folder / "returns.png"
    print(jaxmeta.compare_runs([args.folder / name for name in runs], figure))
    print(f"\nfigure: {figure}")


if __name__ == "__main__":
    main(tyro.cli(Args))
