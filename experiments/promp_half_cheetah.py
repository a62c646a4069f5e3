"""Meta-RL on a half-cheetah that must run forward or backward and does not observe which: ProMP, and controls.

The recipe is that of ProMP (Rothfuss et al. 2019, https://arxiv.org/abs/1810.06784): a policy 17-64-64-6, 40 tasks of
20 episodes per meta-iteration, one inner step of size 0.1, five outer steps of Adam at 0.001, and actions divided by
ten before they are clipped. Episodes have 200 steps, as in MAML's paper. There are only two tasks, so the test tasks
are those of training. Episodes are new after every step, and at test the steps after the first are half as long.
`multi_task_ppo` is PPO in both directions without an inner loop, adapted by the same steps. `forward_ppo` and
`backward_ppo` are PPO in one direction, an upper bound for the others. `random` is the policy before training.

| return after so many steps | 0 | 1 | 2 | 3 |
| --- | --- | --- | --- | --- |
| MAML, https://arxiv.org/abs/1703.03400, Table 5, in MuJoCo | -50.69 | 293.19 | 313.48 | 315.65 |

The physics here is brax's spring simulator, so returns differ from those of the paper. A CPU is too slow to show
learning: a meta-iteration plays 320,000 steps, and two cores do about 4,000 per second. The second command shows that
the experiment runs.

    python experiments/promp_half_cheetah.py
    python experiments/promp_half_cheetah.py --algorithms promp --iterations 1 --num-tasks 2 --episodes 2 --horizon 5

The folder gets the table, the adaptation curves, checkpoints to resume from, and for every run a page for each
direction that plays an episode of the adapted policy.
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

DIRECTIONS = {"forward": 1.0, "backward": -1.0}
TASKS = {"direction": jnp.array(list(DIRECTIONS.values()))}
PAPER = [-50.69, 293.19, 313.48, 315.65]
Algorithm = Literal["random", "multi_task_ppo", "forward_ppo", "backward_ppo", "promp"]


@dataclass(frozen=True)
class Args:
    """Meta-training of a half-cheetah, and adaptation to both directions."""

    algorithms: tuple[Algorithm, ...] = ("random", "multi_task_ppo", "forward_ppo", "backward_ppo", "promp")
    """Rows of the table."""
    seeds: tuple[int, ...] = (0,)
    """Seed of each meta-training run."""
    iterations: int = 500
    """Meta-iterations."""
    num_tasks: int = 40
    """Tasks per meta-iteration."""
    episodes: int = 20
    """Episodes per task, in training and at test."""
    horizon: int = 200
    """Steps per episode."""
    inner_rate: float = 0.1
    """Learning rate of the inner loop, halved after the first step at test."""
    outer_rate: float = 1e-3
    """Learning rate of Adam."""
    steps: int = 3
    """Inner steps at test."""
    folder: Path = Path("runs/promp_half_cheetah")
    """Folder for checkpoints, tables, plots and pages."""


@dataclass(frozen=True, kw_only=True)
class HalfCheetah(envs.HalfCheetahForwardBackward):
    """Half-cheetah whose actions are divided by ten, as in ProMP's code."""

    see_torso: bool = False
    direction: float | None = None
    """Direction of all tasks, None for both directions."""

    def draw_task(self, key: jax.Array, split: str) -> Any:
        """Draws the direction, unless it is fixed."""
        if self.direction is None:
            return super().draw_task(key, split)
        return {"direction": jnp.array(self.direction)}

    def move(self, pipeline_state: Any, action: jax.Array, task: Any) -> envs.Outcome:
        """Applies a tenth of the action."""
        return super().move(pipeline_state, action / 10, task)


class Row(NamedTuple):
    """Result of a meta-training run."""

    algorithm: str
    seed: int
    seconds: float
    sampled: dict[str, list[float]]
    """Mean return in each direction after 0, 1, ... steps with sampled actions."""
    mode: dict[str, list[float]]
    """Mean return in each direction after 0, 1, ... steps with the most probable actions."""


def collector(args: Args, direction: float | None = None) -> rl.Collector:
    """Returns the collector of the samples."""
    env = HalfCheetah(horizon=args.horizon, direction=direction)
    return rl.Collector(env=env, policy=rl.GaussianPolicy(action_size=env.action_size).apply, episodes=args.episodes)


def make_training(args: Args, algorithm: str) -> jaxmeta.Training:
    """Returns the training of a row."""
    adam = optax.adam(args.outer_rate)
    if algorithm == "promp":
        return rl.promp(collector(args), optax.sgd(args.inner_rate), num_tasks=args.num_tasks, optimizer=adam)
    direction = DIRECTIONS.get(algorithm.removesuffix("_ppo"))
    return rl.multi_task_ppo(collector(args, direction), num_tasks=args.num_tasks, optimizer=adam)


