"""Meta-RL on Particles2D, where a point must find a goal: MAML-TRPO, ProMP, and a control without meta-learning.

The environment is that of MAML (Finn et al. 2017, https://arxiv.org/abs/1703.03400, appendix C.2) and of learn2learn:
goals in the square of 0.5, 100 steps of at most 0.1. The policy is a network 2-64-64-2. A meta-iteration has 20 tasks
with 20 episodes each, and one inner step of size 0.1. Each row is measured on the same 100 held-out goals, with 40 new
episodes after every step. At test the steps after the first are half as long. `multi_task_ppo` is PPO on all goals
without an inner loop, adapted at test by the same steps. `random` is the policy before training. The score is 0 for a
point that stays at the origin, and 1 for one that knows the goal.

| return after so many steps | 0 | 1 | 2 | 3 |
| --- | --- | --- | --- | --- |
| MAML's paper, Table 4 | -40.4 | -11.7 | -3.3 | -3.2 |

Expected of ProMP in each of three seeds: -40, -11, -4, -4, with the most probable actions the same. With 20 episodes at
test MAML-TRPO has -40, -13, -7, -7 in its 20 iterations, and the control -40, -31, -27, -23. A row takes one to five
minutes on two CPU cores.

    python experiments/maml_particles2d.py
    python experiments/maml_particles2d.py --algorithms maml_trpo --seeds 0 --trpo-iterations 60
"""

import json
from dataclasses import dataclass
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
from jaxmeta import envs, rl

ENV = envs.Particles2D()
POLICY = rl.GaussianPolicy(action_size=ENV.action_size)
PAPER = [-40.41, -11.68, -3.33, -3.23]
Algorithm = Literal["random", "multi_task_ppo", "maml_trpo", "promp"]


@dataclass(frozen=True)
class Args:
    """Meta-training on Particles2D, and adaptation to held-out goals."""

    algorithms: tuple[Algorithm, ...] = ("random", "multi_task_ppo", "maml_trpo", "promp")
    """Rows of the table."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seed of each meta-training run."""
    iterations: int = 200
    """Meta-iterations of ProMP and of the control."""
    trpo_iterations: int = 20
    """Meta-iterations of MAML-TRPO."""
    num_tasks: int = 20
    """Tasks per meta-iteration."""
    episodes: int = 20
    """Episodes per task and inner step in training."""
    test_episodes: int = 40
    """Episodes per task and inner step at test. The authors' code takes twice as many as in training."""
    inner_rate: float = 0.1
    """Learning rate of the inner loop, halved after the first step at test."""
    outer_rate: float = 1e-3
    """Learning rate of Adam, in ProMP and the control."""
    test_tasks: int = 100
    """Held-out goals."""
    steps: int = 3
    """Inner steps at test."""
    folder: Path = Path("runs/maml_particles2d")
    """Folder for checkpoints, tables and plots."""


class Row(NamedTuple):
    """Result of a meta-training run."""

    algorithm: str
    seed: int
    seconds: float
    sampled: list[float]
    """Mean return after 0, 1, ... steps with sampled actions."""
    mode: list[float]
    """Mean return after 0, 1, ... steps with the most probable actions."""
    score: list[float]
    """Score of `sampled`, from 0 for a point that stays to 1 for one that knows the goal."""


def collector(episodes: int) -> rl.Collector:
    """Returns the collector of the samples."""
    return rl.Collector(env=ENV, policy=POLICY.apply, episodes=episodes)


def make_training(args: Args, algorithm: str) -> tuple[jaxmeta.Training, int]:
    """Returns the training and its number of meta-iterations."""
    collect, inner, adam = collector(args.episodes), optax.sgd(args.inner_rate), optax.adam(args.outer_rate)
    if algorithm == "maml_trpo":
        return rl.maml_trpo(collect, inner, num_tasks=args.num_tasks), args.trpo_iterations
    if algorithm == "promp":
        return rl.promp(collect, inner, num_tasks=args.num_tasks, optimizer=adam), args.iterations
    return rl.multi_task_ppo(collect, num_tasks=args.num_tasks, optimizer=adam), args.iterations


def meta_train(args: Args, algorithm: str, seed: int) -> tuple[jaxmeta.MetaParams, float]:
    """Returns the meta-parameters after the last iteration, and the seconds that it took, including compilation."""
    init_key, train_key = jax.random.split(jax.random.key(seed))
    params = jax.jit(POLICY.init)(init_key, jnp.zeros((1, ENV.observation_size)))
    if algorithm == "random":
        return jaxmeta.MetaParams(params), 0.0
    training, iterations = make_training(args, algorithm)
    done = jaxmeta.loop(
        training,
        params,
        train_key,
        iterations=iterations,
        log_every=min(10, iterations),
        validate_every=min(10, iterations),
        folder=args.folder / f"{algorithm}-{seed}",
    )
    return done.state.meta, done.history[-1]["seconds"]


