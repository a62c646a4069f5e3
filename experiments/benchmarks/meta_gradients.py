"""What every `meta_gradient` costs, and how far it is from the exact one: memory, time and error in one table.

Two problems, one task each, plain gradient descent inside:

- Conv-4 (`models.OmniglotCNN`, 112,261 parameters), a 5-way 1-shot task of glyphs, 5, 20 and 100 inner steps;
- a transformer of 6 layers (width 96, 128 tokens, 4 sequences, 0.7 million parameters), 8 inner steps, also with
  `nn.remat` of each layer, which multiplies with what the meta-gradient saves.

The rounds of a table's rows alternate in one process, so compare within a table: times vary with the machine's other
load, those of the CPU (in brackets) less. Memory is the compiler's own figure for temporary buffers. The error is the
norm of the difference to plain reverse mode, over the norm of that. `implicit` differentiates another problem, with a
pull to the start, and `evolution` knows a slope along 16 random directions out of a hundred thousand: their errors are
no mistakes.
Expected: on the transformer `mixed` + remat of each layer needs at most 1/25 of plain reverse's memory, and less time.

    python experiments/benchmarks/meta_gradients.py                      # 5 to 6 minutes on two idle CPU cores
    JAX_ENABLE_X64=1 python experiments/benchmarks/meta_gradients.py     # the same in float64
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import tyro
from flax import linen as nn

import jaxmeta
from jaxmeta import data, models

EXACT = "exact: "
# Not repeated with remat of each layer: they show nothing new.
SKIPPED = (f"{EXACT}reverse, ", "truncated", "evolution")


@dataclass(frozen=True)
class Args:
    """Memory, time and error of every meta-gradient."""

    conv_steps: tuple[int, ...] = (5, 20, 100)
    """Inner steps on Conv-4, a table each."""
    hidden: int = 64
    """Channels of Conv-4."""
    transformer_steps: int = 8
    """Inner steps on the transformer."""
    layers: int = 6
    """Layers of the transformer."""
    width: int = 96
    """Its width."""
    length: int = 128
    """Tokens in a sequence."""
    sequences: int = 4
    """Sequences in the support set, and in the query set."""
    samples: int = 16
    """Of `evolution`."""
    only: tuple[str, ...] = ()
    """Rows whose name contains one of these, and the first row; empty for all."""
    rounds: int = 3
    """Alternating rounds; the fastest counts."""
    output: Path = Path("runs/benchmarks/meta_gradients.json")
    """Where the numbers go."""


class Problem(NamedTuple):
    """What to differentiate, and in which ways."""

    params: Any
    """Where the inner loop starts."""
    task: jaxmeta.Task
    """The one task."""
    steps: int
    """Inner steps."""
    rows: dict[str, tuple[jaxmeta.LossFn, jaxmeta.MetaGradient]]
    """By name; the first row is what the others are compared with."""


class Block(nn.Module):
    """One layer of the transformer, in the form that `nn.scan` wants."""

    heads: int = 4

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        """`x: [n, length, width]` to the same."""
        width = x.shape[-1]
        mask = nn.make_causal_mask(jnp.ones(x.shape[:2]))
        x = x + nn.SelfAttention(self.heads)(nn.LayerNorm()(x), mask=mask)
        return x + nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(x)))), None


class Transformer(nn.Module):
    """A small causal language model; `remat` recomputes each layer in the backward pass."""

    layers: int
    width: int
    vocabulary: int = 64
    remat: bool = False
    unroll: bool = False

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits `[n, length, vocabulary]` of `tokens: [n, length]`."""
        x = nn.Embed(self.vocabulary, self.width)(tokens)
        x = x + self.param("position", nn.initializers.normal(0.02), (1, tokens.shape[1], self.width))
        blocks = nn.scan(
            nn.remat(Block, prevent_cse=False) if self.remat else Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.layers,
            unroll=self.layers if self.unroll else 1,
        )
        x, _ = blocks(name="blocks")(x, None)
        return nn.Dense(self.vocabulary)(nn.LayerNorm()(x))


