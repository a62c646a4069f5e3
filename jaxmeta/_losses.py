"""Loss functions for the common tasks, made from a model's `apply`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta._types import Batch, LossFn, Metrics, PyTree

Apply = Callable[[PyTree, jax.Array], Any]


def at_least_float32(tree: PyTree) -> PyTree:
    """Widens values of half precision to float32, such as the outputs of a model before a loss or a linear solve."""

    def widen(x: jax.Array) -> jax.Array:
        return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(widen, tree)


def classification(apply: Apply) -> LossFn:
    """Softmax cross-entropy with integer labels.

    Args:
        apply: `(params, x) -> logits [n, ways]`, such as a Linen module's `apply`. Half precision is widened to
            float32. For a model with randomness of its own (dropout), write the four lines of a `LossFn`, which gets a
            key.

    Returns:
        `(params, batch, key) -> (mean cross-entropy in nats, {"accuracy": share in [0, 1]})`.

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
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.y)
        accuracy = jnp.mean((jnp.argmax(logits, axis=-1) == batch.y).astype(jnp.float32))
        return jnp.mean(losses), {"accuracy": accuracy}

    return loss_fn


def regression(apply: Apply) -> LossFn:
    """Mean squared error.

    Args:
        apply: `(params, x) -> prediction`, of the shape of the targets.

    Returns:
        `(params, batch, key) -> (mean squared error, {})`.

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
        return jnp.mean(jnp.square(prediction - batch.y)), {}

    return loss_fn
