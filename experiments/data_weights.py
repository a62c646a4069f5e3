"""Weights of training data with wrong labels: Meta-Weight-Net and hyper-cleaning on CLINC150.

Of the 15,000 training sentences of CLINC150 (150 intents, Larson et al. 2019), 40 % get a wrong intent. Five sentences
of each intent of the validation part are clean. A linear classifier on hashed pieces of words (`data.hash_ngrams`) is
trained by Adam, and tested on all 4,500 test sentences. Rows without learned weights:

    noisy          all training sentences alike
    noisy + clean  the same, with the clean ones among them
    stopped        the same as noisy, at the step with the best accuracy on the clean ones
    clean          the clean sentences alone
    truth          the training sentences with right labels alone, which nobody has

and with weights that are learned on the clean sentences, while the classifier trains (`bilevel.bilevel_step`):
`net` (Meta-Weight-Net, Shu et al. 2019, https://arxiv.org/abs/1902.07379) and `examples` (hyper-cleaning, Franceschi et
al. 2018, https://arxiv.org/abs/1806.04910), each by the exact derivative of one inner step and by SAMA (Choe et al.
2023, https://arxiv.org/abs/2310.05674). The AUC is the probability that a sentence with a right label has more weight
than one with a wrong label.

Without `--root` the data are ten Gaussian classes, as a quick check.

    python experiments/data_weights.py --root <folder with clinc150/data_full.json>
"""

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from scipy.stats import rankdata

import jaxmeta
from jaxmeta import Batch, bilevel, models
from jaxmeta.data import hash_ngrams

PLAIN = ("noisy", "noisy + clean", "clean", "truth")
WEIGHTED = ("net, exact", "net, SAMA", "examples, exact", "examples, SAMA")


@dataclass(frozen=True)
class Args:
    """Train on data with wrong labels, with and without learned weights, and print a table."""

    root: Path | None = None
    """Folder with data_full.json or clinc150/data_full.json. Without one the data are Gaussian classes."""
    wrong: float = 0.4
    """Share of the training labels that are wrong."""
    clean: int = 5
    """Clean examples of each class."""
    methods: tuple[str, ...] = (*PLAIN, *WEIGHTED)
    """Rows of the table; noisy gives the row stopped too."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run each: wrong labels, clean examples and minibatches."""
    steps: int = 1000
    """Steps of the classifier."""
    warm_up: int = 300
    """Steps before weights are learned. Before that the losses of wrong and right labels are alike."""
    batch_size: int = 128
    """Training examples in a step; as many clean ones in an outer update."""
    size: int = 1024
    """Numbers per sentence."""
    rate: float = 0.01
    """Rate of the classifier's Adam."""
    net_rate: float = 1e-3
    """Outer rate of the weighting network."""
    example_rate: float = 0.3
    """Outer rate of the logits of the examples' weights."""
    folder: Path = Path("runs/data_weights")
    """Where the table goes."""


class Data(NamedTuple):
    """The data of one seed."""

    noisy: Batch
    """Training examples, some with wrong labels."""
    right: np.ndarray
    """Whether the label of a training example is right."""
    clean: Batch
    """Examples with right labels."""
    test: Batch
    """Test examples."""


def read_parts(args: Args) -> list[Batch]:
    """Training, validation and test examples with right labels."""
    if args.root is None:
        centers = jax.random.normal(jax.random.key(0), (10, 50)) / 3
        parts = []
        for seed, count in enumerate((100, 20, 100)):
            y = np.arange(10).repeat(count)
            parts.append(Batch(centers[y] + jax.random.normal(jax.random.key(seed + 1), (len(y), 50)), y))
        return parts
    path = next(path for path in (args.root, args.root / "clinc150") if (path / "data_full.json").is_file())
    content = json.loads((path / "data_full.json").read_text(encoding="utf-8"))
    names = sorted({intent for _, intent in content["train"]})
    return [
        Batch(
            jnp.asarray(hash_ngrams([sentence for sentence, _ in content[part]], args.size)),
            np.array([names.index(intent) for _, intent in content[part]]),
        )
        for part in ("train", "val", "test")
    ]


def spoil(parts: list[Batch], args: Args, seed: int) -> Data:
    """Makes a share of the training labels wrong, and takes a few clean examples of each class."""
    train, validation, test = parts
    generator = np.random.default_rng(seed)
    ways, count = int(train.y.max()) + 1, len(train.y)
    wrong = generator.permutation(count) < args.wrong * count
    labels = np.where(wrong, (train.y + generator.integers(1, ways, count)) % ways, train.y)
    rows = np.concatenate([generator.permutation(np.flatnonzero(validation.y == c))[: args.clean] for c in range(ways)])
    clean = Batch(validation.x[rows], jnp.asarray(validation.y[rows]))
    return Data(Batch(train.x, jnp.asarray(labels)), ~wrong, clean, Batch(test.x, jnp.asarray(test.y)))


def logits(params: Any, x: jax.Array) -> jax.Array:
    """The linear classifier."""
    return x @ params["w"] + params["b"]


