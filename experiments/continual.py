"""Continual learning: OML (Javed & White 2019) against pre-training on long streams of new classes.

A stream shows one class after the other, 15 drawings of each, one at a time, once. A linear head learns from it by one
SGD step per drawing, on a representation that stays as it is; no drawing is kept. Then it is asked for all classes of
the stream: on the drawings that it saw (what did it forget?) and on five others per class. The same stream shuffled
shows what the representation allows when nothing pulls the head one way at a time.

* `oml`: `jaxmeta.oml`, meta-trained on streams of 20 classes x 5 drawings;
* `maml-rep`: the paper's MAML-Rep, `jaxmeta.anil` on 5-way 5-shot tasks with five steps on the whole support set;
* `pretrained`: a classifier of all training classes, trained on shuffled minibatches;
* `scratch`: no training;
* `anml`: OML with a second network that gates the features (after Beaulieu et al. 2020, https://arxiv.org/abs/2002.09571,
  whose inner loop adapts more than the head); twice the work, and not run by default.

As in the paper (https://arxiv.org/abs/1905.12588, section 4) every stream starts with a new random head, and each
method has the rate that is best on five streams of validation classes, for each length. Its table 2, 50 classes,
held-out drawings: OML 64.7 % in order and 75.1 % shuffled, pre-training 21.2 % and 54.3 %. What differs: four
convolutions of 64 with layer norm on 28x28 for its six of 256 on 84x84, minutes of training instead of days, Vinyals'
split with turned characters as new training classes, and meta-gradients through whole streams of 100 steps, where the
paper truncates them after five.

Expected on Omniglot: OML in order far above the others in order, 43 % at 50 classes against 14 % and less; shuffled
80 % against 69 % of pre-training.

    python experiments/continual.py                          # data.Glyphs; seven minutes on two CPU cores
    python experiments/continual.py --root <folder with the Omniglot zips>
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import linen as nn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxmeta
from jaxmeta import Batch, Task, data, models

DRAWINGS, SHOTS, TRAIN_WAYS = 20, 15, 20
UPDATES = {"oml": 1500, "maml-rep": 1000, "pretrained": 1500, "scratch": 0, "anml": 1500}
RATES = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1)
CHUNK = 5


@dataclass(frozen=True)
class Args:
    """Train representations, then learn long streams of new classes on each; print and plot what is remembered."""

    root: Path | None = None
    """Folder with Omniglot's zips; characters of data.Glyphs if None."""
    characters: int = 2000
    """Training characters of data.Glyphs."""
    methods: tuple[str, ...] = ("oml", "maml-rep", "pretrained", "scratch")
    """Which representations; also anml."""
    effort: float = 1.0
    """Factor of all numbers of training steps."""
    classes: tuple[int, ...] = (10, 25, 50, 100, 150)
    """Lengths of the test streams."""
    streams: int = 20
    """Test streams of each length, a multiple of 5."""
    heads: tuple[Literal["random", "zeros"], ...] = ("random",)
    """What the head is before a test stream."""
    hidden: int = 64
    """Channels of each convolution."""
    inner_rate: float = 0.03
    """OML's rate in meta-training."""
    seed: int = 0
    """Of training and test."""
    folder: Path = Path("runs/continual")
    """Where the table and the plot go."""


class Characters(NamedTuple):
    """Drawings in uint8, `[characters, 20, 28, 28, 1]`, or their features, `[characters, 20, d]`."""

    train: np.ndarray
    """For the representation."""
    validation: np.ndarray
    """For the rate of the head."""
    test: np.ndarray
    """For the numbers to report."""


def load(args: Args) -> Characters:
    """Omniglot, with turned characters as further training classes, or characters of data.Glyphs."""
    if args.root is None:
        count = 2 * max(args.classes)
        return Characters(draw("train", args.characters), draw("validation", count), draw("test", count))
    omniglot = data.Omniglot.load(args.root)
    train, validation, test = (omniglot.images[part] for part in omniglot.split("vinyals"))
    turned = np.concatenate([np.rot90(train, turns, (2, 3)) for turns in range(4)])
    return Characters(turned, validation, test)


