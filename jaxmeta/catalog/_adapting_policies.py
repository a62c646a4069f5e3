"""Policies that adapt by gradient steps, as learners by name."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from jaxmeta import envs, optim, rl
from jaxmeta._types import PyTree, Training
from jaxmeta.catalog._agent import Agent, encoder_of, test_and_play
from jaxmeta.catalog._lookup import build_meta_gradient
from jaxmeta.catalog._meta_gradients import build_optimizer
from jaxmeta.catalog._options import Settings

_EPOCHS = 5  # outer steps on the data of an iteration, as in ProMP
_SURROGATES: dict[str, Callable[..., jax.Array]] = {"ratio": rl.ratio, "reinforce": rl.reinforce, "dice": rl.dice}

POLICY = {"baseline": "linear", "normalize": False, "init_std": 1.0, "context_size": 0}
"""Options of every learner here, with their defaults."""


def adapting(make: Callable[..., Training]) -> Callable[[Settings, envs.MetaEnv, Mesh | None], Agent]:
    """The agent of a learner that adapts by gradient steps."""

    def build(s: Settings, env: envs.MetaEnv, mesh: Mesh | None) -> Agent:
        sizes, form = (s.hidden, s.hidden), {"encoder": encoder_of(env), "context_size": s.context_size}
        if env.discrete:
            policy = rl.CategoricalPolicy(env.action_size, sizes, **form)
        else:
            policy = rl.GaussianPolicy(env.action_size, sizes, init_std=s.init_std, **form)
        collect = rl.Collector(
            env=env,
            policy=policy.apply,
            episodes=s.episodes,
            discount=s.discount,
            trace_decay=s.trace_decay,
            baseline=rl.ValueNetwork(sizes, encoder_of(env)) if s.baseline == "value" else s.baseline,
            normalize=s.normalize,
        )
        training = make(s, collect, num_tasks=s.num_tasks, batch_size=s.batch_size or None, mesh=mesh)
        surrogate = _SURROGATES[s.surrogate] if "surrogate" in s else rl.ratio
        curve = partial(rl.adaptation_curve, collect, _at_test(s), s.test_steps, surrogate=surrogate, mesh=mesh)
        return Agent(lambda key: policy.init(key, rl.example_observations(env)), training, *test_and_play(curve))

    return build


def _at_test(s: Settings) -> optax.GradientTransformation:
    """Returns the inner optimizer at test: steps after the first are half as long, unless the rates are learned."""
    return _adapts(s, optax.piecewise_constant_schedule(s.inner_rate, {1: 0.5}))


def _adapts(s: Settings, rate: Any) -> optax.GradientTransformation:
    """Returns the inner optimizer: of all weights, or of the context alone."""
    steps = optim.scale_by_learned_rate(s.inner_rate) if s.get("learned_rates") else optax.sgd(rate)
    return optax.partition({True: steps, False: optax.set_to_zero()}, _is_context) if s.context_size else steps


def _is_context(params: PyTree) -> PyTree:
    """Returns which of a policy's parameters are its context."""
    return jax.tree.map_with_path(lambda path, _: jax.tree_util.DictKey("context") in path, params)


def _inner(s: Settings) -> dict[str, Any]:
    given = {"surrogate": _SURROGATES[s.surrogate], "meta_gradient": build_meta_gradient(s)}
    return {"inner": _adapts(s, s.inner_rate), **given}


def maml_trpo(s: Settings, collect: rl.Collector, **options: Any) -> Training:
    """MAML with TRPO outside."""
    return rl.maml_trpo(collect, steps=s.steps, optimizer=rl.trpo(s.outer_rate), **_inner(s), **options)


def e_maml(s: Settings, collect: rl.Collector, **options: Any) -> Training:
    """E-MAML."""
    return rl.e_maml(collect, optimizer=rl.trpo(s.outer_rate), **_inner(s), **options)


def maml_a2c(s: Settings, collect: rl.Collector, **options: Any) -> Training:
    """MAML with A2C outside."""
    return rl.maml_a2c(collect, steps=s.steps, optimizer=build_optimizer(s), **_inner(s), **options)


def promp(s: Settings, collect: rl.Collector, **options: Any) -> Training:
    """ProMP."""
    optimizer = build_optimizer(s, _EPOCHS)
    outer = {"optimizer": optimizer, "epochs": _EPOCHS, "kl_penalty": s.kl_penalty}
    return rl.promp(collect, steps=s.steps, **outer, **_inner(s), **options)


def multi_task_ppo(s: Settings, collect: rl.Collector, **options: Any) -> Training:
    """PPO on all tasks."""
    return rl.multi_task_ppo(collect, optimizer=build_optimizer(s, _EPOCHS), epochs=_EPOCHS, **options)
