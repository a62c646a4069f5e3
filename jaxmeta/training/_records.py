"""The records of a training in a file that grows by a line for each, which has a checksum of its values."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxmeta._files import with_checksum, without_checksum, write_atomically

METRICS_FILE = "metrics.jsonl"
"""File of the records, in the folder of a training."""


def read_records(folder: Path) -> list[dict[str, float]]:
    """Returns the records in a folder, without a last line that is not finished: a kill can cut it.

    Raises:
        ValueError: if a line is not what was written.
    """
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    records = [without_checksum(line, f"line {number} of {path}") for number, line in enumerate(lines, 1)]
    for number, record in enumerate(records, 1):
        step = record.get("step")
        if not isinstance(step, int) or step < 0:
            raise ValueError(f"line {number} of {path} is no record of a training: its step is {step!r:.50}")
    return records


def write_records(folder: Path, records: Iterable[Mapping[str, float]]) -> None:
    """Writes the file anew."""
    write_atomically(folder / METRICS_FILE, "".join(map(_line, records)))


def append_record(folder: Path, record: Mapping[str, float]) -> None:
    """Adds a line to the file."""
    with (folder / METRICS_FILE).open("a", encoding="utf-8") as file:
        file.write(_line(record))


def _line(record: Mapping[str, float]) -> str:
    return json.dumps(with_checksum(record)) + "\n"
