"""Check of a sampler."""

import chex
import jax
import numpy as np

from jaxmeta._types import Sampler, Task
from jaxmeta.testing._compare import check_close


def check_sampler(sampler: Sampler) -> None:
    """Checks that a sampler is a pytree and a pure function of its key.

    The same key must give the same task whether the sampler is called directly, in a compiled function whose argument
    it is, or under `jax.vmap` over keys, and another key must give another task.

    Args:
        sampler: the sampler.

    Raises:
        AssertionError: if a check fails.

    Example:
        >>> from jaxmeta import data
        >>> check_sampler(data.Sinusoid())
    """
    keys = jax.random.split(jax.random.key(0), 3)
    try:
        argument = jax.device_put(sampler)
    except TypeError as error:
        raise AssertionError(f"{type(sampler).__name__} is no pytree of arrays: register its class") from error

    def call(sampler: Sampler, key: jax.Array) -> Task:
        return sampler(key)

    single, batched = jax.jit(call), jax.jit(jax.vmap(call, (None, 0)))
    tasks = batched(argument, keys)
    differs = [not np.array_equal(x[0], x[1]) for x in jax.tree.leaves(tasks)]
    assert any(differs), "two keys give the same task"
    with jax.transfer_guard("disallow"):
        again = batched(argument, keys)
    chex.assert_trees_all_equal(again, tasks, custom_message="a second call with the same keys gives other tasks")
    one_by_one = [single(argument, key) for key in keys]
    stacked = jax.tree.map(lambda *x: np.stack(x), *one_by_one)
    check_close(stacked, tasks, "the tasks of several keys under vmap differ from those of single keys")
    check_close(sampler(keys[0]), one_by_one[0], "a compiled call differs from a direct one")
