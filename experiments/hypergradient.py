"""Rates that learn in plain training: hypergradient descent (Baydin et al. 2018) and learned transformations.

A network is trained on a supervised problem of the shape of MNIST by optimizers at fixed rates, and by
`optim.hypergradient_descent` (HD) and `optim.adaptive`, which start at a rate that is far too low and learn it on the
way. MNIST itself cannot be had offline: the ten classes are characters of `data.Glyphs`, 28x28, with 2,000 drawings
each for training and 500 for test. The network is 784-100-100-10, batch 128, 1,000 steps (six epochs).

The paper's network on MNIST (https://arxiv.org/abs/1703.04782, section 5) is 784-1000-1000-10, trained for 100 epochs
from a rate of 0.001, with `beta` 0.001 for SGD and SGD with Nesterov momentum (SGDN) and 1e-7 for Adam, as here; HD
moves the loss towards that of a tuned rate. Adam needs no help at 0.001, so it starts at 1e-5 here. `adaptive` is
learn2learn's `LearnableOptimizer`, whose example on MNIST learns a rate for every weight by Adam(3e-4), from 0.001.

Expected: every optimizer that learns its rate ends with a training loss at least ten times below the one of the fixed
rate that it starts from, and HD with the same loss from any rate that is too low. The best fixed rate of its family,
which one knows only after trying them all, is still two to fifteen times better. The last table has a network of 3.6
million parameters: SGD-HD costs a fifth of plain SGD's step and one copy of the parameters, the others up to nine
tenths and five copies.

    python experiments/hypergradient.py                # 90 s of CPU time
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxmeta
from jaxmeta import Batch, data, models, optim

CLASSES = 10
BETA = {"SGD": 1e-3, "SGDN": 1e-3, "Adam": 1e-7}
START = {"SGD": 1e-3, "SGDN": 1e-3, "Adam": 1e-5}
RATES = {"SGD": (1e-4, 1e-3, 1e-2, 1e-1, 1.0), "SGDN": (1e-3, 1e-2, 1e-1), "Adam": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)}


@dataclass(frozen=True)
class Args:
    """Train one network by many optimizers, and print and plot what their rates did."""

    steps: int = 1000
    """Steps per run."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Runs per optimizer, all at once: initial network and minibatches."""
    batch_size: int = 128
    """Images per step."""
    drawings: int = 2000
    """Training images per class."""
    large: tuple[int, ...] = (2000, 1000)
    """Hidden widths of the network whose step is timed."""
    rounds: int = 20
    """Steps of each optimizer that are timed."""
    folder: Path = Path("runs/hypergradient")
    """Where the tables and the plot go."""


class Method(NamedTuple):
    """One way to set the rate, tried from several rates at the start."""

    name: str
    """For tables and legends."""
    family: str
    """What its direction is: SGD, SGDN, Adam."""
    learned: bool
    """Whether it learns the rate."""
    starts: tuple[float, ...]
    """Rates at the start."""
    optimizer: Callable[[Any], optax.GradientTransformation]
    """`rate at the start -> optimizer`."""
    rate: Callable[[Any, Any], jax.Array]
    """`(state, rate at the start) -> rate`; the mean of all if there are many."""


def plain(family: str) -> Method:
    """Fixed rates."""
    make = {"SGD": optax.sgd, "SGDN": partial(optax.sgd, momentum=0.9, nesterov=True), "Adam": optax.adam}[family]
    return Method(family, family, False, RATES[family], make, lambda state, start: start)


def hypergradient(family: str) -> Method:
    """The same directions, with a rate that hypergradient descent learns."""
    directions = {"SGD": None, "SGDN": optax.trace(0.9, nesterov=True), "Adam": optax.scale_by_adam()}

    def make(start: Any) -> optax.GradientTransformation:
        optimizer = optim.hypergradient_descent(START[family], BETA[family], direction=directions[family])

        # The rate is part of the state: so `start` may be traced, and one program runs them all.
        def init(params: Any) -> Any:
            state: Any = optimizer.init(params)
            return state._replace(rate=jaxmeta.Learned(start))

        return optax.GradientTransformation(init, optimizer.update)

    return Method(f"{family}-HD", family, True, RATES[family], make, lambda state, start: state.rate.value)


