"""Tests of policies, and findings on them: floors, the return in the course of adaptation, films of a test task."""

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from jaxmeta import rl
from jaxmeta._parallel import replicate
from jaxmeta._summary import Summary, summarize
from jaxmeta._types import MetaParams, PyTree
from jaxmeta.catalog import Agent
from jaxmeta.reports._findings import Film, Findings, Step, Tested
from jaxmeta.reports._pictures import film_of
from jaxmeta.reports._returns import returns_of

FLOOR, ORACLE = "a policy that does nothing useful", "a policy that knows the task"


def test_policy(
    env: Any,
    agent: Agent,
    meta: MetaParams,
    tasks: PyTree,
    key: jax.Array,
    scale: rl.ScoreScale | None = None,
    mesh: Mesh | None = None,
) -> Tested:
    """Adapts a policy to tasks, and measures its returns.

    Args:
        env: the environment.
        agent: the policy with its test.
        meta: the meta-parameters.
        tasks: the tasks.
        key: key of the test.
        scale: floor and oracle in these tasks; `None` for no scores.
        mesh: devices to divide the tasks over.
    """
    curve = jax.jit(agent.test)(*replicate((meta, tasks, key), mesh))
    returns = returns_of(env, tasks, curve, scale or rl.ScoreScale(None, None))
    return Tested(returns.metrics, returns=returns)


def measure_scale(env: Any, tasks: PyTree, key: jax.Array) -> rl.ScoreScale:
    """Returns the floor and the oracle of tasks, as far as the environment knows them."""
    return jax.jit(lambda tasks, key: rl.score_scale(env, tasks, key))(tasks, jax.random.fold_in(key, 1))


def examine_policy(
    env: Any, agent: Agent, meta: MetaParams, tested: Tested, untrained: Tested, tasks: PyTree, key: jax.Array
) -> Findings:
    """Returns what a report says of a policy in test tasks.

    Args:
        env: the environment.
        agent: the policy with its test.
        meta: the meta-parameters that were tested.
        tested: the test.
        untrained: the same test of the initial meta-parameters.
        tasks: the tasks of the test.
        key: key of the test.
    """
    returns: Any = tested.returns
    floors: dict[str, Mapping[str, Summary]] = {"the same learner before training": untrained.summaries}
    for name, values in {FLOOR: returns.floor, ORACLE: returns.oracle}.items():
        if values is not None:
            floors[name] = summarize({"return": values})
    steps = [Step(int(n), summarize(returns.metrics_at(place))) for place, n in enumerate(returns.episodes)]
    first = jax.tree.map(lambda x: x[:1], tasks)
    return Findings(floors, steps if len(steps) > 1 else [], films=_films(env, agent, meta, first, key))


def _films(env: Any, agent: Agent, meta: MetaParams, task: PyTree, key: jax.Array) -> list[Film]:
    """Returns films of the first episode and the last one in the course of adaptation."""
    if agent.play is None or not hasattr(env, "render"):
        return []
    states = jax.device_get(jax.jit(agent.play)(jax.device_get(meta), task, key))
    number = states.done.shape[1]
    titles = {0: "before adaptation"} | ({number - 1: "after adaptation"} if number > 1 else {})
    return [Film(title, film_of(env, jax.tree.map(lambda x, i=i: x[0, i], states))) for i, title in titles.items()]
