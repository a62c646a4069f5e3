r"""PEARL's point robot: a point must find a goal on a half circle that it does not see.

The environment is PEARL's (Rakelly et al. 2019, https://arxiv.org/abs/1903.08254): 80 goals for training, 20 for
testing, 20 steps of at most 0.1 along each axis. A step pays the negative distance to the goal; with `--reward radius`,
the sparse reward, 1 less the distance within 0.2 of the goal and 0 elsewhere. (The paper learns from the former and
infers from the latter; here both are the same.) At test an agent plays four episodes of a held-out goal in a row, each
with a latent from what it believes by then: `after 0` is the prior. `most probable` are new episodes of the most
probable actions given the most probable latent. `random` is the policy before training.

Expected: a point that stays at the origin gets -20.0, one that knows the goal -3.8; PEARL -18 to -19 before it has seen
anything, and then -9 to -10, -6 to -8 and -6, in three seeds alike. With the sparse reward, as in the second command,
they get 0.0 and 13.5, and PEARL 0.9, 4.0 after three episodes and 5.0 after seven. A seed takes one and a half minutes
of CPU time, two with the sparse reward.

    python experiments/pearl_particles2d.py
    python experiments/pearl_particles2d.py --reward radius --seeds 0 --iterations 120 --episodes 5 --context-size 40 \
      --rate 2e-3 --target-rate 0.02 --steps 7 --folder runs/pearl_particles2d_sparse
"""

import json
from dataclasses import dataclass
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
from jaxmeta import envs, rl


@dataclass(frozen=True)
class Args:
    """Meta-train PEARL on the point robot, and adapt to held-out goals."""

    reward: Literal["distance", "radius"] = "distance"
    """What a step pays."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Meta-training runs."""
    iterations: int = 100
    """Of playing and learning."""
    num_tasks: int = 16
    """Goals per iteration and per update."""
    train_tasks: int = 100
    """Training goals, drawn from the 80."""
    episodes: int = 3
    """Played in a goal, per iteration."""
    updates: int = 100
    """Per iteration."""
    context_size: int = 20
    """Transitions from which an update infers the latent."""
    batch_size: int = 64
    """Transitions per goal and update."""
    hidden: int = 64
    """Width of the two hidden layers of each network."""
    rate: float = 3e-3
    """Of Adam, falling to a tenth in a line."""
    discount: float = 0.9
    """Per step."""
    entropy_weight: float = 0.01
    """Of the policy's entropy."""
    kl_weight: float = 3e-3
    """Of the divergence of beliefs from the prior."""
    target_rate: float = 0.05
    """How fast the slow critics follow."""
    test_tasks: int = 200
    """Episodes to average over, of held-out goals drawn from the 20."""
    steps: int = 3
    """Episodes of context at test."""
    folder: Path = Path("runs/pearl_particles2d")
    """Where checkpoints, tables and plots go."""


class Row(NamedTuple):
    """What a policy gets."""

    policy: str
    seed: int
    seconds: float
    sampled: list[float]
    """Mean return of each episode in a row."""
    mode: list[float]
    """The same of the most probable actions and latents."""


def make(args: Args) -> tuple[envs.BaseEnv, rl.LatentPolicy]:
    """The environment and the networks."""
    env = envs.make("particles2d", variant="pearl", reward=args.reward)
    sizes = (args.hidden, args.hidden)
    return env, rl.LatentPolicy(env.action_size, sizes=sizes, encoder_sizes=sizes)


def meta_train(args: Args, seed: int) -> tuple[jaxmeta.MetaParams, jaxmeta.MetaParams, float]:
    """The meta-parameters before the first and after the last iteration, and the seconds, compilation included."""
    env, policy = make(args)
    init_key, task_key, train_key = jax.random.split(jax.random.key(seed), 3)
    training = rl.pearl(
        env,
        policy,
        env.sample_tasks(task_key, args.train_tasks),
        num_tasks=args.num_tasks,
        episodes=args.episodes,
        updates=args.updates,
        optimizer=optax.adam(optax.linear_schedule(args.rate, 0.1 * args.rate, args.iterations * args.updates)),
        context_size=args.context_size,
        batch_size=args.batch_size,
        capacity=1000,
        discount=args.discount,
        entropy_weight=args.entropy_weight,
        kl_weight=args.kl_weight,
        target_rate=args.target_rate,
    )
    params = jax.jit(policy.init)(init_key, jnp.zeros((1, env.observation_size)), policy.prior().mean)
    done = jaxmeta.loop(
        training.step,
        training.init(params),
        train_key,
        iterations=args.iterations,
        log_every=min(10, args.iterations),
        validate_every=min(10, args.iterations),
        folder=args.folder / f"{args.reward}-{seed}",
    )
    return jaxmeta.MetaParams(params), done.state.meta, done.history[-1]["seconds"]


