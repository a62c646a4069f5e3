"""Several runs: one after another with `jaxmeta.train`, and in one program with `jaxmeta.train_many`.

Four runs of MAML with their own seeds and outer rates, compilation included: on sinusoids (a network of dense layers)
and on glyphs (a convolutional one). On a CPU the runs that follow one another share the tasks among its cores, as the
command line does; the one program is on one device. The two ways take turns, and each row is the least of its rounds.

    python experiments/benchmarks/sweep.py
"""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import optax
import tyro

import jaxmeta
from jaxmeta import data, models


@dataclass(frozen=True)
class Args:
    """Time a sweep in two ways and print a table."""

    runs: int = 4
    """Runs of the sweep."""
    updates: tuple[int, int] = (2000, 100)
    """Outer updates of each run on sinusoids, and on glyphs."""
    only: tuple[str, ...] = ("sinusoid", "glyphs")
    """The workloads."""
    rounds: int = 2
    """Times that each way is measured."""
    output: Path = Path("runs/benchmarks/sweep.json")
    """The numbers."""


def workloads(args: Args) -> dict[str, tuple[Any, ...]]:
    """Returns model, loss, sampler and options by name."""
    mlp, cnn = models.MLP(sizes=(40, 40)), models.OmniglotCNN(5)
    return {
        "sinusoid": (mlp, jaxmeta.regression(mlp.apply), data.Sinusoid(), 0.01, args.updates[0], 26),
        "glyphs": (cnn, jaxmeta.classification(cnn.apply), data.Glyphs(5, 1, 5), 0.4, args.updates[1], 8),
    }


def ways(workload: Any, args: Args, mesh: Any) -> dict[str, Callable[[], Any]]:
    """Returns the two ways to run a sweep."""
    model, loss, sampler, inner_rate, updates, num_tasks = workload
    rates = [1e-3 * 2.0**i for i in range(args.runs)]
    keys = list(jax.random.split(jax.random.key(0), args.runs))
    options: dict[str, Any] = {"iterations": updates, "num_tasks": num_tasks, "log_every": 50, "progress": False}

    def build(rate: Any) -> tuple[Any, Any]:
        return jaxmeta.maml(loss, optax.sgd(inner_rate)), optax.adam(rate)

    metas = [jaxmeta.MetaParams(jax.jit(model.init)(key, sampler.example)) for key in keys]

    def apart() -> Any:
        runs = zip(rates, metas, keys, strict=True)
        return [jaxmeta.train(*build(rate), meta, sampler, key, mesh=mesh, **options) for rate, meta, key in runs]

    def together() -> Any:
        return jaxmeta.train_many(build, rates, metas, sampler, keys, **options)

    return {"one after another": apart, "one program": together}


def main(args: Args) -> None:
    """Measures, prints, and writes the numbers."""
    mesh = jaxmeta.task_mesh() if jax.device_count() > 1 else None
    rows = []
    print(f"| {args.runs} runs | updates each | way | seconds | ms per update of a run, when compiled |")
    print("| --- | --- | --- | --- | --- |")
    for name in args.only:
        workload = workloads(args)[name]
        seconds: dict[str, list[tuple[float, float]]] = {}
        for _ in range(args.rounds):
            for way, run in ways(workload, args, mesh).items():
                jax.clear_caches()
                begin = time.perf_counter()
                done = run()
                whole = time.perf_counter() - begin
                each = workload[5] / done[0].history[-1]["tasks_per_second"]
                update = each / args.runs if way == "one program" else each
                seconds.setdefault(way, []).append((whole, update))
        for way, values in seconds.items():
            whole, update = (min(column) for column in zip(*values, strict=True))
            rows.append({"workload": name, "runs": args.runs, "updates": workload[4], "way": way, "seconds": values})
            print(f"| {name} | {workload[4]} | {way} | {whole:.1f} | {1000 * update:.2f} |", flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"device": jax.devices()[0].device_kind, "rows": rows}, indent=2))


if __name__ == "__main__":
    with contextlib.suppress(RuntimeError):  # JAX runs already
        jax.config.update("jax_num_cpu_devices", 2)
    main(tyro.cli(Args))
