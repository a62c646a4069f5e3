r"""PEARL on its point robot: a point must find a goal on a half circle.

The environment is that of PEARL (Rakelly et al. 2019, https://arxiv.org/abs/1903.08254): 80 goals for training, 20 for
testing, 20 steps of at most 0.1 along each axis. The reward of a step is minus the distance to the goal. With
`--reward radius` it is sparse: 1 minus the distance within 0.2 of the goal, and 0 elsewhere. The paper learns from the
former and infers from the latter, while here both are the same. At test an agent plays four consecutive episodes of a
held-out goal, each with a latent drawn from its current posterior. `after 0` is the prior. `most probable` are new
episodes with the most probable actions given the most probable latent. `random` is the policy before training.

Expected: a point that stays at the origin gets -20.0, and one that knows the goal -3.8. PEARL gets -18 to -19 before
the first episode, and then -9 to -10, -6 to -8 and -6 in each of three seeds. With the sparse reward of the second
command the two points get 0.0 and 13.5, and PEARL 0.9, 4.0 after three episodes and 5.0 after seven. A seed takes one
and a half minutes of CPU time, two with the sparse reward.

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
    """Meta-training of PEARL on the point robot, and adaptation to held-out goals."""

    reward: Literal["distance", "radius"] = "distance"
    """Reward of a step."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seed of each meta-training run."""
    iterations: int = 100
    """Iterations of playing and learning."""
    num_tasks: int = 16
    """Goals per iteration and per update."""
    train_tasks: int = 100
    """Training goals, drawn from the 80."""
    episodes: int = 3
    """Episodes per goal and iteration."""
    updates: int = 100
    """Updates per iteration."""
    context_size: int = 20
    """Transitions in the context of an update."""
    batch_size: int = 64
    """Transitions per goal and update."""
    hidden: int = 64
    """Width of the two hidden layers of each network."""
    rate: float = 3e-3
    """Learning rate of Adam, decayed linearly to a tenth."""
    discount: float = 0.9
    """Discount per step."""
    entropy_weight: float = 0.01
    """Weight of the policy's entropy."""
    kl_weight: float = 3e-3
    """Weight of the KL divergence of the posterior from the prior."""
    target_rate: float = 0.05
    """Fraction by which the target networks move in an update."""
    test_tasks: int = 200
    """Held-out goals to average over, drawn from the 20."""
    steps: int = 3
    """Episodes of context at test."""
    folder: Path = Path("runs/pearl_particles2d")
    """Folder for checkpoints, tables and plots."""


class Row(NamedTuple):
    """Result of a policy."""

    policy: str
    seed: int
    seconds: float
    sampled: list[float]
    """Mean return of each of the consecutive episodes."""
    mode: list[float]
    """Mean return with the most probable actions and latents."""


def make(args: Args) -> tuple[envs.BaseEnv, rl.LatentPolicy]:
    """Returns the environment and the networks."""
    env = envs.make("particles2d", variant="pearl", reward=args.reward)
    sizes = (args.hidden, args.hidden)
    return env, rl.LatentPolicy(env.action_size, sizes=sizes, encoder_sizes=sizes)


def meta_train(args: Args, seed: int) -> tuple[jaxmeta.MetaParams, jaxmeta.MetaParams, float]:
    """Returns the first and the last meta-parameters, and the seconds of training, including compilation."""
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
        training,
        params,
        train_key,
        iterations=args.iterations,
        log_every=min(10, args.iterations),
        validate_every=min(10, args.iterations),
        folder=args.folder / f"{args.reward}-{seed}",
    )
    return jaxmeta.MetaParams(params), done.state.meta, done.history[-1]["seconds"]


def references(env: Any, tasks: Any) -> dict[str, float]:
    """Returns the mean return of a point that stays at the origin, and of one that knows the goal."""

    def play(act: Any, task: Any) -> jax.Array:
        def step(state: envs.State, _: None) -> tuple[envs.State, jax.Array]:
            after = env.step(state, act(state))
            return after, after.reward

        return jax.lax.scan(step, env.reset(jax.random.key(0), task), length=env.horizon)[1].sum()

    rules = {"stay": lambda state: jnp.zeros(env.action_size), "oracle": env.oracle_action}
    return {name: float(jax.vmap(partial(play, act))(tasks).mean()) for name, act in rules.items()}


def plot_paths(args: Args, meta: jaxmeta.MetaParams, path: Path) -> None:
    """Plots the consecutive episodes of three held-out goals."""
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
    """Trains, adapts, and prints each row as it is finished."""
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
            sampled, mode = (np.asarray(x).mean(axis=0).tolist() for x in (curve.sampled, curve.mode))
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
