"""The command line: `jaxmeta train`, `jaxmeta evaluate`, `jaxmeta predict`, ..."""

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

from jaxmeta._commands import (
    compare,
    describe_cost,
    evaluate,
    hint,
    list_names,
    predict,
    show_versions,
    told,
    train_all,
)
from jaxmeta._files import cache_folder
from jaxmeta._parallel import available_cores, device_complaint, simulate_devices, task_mesh
from jaxmeta.catalog import GROUPS, LEARNERS, Option, Settings, default_of
from jaxmeta.runs import OPTIONS, Experiment, load_module
from jaxmeta.training import LOGGERS, named_loggers, on_signals

_DEVICES = ("devices", "distributed", "coordinator", "num_processes", "process_id")
_TYPES = {int: "N", float: "X", str: "NAME"}


class _Formatter(argparse.HelpFormatter):
    """Help that shows an option with one value, though several are allowed."""

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.option_strings and action.nargs == "+":
            return str(action.metavar)
        return super()._format_args(action, default_metavar)


class _Parser(argparse.ArgumentParser):
    """A parser with errors in one line, suggestions, and no abbreviated options."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}{hint(message)} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="jaxmeta", usage="jaxmeta COMMAND [options]", description="Meta-learning for JAX.")
    parser.add_argument("--version", action="store_true", help="Show the versions of jaxmeta and JAX, and the device.")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(prog="jaxmeta", title="commands", metavar="COMMAND")

    train = _command(commands, "train", _train, "Meta-train, test, and write a report.")
    train.epilog = (
        "`jaxmeta list NAME` shows a default 'by learner' (model, benchmark ...). An option that does not apply is an "
        "error. Several values of an option, such as --seed 0 1 2, are a run for each of them, in a folder of its own. "
        "Run the same command again to resume what was interrupted."
    )
    for title in GROUPS:
        group = train.add_argument_group(title)
        for option in (option for option in OPTIONS.values() if option.group == title):
            _add(group, option)
    files = train.add_argument_group("files")
    files.add_argument("--folder", type=Path, help="Folder of the run; runs/<benchmark>-<learner>-... if not given.")
    root = files.add_mutually_exclusive_group()
    root.add_argument("--root", type=Path, help="Folder with the benchmark's files, if it needs any.")
    names = f"{{{','.join(LOGGERS)}}}"
    files.add_argument("--log", nargs="+", default=[], metavar=names, help="Write the metrics for other tools too.")
    root.add_argument("--features", type=Path, metavar="X.npz", help="Short for --benchmark features --root X.npz.")
    files.add_argument("--download", action="store_true", help="Fetch those files if they are missing.")

    where = train.add_argument_group("time and devices")
    where.add_argument("--minutes", type=float, metavar="X", help="End the training when it has taken so long.")
    where.add_argument("--devices", type=int, metavar="N", help="Devices to divide the tasks over [1; CPU: its cores].")
    where.add_argument("--distributed", action="store_true", help="This is one of several processes of a cluster.")
    where.add_argument("--coordinator", metavar="HOST:PORT", help="Address of the first of several processes.")
    where.add_argument("--num-processes", type=int, metavar="N", help="Number of processes, with --coordinator.")
    where.add_argument("--process-id", type=int, metavar="N", help="Number of this process, with --coordinator.")
    where.add_argument("--estimate", action="store_true", help="Show the cost of an update, and do not run.")

    test = _command(commands, "evaluate", evaluate, "Test the best meta-parameters of a run again.", "FOLDER ")
    test.add_argument("folder", type=Path, help="Folder of the run.")
    test.add_argument("--num-tasks", type=int, metavar="N", help="Test tasks, if not as many as in the run.")
    test.add_argument("--ways", type=int, metavar="N", help="Classes per task, if not the run's.")
    test.add_argument("--test-steps", type=int, metavar="N", help="Inner steps, if not the run's.")
    test.add_argument("--test-queries", type=int, metavar="N", help="Query examples per class, if not the run's.")
    rotations = "Rotated characters are classes of their own (Omniglot), if not as in the run."
    test.add_argument("--test-rotations", action=argparse.BooleanOptionalAction, help=rotations)
    test.add_argument("--root", type=Path, help="Folder with the benchmark's files, if it needs any.")
    test.add_argument("--report", type=Path, metavar="FILE", help="Write a page of HTML about this test.")
    table = "Write the predictions for all queries: a table .csv, or arrays .npz."
    test.add_argument("--predictions", type=Path, metavar="FILE", help=table)

    _add_uses(commands)
    about = _command(commands, "list", list_names, "List benchmarks, learners, models and meta-gradients.", "[NAME] ")
    about.add_argument("name", nargs="?", metavar="NAME", help="Show all about one of them.")
    return parser


def _add_uses(commands: Any) -> None:
    """Adds the commands that use runs."""
    ask = _command(commands, "predict", predict, "Classify inputs of your own.", "RUN [INPUTS ...] ")
    ask.add_argument("source", type=Path, metavar="RUN", help="Folder of a run, or a classifier that --save wrote.")
    inputs = "Images, folders of images, files .npz with an array x, or for text files with a sentence in each line."
    ask.add_argument("inputs", nargs="*", type=Path, metavar="INPUTS", help=inputs)
    support = (
        "A few examples of each class, for a run: folders of images, lines 'class<TAB>text', or .npz with x and y."
    )
    ask.add_argument("--support", type=Path, metavar="SHOTS", help=support)
    form = ask.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="Print JSON, with the probability of every class.")
    form.add_argument("--csv", action="store_true", help="Print comma-separated values, with every probability.")
    ask.add_argument("--save", type=Path, metavar="FILE", help="Save the adapted classifier as one file.")

    table = _command(commands, "compare", compare, "Compare runs: results, settings that differ, curves.", "RUN ... ")
    table.add_argument("folders", nargs="+", type=Path, metavar="RUN", help="Folders of two runs or more.")
    table.add_argument("--plot", type=Path, metavar="FILE", help="Save the learning curves as a PNG file.")


def _add(group: Any, option: Option) -> None:
    text = f"{option.help} [{default_of(option)}]".replace("%", "%%")
    if option.type is bool:
        group.add_argument(option.flag, action="store_true", default=argparse.SUPPRESS, help=text)
        return
    metavar = f"{{{','.join(option.choices)}}}" if option.choices else _TYPES[option.type]
    kind = {"type": option.type, "nargs": "+", "metavar": metavar}
    group.add_argument(option.flag, default=argparse.SUPPRESS, help=text, **kind)


def _command(commands: Any, name: str, run: Any, help: str, arguments: str = "") -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=help, usage=f"jaxmeta {name} {arguments}[options]")
    module = "Python file or module that registers learners, models, benchmarks or environments of your own."
    parser.add_argument("--module", action="append", default=[], metavar="FILE", help=module)
    parser.set_defaults(run=run)
    return parser


def _keep_programs() -> None:
    """Lets JAX keep compiled programs in the user's cache, unless the user has chosen a folder or none."""
    import jax

    config: Any = jax.config  # whose names type checkers do not know
    if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:
        return
    with contextlib.suppress(OSError, RuntimeError):  # no home, or a folder that cannot be written: nothing is kept
        folder = cache_folder().absolute() / "programs"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        config.update("jax_compilation_cache_dir", str(folder))


