"""Meta-RL learners side by side: the return and the score by the number of episodes that they have seen of a task.

Every learner trains with its defaults on Particles2D, where a point must find a goal that it does not observe (Finn et
al. 2017, https://arxiv.org/abs/1703.03400), and on Bernoulli bandits with five arms (Duan et al. 2016,
https://arxiv.org/abs/1611.02779). Only the numbers of `UPDATES` and the options of `OPTIONS` differ from the defaults.
PEARL needs continuous actions, so it is not on the bandits.

Each run is tested on 100 held-out tasks, after 0, 1, ... episodes for learners with a memory or a belief, and after 0,
20, 40 and 60 for those that adapt by steps on 20 episodes. The score is 0 for a policy that does nothing useful and 1
for one that knows the task. The table has the interquartile mean over seeds and tasks with its bootstrap interval over
seeds (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264), the figure the same after every number of episodes.

The first seed of everything comes first, and no run begins when the time is over. Runs that were interrupted go on, and
finished ones are not repeated, when you run the same command again.

    python experiments/meta_rl_table.py
    python experiments/meta_rl_table.py --seeds 5 --minutes 240 --learners promp rl2 varibad
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import tyro

import jaxmeta

UPDATES = {
    ("particles2d", "promp"): 60,
    ("particles2d", "maml-trpo"): 20,
    ("particles2d", "multi-task-ppo"): 60,
    ("particles2d", "rl2"): 40,
    ("particles2d", "varibad"): 60,
    ("particles2d", "pearl"): 30,
    ("bandit-bernoulli", "promp"): 20,
    ("bandit-bernoulli", "maml-trpo"): 8,
    ("bandit-bernoulli", "multi-task-ppo"): 20,
    ("bandit-bernoulli", "rl2"): 60,
    ("bandit-bernoulli", "varibad"): 60,
}
OPTIONS = {("particles2d", "varibad"): {"entropy_weight": 0.005}}  # as `rl.varibad` advises for continuous actions


@dataclass(frozen=True)
class Args:
    """Meta-RL learners side by side."""

    learners: tuple[str, ...] = tuple(dict.fromkeys(learner for _, learner in UPDATES))
    """Learners to train."""
    environments: tuple[str, ...] = tuple(dict.fromkeys(environment for environment, _ in UPDATES))
    """Environments to train in."""
    seeds: int = 3
    """Number of runs of each learner."""
    minutes: float = 30.0
    """Time after which no further run begins."""
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
    output: Path | None = None
    """Where to write the table of returns and scores."""


def experiments(args: Args) -> dict[str, jaxmeta.Experiment]:
    """Returns the runs by the names of their folders.

    Raises:
        ValueError: if there is no run of a learner or in an environment.
    """
    for place, (name, chosen) in enumerate({"environments": args.environments, "learners": args.learners}.items()):
        known = dict.fromkeys(key[place] for key in UPDATES)
        if unknown := [x for x in chosen if x not in known]:
            raise ValueError(f"{name} must be among {', '.join(known)}, got {', '.join(unknown)}")
    found = {}
    for seed in range(args.seeds):
        for (environment, learner), updates in UPDATES.items():
            if environment in args.environments and learner in args.learners:
                updates = args.updates or updates
                options: dict[str, Any] = {
                    "iterations": updates,
                    "validate_every": max(1, updates // 5),
                    "num_tasks": args.num_tasks,
                    "episodes": args.episodes,
                    "horizon": args.horizon,
                    "test_tasks": args.test_tasks,
                    **OPTIONS.get((environment, learner), {}),
                }
                experiment = jaxmeta.Experiment(environment, learner, seed=seed, **options)
                found[f"{environment}-{learner}-seed{seed}"] = experiment
    return found


def main(args: Args) -> None:
    """Trains what is not finished, and prints the table."""
    jax.config.update("jax_compilation_cache_dir", str(args.folder.absolute() / "programs"))  # for the other seeds
    begin, runs = time.monotonic(), experiments(args)
    for name, experiment in runs.items():
        if not (args.folder / name / "result.json").is_file() and time.monotonic() - begin < 60 * args.minutes:
            result = experiment.run(args.folder / name, progress=False)
            minutes = (time.monotonic() - begin) / 60
            print(f"{name}: return {result.test['return']}, after {minutes:.1f} minutes", flush=True)
    finished = [args.folder / name for name in runs if (args.folder / name / "result.json").is_file()]
    figure = args.folder / "returns.png"
    table = jaxmeta.compare_runs(finished, figure)
    print(f"{table}\n\nfigure: {figure}")
    if args.output is not None:
        of_returns = table.split("\n\n", 1)[1]  # behind the table of the runs
        args.output.write_text(f"```text\n{of_returns}\n```\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Args))
