"""The command line: `jaxmeta train`, `jaxmeta evaluate`, `jaxmeta list`."""

import inspect
import sys
from pathlib import Path
from typing import Annotated

import tyro

from jaxmeta._experiment import Experiment


def _train(
    experiment: Annotated[Experiment, tyro.conf.arg(name="")],
    folder: Path | None = None,
    root: Path | None = None,
    download: bool = False,
) -> None:
    """Meta-train, test, and write a report.

    Run the same command again to go on with a run that was cut short.

    Args:
        experiment: what to run.
        folder: where the results go; made from the experiment's names if not given.
        root: folder with the benchmark's files.
        download: fetch the benchmark's files if they are missing.
    """
    from jaxmeta._report import headline

    folder = folder or experiment.default_folder()
    _say(f"jaxmeta: {experiment.learner} on {experiment.benchmark}, results go to {folder}")
    result = experiment.run(folder, root=root, download=download)
    _say(headline(result))
    _say(f"report: {folder / 'report.md'}\nplot:   {folder / 'curve.png'}")


def _evaluate(
    folder: tyro.conf.Positional[Path],
    num_tasks: int = 600,
    test_steps: int | None = None,
    test_queries: int | None = None,
    root: Path | None = None,
) -> None:
    """Test the best meta-parameters of a run again.

    Args:
        folder: the run's folder.
        num_tasks: test tasks.
        test_steps: inner steps, if not the run's.
        test_queries: query examples per class, if not the run's.
        root: folder with the benchmark's files.
    """
    from jaxmeta._experiment import evaluate_run

    summaries = evaluate_run(folder, num_tasks=num_tasks, test_steps=test_steps, test_queries=test_queries, root=root)
    for name, summary in summaries.items():
        _say(f"{name}: {summary} (median {summary.median:.4f}, {summary.num_tasks} tasks, 95 % interval)")


def _list() -> None:
    """List the benchmarks, learners and models."""
    from jaxmeta import algorithms, data, models
    from jaxmeta._experiment import LEARNERS

    _say("benchmarks (--benchmark)")
    for name in data.list_tasksets():
        _say(f"  {name}")
    _say("learners (--learner)")
    for name in LEARNERS:
        summary = inspect.getdoc(getattr(algorithms, name.replace("-", "_"))) or ""
        _say(f"  {name:10s} {summary.splitlines()[0]}")
    _say("models (--model)")
    for name, model in (
        ("cnn", models.OmniglotCNN),
        ("cnn4", models.CNN4),
        ("fc", models.OmniglotFC),
        ("mlp", models.MLP),
    ):
        _say(f"  {name:10s} {(inspect.getdoc(model) or '').splitlines()[0]}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    commands = {"train": _train, "evaluate": _evaluate, "list": _list}
    try:
        tyro.extras.subcommand_cli_from_dict(
            commands, prog="jaxmeta", description="Meta-learning for JAX.", args=arguments
        )
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        sys.stderr.write(f"jaxmeta: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("jaxmeta: stopped; run the same command again to go on from the last checkpoint\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