def references(env: Any, tasks: Any) -> dict[str, float]:
    """The mean return of a point that stays at the origin, and of one that knows the goal."""

    def play(act: Any, task: Any) -> jax.Array:
        def step(state: envs.State, _: None) -> tuple[envs.State, jax.Array]:
            after = env.step(state, act(state))
            return after, after.reward

        return jax.lax.scan(step, env.reset(jax.random.key(0), task), length=env.horizon)[1].sum()

    rules = {"stay": lambda state: jnp.zeros(env.action_size), "oracle": env.oracle_action}
    return {name: float(jax.vmap(partial(play, act))(tasks).mean()) for name, act in rules.items()}


def plot_paths(args: Args, meta: jaxmeta.MetaParams, path: Path) -> None:
    """Four episodes in a row of three held-out goals."""
    env, policy = make(args)
    figure = Figure(figsize=(9, 2.4), layout="constrained")
    FigureCanvasAgg(figure)
    tasks = env.sample_tasks(jax.random.key(7), 3, split="test")
    play = partial(rl.posterior_sampling, env, policy, meta.params, episodes=args.steps + 1)
    data, _ = jax.jit(jax.vmap(play))(tasks, jax.random.split(jax.random.key(8), 3))
    angles = np.linspace(0, np.pi)
    for goal, obs, last, axes in zip(
        tasks["goal"], data.obs, data.next_obs[:, :, -1:], figure.subplots(1, 3, sharey=True), strict=True
    ):
        axes.plot(np.cos(angles), np.sin(angles), color="0.8")
        axes.plot(*goal, "k*", markersize=12)
        for i, seen in enumerate(np.concatenate([obs, last], axis=1)):
            axes.plot(seen[:, 0], seen[:, 1], ".-", label=f"after {i}", alpha=0.8)
        axes.set(xlim=(-1.4, 1.4), ylim=(-0.4, 1.4), aspect="equal", xlabel="x")
        axes.grid(alpha=0.3)
    figure.axes[0].set(ylabel="y")
    figure.axes[-1].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def main(args: Args) -> None:
    """Train, adapt, and print the rows as they come."""
    args.folder.mkdir(parents=True, exist_ok=True)
    env, policy = make(args)
    evaluate = jax.jit(rl.pearl_curve(env, policy, args.steps))
    task_key, test_key = jax.random.split(jax.random.key(1000))
    goals = env.sample_tasks(task_key, args.test_tasks, split="test")
    rows: list[Row] = []
    header = " | ".join(f"after {i}" for i in range(args.steps + 1))
    print(f"| policy | seed | {header} | most probable | seconds |")
    print("| --- " * (args.steps + 5) + "|")
    for seed in args.seeds:
        start, end, seconds = meta_train(args, seed)
        for name, meta, spent in (("random", start, 0.0), ("PEARL", end, seconds)):
            curve = evaluate(meta, goals, test_key)
            sampled, mode = (np.asarray(x).mean(axis=0).tolist() for x in curve)
            rows.append(Row(name, seed, spent, sampled, mode))
            cells = " | ".join(f"{x:.1f}" for x in sampled)
            print(f"| {name} | {seed} | {cells} | {', '.join(f'{x:.1f}' for x in mode)} | {spent:.0f} |", flush=True)
        if seed == args.seeds[0]:
            plot_paths(args, end, args.folder / "paths.png")
    known = references(env, goals)
    print(f"\n{args.test_tasks} held-out goals: " + ", ".join(f"{name} {x:.2f}" for name, x in known.items()))
    (args.folder / "result.json").write_text(json.dumps({**known, "rows": [row._asdict() for row in rows]}, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Args))
