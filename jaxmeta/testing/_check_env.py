"""Check of an environment."""

from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._types import PyTree
from jaxmeta.envs import MetaEnv, ObservationSize, State
from jaxmeta.testing._compare import check_close


def check_env(
    env: MetaEnv,
    *,
    dynamics_differ: bool = False,
    fixed_start: bool = False,
    shared_tasks: bool = False,
    seen_tasks: bool = False,
) -> None:
    """Checks an environment by playing episodes of random actions.

    The checks are:

    - Observations have the form that `observation_size` tells.
    - Shapes and types stay the same, so that `jax.lax.scan` can carry the state.
    - All numbers are finite.
    - The same key gives the same episode, and another key gives another start.
    - Observations do not tell the task.
    - An episode is truncated at the horizon and not before.
    - A batch under `jax.vmap` equals single environments.
    - The two splits have no task in common.

    Args:
        env: the environment, with a horizon so short that random actions do not end every episode before it.
        dynamics_differ: whether the task changes the dynamics, so that only the first observations are compared.
        fixed_start: whether all episodes start with the same observation.
        shared_tasks: whether the splits have the same few tasks.
        seen_tasks: whether observations show a part of the task, so that those of two tasks are not compared.

    Raises:
        AssertionError: if a check fails.

    Example:
        >>> from jaxmeta import envs
        >>> check_env(envs.make("pendulum", horizon=5), dynamics_differ=True)
    """
    key, other_key = jax.random.split(jax.random.key(0))
    one, other = _two_tasks(env, key, shared_tasks)
    first = jax.eval_shape(env.reset, key)
    action = jax.eval_shape(lambda k: _random_action(env, k), key)
    _check_form(first.obs, env.observation_size, "observation_size")
    chex.assert_shape([first.reward, first.done, first.info["steps"], first.info["truncation"]], ())
    after = jax.eval_shape(env.step, first, action)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, first)
    weak = jax.tree.map(lambda x, y: x.weak_type != y.weak_type, after, first)
    assert not any(jax.tree.leaves(weak)), f"a step changes a weak type, so it is compiled twice: {weak}"

    def episode(key: jax.Array, task: PyTree) -> State:
        """Returns all states, including the first one."""

        def step(state: State, key: jax.Array) -> tuple[State, State]:
            return env.step(state, _random_action(env, key)), state

        last, states = jax.lax.scan(step, env.reset(key, task), jax.random.split(jax.random.key(1), env.horizon))
        return jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), states, last)

    def numbers(states: State) -> tuple[Any, ...]:
        return states.obs, states.reward, states.done, states.metrics, states.info["steps"], states.info["truncation"]

    lanes = [(key, one), (key, other), (other_key, one)]
    run = jax.jit(lambda keys, tasks: numbers(jax.vmap(episode)(keys, tasks)))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *lanes)
    results = run(*stacked)
    chex.assert_tree_all_finite(results)
    chex.assert_trees_all_equal(results, run(*stacked))
    alone = jax.jit(lambda *lane: numbers(episode(*lane)))(*lanes[0])
    early, early_alone = jax.tree.map(lambda x: x[0, :4], results), jax.tree.map(lambda x: x[:4], alone)
    check_close(early_alone, early, "vmap differs from a single environment", 1e-4)

    obs, _, done, _, steps, truncation = jax.tree.map(np.asarray, results)
    if not seen_tasks:
        seen = jax.tree.map(lambda x: x[:, :1] if dynamics_differ else x, obs)
        check_close(
            jax.tree.map(lambda x: x[0], seen),
            jax.tree.map(lambda x: x[1], seen),
            "the observation tells the task: with the same key and actions it differs in another task",
            1e-4,
        )
    starts_differ = any((x[0, 0] != x[2, 0]).any() for x in jax.tree.leaves(obs))
    assert fixed_start or starts_differ, "episodes of two keys start with the same observation"
    assert (steps == np.arange(env.horizon + 1)).all(), "info['steps'] does not count the steps"
    _check_truncation(done, truncation)


def _check_form(obs: PyTree, size: ObservationSize, name: str) -> None:
    """Checks that an observation is a vector of a length, an array of a shape, or a dictionary of these."""
    if isinstance(size, Mapping):
        assert isinstance(obs, dict) and set(obs) == set(size), f"{name} is {size}, but an observation is {obs}"
        for part, part_size in size.items():
            _check_form(obs[part], part_size, f"{name}[{part!r}]")
        return
    shape = (size,) if isinstance(size, int) else tuple(size)
    assert getattr(obs, "shape", None) == shape, f"{name} is {size}, but an observation is {obs}"


def _two_tasks(env: MetaEnv, key: jax.Array, shared_tasks: bool) -> tuple[PyTree, PyTree]:
    """Checks how tasks are drawn, and returns two different ones."""
    train, again, test = (env.sample_tasks(key, 100, split=split) for split in ("train", "train", "test"))
    chex.assert_tree_shape_prefix(train, (100,))
    chex.assert_trees_all_equal_shapes_and_dtypes(train, test)
    chex.assert_trees_all_equal(train, again)
    rows, test_rows = _rows(train), _rows(test)
    common = (rows[:, None] == test_rows).all(axis=-1).any()
    assert common == shared_tasks, "the splits " + ("have no task in common" if shared_tasks else "share a task")
    differs = (rows != rows[0]).any(axis=1)
    assert differs.any(), "a hundred tasks drawn from one key are all the same"
    return jax.tree.map(lambda x: x[0], train), jax.tree.map(lambda x: x[differs.argmax()], train)


def _check_truncation(done: np.ndarray, truncation: np.ndarray) -> None:
    """Checks the truncation of the episodes that last until the horizon."""
    lasts = ~done[:, :-1].any(axis=1)
    assert lasts.any(), "every episode ends before the horizon, so give the environment a shorter one"
    assert not truncation[lasts, :-1].any(), "an episode is truncated before the horizon"
    assert (truncation[lasts, -1] == 1).all() and (done[lasts, -1] == 1).all(), "no truncation at the horizon"


def _random_action(env: MetaEnv, key: jax.Array) -> jax.Array:
    """Draws an action uniformly."""
    if env.discrete:
        return jax.random.randint(key, (), 0, env.action_size)
    return jax.random.uniform(key, (env.action_size,), minval=-1)


def _rows(tasks: PyTree) -> np.ndarray:
    """Returns each task as one row of numbers."""
    return np.concatenate([np.reshape(x, (len(x), -1)) for x in jax.tree.leaves(tasks)], axis=1)