def references(tasks: Any) -> tuple[float, float]:
    """Returns the mean return of a point that stays at the origin, and of one that knows the goal."""

    def oracle(task: Any) -> jax.Array:
        def step(state: envs.State, _: None) -> tuple[envs.State, jax.Array]:
            after = ENV.step(state, ENV.oracle_action(state))
            over = state.done > 0
            return jax.tree.map(lambda old, new: jnp.where(over, old, new), state, after), (
                1 - state.done
            ) * after.reward

        return jax.lax.scan(step, ENV.reset(jax.random.key(0), task), length=ENV.horizon)[1].sum()

    return float(jax.vmap(ENV.floor_return)(tasks).mean()), float(jax.vmap(oracle)(tasks).mean())


def later_halved(args: Args) -> optax.GradientTransformation:
    """Returns the inner optimizer at test."""
    return optax.sgd(optax.piecewise_constant_schedule(args.inner_rate, {1: 0.5}))


def plot_paths(args: Args, meta: jaxmeta.MetaParams, path: Path) -> None:
    """Plots episodes of three held-out tasks with the most probable actions, after each inner step."""
    tasks = ENV.sample_tasks(jax.random.key(7), 3, split="test")
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    loss_fn = rl.policy_gradient(collector(args.test_episodes))
    for i, axes in enumerate(figure.subplots(1, 3, sharey=True)):
        task = jax.tree.map(lambda x, i=i: x[i], tasks)
        axes.plot(*task["goal"], "k*", markersize=12)
        for steps in range(args.steps + 1):
            params, key = meta.params, jax.random.key(steps)
            if steps:
                params = jaxmeta.adapt(loss_fn, later_halved(args), params, task, jax.random.key(8), steps=steps)
            data = rl.rollout(ENV, POLICY.apply, params, task, key, episodes=1, mode=True)
            seen = jnp.append(data.obs[:, 0], data.next_obs[-1:, 0], axis=0)
            axes.plot(seen[:, 0], seen[:, 1], ".-", label=f"after {steps}", alpha=0.8)
        axes.set(xlim=(-0.7, 0.7), ylim=(-0.7, 0.7), aspect="equal", xlabel="x")
        axes.grid(alpha=0.3)
    figure.axes[0].set(ylabel="y")
    figure.axes[-1].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def plot_curves(rows: list[Row], path: Path) -> None:
    """Plots the return over inner steps, with a line for each run."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(PAPER, "k--", label="MAML's paper")
    names = list(dict.fromkeys(row.algorithm for row in rows))
    for row in rows:
        label = None if any(line.get_label() == row.algorithm for line in axes.lines) else row.algorithm
        axes.plot(row.sampled, "o-", color=f"C{names.index(row.algorithm)}", label=label, alpha=0.7)
    axes.set(xlabel="inner steps", ylabel="return", xticks=range(len(rows[0].sampled)))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main(args: Args) -> None:
    """Trains, adapts, and prints each row as it is finished, and then the means of each algorithm."""
    args.folder.mkdir(parents=True, exist_ok=True)
    evaluate = jax.jit(rl.adaptation_curve(collector(args.test_episodes), later_halved(args), args.steps))
    task_key, test_key = jax.random.split(jax.random.key(1000))
    goals = ENV.sample_tasks(task_key, args.test_tasks, split="test")
    floor, oracle = references(goals)
    rows: list[Row] = []
    runs: dict[str, list[np.ndarray]] = {}
    header = " | ".join(f"after {i}" for i in range(args.steps + 1))
    print(f"| algorithm | seed | {header} | most probable actions | score | seconds |")
    print("| --- " * (args.steps + 6) + "|")
    for algorithm in args.algorithms:
        for seed in args.seeds:
            meta, seconds = meta_train(args, algorithm, seed)
            curve = jax.tree.map(np.asarray, evaluate(meta, goals, test_key))
            sampled, mode = (x.mean(axis=0) for x in (curve.sampled, curve.mode))
            score = (sampled - floor) / (oracle - floor)
            rows.append(Row(algorithm, seed, seconds, sampled.tolist(), mode.tolist(), score.tolist()))
            runs.setdefault(algorithm, []).append(curve.sampled)
            cells = " | ".join(f"{x:.1f}" for x in sampled)
            others = f"{', '.join(f'{x:.1f}' for x in mode)} | {', '.join(f'{x:.2f}' for x in score)}"
            print(f"| {algorithm} | {seed} | {cells} | {others} | {seconds:.0f} |", flush=True)
            (args.folder / "result.json").write_text(json.dumps([row._asdict() for row in rows], indent=2))
            if seed == args.seeds[0]:
                plot_paths(args, meta, args.folder / f"paths-{algorithm}.png")
        table = np.stack(runs[algorithm])  # [seeds, tasks, steps + 1]
        intervals = " | ".join(str(rl.interquartile_mean(table[..., i])) for i in range(args.steps + 1))
        print(f"| {algorithm} | interquartile mean | {intervals} | | | |", flush=True)
    plot_curves(rows, args.folder / "curves.png")
    print(f"\nMAML's paper: {PAPER}. {args.test_tasks} held-out goals: staying {floor:.1f}, oracle {oracle:.2f}.")


if __name__ == "__main__":
    main(tyro.cli(Args))
