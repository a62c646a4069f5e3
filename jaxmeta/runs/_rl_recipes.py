"""How an `RLExperiment` builds each learner, and the options that are left open: the values of the learner's paper."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta import envs, rl
from jaxmeta._parallel import constrain, map_tasks
from jaxmeta.runs._recipes import build_optimizer, make_meta_gradient
from jaxmeta._types import MetaParams, Metrics, PyTree

if TYPE_CHECKING:
    from jaxmeta.runs._rl_experiment import RLExperiment


class Agent(NamedTuple):
    """A policy, how it is meta-trained, and how it is tested."""

    init: Callable[[jax.Array], PyTree]
    """Initial parameters of the policy from a key."""
    training: rl.Training
    test: Callable[[MetaParams, PyTree, jax.Array], Metrics]
    """`(meta, tasks, key) -> metrics`, each `[num_tasks]`."""


class PolicyRecipe(NamedTuple):
    """One learner."""

    build: Callable[["RLExperiment", envs.BaseEnv, Mesh | None], Agent]
    """From an experiment without open options."""
    options: Mapping[str, Any]
    """The options that it has, as its paper has them."""


def _with_inner_loop(make: Callable[..., rl.Training]) -> Callable[["RLExperiment", envs.BaseEnv, Mesh | None], Agent]:
    """The agent of a learner that adapts by gradient steps."""

    def build(this: "RLExperiment", env: envs.BaseEnv, mesh: Mesh | None) -> Agent:
        network = rl.CategoricalPolicy if env.discrete else rl.GaussianPolicy
        policy = network(env.action_size, (this.hidden, this.hidden))
        collect = rl.Collector(env=env, policy=policy.apply, episodes=this.episodes or 1)
        rate = this.inner_rate or 0.0
        later_half = optax.sgd(optax.piecewise_constant_schedule(rate, {1: 0.5}))
        training = make(this, collect, num_tasks=this.num_tasks or 1, mesh=mesh)
        curve = rl.adaptation_curve(collect, later_half, this.test_steps or 1, mesh=mesh)
        return Agent(
            lambda key: policy.init(key, jnp.zeros((1, env.observation_size))),
            training,
            lambda *args: _named(curve(*args)),
        )

    return build


def _named(curve: rl.AdaptationCurve) -> Metrics:
    steps = {f"return_{i}": curve.sampled[:, i] for i in range(curve.sampled.shape[1])}
    return {"return": curve.sampled[:, -1], **steps, "mode_return": curve.mode[:, -1]}


def _inner(this: "RLExperiment") -> dict[str, Any]:
    return {
        "inner": optax.sgd(this.inner_rate or 0.0),
        "meta_gradient": make_meta_gradient(this.meta_gradient),
    }


def _maml_trpo(this: "RLExperiment", collect: rl.Collector, **options: Any) -> rl.Training:
    optimizer = rl.trpo(this.outer_rate or 0.0)
    return rl.maml_trpo(collect, steps=this.steps or 1, optimizer=optimizer, **_inner(this), **options)


def _e_maml(this: "RLExperiment", collect: rl.Collector, **options: Any) -> rl.Training:
    return rl.e_maml(collect, optimizer=rl.trpo(this.outer_rate or 0.0), **_inner(this), **options)


def _maml_a2c(this: "RLExperiment", collect: rl.Collector, **options: Any) -> rl.Training:
    return rl.maml_a2c(collect, steps=this.steps or 1, optimizer=build_optimizer(this), **_inner(this), **options)


def _promp(this: "RLExperiment", collect: rl.Collector, **options: Any) -> rl.Training:
    optimizer = build_optimizer(this, _EPOCHS)
    return rl.promp(collect, steps=this.steps or 1, optimizer=optimizer, epochs=_EPOCHS, **_inner(this), **options)


def _multi_task_ppo(this: "RLExperiment", collect: rl.Collector, **options: Any) -> rl.Training:
    return rl.multi_task_ppo(collect, optimizer=build_optimizer(this, _EPOCHS), epochs=_EPOCHS, **options)


def _rl2(this: "RLExperiment", env: envs.BaseEnv, mesh: Mesh | None) -> Agent:
    trial = rl.Trial(env, this.episodes or 1)
    policy = rl.RecurrentPolicy(trial.action_size, trial.discrete, this.hidden)
    num_tasks = this.num_tasks or 1
    epochs, minibatches = 4, max(n for n in (4, 3, 2, 1) if num_tasks % n == 0)
    optimizer = build_optimizer(this, epochs * minibatches)
    training = rl.rl2(
        trial, policy, num_tasks=num_tasks, optimizer=optimizer, epochs=epochs, minibatches=minibatches, mesh=mesh
    )

    def test(meta: MetaParams, tasks: PyTree, key: jax.Array) -> Metrics:
        def in_task(task: PyTree, key: jax.Array) -> jax.Array:
            memory = policy.empty_memory(1)
            data = rl.rollout(trial, policy.apply, meta.params, task, key, episodes=1, memory=memory)
            return rl.episode_returns(data)[0]

        return constrain({"return": map_tasks(in_task, tasks, key, mesh)}, mesh)

    def init(key: jax.Array) -> PyTree:
        return policy.init(key, jnp.zeros((1, trial.observation_size)), policy.empty_memory(1))

    return Agent(init, training, test)


def _pearl(this: "RLExperiment", env: envs.BaseEnv, mesh: Mesh | None) -> Agent:
    policy = rl.LatentPolicy(env.action_size, sizes=(this.hidden, this.hidden))
    tasks = env.sample_tasks(jax.random.key(this.seed), 100)
    updates = 200
    training = rl.pearl(
        env,
        policy,
        tasks,
        num_tasks=this.num_tasks or 1,
        episodes=this.episodes or 1,
        updates=updates,
        optimizer=build_optimizer(this, updates),
        mesh=mesh,
    )
    curve = rl.pearl_curve(env, policy, this.test_steps or 1, mesh=mesh)
    return Agent(
        lambda key: policy.init(key, jnp.zeros((1, env.observation_size)), policy.prior().mean),
        training,
        lambda *args: _named(curve(*args)),
    )


_EPOCHS = 5  # outer steps on the data of an iteration, as in ProMP
_ADAPTING = {"test_steps": 3, "inner_rate": 0.1, "episodes": 20, "num_tasks": 20}
_TRPO = {**_ADAPTING, "meta_gradient": "reverse", "outer_rate": 0.01}
_ADAM = {"outer_rate": 1e-3, "outer_schedule": "constant"}
_PROMP = {**_ADAPTING, "steps": 1, "meta_gradient": "reverse", **_ADAM}

POLICY_RECIPES: dict[str, PolicyRecipe] = {
    "maml-trpo": PolicyRecipe(_with_inner_loop(_maml_trpo), {**_TRPO, "steps": 1}),
    "promp": PolicyRecipe(_with_inner_loop(_promp), _PROMP),
    "maml-a2c": PolicyRecipe(_with_inner_loop(_maml_a2c), _PROMP),
    "e-maml": PolicyRecipe(_with_inner_loop(_e_maml), _TRPO),
    "rl2": PolicyRecipe(_rl2, {"episodes": 2, "num_tasks": 256, **_ADAM}),
    "pearl": PolicyRecipe(_pearl, {"test_steps": 3, "episodes": 5, "num_tasks": 16, **_ADAM, "outer_rate": 3e-4}),
    "multi-task-ppo": PolicyRecipe(_with_inner_loop(_multi_task_ppo), {**_ADAPTING, **_ADAM}),
}
