"""Checks of a learned inner optimizer."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from jaxmeta._learned import combine, partition
from jaxmeta._types import PyTree
from jaxmeta.testing._compare import check_close


def check_transform(transform: optax.GradientTransformation, params: PyTree) -> None:
    """Checks a learned transformation: that optax can carry its state, and that its learned part is found and used.

    That shapes and types are kept, also in bfloat16; and under `optax.masked` in a chain between clipping and momentum
    that a compiled `jax.lax.scan` of two updates equals eager ones, and that the updates depend on each learned array.
    The learned values are moved a little from where they start, as some (a zero last layer) hide others.

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
        given = jax.tree.map(lambda p, dtype=dtype: p.astype(dtype), params)
        kept = jax.eval_shape(lambda p: transform.update(p, transform.init(p), p), given)
        chex.assert_trees_all_equal_shapes_and_dtypes(kept, (given, jax.eval_shape(transform.init, given)))
    masked = optax.masked(transform, jax.tree.map(lambda _: True, params))
    chained = optax.chain(optax.clip_by_global_norm(1.0), masked, optax.trace(0.9))
    state = chained.init(params)
    learned, rest = partition(state)
    leaves, structure = jax.tree.flatten(learned)
    assert leaves, "no Learned value in the state"
    chex.assert_trees_all_equal(combine(learned, rest), state)

    def step(carry: Any, grads: PyTree) -> tuple[Any, PyTree]:
        params, state = carry
        updates, state = chained.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), updates

    def two_steps(leaves: list[jax.Array]) -> tuple[jax.Array, Any]:
        start = params, combine(structure.unflatten(leaves), rest)
        (_, state), updates = jax.lax.scan(step, start, jax.tree.map(lambda p: jnp.stack([p, -0.5 * p]), params))
        return optax.tree.norm(updates, squared=True), (updates, state)

    @jax.jit
    def moved(leaves: list[jax.Array]) -> tuple[Any, Any]:
        keys = jax.random.split(jax.random.key(0), len(leaves))
        noise = [jax.random.uniform(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
        moved = [0.99 * x + 0.01 * n for x, n in zip(leaves, noise, strict=True)]
        return moved, jax.grad(two_steps, has_aux=True)(moved)

    leaves, (gradients, compiled) = moved(leaves)
    carry, first = step((params, combine(structure.unflatten(leaves), rest)), params)
    (_, state), second = step(carry, jax.tree.map(lambda p: -0.5 * p, params))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), first, second)
    check_close(compiled, (stacked, state), "two updates in a compiled scan differ from eager ones")
    for gradient in gradients:
        assert bool(jnp.all(jnp.isfinite(gradient))), "the updates do not depend differentiably on a Learned value"
        assert bool(jnp.any(gradient != 0)), "the updates do not depend on some Learned value"
