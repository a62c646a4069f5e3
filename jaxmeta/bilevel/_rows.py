"""Minibatches of training and of validation data, whose training examples know their rows."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxmeta._checks import check_integer
from jaxmeta._types import Batch, Task
from jaxmeta.display import short_repr


class _Examples(NamedTuple):
    """Examples and where they came from, as `Rows` has them."""

    x: Any
    """Inputs: `[n, ...]`."""
    y: Any
    """Targets: `[n, ...]`."""
    index: Any  # pyright: ignore[reportIncompatibleMethodOverride]
    """Row of each example in the training data: `[n]`."""


class Rows(_Examples):
    """A batch that knows the rows of its examples in the training data.

    Losses take it as a `jaxmeta.Batch` without weights.
    """

    __slots__ = ()

    @property
    def weight(self) -> Any:
        """None, which counts all examples alike."""
        return None

    __repr__ = short_repr


@struct.dataclass
class TrainAndValidation:
    """Random minibatches of training data, to fit, and of validation data, to be good at: tasks for `bilevel_step`.

    Examples are drawn with replacement, equally likely.

    Attributes:
        train: training data, inputs and targets of all examples.
        validation: validation data, which are trusted.
        size: training examples in a minibatch (default: 64).
        validation_size: validation examples in a minibatch (default: 64).

    Raises:
        ValueError: if a size is less than 1.

    Example:
        >>> data = Batch(jnp.zeros((100, 5)), jnp.zeros(100, int))
        >>> task = TrainAndValidation(data, data, size=8, validation_size=4)(jax.random.key(0))
        >>> task.support.x.shape, task.support.index.shape, task.query.y.shape
        ((8, 5), (8,), (4,))
    """

    train: Batch
    validation: Batch
    size: int = struct.field(pytree_node=False, default=64)
    validation_size: int = struct.field(pytree_node=False, default=64)

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_integer(size=self.size, validation_size=self.validation_size)

    @property
    def example(self) -> jax.Array:
        """One input of zeros, for `model.init`: `[1, ...]`."""
        return jnp.zeros_like(self.train.x[:1])

    def __call__(self, key: jax.Array) -> Task:
        """Draws a minibatch of each.

        Args:
            key: a random key.

        Returns:
            A `Task` with `Rows` of the training data as support, and a `Batch` of validation data as query.
        """
        support_key, query_key = jax.random.split(key)
        rows = jax.random.randint(support_key, (self.size,), 0, jnp.shape(self.train.y)[0])
        others = jax.random.randint(query_key, (self.validation_size,), 0, jnp.shape(self.validation.y)[0])
        return Task(
            Rows(self.train.x[rows], self.train.y[rows], rows),
            Batch(self.validation.x[others], self.validation.y[others]),
        )
