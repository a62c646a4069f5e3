"""Speed and memory of whole meta-updates: jaxmeta, the naive JAX port, and PyTorch and learn2learn if installed.

Beside them what `sampling.py` and `rl.py` have more of: drawing a 5-way 1-shot task, and a meta-iteration of ProMP.

Conv-4: 5-way 1-shot, 28x28 random pixels, 4 convolutions x 64 channels with stride 2, 1 query per class (ProtoNets 15),
32 tasks per update. Sinusoid: 10 shots, a 40-40 network, 25 tasks; jaxmeta's row runs 100 updates in one program, as
`jaxmeta.train` does. Adam outside. All rows start from the same parameters and the same tasks, and their first
meta-gradients are compared. The naive port is the same network with XLA's convolution under `vmap` over tasks; for the
sinusoid it is one compiled update at a time. PyTorch gets its tasks for free.

The rows' rounds alternate in one process: compare ratios, and CPU time (of all threads) where the machine has other
load; that of rows with processes of their own is left out. Memory is what a call needs beside its arguments: JAX's is
the compiler's figure, PyTorch's the profiler's.

"share" is the rate of the arithmetic that Conv-4 needs, counted by hand (`flops`), per CPU second, as a share of the
rate of a product of two 2048x2048 matrices (JAX's or PyTorch's, the faster one) in the same rounds.

    python experiments/benchmarks/suite.py                               # 5 minutes; with PyTorch 14
    JAX_ENABLE_X64=1 python experiments/benchmarks/suite.py --rounds 1   # in float64, where differences are rounding
"""

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rl
import sampling
import tyro
from workloads import Way, Workload, alternate, conv4, jax_way, machine, naive

import jaxmeta
from jaxmeta import data, models

OURS, NAIVE = "jaxmeta", "naive JAX port"
PRODUCT, SAMPLING, RL = "matrix product", "a task, 5-way 1-shot", "ProMP, Particles2D"
WITH_PROCESSES = ("DataLoader, 2 workers", "AsyncVectorEnv + PyTorch")


@dataclass(frozen=True)
class Args:
    """Time whole meta-updates, written in several ways."""

    num_tasks: int = 32
    """Tasks per meta-update of Conv-4."""
    hidden: int = 64
    """Channels of Conv-4."""
    updates: int = 100
    """Updates of the sinusoid in one program."""
    size: int = 2048
    """Rows of the matrices of the large product."""
    devices: int = 2
    """Of the rows that divide the tasks over devices; simulated on a CPU, where one for each core is best."""
    rounds: int = 5
    """Alternating rounds; medians count."""
    only: tuple[str, ...] = ()
    """Workloads whose name contains one of these; empty for all."""
    naive_max_steps: int = 1
    """Largest number of inner steps of the naive port (5 take minutes)."""
    torch: bool = True
    """Run PyTorch's rows, and learn2learn's, if they are installed."""
    torch_threads: int = 1
    """Of PyTorch; more than one wait for each other by spinning, which costs CPU time on a busy machine."""
    torch_compile: bool = False
    """Also `torch.compile` of the `vmap` of `grad`: minutes to compile, and a C++ compiler."""
    output: Path = Path("runs/benchmarks/suite.json")
    """Where the numbers go."""


def wanted(name: str, args: Args) -> bool:
    """Whether `--only` leaves a workload in."""
    return not args.only or any(part in name for part in args.only)


def workloads(args: Args) -> dict[str, Workload]:
    """By name."""

    def conv(**options: Any) -> Workload:
        return conv4(args.num_tasks, hidden=args.hidden, **options)

    table = {
        "MAML, 1 step": conv(),
        "MAML, 5 steps": conv(steps=5),
        "MAML, 1 step, first order": conv(first_order=True),
        "MAML, 5 steps, first order": conv(steps=5, first_order=True),
        "Meta-SGD, 1 step": conv(learner="meta-sgd"),
        "Meta-KFO, 1 step": conv(learner="meta-kfo"),
        "ProtoNets": conv(learner="protonet", queries=15),
        "sinusoid, MAML, 1 step": Workload("maml", models.MLP(), data.Sinusoid(), num_tasks=25, rate=0.01),
    }
    return {name: work for name, work in table.items() if wanted(name, args)}


def ways(work: Workload, args: Args) -> dict[str, Way]:
    """All ways to do a workload, ours first."""
    everything = work.num_tasks
    if isinstance(work.model, models.MLP):
        found = {
            OURS: jax_way(work, batch_size=everything, updates=args.updates),
            NAIVE: jax_way(work, batch_size=everything),
        }
    else:
        found = {OURS: jax_way(work)}
        if args.devices > 1:
            found[f"jaxmeta, {args.devices} devices"] = jax_way(work, mesh=jaxmeta.task_mesh(args.devices))
        if work.learner == "maml" and not work.first_order:
            found["jaxmeta, mixed()"] = jax_way(work, meta_gradient=jaxmeta.mixed())
            found["jaxmeta, all tasks under vmap"] = jax_way(work, batch_size=everything)
        if work.steps <= args.naive_max_steps:
            found[NAIVE] = jax_way(naive(work), batch_size=everything)
    if args.torch and importlib.util.find_spec("torch"):
        from torch_ways import torch_ways

        found |= torch_ways(work, threads=args.torch_threads, compiled=args.torch_compile)
    return found


