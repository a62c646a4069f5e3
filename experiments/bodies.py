"""Bodies that adapt to a task: half-cheetah forward/backward and at a velocity, ant in a direction.

A part is an environment and a kind of learner, such as `half-cheetah-forward-backward/promp`, and ends after a time
that you choose, by default ten minutes. All seeds of a part are one program. Each part adds one JSON line to a file
when it is finished. A second call skips the parts that the file has with the same settings, so it continues.

- `promp` and `maml-trpo` are those of Rothfuss et al. 2019 (https://arxiv.org/abs/1810.06784) and Finn et al. 2017
  (https://arxiv.org/abs/1703.03400) with ProMP's recipe: a policy with two layers of 64 units, 40 tasks of 20 episodes,
  one inner step of size 0.1, and actions divided by ten before they are clipped.
- `rl2` (Duan et al. 2016, https://arxiv.org/abs/1611.02779) has a GRU of 128 units and trials of two episodes.
- `multi-task-ppo` is PPO in all tasks without an inner loop, adapted by the same steps at test: the control.
- `oracle` is PPO in each named task by itself, an upper bound that need not find out the task.
- `random` is the policy before training, adapted by the same steps.

At test a policy adapts ten times to each named task, by three inner steps on 20 new episodes each, of which the later
ones are half as long. The returns are those after 0, 20, 40 and 60 episodes, those of `rl2` after 0 and 1. The score of
a return is 0 for random play and 1 for the oracle.

| half-cheetah forward/backward, steps | 0 | 1 | 2 | 3 |
| --- | --- | --- | --- | --- |
| MAML, https://arxiv.org/abs/1703.03400, Table 5, in MuJoCo | -50.69 | 293.19 | 313.48 | 315.65 |

The physics here is brax's spring simulator, so returns differ from those of the paper. A CPU is too slow: an update of
`promp` plays 320,000 steps for each seed, and two cores do about 4,000 per second. The last command shows that the
experiment runs.

    python experiments/bodies.py --parts half-cheetah-forward-backward/promp --film
    python experiments/bodies.py
    python experiments/bodies.py --page                # the table of the lines
    python experiments/bodies.py --small --output runs/small.jsonl --parts half-cheetah-forward-backward/rl2

The folder gets the meta-parameters of all seeds, which `jaxmeta.load` reads, and with `--film` for each named task an
episode of the adapted policy of the first seed, as a page that plays it and as a GIF.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bodies_page
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from bodies_parts import PARTS, TASKS, Program, Sizes, make_env, make_program

import jaxmeta
from jaxmeta import envs

LINES = Path("experiments/results/bodies.jsonl")


@dataclass(frozen=True)
class Args:
    """Meta-reinforcement learning of bodies, in parts."""

    parts: tuple[str, ...] = PARTS
    """Parts to train, each an environment and a kind of learner."""
    seeds: int = 3
    """Runs of each part, all in one program."""
    minutes: float = 10.0
    """Time of a part, compilation and test included, the start of Python and the films not."""
    updates: int = 100_000
    """Most updates of a part, rounded up to whole chunks."""
    chunk: int = 5
    """Updates between two looks at the clock."""
    horizon: int = 200
    """Steps per episode."""
    num_tasks: int = 40
    """Tasks per update."""
    episodes: int = 20
    """Episodes per task and inner step."""
    steps: int = 3
    """Inner steps at test."""
    repeats: int = 10
    """Adaptations to each named task at test."""
    action_scale: float = 0.1
    """Factor of the actions before they are clipped."""
    small: bool = False
    """Tiny sizes, for a test on a CPU; needs another --output."""
    film: bool = False
    """Film the adapted policy in each named task."""
    output: Path = LINES
    """Where the results go, a line for each part."""
    folder: Path = Path("runs/bodies")
    """Folder of the meta-parameters and the films."""
    page: bool = False
    """Train nothing, and print the table of the results."""


SMALL = {"seeds": 2, "updates": 1, "chunk": 1, "horizon": 10, "num_tasks": 2, "episodes": 2, "steps": 1, "repeats": 1}
SETTINGS = ("seeds", "minutes", "updates", "horizon", "num_tasks", "episodes", "steps", "repeats", "action_scale")
"""Options that belong to a result."""


def sizes_of(args: Args) -> Sizes:
    """Returns the sizes of a part."""
    return Sizes(*(getattr(args, name) for name in Sizes._fields))


def settings_of(args: Args) -> dict[str, Any]:
    """Returns the options that belong to a result."""
    return {name: getattr(args, name) for name in SETTINGS}


class Run:
    """Training and test of all seeds of a part, compiled before the first update."""

    def __init__(self, args: Args, program: Program) -> None:
        begin = time.monotonic()
        self.args, self.played = args, program.played
        self.updates, self.training, self.seconds = 0, [], 0.0
        self.keys = jax.vmap(jax.random.key)(jnp.arange(args.seeds))
        start, self._test_key = jax.jit(jax.vmap(program.start)), jax.random.key(1000)
        self.states = start(self.keys)
        self._test = jax.jit(jax.vmap(program.curve)).lower(self.states, self._test_keys()).compile()
        self._train = None if program.step is None else self._compiled(program.step)
        self.compile_s = time.monotonic() - begin

    def _compiled(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles a chunk of updates."""

        def update(states: Any, keys: jax.Array) -> tuple[Any, jax.Array]:
            states, metrics = jax.vmap(step)(states, keys)
            return states, -jnp.mean(metrics["loss"])

        def chunk(states: Any, keys: jax.Array) -> tuple[Any, jax.Array]:
            return jax.lax.scan(update, states, keys)

        return jax.jit(chunk, donate_argnums=0).lower(self.states, self._train_keys()).compile()

    def _test_keys(self) -> jax.Array:
        return jax.random.split(self._test_key, self.args.seeds)

    def _train_keys(self) -> jax.Array:
        """Returns the keys of the next chunk, `[chunk, seeds]`, those of a seed from its own."""
        return jax.vmap(
            lambda key: jax.random.split(jax.random.fold_in(key, self.updates), self.args.chunk), out_axes=1
        )(self.keys)

    def test(self) -> Any:
        """Returns the curves of all seeds, `[seeds, tasks, repeats, n]`."""
        return jax.block_until_ready(self._test(self.states, self._test_keys()))

    def train(self, deadline: float) -> None:
        """Trains in chunks until no more chunk fits before the deadline."""
        slowest = 0.0
        while self._train and self.updates < self.args.updates and time.monotonic() + slowest < deadline:
            begin = time.monotonic()
            self.states, returns = self._train(self.states, self._train_keys())
            self.training.append(float(jnp.mean(returns)))
            self.updates += self.args.chunk
            taken = time.monotonic() - begin
            slowest, self.seconds = max(slowest, taken), self.seconds + taken

    @property
    def steps_per_s(self) -> float:
        """Steps of the environment per second of training."""
        return self.updates * self.args.seeds * self.played / self.seconds if self.updates else 0.0


