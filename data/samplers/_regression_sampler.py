"""Regression tasks from any arrays, drawn on the device."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxmeta._checks import check_integer
from jaxmeta._types import Task
from jaxmeta.data.containers import as_array, as_labels, to_float
from jaxmeta.data.samplers._checks import Created, TaskSizes, check_enough, check_inputs
from jaxmeta.data.samplers._placement import Placement, place, zeros_for_model
from jaxmeta.data.samplers._regression import regression_task
from jaxmeta.data.samplers._sampling import draw, group
from jaxmeta.display import short_repr


@struct.dataclass
class RegressionSampler(Created):
    """A sampler of regression tasks over data of your own: the measurements of a person, a device or a place.

    A call draws one of the tasks, all equally likely, and from its examples `shots` for support and `queries` others
    for query. Make one with `RegressionSampler.create` or `RegressionSampler.from_tasks`. Keep some tasks for
    validation and test in samplers of their own.

    Example:
        >>> import jax, numpy as np
        >>> x = np.linspace(0, 1, 20, dtype=np.float32)
        >>> tasks = [(x, slope * x) for slope in (1.0, 2.0, 3.0)]
        >>> sampler = RegressionSampler.from_tasks(tasks, shots=5, queries=10)
        >>> task = jax.jit(lambda sampler, key: sampler(key))(sampler, jax.random.key(0))
        >>> task.support.x.shape, task.query.y.shape
        ((5, 1), (10, 1))
    """

    inputs: jax.Array
    """All inputs: `[M, ...]`."""
    targets: jax.Array
    """All targets: `[M, ...]`."""
    rows: jax.Array
    """Rows of the examples, task by task: `[M]`, int32."""
    starts: jax.Array
    """Position in `rows` of the first example of each task: `[tasks]`, int32."""
    counts: jax.Array
    """Number of examples of each task: `[tasks]`, int32."""
    shots: int = struct.field(pytree_node=False)
    """Number of support examples, K."""
    queries: int = struct.field(pytree_node=False)
    """Number of query examples, Q."""

    __repr__ = short_repr

    @classmethod
    def create(
        cls,
        inputs: Any,
        targets: Any,
        tasks: Any,
        *,
        shots: int = 10,
        queries: int = 10,
        device: Placement | None = None,
    ) -> "RegressionSampler":
        """Builds a sampler from three columns, such as those of a frame of pandas.

        Args:
            inputs: inputs: `[M, ...]`. Single numbers become vectors of one.
            targets: targets: `[M, ...]`. Single numbers become vectors of one.
            tasks: name or number of the task of each example, in any order: `[M]`.
            shots: number of support examples.
            queries: number of query examples.
            device: see `FewShot.create`.

        Returns:
            The sampler.

        Raises:
            TypeError: if an argument is no container, or tasks are named by something else than integers and strings.
            ValueError: if the columns do not match or are not numbers, or a task has fewer than `shots + queries`
                examples.
        """
        shots, queries = check_integer(shots=shots, queries=queries)
        columns = [check_inputs(inputs), check_inputs(targets, "targets")]
        names = as_labels(tasks, "tasks")
        if not len(columns[0]) == len(columns[1]) == len(names):
            sizes = f"{len(columns[0])} inputs, {len(columns[1])} targets and {len(names)} tasks"
            raise ValueError(f"inputs, targets and tasks must match, got {sizes}")
        x, y = (column[:, None] if column.ndim == 1 else column for column in columns)
        groups = group(names)
        check_enough(TaskSizes(1, (shots, queries), of="task"), groups.counts, groups.names)
        placed = place(x, (), device)[0]
        targets, rows, starts, counts = place(np.asarray(y), groups[1:], device)
        return cls(placed, targets, rows, starts, counts, shots, queries)

    @classmethod
    def from_tasks(
        cls, tasks: Sequence[tuple[Any, Any]], *, shots: int = 10, queries: int = 10, device: Placement | None = None
    ) -> "RegressionSampler":
        """Builds a sampler from a list of tasks.

        Args:
            tasks: inputs and targets of each task, `(x, y)`. Tasks may have different numbers of examples.
            shots: number of support examples.
            queries: number of query examples.
            device: see `FewShot.create`.

        Returns:
            The sampler.

        Raises:
            TypeError: if an input or a target is no container.
            ValueError: if a task is no pair, `x` and `y` do not match, or as in `create`.
        """
        found = []
        for number, task in enumerate(tasks):
            if not isinstance(task, tuple | list) or len(task) != 2:
                raise ValueError(f"tasks must be pairs (x, y), got {type(task).__name__} for task {number}")
            x, y = (np.asarray(as_array(part, name)) for part, name in zip(task, "xy", strict=True))
            if len(x) != len(y):
                raise ValueError(f"x and y must match, got {len(x)} and {len(y)} examples for task {number}")
            found.append((x, y))
        if not found:
            raise ValueError("tasks must have at least one pair (x, y), got none")
        x, y = (np.concatenate(parts) for parts in zip(*found, strict=True))
        numbers = np.repeat(np.arange(len(found)), [len(x) for x, _ in found])
        return cls.create(x, y, numbers, shots=shots, queries=queries, device=device)

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""
        return self.counts.shape[0]

    @property
    def example(self) -> jax.Array:
        """One input of zeros, as the model gets it, for `model.init`: `[1, ...]`."""
        return zeros_for_model(self.inputs)

    def __call__(self, key: jax.Array) -> Task:
        """Draws one task.

        Args:
            key: random key. The same key gives the same task.

        Returns:
            The task. The support set has `shots` inputs and targets, the query set `queries`.
        """
        bits = jax.random.bits(key, (1, 1 + self.shots + self.queries), jnp.uint32)
        rows = draw(bits, self.rows, self.starts, self.counts).rows[0]
        return regression_task(to_float(self.inputs[rows]), self.targets[rows], self.shots)