def draw(split: Literal["train", "validation", "test"], count: int) -> np.ndarray:
    """The first characters of a split of data.Glyphs."""
    glyphs = data.Glyphs(split=split)

    def character(class_id: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.key(class_id), DRAWINGS)
        return jnp.round(255 * jax.vmap(glyphs.render, (None, 0))(class_id, keys)).astype(jnp.uint8)

    return np.asarray(jax.jit(partial(jax.lax.map, character))(jnp.arange(count)))


class Gated(nn.Module):
    """Features of one network times gates in (0, 1) from another, and a linear head."""

    ways: int
    hidden: int

    def setup(self) -> None:
        """Make both networks and the head."""
        self.body = network(self.ways, self.hidden)
        self.gate = network(self.ways, self.hidden)
        self.head = nn.Dense(self.ways)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits `[n, ways]` of images `x: [n, h, w, 1]`."""
        return self.head(self.features(x))

    def features(self, x: jax.Array) -> jax.Array:
        """Features `[n, d]` of images `x: [n, h, w, 1]`."""
        return self.body.features(x) * nn.sigmoid(self.gate.features(x))


def network(ways: int, hidden: int) -> models.CNN4:
    """Four strided convolutions; the norm sees one image at a time, as an online learner must."""
    return models.CNN4(ways=ways, hidden=hidden, max_pool=False, norm="layer")


def head_size(args: Args) -> int:
    """Outputs of the head, in training and test."""
    return max(TRAIN_WAYS, *args.classes)


def apply_head(model: nn.Module) -> Callable[[Any, jax.Array], Any]:
    """`(params, features) -> logits`."""
    return partial(model.apply, method=lambda module, features: module.head(features))


def new_head(params: Any, key: jax.Array, outputs: int, scale: float | jax.Array = 1.0) -> Any:
    """The parameters with another random head; a `scale` of 0 makes it zero."""
    shape = (params["params"]["head"]["kernel"].shape[0], outputs)
    head = {"kernel": scale * nn.initializers.he_normal()(key, shape), "bias": jnp.zeros(outputs)}
    return {"params": {**params["params"], "head": head}}


def falling(updates: int) -> optax.GradientTransformation:
    """Adam with a rate that falls to zero."""
    return optax.adam(optax.cosine_decay_schedule(1e-3, updates))


def pretrain(model: nn.Module, params: Any, images: np.ndarray, updates: int, key: jax.Array) -> Any:
    """Supervised training on all classes, in one compiled loop."""
    loss_fn, optimizer = jaxmeta.classification(model.apply), falling(updates)

    def run(params: Any, images: jax.Array, key: jax.Array) -> Any:
        def body(carry: Any, key: jax.Array) -> tuple[Any, None]:
            params, state = carry
            rows = jax.random.randint(key, (128,), 0, len(images))
            batch = Batch(images[rows].astype(jnp.float32) / 255, rows // DRAWINGS)
            grads, _ = jax.grad(loss_fn, has_aux=True)(params, batch, key)
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(body, (params, optimizer.init(params)), jax.random.split(key, updates))
        return params

    return jax.jit(run)(params, images.reshape(-1, *images.shape[2:]), key)


def train(method: str, args: Args, images: np.ndarray) -> tuple[nn.Module, Any]:
    """The model and its parameters after training; what its head is does not matter."""
    if method not in UPDATES:
        raise ValueError(f"methods must be among {', '.join(UPDATES)}, got {method!r}")
    init_key, train_key = jax.random.split(jax.random.key(args.seed))
    updates, outputs = int(args.effort * UPDATES[method]), head_size(args)
    ways = {"maml-rep": 5, "pretrained": len(images)}.get(method, outputs)
    model = Gated(ways, args.hidden) if method == "anml" else network(ways, args.hidden)
    tasks = data.FewShot.from_classes(images, ways=5 if method == "maml-rep" else TRAIN_WAYS, shots=5, queries=5)
    params = model.init(init_key, tasks.example)
    if not updates:
        return model, params
    if method == "pretrained":
        return model, pretrain(model, params, images, updates, train_key)
    if method == "maml-rep":
        sampler = tasks
        learner = jaxmeta.anil(jaxmeta.classification(model.apply), optax.sgd(0.1), steps=5)
    else:
        sampler = data.Streams(tasks, outputs)
        features_fn, head_loss = partial(model.apply, method="features"), jaxmeta.classification(apply_head(model))
        reset = partial(new_head, outputs=outputs)
        learner = jaxmeta.oml(features_fn, head_loss, optax.sgd(args.inner_rate), reset=reset)
    trained = jaxmeta.train(
        learner,
        falling(updates),
        learner.init(params),
        sampler,
        train_key,
        iterations=updates,
        num_tasks=1,
        log_every=min(100, updates),
        validate_every=min(100, updates),
    )
    return model, trained.meta.params


def represent(model: nn.Module, params: Any, images: np.ndarray) -> np.ndarray:
    """Features `[characters, 20, d]` of drawings, computed once: no stream changes them."""

    @jax.jit
    def run(params: Any, images: jax.Array) -> Any:
        def character(x: jax.Array) -> Any:
            return model.apply(params, x.astype(jnp.float32) / 255, method="features")

        return jax.lax.map(character, images)  # a character at a time: all of them would need gigabytes

    return np.asarray(run(params, images))


@partial(jax.jit, static_argnames="count")
def draw_streams(sampler: data.Streams, key: jax.Array, count: int) -> Task:
    """`count` streams, stacked."""
    return jax.vmap(sampler)(jax.random.split(key, count))


@partial(jax.jit, static_argnames="outputs")
def learn_streams(
    params: Any, streams: Task, keys: jax.Array, rate: float, head_scale: float, shuffled: bool, outputs: int
) -> dict[str, jax.Array]:
    """Accuracies after each of a few streams of features, on what it showed and on held-out examples."""
    dense = nn.Dense(outputs)
    loss_fn = jaxmeta.classification(lambda params, x: dense.apply({"params": params["params"]["head"]}, x))
    reset = partial(new_head, outputs=outputs, scale=head_scale)
    learner = jaxmeta.oml(lambda params, x: x, loss_fn, optax.sgd(rate), reset=reset)

    def one(stream: Task, key: jax.Array) -> dict[str, jax.Array]:
        order_key, adapt_key = jax.random.split(key)
        size = len(stream.support.y)
        order = jnp.where(shuffled, jax.random.permutation(order_key, size), jnp.arange(size))
        support = jax.tree.map(lambda leaf: leaf[order], stream.support)
        adapted = learner.adapt(learner.init(params), support, adapt_key)
        (_, seen), (_, held_out) = (learner.loss(adapted, part, key) for part in stream)
        return {"seen": seen["accuracy"], "held-out": held_out["accuracy"]}

    return jax.vmap(one)(streams, keys)


def test_length(
    args: Args, params: Any, features: Characters, ways: int, head: str, order: str
) -> tuple[float, dict[str, jaxmeta.Summary]]:
    """The rate that the validation characters choose, and the accuracies on streams of test characters."""
    outputs = head_size(args)

    def run(part: np.ndarray, seed: int, rate: float) -> dict[str, np.ndarray]:
        tasks = data.FewShot.from_classes(part, ways=ways, shots=SHOTS, queries=DRAWINGS - SHOTS)
        draw_key, learn_key = jax.random.split(jax.random.key(seed))
        streams = draw_streams(data.Streams(tasks, outputs), draw_key, CHUNK)
        keys = jax.random.split(learn_key, CHUNK)
        scale = 1.0 if head == "random" else 0.0
        return jax.device_get(learn_streams(params, streams, keys, rate, scale, order == "shuffled", outputs))

    rate = max(RATES, key=lambda rate: run(features.validation, args.seed, rate)["held-out"].mean())
    chunks = [run(features.test, 1000 * (args.seed + 1) + i, rate) for i in range(args.streams // CHUNK)]
    return rate, jaxmeta.summarize({name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]})


def test(method: str, args: Args, characters: Characters, model: nn.Module, params: Any) -> list[dict[str, Any]]:
    """A record for each head, order and length."""
    features = characters._replace(
        validation=represent(model, params, characters.validation), test=represent(model, params, characters.test)
    )
    records = []
    for head in args.heads:
        for order in ("in order", "shuffled"):
            for ways in args.classes:
                rate, accuracy = test_length(args, params, features, ways, head, order)
                records.append(
                    {
                        "method": method,
                        "head": head,
                        "order": order,
                        "classes": ways,
                        "rate": rate,
                        "active": float((features.test > 0).mean()),
                        **{name: summary._asdict() for name, summary in accuracy.items()},
                    }
                )
    return records


def plot(records: list[dict[str, Any]], head: str, path: Path) -> None:
    """Accuracy against the number of classes of the stream, with 95 % intervals."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    names = list(dict.fromkeys(r["method"] for r in records))
    titles = {"seen": "the drawings of the stream", "held-out": "held-out drawings of its classes"}
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (kind, title) in zip(panels, titles.items(), strict=True):
        for i, name in enumerate(names):
            for order, style in (("in order", "-"), ("shuffled", ":")):
                rows = [r for r in records if (r["method"], r["order"], r["head"]) == (name, order, head)]
                table = np.transpose([(r["classes"], r[kind]["mean"], r[kind]["interval"]) for r in rows])
                classes, mean, interval = table * [[1], [100], [100]]
                label = name if order == "in order" else f"{name}, shuffled"
                axes.plot(classes, mean, f"o{style}", color=f"C{i}", ms=4, label=label)
                axes.fill_between(classes, mean - interval, mean + interval, color=f"C{i}", alpha=0.2, lw=0)
        axes.set(xlabel="classes in the stream", ylim=(0, 100), title=f"After the stream, on {title}")
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="accuracy, %")
    panels[1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.savefig(path, dpi=80)


def main(args: Args) -> None:
    """Train and test each method; print and save as the rows come."""
    if args.streams < CHUNK or args.streams % CHUNK:
        raise ValueError(f"streams must be a multiple of {CHUNK}, got {args.streams}")
    args.folder.mkdir(parents=True, exist_ok=True)
    characters = load(args)
    records: list[dict[str, Any]] = []
    lengths = " | ".join(map(str, args.classes))
    print(f"| method | order | head | active features | {lengths} | rates | train CPU s |")
    print("| --- | --- | --- | --- |" + " --- |" * len(args.classes) + " --- | --- |")
    for method in args.methods:
        begin = time.process_time()
        model, params = train(method, args, characters.train)
        jax.block_until_ready(params)
        seconds = time.process_time() - begin
        rows = test(method, args, characters, model, params)
        records += [{**row, "train_cpu_seconds": seconds} for row in rows]
        for start in range(0, len(rows), len(args.classes)):
            part = rows[start : start + len(args.classes)]
            cells = [f"{100 * r['seen']['mean']:.0f} / {100 * r['held-out']['mean']:.1f}" for r in part]
            rates = ", ".join(f"{r['rate']:g}" for r in part)
            print(
                f"| {method} | {part[0]['order']} | {part[0]['head']} | {100 * part[0]['active']:.0f} % | "
                f"{' | '.join(cells)} | {rates} | {seconds:.0f} |",
                flush=True,
            )
        (args.folder / "result.json").write_text(json.dumps(records, indent=2))
        plot(records, args.heads[0], args.folder / "continual.png")
    print(
        f"\nAccuracy in %, seen / held-out; {args.streams} streams per number; {time.process_time():.0f} CPU seconds;"
    )
    print(f"saved to {args.folder}")


if __name__ == "__main__":
    main(tyro.cli(Args))