def meta_gradients(steps: int, samples: int) -> dict[str, jaxmeta.MetaGradient]:
    """Every meta-gradient by name, plain reverse mode first."""
    root, late = max(1, round(math.sqrt(steps))), max(1, steps // 4)
    return {
        EXACT + "reverse": jaxmeta.reverse(),
        EXACT + "reverse, remat": jaxmeta.reverse(remat=True),
        EXACT + f"reverse, remat={root}": jaxmeta.reverse(remat=root),
        EXACT + "mixed": jaxmeta.mixed(),
        EXACT + "mixed, remat": jaxmeta.mixed(remat=True),
        EXACT + f"mixed, remat={root}": jaxmeta.mixed(remat=root),
        "first_order": jaxmeta.first_order(),
        f"truncated({late})": jaxmeta.truncated(late),
        "implicit": jaxmeta.implicit(),
        f"evolution({samples})": jaxmeta.evolution(samples),
    }


def conv_problem(args: Args, steps: int) -> Problem:
    """Conv-4 on one 5-way 1-shot task of glyphs with as many query as support examples."""
    model = models.OmniglotCNN(hidden=args.hidden, param_dtype=jnp.result_type(float))
    task = jax.jit(data.Glyphs(queries=1))(jax.random.key(0))
    loss_fn = jaxmeta.classification(model.apply)
    ways = meta_gradients(steps, args.samples)
    rows: dict[str, tuple[jaxmeta.LossFn, jaxmeta.MetaGradient]] = {name: (loss_fn, way) for name, way in ways.items()}
    return Problem(model.init(jax.random.key(1), task.support.x), task, steps, rows)


def transformer_problem(args: Args) -> Problem:
    """The language model on sequences that count up from anywhere by the task's own stride."""

    def loss_fn_of(model: Transformer) -> jaxmeta.LossFn:
        def loss_fn(params: Any, batch: jaxmeta.Batch, key: jax.Array) -> tuple[jax.Array, jaxmeta.Metrics]:
            logits: Any = model.apply(params, batch.x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch.y).mean(), {}

        return loss_fn

    def batch(key: jax.Array) -> jaxmeta.Batch:
        start = jax.random.randint(key, (args.sequences, 1), 0, Transformer.vocabulary)
        tokens = (start + 5 * jnp.arange(args.length + 1)[None]) % Transformer.vocabulary
        return jaxmeta.Batch(tokens[:, :-1], tokens[:, 1:])

    model = Transformer(args.layers, args.width)
    plain, lean = loss_fn_of(model), loss_fn_of(model.copy(remat=True))
    ways = meta_gradients(args.transformer_steps, args.samples)
    rows = {name: (plain, way) for name, way in ways.items()}
    rows |= {f"{name} + remat of each layer": (lean, way) for name, way in ways.items() if not name.startswith(SKIPPED)}
    rows[EXACT + "reverse, layers unrolled"] = (loss_fn_of(model.copy(unroll=True)), jaxmeta.reverse())
    task = jaxmeta.Task(*map(batch, jax.random.split(jax.random.key(0))))
    params = model.init(jax.random.key(1), task.support.x)
    params = jax.tree.map(lambda p: p.astype(jnp.result_type(float)), params)
    return Problem(params, task, args.transformer_steps, rows)


def measure(problem: Problem, rounds: int) -> dict[str, dict[str, Any]]:
    """Compile all rows, compare their meta-gradients, time them in alternating rounds."""
    runs: dict[str, Callable[[], Any]] = {}
    results: dict[str, dict[str, Any]] = {}
    exact = None
    for name, (loss_fn, meta_gradient) in problem.rows.items():
        learner = jaxmeta.maml(loss_fn, optax.sgd(0.1), problem.steps, meta_gradient=meta_gradient)
        arguments = (learner.init(problem.params), problem.task, jax.random.key(2))
        grad = jax.jit(learner.grad)
        begin = time.process_time()
        cost = jaxmeta.cost(grad, *arguments)
        compile_cpu = time.process_time() - begin
        runs[name] = lambda grad=grad, arguments=arguments: jax.block_until_ready(grad(*arguments))
        gradient = runs[name]()[1].params
        exact = gradient if exact is None else exact
        difference = optax.tree.norm(jax.tree.map(jnp.subtract, gradient, exact))
        results[name] = {
            "temporary_MiB": cost.temporary_bytes / 2**20,
            "compile_s": cost.compile_seconds,
            "compile_cpu_s": compile_cpu,
            "ms": math.inf,
            "cpu_ms": math.inf,
            "error": float(difference / optax.tree.norm(exact)),
        }
    for _ in range(rounds):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            results[name]["ms"] = min(results[name]["ms"], 1e3 * (time.perf_counter() - wall))
            results[name]["cpu_ms"] = min(results[name]["cpu_ms"], 1e3 * (time.process_time() - cpu))
    return results


def show(title: str, results: dict[str, dict[str, Any]]) -> None:
    """Print one table."""
    first = next(iter(results.values()))
    print(f"\n{title}\n")
    print("| meta_gradient | exact | temporary MiB | reverse / this | compile s (CPU) | ms (CPU) | error |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, r in results.items():
        print(
            f"| {name.removeprefix(EXACT)} | {'yes' if name.startswith(EXACT) else 'no'} | {r['temporary_MiB']:.1f} | "
            f"{first['temporary_MiB'] / r['temporary_MiB']:.1f} | {r['compile_s']:.1f} ({r['compile_cpu_s']:.1f}) | "
            f"{r['ms']:.0f} ({r['cpu_ms']:.0f}) | {r['error']:.1e} |",
            flush=True,
        )


def main(args: Args) -> None:
    """Measure both problems, print a table each."""
    dtype = jnp.result_type(float)
    print(f"{jax.devices()[0].device_kind}, {dtype}, jax {jax.__version__}, {args.rounds} rounds")
    tables = {}
    for steps in args.conv_steps:
        tables[f"Conv-4, {steps} inner steps"] = conv_problem(args, steps)
    tables[f"Transformer of {args.layers} layers, {args.transformer_steps} inner steps"] = transformer_problem(args)
    results = {}
    for title, problem in tables.items():
        chosen = [n for i, n in enumerate(problem.rows) if i == 0 or not args.only or any(o in n for o in args.only)]
        results[title] = measure(problem._replace(rows={n: problem.rows[n] for n in chosen}), args.rounds)
        show(title, results[title])
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Args))
