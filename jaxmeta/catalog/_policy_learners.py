"""Meta-reinforcement learners by name, with the values of their papers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh

from jaxmeta import envs, rl
from jaxmeta._types import Metrics, PyTree, Training
from jaxmeta.catalog._adapting_policies import POLICY, adapting, e_maml, maml_a2c, maml_trpo, multi_task_ppo, promp
from jaxmeta.catalog._agent import Agent, encoder_of, test_and_play
from jaxmeta.catalog._meta_gradients import UNROLLED, build_optimizer
from jaxmeta.catalog._options import Settings
from jaxmeta.catalog._registry import LEARNERS, Learner, Recipe, add, description, recipe

MEMORIES: dict[str, Callable[[int, int], Any]] = {
    "gru": lambda size, length: rl.GRU(size),
    "lstm": lambda size, length: rl.LSTM(size),
    "linear": lambda size, length: rl.LinearRecurrent(size),
    "transformer": lambda size, length: rl.CausalTransformer(size, context=length),
}
"""Makes the memories of recurrent policies, from their width and the length of a trial."""


def register_policy_learner(
    name: str,
    build: Callable[[Settings, envs.MetaEnv, Mesh | None], Agent],
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


def _per_episode(training: Training, episodes: int) -> Training:
    """Returns a training on trials whose returns are those of an episode, as at validation and test."""

    def step(state: Any, key: jax.Array) -> tuple[Any, Metrics]:
        state, metrics = training.step(state, key)
        return state, {**metrics, **{name: metrics[name] / episodes for name in ("loss", "return")}}

    return Training(training.init, step)


def _rl2(s: Settings, env: envs.MetaEnv, mesh: Mesh | None) -> Agent:
    trial = rl.Trial(env, s.episodes)
    memory = MEMORIES[s.memory](s.hidden, trial.horizon)
    policy = rl.RecurrentPolicy(trial.action_size, trial.discrete, memory, encoder_of(trial), s.init_std)
    return _on_trials(s, trial, policy, partial(rl.rl2, normalize=s.normalize), mesh)


def _varibad(s: Settings, env: envs.MetaEnv, mesh: Mesh | None) -> Agent:
    trial = rl.Trial(env, s.episodes)
    policy = rl.BeliefPolicy(trial.action_size, trial.discrete, rl.GRU(s.hidden))
    return _on_trials(s, trial, policy, rl.varibad, mesh)


def _on_trials(s: Settings, trial: rl.Trial, policy: Any, make: Callable[..., Training], mesh: Mesh | None) -> Agent:
    """The agent of a learner that trains a policy with a memory on trials, by PPO."""
    epochs, minibatches = 4, max(n for n in (4, 3, 2, 1) if s.num_tasks % n == 0)
    training = make(
        trial,
        policy,
        num_tasks=s.num_tasks,
        optimizer=build_optimizer(s, epochs * minibatches),
        discount=s.discount,
        trace_decay=s.trace_decay,
        epochs=epochs,
        minibatches=minibatches,
        entropy_weight=s.entropy_weight,
        mesh=mesh,
    )

    def init(key: jax.Array) -> PyTree:
        return policy.init(key, rl.example_observations(trial), policy.empty_memory(1))

    curve = partial(rl.trial_curve, trial, policy, mesh=mesh)
    return Agent(init, _per_episode(training, s.episodes), *test_and_play(curve))


def _pearl(s: Settings, env: envs.MetaEnv, mesh: Mesh | None) -> Agent:
    if env.discrete:
        raise ValueError(f"pearl needs continuous actions, and those of {s.benchmark} are discrete")
    size = None if isinstance(env.observation_size, int) else env.observation_size
    policy = rl.LatentPolicy(env.action_size, sizes=(s.hidden, s.hidden), observation_size=size)
    tasks = env.sample_tasks(jax.random.key(s.seed), 100)
    updates = 100
    optimizer = build_optimizer(s, updates)
    training = rl.pearl(
        env,
        policy,
        tasks,
        num_tasks=s.num_tasks,
        episodes=s.episodes,
        updates=updates,
        context_size=20,
        batch_size=64,
        kl_weight=3e-3,
        target_rate=0.05,
        optimizer=optimizer,
        discount=s.discount,
        entropy_weight=s.entropy_weight,
        normalize=s.normalize,
        mesh=mesh,
    )
    curve = partial(rl.pearl_curve, env, policy, s.test_steps, mesh=mesh)
    return Agent(
        lambda key: policy.init(key, rl.example_observations(env), policy.prior().mean),
        training,
        *test_and_play(curve),
    )


# fmt: off
register_policy_learner("maml-trpo", adapting(maml_trpo), [
    recipe("environment", "Finn et al. 2017, https://arxiv.org/abs/1703.03400", steps=1, test_steps=3, inner_rate=0.1,
           meta_gradient="reverse", discount=0.99, trace_decay=1.0, outer_rate=0.01, num_tasks=20, episodes=20,
           batch_size=0, surrogate="ratio",
           learned_rates=False, **POLICY),
], about=rl.maml_trpo, meta_gradients=UNROLLED)
register_policy_learner("promp", adapting(promp), [
    recipe("environment", "Rothfuss et al. 2019, half of its tasks", steps=1, test_steps=3, inner_rate=0.1,
           meta_gradient="reverse", discount=0.99, trace_decay=1.0, kl_penalty=5e-4, outer_rate=1e-3,
           outer_schedule="constant", clip=0.0, num_tasks=20, episodes=20, batch_size=0, surrogate="ratio",
           learned_rates=False, **POLICY),
], about=rl.promp, meta_gradients=UNROLLED)
register_policy_learner("maml-a2c", adapting(maml_a2c), [
    recipe("environment", "ours", steps=1, test_steps=3, inner_rate=0.1, meta_gradient="reverse", discount=0.99,
           trace_decay=1.0, outer_rate=1e-3, outer_schedule="constant", clip=0.0, num_tasks=20, episodes=20,
           batch_size=0, surrogate="reinforce",
           learned_rates=False, **POLICY),
], about=rl.maml_a2c, meta_gradients=UNROLLED)
register_policy_learner("e-maml", adapting(e_maml), [
    recipe("environment", "as maml-trpo", test_steps=3, inner_rate=0.1, meta_gradient="reverse", discount=0.99,
           trace_decay=1.0, outer_rate=0.01, num_tasks=20, episodes=20, batch_size=0, surrogate="reinforce",
           learned_rates=False, **POLICY),
], about=rl.e_maml, meta_gradients=UNROLLED)
register_policy_learner("rl2", _rl2, [
    recipe("environment", "ours", episodes=2, num_tasks=256, discount=0.9, trace_decay=0.3, entropy_weight=0.01,
           outer_rate=3e-3, outer_schedule="constant", clip=0.5, memory="gru",
           normalize=False, init_std=1.0),
], about=rl.rl2)
register_policy_learner("varibad", _varibad, [
    recipe("environment", "ours", episodes=2, num_tasks=64, discount=0.95, trace_decay=0.9, entropy_weight=0.05,
           outer_rate=3e-3, outer_schedule="constant", clip=0.5),
], about=rl.varibad)
register_policy_learner("pearl", _pearl, [
    recipe("environment", "ours, for short episodes; rl.pearl has the values of Rakelly et al. 2019 for bodies",
           test_steps=3, discount=0.9, entropy_weight=0.01, episodes=3, num_tasks=16, outer_rate=3e-3,
           outer_schedule="constant", clip=0.0, normalize=False),
], about=rl.pearl)
register_policy_learner("multi-task-ppo", adapting(multi_task_ppo), [
    recipe("environment", "ours, as promp", test_steps=3, inner_rate=0.1, discount=0.99, trace_decay=1.0,
           outer_rate=1e-3, outer_schedule="constant", clip=0.0, num_tasks=20, episodes=20, batch_size=0, **POLICY),
], about=rl.multi_task_ppo)
# fmt: on
