"""A learned objective of reinforcement learning against tuned A2C, over the lifetimes of agents in held-out tasks.

An agent is a table of logits and a table of values. It starts from nothing in a new task, and in its lifetime makes 50
updates, each from two new episodes: 1,000 steps in a random MDP. `rl.LearnedObjective` (in the line of Oh et al. 2020,
https://arxiv.org/abs/2007.08794, from a known start as in Lu et al. 2022, https://arxiv.org/abs/2210.05639) starts as
tuned A2C. It is meta-trained on the return over whole lifetimes by persistent evolution strategies (Vicol et al. 2021,
https://arxiv.org/abs/2112.13835), once on random MDPs of 10 states (`envs.TabularMDP`), and once on grids of 5x5 with a
hidden goal (`envs.GridNavigation`).

A2C is tuned on tasks of each family's training split by a grid of numbers with SGD and with Adam, for each measure that
is reported: the mean return over the lifetime, and over its last tenth. The rate of the learned objective is tuned
likewise. All have the same agents, lifetimes, tasks and random keys. The tests are new MDPs, MDPs of 20 states, MDPs of
5 states and 20 steps, the grid of meta-training, all of whose goals were seen, and a grid of 7x7.

Expected: over the lifetime, 19.5 against 19.4 on new MDPs, 18.5 against 18.3 with 20 states, 9.2 against 8.5 on the
grid of 5x5, and 6.1 against 5.3 on that of 7x7. Ten minutes of CPU time, of which meta-training has less than two.

    python experiments/learned_objective.py
"""

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import linen as nn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxmeta
from jaxmeta import envs, estimators, rl
from jaxmeta.estimators import Process

GRID = {
    "rate": {"SGD": (4.0, 8.0, 16.0, 24.0, 32.0), "Adam": (0.2, 0.3, 0.45, 0.7, 1.0)},
    "entropy_weight": {"SGD": (0.01, 0.03, 0.1), "Adam": (0.01, 0.1, 0.3)},
    "trace_decay": {"SGD": (0.2, 0.5, 0.8), "Adam": (0.2, 0.5, 0.8)},
    "discount": {"SGD": (0.5, 0.7, 0.9), "Adam": (0.5, 0.7, 0.9)},
    "value_weight": {"SGD": (0.03, 0.1, 0.3), "Adam": (0.3,)},  # to Adam it is all the same: the tables share no number
}
OPTIMIZERS = {"SGD": optax.sgd, "Adam": optax.adam}
FACTORS = (0.35, 0.5, 0.7, 1.4, 2.0)
"""Other rates of the learned objective, relative to that with which it is meta-trained."""
MEASURES = ("average", "end")
KINDS = {"return": "", "difference": "+"}
"""Numbers of a table, and whether they have a sign."""
COLORS = {"learned on MDPs": "C0", "learned on grids": "C3", "A2C with SGD": "C1", "A2C with Adam": "C2"}
MOVES = np.array([(0, 0), (-1, 0), (0, 1), (1, 0), (0, -1)])


@dataclass(frozen=True)
class Args:
    """Meta-train an objective, and compare it with tuned A2C."""

    iterations: int = 500
    """Outer updates."""
    num_runs: int = 64
    """Lifetimes side by side, each a pair of both signs of the noise."""
    window: int = 10
    """Updates of an agent between two outer updates."""
    updates: int = 50
    """Updates in a lifetime."""
    episodes: int = 2
    """Episodes for an update."""
    outer_rate: float = 0.01
    """Of Adam, falling to zero by a cosine."""
    scale: float = 0.1
    """Noise of the evolution strategies."""
    tuning: int = 32
    """Lifetimes for each point of the grid. The best points get sixteen times as many."""
    points: int = 1000
    """Points of each grid at most, for a short test."""
    tasks: int = 1000
    """Held-out tasks of each test."""
    seed: int = 0
    """Of everything."""
    folder: Path = Path("runs/learned_objective")
    """Where the table, the weights and the plot go."""


class Numbers(NamedTuple):
    """A point of the grid: what is tuned in A2C."""

    rate: Any
    entropy_weight: Any
    trace_decay: Any
    discount: Any
    value_weight: Any