def losses(params: Any, batch: Any, key: jax.Array) -> jax.Array:
    """The cross-entropy of each example."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, batch.x), batch.y)


MEAN_LOSS = jaxmeta.classification(logits)


def accuracy(params: Any, batch: Batch) -> jax.Array:
    """The share of right predictions."""
    return MEAN_LOSS(params, batch, jax.random.key(0))[1]["accuracy"]


def area(weights: np.ndarray, right: np.ndarray) -> float:
    """The area under the ROC curve of the weights."""
    positive, ranks = right.sum(), rankdata(weights)
    return float((ranks[right].sum() - positive * (positive + 1) / 2) / (positive * (~right).sum()))


def optimizer(args: Args) -> optax.GradientTransformation:
    """The optimizer of the classifier, which is differentiated."""
    return optax.adam(args.rate, eps_root=1e-8)


def start(data: Data) -> Any:
    """A classifier of zeros."""
    ways = int(data.test.y.max()) + 1
    return {"w": jnp.zeros((data.test.x.shape[1], ways)), "b": jnp.zeros(ways)}


def train_plain(args: Args, train: Batch, data: Data, key: jax.Array, steps: int) -> tuple[Any, Any]:
    """The classifier after all steps, and the one of the step that is best on the clean examples."""
    inner, first = optimizer(args), start(data)

    @jax.jit
    def run(train: Batch, clean: Batch) -> tuple[Any, Any]:
        def part(carry: Any, keys: jax.Array) -> tuple[Any, None]:
            params, state, best, best_accuracy = carry

            def loss_fn(params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
                rows = jax.random.randint(key, (args.batch_size,), 0, len(batch.y))
                return jnp.mean(losses(params, Batch(batch.x[rows], batch.y[rows]), key)), {}

            end = jaxmeta.unroll(loss_fn, inner, params, train, keys, state=state)
            found = accuracy(end.params, clean)
            better = found > best_accuracy
            best = jax.tree.map(partial(jnp.where, better), end.params, best)
            return (end.params, end.state, best, jnp.maximum(found, best_accuracy)), None

        parts = min(20, steps)
        keys = jax.random.split(key, steps - steps % parts).reshape(parts, -1)
        (params, _, best, _), _ = jax.lax.scan(part, (first, inner.init(first), first, 0.0), keys)
        return params, best

    return run(train, data.clean)


def train_weighted(method: str, args: Args, data: Data, key: jax.Array) -> tuple[Any, np.ndarray]:
    """The classifier, and the weights of the training examples."""
    init_key, net_key, run_key, warm_key = jax.random.split(key, 4)
    warmed, _ = train_plain(args, data.noisy, data, warm_key, args.warm_up)
    kind, gradient = method.split(", ")
    net = models.MLP(sizes=(100,))
    apply: Any = net.apply
    if kind == "net":
        weigh, hyper = bilevel.weight_by_loss(apply), net.init(net_key, jnp.zeros((1, 1)))
        outer = optax.adam(args.net_rate)
    else:
        weigh, hyper = bilevel.weight_by_example, jnp.zeros(len(data.right))
        outer = optax.adam(args.example_rate)
    training = bilevel.bilevel_step(
        bilevel.weighted_losses(losses, weigh, lambda _: warmed),
        optimizer(args),
        outer,
        outer_loss=MEAN_LOSS,
        meta_gradient=jaxmeta.sama() if gradient == "SAMA" else jaxmeta.reverse(),
    )
    sampler = bilevel.TrainAndValidation(data.noisy, data.clean, args.batch_size, args.batch_size)

    @jax.jit
    def run(state: Any, sampler: Any) -> Any:
        def step(state: Any, key: jax.Array) -> tuple[Any, None]:
            return training.step(state, key, sampler)[0], None

        return jax.lax.scan(step, state, jax.random.split(run_key, args.steps - args.warm_up))[0]

    state = run(training.init(hyper, init_key), sampler)
    rows = bilevel.Rows(*data.noisy[:2], jnp.arange(len(data.right)))
    weights = weigh(state.meta.variables, losses(state.params, rows, run_key), rows)
    return state.params, np.asarray(weights)


def main(args: Args) -> None:
    """Train by every method; print and save the table as the rows come."""
    args.folder.mkdir(parents=True, exist_ok=True)
    parts = read_parts(args)
    table: dict[str, dict[str, Any]] = {}
    print("| weights | test accuracy, % | AUC of the weights | CPU s a run |")
    print("| --- | --- | --- | --- |")
    for method in args.methods:
        found: dict[str, dict[str, list[float]]] = {}
        for seed in args.seeds:
            data, key, begin = spoil(parts, args, seed), jax.random.key(seed), time.process_time()
            results: dict[str, tuple[Any, float | None]] = {}
            if method in WEIGHTED:
                params, weights = train_weighted(method, args, data, key)
                results[method] = params, area(weights, data.right)
            else:
                both = Batch(*(jnp.concatenate(pair) for pair in zip(data.noisy[:2], data.clean[:2], strict=True)))
                right = Batch(data.noisy.x[data.right], data.noisy.y[data.right])
                train = {"noisy": data.noisy, "noisy + clean": both, "clean": data.clean, "truth": right}[method]
                params, best = train_plain(args, train, data, key, args.steps)
                results[method] = params, None
                if method == "noisy":
                    results["stopped"] = best, None
            for name, (params, auc) in results.items():
                row = found.setdefault(name, {"accuracy": [], "auc": [], "cpu_seconds": []})
                row["accuracy"].append(float(accuracy(params, data.test)))
                row["auc"] += [] if auc is None else [auc]
                row["cpu_seconds"].append(time.process_time() - begin)
        for name, row in found.items():
            percent = 100 * np.array(row["accuracy"])
            auc = f"{np.mean(row['auc']):.3f} ± {np.std(row['auc']):.3f}" if row["auc"] else ""
            seconds = f"{np.mean(row['cpu_seconds']):.0f}"
            print(f"| {name} | {percent.mean():.1f} ± {percent.std():.1f} | {auc} | {seconds} |", flush=True)
        table |= found
        (args.folder / "result.json").write_text(json.dumps(table, indent=2))
    print(f"\n{len(args.seeds)} seeds; {time.process_time():.0f} CPU seconds; saved to {args.folder}")


if __name__ == "__main__":
    main(tyro.cli(Args))
