"""The test of a run once more."""

import os
from pathlib import Path

from jaxmeta.training import best_meta
from jaxmeta.runs._options import with_options
from jaxmeta.runs._recipes import learners_with
from jaxmeta._step import Summary


def evaluate_run(
    folder: str | os.PathLike[str],
    *,
    num_tasks: int | None = None,
    ways: int | None = None,
    test_steps: int | None = None,
    test_queries: int | None = None,
    test_rotations: bool | None = None,
    root: str | Path | None = None,
) -> dict[str, Summary]:
    """Tests the best meta-parameters of a run once more, perhaps with other settings. Changes nothing in the folder.

    Args:
        folder: a folder that `Experiment.run` made.
        num_tasks: test tasks; `None` for the run's.
        ways: classes per task, for learners that fit a head to features; `None` for the run's.
        test_steps: inner steps; `None` for the run's.
        test_queries: query examples per class, for few-shot learning; `None` for the run's.
        test_rotations: whether turned characters of Omniglot are classes of their own; `None` for the run's.
        root: folder with the benchmark's files, if it needs any.

    Returns:
        Each metric over the test tasks.

    Raises:
        FileNotFoundError: if `folder` is not the folder of a run, or has no checkpoint yet.
        ValueError: if a number is out of range, the learner cannot do with other `ways`, or the folder is damaged.
    """
    from jaxmeta.runs._report import read_experiment

    experiment = read_experiment(Path(folder))
    if experiment is None:
        raise FileNotFoundError(f"{folder} is not the folder of a run: it has no config.json")
    able = learners_with("train_ways")
    if ways is not None and ways != getattr(experiment, "ways", None) and experiment.learner not in able:
        told = f"ways of {experiment.learner} cannot be changed after training, got {ways}"
        raise ValueError(f"{told}; only those of {', '.join(able)} can")
    changes = {
        "ways": ways,
        "test_tasks": num_tasks,
        "test_steps": test_steps,
        "test_queries": test_queries,
        "test_rotations": test_rotations,
    }
    experiment = with_options(experiment, {k: v for k, v in changes.items() if v is not None})
    parts = experiment.build(root)
    return parts.test(best_meta(folder, parts.meta))
