"""The folder of a run: the record of its settings, and the refusal of a folder that holds something else."""

import contextlib
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxmeta._files import read_json, write_atomically, write_json
from jaxmeta.catalog import Settings
from jaxmeta.reports import Findings, Report, Tested, facts_of
from jaxmeta.runs._command import command_of
from jaxmeta.runs._data import changed_data
from jaxmeta.runs._modules import load_module, loaded_modules
from jaxmeta.runs._options import OPTIONS
from jaxmeta.training import METRICS_FILE, Trained, installed_versions

META_FILE = "meta.msgpack"
"""File of the best meta-parameters, in the folder of a run that has finished."""
_FILES = ("checkpoints", METRICS_FILE, "training.json", "result.json", "curve.png", "report.md")
_FILES += ("report.html", META_FILE)


class Record(NamedTuple):
    """Record of a run, as `config.json` holds it."""

    settings: dict[str, Any]
    """Every option with its final value."""
    data: dict[str, Any]
    """Facts about the data that the model depends on."""
    modules: list[str]
    """Modules of the user, as files in the run's folder or by their names."""
    versions: dict[str, str]
    """Versions of the packages."""
    command: list[str]
    """The command that was run."""
    root: str
    """Folder with the benchmark's files that was given, or an empty string."""


def read_record(folder: Path) -> Record:
    """Returns what `claim_folder` wrote into the folder.

    Raises:
        FileNotFoundError: if there is no record.
        ValueError: if the record is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not the folder of a run: it has no config.json")
    config = read_json(path)
    try:
        record = Record(*(type_(config[name]) for name, type_ in Record.__annotations__.items()))
        return record._replace(settings={str(name): record.settings[name] for name in record.settings})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} does not describe a run of this version of jaxmeta ({error})") from error


def read_result(folder: Path) -> dict[str, Any] | None:
    """Returns the result of a run that has finished, or `None`.

    Raises:
        ValueError: if it is damaged.
    """
    path = folder / "result.json"
    return read_json(path) if path.is_file() else None


def damaged(folder: Path, error: Exception) -> ValueError:
    """Returns the error for a folder with records that cannot be read."""
    return ValueError(f"{folder} holds records that are damaged ({type(error).__name__}: {error})")


def check_folder(folder: Path, settings: Settings) -> None:
    """Raises ValueError if the folder holds another run or files of something else."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"folder must be a folder, but {folder} is a file")
    if (folder / "config.json").is_file():
        old, new = read_record(folder).settings, dict(settings)
        # The batch size may change, as after too little memory: it decides only the order of a sum.
        names = [name for name in {**old, **new} if old.get(name) != new.get(name) and name != "batch_size"]
        different = [f"{name} was {old.get(name)!r}, now {new.get(name)!r}" for name in names]
        if different:
            raise ValueError(f"folder {folder} holds another run ({', '.join(different)}). Choose another folder")
        return
    foreign = [name for name in _FILES if (folder / name).exists()]
    if foreign:
        raise ValueError(f"folder {folder} holds {foreign[0]} of something else. Choose another folder")


def recorded_classes(folder: Path) -> dict[str, list[str]] | None:
    """Returns the class names of each part of a run that has begun, or `None`."""
    return read_record(folder).data.get("classes") if (folder / "config.json").is_file() else None


@contextlib.contextmanager
def resuming(folder: Path) -> Iterator[None]:
    """Says of an error in reading the data that a run which has begun cannot go on with them."""
    try:
        yield
    except ValueError as error:
        if not (folder / "config.json").is_file():
            raise
        root = read_record(folder).root
        before = f", whose data were read from {root}," if root else ""
        raise ValueError(f"folder {folder}{before} cannot be resumed: {error}") from error


def claim_folder(folder: Path, settings: Settings, facts: Mapping[str, Any], root: str | Path | None = None) -> None:
    """Writes the record of a run and of its data into its folder, which the process holds, unless it is there.

    Only the first of several processes writes.

    Raises:
        ValueError: if the folder holds something else, or the data have changed.
    """
    check_folder(folder, settings)  # another process may have begun since the data were read
    if (folder / "config.json").is_file():
        if told := changed_data(read_record(folder).data, facts):
            raise ValueError(f"folder {folder} cannot be resumed: {told}. Choose another folder")
        return
    if jax.process_index() > 0:
        return
    device = jax.devices()[0]
    config = {
        "settings": dict(settings),
        "data": dict(facts),
        "modules": [_kept(folder, module) for module in loaded_modules()],
        "versions": versions(),
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform}, {os.cpu_count()} host cores)",
        "python": platform.python_version(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "root": "" if root is None else str(Path(root).absolute()),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / "config.json", config)


def _kept(folder: Path, module: str) -> str:
    """Copies a file of the user into the run's folder, and returns its name there. The name of a module stays."""
    if not module.endswith(".py"):
        return module
    kept = Path("modules", Path(module).name)
    (folder / kept.parent).mkdir(exist_ok=True)
    write_atomically(folder / kept, Path(module).read_text(encoding="utf-8"))
    return kept.as_posix()


def load_modules(folder: Path, record: Record) -> None:
    """Runs the modules of the user that a run had loaded, unless they are loaded."""
    for module in record.modules:
        load_module(str(folder / module) if module.endswith(".py") else module)


def command_of_run(folder: Path, settings: Settings, record: Record) -> str:
    """Returns the command that repeats a run. The files of its modules are those in its folder."""
    modules = [str(folder / module) if module.endswith(".py") else module for module in record.modules]
    return command_of(settings, modules=modules, root=record.root)


def report_of(folder: Path, settings: Settings, trained: Trained, tested: Tested, findings: Findings) -> Report:
    """Returns the report of a run from what its folder holds, its training and its test."""
    command = command_of_run(folder, settings, read_record(folder))
    facts = facts_of(read_json(folder / "config.json"))
    return Report(settings, OPTIONS, command, trained, tested, findings, facts)


def versions() -> dict[str, str]:
    """Returns the versions of jaxmeta and of what it computes with; "unknown" for what is not installed."""
    return installed_versions("jaxmeta", "jax", "jaxlib", "flax", "optax", "numpy")
