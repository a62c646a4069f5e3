"""Check of a learned inner optimizer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta._learned import combine, partition
from jaxmeta._types import PyTree
from jaxmeta.testing._compare import check_close, check_same_types


def check_transform(transform: optax.GradientTransformation, params: PyTree) -> None:
    """Checks that optax can carry the state of a learned transformation, and that its learned part is found and used.

    The learned values are first moved a little from where they start, because some (a last layer of zeros) hide others.
    The checks are:

    - Updates have the types of the gradients, and the state keeps its own, in float32 and in bfloat16.
    - The state has a `Learned` value.
    - Under `optax.masked`, in a chain between clipping and momentum, two updates in a `jax.lax.scan` equal two calls of
      a compiled update.
    - The updates depend differentiably on each learned array.

    Args:
        transform: the transformation.
        params: parameters of any shapes, nothing zero.

    Raises:
        AssertionError: if a check fails.

    Example:
        >>> from jaxmeta import optim
        >>> check_transform(optim.scale_by_learned_rate(0.1), {"w": jnp.ones((2, 3))})
    """
    for dtype in (jnp.float32, jnp.bfloat16):
        _check_types(transform, jax.tree.map(lambda p, dtype=dtype: p.astype(dtype), params))
    masked = optax.masked(transform, jax.tree.map(lambda _: True, params))
    chained = optax.chain(optax.clip_by_global_norm(1.0), masked, optax.trace(0.9))

    def step(carry: tuple[PyTree, Any], grads: PyTree) -> tuple[tuple[PyTree, Any], PyTree]:
        params, state = carry
        updates, state = chained.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), updates

    learned, rest = partition(jax.jit(chained.init)(params))
    assert jax.tree.leaves(learned), "the state has no Learned value"

    def two_steps(learned: PyTree) -> tuple[jax.Array, tuple[PyTree, Any]]:
        grads = jax.tree.map(lambda p: jnp.stack([p, -0.5 * p]), params)
        (_, state), updates = jax.lax.scan(step, (params, combine(learned, rest)), grads)
        return optax.tree.norm(updates, squared=True), (updates, state)

    moved = jax.jit(_moved)(learned)
    gradients, scanned = jax.jit(jax.grad(two_steps, has_aux=True))(moved)
    one_step = jax.jit(step)
    carry, first = one_step((params, combine(moved, rest)), params)
    (_, state), second = one_step(carry, jax.tree.map(lambda p: -0.5 * p, params))
    stacked = jax.tree.map(lambda *x: np.stack(x), first, second)
    check_close(scanned, (stacked, state), "two updates in a compiled scan differ from two calls of a compiled update")
    for path, gradient in jax.tree.leaves_with_path(gradients):
        where = jax.tree_util.keystr(path)
        assert np.all(np.isfinite(gradient)), f"the updates do not depend differentiably on the Learned value {where}"
        assert np.any(gradient != 0), f"the updates do not depend on the Learned value {where}"


def _check_types(transform: optax.GradientTransformation, params: PyTree) -> None:
    def update(params: PyTree) -> tuple[PyTree, Any, Any]:
        state = transform.init(params)
        return *transform.update(params, state, params), state

    updates, after, before = jax.eval_shape(update, params)
    check_same_types("the updates", updates, "the gradients", params)
    check_same_types("the state after an update", after, "the state before it", before)


def _moved(learned: PyTree) -> PyTree:
    """Returns a mean of the values and noise."""
    leaves, structure = jax.tree.flatten(learned)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    noise = [jax.random.uniform(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return structure.unflatten([0.99 * x + 0.01 * n for x, n in zip(leaves, noise, strict=True)])
