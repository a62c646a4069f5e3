"""Checks of a meta-learner."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from jaxmeta._step import evaluate, meta_step
from jaxmeta._types import MetaLearner, MetaParams, PyTree, Sampler, Task
from jaxmeta.testing._compare import check_close


def check_learner(learner: MetaLearner, params: PyTree, sampler: Sampler) -> None:
    """Checks a meta-learner on a small problem.

    That gradients and adapted values keep structure and type, jit equals eager, a sampled step traces once and moves
    nothing between host and device, seeds can be batched by `vmap`, the result does not depend on how tasks are
    batched, meta-training lowers the query loss, and adapting to a task then lowers its support loss.

    Args:
        learner: the learner.
        params: initial model parameters.
        sampler: a sampler of small tasks.

    Raises:
        AssertionError: if a check fails.

    Example:
        >>> import jaxmeta
        >>> learner = jaxmeta.maml(jaxmeta.regression(lambda w, x: x * w), optax.sgd(0.01))
        >>> check_learner(learner, jnp.array([1.0]), jaxmeta.data.Sinusoid())
    """
    meta = learner.init(params)
    key = jax.random.key(0)
    task = sampler(key)
    metrics, grads = learner.grad(meta, task, key)
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, meta)
    for name, value in metrics.items():
        chex.assert_shape(value, (), custom_message=f"metric {name!r} is no scalar")
    check_close(jax.jit(learner.grad)(meta, task, key), (metrics, grads), "jit differs from eager")
    _check_step(learner, meta, sampler)
    trained = _check_learns(learner, meta, sampler)
    _check_adapts(learner, trained, sampler)


def check_meta_gradient(learner: MetaLearner, params: PyTree, task: Task) -> None:
    """Checks in float64 that `learner.grad` is the derivative of the loss that it reports.

    Compares its component along a random direction with a central difference, to 1e-6. Not for learners whose
    meta-gradient is no such derivative: first-order ones, Reptile.

    Args:
        learner: the learner.
        params: initial model parameters, of any float type.
        task: a task, in any float type.

    Raises:
        AssertionError: if they differ.

    Example:
        >>> import jaxmeta
        >>> learner = jaxmeta.maml(jaxmeta.regression(lambda w, x: x * w), optax.sgd(0.01), steps=2)
        >>> check_meta_gradient(learner, jnp.array([1.0]), jaxmeta.data.Sinusoid()(jax.random.key(0)))
    """
    with jax.enable_x64(True):
        params, task = (
            jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
            for tree in (params, task)
        )
        meta = learner.init(params)
        key = jax.random.key(2)
        leaves, structure = jax.tree.flatten(meta)
        keys = jax.random.split(key, len(leaves))
        direction = structure.unflatten([jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)])
        grad = jax.jit(learner.grad)

        def loss(step: float) -> jax.Array:
            moved = jax.tree.map(lambda m, d: m + step * d, meta, direction)
            return grad(moved, task, key)[0]["loss"]

        h = 1e-6  # small: the loss after adaptation jumps where a ReLU of the inner loop flips
        derivative = optax.tree.vdot(grad(meta, task, key)[1], direction)
        check_close(derivative, (loss(h) - loss(-h)) / (2 * h), "meta-gradient differs from finite differences", 1e-6)


def _check_step(learner: MetaLearner, meta: MetaParams, sampler: Sampler) -> None:
    optimizer = optax.adam(1e-2)
    opt_state = optimizer.init(meta)
    keys = jax.random.split(jax.random.key(2), 2)
    on_device = jax.device_put((meta, opt_state, sampler))
    first, second = keys
    results = []
    for batch_size in (1, 2, 3):  # 2 leaves a batch of one over
        step, traces = _counted(meta_step(learner, optimizer, 3, batch_size=batch_size))
        results.append(step(*on_device, first))
        with jax.transfer_guard("disallow"):
            again = step(*on_device, second)
            step(*again[:2], on_device[2], first)
        assert len(traces) == 1, f"one step was traced {len(traces)} times"
    for other in results[1:]:
        check_close(other, results[0], "the result depends on batch_size", 1e-4)
    seeds = jax.vmap(meta_step(learner, optimizer, 3, batch_size=1), (None, None, None, 0))
    both = jax.jit(seeds)(meta, opt_state, sampler, keys)
    check_close(jax.tree.map(lambda x: x[0], both), results[0], "vmap over seeds differs from one seed", 1e-4)


def _check_adapts(learner: MetaLearner, meta: MetaParams, sampler: Sampler) -> None:
    def losses(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        own, other = (sampler(k).support for k in jax.random.split(key))
        adapted, misled = (learner.adapt(meta, support, key) for support in (own, other))
        return learner.loss(adapted, own, key)[0], learner.loss(misled, own, key)[0]

    own, other = jax.jit(jax.vmap(losses))(jax.random.split(jax.random.key(3), 32))
    assert float(own.mean()) < float(other.mean()), (
        f"adapting to a task is no better for its support set than adapting to another task: "
        f"loss {float(own.mean())} against {float(other.mean())}"
    )


def _check_learns(learner: MetaLearner, meta: MetaParams, sampler: Sampler) -> MetaParams:
    optimizer = optax.adam(3e-3)
    run = jax.jit(meta_step(learner, optimizer, 8, batch_size=8))
    test: Callable[..., Any] = jax.jit(evaluate(learner, 64, batch_size=64))
    key = jax.random.key(4)
    before = float(test(meta, sampler, key)["loss"].mean())
    opt_state = optimizer.init(meta)
    for k in jax.random.split(key, 100):
        meta, opt_state, _ = run(meta, opt_state, sampler, k)
    after = float(test(meta, sampler, key)["loss"].mean())
    assert after < before, f"meta-training raised the query loss: {before} to {after}"
    return meta


def _counted(fn: Callable[..., Any]) -> tuple[Callable[..., Any], list[int]]:
    """The jitted function, and a list that grows by one with every trace."""
    traces: list[int] = []

    def call(*args: Any) -> Any:
        traces.append(1)
        return fn(*args)

    return jax.jit(call), traces
