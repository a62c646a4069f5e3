"""Ten hyper-parameters through 10,000 steps of training, by forward mode in constant memory.

A network 49-32-10 learns ten characters of `data.Glyphs` (7x7, 20 drawings each) by SGD with momentum. Ten numbers of
the training are learned by Adam on the loss of 500 other drawings after the last step: the rates of the first and of
the last step with an exponential schedule between them, the momentum, a weight decay for each of the four tensors, the
label smoothing, the noise on the inputs and the temperature of the training loss. `jaxmeta.forward()` carries a tangent
of the parameters for each of them along the training (Franceschi et al. 2017, https://arxiv.org/abs/1703.01785).

Expected: the temporary memory of `forward()` is the same for 100 steps and for 10,000, and that of the others grows
with the steps; the validation loss falls from update to update.

    python experiments/long_training.py
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

import jaxmeta
from jaxmeta import Batch, data, models

CLASSES = 10
NET = models.MLP(sizes=(32,), out=CLASSES)
METHODS = {
    "forward": jaxmeta.forward(),
    "reverse": jaxmeta.reverse(),
    "mixed": jaxmeta.mixed(),
    "reverse, remat=100": jaxmeta.reverse(remat=100),
}


@dataclass(frozen=True)
class Args:
    """Learn ten hyper-parameters of a training, and print memory and losses."""

    steps: int = 10_000
    """Steps of the training."""
    updates: int = 5
    """Outer updates."""
    batch_size: int = 32
    """Examples in a step."""
    rate: float = 0.3
    """Outer rate, of Adam."""
    lengths: tuple[int, ...] = (100, 1000, 10_000)
    """Numbers of steps at which memory is measured, by the compiler."""
    folder: Path = Path("runs/long_training")
    """Where the table goes."""


def draw(drawings: int, seed: int) -> Batch:
    """Drawings of each of ten characters, in 7x7 pixels."""
    glyphs = data.Glyphs()

    def character(class_id: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), class_id), drawings)
        images = jax.vmap(glyphs.render, (None, 0))(class_id, keys)
        return images.reshape(drawings, 7, 4, 7, 4).mean((2, 4)).reshape(drawings, -1)

    x = jax.jit(lambda: jax.lax.map(character, jnp.arange(CLASSES)))()
    return Batch(x.reshape(-1, x.shape[-1]), jnp.repeat(jnp.arange(CLASSES), drawings))


def initial() -> dict[str, jax.Array]:
    """The ten hyper-parameters, as logarithms and logits."""
    return {
        "rates": jnp.log(jnp.array([0.03, 0.003])),
        "momentum": jnp.array(0.0),
        "decay": jnp.full(4, -9.0),
        "smoothing": jnp.array(-4.0),
        "noise": jnp.array(-4.0),
        "temperature": jnp.array(0.0),
    }


def trained(hyper: Any, train: Batch, key: jax.Array, steps: int, batch_size: int, method: Any) -> Any:
    """The network after a training with these hyper-parameters, differentiable in them."""
    start_key, run_key = jax.random.split(key)

    def schedule(count: Any) -> jax.Array:
        share = count / max(1, steps - 1)
        return jnp.exp((1 - share) * hyper["rates"][0] + share * hyper["rates"][1])

    def loss_fn(params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        row_key, noise_key = jax.random.split(key)
        rows = jax.random.randint(row_key, (batch_size,), 0, len(batch.y))
        noise = jnp.exp(hyper["noise"]) * jax.random.normal(noise_key, (batch_size, batch.x.shape[1]))
        targets = optax.smooth_labels(jax.nn.one_hot(batch.y[rows], CLASSES), jax.nn.sigmoid(hyper["smoothing"]))
        outputs: Any = NET.apply(params, batch.x[rows] + noise)
        logits = jnp.exp(hyper["temperature"]) * outputs
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        squares = jnp.stack([jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)])
        return loss + jnp.exp(hyper["decay"]) @ squares, {}

    start = NET.init(start_key, train.x[:1])
    inner = optax.sgd(schedule, momentum=jax.nn.sigmoid(hyper["momentum"]))
    return jaxmeta.unroll(loss_fn, inner, start, train, jax.random.split(run_key, steps), meta_gradient=method).params


def main(args: Args) -> None:
    """Measure memory, then learn the hyper-parameters."""
    args.folder.mkdir(parents=True, exist_ok=True)
    train, validation, test = draw(20, 0), draw(50, 1), draw(50, 2)
    measure, key, hyper = jaxmeta.classification(NET.apply), jax.random.key(0), initial()

    def gradient(method: Any, steps: int) -> Any:
        def outer(hyper: Any, train: Batch, validation: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
            params = trained(hyper, train, key, steps, args.batch_size, method)
            return measure(params, validation, key)[0], params

        return jax.jit(jax.value_and_grad(outer, has_aux=True))

    memory: dict[str, dict[int, float]] = {}
    print(f"Temporary MiB of a gradient by the number of steps:\n\n| method | {' | '.join(map(str, args.lengths))} |")
    print("| --- |" + " --- |" * len(args.lengths))
    for name, method in METHODS.items():
        costs = [jaxmeta.cost(gradient(method, n), hyper, train, validation, key) for n in args.lengths]
        memory[name] = {n: cost.temporary_bytes / 2**20 for n, cost in zip(args.lengths, costs, strict=True)}
        print(f"| {name} | {' | '.join(f'{mib:.2f}' for mib in memory[name].values())} |", flush=True)

    print("\n| update | validation loss | test loss | test accuracy, % | CPU s |\n| --- | --- | --- | --- | --- |")
    optimizer, step = optax.adam(args.rate), gradient(METHODS["forward"], args.steps)
    state, rows = optimizer.init(hyper), []
    for update in range(args.updates + 1):
        begin = time.process_time()
        (loss, params), grads = jax.block_until_ready(step(hyper, train, validation, key))
        test_loss, metrics = measure(params, test, key)
        row = {"validation_loss": float(loss), "test_loss": float(test_loss), "accuracy": float(metrics["accuracy"])}
        rows.append(
            {**row, "cpu_seconds": time.process_time() - begin, "hyper": jax.tree.map(lambda x: x.tolist(), hyper)}
        )
        losses = f"{loss:.3f} | {test_loss:.3f} | {100 * row['accuracy']:.1f}"
        print(f"| {update} | {losses} | {rows[-1]['cpu_seconds']:.0f} |", flush=True)
        updates, state = optimizer.update(grads, state)
        hyper = optax.apply_updates(hyper, updates)
        (args.folder / "result.json").write_text(json.dumps({"memory_mib": memory, "updates": rows}, indent=2))
    print(f"\n{time.process_time():.0f} CPU seconds; saved to {args.folder}")


if __name__ == "__main__":
    main(tyro.cli(Args))