def meta_train(args: Args, algorithm: str, seed: int) -> tuple[jaxmeta.MetaParams, float]:
    """Returns the meta-parameters after the last iteration, and the seconds that it took, including compilation."""
    init_key, train_key = jax.random.split(jax.random.key(seed))
    env = collector(args).env
    policy = rl.GaussianPolicy(action_size=env.action_size)
    params = jax.jit(policy.init)(init_key, jnp.zeros((1, env.observation_size)))
    if algorithm == "random":
        return jaxmeta.MetaParams(params), 0.0
    training = make_training(args, algorithm)
    done = jaxmeta.loop(
        training,
        params,
        train_key,
        iterations=args.iterations,
        log_every=min(10, args.iterations),
        validate_every=min(10, args.iterations),
        folder=args.folder / f"{algorithm}-{seed}",
    )
    return done.state.meta, done.history[-1]["seconds"]


def later_halved(args: Args) -> optax.GradientTransformation:
    """Returns the inner optimizer at test."""
    return optax.sgd(optax.piecewise_constant_schedule(args.inner_rate, {1: 0.5}))


def film(args: Args, params: Any, task: Any, key: jax.Array) -> envs.State:
    """Returns the states of an episode after all inner steps, with the most probable actions."""
    collect = collector(args)
    adapt_key, reset_key = jax.random.split(key)
    loss_fn = rl.policy_gradient(collect)
    params = jaxmeta.adapt(loss_fn, later_halved(args), params, task, adapt_key, steps=args.steps)

    def step(state: envs.State, _: None) -> tuple[envs.State, envs.State]:
        state = collect.env.step(state, collect.policy(params, state.obs).mode())
        return state, state

    return jax.lax.scan(step, collect.env.reset(reset_key, task), length=args.horizon)[1]


def save_pages(args: Args, states: envs.State, name: str) -> None:
    """Saves a page for each direction."""
    for i, direction in enumerate(DIRECTIONS):
        episode = jax.tree.map(lambda x, i=i: x[i], states)
        envs.save_html(collector(args).env, episode, args.folder / f"{name}-{direction}.html")


def plot_curves(rows: list[Row], path: Path) -> None:
    """Plots the return over inner steps in each direction, with a line for each run."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    names = list(dict.fromkeys(row.algorithm for row in rows))
    for axes, direction in zip(figure.subplots(1, 2, sharey=True), DIRECTIONS, strict=True):
        for row in rows:
            label = row.algorithm if row.algorithm not in axes.get_legend_handles_labels()[1] else None
            axes.plot(row.sampled[direction], "o-", color=f"C{names.index(row.algorithm)}", label=label, alpha=0.7)
        axes.set(title=direction, xlabel="inner steps", xticks=range(len(rows[0].sampled[direction])))
        axes.grid(alpha=0.3)
    figure.axes[0].set(ylabel="return")
    figure.axes[-1].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main(args: Args) -> None:
    """Trains, adapts, and prints each row as it is finished."""
    args.folder.mkdir(parents=True, exist_ok=True)
    evaluate = jax.jit(rl.adaptation_curve(collector(args), later_halved(args), args.steps))
    play = jax.jit(jax.vmap(lambda *xs: film(args, *xs), in_axes=(None, 0, 0)))
    test_key, film_key = jax.random.split(jax.random.key(1000))
    rows: list[Row] = []
    header = " | ".join(f"after {i}" for i in range(args.steps + 1))
    print(f"| algorithm | seed | direction | {header} | most probable actions | seconds |")
    print("| --- " * (args.steps + 6) + "|")
    for algorithm in args.algorithms:
        for seed in args.seeds:
            meta, seconds = meta_train(args, algorithm, seed)
            curve = jax.tree.map(np.asarray, evaluate(meta, TASKS, test_key))
            sampled, mode = (dict(zip(DIRECTIONS, x.tolist(), strict=True)) for x in (curve.sampled, curve.mode))
            rows.append(Row(algorithm, seed, seconds, sampled, mode))
            for direction in DIRECTIONS:
                cells = " | ".join(f"{x:.1f}" for x in sampled[direction])
                others = ", ".join(f"{x:.1f}" for x in mode[direction])
                print(f"| {algorithm} | {seed} | {direction} | {cells} | {others} | {seconds:.0f} |", flush=True)
            (args.folder / "result.json").write_text(json.dumps([row._asdict() for row in rows], indent=2))
            states = play(meta.params, TASKS, jax.random.split(film_key, len(DIRECTIONS)))
            save_pages(args, states, f"{algorithm}-{seed}")
    plot_curves(rows, args.folder / "curves.png")
    print(f"\nMAML's paper, in another simulator, mean of both directions: {PAPER}.")


if __name__ == "__main__":
    main(tyro.cli(Args))
