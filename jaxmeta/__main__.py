"""The command line: `jaxmeta train`, `jaxmeta evaluate`, `jaxmeta list`."""

import argparse
import ast
import contextlib
import dataclasses
import inspect
import logging
import signal
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from jaxmeta._cost import Cost
from jaxmeta._parallel import task_mesh
from jaxmeta.runs import POLICY_RECIPES, RECIPES, Experiment, RLExperiment, Run, kind_of, with_options
from jaxmeta.training import on_sigterm

# How `jaxmeta train --help` shows the fields of an Experiment and of an RLExperiment.
_GROUPS = {
    "tasks": (
        "benchmark",
        "split",
        "ways",
        "train_ways",
        "shots",
        "train_shots",
        "queries",
        "test_queries",
        "test_rotations",
    ),
    "environments": ("variant", "horizon", "backend", "episodes"),
    "model": ("model", "norm", "hidden", "dtype"),
    "learner (what is not given takes the value of the learner's paper)": (
        "learner",
        "steps",
        "test_steps",
        "inner_rate",
        "context_size",
        "proximal",
        "inner_batch",
        "test_inner_batch",
        "meta_gradient",
        "remat",
        "outer_rate",
        "outer_schedule",
        "clip",
        "num_tasks",
    ),
    "run": ("iterations", "validate_every", "validation_tasks", "test_tasks", "batch_size", "skip_nonfinite", "seed"),
}

_DEVICES = ("devices", "distributed", "coordinator", "num_processes", "process_id")


class _Parser(argparse.ArgumentParser):
    """Errors in one line, no abbreviated options."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="jaxmeta", usage="jaxmeta COMMAND [options]", description="Meta-learning for JAX.")
    commands = parser.add_subparsers(prog="jaxmeta", title="commands", metavar="COMMAND", required=True)

    train = _command(commands, "train", _train, "Meta-train, test, and write a report.")
    train.epilog = "Run the same command again to go on with a run that was cut short."
    docs = {**_field_docs(RLExperiment), **_field_docs(Experiment), **_field_docs(Run)}
    hints = {**get_type_hints(RLExperiment), **get_type_hints(Experiment)}
    for title, names in _GROUPS.items():
        group = train.add_argument_group(title)
        for name in names:
            kind, allowed = kind_of(hints[name])
            flag, text = "--" + name.replace("_", "-"), (docs[name] + _shown_default(name)).replace("%", "%%")
            if kind is bool:
                group.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=text)
                continue
            group.add_argument(
                flag,
                type=kind,
                choices=allowed or None,
                default=argparse.SUPPRESS,
                metavar=None if allowed else {int: "N", float: "X"}.get(kind, "NAME"),
                help=text,
            )
    files = train.add_argument_group("files")
    files.add_argument("--folder", type=Path, help="Where the results go; runs/<what is run> if not given.")
    files.add_argument("--root", type=Path, help="Folder with the benchmark's files, if it needs any.")
    files.add_argument("--download", action="store_true", help="Fetch those files if they are missing.")

    where = train.add_argument_group("devices")
    where.add_argument(
        "--devices", type=int, metavar="N", help="Divide the tasks over N devices [1; with several processes all]."
    )
    where.add_argument("--distributed", action="store_true", help="One of several processes, as the cluster says.")
    where.add_argument("--coordinator", metavar="HOST:PORT", help="One of several processes; where the first one is.")
    where.add_argument("--num-processes", type=int, metavar="N", help="How many there are, with --coordinator.")
    where.add_argument("--process-id", type=int, metavar="N", help="Which one this is, from 0, with --coordinator.")
    where.add_argument("--estimate", action="store_true", help="Say what an update costs, and do not run.")

    test = _command(commands, "evaluate", _evaluate, "Test the best meta-parameters of a run again.")
    test.add_argument("folder", type=Path, help="The run's folder.")
    test.add_argument("--num-tasks", type=int, metavar="N", help="Test tasks, if not as many as in the run.")
    test.add_argument("--ways", type=int, metavar="N", help="Classes per task, if not the run's.")
    test.add_argument("--test-steps", type=int, metavar="N", help="Inner steps, if not the run's.")
    test.add_argument("--test-queries", type=int, metavar="N", help="Query examples per class, if not the run's.")
    test.add_argument(
        "--test-rotations",
        action=argparse.BooleanOptionalAction,
        help="Turned characters are classes of their own (Omniglot), if not as in the run.",
    )
    test.add_argument("--root", type=Path, help="Folder with the benchmark's files, if it needs any.")

    _command(commands, "list", _list, "List the benchmarks, learners and models.")
    return parser


def _command(commands: Any, name: str, run: Any, help: str) -> argparse.ArgumentParser:
    usage = f"jaxmeta {name} {'FOLDER ' if name == 'evaluate' else ''}[options]"
    parser = commands.add_parser(name, help=help, description=help, usage=usage)
    parser.set_defaults(run=run)
    return parser


def _shown_default(name: str) -> str:
    """The default of an option in brackets, and that for environments if it is another."""
    both = [
        next((f.default for f in dataclasses.fields(run) if f.name == name), None) for run in (Experiment, RLExperiment)
    ]
    shown = [default for default in both if default is not None and default is not False]
    if len(set(shown)) == 2:
        return f" [{shown[0]}; environments: {shown[1]}]"
    return f" [{shown[0]}]" if shown else ""


def _field_docs(run: type[Run]) -> dict[str, str]:
    """The docstring below each field of a run's class."""
    (definition,) = ast.parse(inspect.getsource(run)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(doc.value.value.split())
        for field, doc in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(doc, ast.Expr)
        and isinstance(doc.value, ast.Constant)
        and isinstance(doc.value.value, str)
    }


