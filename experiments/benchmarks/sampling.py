"""Tasks per second of `data.FewShot` under `jit`: indices only, and with the images gathered on the device.

1,623 classes x 20 images of 28x28 (Omniglot's size, random pixels). learn2learn's `Taskset` reaches 700 to 16,000 tasks
per second on the same kind of machine (two CPU cores).

    python experiments/benchmarks/sampling.py
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro

from jaxmeta import data


@dataclass(frozen=True)
class Args:
    """Time task sampling."""

    rounds: int = 30
    """Calls per row; the median counts."""
    output: Path = Path("runs/benchmarks/sampling.json")
    """Where the numbers go."""


# ways, shots, queries, index tasks per call, image tasks per call
ROWS = (
    (5, 1, 1, 20_000, 256),
    (5, 1, 15, 4_000, 32),
    (5, 5, 15, 4_000, 32),
    (20, 1, 1, 4_000, 64),
    (20, 5, 15, 1_000, 8),
)


def median_rate(function, sampler: data.FewShot, num_tasks: int, rounds: int) -> float:
    """Median tasks per second over `rounds` calls of `num_tasks` tasks each."""
    run = jax.jit(lambda sampler, key: jax.vmap(lambda k: function(sampler, k))(jax.random.split(key, num_tasks)))
    seconds = []
    for key in jax.random.split(jax.random.key(0), rounds + 1):
        begin = time.perf_counter()
        jax.block_until_ready(run(sampler, key))
        seconds.append(time.perf_counter() - begin)
    return num_tasks / float(np.median(seconds[1:]))


def main(args: Args) -> None:
    """Time all rows, print a table."""
    pixels = np.random.default_rng(0).integers(0, 256, (1623, 20, 28, 28, 1), np.uint8)
    results = []
    print("| task | index tasks/s | tasks/s with images |")
    print("| --- | --- | --- |")
    for ways, shots, queries, index_tasks, image_tasks in ROWS:
        sampler = data.FewShot.from_classes(pixels, ways=ways, shots=shots, queries=queries)
        index = median_rate(lambda s, k: s.indices(k), sampler, index_tasks, args.rounds)
        images = median_rate(lambda s, k: s(k), sampler, image_tasks, args.rounds)
        name = f"{ways}-way {shots}-shot, {queries} queries per class"
        results.append({"task": name, "index_tasks_per_s": index, "image_tasks_per_s": images})
        print(f"| {name} | {index:,.0f} | {images:,.0f} |", flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Args))