def measure(args: Args, part: str) -> dict[str, Any]:
    """Trains and tests a part, and returns its line."""
    begin = time.monotonic()
    name, kind = part.split("/")
    run = Run(args, make_program(name, kind, sizes_of(args)))
    before = time.monotonic()
    run.test()  # before training, to know how long it takes
    run.train(begin + 60 * args.minutes - 1.5 * (time.monotonic() - before))
    curve = run.test()
    args.folder.mkdir(parents=True, exist_ok=True)
    jaxmeta.save(args.folder / f"{name}-{kind}.msgpack", run.states.meta)
    if args.film:
        save_films(args, name, kind, curve.states)
    returns = {
        task: {actions: np.asarray(getattr(curve, actions)).mean(axis=2)[:, i] for actions in ("sampled", "mode")}
        for i, task in enumerate(TASKS[name])
    }
    line = {
        "part": part,
        "environment": name,
        "kind": kind,
        "episodes": np.asarray(curve.episodes)[0],
        "returns": returns,
        "training": run.training[:: max(1, len(run.training) // 50)],
        "updates": run.updates,
        "steps_per_s": run.steps_per_s,
        "compile_s": run.compile_s,
        "seconds": time.monotonic() - begin,
        "settings": settings_of(args),
        "machine": machine(),
    }
    return rounded(line)


def rounded(x: Any) -> Any:
    """Returns numbers and arrays as JSON takes them, with five digits."""
    if isinstance(x, dict):
        return {name: rounded(value) for name, value in x.items()}
    if isinstance(x, np.ndarray | list):
        return [rounded(value) for value in (x.tolist() if isinstance(x, np.ndarray) else x)]
    return float(f"{x:.5g}") if isinstance(x, float) else x


def save_films(args: Args, name: str, kind: str, states: Any) -> None:
    """Saves an episode of each named task after all adaptation, of the first seed."""
    env = make_env(name, sizes_of(args))
    for i, task in enumerate(TASKS[name]):
        episode = jax.tree.map(lambda x, i=i: np.asarray(x[0, i, -1]), states)
        path = args.folder / f"{name}-{kind}-{task.replace('/', ' per ').replace(' ', '-')}"
        envs.save_html(env, episode, path.with_name(path.name + ".html"))
        envs.save_video(env, episode, path.with_name(path.name + ".gif"))


def machine() -> dict[str, Any]:
    """Returns the device, the versions and the date."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        card = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        card = "none"
    versions = {name: importlib.metadata.version(name) for name in ("jaxmeta", "jax", "flax", "optax", "brax")}
    return {
        "device": jax.devices()[0].device_kind,
        "card": card,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **versions,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def main(args: Args) -> None:
    """Trains the parts that have no line yet, or prints the table."""
    if args.page:
        print(bodies_page.table(bodies_page.read(args.output)))
        return
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        raise ValueError(f"parts must be among {', '.join(PARTS)}, got {', '.join(unknown)}")
    if args.small and args.output == LINES:
        raise ValueError(f"output must be another file for small runs, got {args.output}")
    for name in ("seeds", "minutes", "updates", "chunk", "num_tasks", "episodes", "repeats"):
        if getattr(args, name) <= 0:
            raise ValueError(f"{name} must be positive, got {getattr(args, name)}")
    args = replace(args, **SMALL) if args.small else args
    settings = settings_of(args)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for part in args.parts:
        lines = bodies_page.read(args.output)
        if any(line["part"] == part and line["settings"] == settings for line in lines):
            continue
        line = measure(args, part)
        gains = {task: bodies_page.gains(line, task) for task in line["returns"]}
        line |= rounded({"after_minus_before": gains, "scores": bodies_page.scores(line, [*lines, line])})
        with args.output.open("a", encoding="utf-8") as file:
            print(json.dumps(line), file=file)
        print("\n".join(bodies_page.rows(line, [*lines, line])), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Args))
