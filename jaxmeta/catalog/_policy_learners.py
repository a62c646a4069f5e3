"""Meta-reinforcement learners by name, with the values of their papers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta import envs, rl
from jaxmeta._parallel import constrain, map_tasks
from jaxmeta._types import MetaParams, Metrics, PyTree, Training
from jaxmeta.catalog._lookup import build_meta_gradient
from jaxmeta.catalog._meta_gradients import UNROLLED, build_optimizer
from jaxmeta.catalog._options import Settings
from jaxmeta.catalog._registry import LEARNERS, Learner, Recipe, add, description, recipe
from jaxmeta.display import short_repr

_EPOCHS = 5  # outer steps on the data of an iteration, as in ProMP


class Agent(NamedTuple):
    """A policy, its meta-training, and its test."""

    init: Callable[[jax.Array], PyTree]
    """Maps a key to initial parameters of the policy."""
    training: Training
    test: Callable[[MetaParams, PyTree, jax.Array], Metrics]
    """`(meta, tasks, key) -> metrics`, each `[num_tasks]`, with one called `return`. Those called `return_0`,
    `return_1` and so on are the returns before adaptation and after each part of it."""
    play: Callable[[MetaParams, PyTree, jax.Array], PyTree] | None = None
    """`(meta, tasks, key) -> states`, leading axes `[num_tasks, n, T]`: the environment's states in `n` episodes of
    each task, in the course of adaptation. `None` if there is no film of a run."""

    __repr__ = short_repr


def register_policy_learner(
    name: str,
    build: Callable[[Settings, envs.BaseEnv, Mesh | None], Agent],
    recipes: Sequence[Recipe],
    *,
    about: object = None,
    meta_gradients: tuple[str, ...] = (),
) -> None:
    """Adds a learner for environments, for `--learner name` and `Experiment(learner=name)`.

    Args:
        name: lower-case letters, digits and hyphens.
        build: `(settings, env, mesh) -> register.Agent`, where `mesh` holds the devices to divide the tasks over.
        recipes: the options that the learner has, made by `register.recipe("environment", ...)`.
        about: object whose docstring describes the learner, such as its factory; `build` if `None`.
        meta_gradients: names of the meta-gradients that are defined for it, if a recipe has the option `meta_gradient`.

    Raises:
        ValueError: if the name is taken or malformed.
    """
    entry = Learner(
        build,
        tuple(recipes),
        *description(about or build),
        trains_on="environment",
        meta_gradients=meta_gradients,
        has_network=False,
    )
    add(LEARNERS, "learner", name, entry)


def _adapting(make: Callable[..., Training]) -> Callable[[Settings, envs.BaseEnv, Mesh | None], Agent]:
    """The agent of a learner that adapts by gradient steps; steps after the first are half as long at test."""

    def build(s: Settings, env: envs.BaseEnv, mesh: Mesh | None) -> Agent:
        network = rl.CategoricalPolicy if env.discrete else rl.GaussianPolicy
        policy = network(env.action_size, (s.hidden, s.hidden))
        collect = rl.Collector(
            env=env, policy=policy.apply, episodes=s.episodes, discount=s.discount, trace_decay=s.trace_decay
        )
        later_half = optax.sgd(optax.piecewise_constant_schedule(s.inner_rate, {1: 0.5}))
        training = make(s, collect, num_tasks=s.num_tasks, batch_size=s.batch_size or None, mesh=mesh)
        curve = partial(rl.adaptation_curve, collect, later_half, s.test_steps, mesh=mesh)
        return Agent(
            lambda key: policy.init(key, jnp.zeros((1, env.observation_size))),
            training,
            *_test_and_play(curve),
        )

    return build


def _test_and_play(curve: Callable[..., Callable[..., rl.AdaptationCurve]]) -> tuple[Any, Any]:
    """Returns the `test` and the `play` of an agent whose adaptation is measured by a curve."""
    measure, film = curve(), curve(states=True)

    def test(meta: MetaParams, tasks: PyTree, key: jax.Array) -> Metrics:
        found = measure(meta, tasks, key)
        return {"return": found.sampled[:, -1], **_numbered(found.sampled), "mode_return": found.mode[:, -1]}

    return test, lambda meta, tasks, key: film(meta, tasks, key).states


def _numbered(returns: jax.Array) -> Metrics:
    """Returns `return_0`, `return_1` and so on, from `[num_tasks, n]`."""
    return {f"return_{i}": returns[:, i] for i in range(returns.shape[1])}


def _inner(s: Settings) -> dict[str, Any]:
    return {"inner": optax.sgd(s.inner_rate), "meta_gradient": build_meta_gradient(s)}


def _maml_trpo(s: Settings, collect: rl.Collector, **options: Any) -> Training:
    return rl.maml_trpo(collect, steps=s.steps, optimizer=rl.trpo(s.outer_rate), **_inner(s), **options)


def _e_maml(s: Settings, collect: rl.Collector, **options: Any) -> Training:
    return rl.e_maml(collect, optimizer=rl.trpo(s.outer_rate), **_inner(s), **options)


def _maml_a2c(s: Settings, collect: rl.Collector, **options: Any) -> Training:
    return rl.maml_a2c(collect, steps=s.steps, optimizer=build_optimizer(s), **_inner(s), **options)


def _promp(s: Settings, collect: rl.Collector, **options: Any) -> Training:
    optimizer = build_optimizer(s, _EPOCHS)
    outer = {"optimizer": optimizer, "epochs": _EPOCHS, "kl_penalty": s.kl_penalty}
    return rl.promp(collect, steps=s.steps, **outer, **_inner(s), **options)


def _multi_task_ppo(s: Settings, collect: rl.Collector, **options: Any) -> Training:
    return rl.multi_task_ppo(collect, optimizer=build_optimizer(s, _EPOCHS), epochs=_EPOCHS, **options)


def _rl2(s: Settings, env: envs.BaseEnv, mesh: Mesh | None) -> Agent:
    trial = rl.Trial(env, s.episodes)
    policy = rl.RecurrentPolicy(trial.action_size, trial.discrete, s.hidden)
    epochs, minibatches = 4, max(n for n in (4, 3, 2, 1) if s.num_tasks % n == 0)
    optimizer = build_optimizer(s, epochs * minibatches)
    training = rl.rl2(
        trial,
        policy,
        num_tasks=s.num_tasks,
        optimizer=optimizer,
        discount=s.discount,
        trace_decay=s.trace_decay,
        epochs=epochs,
        minibatches=minibatches,
        entropy_weight=s.entropy_weight,
        mesh=mesh,
    )

    def play_trial(meta: MetaParams, task: PyTree, key: jax.Array, **options: bool) -> rl.Trajectory:
        memory = policy.empty_memory(1)
        return rl.rollout(trial, policy.apply, meta.params, task, key, episodes=1, memory=memory, **options)

    def test(meta: MetaParams, tasks: PyTree, key: jax.Array) -> Metrics:
        def in_task(task: PyTree, key: jax.Array) -> jax.Array:
            return trial.episode_returns(play_trial(meta, task, key))[0]

        returns = map_tasks(in_task, tasks, key, mesh)
        return constrain({"return": jnp.sum(returns, axis=1), **_numbered(returns)}, mesh)

    def play(meta: MetaParams, tasks: PyTree, key: jax.Array) -> PyTree:
        def in_task(task: PyTree, key: jax.Array) -> PyTree:
            states = play_trial(meta, task, key, states=True).states.pipeline_state[0]
            return jax.tree.map(lambda x: x[None, :, 0], states)

        return map_tasks(in_task, tasks, key, mesh)

    def init(key: jax.Array) -> PyTree:
        return policy.init(key, jnp.zeros((1, trial.observation_size)), policy.empty_memory(1))

    return Agent(init, training, test, play)


def _pearl(s: Settings, env: envs.BaseEnv, mesh: Mesh | None) -> Agent:
    if env.discrete:
        raise ValueError(f"pearl needs continuous actions, and those of {s.benchmark} are discrete")
    policy = rl.LatentPolicy(env.action_size, sizes=(s.hidden, s.hidden))
    tasks = env.sample_tasks(jax.random.key(s.seed), 100)
    updates = 200
    optimizer = build_optimizer(s, updates)
    training = rl.pearl(
        env,
        policy,
        tasks,
        num_tasks=s.num_tasks,
        episodes=s.episodes,
        updates=updates,
        optimizer=optimizer,
        discount=s.discount,
        entropy_weight=s.entropy_weight,
        mesh=mesh,
    )
    curve = partial(rl.pearl_curve, env, policy, s.test_steps, mesh=mesh)
    return Agent(
        lambda key: policy.init(key, jnp.zeros((1, env.observation_size)), policy.prior().mean),
        training,
        *_test_and_play(curve),
    )


# fmt: off
register_policy_learner("maml-trpo", _adapting(_maml_trpo), [
    recipe("environment", "Finn et al. 2017, https://arxiv.org/abs/1703.03400", steps=1, test_steps=3, inner_rate=0.1,
           meta_gradient="reverse", discount=0.99, trace_decay=1.0, outer_rate=0.01, num_tasks=20, episodes=20,
           batch_size=0),
], about=rl.maml_trpo, meta_gradients=UNROLLED)
register_policy_learner("promp", _adapting(_promp), [
    recipe("environment", "Rothfuss et al. 2019, half of its tasks", steps=1, test_steps=3, inner_rate=0.1,
           meta_gradient="reverse", discount=0.99, trace_decay=1.0, kl_penalty=5e-4, outer_rate=1e-3,
           outer_schedule="constant", clip=0.0, num_tasks=20, episodes=20, batch_size=0),
], about=rl.promp, meta_gradients=UNROLLED)
register_policy_learner("maml-a2c", _adapting(_maml_a2c), [
    recipe("environment", "ours", steps=1, test_steps=3, inner_rate=0.1, meta_gradient="reverse", discount=0.99,
           trace_decay=1.0, outer_rate=1e-3, outer_schedule="constant", clip=0.0, num_tasks=20, episodes=20,
           batch_size=0),
], about=rl.maml_a2c, meta_gradients=UNROLLED)
register_policy_learner("e-maml", _adapting(_e_maml), [
    recipe("environment", "as maml-trpo", test_steps=3, inner_rate=0.1, meta_gradient="reverse", discount=0.99,
           trace_decay=1.0, outer_rate=0.01, num_tasks=20, episodes=20, batch_size=0),
], about=rl.e_maml, meta_gradients=UNROLLED)
register_policy_learner("rl2", _rl2, [
    recipe("environment", "ours", episodes=2, num_tasks=256, discount=0.9, trace_decay=0.3, entropy_weight=0.01,
           outer_rate=3e-3, outer_schedule="constant", clip=0.5),
], about=rl.rl2)
register_policy_learner("pearl", _pearl, [
    recipe("environment", "Rakelly et al. 2019, https://arxiv.org/abs/1903.08254, with smaller networks", test_steps=3,
           discount=0.99, entropy_weight=0.2, episodes=5, num_tasks=16, outer_rate=3e-4, outer_schedule="constant",
           clip=0.0),
], about=rl.pearl)
register_policy_learner("multi-task-ppo", _adapting(_multi_task_ppo), [
    recipe("environment", "ours, as promp", test_steps=3, inner_rate=0.1, discount=0.99, trace_decay=1.0,
           outer_rate=1e-3, outer_schedule="constant", clip=0.0, num_tasks=20, episodes=20, batch_size=0),
], about=rl.multi_task_ppo)
# fmt: on
