"""The folder of a run: the record of its settings, and the refusal of a folder that holds something else."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from jaxmeta._files import write_atomically
from jaxmeta.catalog import Settings
from jaxmeta.runs._modules import loaded_modules
from jaxmeta.training import installed_versions

_FILES = ("checkpoints", "metrics.jsonl", "training.json", "result.json", "curve.png", "report.md")


def read_options(folder: Path) -> dict[str, Any] | None:
    """Returns the options that `claim_folder` wrote into the folder; `None` if there is no record.

    Raises:
        ValueError: if the record is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        options = json.loads(path.read_text())["settings"]
        return {str(name): options[name] for name in options}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} does not describe a run of this version of jaxmeta ({error})") from error


def check_folder(folder: Path, settings: Settings) -> None:
    """Raises ValueError if the folder holds another run or files of something else."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"folder must be a folder, but {folder} is a file")
    old = read_options(folder)
    if old is not None:
        new = dict(settings)
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        different = [f"{name} was {old.get(name)!r}, now {new.get(name)!r}" for name in names]
        if different:
            raise ValueError(f"folder {folder} holds another run ({', '.join(different)}). Choose another folder")
        return
    foreign = [name for name in _FILES if (folder / name).exists()]
    if foreign:
        raise ValueError(f"folder {folder} holds {foreign[0]} of something else. Choose another folder")


def claim_folder(folder: Path, settings: Settings) -> None:
    """Writes the record of a run into its folder, unless it is there. Only the first of several processes writes."""
    if jax.process_index() > 0 or (folder / "config.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    device = jax.devices()[0]
    config = {
        "settings": dict(settings),
        "modules": loaded_modules(),
        "versions": versions(),
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform}, {os.cpu_count()} host cores)",
        "python": platform.python_version(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_atomically(folder / "config.json", json.dumps(config, indent=2) + "\n")


def versions() -> dict[str, str]:
    """Returns the versions of jaxmeta and of what it computes with; "unknown" for what is not installed."""
    return installed_versions("jaxmeta", "jax", "jaxlib", "flax", "optax", "numpy")
