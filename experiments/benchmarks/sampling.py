"""Tasks per second: a `Taskset` on the host, alone and under torch's `DataLoader`, and its sampler on the device.

1,623 classes x 20 images of 28x28 (Omniglot's size, random pixels). All columns make tasks of the same kind in one run.
Those of the `DataLoader` need torch (`pip install jaxmeta[torch]`) and are left out without it.

On two CPU cores learn2learn's `Taskset` (Cython) reaches 16,000 descriptions per second of 5-way 2-shot tasks; with
images 9,300 on a quiet machine (4,600 on a loaded one); 1,450 of 5-way 16-shot and 1,100 of 20-way 2-shot tasks.

    python experiments/benchmarks/sampling.py
"""

import importlib.util
import itertools
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from jaxmeta import data


@dataclass(frozen=True)
class Args:
    """Time task sampling."""

    rounds: int = 20
    """Turns that each column gets, one after the other; the median counts."""
    output: Path = Path("runs/benchmarks/sampling.json")
    """Where the numbers go."""


# ways, shots, queries, and tasks per turn: on the host, indices on the device, images on the device
ROWS = (
    (5, 1, 1, 512, 20_000, 256),
    (5, 1, 15, 256, 4_000, 32),
    (5, 5, 15, 256, 4_000, 32),
    (20, 1, 1, 256, 4_000, 64),
    (20, 5, 15, 64, 1_000, 8),
)
BATCH = 32  # tasks per batch of prefetch and of the DataLoader


def on_device(tasks: data.Taskset, num_tasks: int, images: bool) -> Iterator[int]:
    """Draw tasks in one compiled call per turn; yields how many."""

    def draw(sampler: data.FewShot, key: jax.Array):
        return jax.vmap(sampler if images else sampler.indices)(jax.random.split(key, num_tasks))

    run, sampler = jax.jit(draw), tasks.to_device()
    for i in itertools.count():
        jax.block_until_ready(run(sampler, tasks.key(i)))
        yield num_tasks


def on_host(tasks: data.Taskset, num_tasks: int) -> Iterator[int]:
    """Load tasks one after the other."""
    stream = iter(tasks)
    while True:
        yield sum(1 for _ in itertools.islice(stream, num_tasks))


def batches(stream: Iterator, num_tasks: int) -> Iterator[int]:
    """Take batches of tasks from a stream."""
    while True:
        for batch in itertools.islice(stream, num_tasks // BATCH):
            jax.block_until_ready(batch)
        yield num_tasks


def columns(
    dataset: data.MetaDataset, draw: data.FusedNWaysKShots, on_the_host: int, indices: int, images: int
) -> dict[str, Iterator[int]]:
    """All ways to get the tasks."""
    tasks = data.Taskset(dataset, [draw, data.LoadData(), data.RemapLabels()])
    found = {
        "host, indices": on_host(data.Taskset(dataset, [draw, data.RemapLabels()]), on_the_host),
        "host, images": on_host(tasks, on_the_host),
        "prefetched": batches(data.prefetch(tasks, BATCH), on_the_host),
        "device, indices": on_device(tasks, indices, images=False),
        "device, images": on_device(tasks, images, images=True),
    }
    if importlib.util.find_spec("torch"):
        from torch.utils.data import DataLoader  # pyright: ignore[reportMissingImports]

        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # JAX warns; it does not run in the workers
        like_torch: Any = tasks  # it has the protocol of a torch data set, and is none
        for workers in (0, 2):
            loader = DataLoader(like_torch, batch_size=BATCH, num_workers=workers, sampler=range(1 << 31))
            found[f"DataLoader, {workers} workers"] = batches(iter(loader), on_the_host)
    return found


def rate(turns: Iterator[int], rounds: int) -> float:
    """Median tasks per second; the first turn, which compiles or starts workers, does not count."""
    seconds = []
    count = next(turns)
    for _ in range(rounds):
        begin = time.perf_counter()
        next(turns)
        seconds.append(time.perf_counter() - begin)
    return count / float(np.median(seconds))


def make_dataset() -> data.MetaDataset:
    """As many images as Omniglot has."""
    pixels = np.random.default_rng(0).integers(0, 256, (1623 * 20, 28, 28, 1), np.uint8)
    return data.MetaDataset((pixels, np.repeat(np.arange(1623), 20)))


def main(args: Args) -> None:
    """Time all rows, print a table."""
    dataset = make_dataset()
    results = []
    for ways, shots, queries, *sizes in ROWS:
        draw = data.FusedNWaysKShots(ways, shots, queries=queries)
        found = {name: rate(turns, args.rounds) for name, turns in columns(dataset, draw, *sizes).items()}
        if not results:
            print("| task |", " | ".join(found), "|")
            print("| --- |", " | ".join("---" for _ in found), "|")
        name = f"{ways}-way {shots}-shot, {queries} queries per class"
        results.append({"task": name, **found})
        print(f"| {name} |", " | ".join(f"{rate:,.0f}" for rate in found.values()), "|", flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Args))
