"""Findings on policies: floors, the return in the course of adaptation, and films of a test task."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta import envs
from jaxmeta._summary import Summary, summarize
from jaxmeta._types import MetaParams, PyTree
from jaxmeta.catalog import Agent, Settings
from jaxmeta.reports._findings import Film, Findings, Step, Tested
from jaxmeta.reports._pictures import film_of


def examine_policy(
    settings: Settings,
    env: Any,
    agent: Agent,
    meta: MetaParams,
    tested: Tested,
    untrained: Tested,
    tasks: PyTree,
    key: jax.Array,
) -> Findings:
    """Returns what a report says of a policy in test tasks.

    Args:
        settings: settings of the run.
        env: the environment.
        agent: the policy with its test.
        meta: the meta-parameters that were tested.
        tested: the test.
        untrained: the same test of the initial meta-parameters.
        tasks: the tasks of the test.
        key: key of the test.
    """
    floors: dict[str, Mapping[str, Summary]] = {"the same learner before training": untrained.summaries}
    if hasattr(env, "floor_return"):
        floors["a policy that does nothing useful"] = summarize({"return": jax.vmap(env.floor_return)(tasks)})
    if hasattr(env, "oracle_action"):
        floors["a policy that knows the task"] = summarize({"return": _oracle(env, tasks, key)})
    each = settings.episodes if "inner_rate" in settings else 1  # the other learners see one episode at a time
    names = sorted((name for name in tested.metrics if re.fullmatch(r"return_\d+", name)), key=lambda n: int(n[7:]))
    found = tested.summaries
    steps = [Step(each * int(name[7:]), {"return": found[name]}) for name in names]
    first = jax.tree.map(lambda x: x[:1], tasks)
    return Findings(floors, steps if len(steps) > 1 else [], films=_films(env, agent, meta, first, key))


def _oracle(env: Any, tasks: PyTree, key: jax.Array) -> jax.Array:
    """Returns the return of the best actions in an episode of each task, `[num_tasks]`."""

    def in_task(task: PyTree, key: jax.Array) -> jax.Array:
        def step(carry: tuple[envs.State, jax.Array], _: None) -> tuple[Any, jax.Array]:
            state, going = carry
            after = env.step(state, env.oracle_action(state))
            return (after, going & (after.done == 0)), jnp.where(going, after.reward, 0)

        start = env.reset(key, task)
        return jnp.sum(jax.lax.scan(step, (start, jnp.array(True)), length=env.horizon)[1])

    return jax.jit(jax.vmap(in_task))(tasks, jax.random.split(key, jax.tree.leaves(tasks)[0].shape[0]))


def _films(env: Any, agent: Agent, meta: MetaParams, task: PyTree, key: jax.Array) -> list[Film]:
    """Returns films of the first episode and the last one in the course of adaptation."""
    if agent.play is None or not hasattr(env, "render"):
        return []
    states = jax.device_get(jax.jit(agent.play)(jax.device_get(meta), task, key))
    number = states.done.shape[1]
    if number == 1:
        return [Film("a whole trial", film_of(env, jax.tree.map(lambda x: x[0, 0], states)))]
    titles = {0: "before adaptation", number - 1: "after adaptation"}
    return [Film(title, film_of(env, jax.tree.map(lambda x, i=i: x[0, i], states))) for i, title in titles.items()]