def _train(folder: Path | None, root: Path | None, download: bool, estimate: bool, **options: Any) -> None:
    from jaxmeta.runs import headline, run_type

    mesh = _mesh(**{name: options.pop(name) for name in _DEVICES})
    benchmark = {"benchmark": options.pop("benchmark")} if "benchmark" in options else {}
    experiment = with_options(run_type(benchmark.get("benchmark"))(**benchmark), options).resolve()
    if estimate:
        _say(_describe(experiment.build(root, download).estimate(mesh)))
        return
    folder = folder or experiment.default_folder()
    _say(f"{experiment.learner} on {experiment.benchmark}, results go to {folder}")
    result = experiment.run(folder, root=root, download=download, mesh=mesh)
    _say(headline(result))
    _say(f"report: {folder / 'report.md'}\nplot:   {folder / 'curve.png'}")


def _mesh(
    devices: int | None, distributed: bool, coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Any:
    """The devices that were asked for: none for one device."""
    import jax

    if coordinator is None and (num_processes, process_id) != (None, None):
        raise ValueError("--num-processes and --process-id need --coordinator")
    if coordinator is not None and None in (num_processes, process_id):
        raise ValueError("--coordinator needs --num-processes and --process-id")
    if distributed or coordinator is not None:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    elif devices is None:
        return None
    elif devices > 1:
        with contextlib.suppress(RuntimeError):  # JAX runs already; on a CPU, as many devices as are asked for
            jax.config.update("jax_num_cpu_devices", devices)
    return task_mesh(devices)


def _describe(cost: Cost) -> str:
    memory, arguments = (f"{size / 2**20:.3g} MiB" for size in (cost.temporary_bytes, cost.argument_bytes))
    return (
        f"an outer update needs {memory} beside its arguments' {arguments} on each device, and compiles in "
        f"{cost.compile_seconds:.1f} s; {cost.flops / 1e9:.3g} GFLOP with the body of each loop counted once"
    )


def _evaluate(folder: Path, **options: Any) -> None:
    from jaxmeta.runs import evaluate_run, show

    for name, summary in evaluate_run(folder, **options).items():
        _say(
            f"test {name} {show(name, summary)} ({summary.num_tasks} tasks, 95 % interval; median {summary.median:.4f})"
        )


def _list() -> None:
    from jaxmeta import algorithms, data, envs, models, rl

    def first_line(thing: object) -> str:
        return (inspect.getdoc(thing) or "").splitlines()[0]

    networks = {"cnn": models.OmniglotCNN, "cnn4": models.CNN4, "fc": models.OmniglotFC, "mlp": models.MLP}
    tables = {
        "benchmarks (--benchmark)": {name: data.describe_tasksets(name).about for name in data.list_tasksets()},
        "learners (--learner)": {name: first_line(getattr(algorithms, name.replace("-", "_"))) for name in RECIPES},
        "environments (--benchmark)": {name: first_line(type(envs.make(name))) for name in envs.list_envs()},
        "learners in environments (--learner)": {
            name: first_line(getattr(rl, name.replace("-", "_"))) for name in POLICY_RECIPES
        },
        "models (--model)": {name: first_line(network) for name, network in networks.items()},
    }
    for title, lines in tables.items():
        _say(title)
        for name, line in lines.items():
            _say(f"  {name:26s} {line}")


def _say(text: str) -> None:
    import jax

    if jax.distributed.is_initialized() and jax.process_index() > 0:
        return
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class _Terminated(BaseException):
    """SIGTERM came; a run saves before it gets here."""


def _terminate(*_: object) -> None:
    raise _Terminated


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    for name in ("absl", "asyncio"):  # what orbax says of a damaged checkpoint; our error says it in one line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    options = vars(_parser().parse_args(arguments))
    run = options.pop("run")
    try:
        with on_sigterm(_terminate):
            run(**options)
    except _Terminated:
        sys.stderr.write("jaxmeta: stopped by SIGTERM; run the same command again to go on from where it was\n")
        return 128 + signal.SIGTERM
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        sys.stderr.write(f"jaxmeta: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("jaxmeta: stopped; run the same command again to go on from where it was\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
