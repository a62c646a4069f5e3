"""Environment steps per second of whole meta-iterations of ProMP: jaxmeta compared with gymnasium and PyTorch.

A meta-iteration plays 20 episodes of 100 steps in each of 20 tasks, adapts by one inner step, plays as many episodes
again and takes five outer steps of Adam with second derivatives. These are 80,000 steps of the environment. All rows do
this with the same network, baseline, losses and sizes. They alternate in one process, and the fastest round of each
counts.

- `jaxmeta`: one XLA program, `jaxmeta.rl.promp`.
- `AsyncVectorEnv + PyTorch`: the environment in NumPy, with a process for each episode and one task after the other, as
  in learn2learn.
- `SyncVectorEnv + PyTorch`: the same environments without processes, with the episodes of all tasks at once.
- `numpy + PyTorch`: all environments as arrays, which shows the time of everything else (Particles2D only).

The rows with PyTorch adapt and differentiate all tasks at once. They need torch (`pip install "jaxmeta[torch]"`) and
are left out without it. With `--env half-cheetah-forward-backward` they play gymnasium's HalfCheetah-v5
(`pip install imageio`) in MuJoCo, while jaxmeta plays the same body in brax.

    python experiments/benchmarks/rl.py
"""

import contextlib
import importlib
import importlib.util
import itertools
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from jaxmeta import envs, rl

torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
INNER_RATE, OUTER_RATE, EPOCHS, CLIP, KL_PENALTY, DISCOUNT = 0.1, 1e-3, 5, 0.3, 5e-4, 0.99


@dataclass(frozen=True)
class Args:
    """Timing of meta-iterations of ProMP."""

    env: Literal["particles2d", "half-cheetah-forward-backward"] = "particles2d"
    """Environment."""
    num_tasks: int = 20
    """Tasks per meta-iteration."""
    episodes: int = 20
    """Episodes per task, before and again after the inner step."""
    horizon: int = 100
    """Steps per episode."""
    rounds: int = 3
    """Alternating rounds, of which the fastest counts."""
    torch_threads: int = 1
    """Threads of PyTorch. More are slower for arrays of this size."""
    output: Path = Path("runs/benchmarks/rl.json")
    """File for the numbers."""