def others(args: Args) -> dict[tuple[str, str], Way]:
    """Ways to draw tasks, and of meta-iterations of ProMP; to be made before JAX starts, as some fork."""

    def way(turns: Iterator[int] | Iterator[None]) -> Way:
        return Way(lambda: next(turns), updates=next(turns) or 1)

    found: dict[tuple[str, str], Way] = {}
    if wanted(RL, args):
        meta_iterations = rl.rows(rl.Args(torch_threads=args.torch_threads))
        found |= {(RL, how): way(turns) for how, turns in meta_iterations.items() if args.torch or how == OURS}
    if wanted(SAMPLING, args):
        (ways, shots, queries, *sizes), *_ = sampling.ROWS
        draw = data.FusedNWaysKShots(ways, shots, queries=queries)
        columns = sampling.columns(sampling.make_dataset(), draw, *sizes)
        columns = {OURS: columns.pop("device, images")} | columns
        found |= {
            (SAMPLING, how): way(turns)
            for how, turns in columns.items()
            if args.torch or not how.startswith("DataLoader")
        }
    return found


def differences(ways: dict[str, Way]) -> dict[str, float]:
    """Norm of the difference of each meta-gradient to the first one, over the norm of that."""
    gradients = {
        name: np.concatenate([np.ravel(leaf) for leaf in way.gradient(way.run())])
        for name, way in ways.items()
        if way.gradient
    }
    first = next(iter(gradients.values()))
    return {name: float(np.linalg.norm(g - first) / np.linalg.norm(first)) for name, g in gradients.items()}


def flops(work: Workload) -> float:
    """Multiplications and additions that one meta-update of MAML on Conv-4 needs in its convolutions and its head.

    A layer's forward pass is one product, its backward pass two: one for its input, one for its weights. The derivative
    of the inner step has two for each of these three, as a product has two arguments. The first layer's input is no
    function of the parameters, so there an inner step has 1 + 1, its derivative 1 + 1, and the query set 1 + 1.
    """
    model: Any = work.model
    examples, size, channels = model.ways, 28, 1
    total = 0.0
    for layer in range(model.layers + 1):
        if layer < model.layers:
            size = -(-size // 2)
            product = 2 * examples * size**2 * 9 * channels * model.hidden
        else:
            product = 2 * examples * channels * model.ways
        channels = model.hidden
        once, again = (2, 2) if layer == 0 else (3, 6)
        total += product * (once + work.steps * (once + (0 if work.first_order else again)))
    return work.num_tasks * total


def products(size: int, with_torch: bool) -> dict[str, Way]:
    """The product of two large matrices."""
    x = jnp.ones((size, size))
    product = jax.jit(jnp.matmul)
    found = {f"{PRODUCT}, JAX": Way(lambda: product(x, x).block_until_ready())}
    if with_torch and importlib.util.find_spec("torch"):
        import torch  # pyright: ignore[reportMissingImports]

        y = torch.tensor(np.asarray(x))
        found[f"{PRODUCT}, PyTorch"] = Way(lambda: y @ y)
    return found


def measure(args: Args, made: dict[tuple[str, str], Way]) -> list[dict[str, Any]]:
    """All rows: those `made` already, and those of the workloads."""
    table, runs = workloads(args), dict(made)
    facts: dict[tuple[str, str], dict[str, float]] = {}
    for name, work in table.items():
        print(f"compiling: {name}", file=sys.stderr)
        found = ways(work, args)
        off = differences(found)
        for how, way in found.items():
            runs[name, how] = way
            facts[name, how] = {"difference": off[how]} if how in off else {}
    for how, way in products(args.size, args.torch).items():
        runs[PRODUCT, how] = way
    times = alternate(runs, args.rounds)
    peak = max(2 * args.size**3 / times[key]["cpu_ms"] for key in times if key[0] == PRODUCT)
    rows = []
    for (name, how), r in times.items():
        row: dict[str, Any] = {"workload": name, "how": how, **r, **facts.get((name, how), {})}
        if how in WITH_PROCESSES:
            row["cpu_ms"] = float("nan")
        if name != PRODUCT:
            row["relative"] = r["ms"] / times[name, OURS]["ms"]
            row["relative_cpu"] = row["cpu_ms"] / times[name, OURS]["cpu_ms"]
        if name in table:
            row["updates_per_s"] = 1e3 / r["ms"]
            row["tasks_per_s"] = table[name].num_tasks * row["updates_per_s"]
            if table[name].learner == "maml" and not isinstance(table[name].model, models.MLP):
                row["share"] = flops(table[name]) / r["cpu_ms"] / peak
        rows.append(row)
    return rows


COLUMNS = {
    "ms": ("ms", ".4g"),
    "CPU ms": ("cpu_ms", ".4g"),
    "times jaxmeta's": ("relative", ".1f"),
    "times jaxmeta's CPU": ("relative_cpu", ".1f"),
    "updates/s": ("updates_per_s", ".1f"),
    "tasks/s": ("tasks_per_s", ".0f"),
    "temporary MiB": ("temporary_MiB", ".1f"),
    "compile CPU s": ("compile_s", ".1f"),
    "share": ("share", ".0%"),
    "difference": ("difference", ".0e"),
}


def main(args: Args) -> None:
    """Measure, print a table, write it down."""
    jax.config.update("jax_num_cpu_devices", args.devices)
    made = others(args)
    before = machine()
    rows = measure(args, made)
    after = machine()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"before": before, "after": after, "rows": rows}, indent=2))
    print(f"{before}, load afterwards {after['load']}; Conv-4: {args.num_tasks} tasks; {args.rounds} rounds\n")
    print("| workload | how |", " | ".join(COLUMNS), "|")
    print("| --- | --- |", " | ".join("---" for _ in COLUMNS), "|")
    for row in rows:
        cells = [format(row[key], form) if np.isfinite(row.get(key, np.nan)) else "" for key, form in COLUMNS.values()]
        print(f"| {row['workload']} | {row['how']} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main(tyro.cli(Args))
