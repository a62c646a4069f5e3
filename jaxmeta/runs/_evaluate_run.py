"""The test of a run once more."""

import os
from pathlib import Path

from jaxmeta._checks import check_optional_integer
from jaxmeta._summary import Summary
from jaxmeta.catalog import Settings, learners_with
from jaxmeta.runs._experiment import Experiment
from jaxmeta.runs._folder import read_options
from jaxmeta.runs._task_run import load_tasksets


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
    """Tests the best meta-parameters of a run once more, with other settings if you like.

    It changes nothing in the folder.

    Args:
        folder: a folder that `Experiment.run` made.
        num_tasks: number of test tasks; `None` for the run's.
        ways: classes per task, for learners that fit a head to features; `None` for the run's.
        test_steps: inner steps; `None` for the run's.
        test_queries: query examples per class, for few-shot learning; `None` for the run's.
        test_rotations: whether rotated characters of Omniglot are classes of their own; `None` for the run's.
        root: folder with the benchmark's files, if it needs any.

    Returns:
        Each metric over the test tasks.

    Raises:
        FileNotFoundError: if `folder` is not the folder of a run, or has no checkpoint yet.
        ValueError: if a number is out of range, the learner cannot do with other `ways`, or the folder is damaged.
    """
    folder = Path(folder)
    options = read_options(folder)
    if options is None:
        raise FileNotFoundError(f"{folder} is not the folder of a run: it has no config.json")
    check_optional_integer(num_tasks=num_tasks)
    settings = _experiment(folder, options).resolve()
    able = learners_with("train_ways")
    if ways is not None and ways != settings.get("ways") and settings.learner not in able:
        told = f"ways of {settings.learner} cannot be changed after training, got {ways}"
        raise ValueError(f"{told}. Only those of {', '.join(able)} can")
    changes = {
        "ways": ways,
        "test_tasks": num_tasks,
        "test_steps": test_steps,
        "test_queries": test_queries,
        "test_rotations": test_rotations,
    }
    experiment = _experiment(folder, options | {k: v for k, v in changes.items() if v is not None})
    _check_classes(settings, experiment.resolve(), root)
    parts = experiment.build(root)
    return parts.test(parts.load(folder))


def _check_classes(run: Settings, test: Settings, root: str | Path | None) -> None:
    """Raises ValueError if other ways divide the classes otherwise, so that the test would see trained classes."""
    if run.get("ways") == test.get("ways") or run.get("split") not in ("auto", "random"):
        return
    if load_tasksets(run, root, False).classes != load_tasksets(test, root, False).classes:
        raise ValueError(
            f"ways={test.ways} divides the classes otherwise than the run's {run.ways}, and would test on classes that "
            "were trained on: the test part of the run has too few"
        )


def _experiment(folder: Path, options: dict[str, object]) -> Experiment:
    try:
        return Experiment(**options)  # pyright: ignore[reportArgumentType]
    except TypeError as error:
        path = folder / "config.json"
        raise ValueError(f"{path} does not describe a run of this version of jaxmeta ({error})") from error
