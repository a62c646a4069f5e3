"""Samplers around samplers."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxmeta._types import Batch, Task
from jaxmeta.data.samplers import check_positive, sample_without_replacement
from jaxmeta.data.tasks._loading import Augment, augment_data


@struct.dataclass
class Augmented:
    """A sampler whose tasks are changed at random, on the device.

    Example:
        >>> import jax, numpy as np
        >>> from functools import partial
        >>> from jaxmeta import data
        >>> images, labels = np.zeros((12, 28, 28, 1), np.uint8), np.arange(12) // 4
        >>> crop = data.Augment(partial(data.random_crop, padding=4), query=False)
        >>> sampler = data.Augmented(data.FewShot.create(images, labels, ways=2, queries=3), (crop,))
        >>> jax.jit(lambda sampler, key: sampler(key))(sampler, jax.random.key(0)).support.x.shape
        (2, 28, 28, 1)
    """

    sampler: Any
    """What draws the tasks: a sampler whose tasks are of two `Batch`es."""
    augments: tuple[Augment, ...] = struct.field(pytree_node=False)
    """What changes their inputs, in this order."""

    @property
    def example(self) -> jax.Array:
        """One input of zeros, for `model.init`: `[1, ...]`."""
        shape = jax.eval_shape(self, jax.random.key(0)).support.x
        return jnp.zeros((1, *shape.shape[1:]), shape.dtype)

    def __call__(self, key: jax.Array) -> Task:
        """Draw one task.

        Args:
            key: A random key.

        Returns:
            The task of the inner sampler for this key, augmented.
        """
        parts = list(self.sampler(key))
        for place_, augment in enumerate(self.augments):
            for i, wanted in enumerate((augment.support, augment.query)):
                if wanted:
                    x = augment.fn(jax.random.fold_in(key, augment_data(place_, i)), parts[i].x)
                    parts[i] = Batch(x, parts[i].y)
        return Task(*parts)


@struct.dataclass
class FixedTasks:
    """A sampler of a fixed number of tasks: those of another sampler for as many keys.

    Example:
        >>> import jax
        >>> from jaxmeta import data
        >>> sampler = data.FixedTasks(data.Sinusoid(), jax.random.key(0), num_tasks=2)
        >>> tasks = jax.jit(jax.vmap(sampler))(jax.random.split(jax.random.key(1), 100))
        >>> len(set(tasks.support.y[:, 0, 0].tolist()))
        2
    """

    sampler: Any
    """What draws the tasks."""
    key: jax.Array
    """Task `i` is the sampler's for `jax.random.fold_in(key, i)`."""
    num_tasks: int = struct.field(pytree_node=False)
    """How many tasks there are."""

    def __post_init__(self) -> None:
        check_positive(num_tasks=self.num_tasks)

    @property
    def example(self) -> jax.Array:
        """One input of zeros, for `model.init`: `[1, ...]`."""
        return self.sampler.example

    def __call__(self, key: jax.Array) -> Task:
        """Draw one of the tasks.

        Args:
            key: A random key.

        Returns:
            The task.
        """
        return self.sampler(jax.random.fold_in(self.key, sample_without_replacement(key, self.num_tasks, 1)[0]))
