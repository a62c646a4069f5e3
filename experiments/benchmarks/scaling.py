"""How the cost of a meta-update of MAML grows: with devices, tasks, inner steps and width.

Conv-4 as in `suite.py`, second order. One quantity varies, the others stay at 1 step, 64 channels, 32 tasks. Devices
are simulated: they share the machine's cores, so time can fall only until there are as many devices as cores. Further
ones only add overhead: tasks are drawn at once, parameters are copied, gradients are added up. Each number of devices
has a process of its own, as XLA starts a thread for each; in a process the rounds of all points alternate.
Expected: time grows in proportion to tasks and steps; memory grows with steps, and hardly with tasks.

    python experiments/benchmarks/scaling.py      # 3 minutes, most of them to compile
"""

import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import tyro
from workloads import Way, alternate, conv4, jax_way, machine

import jaxmeta


@dataclass(frozen=True)
class Args:
    """Time meta-updates of growing size."""

    devices: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of devices; simulated on a CPU."""
    num_tasks: tuple[int, ...] = (2, 8, 32, 128)
    """Tasks per update."""
    steps: tuple[int, ...] = (1, 2, 5, 10)
    """Inner steps."""
    hidden: tuple[int, ...] = (16, 32, 64, 128)
    """Channels of each layer."""
    base_tasks: int = 32
    """Tasks where they do not vary."""
    rounds: int = 5
    """Alternating rounds; medians count."""
    output: Path = Path("runs/benchmarks/scaling.json")
    """Where the numbers go; the plot beside it."""


class Point(NamedTuple):
    """Where a meta-update is timed."""

    num_tasks: int
    devices: int = 1
    steps: int = 1
    hidden: int = 64

    def compile(self) -> Way:
        """The meta-update."""
        mesh = jaxmeta.task_mesh(self.devices) if self.devices > 1 else None
        return jax_way(conv4(self.num_tasks, steps=self.steps, hidden=self.hidden), mesh=mesh)


QUANTITIES = {"devices": "devices", "num_tasks": "tasks", "steps": "inner steps", "hidden": "channels"}


def time_points(points: list[Point], rounds: int) -> dict[Point, dict[str, float]]:
    """Times of points of the same number of devices, in a process that has these."""
    jax.config.update("jax_num_cpu_devices", points[0].devices)
    ways: dict[Point, Way] = {}
    for point in points:
        print(f"compiling: {point}", file=sys.stderr)
        ways[point] = point.compile()
    return alternate(ways, rounds)


def measure(args: Args) -> dict[str, dict[int, dict[str, float]]]:
    """By quantity, by its value."""
    base = Point(args.base_tasks)
    points = {name: {n: base._replace(**{name: n}) for n in getattr(args, name)} for name in QUANTITIES}
    wanted = {point for row in points.values() for point in row.values()}
    times: dict[Point, dict[str, float]] = {}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as processes:
        for devices in sorted({point.devices for point in wanted}):
            chosen = sorted(point for point in wanted if point.devices == devices)
            times |= processes.submit(time_points, chosen, args.rounds).result()
    return {QUANTITIES[name]: {n: times[point] for n, point in row.items()} for name, row in points.items()}


def plot(results: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """Time and memory against each quantity, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(results), 5.5), layout="constrained")
    axes = figure.subplots(2, len(results), sharex="col", sharey="row", squeeze=False)
    for column, (quantity, rows) in enumerate(results.items()):
        for key, label in (("ms", "wall"), ("cpu_ms", "CPU")):
            axes[0, column].plot(list(rows), [row[key] for row in rows.values()], "o-", label=label)
        axes[1, column].plot(list(rows), [row["temporary_MiB"] for row in rows.values()], "o-", color="C2")
        axes[1, column].set_xlabel(quantity)
        for axis in axes[:, column]:
            axis.loglog()
            axis.set_xticks(list(rows), [str(value) for value in rows])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("ms per meta-update")
    axes[1, 0].set_ylabel("temporary MiB")
    axes[0, 0].legend()
    figure.savefig(path, dpi=150)


def main(args: Args) -> None:
    """Measure, print a table, write it down, plot it."""
    before = machine()
    results = measure(args)
    after = machine()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"before": before, "after": after, "results": results}, indent=2))
    plot(results, args.output.with_suffix(".png"))
    print(f"{before}, load afterwards {after['load']}; {args.base_tasks} tasks; {args.rounds} rounds\n")
    print("| | ms | CPU ms | temporary MiB | compile CPU s |")
    print("| --- | --- | --- | --- | --- |")
    for quantity, rows in results.items():
        for value, r in rows.items():
            print(
                f"| {value} {quantity} | {r['ms']:.1f} | {r['cpu_ms']:.1f} | {r['temporary_MiB']:.1f} | "
                f"{r['compile_s']:.1f} |"
            )


if __name__ == "__main__":
    main(tyro.cli(Args))
