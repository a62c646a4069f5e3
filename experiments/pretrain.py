"""Supervised pre-training, then few-shot tests: SimpleShot, Baseline, Baseline++, fine-tuning, Meta-Baseline.

The stride-2 network with 4 x 64 channels learns to tell all base classes apart (Adam 1e-3 falling to 0, minibatches of
64, shifts by up to 2 pixels), and is tested on tasks of new classes, 15 queries a class: by the nearest centroid of its
features scaled to length 1 (SimpleShot); by a linear classifier trained on them in 100 steps (Baseline), or together
with all layers (fine-tuning); trained with a cosine classifier in both stages (Baseline++); and by the nearest centroid
by the cosine after as many tasks of up to 60 ways and 1 shot as a fifth of the minibatches (Meta-Baseline). The base
classes are 400 characters of `Glyphs`, 20 drawings each, or those of Omniglot's training alphabets, each rotation a
class.

Batch norm has the statistics of the base classes at test, so nothing is transductive; the row that says so takes those
of the support and the query set instead. The papers' point is that this simple recipe is close to meta-learning; of
them only Chen et al. have Omniglot (in their appendix, with turned test characters as classes of their own: Baseline
94.89 and 99.12 % at 1 and 5 shots, Baseline++ 95.41 and 99.38 %). Time: 7 minutes on two CPU cores.

    python experiments/pretrain.py                          # Glyphs
    python experiments/pretrain.py --benchmark omniglot --root <folder with the zips> --iterations 10000 \
        --test-tasks 600 --test-rotations

`experiments/tables/run.py` has the same learners by name, beside the others.

References:
    Chen et al., *A Closer Look at Few-shot Classification*, ICLR 2019, https://arxiv.org/abs/1904.04232
    Wang et al., *SimpleShot*, 2019, https://arxiv.org/abs/1911.04623
    Chen et al., *Meta-Baseline*, ICCV 2021, https://arxiv.org/abs/2003.04390
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import tyro

import jaxmeta
from jaxmeta import data, models

QUERIES = 15
EPISODE_WAYS = 60  # of Meta-Baseline's second stage, if there are so many classes


@dataclass(frozen=True)
class Args:
    """Pre-train on base classes, test on tasks of new classes, and print a table."""

    benchmark: str = "glyphs"
    """Where the classes come from: glyphs or a few-shot benchmark of images, such as omniglot."""
    root: Path | None = None
    """Folder with the benchmark's files, for omniglot images_background.zip and images_evaluation.zip."""
    split: str | None = None
    """How its classes are divided, if it offers a choice."""
    classes: int = 400
    """Base classes of glyphs."""
    iterations: int = 3000
    """Minibatches."""
    batch: int = 64
    """Examples per minibatch."""
    ways: int = 5
    """Classes per task."""
    shots: tuple[int, ...] = (1, 5)
    """Examples per class."""
    test_tasks: int = 300
    """Test tasks per number."""
    test_rotations: bool = False
    """Let turned characters be classes of their own at test too (Omniglot)."""
    seed: int = 0
    """Seed of everything random."""
    folder: Path = Path("runs/pretrain")
    """Where checkpoints and the table go."""


class Backbone(NamedTuple):
    """A network that was trained to tell the base classes apart."""

    features: Callable[..., Any]
    """`(variables, x [n, ...]) -> [n, d]`."""
    untrained: Any
    """The variables that it started from, with statistics of their own."""
    variables: Any
    """Those that it ended with."""
    seconds: float
    """Of training."""


class Fitted(NamedTuple):
    """What is tested, and the seconds that its training took."""

    learner: jaxmeta.MetaLearner
    meta: jaxmeta.MetaParams
    seconds: float = 0.0


@cache
def load(args: Args) -> data.BenchmarkTasksets:
    """The benchmark; glyphs for training are a fixed set of 20 drawings of each of the first classes."""
    if args.benchmark != "glyphs":
        return data.get_tasksets(args.benchmark, args.ways, 1, queries=QUERIES, split=args.split, root=args.root)
    if args.test_rotations:
        raise SystemExit("--test-rotations is for omniglot, not for glyphs")
    train, validation, test = (data.Glyphs(args.ways, 1, QUERIES, split) for split in ("train", "validation", "test"))

    @jax.jit
    def draw(key: jax.Array, number: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(key, number), 20)
        return jnp.round(255 * jax.vmap(partial(train.render, number))(keys)).astype(jnp.uint8)

    images = jax.lax.map(partial(draw, jax.random.key(0)), jnp.arange(args.classes))
    return data.BenchmarkTasksets(data.FewShot.from_classes(images, ways=args.ways), validation, test)


def resized(sampler: Any, ways: int, shots: int, queries: int) -> Any:
    """The same classes in tasks of another size."""
    resize = sampler.with_sizes if isinstance(sampler, data.FewShot) else partial(replace, sampler)
    return resize(ways=ways, shots=shots, queries=queries)


def num_classes(sets: data.BenchmarkTasksets) -> int:
    """Base classes."""
    return sets.train.num_classes  # pyright: ignore[reportAttributeAccessIssue]


