"""One MAML meta-update three ways: ours, ours under `vmap`, and the naive port (`flax.linen.Conv` under `vmap`).

5-way 1-shot, 1 query per class, 4 convolutions x 64 channels with stride 2 on 28x28 images, second order, SGD(0.4)
inside, Adam outside. The rounds of all rows alternate in one process, so compare the ratios: absolute times vary with
the machine's other load. Memory is the compiler's own figure for temporary buffers.

    python experiments/benchmarks/meta_step.py
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro
from flax import linen as nn

import jaxmeta
from jaxmeta import data, models


class NaiveCNN(nn.Module):
    """The same network as `models.OmniglotCNN`, the way one writes it first."""

    ways: int = 5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits `[n, ways]` of images `x: [n, 28, 28, 1]`."""
        for _ in range(4):
            x = nn.Conv(64, (3, 3), strides=2)(x)
            mean, var = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
            scale = self.param(f"scale{_}", nn.initializers.ones, (1, 1, 1, 64))
            bias = self.param(f"bias{_}", nn.initializers.zeros, (1, 1, 1, 64))
            x = nn.relu((x - mean) * jax.lax.rsqrt(var + 1e-5) * scale + bias)
        return nn.Dense(self.ways)(x.mean((1, 2)))


@dataclass(frozen=True)
class Args:
    """Time one meta-update of MAML, written in several ways."""

    num_tasks: int = 32
    """Tasks per meta-update."""
    steps: tuple[int, ...] = (1, 5)
    """Numbers of inner steps."""
    rounds: int = 5
    """Alternating rounds; the fastest counts."""
    naive: bool = True
    """Also run the naive port (its 5-step row takes minutes)."""
    naive_max_steps: int = 1
    """Largest number of inner steps of the naive port."""
    output: Path = Path("runs/benchmarks/meta_step.json")
    """Where the numbers go."""


def rows(args: Args) -> dict[str, tuple[nn.Module, jaxmeta.MetaGradient, int, int]]:
    """name: (model, meta-gradient, inner steps, tasks per vmap)."""
    ours, everything = models.OmniglotCNN(), args.num_tasks
    table: dict[str, tuple[nn.Module, jaxmeta.MetaGradient, int, int]] = {}
    for steps in args.steps:
        table[f"default (one task at a time, reverse), {steps} steps"] = (ours, jaxmeta.reverse(), steps, 1)
        table[f"one task at a time, mixed, {steps} steps"] = (ours, jaxmeta.mixed(), steps, 1)
        table[f"all tasks under vmap, reverse, {steps} steps"] = (ours, jaxmeta.reverse(), steps, everything)
        table[f"first order, one task at a time, {steps} steps"] = (ours, jaxmeta.first_order(), steps, 1)
        if args.naive and steps <= args.naive_max_steps:
            table[f"naive port: nn.Conv under vmap, {steps} steps"] = (NaiveCNN(), jaxmeta.reverse(), steps, everything)
    return table


def compile_step(model: nn.Module, meta_gradient: Any, steps: int, batch_size: int, args: Args) -> tuple[Any, dict]:
    """A call that runs one meta-update, and what its compilation says."""
    sampler = data.Glyphs(queries=1)
    learner = jaxmeta.maml(jaxmeta.classification(model.apply), optax.sgd(0.4), steps, meta_gradient=meta_gradient)
    optimizer = optax.adam(1e-3)
    meta = learner.init(model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1))))
    arguments = (meta, optimizer.init(meta), sampler, jax.random.key(1))
    begin = time.perf_counter()
    step = jax.jit(jaxmeta.meta_step(learner, optimizer, args.num_tasks, batch_size=batch_size))
    compiled = step.lower(*arguments).compile()
    facts = {"compile_s": time.perf_counter() - begin}
    memory = compiled.memory_analysis()
    facts["temporary_MiB"] = memory.temp_size_in_bytes / 2**20 if memory else float("nan")
    return lambda: jax.block_until_ready(compiled(*arguments)), facts


def main(args: Args) -> None:
    """Compile all rows, time them in alternating rounds, print a table."""
    runs, results = {}, {}
    for name, row in rows(args).items():
        runs[name], results[name] = compile_step(*row, args)
        results[name] |= {"ms": float("inf"), "cpu_ms": float("inf")}
        runs[name]()
    for _ in range(args.rounds):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            results[name]["ms"] = min(results[name]["ms"], 1e3 * (time.perf_counter() - wall))
            results[name]["cpu_ms"] = min(results[name]["cpu_ms"], 1e3 * (time.process_time() - cpu))
    first = next(iter(results.values()))
    print(f"{args.num_tasks} tasks, {jax.devices()[0].device_kind}, {args.rounds} rounds\n")
    print("| how | ms | CPU ms | times the default's CPU | temporary MiB | compile s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, r in results.items():
        print(
            f"| {name} | {r['ms']:.0f} | {r['cpu_ms']:.0f} | {r['cpu_ms'] / first['cpu_ms']:.1f} | "
            f"{r['temporary_MiB']:.1f} | {r['compile_s']:.1f} |"
        )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Args))