def _train(folder: Path | None, log: list[str], minutes: float | None, estimate: bool, **options: Any) -> int:
    asked = _mesh(**{name: options.pop(name) for name in _DEVICES})
    files = {name: options.pop(name) for name in ("root", "download")}
    if (features := options.pop("features")) is not None:
        files["root"], options["benchmark"] = features, options.get("benchmark", "features")
    runs = Experiment().vary(**{name: value if isinstance(value, list) else [value] for name, value in options.items()})
    settings = {name: experiment.resolve() for name, experiment in runs.items()}
    first = next(iter(runs.values()))
    mesh = asked or _mesh_of_cores(*settings.values())
    if estimate:
        if len(runs) > 1:
            raise ValueError(f"--estimate needs one value for each option, got those of {len(runs)} runs")
        _say(describe_cost(first.build(**files).estimate(mesh)))
        return 0
    where = folder or first.default_folder(len(runs) > 1)
    for name, s in settings.items():
        _say(f"{s.learner} on {s.benchmark}, results go to {where / name}")
    callbacks = {name: named_loggers(log, where / name, s) for name, s in settings.items()} if log else {}
    if len(runs) == 1:
        _say(told(first.run(where, **files, mesh=mesh, minutes=minutes, callback=callbacks.get("", ()))))
        return 0
    apart = asked is not None or "wandb" in log  # which ends one run when another begins
    return train_all(runs, where, _say, apart, mesh=mesh, minutes=minutes, callbacks=callbacks, **files)