def mean_rate(rates: optim.LearnedRateState) -> jax.Array:
    """The mean over everything that `scale_by_learned_rate` learns."""
    return jnp.asarray(optax.tree.sum(rates.rate)) / optax.tree.size(rates.rate)


def methods() -> list[Method]:
    """Fixed rates, hypergradient descent, and SGD under transformations that learn while they are used."""
    start, learn = START["SGD"], optax.adam(3e-4)
    weights = optim.adaptive(optim.scale_by_learned_rate(start), learn)
    factors = optax.chain(optim.scale_by_kronecker(), optim.scale_by_learned_rate(start, per="tensor"))
    kronecker = optim.adaptive(factors, learn)
    return [
        *(make(family) for family in RATES for make in (plain, hypergradient)),
        Method("rate per weight", "SGD", True, (start,), lambda _: weights, lambda s, _: mean_rate(s.transform)),
        Method("Kronecker", "SGD", True, (start,), lambda _: kronecker, lambda s, _: mean_rate(s.transform[1])),
    ]


def draw(args: Args) -> tuple[Batch, Batch]:
    """Training and test examples, one fifth of the drawings, with images in uint8."""
    glyphs, held_out = data.Glyphs(), max(1, args.drawings // 4)

    def character(class_id: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.key(class_id), args.drawings + held_out)
        return jnp.round(255 * jax.vmap(glyphs.render, (None, 0))(class_id, keys)).astype(jnp.uint8)

    images = jax.jit(partial(jax.lax.map, character))(jnp.arange(CLASSES))
    parts = images[:, : args.drawings], images[:, args.drawings :]
    train_set, test_set = (
        Batch(part.reshape(-1, *part.shape[2:]), jnp.repeat(jnp.arange(CLASSES), part.shape[1])) for part in parts
    )
    return train_set, test_set


def take(examples: Batch, rows: jax.Array | slice) -> Batch:
    """Some of the examples, as the network sees them."""
    return Batch(examples.x[rows].astype(jnp.float32) / 255, examples.y[rows])


def network(sizes: Sequence[int]) -> models.OmniglotFC:
    """ReLU layers of these widths, without normalization."""
    return models.OmniglotFC(ways=CLASSES, sizes=sizes, norm="none", kernel_init=jax.nn.initializers.he_normal())


class Result(NamedTuple):
    """What one method did, from each rate at the start and for each seed."""

    losses: np.ndarray
    """`[starts, seeds, steps]`."""
    rates: np.ndarray
    """`[starts, seeds, steps]`."""
    accuracies: np.ndarray
    """On the test set: `[starts, seeds]`."""


def make_step(model: models.OmniglotFC, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """`(params, state, batch) -> (params, state, loss)`: one step of plain supervised training."""
    loss_fn = jaxmeta.classification(model.apply)

    def step(params: Any, state: Any, batch: Batch) -> tuple[Any, Any, jax.Array]:
        (loss, _), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, batch, jax.random.key(0))
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    return step


class Runs(NamedTuple):
    """What all optimizers share, for each seed: where they start, and what they see."""

    params: Any
    """Initial networks, leading axis `[seeds]`."""
    rows: jax.Array
    """Training images of each step: `[seeds, steps, batch_size]`."""


def make_runs(model: models.OmniglotFC, args: Args, train_set: Batch) -> Runs:
    """The initial network and the minibatches of each seed."""

    def run(key: jax.Array) -> Runs:
        init_key, rows_key = jax.random.split(key)
        shape = (args.steps, args.batch_size)
        rows = jax.random.randint(rows_key, shape, 0, len(train_set.y))
        return Runs(model.init(init_key, take(train_set, slice(1)).x), rows)

    return jax.jit(jax.vmap(run))(jax.vmap(jax.random.key)(jnp.asarray(args.seeds)))


def train(method: Method, model: models.OmniglotFC, runs: Runs, train_set: Batch) -> tuple[Any, jax.Array, jax.Array]:
    """Trained networks `[starts, seeds, ...]`, losses and rates `[starts, seeds, steps]`; all runs are one program."""

    def run(train_set: Batch, start: jax.Array, run: Runs) -> tuple[Any, jax.Array, jax.Array]:
        optimizer = method.optimizer(start)
        step = make_step(model, optimizer)

        def body(carry: Any, rows: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
            params, state, loss = step(*carry, take(train_set, rows))
            return (params, state), (loss, method.rate(state, start))

        (params, _), (losses, rates) = jax.lax.scan(body, (run.params, optimizer.init(run.params)), run.rows)
        return params, losses, rates

    every_seed = jax.vmap(run, (None, None, 0))
    every_run = jax.jit(jax.vmap(every_seed, (None, 0, None)))
    return every_run(train_set, jnp.asarray(method.starts), runs)


def measure_steps(args: Args, train_set: Batch) -> list[dict[str, Any]]:
    """Time and memory of one step of a large network."""
    model = network(args.large)
    batch = take(train_set, slice(args.batch_size))
    params = model.init(jax.random.key(0), batch.x)
    optimizers = {method.name: method.optimizer(jnp.asarray(START[method.family])) for method in methods()}
    steps = {name: jax.jit(make_step(model, optimizer)) for name, optimizer in optimizers.items()}
    states = {name: optimizer.init(params) for name, optimizer in optimizers.items()}
    costs = {name: jaxmeta.cost(step, params, states[name], batch) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.rounds + 1):  # they take turns, so that the machine's other load falls on all of them
        for name, step in steps.items():
            begin = time.process_time()
            jax.block_until_ready(step(params, states[name], batch))
            times[name].append(1e3 * (time.process_time() - begin))
    milliseconds = {name: float(np.median(values[1:])) for name, values in times.items()}
    size = optax.tree.size(params)
    return [
        {
            "optimizer": name,
            "parameters": size,
            "cpu_ms": milliseconds[name],
            "relative": milliseconds[name] / milliseconds["SGD"],
            "state_copies": optax.tree.size(states[name]) / size,
            "temporary_mib": costs[name].temporary_bytes / 2**20,
        }
        for name in steps
    ]


def last_losses(losses: np.ndarray) -> np.ndarray:
    """The mean over the last tenth of the steps."""
    return losses[..., -max(1, losses.shape[-1] // 10) :].mean(-1)


def records(method: Method, result: Result) -> list[dict[str, Any]]:
    """A row of the table for each rate at the start; lists are over the seeds."""
    return [
        {
            "optimizer": method.name,
            "start": start,
            "last_loss": last_losses(result.losses[i]).tolist(),
            "accuracy": result.accuracies[i].tolist(),
            "last_rate": result.rates[i, :, -1].tolist(),
        }
        for i, start in enumerate(method.starts)
    ]


def draw_curve(axes: Axes, values: np.ndarray, **style: Any) -> None:
    """Mean over the seeds, and in the shade from the lowest to the highest; smoothed over 1/40 of the steps."""
    window = max(1, values.shape[1] // 40)
    means = np.stack([np.convolve(v, np.ones(window) / window, "valid") for v in values])
    steps = np.arange(means.shape[1]) + window
    (line,) = axes.plot(steps, means.mean(0), **style)
    axes.fill_between(steps, means.min(0), means.max(0), color=line.get_color(), alpha=0.2, lw=0)


def plot(results: dict[str, Result], path: Path) -> None:
    """Training losses, the rates on the way, and the last loss against the rate at the start."""
    figure = Figure(figsize=(14, 7.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2).ravel()
    curves = {"SGD": panels[0], "SGDN": panels[1], "Adam": panels[1]}
    color = {"SGD-HD": "C0", "SGDN-HD": "C3", "Adam-HD": "C1", "rate per weight": "C2", "Kronecker": "C4"}
    for method in methods():
        losses, rates, _ = results[method.name]
        last, bad = last_losses(losses), method.starts.index(START[method.family])
        best = int(last.mean(1).argmin())
        if method.learned:
            style = {"color": color[method.name], "lw": 2, "label": f"{method.name}, from {method.starts[bad]:g}"}
            draw_curve(curves[method.family], losses[bad], **style)
            draw_curve(panels[2], rates[bad], **style)
        else:  # all rates of SGD, the worst and the best of the others
            shown = range(bad, len(method.starts)) if method.family == "SGD" else (bad, best)
            for i, gray in zip(shown, np.linspace(0.7, 0.0, len(shown)), strict=True):
                style = {"color": str(gray), "ls": "--" if method.family == "SGDN" else "-", "lw": 1.2}
                draw_curve(curves[method.family], losses[i], label=f"{method.name}, {method.starts[i]:g}", **style)
        if len(method.starts) > 1:
            style = {"color": color[f"{method.family}-HD"], "ls": "-" if method.learned else ":"}
            panels[3].plot(method.starts, last.mean(1), marker="o", ms=4, label=method.name, **style)
            panels[3].fill_between(method.starts, last.min(1), last.max(1), color=style["color"], alpha=0.2, lw=0)
    loss = "training loss"
    panels[0].set(xlabel="step", ylabel=loss, title="SGD: fixed rates (gray) and learned ones")
    panels[1].set(xlabel="step", ylabel=loss, title="Nesterov momentum (SGDN) and Adam: worst and best fixed rate")
    panels[2].set(xlabel="step", ylabel="rate, mean over weights", title="The learned rates")
    panels[3].set(xlabel="rate at the start", ylabel=f"last {loss}", xscale="log")
    panels[3].set(title="Kept as it is (dotted), learned from there (solid)")
    for axes in panels:
        axes.set(yscale="log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.savefig(path, dpi=80)


def print_steps(costs: Sequence[dict[str, Any]]) -> None:
    """The table of what a step costs."""
    print(f"\n{costs[0]['parameters']:,} parameters:\n")
    print("| optimizer | CPU ms per step | relative | state, copies of the parameters | temporary MiB |")
    print("| --- | --- | --- | --- | --- |")
    for c in costs:
        numbers = f"{c['cpu_ms']:.0f} | {c['relative']:.2f} | {c['state_copies']:.1f} | {c['temporary_mib']:.0f}"
        print(f"| {c['optimizer']} | {numbers} |")


def main(args: Args) -> None:
    """Train by every optimizer, time a large network's steps; print and save tables and plot."""
    args.folder.mkdir(parents=True, exist_ok=True)
    train_set, test_set = draw(args)
    model = network((100, 100))
    runs = make_runs(model, args, train_set)
    test_batch = take(test_set, slice(None))
    loss_fn = jaxmeta.classification(model.apply)
    accuracy = jax.jit(
        lambda params: jax.lax.map(lambda p: loss_fn(p, test_batch, jax.random.key(0))[1]["accuracy"], params)
    )
    results, table = {}, []
    print("| optimizer | rate at the start | last training loss | test accuracy, % | last rate |")
    print("| --- | --- | --- | --- | --- |")
    for method in methods():
        params, losses, rates = train(method, model, runs, train_set)
        accuracies = jnp.stack([accuracy(jax.tree.map(lambda leaf, i=i: leaf[i], params)) for i in range(len(losses))])
        results[method.name] = Result(*map(np.asarray, (losses, rates, accuracies)))
        for row in records(method, results[method.name]):
            table.append(row)
            loss, percent = np.array(row["last_loss"]), 100 * np.array(row["accuracy"])
            print(
                f"| {row['optimizer']} | {row['start']:g} | {loss.mean():.4f} ± {loss.std():.4f} | "
                f"{percent.mean():.2f} ± {percent.std():.2f} | {np.mean(row['last_rate']):.3g} |",
                flush=True,
            )
    plot(results, args.folder / "hypergradient.png")
    costs = measure_steps(args, train_set)
    print_steps(costs)
    saved = {"optimizers": table, "steps": costs, "cpu_seconds": time.process_time()}
    (args.folder / "result.json").write_text(json.dumps(saved, indent=2))
    print(f"\n{len(args.seeds)} seeds; {time.process_time():.0f} CPU seconds; saved to {args.folder}")


if __name__ == "__main__":
    main(tyro.cli(Args))
