"""Supervised pre-training, then few-shot tests: Baseline, Baseline++ (Chen et al. 2019), SimpleShot (Wang et al. 2019).

The stride-2 network with 4 x 64 channels learns to tell all base classes apart (Adam 1e-3 falling to 0, minibatches of
64, shifts by up to 2 pixels), and is tested on tasks of new classes, 15 queries a class: by the nearest centroid of its
features scaled to length 1; by a linear classifier trained on them in 100 steps (a linear probe), or together with all
layers; and, trained with a cosine classifier in both stages, as Baseline++. The base classes are 400 characters of
`Glyphs`, 20 drawings each, or those of Omniglot's training alphabets, each rotation a class.

Batch norm has the statistics of the base classes at test, so nothing is transductive; the row that says so takes those
of the support and the query set instead. The papers have no Omniglot; their point is that this simple recipe is close
to meta-learning. Time: 5 minutes on two CPU cores, most of it to fine-tune.

    python experiments/pretrain.py                          # Glyphs
    python experiments/pretrain.py --benchmark omniglot --root <folder with the zips> --iterations 10000 \
        --test-tasks 600
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
import tyro
from flax import linen as nn

import jaxmeta
from jaxmeta import data, models

QUERIES = 15


@dataclass(frozen=True)
class Args:
    """Pre-train on base classes, test on tasks of new classes, and print a table."""

    benchmark: Literal["glyphs", "omniglot"] = "glyphs"
    """Where the classes come from."""
    root: Path | None = None
    """Folder with images_background.zip and images_evaluation.zip."""
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
    seed: int = 0
    """Seed of everything random."""
    folder: Path = Path("runs/pretrain")
    """Where checkpoints and the table go."""


def glyphs(classes: int, ways: int) -> data.TaskSets:
    """Tasks of glyphs; those for training from a fixed set of 20 drawings of each of the first classes."""
    train, validation, test = (data.Glyphs(ways, 1, QUERIES, split) for split in ("train", "validation", "test"))

    @jax.jit
    def draw(key: jax.Array, number: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(key, number), 20)
        return jnp.round(255 * jax.vmap(partial(train.render, number))(keys)).astype(jnp.uint8)

    images = jax.lax.map(partial(draw, jax.random.key(0)), jnp.arange(classes))
    return data.TaskSets(data.FewShot.from_classes(images, ways=ways), validation, test)


def load(args: Args) -> data.TaskSets:
    """The benchmark."""
    if args.benchmark == "glyphs":
        return glyphs(args.classes, args.ways)
    return data.get_tasksets("omniglot", args.ways, 1, queries=QUERIES, root=args.root)


def resized(sampler: Any, shots: int) -> Any:
    """The same tasks with another number of shots."""
    if isinstance(sampler, data.FewShot):
        return sampler.with_sizes(shots=shots)
    return data.Glyphs(sampler.ways, shots, sampler.queries, sampler.split, sampler.seed)


def test(args: Args, rows: dict[str, tuple[jaxmeta.MetaLearner, Any]], sampler: Any) -> list[dict]:
    """Accuracies on new classes of each `(learner, variables)`."""
    runs = {learner: jax.jit(jaxmeta.evaluate(learner, args.test_tasks)) for learner, _ in rows.values()}
    records = []
    for name, (learner, variables) in rows.items():
        for shots in args.shots:
            tasks, key = resized(sampler, shots), jax.random.key(1000 + args.seed)
            summary = jaxmeta.summarize(runs[learner](learner.init(variables), tasks, key))["accuracy"]
            records.append({"row": name, "shots": shots, **summary._asdict()})
    return records


def pretrain(args: Args, head: str, model: nn.Module, sets: data.TaskSets) -> tuple[Any, jaxmeta.Pretrained]:
    """The initial and the trained variables of a classifier of all base classes."""
    batches = jaxmeta.Minibatches(sets.train, args.batch)  # pyright: ignore[reportArgumentType]
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
        validation=sets.validation,
        validate_every=max(1, min(500, args.iterations // 2)),
        log_every=max(1, min(50, args.iterations // 2)),
        validation_tasks=min(100, args.test_tasks),
        folder=args.folder / f"{args.benchmark}-{head}-{batches.num_classes}-{args.iterations}-seed{args.seed}",
    )
    jaxmeta.save(args.folder / f"{args.benchmark}-{head}-seed{args.seed}.msgpack", done.variables)
    sample = jax.vmap(lambda key: batches(key).x)(jax.random.split(init_key))
    return models.with_batch_stats(model, start, sample), done


def main(args: Args) -> None:
    """Pre-train, test, print, save."""
    sets = load(args)
    classes = jaxmeta.Minibatches(sets.train).num_classes  # pyright: ignore[reportArgumentType]
    args.folder.mkdir(parents=True, exist_ok=True)
    network = models.OmniglotCNN(ways=classes, padding=1)
    with_cosine = models.Classifier(network, models.CosineDense(classes))
    untrained, done = pretrain(args, "linear", network, sets)
    _, done_cosine = pretrain(args, "cosine", with_cosine, sets)

    features, cosine_features = (partial(model.apply, method="features") for model in (network, with_cosine))
    centroid = jaxmeta.simpleshot(features, args.ways)
    rows = {
        "not trained, nearest centroid": (centroid, untrained),
        "nearest centroid (SimpleShot)": (centroid, done.variables),
        "the same, transductive": (centroid, {"params": done.variables["params"]}),
        "linear probe (Baseline)": (jaxmeta.baseline(features, args.ways), done.variables),
        "linear, all layers fine-tuned": (jaxmeta.baseline(features, args.ways, fine_tune=True), done.variables),
        "cosine (Baseline++)": (jaxmeta.baseline_plus_plus(cosine_features, args.ways), done_cosine.variables),
    }
    records = test(args, rows, sets.test)
    (args.folder / "result.json").write_text(json.dumps(records, indent=2))
    last = done.history[-1]
    accuracy, seconds = last["train/accuracy"], last["seconds"]
    print(f"{classes} base classes, training accuracy {accuracy:.3f}, {seconds:.0f} s\n")
    print("| how | " + " | ".join(f"{args.ways}-way {shots}-shot" for shots in args.shots) + " |")
    print("| --- |" + " --- |" * len(args.shots))
    for name in rows:
        cells = [f"{100 * r['mean']:.2f} ± {100 * r['interval']:.2f}" for r in records if r["row"] == name]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(tyro.cli(Args))
