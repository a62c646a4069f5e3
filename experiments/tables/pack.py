"""The data of one benchmark as one packed file of uint8 pictures, or in parts for another machine.

The file is what `jaxmeta.data.Examples.save` writes: all pictures, the class of each by name, and a checksum. It takes
the place of the benchmark's own files: `--root <folder>/cifar100.npz`, or `--root <folder>` for `run.py`. CIFAR-FS and
FC100 share the file of CIFAR-100. Parts are cut at bytes, so that `cat` puts them together again.

    python experiments/tables/pack.py --benchmark cifar-fs --root <folder> --output <folder>       # 185 MB in seconds
    python experiments/tables/pack.py --benchmark omniglot --root <folder> --output <folder> --part-mib 60
    cat <folder>/cifar100.npz.part* > cifar100.npz
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from jaxmeta import data

NAMES = {"cifar-fs": "cifar100", "fc100": "cifar100"}


@dataclass(frozen=True)
class Args:
    """Pack a benchmark into one file."""

    benchmark: str
    """A benchmark of pictures that is read from files."""
    output: Path
    """Folder of the packed file."""
    root: Path | None = None
    """Folder with the benchmark's files."""
    part_mib: int | None = None
    """Size of the parts, at least 1; one whole file if not given."""


def pack(args: Args) -> list[Path]:
    """Writes the file, or its parts, and returns their paths.

    Raises:
        ValueError: if the benchmark has no pictures, or parts would be empty.
    """
    if args.part_mib is not None and args.part_mib < 1:
        raise ValueError(f"part_mib must be at least 1, got {args.part_mib}")
    found = data.load_examples(args.benchmark, args.root, split="all").train
    if found.inputs.dtype != "uint8":
        raise ValueError(f"benchmark must have pictures of uint8, got {args.benchmark} with {found.inputs.dtype}")
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / f"{NAMES.get(args.benchmark, args.benchmark)}.npz"
    found.save(path)
    return [path] if args.part_mib is None else _divided(path, args.part_mib << 20)


def _divided(path: Path, size: int) -> list[Path]:
    """Replaces a file by its parts."""
    parts = []
    with path.open("rb") as file:
        while content := file.read(size):
            parts.append(path.with_name(f"{path.name}.part{len(parts):02}"))
            parts[-1].write_bytes(content)
    path.unlink()
    return parts


def main(args: Args) -> None:
    """Pack, and say what was written."""
    for path in pack(args):
        print(f"{path}: {path.stat().st_size / 2**20:,.1f} MiB")


if __name__ == "__main__":
    main(tyro.cli(Args))
