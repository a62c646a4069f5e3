"""Few-shot tasks as streams of classes, for online learners."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxmeta._checks import check_integer
from jaxmeta._types import Task, class_ids_of
from jaxmeta.data.samplers._checks import largest
from jaxmeta.data.samplers._sampling import sample_without_replacement
from jaxmeta.display import short_repr


@struct.dataclass
class Streams:
    """A sampler whose tasks are streams: one class after the other, each with an output drawn at random.

    Labels are random, so that an online learner cannot tell from the order of a stream which class comes next.

    Example:
        >>> from jaxmeta import data
        >>> streams = data.Streams(data.Glyphs(ways=3, shots=2, queries=1, size=8), outputs=100)
        >>> task = streams(jax.random.key(0))
        >>> task.support.y.shape, len(set(task.support.y.tolist())), bool(task.support.y.max() < 100)
        ((6,), 3, True)
    """

    tasks: Any
    """Sampler of few-shot tasks, which groups the examples of a task by class."""
    outputs: int = struct.field(pytree_node=False)
    """Number of outputs of the learner's head, at least the ways of the tasks."""

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_integer(outputs=self.outputs)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, if those of the inner sampler have names."""
        return tuple(getattr(self.tasks, "class_names", ()))

    @property
    def example(self) -> jax.Array:
        """One input of zeros, for `model.init`: `[1, ...]`."""
        return self.tasks.example

    def __call__(self, key: jax.Array) -> Task:
        """Draws one stream.

        Args:
            key: random key.

        Returns:
            A task whose labels are outputs, int32 in [0, outputs).

        Raises:
            ValueError: if a task has more classes than there are outputs.
        """
        task_key, outputs = self._outputs(key)
        return Task(*(part._replace(y=outputs[part.y]) for part in self.tasks(task_key)))

    def class_ids(self, key: jax.Array) -> jax.Array | None:
        """Returns the number of the class of each output in the stream of a key, -1 for none: `[outputs]`, int32."""
        task_key, outputs = self._outputs(key)
        found = class_ids_of(self.tasks, task_key)
        return None if found is None else jnp.full(self.outputs, -1, found.dtype).at[outputs].set(found)

    def _outputs(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the key of the task, and the output of each of its labels."""
        ways = largest(self.tasks.ways)
        if self.outputs < ways:
            raise ValueError(f"outputs must be at least the ways of the tasks, {ways}, got {self.outputs}")
        task_key, output_key = jax.random.split(key)
        return task_key, sample_without_replacement(output_key, self.outputs, ways)
