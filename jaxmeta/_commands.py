"""The commands that use runs and tell about jaxmeta. Each returns the text to print."""

import difflib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxmeta._cost import Cost
from jaxmeta.prediction import load_classifier, named_inputs, predictions_as
from jaxmeta.reports import effort, headline, show
from jaxmeta.runs import (
    OPTIONS,
    Experiment,
    Result,
    compare_runs,
    describe,
    evaluate_run,
    fit_one_program,
    is_faster_together,
    load_run,
    overview,
    run_all,
    versions,
)


def evaluate(folder: Path, **options: Any) -> str:
    """Tests the best meta-parameters of a run again."""
    lines = []
    for name, summary in evaluate_run(folder, **options).items():
        facts = f"{summary.num_tasks} tasks, 95 % interval; median {summary.median:.4f}"
        lines.append(f"test {name} {show(name, summary)} ({facts})")
    return "\n".join(lines)


def predict(source: Path, inputs: list[Path], support: Path | None, json: bool, csv: bool, save: Path | None) -> str:
    """Classifies inputs of the user, by a run that adapts to some examples or by a saved classifier.

    Raises:
        ValueError: if arguments do not go together, or an example or an input cannot be read.
        FileNotFoundError: if a file is missing.
    """
    if not inputs and save is None:
        raise ValueError("predict needs INPUTS to classify, or --save FILE")
    if not (source.is_dir() or source.is_file()):
        told = "does not exist" if not source.exists() else "is a device, a pipe or a socket"
        raise FileNotFoundError(f"{source} {told}: it must be the folder of a run, or a saved classifier")
    if source.is_dir():
        if support is None:
            raise ValueError("--support SHOTS is missing: a few examples of each class, to which the run adapts")
        classifier = load_run(source).adapt(support)
    elif support is not None:
        raise ValueError(f"--support does not apply to {source}, which is a classifier and not the folder of a run")
    else:
        classifier = load_classifier(source)
    named = named_inputs(inputs, classifier)
    found = classifier.predict([item for _, item in named])
    if save is not None:
        classifier.save(save)
        sys.stderr.write(f"saved a classifier of {', '.join(classifier.names)} to {save}\n")
    return predictions_as("json" if json else "csv" if csv else "table", [name for name, _ in named], found)


def compare(folders: list[Path], plot: Path | None) -> str:
    """Compares runs by their folders."""
    return compare_runs(folders, plot)


def list_names(name: str | None) -> str:
    """Returns all names that a run can have, or all about one of them."""
    if name is not None:
        return describe(name)
    lines = []
    for title, entries in overview().items():
        lines += [title, *(f"  {each:29s} {line}" for each, line in entries.items())]
    told = "jaxmeta list NAME shows the paper, the options with their defaults, and the files of one of them."
    return "\n".join([*lines, "", told])


def show_versions() -> str:
    """Returns the versions of jaxmeta and JAX, and the device."""
    import jax

    found, device = versions(), jax.devices()[0]
    return (
        f"jaxmeta {found['jaxmeta']}, jax {found['jax']}, jaxlib {found['jaxlib']}, Python {sys.version.split()[0]}\n"
        f"{jax.device_count()} x {device.device_kind} ({device.platform})"
    )


def describe_cost(cost: Cost) -> str:
    """Returns what an outer update costs."""
    memory, arguments = (f"{size / 2**20:.3g} MiB" for size in (cost.temporary_bytes, cost.argument_bytes))
    return (
        f"an outer update needs {memory} beside its arguments' {arguments} on each device, and compiles in "
        f"{cost.compile_seconds:.1f} s; {cost.flops / 1e9:.3g} GFLOP with the body of each loop counted once"
    )


def hint(message: str) -> str:
    """Returns a suggestion for an option or a command that does not exist."""
    if not message.startswith("unrecognized arguments: --"):
        return ""
    word = message.split()[2].split("=")[0].lstrip("-").replace("_", "-")
    names = {alias: o.flag for o in OPTIONS.values() for alias in (*o.known_as, o.flag.lstrip("-"))}
    near = [word] if word in names else difflib.get_close_matches(word, list(names), n=1)
    return f". Did you mean {names[near[0]]}?" if near else ""


def told(result: Result) -> str:
    """Returns what is said of a finished run."""
    files = f"report: {result.folder / 'report.html'}\nplot:   {result.folder / 'curve.png'}"
    return "\n".join([headline(result.settings, result.test), effort(result.settings, result.trained), files])


def train_all(
    runs: Mapping[str, Experiment], folder: Path, say: Callable[[str], None], apart: bool, mesh: Any, **options: Any
) -> int:
    """Runs experiments, says how they compare, and returns the exit status; `apart` if never in one program."""
    settings = [experiment.resolve() for experiment in runs.values()]
    fit = not apart and fit_one_program(settings, [folder / name for name in runs])
    together = fit and is_faster_together(settings[0])

    def done(name: str, result: Result | FloatingPointError) -> None:
        say(f"{folder / name}: {result}" if isinstance(result, FloatingPointError) else told(result))

    found = run_all(runs, folder, mesh=None if together else mesh, one_program=together, done=done, **options)
    say(compare_runs([folder / name for name in runs]))
    return int(any(isinstance(result, FloatingPointError) for result in found.values()))
