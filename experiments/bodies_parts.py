"""What `bodies.py` trains: an environment with its named tasks and a kind of learner, as functions of one seed."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

import jaxmeta
from jaxmeta import envs, rl

KINDS = ("random", "oracle", "promp", "multi-task-ppo", "maml-trpo", "rl2")
"""Kinds of learners. The first two are the floor and the ceiling of scores."""
ENVIRONMENTS = {
    "half-cheetah-forward-backward": {"variant": "promp"},
    "half-cheetah-velocity": {"variant": "promp"},
    "ant-direction": {"variant": "pearl"},
}
"""Environments, with their options."""
TASKS: dict[str, dict[str, Any]] = {
    "half-cheetah-forward-backward": {"forward": {"direction": 1.0}, "backward": {"direction": -1.0}},
    "half-cheetah-velocity": {f"{speed} m/s": {"velocity": speed} for speed in (0.5, 1.25, 2.0, 2.75)},
    "ant-direction": {
        "east": {"direction": [1.0, 0.0]},
        "north": {"direction": [0.0, 1.0]},
        "west": {"direction": [-1.0, 0.0]},
        "south": {"direction": [0.0, -1.0]},
    },
}
"""Tasks of the test, by name."""
PARTS = tuple(f"{name}/{kind}" for name in ENVIRONMENTS for kind in KINDS)


class Sizes(NamedTuple):
    """Sizes of a part."""

    horizon: int
    """Steps per episode."""
    num_tasks: int
    """Tasks per update. Each oracle plays a quarter of their episodes, and `rl2` a trial for each of them."""
    episodes: int
    """Episodes per task and inner step."""
    steps: int
    """Inner steps at test."""
    repeats: int
    """Adaptations to each task of the test."""
    action_scale: float
    """Factor of the actions."""
    film: bool
    """Whether the evaluation keeps the states of an episode of each task."""


class Program(NamedTuple):
    """A part as pure functions of one seed."""

    start: Callable[[jax.Array], Any]
    """`(key) -> state`: the state before the first update."""
    step: Callable[[Any, jax.Array], tuple[Any, dict[str, jax.Array]]] | None
    """`(state, key) -> (state, metrics)`: an update. `None` if there is nothing to train."""
    curve: Callable[[Any, jax.Array], rl.ReturnCurve]
    """`(state, key) -> curve`, the returns in each of the named tasks, `[tasks, repeats, n]`."""
    played: int
    """Steps of the environment in an update."""


@dataclass(frozen=True)
class OneTask:
    """Environment with a single task."""

    env: Any
    task: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def sample_tasks(self, key: jax.Array, n: int, *, split: str = "train") -> Any:
        """Returns the task `n` times."""
        del key, split
        return jax.tree.map(lambda x: jnp.stack([x] * n), self.task)


def make_env(name: str, sizes: Sizes) -> envs.ScaledActions:
    """Returns an environment whose actions are scaled."""
    return envs.ScaledActions(envs.make(name, horizon=sizes.horizon, **ENVIRONMENTS[name]), sizes.action_scale)


def named_tasks(name: str) -> Any:
    """Returns the tasks of the test, stacked on the first axis."""
    return jax.tree.map(lambda *xs: jnp.array(xs), *TASKS[name].values(), is_leaf=lambda x: isinstance(x, list))


def make_program(name: str, kind: str, sizes: Sizes) -> Program:
    """Returns the program of an environment and a kind."""
    env, tasks = make_env(name, sizes), named_tasks(name)
    if kind == "rl2":
        return _of_trials(env, tasks, sizes)
    if kind == "oracle":
        return _of_single_tasks(env, tasks, sizes)
    return _of_inner_steps(kind, env, tasks, sizes)


def _policy(env: Any) -> tuple[rl.GaussianPolicy, Callable[[jax.Array], Any]]:
    """Returns the policy of all kinds without a memory, and the function that draws its parameters."""
    policy = rl.GaussianPolicy(env.action_size)
    return policy, lambda key: policy.init(key, rl.example_observations(env))


def _of_inner_steps(kind: str, env: Any, tasks: Any, sizes: Sizes) -> Program:
    """Returns the program of a policy that adapts by gradient steps: ProMP, MAML-TRPO, the control, and no training."""
    policy, draw = _policy(env)
    collect = rl.Collector(env=env, policy=policy.apply, episodes=sizes.episodes)
    inner, later = 0.1, optax.piecewise_constant_schedule(0.1, {1: 0.5})
    trainings = {
        "promp": lambda: rl.promp(collect, optax.sgd(inner), num_tasks=sizes.num_tasks),
        "maml-trpo": lambda: rl.maml_trpo(collect, optax.sgd(inner), num_tasks=sizes.num_tasks),
        "multi-task-ppo": lambda: rl.multi_task_ppo(collect, num_tasks=sizes.num_tasks),
        "random": lambda: rl.multi_task_ppo(collect, num_tasks=1),
    }
    training = trainings[kind]()
    evaluate = _repeated(rl.adaptation_curve(collect, optax.sgd(later), sizes.steps, states=sizes.film), sizes.repeats)
    played = (1 if kind == "multi-task-ppo" else 2) * sizes.num_tasks * sizes.episodes * sizes.horizon
    return Program(
        lambda key: training.init(draw(key)),
        None if kind == "random" else training.step,
        lambda state, key: evaluate(state.meta, tasks, key),
        played,
    )


def _of_single_tasks(env: Any, tasks: Any, sizes: Sizes) -> Program:
    """Returns the program of policies that are trained by PPO in a single task each, which they need not find out."""
    policy, draw = _policy(env)
    number, of_task = jax.tree.leaves(tasks)[0].shape[0], max(1, sizes.num_tasks // 4)

    def collector(task: Any) -> rl.Collector:
        one = cast(envs.MetaEnv, OneTask(env, task))
        return rl.Collector(env=one, policy=policy.apply, episodes=sizes.episodes)

    def training(task: Any) -> jaxmeta.Training:
        return rl.multi_task_ppo(collector(task), num_tasks=of_task, epochs=10)

    def over_tasks(fn: Callable[..., Any], key: jax.Array, *xs: Any) -> Any:
        return jax.vmap(fn)(tasks, jax.random.split(key, number), *xs)

    def curve(task: Any, key: jax.Array, state: Any) -> rl.ReturnCurve:
        evaluate = rl.adaptation_curve(collector(task), optax.sgd(0.1), 0, states=sizes.film)
        one = jax.tree.map(lambda x: x[None], task)
        found = _repeated(evaluate, sizes.repeats)(state.meta, one, key)
        return jax.tree.map(lambda x: x[0], found)._replace(episodes=found.episodes)

    def test(state: Any, key: jax.Array) -> rl.ReturnCurve:
        curves = over_tasks(curve, key, state)
        return curves._replace(episodes=curves.episodes[0])

    return Program(
        lambda key: over_tasks(lambda task, key: training(task).init(draw(key)), key),
        lambda state, key: over_tasks(lambda task, key, state: training(task).step(state, key), key, state),
        test,
        number * of_task * sizes.episodes * sizes.horizon,
    )


def _of_trials(env: Any, tasks: Any, sizes: Sizes) -> Program:
    """Returns the program of RL2, on trials of two episodes."""
    trial, number = rl.Trial(env, 2), sizes.num_tasks * sizes.episodes
    policy = rl.RecurrentPolicy(trial.action_size, trial.discrete, rl.GRU(128))
    # The discount looks about 30 steps ahead, and the trace decay is that of PPO on bodies.
    training = rl.rl2(
        trial,
        policy,
        num_tasks=number,
        minibatches=max(n for n in (4, 2, 1) if number % n == 0),
        discount=0.97,
        trace_decay=0.9,
        entropy_weight=0.005,
        optimizer=optax.chain(optax.clip_by_global_norm(0.5), optax.adam(7e-4)),
        normalize=True,
    )
    evaluate = _repeated(rl.trial_curve(trial, policy, states=sizes.film), sizes.repeats)
    return Program(
        lambda key: training.init(policy.init(key, rl.example_observations(trial), policy.empty_memory(1))),
        training.step,
        lambda state, key: evaluate(state.meta, tasks, key),
        number * trial.horizon,
    )


def _repeated(evaluate: Callable[..., rl.ReturnCurve], repeats: int) -> Callable[..., rl.ReturnCurve]:
    """Returns an evaluation that adapts to each task several times: `[tasks, repeats, n]`, states of the first only."""

    def run(meta: Any, tasks: Any, key: jax.Array) -> rl.ReturnCurve:
        curves = jax.vmap(functools.partial(evaluate, meta, tasks))(jax.random.split(key, repeats))
        sampled, mode = (jnp.swapaxes(x, 0, 1) for x in (curves.sampled, curves.mode))
        return rl.ReturnCurve(curves.episodes[0], sampled, mode, jax.tree.map(lambda x: x[0], curves.states))

    return run
