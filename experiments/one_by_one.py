"""Accuracy of predictions for one input at a time, with batch norm that looks at its batch.

Glyphs, 5-way, 28x28 drawings. Queries are classified all together (as tasks are tested), each alone, and by the
`Classifier` of a run, which puts each beside the support set.

    python experiments/one_by_one.py                    # about 5 minutes on two cores
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxmeta
from jaxmeta import data


@dataclass(frozen=True)
class Args:
    """Train on glyphs, and classify new ones in three ways."""

    learners: tuple[str, ...] = ("maml", "protonet")
    """Learners to train."""
    iterations: int = 200
    """Outer updates."""
    test_tasks: int = 600
    """Test tasks."""
    shots: int = 1
    """Labeled drawings of each class."""
    folder: Path = Path("runs/one_by_one")
    """Folder of the runs, which are resumed."""
    output: Path | None = None
    """File for the table."""


def accuracies(run: jaxmeta.Run, args: Args) -> np.ndarray:
    """Returns the accuracy on each task in three ways: `[tasks, 3]`."""
    draw = jax.jit(data.Glyphs(run.settings.ways, args.shots, 3, split="test", seed=1))
    predict = jax.jit(run.learner.predict)
    alone = jax.jit(lambda adapted, xs: jax.vmap(lambda x: run.learner.predict(adapted, x[None])[0])(xs))
    rows = []
    for key in jax.random.split(jax.random.key(1), args.test_tasks):
        task = draw(key)
        classifier = run.adapt(task.support.x, task.support.y)
        adapted = classifier.apply.args[0]
        x, y = task.query
        ways = predict(adapted, x), alone(adapted, x), classifier.probabilities(x)
        rows.append([float(jnp.mean(jnp.argmax(jnp.asarray(logits), 1) == y)) for logits in ways])
    return np.array(rows)


def main(args: Args) -> None:
    """Trains, tests, and writes the table."""
    lines = ["| learner | all queries together | each alone | `Classifier`, each beside the support set |"]
    lines.append("| --- | --- | --- | --- |")
    for learner in args.learners:
        folder = args.folder / learner
        options: dict[str, Any] = {"iterations": args.iterations, "validate_every": args.iterations, "test_tasks": 50}
        jaxmeta.Experiment("glyphs", learner, shots=args.shots, validation_tasks=50, **options).run(folder)
        found = accuracies(jaxmeta.load_run(folder), args)
        mean, interval = 100 * found.mean(0), 196 * found.std(0) / np.sqrt(len(found))
        cells = [f"{m:.1f} ± {i:.1f} %" for m, i in zip(mean, interval, strict=True)]
        lines.append(f"| `{learner}` | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    device = json.loads((args.folder / args.learners[0] / "config.json").read_text())["device"]
    lines += [
        "",
        f"Glyphs, 5-way {args.shots}-shot, {args.iterations} outer updates, {args.test_tasks} test tasks, seed 0,",
    ]
    lines += [f"95 % intervals, {device}."]
    if args.output is not None:
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Args))
