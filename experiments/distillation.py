"""Dataset distillation: one learned image per class, from which a new network learns in a few steps.

The images are the hyper-parameters of a training (`bilevel.distilled_data`): a new network takes some steps on the ten
images, its loss on real drawings is differentiated through these steps, and Adam moves the images. The rate of each
step and tensor is learned too, as by Wang et al. 2018, https://arxiv.org/abs/1811.10959. The last table has accuracies
on drawings that were not used, of new networks after the same number of steps at the rate that is best for the row, on
the learned images, on one real drawing per class and on the mean drawing of each class.

The default data are ten characters of `data.Glyphs`. `--root` with the Omniglot zips takes the first ten characters of
its background set, 14 drawings for learning and 6 for test.

    python experiments/distillation.py
    python experiments/distillation.py --root <folder with the Omniglot zips>
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxmeta
from jaxmeta import Batch, bilevel, data, models, optim

RATES = (0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Args:
    """Learn one image per class, and test new networks that saw nothing else."""

    root: Path | None = None
    """Folder with the Omniglot zips. Without one the data are characters of Glyphs."""
    classes: int = 10
    """Number of classes."""
    steps: int = 5
    """Steps of a network on the images."""
    updates: int = 500
    """Outer updates."""
    networks: int = 4
    """New networks in an outer update."""
    rate: float = 0.01
    """Outer rate, of Adam."""
    tests: int = 50
    """New networks at test."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run each."""
    folder: Path = Path("runs/distillation")
    """Where the table and the picture go."""


def read_parts(args: Args) -> tuple[jax.Array, jax.Array]:
    """Drawings of each class for learning and for test, `[classes, drawings, 28, 28, 1]`."""
    if args.root is None:
        glyphs = data.Glyphs()

        def character(class_id: jax.Array) -> jax.Array:
            keys = jax.random.split(jax.random.fold_in(jax.random.key(0), class_id), 150)
            return jax.vmap(glyphs.render, (None, 0))(class_id, keys)

        images = jax.jit(lambda: jax.lax.map(character, jnp.arange(args.classes)))()
        return images[:, :100], images[:, 100:]
    source: Any = data.get_tasksets("omniglot", 5, 1, root=args.root).train
    rows = source.rows[: 20 * args.classes].reshape(args.classes, 20)
    images = jax.vmap(lambda r: source.gather(data.ExampleIndex(r, jnp.zeros_like(r))))(rows)
    return images[:, :14], images[:, 14:]


def flat(images: jax.Array) -> Batch:
    """The drawings of all classes as one batch."""
    return Batch(images.reshape(-1, *images.shape[2:]), jnp.repeat(jnp.arange(len(images)), images.shape[1]))


def main(args: Args) -> None:
    """Learn the images of each seed, test, print, save and draw."""
    args.folder.mkdir(parents=True, exist_ok=True)
    images, held_out = read_parts(args)
    train, test, y = flat(images), flat(held_out), jnp.arange(args.classes)
    net = models.OmniglotFC(ways=args.classes, sizes=(64,), norm="none", kernel_init=jax.nn.initializers.he_normal())
    loss_fn = jaxmeta.classification(net.apply)

    def start(key: jax.Array) -> Any:
        return net.init(key, train.x[:1])

    problem = bilevel.distilled_data(loss_fn, y, start)
    inner = optim.scale_by_learned_rate(0.05, per="tensor", steps=args.steps)
    learner = jaxmeta.inner_loop(problem, inner, args.steps, outer_loss=loss_fn)
    training = jaxmeta.meta_step(learner, optax.adam(args.rate), num_tasks=args.networks)
    tasks = bilevel.TrainAndValidation(train, train, 1, 100)

    @jax.jit
    def learn(state: Any, tasks: Any, keys: jax.Array) -> Any:
        def step(state: Any, key: jax.Array) -> tuple[Any, None]:
            return training.step(state, key, tasks)[0], None

        return jax.lax.scan(step, state, keys)[0]

    @jax.jit
    def learned_accuracy(meta: Any, key: jax.Array) -> jax.Array:
        adapted = learner.adapt(meta, None, key)
        return loss_fn(adapted, test, key)[1]["accuracy"]

    @jax.jit
    def plain_accuracy(examples: jax.Array, rate: jax.Array, key: jax.Array) -> jax.Array:
        batch = Batch(examples, y)
        adapted = jaxmeta.adapt(loss_fn, optax.sgd(rate), start(key), batch, key, steps=args.steps)
        return loss_fn(adapted, test, key)[1]["accuracy"]

    def best(choose: Any, key: jax.Array) -> float:
        """The mean accuracy at the best rate, of networks that see `choose(key)`."""
        keys = jax.random.split(key, args.tests)
        rates = jnp.array(RATES)
        found = jax.lax.map(lambda k: jax.vmap(lambda rate: plain_accuracy(choose(k), rate, k))(rates), keys)
        return float(jnp.max(jnp.mean(found, axis=0)))

    def one_each(key: jax.Array) -> jax.Array:
        return images[y, jax.random.randint(key, y.shape, 0, images.shape[1])]

    rows: dict[str, list[float]] = {}
    for seed in args.seeds:
        noise_key, run_key, test_key = jax.random.split(jax.random.key(seed), 3)
        hyper = one_each(noise_key)
        state = learn(training.init(learner.init(hyper)), tasks, jax.random.split(run_key, args.updates))
        keys = jax.random.split(test_key, args.tests)
        learned = float(jnp.mean(jax.lax.map(lambda k, m=state.meta: learned_accuracy(m, k), keys)))
        rows.setdefault("learned images and rates", []).append(learned)
        rows.setdefault("learned images, one rate", []).append(best(lambda _, m=state.meta: m.params, test_key))
        rows.setdefault("one real drawing per class", []).append(best(one_each, test_key))
        rows.setdefault("the mean drawing of each class", []).append(best(lambda _: images.mean(1), test_key))
        if seed == args.seeds[0]:
            draw(np.asarray(hyper), np.asarray(state.meta.params), args.folder / "distillation.png")
    print(f"| {args.classes} images, {args.steps} steps | accuracy on new drawings, % |\n| --- | --- |")
    for name, values in rows.items():
        print(f"| {name} | {100 * np.mean(values):.1f} ± {100 * np.std(values):.1f} |")
    (args.folder / "result.json").write_text(json.dumps({**rows, "cpu_seconds": time.process_time()}, indent=2))
    print(f"\n{len(args.seeds)} seeds; {time.process_time():.0f} CPU seconds; saved to {args.folder}")


def draw(before: np.ndarray, after: np.ndarray, path: Path) -> None:
    """The images before and after learning, one column per class."""
    figure = Figure(figsize=(len(before), 2.2), layout="constrained")
    FigureCanvasAgg(figure)
    for row, images in zip(figure.subplots(2, len(before)), (before, after), strict=True):
        for axes, image in zip(row, images, strict=True):
            axes.imshow(image[..., 0], cmap="gray_r")
            axes.axis("off")
    figure.suptitle("A drawing of each class, and what became of it", fontsize=9)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main(tyro.cli(Args))
