"""Prior-fitted networks against the exact posterior of a Gaussian process (Müller et al. 2022, section 5.1).

Tasks are draws of a Gaussian process with a squared exponential kernel of lengthscale 0.6 and scale 1, inputs from
U[-2, 2] and noise of standard deviation 0.1. A task has 0 to 16 support examples. A transformer learns to predict the
whole distribution of a target, as 100 bars. The exact posterior is known, so the mean of `log p(y) - log q(y)` over
queries is the divergence KL(p || q) of the exact posterior from the prediction. A conditional neural process is trained
beside it, with the same number of floating-point operations.

With `--prior mixed` the kernel of each task is one of five kinds with a random lengthscale, scale and period. The exact
posterior is then a mixture over kernels, weighted by their evidence, of which 256 draws are an estimate.

The paper's Figure 3 shows the same comparison, with larger networks.
Time: about 4 minutes of CPU time.

    python experiments/prior_fitted.py
    python experiments/prior_fitted.py --prior mixed --iterations 20000
"""

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxmeta
from jaxmeta import data, models

SIZES = (0, 1, 2, 4, 8, 16)
PRIORS: dict[str, dict[str, Any]] = {
    "rbf": {"kernels": ("rbf",), "lengthscales": (0.6, 0.6), "scales": (1.0, 1.0)},
    "mixed": {},
}
CANDIDATES = {"rbf": 1, "mixed": 256}  # kernels in the exact posterior


@dataclass(frozen=True)
class Args:
    """Train on draws of a Gaussian process and print the divergence from its posterior."""

    learners: tuple[Literal["pfn", "cnp"], ...] = ("pfn", "cnp")
    """Prior-fitted network, conditional neural process. Results of others in the folder are kept."""
    prior: Literal["rbf", "mixed"] = "rbf"
    """One kernel, or a random one for each task."""
    iterations: int = 8000
    """Outer updates of the prior-fitted network. The other one has as many operations."""
    num_tasks: int = 16
    """Tasks per update."""
    width: int = 64
    """Length of the tokens."""
    layers: int = 3
    """Layers of the transformer."""
    outer_rate: float = 1e-3
    """Largest rate of Adam."""
    test_tasks: int = 1000
    """Test tasks per number."""
    seed: int = 0
    """Seed of everything."""
    folder: Path = Path("runs/prior-fitted")
    """Where the numbers and the plot go."""


def sampler_of(args: Args, shots: int | tuple[int, int], queries: int) -> data.GaussianProcess:
    """The prior, with tasks of some size."""
    return data.GaussianProcess(shots, queries, **PRIORS[args.prior])


def make(args: Args, name: str) -> tuple[jaxmeta.MetaLearner, jaxmeta.MetaParams]:
    """A learner and its initial meta-parameters."""
    transformer = jaxmeta.BarTransformer(100, args.width, args.layers, backbone=models.MLP((args.width, args.width)))
    model: Any = jaxmeta.NeuralProcess() if name == "cnp" else transformer
    encode, decode = (partial(model.apply, method=method) for method in ("encode", "decode"))
    build: Any = jaxmeta.conditional_neural_process if name == "cnp" else jaxmeta.prior_fitted_network
    learner, sampler = build(encode, decode), sampler_of(args, 1, 1)
    keys = jax.random.split(jax.random.key(args.seed), 20_000)
    draws = [] if name == "cnp" else [jax.jit(jax.vmap(sampler))(keys).query.y]
    return learner, learner.init(jax.jit(model.init)(jax.random.key(args.seed), sampler.example, *draws))