class Learner(NamedTuple):
    """What learns in a lifetime."""

    name: str
    objective: Callable[[Numbers], rl.LearnedObjective]
    """Objective from the numbers of A2C as which it starts."""
    theta: Any
    optimizer: str
    points: list[Numbers]


Tuned = dict[str, Numbers]
"""By measure, the best point."""


class TablePolicy(nn.Module):
    """Logits of all actions in each state, which start at zero."""

    actions: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> rl.Categorical:
        """The distributions of actions for states as one-hot."""
        return rl.Categorical(table(self.actions)(obs))


def table(size: int) -> nn.Dense:
    """A row of numbers for each state, which start at zero."""
    return nn.Dense(size, use_bias=False, kernel_init=nn.initializers.zeros)


FAMILIES: dict[str, Any] = {"MDPs": envs.TabularMDP(), "grids": envs.GridNavigation(observation="one-hot")}
TESTS: dict[str, tuple[str, Any]] = {
    "new MDPs": ("MDPs", FAMILIES["MDPs"]),
    "MDPs of 20 states": ("MDPs", envs.TabularMDP(states=20)),
    "MDPs of 5 states, 20 steps": ("MDPs", envs.TabularMDP(states=5, horizon=20)),
    "grid of 5x5": ("grids", FAMILIES["grids"]),
    "grid of 7x7": ("grids", envs.GridNavigation(size=7, observation="one-hot")),
}


def objective_with(memory: int, hidden: int, numbers: Numbers) -> rl.LearnedObjective:
    """The objective that starts as A2C with some numbers."""
    _, *others = numbers
    return rl.LearnedObjective(rl.LSTM(memory), hidden, **dict(zip(Numbers._fields[1:], others, strict=True)))


WHOLE, SMALLEST = partial(objective_with, 8, 16), partial(objective_with, 1, 1)


def lives(args: Args, learner: Learner, env: Any, numbers: Numbers, split: str) -> Process:
    """Lifetimes of agents in an environment."""
    agent = TablePolicy(env.action_size), table(1), OPTIMIZERS[learner.optimizer](numbers.rate)
    sizes = {"horizon": args.updates, "episodes": args.episodes}
    return rl.agent_training(learner.objective(numbers), env, *agent, **sizes, split=split)


def player(args: Args, learner: Learner, env: Any, split: str) -> Callable[[Any, Numbers, jax.Array], jax.Array]:
    """A function of weights, numbers and keys to the returns of lifetimes, `[keys, updates]`."""

    def play(theta: Any, numbers: Numbers, keys: jax.Array) -> jax.Array:
        process = lives(args, learner, env, numbers, split)

        def one(key: jax.Array) -> jax.Array:
            start_key, key = jax.random.split(key)
            steps = jax.random.split(key, args.updates)
            return -jax.lax.scan(partial(process.step, theta), process.reset(start_key), steps)[1]

        return jax.vmap(one)(keys)

    return play


