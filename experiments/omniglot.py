"""Few-shot Omniglot: every learner that classifies, 5- and 20-way, 1- and 5-shot.

Hyper-parameters are each paper's (see `jaxmeta.Experiment`): for MAML and its relatives the 4 x 64 network with stride
2, Adam 1e-3, 32 tasks of one inner step at 0.4 (5-way) or 16 tasks of five at 0.1 (20-way), as many query examples per
class as shots, rotations as new training classes, 60,000 updates; Reptile takes 100,000 with 5 tasks of minibatches.
The learners that fit a head to features take ProtoNets' setting (60 ways in training, 5 queries; 15 at test) with a
rate of 3e-3 that falls to 0 over 10,000 updates. Batch norm is transductive. The learners of `pretrain.py`, whose
papers train a classifier of all base classes first, do so for 10,000 minibatches, once for all rows, and are not
transductive. Every row resumes where it was cut.

MAML's paper draws its classes at random, `--split random` (1100/100/423 characters, seed 0); the default is Vinyals'
list (1028/172/423), which is harder. Everything at full length takes days on a CPU; this reaches the paper's 98.7 % for
5-way 1-shot in 15 minutes on two cores, by more, smaller updates and a falling rate:

    python experiments/omniglot.py --root <folder with the zips> --learners maml --ways 5 --shots 1 \
        --split random --num-tasks 16 --iterations 27000 --outer-schedule cosine

ProtoNets on Vinyals' list as in its paper, its network and turned test characters, reaches 95.9 % for 20-way 1-shot
in 18 minutes on two cores (the paper: 96.0); the same weights on tasks of 5 ways 99.0 % (98.8):

    jaxmeta train --benchmark omniglot --root <folder with the zips> --learner protonet --model cnn4 --ways 20 \
        --queries 2 --test-rotations --iterations 7500 --validate-every 1500 --folder runs/protonet
    jaxmeta evaluate runs/protonet --root <folder with the zips> --ways 5
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pretrain
import tyro

import jaxmeta

# Published accuracy in %, with its 95 % interval where it has one: (ways, shots) of each learner.
PUBLISHED = {
    "maml": {(5, 1): "98.7 ± 0.4", (5, 5): "99.9 ± 0.1", (20, 1): "95.8 ± 0.3", (20, 5): "98.9 ± 0.2"},
    "fomaml": {(5, 1): "98.3 ± 0.5", (5, 5): "99.2 ± 0.2", (20, 1): "89.4 ± 0.5", (20, 5): "97.9 ± 0.1"},
    "anil": {(20, 1): "96.2 ± 0.5", (20, 5): "98.0 ± 0.3"},
    "meta-sgd": {(5, 1): "99.53 ± 0.26", (5, 5): "99.93 ± 0.09", (20, 1): "95.93 ± 0.38", (20, 5): "98.97 ± 0.19"},
    "maml-plus-plus": {(5, 1): "99.47", (5, 5): "99.93", (20, 1): "97.65 ± 0.05", (20, 5): "99.33 ± 0.03"},
    "boil": {},
    "meta-curvature": {(5, 1): "99.97", (5, 5): "99.89", (20, 1): "99.12", (20, 5): "99.65"},
    "meta-kfo": {},
    "imaml": {(5, 1): "99.50 ± 0.26", (5, 5): "99.74 ± 0.11", (20, 1): "96.18 ± 0.36", (20, 5): "99.14 ± 0.1"},
    "cavia": {},
    "protonet": {(5, 1): "98.8", (5, 5): "99.7", (20, 1): "96.0", (20, 5): "98.9"},
    "matching-network": {(5, 1): "98.1", (5, 5): "98.9", (20, 1): "93.8", (20, 5): "98.5"},
    "relation-network": {(5, 1): "99.6 ± 0.2", (5, 5): "99.8 ± 0.1", (20, 1): "97.6 ± 0.2", (20, 5): "99.1 ± 0.1"},
    "r2d2": {(5, 1): "98.91 ± 0.05", (5, 5): "99.74 ± 0.02", (20, 1): "96.24 ± 0.05", (20, 5): "99.20 ± 0.02"},
    "lr-d2": {},
    "metaoptnet": {},
    "in-context": {},
    "reptile": {(5, 1): "97.68 ± 0.04", (5, 5): "99.48 ± 0.06", (20, 1): "89.43 ± 0.14", (20, 5): "97.12 ± 0.32"},
    "simpleshot": {},
    "baseline": {(5, 1): "94.89 ± 0.45", (5, 5): "99.12 ± 0.13"},
    "fine-tuning": {},
    "baseline-plus-plus": {(5, 1): "95.41 ± 0.39", (5, 5): "99.38 ± 0.10"},
    "meta-baseline": {},
}
WITH_HEAD = ("protonet", "matching-network", "relation-network", "r2d2", "lr-d2", "metaoptnet")
SHORT = (*WITH_HEAD, *pretrain.LEARNERS)
ITERATIONS = {"imaml": 20_000, "reptile": 100_000, **dict.fromkeys(SHORT, 10_000)}  # 60,000 for the others


@dataclass(frozen=True)
class Args:
    """Meta-train and test every combination of learners, ways and shots, and print a table."""

    root: Path | None = None
    """Folder with images_background.zip and images_evaluation.zip."""
    benchmark: str = "omniglot"
    """Where the tasks come from; glyphs needs no data."""
    learners: tuple[str, ...] = tuple(PUBLISHED)
    """Which learners."""
    ways: tuple[int, ...] = (5, 20)
    """Classes per task."""
    shots: tuple[int, ...] = (1, 5)
    """Examples per class."""
    iterations: int | None = None
    """Outer updates; if None the paper's, and 10,000 for the learners with a head. In pre-training minibatches."""
    outer_schedule: Literal["constant", "linear", "cosine"] | None = None
    """How the outer rate falls; the paper's if None. Not for pre-training."""
    num_tasks: int | None = None
    """Tasks per outer update; the paper's if None. Not for pre-training."""
    split: str | None = None
    """vinyals (the default), random or background."""
    test_tasks: int = 600
    """Test tasks per row."""
    seed: int = 0
    """Seed of every row."""
    folder: Path = Path("runs/omniglot")
    """Each row has a folder of its own in it."""


