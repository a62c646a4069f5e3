"""A learned optimizer against tuned Adam, on held-out problems of the family that it was meta-trained on.

A problem is to train a small network, 64-10-10, for 100 steps on minibatches of 20 to tell apart ten random characters
(`data.Glyphs` of 8x8 pixels, 20 drawings each). `optim.learned_mlp` (in the line of Metz et al. 2019,
https://arxiv.org/abs/1810.10180) or `optim.learned_lstm` (Andrychowicz et al. 2016, https://arxiv.org/abs/1606.04474)
starts as plain SGD and is meta-trained in windows of 20 steps on the mean minibatch loss, by truncated backprop, by
evolution strategies or by persistent evolution strategies (Vicol et al. 2021, https://arxiv.org/abs/2112.13835).

Adam and SGD with momentum are tuned on problems of the training characters by a grid over rates and schedules
(constant, linear or cosine to zero), for each number that is reported separately. All are then compared on the same
held-out problems of other characters, by the loss over all of a problem's images: after the last step, and on average
over the steps. Two more tables leave the family: five times the steps, four times the width.

The papers have other problems. What they claim and this shows is that the learned optimizer's training loss is below
tuned Adam's at the same number of steps within its family; how far it goes outside of it, the other tables say.

Expected: after the last step 0.09 against 0.15, on average over the steps 0.44 against 0.60. Four minutes of CPU time.

    python experiments/learned_optimizer.py
    python experiments/learned_optimizer.py --estimator persistent --iterations 3000
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxmeta
from jaxmeta import Batch, data, estimators, models, optim
from jaxmeta.estimators import Problem

WAYS, DRAWINGS, PIXELS, BATCH = 10, 20, 8, 20
CHARACTERS = {"train": 1000, "validation": 200, "test": 300}
RATES = {
    "Adam": (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2),
    "SGD with momentum": (0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5),
}
SCHEDULES = {
    "constant": lambda rate, steps: optax.constant_schedule(rate),
    "linear": lambda rate, steps: optax.linear_schedule(rate, 0.0, steps),
    "cosine": lambda rate, steps: optax.cosine_decay_schedule(rate, steps),
}
# From a rate or its schedule.
BASELINES = {"Adam": optax.adam, "SGD with momentum": partial(optax.sgd, momentum=0.9)}


@dataclass(frozen=True)
class Args:
    """Meta-train an optimizer, and compare it with tuned ones."""

    optimizer: Literal["mlp", "lstm"] = "mlp"
    """Which learned optimizer."""
    estimator: Literal["backprop", "evolution", "persistent"] = "backprop"
    """How meta-gradients are made."""
    iterations: int = 1000
    """Outer updates."""
    num_runs: int = 16
    """Training runs side by side."""
    window: int = 20
    """Steps of a training run between two outer updates."""
    steps: int = 100
    """Steps of a training run."""
    hidden: int = 10
    """Width of the networks that are trained."""
    outer_rate: float = 1e-3
    """Of Adam, falling to zero by a cosine."""
    scale: float = 0.01
    """Noise of the evolution strategies."""
    nominal_rate: float = 0.1
    """Of the SGD that the learned optimizer starts as."""
    problems: int = 128
    """Held-out problems, and as many to tune the others on."""
    seed: int = 0
    """Of everything."""
    folder: Path = Path("runs/learned_optimizer")
    """Where the tables, the weights and the plot go."""


class Setting(NamedTuple):
    """What is trained, and for how long."""

    name: str
    hidden: int
    steps: int


class Tuned(NamedTuple):
    """A point of a grid."""

    rate: float
    schedule: str

    def rates(self, steps: int) -> jax.Array:
        """The rate of every step."""
        return jnp.broadcast_to(SCHEDULES[self.schedule](self.rate, steps)(jnp.arange(steps)), steps)


Curves = dict[str, np.ndarray]
"""By measure, the losses `[problems, steps + 1]` of what was tuned for it."""


def draw_characters() -> dict[str, data.FewShot]:
    """A sampler of images of ten characters for each split."""
    glyphs = data.Glyphs(size=PIXELS)
    number = sum(CHARACTERS.values())
    keys = jax.random.split(jax.random.key(0), (number, DRAWINGS + 1))
    drawings = jax.vmap(glyphs.render, (None, 0))
    images = jax.jit(lambda *xs: jax.lax.map(lambda x: drawings(*x), xs))(jnp.arange(number), keys)
    parts = np.split(np.asarray(images), np.cumsum(list(CHARACTERS.values()))[:-1])
    make = partial(data.FewShot.from_classes, ways=WAYS, shots=DRAWINGS, queries=1)
    return {name: make(part) for name, part in zip(CHARACTERS, parts, strict=True)}


def network(hidden: int) -> models.MLP:
    """The network that is trained."""
    return models.MLP(sizes=(hidden,), out=WAYS)


def sample(characters: data.FewShot, hidden: int, key: jax.Array) -> Problem:
    """A problem of the family: 200 images `[200, 64]`, and where the network starts."""
    image_key, init_key = jax.random.split(key)
    images = characters(image_key).support
    x = images.x.reshape(len(images.x), -1)
    return Problem(network(hidden).init(init_key, x[:1]), Batch(x, images.y))


def minibatch_loss(hidden: int) -> jaxmeta.LossFn:
    """The loss on some images, by the key."""
    loss_fn = jaxmeta.classification(network(hidden).apply)

    def loss(params: Any, batch: Batch, key: jax.Array) -> Any:
        chosen = jax.random.randint(key, (BATCH,), 0, len(batch.y))
        return loss_fn(params, Batch(batch.x[chosen], batch.y[chosen]), key)

    return loss


def train(optimizer: optax.GradientTransformation, problem: Problem, key: jax.Array, setting: Setting) -> jax.Array:
    """A plain optax loop: the loss over all images before the first step and after each, `[steps + 1]`."""
    loss_fn, full_loss = minibatch_loss(setting.hidden), jaxmeta.classification(network(setting.hidden).apply)

    def step(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        loss, _ = full_loss(params, problem.batch, key)
        grads = jax.grad(lambda p: loss_fn(p, problem.batch, key)[0])(params)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    start = problem.params, optimizer.init(problem.params)
    (params, _), losses = jax.lax.scan(step, start, jax.random.split(key, setting.steps))
    return jnp.append(losses, full_loss(params, problem.batch, key)[0])


def trainer(make: Callable[[Any], optax.GradientTransformation], setting: Setting) -> Callable[[Any, Problem], Any]:
    """`(value, problems) -> losses [problems, steps + 1]` with the optimizer `make(value)`, compiled."""

    def run(value: Any, problems: Problem) -> jax.Array:
        keys = jax.random.split(jax.random.key(1), len(problems.batch.y))
        return jax.vmap(lambda problem, key: train(make(value), problem, key, setting))(problems, keys)

    return jax.jit(run)


def measures(losses: np.ndarray) -> dict[str, np.ndarray]:
    """What is compared, `[problems]` each."""
    return {"last": losses[:, -1], "average": losses[:, 1:].mean(axis=1)}


def learned(args: Args, **weights: Any) -> optax.GradientTransformation:
    """The learned optimizer, with trained `weights=` or initial ones of `key=`."""
    make = optim.learned_mlp if args.optimizer == "mlp" else optim.learned_lstm
    return make(optax.sgd(args.nominal_rate), **weights)


def make_training(args: Args, characters: data.FewShot) -> jaxmeta.Training:
    """Meta-training on problems of some characters."""
    estimator = {
        "backprop": estimators.truncated_backprop,
        "evolution": partial(estimators.truncated_evolution, scale=args.scale),
        "persistent": partial(estimators.persistent_evolution, scale=args.scale),
    }[args.estimator](args.window)
    process = estimators.optimizer_training(
        learned(args, key=jax.random.key(args.seed)),
        minibatch_loss(args.hidden),
        partial(sample, characters, args.hidden),
        horizon=args.steps,
    )
    rate = optax.cosine_decay_schedule(args.outer_rate, args.iterations)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    return estimators.process_step(process, estimator, optimizer, args.num_runs)


def meta_train(args: Args, characters: dict[str, data.FewShot], setting: Setting) -> Any:
    """The weights that do best on validation problems."""
    start_key, train_key, validation_key = jax.random.split(jax.random.key(args.seed), 3)

    train = characters["train"]
    params = jax.jit(lambda train: sample(train, args.hidden, start_key).params)(train)
    theta, _ = jaxmeta.partition(learned(args, key=jax.random.key(args.seed)).init(params))

    def init(theta: Any, key: jax.Array) -> Any:
        del key
        return jax.jit(lambda theta, train: make_training(args, train).init(theta, start_key))(theta, train)

    def step(state: Any, key: jax.Array, train: data.FewShot) -> Any:
        return make_training(args, train).step(state, key)

    problems = draw(characters["validation"], args.hidden, validation_key, 64)
    measure = trainer(lambda weights: learned(args, weights=weights), setting)

    def validate(theta: Any) -> dict[str, float]:
        return {"loss": float(measures(measure(theta.weights.value, problems))["average"].mean())}

    every = min(250, args.iterations)
    done = jaxmeta.loop(
        jaxmeta.Training(init, step),
        theta,
        train_key,
        train,
        iterations=args.iterations,
        log_every=every,
        validate=validate,
        validate_every=every,
    )
    return done.meta.weights.value


def draw(characters: data.FewShot, hidden: int, key: jax.Array, number: int) -> Problem:
    """So many problems, stacked."""
    keys = jax.random.split(key, number)
    return jax.jit(lambda characters: jax.vmap(partial(sample, characters, hidden))(keys))(characters)


def tune(name: str, run: Callable[[Any, Problem], Any], problems: Problem, steps: int) -> dict[str, Tuned]:
    """The best rate and schedule for each measure."""
    best: dict[str, tuple[float, Tuned]] = {}
    for point in (Tuned(rate, schedule) for schedule in SCHEDULES for rate in RATES[name]):
        for measure, values in measures(np.asarray(run(point.rates(steps), problems))).items():
            score = float(np.nan_to_num(values, nan=np.inf).mean())
            best[measure] = min(best.get(measure, (np.inf, point)), (score, point))
    return {measure: point for measure, (_, point) in best.items()}


def compare(
    args: Args, weights: Any, characters: dict[str, data.FewShot], setting: Setting, family: dict[str, dict[str, Tuned]]
) -> tuple[dict[str, Curves], dict[str, dict[str, Tuned]]]:
    """Losses on held-out problems, and what was tuned; `family` is what was tuned elsewhere, to try it here too."""
    tuning_key, test_key = jax.random.split(jax.random.key(1000 + args.seed))
    tuning = draw(characters["train"], setting.hidden, tuning_key, args.problems)
    test = draw(characters["test"], setting.hidden, test_key, args.problems)

    def same(losses: Any) -> Curves:
        return dict.fromkeys(measures(losses), np.asarray(losses))

    run_learned = trainer(lambda weights: learned(args, weights=weights), setting)
    curves = {f"learned {args.optimizer}": same(run_learned(weights, test))}
    tuned: dict[str, dict[str, Tuned]] = {}
    for name, make in BASELINES.items():
        run = trainer(lambda rates, make=make: make(lambda count: rates[count]), setting)
        tuned[name] = tune(name, run, tuning, setting.steps)
        if name in family:
            tuned[f"{name} as in the family"] = family[name]
        for row in [row for row in tuned if row not in curves]:
            rates = {measure: point.rates(setting.steps) for measure, point in tuned[row].items()}
            curves[row] = {measure: np.asarray(run(values, test)) for measure, values in rates.items()}
    if not family:
        curves["SGD, the start of the learned one"] = same(trainer(optax.sgd, setting)(args.nominal_rate, test))
    return curves, tuned


def report(curves: dict[str, Curves], tuned: dict[str, dict[str, Tuned]]) -> list[dict[str, Any]]:
    """Prints a table; returns its records."""
    ours, records = next(iter(curves.values())), []
    print("| optimizer | tuned for last / average | last step | average | difference, last | average | learned wins |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, by_measure in curves.items():
        record: dict[str, Any] = {"optimizer": name}
        for measure, losses in by_measure.items():
            values, best = measures(losses)[measure], measures(ours[measure])[measure]
            summaries = jaxmeta.summarize({"loss": jnp.asarray(values), "difference": jnp.asarray(best - values)})
            record[measure] = {kind: summary._asdict() for kind, summary in summaries.items()}
            record[measure] |= {"learned_wins": float(np.mean(best < values))}
            record[measure] |= {"tuned": tuned[name][measure]._asdict()} if name in tuned else {}
        pair = [record[measure] for measure in ("last", "average")]
        rates = " / ".join(f"{r['tuned']['rate']} {r['tuned']['schedule']}" for r in pair if "tuned" in r)
        cells = [f"{r['loss']['mean']:.3f} ± {r['loss']['interval']:.3f}" for r in pair]
        if by_measure is not ours:
            cells += [f"{r['difference']['mean']:+.3f} ± {r['difference']['interval']:.3f}" for r in pair]
            cells += [f"{100 * pair[0]['learned_wins']:.0f} % / {100 * pair[1]['learned_wins']:.0f} %"]
        print(f"| {name} | {rates} | {' | '.join(cells)} |", flush=True)
        records.append(record)
    return records


def plot(tables: dict[Setting, dict[str, Curves]], path: Path) -> None:
    """Mean and 10 % to 90 % quantiles of the loss by step, each optimizer as tuned for the last one."""
    figure = Figure(figsize=(14, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (setting, curves) in zip(figure.subplots(1, len(tables)), tables.items(), strict=True):
        for name, by_measure in curves.items():
            losses = by_measure["last"]
            line = axes.plot(losses.mean(axis=0), label=name)[0]
            low, high = np.quantile(losses, (0.1, 0.9), axis=0)
            axes.fill_between(np.arange(len(low)), low, high, color=line.get_color(), alpha=0.12, linewidth=0)
        axes.set(xlabel="step", title=setting.name, yscale="log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.axes[0].set(ylabel="training loss")
    figure.savefig(path, dpi=110)


def main(args: Args) -> None:
    """Meta-train, compare, report."""
    args.folder.mkdir(parents=True, exist_ok=True)
    characters = draw_characters()
    settings = [
        Setting("held-out problems of the family", args.hidden, args.steps),
        Setting("five times the steps", args.hidden, 5 * args.steps),
        Setting("four times the width", 4 * args.hidden, args.steps),
    ]
    begin, cpu = time.perf_counter(), time.process_time()
    jaxmeta.save(args.folder / "weights.msgpack", meta_train(args, characters, settings[0]))
    seconds = {"meta_train": time.perf_counter() - begin, "meta_train_cpu": time.process_time() - cpu}
    print(f"meta-trained in {seconds['meta_train']:.0f} s, {seconds['meta_train_cpu']:.0f} s of CPU time", flush=True)

    weights = jaxmeta.load(args.folder / "weights.msgpack")
    tables, records, family = {}, {}, {}
    for setting in settings:
        print(f"\n{setting.name}, {args.problems} problems\n", flush=True)
        tables[setting], tuned = compare(args, weights, characters, setting, family)
        records[setting.name] = report(tables[setting], tuned)
        family = family or tuned
    plot(tables, args.folder / "losses.png")
    seconds["all_cpu"] = time.process_time()
    described = {name: str(value) for name, value in asdict(args).items()}
    result = {"args": described, "seconds": seconds, "tables": records}
    (args.folder / "result.json").write_text(json.dumps(result, indent=2))
    print(f"\n{seconds['all_cpu']:.0f} s of CPU time in all; saved to {args.folder}")


if __name__ == "__main__":
    main(tyro.cli(Args))