class Particle(gymnasium.Env):
    """Particles2D as in learn2learn, with the goal as the task."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    task = np.zeros(2, np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Starts at the origin."""
        super().reset(seed=seed)
        self.position = np.zeros(2, np.float32)
        return self.position, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Moves by a tenth of the action."""
        self.position = self.position + 0.1 * np.clip(action, -1, 1)
        offset = self.position - self.task
        over = bool(np.abs(offset[0]) < 0.01 and np.abs(offset[1]) < 0.01)
        return self.position, -float(np.sqrt(offset @ offset)), over, False, {}


class Particles:
    """Many particles as arrays, with the methods that `play` needs."""

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = Particle.observation_space, Particle.action_space

    def set_attr(self, name: str, values: list) -> None:
        """Sets the goals."""
        self.task = np.stack(values)

    def reset(self) -> tuple[np.ndarray, dict]:
        """Starts at the origin."""
        self.position = np.zeros((self.num_envs, 2), np.float32)
        return self.position, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any, Any, dict]:
        """Moves by a tenth of the actions."""
        self.position = self.position + 0.1 * np.clip(action, -1, 1)
        offset = self.position - self.task
        over = (np.abs(offset) < 0.01).all(axis=1)
        return self.position, -np.linalg.norm(offset, axis=1), over, np.zeros_like(over), {}

    def close(self) -> None:
        """Closes nothing."""


class HalfCheetah(gymnasium.Wrapper):
    """Half-cheetah of gymnasium, with the direction as the task."""

    task = 1.0

    def __init__(self) -> None:
        super().__init__(gymnasium.make("HalfCheetah-v5", disable_env_checker=True))

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        """Takes a step, whose reward is the velocity in the direction."""
        action = np.clip(action, -1, 1)
        obs, _, terminated, truncated, info = self.env.step(action)
        reward = self.task * info["x_velocity"] - 0.05 * float(action @ action)
        return obs.astype(np.float32), reward, terminated, truncated, info


def draw_tasks(env: str, random: np.random.Generator, num_tasks: int) -> list:
    """Draws goals or directions."""
    if env == "particles2d":
        return list(random.uniform(-0.5, 0.5, (num_tasks, 2)).astype(np.float32))
    return random.choice([-1.0, 1.0], num_tasks).tolist()


def with_jaxmeta(args: Args) -> Iterator[None]:
    """Runs meta-iterations as one XLA program each."""
    env = envs.make(args.env, horizon=args.horizon, variant="l2l" if args.env == "particles2d" else "promp")
    policy = rl.GaussianPolicy(action_size=env.action_size)
    collect = rl.Collector(env=env, policy=policy.apply, episodes=args.episodes, discount=DISCOUNT)
    inner, adam = optax.sgd(INNER_RATE), optax.adam(OUTER_RATE)
    training = rl.promp(
        collect, inner, num_tasks=args.num_tasks, optimizer=adam, epochs=EPOCHS, clip=CLIP, kl_penalty=KL_PENALTY
    )
    state = training.init(policy.init(jax.random.key(0), jnp.zeros((1, env.observation_size))))
    step = jax.jit(training.step)
    for i in itertools.count():
        state, _ = jax.block_until_ready(step(state, jax.random.key(i)))
        yield


class Data(NamedTuple):
    """Samples of `K` tasks with PyTorch, `N` steps in each."""

    obs: Any
    """Observations, `[K, N, observation_size]`."""
    action: Any
    """Actions, `[K, N, action_size]`."""
    advantage: Any
    """Advantages, `[K, N]`."""
    valid: Any
    """Mask with 1 for steps that count, `[K, N]`."""
    dist: Any
    """Distributions of the actions, `[K, N, action_size]`."""


def policy_of(params: list, obs: Any) -> Any:
    """Returns the distributions of actions, for parameters with a leading axis of tasks."""
    x = obs
    for i in range(3):
        x = torch.baddbmm(params[3 + i], x, params[i])
        x = torch.tanh(x) if i < 2 else x
    return torch.distributions.Normal(x, params[6].exp().expand_as(x))


def play(args: Args, vector_env: Any, params: list, tasks: list) -> list:
    """Returns observations, actions, rewards and masks, `[T, K, E, ...]`, of as many tasks as the lanes hold."""
    vector_env.set_attr("task", [task for task in tasks for _ in range(args.episodes)])
    obs, _ = vector_env.reset()
    valid, steps = np.ones(len(obs), bool), []
    for _ in range(args.horizon):
        seen = torch.as_tensor(obs, dtype=torch.float32).reshape(len(tasks), args.episodes, -1)
        action = policy_of(params, seen).sample()
        obs, reward, over, _, _ = vector_env.step(action.reshape(len(obs), -1).numpy())
        steps.append((seen, action, *(to_torch(x).reshape(seen.shape[:2]) for x in (reward * valid, valid))))
        valid = valid & ~over
    return [torch.stack(x) for x in zip(*steps, strict=True)]


def to_torch(x: np.ndarray) -> Any:
    """Returns a tensor of floats."""
    return torch.as_tensor(x, dtype=torch.float32)


def by_task(x: Any) -> Any:
    """Reshapes `[T, K, E, ...]` to `[K, T * E, ...]`."""
    return x.transpose(0, 1).flatten(1, 2)


def estimate_advantages(obs: Any, reward: Any, valid: Any) -> Any:
    """Returns normalized advantages `[K, N]` against the linear feature baseline of each task."""
    returns = torch.zeros_like(reward)
    later = torch.zeros_like(reward[0])
    for t in reversed(range(len(reward))):
        returns[t] = later = reward[t] + DISCOUNT * later
    now = (torch.arange(len(reward)) + 1).reshape(-1, 1, 1, 1).expand(*reward.shape, 1) / len(reward)
    clipped = obs.clamp(-10, 10)
    features = by_task(torch.cat([clipped, clipped**2, now, now**2, now**3, torch.ones_like(now)], dim=-1))
    returns, weight = by_task(returns[..., None]), by_task(valid[..., None])

    def mean(x: Any) -> Any:
        return (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)

    features = features / mean(features**2).sqrt().clamp_min(1e-8)
    total = weight.sum(1, keepdim=True)
    gram = (features * weight).mT @ features / total + 1e-5 * torch.eye(features.shape[-1])
    advantage = returns - features @ torch.linalg.solve(gram, (features * weight).mT @ returns / total)
    advantage = advantage - mean(advantage)
    return (advantage / (mean(advantage**2).sqrt() + 1e-8) * weight)[..., 0]


def collect(args: Args, vector_env: Any, params: list, tasks: list) -> Data:
    """Plays in all tasks and estimates advantages."""
    with torch.no_grad():
        at_once = vector_env.num_envs // args.episodes
        firsts = range(0, len(tasks), at_once)
        parts = [play(args, vector_env, [x[i : i + at_once] for x in params], tasks[i : i + at_once]) for i in firsts]
        obs, action, reward, valid = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        dist = policy_of(params, by_task(obs))
        return Data(by_task(obs), by_task(action), estimate_advantages(obs, reward, valid), by_task(valid), dist)


def surrogate(params: list, data: Data, clip: float = float("inf")) -> Any:
    """Returns the sum over tasks of the clipped surrogate."""
    log_ratio = policy_of(params, data.obs).log_prob(data.action) - data.dist.log_prob(data.action)
    ratio = log_ratio.sum(-1).exp()
    gain = torch.minimum(ratio * data.advantage, ratio.clamp(1 - clip, 1 + clip) * data.advantage)
    return -((gain * data.valid).sum(1) / data.valid.sum(1)).sum()


def divergence(params: list, data: Data) -> Any:
    """Returns the sum over tasks of the KL divergence from the policy that played."""
    kl = torch.distributions.kl_divergence(data.dist, policy_of(params, data.obs)).sum(-1)
    return ((kl * data.valid).sum(1) / data.valid.sum(1)).sum()


def adapt(params: list, data: Data, create_graph: bool) -> list:
    """Takes one inner step in every task."""
    gradients = torch.autograd.grad(surrogate(params, data), params, create_graph=create_graph)
    return [x - INNER_RATE * gradient for x, gradient in zip(params, gradients, strict=True)]


def with_torch(args: Args, vector_env: Any) -> Iterator[None]:
    """Runs meta-iterations with PyTorch, with all tasks at once except for playing."""
    spaces = vector_env.single_observation_space, vector_env.single_action_space
    widths = [spaces[0].shape[0], 64, 64, spaces[1].shape[0]]
    torch.set_num_threads(args.torch_threads)
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    weights = [torch.nn.init.xavier_uniform_(torch.empty(i, o)) for i, o in itertools.pairwise(widths)]
    params = [*weights, *(torch.zeros(1, o) for o in widths[1:]), torch.zeros(1, widths[-1])]
    params = [x.requires_grad_() for x in params]
    adam = torch.optim.Adam(params, OUTER_RATE)
    with contextlib.closing(vector_env):
        while True:
            tasks = draw_tasks(args.env, random, args.num_tasks)
            spread = [x.expand(args.num_tasks, *x.shape) for x in params]
            before = collect(args, vector_env, spread, tasks)
            after = collect(args, vector_env, adapt(spread, before, create_graph=False), tasks)
            for _ in range(EPOCHS):
                spread = [x.expand(args.num_tasks, *x.shape) for x in params]
                loss = surrogate(adapt(spread, before, create_graph=True), after, CLIP)
                adam.zero_grad()
                ((loss + KL_PENALTY * divergence(spread, before)) / args.num_tasks).backward()
                adam.step()
            yield


def rows(args: Args) -> dict[str, Iterator[None]]:
    """Returns the meta-iterations of each row, those of jaxmeta first."""
    vector_envs = make_vector_envs(args) if torch else {}
    return {"jaxmeta": with_jaxmeta(args)} | {name: with_torch(args, env) for name, env in vector_envs.items()}


def make_vector_envs(args: Args) -> dict[str, Any]:
    """Returns the environments of the rows with PyTorch, by the row's name."""
    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # JAX warns, but it does not run in the workers
    make_env: Callable[[], gymnasium.Env] = Particle if args.env == "particles2d" else HalfCheetah
    lanes = args.num_tasks * args.episodes
    found: dict[str, Any] = {
        "AsyncVectorEnv + PyTorch": AsyncVectorEnv([make_env] * args.episodes, context="fork"),
        "SyncVectorEnv + PyTorch": SyncVectorEnv([make_env] * lanes),
    }
    if args.env == "particles2d":
        found["numpy + PyTorch"] = Particles(lanes)
    return found


def main(args: Args) -> None:
    """Times all rows and prints a table."""
    table = rows(args)
    seconds: dict[str, list[float]] = {name: [] for name in table}
    for _ in range(1 + args.rounds):  # the first one compiles
        for name, row in table.items():
            begin = time.perf_counter()
            next(row)
            seconds[name].append(time.perf_counter() - begin)

    steps = 2 * args.num_tasks * args.episodes * args.horizon
    print(f"{args.env}, {steps:,} steps of the environment per meta-iteration, {jax.devices()[0].device_kind}\n")
    print("| row | first meta-iteration, s | later ones, s | steps per second | jaxmeta is faster by |")
    print("| --- | --- | --- | --- | --- |")
    results = []
    for name, (first, *later) in seconds.items():
        results.append({"row": name, "env": args.env, "steps": steps, "first": first, "seconds": min(later)})
        ratio = min(later) / min(seconds["jaxmeta"][1:])
        print(f"| {name} | {first:.1f} | {min(later):.2f} | {steps / min(later):,.0f} | {ratio:.1f} |")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Args))
