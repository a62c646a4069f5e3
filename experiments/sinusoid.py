"""Sinusoid regression: MAML's first experiment (Finn et al. 2017, section 5.1, table 2), and CAVIA's.

Tasks `y = A sin(x - p)`, `A ~ U[0.1, 5]`, `p ~ U[0, pi]`, `x ~ U[-5, 5]`; an MLP 1-40-40-1 is meta-trained with one
inner step on 10 shots, 25 tasks per update, Adam(1e-3), 70,000 updates, and tested after 1, 5 and 10 inner steps on 5
shots.
The inner rate is 0.001, the one of the published code; the paper's text says 0.01, with which the test diverges.

`maml-5` is trained with 5 inner steps at 0.01, as learn2learn's example. Reptile takes 5 steps at 0.01 and an outer
step from 0.5 to 0, our choice: its paper has another network. CAVIA (Zintgraf et al. 2019, section 5.1) adapts 5, 2 or
1 context parameters in one step at rate 1.

Papers, mean squared error: MAML, 5 shots, after 1 / 5 / 10 steps: 0.67 / 0.38 / 0.35. CAVIA, 10 shots, 1 step, with
5 / 2 / 1 context parameters: 0.19 / 0.21 / 0.84.
Time: 20 to 80 s a row on two CPU cores.

    python experiments/sinusoid.py                          # all learners, one seed
    python experiments/sinusoid.py --learners maml --seeds 0 1 2
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import linen as nn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxmeta
from jaxmeta import data, models

TEST_STEPS = (1, 5, 10)
# The error of predicting 0 for the largest amplitude, 5^2 / 2: a task above it is worse than no learning at all.
DIVERGED = 12.5
MODEL = models.MLP(sizes=(40, 40), kernel_init=nn.initializers.truncated_normal(0.01))
LOSS = jaxmeta.regression(MODEL.apply)
CONTEXT_MODEL = models.MLP(sizes=(40, 40))
CONTEXT_LOSS = jaxmeta.regression(lambda p, x: CONTEXT_MODEL.apply(p.params, x, p.context))
LEARNERS = ("maml", "maml-5", "fomaml", "anil", "meta-sgd", "cavia-5", "cavia-2", "cavia-1", "reptile")


@dataclass(frozen=True)
class Args:
    """Meta-train on sinusoids and print a table of test errors."""

    learners: tuple[str, ...] = LEARNERS
    """Which learners; the number behind cavia is that of its context parameters."""
    seeds: tuple[int, ...] = (0,)
    """One run each."""
    iterations: int = 70_000
    """Outer updates."""
    inner_rate: float = 0.001
    """Inner learning rate, and where Meta-SGD's rates start."""
    test_tasks: int = 600
    """Test tasks per number."""
    folder: Path = Path("runs/sinusoid")
    """Where the table and the plot go."""


def make_learner(name: str, rate: float, test_steps: int) -> jaxmeta.MetaLearner:
    """The learner called `name`, at test adapting for `test_steps`."""
    if name not in LEARNERS:
        raise ValueError(f"learners must be among {', '.join(LEARNERS)}, got {name!r}")
    if name.startswith("cavia"):
        return jaxmeta.cavia(CONTEXT_LOSS, optax.sgd(1.0), context_size(name), test_steps=test_steps)
    match name:
        case "maml":
            return jaxmeta.maml(LOSS, optax.sgd(rate), test_steps=test_steps)
        case "maml-5":
            return jaxmeta.maml(LOSS, optax.sgd(0.01), steps=5, test_steps=test_steps)
        case "fomaml":
            return jaxmeta.fomaml(LOSS, optax.sgd(rate), test_steps=test_steps)
        case "anil":
            return jaxmeta.anil(LOSS, optax.sgd(rate), test_steps=test_steps)
        case "meta-sgd":
            return jaxmeta.meta_sgd(LOSS, rate, test_steps=test_steps)
        case _:
            return jaxmeta.reptile(LOSS, optax.sgd(0.01), steps=5, test_steps=test_steps)


def context_size(name: str) -> int:
    """The number behind `cavia-`."""
    return int(name.removeprefix("cavia-"))