def measured(returns: Any) -> dict[str, Any]:
    """The measures of the returns of lifetimes `[..., updates]`."""
    last = max(1, returns.shape[-1] // 10)
    return dict(zip(MEASURES, (returns.mean(axis=-1), returns[..., -last:].mean(axis=-1)), strict=True))


def grid(optimizer: str, limit: int) -> list[Numbers]:
    """All points of the grid of A2C with an optimizer."""
    return [Numbers(*point) for point in itertools.product(*(found[optimizer] for found in GRID.values()))][:limit]


def score_points(args: Args, learner: Learner, env: Any, points: list[Numbers], number: int, key: jax.Array) -> Any:
    """By measure, the mean over training tasks at each point."""
    play, keys = player(args, learner, env, "train"), jax.random.split(key, number)
    stacked = jax.tree.map(lambda *x: jnp.asarray(x, jnp.float32), *points)

    @jax.jit
    def scores(theta: Any, points: Numbers, keys: jax.Array) -> Any:
        means = jax.lax.map(lambda numbers: jnp.mean(play(theta, numbers, keys), axis=0), points)
        return measured(means)

    return jax.tree.map(np.asarray, scores(learner.theta, stacked, keys))


def tune(args: Args, learner: Learner, env: Any) -> tuple[Tuned, dict[str, float]]:
    """The best point for each measure, and its mean over other training tasks; the best ones are measured twice."""
    first_key, second_key = jax.random.split(jax.random.key(1000 + args.seed))
    first = score_points(args, learner, env, learner.points, args.tuning, first_key)
    chosen = sorted({int(i) for scores in first.values() for i in np.argsort(-scores)[:12]})
    points = [learner.points[i] for i in chosen]
    second = score_points(args, learner, env, points, 16 * args.tuning, second_key)
    best = {measure: points[int(np.argmax(scores))] for measure, scores in second.items()}
    return best, {measure: float(np.max(scores)) for measure, scores in second.items()}


def meta_train(args: Args, learner: Learner, env: Any) -> Any:
    """The weights after meta-training in an environment, from the first of the learner's points."""
    process = lives(args, learner, env, learner.points[0], "train")
    rate = optax.cosine_decay_schedule(args.outer_rate, args.iterations)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    estimator = estimators.persistent_evolution(args.window, scale=args.scale)
    training = estimators.process_step(process, estimator, optimizer, args.num_runs, batch_size=args.num_runs)
    every, key = min(100, args.iterations), jax.random.key(args.seed)
    steps = args.iterations
    return jaxmeta.loop(training, learner.theta, key, iterations=steps, log_every=every, validate_every=every).meta


def tables_of(env: Any, tasks: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Transitions `[tasks, states, actions, states]`, mean rewards `[tasks, states, actions]` and the first state."""
    if isinstance(env, envs.TabularMDP):
        return np.asarray(tasks["transitions"], np.float64), np.asarray(tasks["rewards"], np.float64), 0
    cells = np.stack(np.divmod(np.arange(env.size**2), env.size), axis=-1)
    after = np.clip(cells[:, None] + MOVES, 0, env.size - 1) @ [env.size, 1]
    goal = np.asarray(tasks["goal"]) @ [env.size, 1]
    rewards = np.where(after == goal[:, None, None], 1.0, -0.1)
    transitions = np.broadcast_to(np.eye(env.size**2)[after], (len(goal), *after.shape, env.size**2))
    return transitions, rewards, int(np.dot(env.start, [env.size, 1]))


def bounds(env: Any, tasks: Any) -> dict[str, np.ndarray]:
    """The expected returns of uniformly random actions and of the best ones, `[tasks]`, by dynamic programming."""
    transitions, rewards, start = tables_of(env, tasks)
    found = {}
    for name, over_actions in {"random actions": np.mean, "optimal actions": np.max}.items():
        value = np.zeros(rewards.shape[:2])
        for _ in range(env.horizon):
            later = np.stack([t.reshape(-1, t.shape[-1]) @ v for t, v in zip(transitions, value, strict=True)])
            value = over_actions(rewards + later.reshape(rewards.shape), axis=-1)
        found[name] = value[:, start]
    return found


def compare(args: Args, name: str, learners: list[Learner], tuned: dict[str, dict[str, Tuned]]) -> dict[str, Any]:
    """Returns `[tasks, updates]` on the tasks of a test by learner and measure, beside what is possible in them."""
    family, env = TESTS[name]
    keys = jax.random.split(jax.random.key(2000 + args.seed), args.tasks)
    returns: dict[str, Any] = {}
    for learner in sorted(learners, key=lambda learner: learner.name != f"learned on {family}"):
        play = jax.jit(player(args, learner, env, "test"))
        found = {measure: play(learner.theta, point, keys) for measure, point in tuned[learner.name][family].items()}
        returns[learner.name] = jax.tree.map(np.asarray, found)
    process = lives(args, learners[0], env, learners[0].points[0], "test")
    tasks = jax.jit(jax.vmap(lambda key: process.reset(jax.random.split(key)[0]).task))(keys)
    for row, values in bounds(env, tasks).items():
        returns[row] = dict.fromkeys(MEASURES, np.broadcast_to(values[:, None], (len(values), args.updates)))
    return returns


def report(name: str, returns: dict[str, Any], tuned: dict[str, dict[str, Tuned]]) -> list[dict[str, Any]]:
    """Prints a table, in which differences are those of the first row to each other, task by task; returns its rows."""
    ours, records = next(iter(returns.values())), []
    print(f"\n{name}\n\n| learner | average | end | difference, average | end |")
    print("| --- | --- | --- | --- | --- |")
    for row, by_measure in returns.items():
        record: dict[str, Any] = {"learner": row}
        for measure in MEASURES:
            values, best = (measured(x[measure])[measure] for x in (by_measure, ours))
            summaries = jaxmeta.summarize({"return": values, "difference": best - values})
            record[measure] = {kind: summary._asdict() for kind, summary in summaries.items()}
            if row in tuned:
                record[measure]["tuned"] = tuned[row][TESTS[name][0]][measure]._asdict()
        cells = [(sign, record[measure][kind]) for kind, sign in KINDS.items() for measure in MEASURES]
        texts = [f"{cell['mean']:{sign}.2f} ± {cell['interval']:.2f}" for sign, cell in cells]
        if by_measure is ours:
            texts[2:] = ["", ""]
        print(f"| {row} | {' | '.join(texts)} |", flush=True)
        records.append(record)
    return records


def plot(tables: dict[str, dict[str, Any]], path: Path) -> None:
    """Mean return by update, with its 95 % interval, each learner as tuned for the average."""
    figure = Figure(figsize=(4 * len(tables), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, returns) in zip(figure.subplots(1, len(tables)), tables.items(), strict=True):
        for row, by_measure in returns.items():
            values = by_measure["average"]
            mean, spread = values.mean(axis=0), 1.96 * values.std(axis=0) / len(values) ** 0.5
            color = COLORS.get(row, "gray")
            axes.plot(mean, label=row, color=color, linestyle="-" if row in COLORS else ":")
            if row in COLORS:
                axes.fill_between(np.arange(len(mean)), mean - spread, mean + spread, color=color, alpha=0.2)
        axes.set(xlabel="update", title=name)
        axes.grid(alpha=0.3)
    figure.axes[0].set(ylabel="return of an episode")
    figure.axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=100)


def tune_all(args: Args, learners: list[Learner]) -> dict[str, dict[str, Tuned]]:
    """The best points by learner and family."""
    tuned: dict[str, dict[str, Tuned]] = {}
    for learner in learners:
        for family, env in FAMILIES.items():
            best, scores = tune(args, learner, env)
            tuned.setdefault(learner.name, {})[family] = best
            for measure, point in best.items():
                numbers = ", ".join(f"{name} {value:.4g}" for name, value in point._asdict().items())
                print(f"{learner.name} on {family}, {measure}: {scores[measure]:.2f} with {numbers}", flush=True)
    return tuned


def main(args: Args) -> None:
    """Tune A2C, meta-train, tune the learned objective, compare, report."""
    args.folder.mkdir(parents=True, exist_ok=True)
    key = jax.random.key(args.seed)
    whole, smallest = (make(Numbers(*[0.5] * 5)).initial(key) for make in (WHOLE, SMALLEST))
    a2c = [Learner(f"A2C with {name}", SMALLEST, smallest, name, grid(name, args.points)) for name in OPTIMIZERS]
    seconds, begin = {}, time.process_time()

    def clock(what: str) -> None:
        nonlocal begin
        seconds[what], begin = time.process_time() - begin, time.process_time()
        print(f"{what}: {seconds[what]:.0f} s of CPU time\n", flush=True)

    tuned = tune_all(args, a2c)
    clock("tuning of A2C")
    learned = []
    for family, env in FAMILIES.items():
        best = tuned["A2C with SGD"][family]["average"]
        points = [best] + [best._replace(rate=factor * best.rate) for factor in FACTORS]
        start = Learner(f"learned on {family}", WHOLE, whole, "SGD", points)
        learned.append(start._replace(theta=meta_train(args, start, env)))
        jaxmeta.save(args.folder / f"{family}.msgpack", learned[-1].theta)
        clock(f"meta-training on {family}")
    tuned |= tune_all(args, learned)
    clock("tuning of the learned objectives")

    tables = {name: compare(args, name, [*a2c, *learned], tuned) for name in TESTS}
    records = {name: report(name, returns, tuned) for name, returns in tables.items()}
    plot(tables, args.folder / "returns.png")
    clock("tests")
    described = {name: str(value) for name, value in asdict(args).items()}
    result = {"args": described, "cpu_seconds": seconds, "tables": records}
    (args.folder / "result.json").write_text(json.dumps(result, indent=2))
    print(f"saved to {args.folder}")


if __name__ == "__main__":
    main(tyro.cli(Args))