def _mesh(
    devices: int | None, distributed: bool, coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Any:
    """Returns the requested devices, or None for one device."""
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
        simulate_devices(devices, threads=2 * max(devices, available_cores()))
    return task_mesh(devices)


def _mesh_of_cores(*settings: Settings) -> Any:
    """Returns a simulated device for each core of a machine that has only a CPU, where that is faster, or None.

    Milliseconds per update on two cores, one device and two, the least of 12 in turns: MAML on glyphs 213 and 138,
    ProtoNets with 5 ways and 8 tasks 131 and 98, with 60 ways and 2 tasks 339 and 310, MAML on 26 sinusoids 1.32 and
    0.80. ProMP on Particles2D 1,250 and 1,138, but it compiles for 27 s instead of 16, so policies stay on one device.
    So do larger networks: XLA ends a process whose devices wait for each other for a minute, as they may on a busy
    machine if an update is slow. So do Gaussian processes, whose factorizations would wait for ever.
    """
    import jax

    faster = all(LEARNERS[s.learner].trains_on in ("tasks", "streams") for s in settings)
    quick = all(s.get("model", "mlp") in ("cnn", "fc", "mlp") and s.benchmark != "gp-prior" for s in settings)
    if "device_count" in os.environ.get("XLA_FLAGS", "") or not (faster and quick):
        return None
    cores, config = available_cores(), cast(Any, jax.config)
    if config.jax_num_cpu_devices not in (-1, cores) or cores == 1 or any(s.num_tasks % cores for s in settings):
        return None
    simulate_devices(cores)
    return task_mesh() if jax.default_backend() == "cpu" and jax.device_count() == cores else None


def _say(text: str) -> None:
    import jax

    if jax.distributed.is_initialized() and jax.process_index() > 0:
        return
    if sys.stdout is None:
        raise OSError("standard output is closed")
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class _Terminated(BaseException):
    """A signal came that asks to end. A run saves before this is raised."""


def _terminate(number: int, _: object) -> None:
    raise _Terminated(number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    for name in ("absl", "asyncio"):  # orbax logs damaged checkpoints there; our error says it in one line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    parser = _parser()
    found, rest = parser.parse_known_args(arguments)
    options = vars(found)
    if "inputs" in options:  # argparse leaves those after an option
        options["inputs"] += [Path(word) for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    run, version = options.pop("run"), options.pop("version")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the encoding of the terminal may lack a character
            stream.reconfigure(errors="replace")
    try:
        if version or run is None:
            _say(show_versions() if version else parser.format_help().rstrip("\n"))
            return 0
        for module in options.pop("module"):
            load_module(module)
        if run in (_train, evaluate, predict):
            _keep_programs()
        with on_signals(_terminate):
            found = run(**options)
        if isinstance(found, int):
            return found
        _say(found)
    except BrokenPipeError:  # as of `jaxmeta list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        return 128 + signal.SIGPIPE
    except _Terminated as stop:
        number = signal.Signals(stop.args[0])
        sys.stderr.write(f"jaxmeta: stopped by {number.name}; run the same command again to resume\n")
        return 128 + number
    except (ValueError, TypeError, OSError, FloatingPointError, ImportError) as error:
        sys.stderr.write(f"jaxmeta: {error}\n")
        return 1
    except (AssertionError, RuntimeError, MemoryError) as error:
        if (complaint := device_complaint(error)) is None:
            raise
        sys.stderr.write(f"jaxmeta: {complaint}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("jaxmeta: stopped; run the same command again to resume\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