def options(args: Args, sets: data.BenchmarkTasksets, iterations: int, stage: str) -> dict[str, Any]:
    """What both stages of training are told alike."""
    return {
        "validation": sets.validation,
        "validation_tasks": min(100, args.test_tasks),
        "validate_every": max(1, min(500, iterations // 2)),
        "log_every": max(1, min(50, iterations // 2)),
        "folder": args.folder / f"{args.benchmark}-{stage}-{num_classes(sets)}-{args.iterations}-seed{args.seed}",
    }


@cache
def pretrain(args: Args, head: str) -> Backbone:
    """A network with a `"linear"` or a `"cosine"` classifier of all base classes."""
    sets = load(args)
    batches = jaxmeta.Minibatches(sets.train, args.batch)  # pyright: ignore[reportArgumentType]
    model = models.OmniglotCNN(ways=batches.num_classes, padding=1)
    if head == "cosine":
        model = models.Classifier(model, models.CosineDense(batches.num_classes))
    init_key, train_key = jax.random.split(jax.random.key(args.seed))
    start = jax.jit(model.init)(init_key, batches.example)
    done = jaxmeta.pretrain(
        model,
        optax.adam(optax.cosine_decay_schedule(1e-3, args.iterations)),
        start,
        batches,
        train_key,
        iterations=args.iterations,
        augment=partial(data.random_crop, padding=2),
        **options(args, sets, args.iterations, head),
    )
    jaxmeta.save(args.folder / f"{args.benchmark}-{head}-seed{args.seed}.msgpack", done.meta)
    sample = jax.vmap(lambda key: batches(key).x)(jax.random.split(init_key))
    untrained = models.with_batch_stats(model, start, sample)
    return Backbone(partial(model.apply, method="features"), untrained, done.meta, done.history[-1]["seconds"])


@cache
def train_in_tasks(args: Args) -> Fitted:
    """The second stage of Meta-Baseline: the network learns on in tasks of its base classes."""
    backbone, sets = pretrain(args, "linear"), load(args)
    tasks = resized(sets.train, min(EPISODE_WAYS, num_classes(sets)), 1, queries=5)
    learner = jaxmeta.meta_baseline(backbone.features, tasks.ways, test_ways=args.ways)
    iterations = max(2, args.iterations // 5)
    done = jaxmeta.train(
        learner,
        optax.adam(optax.cosine_decay_schedule(1e-3, iterations)),
        learner.init(backbone.variables),
        tasks,
        jax.random.key(2000 + args.seed),
        iterations=iterations,
        num_tasks=1,
        **options(args, sets, iterations, "meta-baseline"),
    )
    return Fitted(learner, done.meta, backbone.seconds + done.history[-1]["seconds"])


def meta_baseline(args: Args, ways: int) -> Fitted:
    """Meta-Baseline."""
    learner = jaxmeta.meta_baseline(pretrain(args, "linear").features, ways)
    return train_in_tasks(args)._replace(learner=learner)


@cache
def with_head(head: str, make: Callable[..., jaxmeta.MetaLearner], args: Args, ways: int) -> Fitted:
    """A learner that only fits a head to the features of the pre-trained network."""
    backbone = pretrain(args, head)
    learner = make(backbone.features, ways)
    return Fitted(learner, learner.init(backbone.variables), backbone.seconds)


LEARNERS: dict[str, Callable[[Args, int], Fitted]] = {
    "simpleshot": partial(with_head, "linear", jaxmeta.simpleshot),
    "baseline": partial(with_head, "linear", jaxmeta.baseline),
    "fine-tuning": partial(with_head, "linear", partial(jaxmeta.baseline, fine_tune=True)),
    "baseline-plus-plus": partial(with_head, "cosine", jaxmeta.baseline_plus_plus),
    "meta-baseline": meta_baseline,
}


@cache
def tester(learner: jaxmeta.MetaLearner, num_tasks: int) -> Callable[..., jaxmeta.Metrics]:
    """Compiled once for all meta-parameters."""
    return jax.jit(jaxmeta.evaluate(learner, num_tasks))


def test(args: Args, fitted: Fitted, ways: int, shots: int) -> jaxmeta.Summary:
    """Accuracy on tasks of new classes."""
    run, sampler = tester(fitted.learner, args.test_tasks), load(args).test
    if args.test_rotations:
        sampler = replace(sampler, rotations=4)  # pyright: ignore[reportArgumentType]
    tasks = resized(sampler, ways, shots, QUERIES)
    return jaxmeta.summarize(run(fitted.meta, tasks, jax.random.key(1000 + args.seed)))["accuracy"]


def controls(args: Args) -> dict[str, Fitted]:
    """SimpleShot with a network that learned nothing, and with the statistics of the task at hand."""
    backbone, fitted = pretrain(args, "linear"), LEARNERS["simpleshot"](args, args.ways)
    own = {"params": backbone.variables["params"]}
    return {
        "simpleshot, not trained": Fitted(fitted.learner, fitted.learner.init(backbone.untrained)),
        "simpleshot, transductive": fitted._replace(meta=fitted.learner.init(own)),
    }


def main(args: Args) -> None:
    """Pre-train, test, print, save."""
    args.folder.mkdir(parents=True, exist_ok=True)
    rows = {**controls(args), **{name: fit(args, args.ways) for name, fit in LEARNERS.items()}}
    records = []
    lines = ["| how | " + " | ".join(f"{args.ways}-way {shots}-shot" for shots in args.shots) + " | minutes |"]
    lines.append("| --- |" + " --- |" * (len(args.shots) + 1))
    for name, fitted in rows.items():
        summaries = [test(args, fitted, args.ways, shots) for shots in args.shots]
        records += [{"row": name, "shots": k, **s._asdict()} for k, s in zip(args.shots, summaries, strict=True)]
        cells = " | ".join(f"{100 * s.mean:.2f} ± {100 * s.interval:.2f}" for s in summaries)
        lines.append(f"| {name} | {cells} | {fitted.seconds / 60:.1f} |")
    (args.folder / "result.json").write_text(json.dumps(records, indent=2))
    print("\n".join(lines))


if __name__ == "__main__":
    main(tyro.cli(Args))