def meta_train(args: Args, name: str) -> dict[str, Any]:
    """A record of the training, with the learner and the meta-parameters."""
    learner, meta = make(args, name)
    sampler, key = sampler_of(args, (0, max(SIZES)), 32), jax.random.key(args.seed + 1)

    def operations(other: str) -> float:
        its, start = make(args, other)
        training = jaxmeta.meta_step(its, optax.adam(0.0), args.num_tasks, batch_size=args.num_tasks)
        return jaxmeta.cost(training.step, training.init(start), key, sampler).flops

    share = operations("pfn") / operations(name) if name == "cnp" else 1.0
    every = min(500, args.iterations)
    updates = every * max(1, round(args.iterations * share / every))
    rate = optax.warmup_cosine_decay_schedule(0.0, args.outer_rate, updates // 20, updates)
    wall, cpu = time.perf_counter(), time.process_time()
    trained = jaxmeta.train(
        learner,
        optax.adam(rate),
        meta,
        sampler,
        key,
        iterations=updates,
        num_tasks=args.num_tasks,
        batch_size=args.num_tasks,
        log_every=every,
        validate_every=updates,
    )
    seconds = {"train_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    return {"updates": updates, "learner": learner, "meta": trained.meta, **seconds}


def exact_log_prob(sampler: data.GaussianProcess, task: jaxmeta.Task, kernels: data.Kernel) -> jax.Array:
    """Log-density of each query target under the mixture of the posteriors of some kernels from the prior."""

    def one(kernel: data.Kernel) -> tuple[jax.Array, jax.Array]:
        posterior = sampler.posterior(task.support, task.query.x, kernel)
        density = jax.scipy.stats.norm.logpdf(task.query.y, posterior.mean, posterior.std)
        return sampler.log_evidence(task.support, kernel), density

    evidence, density = jax.vmap(one)(kernels)
    return jax.scipy.special.logsumexp(jax.nn.log_softmax(evidence)[:, None, None] + density, axis=0)


def test(args: Args, name: str, learner: jaxmeta.MetaLearner, meta: jaxmeta.MetaParams) -> list[dict[str, Any]]:
    """A record for each size of the support set: densities of the same targets, exact and predicted."""
    most = max(SIZES)
    sampler = sampler_of(args, most, 64)
    kernels = jax.vmap(sampler.kernel)(jax.random.split(jax.random.key(7), CANDIDATES[args.prior]))

    def one(shots: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
        task = sampler(key)
        weight = (jnp.arange(most) < shots).astype(jnp.float32)
        task = task._replace(support=jaxmeta.Batch(task.support.x, task.support.y, weight))
        exact = -jnp.mean(exact_log_prob(sampler, task, kernels))
        nll, _ = learner.loss(learner.adapt(meta, task.support, key), task.query, key)
        return {"exact": exact, "nll": nll, "kl": nll - exact}

    keys = jax.random.split(jax.random.key(1000 + args.seed), args.test_tasks)
    run = jax.jit(lambda shots: jax.lax.map(partial(one, shots), keys, batch_size=100))
    records = []
    for shots in SIZES:
        found = jaxmeta.summarize(run(jnp.array(shots)))
        columns = {k: {"mean": v.mean, "interval": v.interval} for k, v in found.items()}
        records.append({"learner": name, "prior": args.prior, "shots": shots, **columns})
    return records


def plot(records: list[dict[str, Any]], path: Path) -> None:
    """Divergence by the size of the support set."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, title in {"pfn": "prior-fitted network", "cnp": "conditional neural process"}.items():
        rows = [r for r in records if r["learner"] == name]
        if rows:
            kl, interval = (np.array([r["kl"][k] for r in rows]) for k in ("mean", "interval"))
            axes.errorbar(range(len(rows)), kl, interval, marker="o", capsize=3, label=title)
    axes.set_xticks(range(len(SIZES)), map(str, SIZES))
    axes.set(xlabel="support examples", ylabel="KL(exact posterior || prediction) in nats", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main(args: Args) -> None:
    """Train and test each learner; print and save as the rows come."""
    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / "result.json"
    records: list[dict[str, Any]] = []
    print("| learner | support | exact NLL | NLL | KL ± 95 % | updates | train s, of CPU |", flush=True)
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in args.learners:
        trained = meta_train(args, name)
        learner, meta = trained.pop("learner"), trained.pop("meta")
        jaxmeta.save(args.folder / f"{name}.msgpack", meta)
        found = [{**record, **trained} for record in test(args, name, learner, meta)]
        for r in found:
            print(
                f"| {name} | {r['shots']} | {r['exact']['mean']:.3f} | {r['nll']['mean']:.3f} | "
                f"{r['kl']['mean']:.4f} ± {r['kl']['interval']:.4f} | {trained['updates']} | "
                f"{trained['train_seconds']:.0f}, {trained['cpu_seconds']:.0f} |",
                flush=True,
            )
        before = json.loads(path.read_text()) if path.exists() else []
        records = [r for r in before if r["learner"] != name] + found
        path.write_text(json.dumps(records, indent=2))
    plot(records, args.folder / "kl.png")
    print(f"\n{args.test_tasks} test tasks of 64 queries per row; saved to {args.folder}")


if __name__ == "__main__":
    main(tyro.cli(Args))
