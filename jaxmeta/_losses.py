"""Loss functions for the common tasks, made from a model's `apply`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_labels
from jaxmeta._types import Batch, LossFn, Metrics, PyTree

Apply = Callable[[PyTree, jax.Array], Any]


def at_least_float32(tree: PyTree) -> PyTree:
    """Widens values of half precision to float32, such as the outputs of a model before a loss or a linear solve."""

    def widen(x: jax.Array) -> jax.Array:
        return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(widen, tree)


def weighted_mean(values: jax.Array, weight: jax.Array | None, axis: int | None = None) -> jax.Array:
    """Mean of the examples' values with `Batch.weight`, for a loss of your own.

    A value of weight 0 has no influence, not even if it is infinite. The mean is 0 if all weights are.

    Args:
        values: values of each example, `[n, ...]`.
        weight: weights `[n]`, not negative, or booleans. `None` counts all examples alike.
        axis: `None` (default) for the mean of all values, or 0 for that over the examples.

    Returns:
        The mean: a scalar, or `[...]` with `axis=0`.

    Example:
        >>> float(weighted_mean(jnp.array([2.0, 4.0, jnp.inf]), jnp.array([3, 1, 0])))
        2.5
    """
    if weight is None:
        return jnp.mean(values, axis)
    weights = jnp.broadcast_to(jnp.reshape(weight, (-1, *[1] * (values.ndim - 1))), values.shape).astype(values.dtype)
    total = jnp.sum(weights, axis)
    return jnp.sum(weights * jnp.where(weights > 0, values, 0), axis) / jnp.where(total > 0, total, 1)


def classification(apply: Apply) -> LossFn:
    """Softmax cross-entropy with integer labels.

    Args:
        apply: `(params, x) -> logits [n, ways]`, such as a Linen module's `apply`. Half precision is widened to
            float32. For a model with randomness of its own (dropout), write the four lines of a `LossFn`, which gets a
            key.

    Returns:
        `(params, batch, key) -> (mean cross-entropy in nats, {"accuracy": share in [0, 1]})`. The means have the
        weights of the batch. When called with concrete labels, it raises a `ValueError` if one is not from 0 to
        `ways - 1`.

    Example:
        >>> loss_fn = classification(lambda w, x: x @ w)
        >>> batch = Batch(jnp.eye(2), jnp.array([0, 1]))
        >>> loss, metrics = loss_fn(10.0 * jnp.eye(2), batch, jax.random.key(0))
        >>> float(metrics["accuracy"])
        1.0
    """

    def loss_fn(params: PyTree, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        del key
        logits = at_least_float32(apply(params, batch.x))
        check_labels(batch.y, logits.shape[-1], batch.weight)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.y)
        correct = (jnp.argmax(logits, axis=-1) == batch.y).astype(jnp.float32)
        return weighted_mean(losses, batch.weight), {"accuracy": weighted_mean(correct, batch.weight)}

    return loss_fn


def regression(apply: Apply) -> LossFn:
    """Mean squared error.

    Args:
        apply: `(params, x) -> prediction`, of the shape of the targets.

    Returns:
        `(params, batch, key) -> (mean squared error, {})`, a mean with the weights of the batch.

    Example:
        >>> loss_fn = regression(lambda w, x: w * x)
        >>> float(loss_fn(jnp.array(2.0), Batch(jnp.ones((3, 1)), jnp.zeros((3, 1))), jax.random.key(0))[0])
        4.0
    """

    def loss_fn(params: PyTree, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        del key
        prediction = at_least_float32(apply(params, batch.x))
        if prediction.shape != batch.y.shape:
            raise ValueError(f"apply must return the targets' shape {batch.y.shape}, got {prediction.shape}")
        return weighted_mean(jnp.square(prediction - batch.y), batch.weight), {}

    return loss_fn
