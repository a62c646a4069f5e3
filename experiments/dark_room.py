"""A dark room of 9x9 cells, seen as an image: RL2 and ProMP find a goal that the image does not show, and return to it.

Each step on the goal pays 1, and an episode starts in the middle (Laskin et al. 2022,
https://arxiv.org/abs/2210.14215). RL2 plays trials of six episodes of 20 steps with a GRU, as in that paper. ProMP
plays episodes of 40 steps, because a policy without a memory finds a far goal by chance. It takes three inner steps
with learned rates in training and five at test, each from 40 episodes. The oracle goes straight to the goal.

The table has the return by the number of episodes seen, in fresh draws of two kinds of goals. Those of training are in
65 cells. The other 16 cells are held out. There is no goal among them in training, so a learner that is optimal in
training does not look there: RL2 leaves them out, and the gradient of ProMP still finds most of them.

Expected for goals of training: RL2 goes from 3 to 15.5 of 16.5 in six episodes, and ProMP from 0.5 to 34.5 of 36.5
after five steps. For goals that are held out RL2 has 1.5, and ProMP 31.7. Each takes less than five minutes on two CPU
cores.

    python experiments/dark_room.py
    python experiments/dark_room.py --learners rl2 --seeds 0 1 2
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
import tyro
from flax import linen as nn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxmeta
from jaxmeta import envs, optim, rl

Learner = Literal["rl2", "promp"]
GOALS = {"train": "of training", "test": "held out"}


@dataclass(frozen=True)
class Args:
    """Meta-training in a dark room, and adaptation to its goals."""

    learners: tuple[Learner, ...] = ("rl2", "promp")
    """Rows of the table."""
    seeds: tuple[int, ...] = (0,)
    """Seed of each meta-training run."""
    size: int = 9
    """Rows and columns of the room."""
    horizon: int = 20
    """Steps of an episode of RL2."""
    iterations: int = 250
    """Meta-iterations of RL2."""
    num_tasks: int = 512
    """Goals per meta-iteration of RL2, a multiple of 8."""
    episodes: int = 6
    """Episodes of a trial of RL2."""
    promp_horizon: int = 40
    """Steps of an episode of ProMP, whose policy remembers nothing and finds far goals by chance."""
    promp_iterations: int = 80
    """Meta-iterations of ProMP."""
    promp_tasks: int = 20
    """Goals per meta-iteration of ProMP."""
    promp_episodes: int = 40
    """Episodes per goal and inner step of ProMP."""
    steps: int = 3
    """Inner steps of ProMP in training."""
    test_steps: int = 5
    """Inner steps of ProMP at test. The later ones have the rates of the last step in training."""
    test_tasks: int = 600
    """Goals of each kind at test."""
    folder: Path = Path("runs/dark_room")
    """Folder for checkpoints, the table and the figure."""


class Row(NamedTuple):
    """Result of a meta-training run on one kind of goals."""

    learner: str
    seed: int
    goals: str
    seconds: float
    """Seconds of meta-training, including compilation."""
    cpu_seconds: float
    """Seconds of all cores in that time."""
    episodes: list[int]
    """Number of episodes that were seen before each return."""
    returns: list[float]
    """Mean returns with sampled actions."""
    intervals: list[float]
    """Half-widths of their 95 % intervals over goals."""
    oracle: float
    """Mean return of the oracle for the same goals."""


class Place(nn.Module):
    """Encoder of an image as the place of the agent: the walls never change, and would drown it in inner steps."""

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """Returns vectors `[..., size ** 2]` of images `[..., size, size, 2]`."""
        return 3.0 * obs[..., 0].reshape(*obs.shape[:-3], -1)


def adam(rate: float, last: float, clip: float, updates: int) -> optax.GradientTransformation:
    """Returns Adam with clipped gradients and a rate that falls to its last value."""
    return optax.chain(optax.clip_by_global_norm(clip), optax.adam(optax.linear_schedule(rate, last, updates)))


def make_rl2(args: Args, env: envs.MetaEnv) -> tuple[jaxmeta.Training, nn.Module, Any, Any, int]:
    """Returns the training, the policy, the arguments of its `init`, the evaluation, and the meta-iterations."""
    trial = rl.Trial(env, args.episodes)
    encoder = rl.ObservationEncoder(trial.observation_size, convolutions=False)
    policy = rl.RecurrentPolicy(trial.action_size, trial.discrete, rl.GRU(64), encoder)
    training = rl.rl2(
        trial,
        policy,
        num_tasks=args.num_tasks,
        optimizer=adam(3e-3, 3e-4, 0.5, 32 * args.iterations),  # 4 epochs of 8 minibatches
        minibatches=8,
        trace_decay=0.5,
        entropy_weight=0.02,
    )
    inputs = rl.example_observations(trial), policy.empty_memory(1)
    return training, policy, inputs, rl.trial_curve(trial, policy), args.iterations


def make_promp(args: Args, env: envs.MetaEnv) -> tuple[jaxmeta.Training, nn.Module, Any, Any, int]:
    """Returns the training, the policy, the arguments of its `init`, the evaluation, and the meta-iterations."""
    policy = rl.CategoricalPolicy(env.action_size, (128,), encoder=Place())
    collect = rl.Collector(env=env, policy=policy.apply, episodes=args.promp_episodes, discount=0.95, trace_decay=1.0)
    # The rates start at 10. Adam moves each by about its own rate, so that it should see numbers of size 1.
    inner = optax.chain(optax.scale(10.0), optim.scale_by_learned_rate(1.0, per="tensor", steps=args.steps))
    training = rl.promp(
        collect,
        inner,
        args.steps,
        num_tasks=args.promp_tasks,
        optimizer=adam(2e-3, 2e-4, 1.0, 5 * args.promp_iterations),  # 5 epochs
        clip=0.2,
    )
    curve = rl.adaptation_curve(collect, inner, args.test_steps)
    return training, policy, (rl.example_observations(env),), curve, args.promp_iterations


MAKE = {"rl2": make_rl2, "promp": make_promp}


def run(args: Args, env: envs.MetaEnv, learner: Learner, seed: int) -> list[Row]:
    """Trains a learner, and tests it on both kinds of goals."""
    training, policy, inputs, curve, iterations = MAKE[learner](args, env)
    init_key, train_key, task_key, test_key = jax.random.split(jax.random.key(seed), 4)
    begun = time.process_time()
    done = jaxmeta.loop(
        training,
        jax.jit(policy.init)(init_key, *inputs),
        train_key,
        iterations=iterations,
        log_every=min(10, iterations),
        validate_every=min(10, iterations),
        folder=args.folder / f"{learner}-{seed}",
    )
    times = done.history[-1]["seconds"], time.process_time() - begun
    evaluate, rows = jax.jit(curve), []
    for split, goals in GOALS.items():
        tasks = env.sample_tasks(task_key, args.test_tasks, split=split)
        found = evaluate(done.state.meta, tasks, test_key)
        episodes = found.episodes.tolist()
        columns = zip(map(str, episodes), found.sampled.T, strict=True)
        returns = jaxmeta.summarize(dict(columns)).values()
        oracle = float(np.mean(np.asarray(rl.score_scale(env, tasks, test_key, episodes=1).oracle)))
        numbers = [summary.mean for summary in returns], [summary.interval for summary in returns]
        rows.append(Row(learner, seed, goals, *times, episodes, *numbers, oracle))
    return rows


def plot(rows: list[Row], path: Path) -> None:
    """Plots the return relative to the oracle's, by episodes seen, with a panel for each learner."""
    learners = list(dict.fromkeys(row.learner for row in rows))
    figure = Figure(figsize=(4 * len(learners), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(learners), sharey=True, squeeze=False)[0]
    for learner, axes in zip(learners, panels, strict=True):
        for row in (row for row in rows if row.learner == learner):
            share, half = np.array(row.returns) / row.oracle, np.array(row.intervals) / row.oracle
            color, first = f"C{list(GOALS.values()).index(row.goals)}", row.seed == rows[0].seed
            axes.errorbar(
                row.episodes, share, half, fmt="o-", color=color, label=f"goals {row.goals}" if first else None
            )
        axes.axhline(0.9, color="gray", linestyle=":", linewidth=1)
        axes.set(title=learner, xlabel="episodes seen", ylim=(0, 1.02))
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="return / oracle's return")
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main(args: Args) -> None:
    """Trains, tests, and prints each row as it is finished."""
    args.folder.mkdir(parents=True, exist_ok=True)
    horizons: dict[Learner, int] = {"rl2": args.horizon, "promp": args.promp_horizon}
    rows: list[Row] = []
    print("| learner | seed | goals | return after so many episodes | oracle | share | seconds | CPU s |")
    print("| --- " * 8 + "|")
    for learner in args.learners:
        env = envs.DarkRoom(size=args.size, horizon=horizons[learner])
        for seed in args.seeds:
            for row in run(args, env, learner, seed):
                rows.append(row)
                points = zip(row.episodes, row.returns, row.intervals, strict=True)
                curve = ", ".join(f"{seen}: {mean:.1f} ± {half:.1f}" for seen, mean, half in points)
                share = f"{100 * row.returns[-1] / row.oracle:.0f} %"
                rest = f"{row.oracle:.1f} | {share} | {row.seconds:.0f} | {row.cpu_seconds:.0f}"
                print(f"| {learner} | {seed} | {row.goals} | {curve} | {rest} |")
    plot(rows, args.folder / "dark_room.png")
    (args.folder / "result.json").write_text(json.dumps([row._asdict() for row in rows], indent=2))
    print(f"\n{args.test_tasks} goals of each kind; saved to {args.folder}")


if __name__ == "__main__":
    main(tyro.cli(Args))
