"""Checks of a sampler."""

from typing import Any

import chex
import jax
import jax.numpy as jnp

from jaxmeta._types import Sampler
from jaxmeta.testing._compare import check_close


def check_sampler(sampler: Sampler) -> None:
    """Checks that a sampler is a pytree and a pure function of its key, alike under jit, vmap and on its own.

    Args:
        sampler: the sampler.

    Raises:
        AssertionError: if a check fails.

    Example:
        >>> from jaxmeta import data
        >>> check_sampler(data.Sinusoid())
    """
    keys = jax.random.split(jax.random.key(0), 3)

    def call(sampler: Sampler, key: jax.Array) -> Any:
        return sampler(key)

    sampler = jax.device_put(sampler)
    single = [jax.jit(call)(sampler, key) for key in keys]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *single)
    batched = jax.jit(jax.vmap(call, (None, 0)))
    with jax.transfer_guard("disallow"):
        first = batched(sampler, keys)
    chex.assert_trees_all_equal(first, batched(sampler, keys))
    check_close(first, stacked, "vmap differs from one at a time")
    check_close(sampler(keys[0]), single[0], "jit differs from eager")
    differs = jax.tree.map(lambda x: bool(jnp.any(x[0] != x[1])), first)
    assert any(jax.tree.leaves(differs)), "two keys give the same task"
