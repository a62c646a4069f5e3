"""Samplers that change the tasks of another sampler, or fix their number."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxmeta._checks import check_integer
from jaxmeta._types import Task, check_key, class_ids_of
from jaxmeta.data.samplers import sample_without_replacement
from jaxmeta.data.tasks._loading import Augment, augmentation_number
from jaxmeta.display import short_repr


@struct.dataclass
class Augmented:
    """A sampler whose tasks are augmented at random, on the device.

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
    """Sampler of tasks whose support and query are each a `Batch`."""
    augments: tuple[Augment, ...] = struct.field(pytree_node=False)
    """Augmentations of the inputs, in the order in which they apply."""

    __repr__ = short_repr

    @property
    def ways(self) -> Any:
        """Number of classes in a task, if the inner sampler knows it, else `None`."""
        return getattr(self.sampler, "ways", None)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, if those of the inner sampler have names."""
        return tuple(getattr(self.sampler, "class_names", ()))

    @property
    def example(self) -> jax.Array:
        """One input of zeros, for `model.init`: `[1, ...]`."""
        shape = jax.eval_shape(self, jax.random.key(0)).support.x
        return jnp.zeros((1, *shape.shape[1:]), shape.dtype)

    def __call__(self, key: jax.Array) -> Task:
        """Draws one task.

        Args:
            key: random key.

        Returns:
            The augmented task that the inner sampler draws for this key.
        """
        parts = list(self.sampler(key))
        for number, augment in enumerate(self.augments):
            for part, applies in enumerate((augment.support, augment.query)):
                if applies:
                    x = augment.fn(jax.random.fold_in(key, augmentation_number(number, part)), parts[part].x)
                    parts[part] = parts[part]._replace(x=x)
        return Task(*parts)

    def class_ids(self, key: jax.Array) -> jax.Array | None:
        """Returns the number of the class of each label in the task of a key, if the inner sampler knows it."""
        return class_ids_of(self.sampler, key)


@struct.dataclass
class FixedTasks:
    """A sampler of a fixed number of tasks, drawn by another sampler from fixed keys.

    Example:
        >>> import jax
        >>> from jaxmeta import data
        >>> sampler = data.FixedTasks(data.Sinusoid(), jax.random.key(0), num_tasks=2)
        >>> tasks = jax.jit(jax.vmap(sampler))(jax.random.split(jax.random.key(1), 100))
        >>> len(set(tasks.support.y[:, 0, 0].tolist()))
        2
    """

    sampler: Any
    """Sampler of the tasks."""
    key: jax.Array
    """Random key. Task `i` is drawn from `jax.random.fold_in(key, i)`."""
    num_tasks: int = struct.field(pytree_node=False)
    """Number of tasks."""

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_integer(num_tasks=self.num_tasks)

    @property
    def ways(self) -> Any:
        """Number of classes in a task, if the inner sampler knows it, else `None`."""
        return getattr(self.sampler, "ways", None)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, if those of the inner sampler have names."""
        return tuple(getattr(self.sampler, "class_names", ()))

    @property
    def example(self) -> jax.Array:
        """One input of zeros, for `model.init`: `[1, ...]`."""
        return self.sampler.example

    def __call__(self, key: jax.Array) -> Task:
        """Draws one of the tasks.

        Args:
            key: random key.

        Returns:
            The task.
        """
        return self.sampler(self._key(key))

    def class_ids(self, key: jax.Array) -> jax.Array | None:
        """Returns the number of the class of each label in the task of a key, if the inner sampler knows it."""
        return class_ids_of(self.sampler, self._key(key))

    def _key(self, key: jax.Array) -> jax.Array:
        """Returns the inner sampler's key of the task that a key draws."""
        check_key(self.key)
        return jax.random.fold_in(self.key, sample_without_replacement(key, self.num_tasks, 1)[0])