def initial_params(name: str, key: jax.Array) -> jaxmeta.PyTree:
    """The network's parameters."""
    x = jnp.zeros((1, 1))
    return CONTEXT_MODEL.init(key, x, jnp.zeros(context_size(name))) if name.startswith("cavia") else MODEL.init(key, x)


def meta_train(name: str, args: Args, seed: int) -> tuple[jaxmeta.MetaParams, float]:
    """Meta-parameters after training, and the seconds that it took, compilation included."""
    init_key, train_key = jax.random.split(jax.random.key(seed))
    sampler = data.Sinusoid(shots=10, queries=10)
    learner = make_learner(name, args.inner_rate, 1)
    optimizer = optax.adam(1e-3)
    if name == "reptile":
        optimizer = optax.sgd(optax.linear_schedule(0.5, 0.0, args.iterations))
    begin = time.perf_counter()
    trained = jaxmeta.train(
        learner,
        optimizer,
        learner.init(initial_params(name, init_key)),
        sampler,
        train_key,
        iterations=args.iterations,
        num_tasks=25,
        batch_size=25,
        log_every=min(1000, args.iterations),
        validate_every=min(1000, args.iterations),
    )
    return trained.meta, time.perf_counter() - begin


def test(name: str, args: Args, meta: jaxmeta.MetaParams, seed: int) -> list[dict]:
    """A record for each number of shots and of test steps."""
    records = []
    for shots in (5, 10):
        sampler = data.Sinusoid(shots=shots, queries=100)
        for steps in TEST_STEPS:
            learner = make_learner(name, args.inner_rate, steps)
            run = jax.jit(jaxmeta.evaluate(learner, args.test_tasks, batch_size=args.test_tasks))
            losses = run(meta, sampler, jax.random.key(1000 + seed))["loss"]
            summary = jaxmeta.summarize({"loss": losses})["loss"]
            diverged = float(np.mean(~(np.asarray(losses) <= DIVERGED)))
            records.append(
                {
                    "learner": name,
                    "seed": seed,
                    "shots": shots,
                    "steps": steps,
                    "diverged": diverged,
                    **summary._asdict(),
                }
            )
    return records


def plot_fits(args: Args, meta: jaxmeta.MetaParams, path: Path) -> None:
    """Predictions before and after 1 and 10 steps of MAML on three test tasks of 5 shots."""
    sampler = data.Sinusoid(shots=5)
    x = jnp.linspace(-5, 5, 200)[:, None]
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, seed in zip(figure.subplots(1, 3, sharey=True), range(3), strict=True):
        key = jax.random.key(seed)
        task = sampler(key)
        axes.plot(x, sampler.target(x, sampler.wave(key)), color="black", label="truth")
        axes.plot(task.support.x, task.support.y, "k^", label="5 shots")
        axes.plot(x, MODEL.apply(meta.params, x), ":", label="before")
        for steps in (1, 10):
            adapted = make_learner("maml", args.inner_rate, steps).adapt(meta, task.support, key)
            axes.plot(x, MODEL.apply(adapted, x), "--" if steps == 1 else "-", label=f"after {steps}")
        axes.set(xlabel="x")
        axes.grid(alpha=0.3)
    figure.axes[0].set(ylabel="y")
    figure.axes[-1].legend(loc="upper right", fontsize=8)
    figure.savefig(path, dpi=120)


def main(args: Args) -> None:
    """Train and test each learner; print and save as the rows come."""
    args.folder.mkdir(parents=True, exist_ok=True)
    records = []
    print("| learner | seed | shots | steps | mean ± 95 % | median | diverged | train s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in args.learners:
        for seed in args.seeds:
            meta, seconds = meta_train(name, args, seed)
            for r in test(name, args, meta, seed):
                records.append({**r, "train_seconds": seconds})
                print(
                    f"| {name} | {seed} | {r['shots']} | {r['steps']} | {r['mean']:.3f} ± {r['interval']:.3f} | "
                    f"{r['median']:.3f} | {100 * r['diverged']:.1f} % | {seconds:.0f} |",
                    flush=True,
                )
            (args.folder / "result.json").write_text(json.dumps(records, indent=2))
            if name == "maml" and seed == args.seeds[0]:
                plot_fits(args, meta, args.folder / "fits.png")
    print(f"\n{args.test_tasks} test tasks per row; saved to {args.folder}")


if __name__ == "__main__":
    main(tyro.cli(Args))