def experiment(args: Args, learner: Any, ways: int, shots: int) -> jaxmeta.Experiment:
    """One row of the table."""
    iterations = args.iterations or ITERATIONS.get(learner, 60_000)
    return jaxmeta.Experiment(
        benchmark=args.benchmark,
        learner=learner,
        ways=ways,
        shots=shots,
        queries=None if learner in (*WITH_HEAD, "in-context") else shots,
        iterations=iterations,
        outer_schedule=args.outer_schedule,
        num_tasks=args.num_tasks,
        split=args.split,
        validate_every=max(1, min(1000, iterations // 2)),
        validation_tasks=min(200, args.test_tasks),
        test_tasks=args.test_tasks,
        seed=args.seed,
    )


def meta_train(args: Args, learner: str, ways: int, shots: int) -> tuple[jaxmeta.Summary, str, float]:
    """Accuracy, budget and minutes of a learner that is meta-trained for each row."""
    row = experiment(args, learner, ways, shots)
    folder = args.folder / f"{learner}-{ways}way-{shots}shot-{row.iterations}-seed{args.seed}"
    result = row.run(folder, root=args.root)
    minutes = result.trained.history[-1]["seconds"] / 60
    return result.test["accuracy"], f"{row.iterations:,} x {result.settings.num_tasks}", minutes


def pre_train(args: Args, learner: str, ways: int, shots: int) -> tuple[jaxmeta.Summary, str, float]:
    """The same of one that is trained once for all rows."""
    settings = pretrain.Args(
        benchmark=args.benchmark,
        root=args.root,
        split=args.split,
        iterations=args.iterations or ITERATIONS[learner],
        test_tasks=args.test_tasks,
        seed=args.seed,
        folder=args.folder / "pretrain",
    )
    fitted = pretrain.LEARNERS[learner](settings, ways)
    accuracy = pretrain.test(settings, fitted, ways, shots)
    return accuracy, f"{settings.iterations:,} x {settings.batch} examples", fitted.seconds / 60


def main(args: Args) -> None:
    """Run all rows; print the table as it grows."""
    if unknown := set(args.learners) - PUBLISHED.keys():
        raise SystemExit(f"--learners must be among {', '.join(PUBLISHED)}, got {', '.join(sorted(unknown))}")
    lines = ["| learner | task | paper | ours | updates x tasks | minutes |", "| --- | --- | --- | --- | --- | --- |"]
    for ways in args.ways:
        for shots in args.shots:
            for learner in args.learners:
                run = pre_train if learner in pretrain.LEARNERS else meta_train
                accuracy, budget, minutes = run(args, learner, ways, shots)
                paper = PUBLISHED[learner].get((ways, shots), "-")
                ours = f"{100 * accuracy.mean:.2f} ± {100 * accuracy.interval:.2f}"
                lines.append(f"| {learner} | {ways}-way {shots}-shot | {paper} | {ours} | {budget} | {minutes:.1f} |")
                print(lines[-1], flush=True)
                (args.folder / "table.md").write_text("\n".join(lines) + "\n")
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main(tyro.cli(Args))
