"""Losses that tell training from test, carry a model's state, and know its predictions."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from jaxmeta._checks import check_takes
from jaxmeta._types import LossFn, Metrics, PyTree
from jaxmeta.display import brief, short_repr


class Loss(NamedTuple):
    """A loss that knows training from test.

    Meta-training uses `train`, in the inner loop and on the query set. `MetaLearner.adapt` and `MetaLearner.loss` use
    `test`, in the inner loop too. A plain function `(params, batch, key) -> (loss, metrics)` may stand wherever a
    `Loss` may. It is then used for both.
    """

    train: Callable[[PyTree, Any, jax.Array], tuple[Any, ...]]
    """`(variables, batch, key) -> (loss, metrics)`, or `(loss, metrics, variables)` for a model that changes its state,
    such as running statistics. The last value holds the variables after the pass."""
    test: LossFn
    """`(variables, batch, key) -> (loss, metrics)`."""
    predict: Callable[[PyTree, Any], Any] | None = None
    """`(variables, x) -> predictions` at test, for `MetaLearner.predict`."""

    __repr__ = short_repr

    def __call__(self, params: PyTree, batch: Any, key: jax.Array) -> tuple[jax.Array, Metrics]:
        """Returns the loss and the metrics of training."""
        return self.train(params, batch, key)[:2]

    def in_mode(self, training: bool) -> LossFn:
        """Returns the loss of training or test, without the state."""
        return self if training else self.test


def as_loss(loss_fn: LossFn | Loss) -> Loss:
    """Returns a `Loss`, where a plain function is used for training and test.

    Raises:
        TypeError: as `checked_loss`.
    """
    if isinstance(loss_fn, Loss):
        return loss_fn
    checked = checked_loss(loss_fn)
    return Loss(checked, checked)


def checked_loss(loss_fn: LossFn) -> LossFn:
    """Returns a loss with a check of what it returns, while it is traced.

    Raises:
        TypeError: if `loss_fn` is not a function of three arguments. When called, if it does not return a scalar and a
            dictionary.
    """
    if isinstance(loss_fn, Loss):
        return loss_fn
    if isinstance(loss_fn, nn.Module | nnx.Module):
        hint = f"jaxmeta.classification({type(loss_fn).__name__}(...)) or regression makes one"
        raise TypeError(f"loss_fn must be a function (params, batch, key) -> (loss, metrics), got a model: {hint}")
    check_takes(3, " (params, batch, key)", loss_fn=loss_fn)

    def checked(params: PyTree, batch: Any, key: jax.Array, /) -> tuple[jax.Array, Metrics]:
        found: Any = loss_fn(params, batch, key)
        if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], Mapping):
            raise TypeError(f"loss_fn must return (loss, metrics), with {{}} for no metrics, got {brief(found)}")
        if jnp.ndim(found[0]):
            raise TypeError(f"loss_fn must return a scalar loss, such as a mean, got shape {jnp.shape(found[0])}")
        return found

    return checked


def train_pass(loss: Loss, variables: PyTree, batch: Any, key: jax.Array) -> tuple[jax.Array, Metrics, PyTree]:
    """Returns the loss of training, its metrics, and the variables after the pass."""
    value, metrics, *after = loss.train(variables, batch, key)
    return value, metrics, after[0] if after else variables
