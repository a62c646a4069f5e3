"""Few-shot classification tasks from any labeled arrays, drawn on the device."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxmeta._checks import check_choice
from jaxmeta._types import Batch, Task
from jaxmeta.data.containers import as_labels, to_float, warn_of_inputs
from jaxmeta.data.samplers._checks import (
    ArrayLike,
    Created,
    Size,
    TaskSizes,
    check_enough,
    check_examples,
    check_inputs,
    check_sizes,
    largest,
)
from jaxmeta.data.samplers._placement import Placement, place, zeros_for_model
from jaxmeta.data.samplers._sampling import Draw, ExampleIndex, Groups, draw, draw_sizes, group, rotate, sort_classes
from jaxmeta.display import short_repr


@struct.dataclass
class FewShot(Created):
    """A sampler of N-way K-shot tasks over labeled examples.

    A call draws one task. It draws `ways` classes, all equally likely and in random order, and labels them
    `0 ... ways - 1`. From each class it draws `shots` support and `queries` query examples without replacement. Classes
    may have different numbers of examples. The examples of a task are grouped by class: the first `shots` rows of the
    support set have label 0, the next have label 1, and so on.

    A pair such as `ways=(5, 20)` is the least and the most of a number that is drawn for each task, all equally likely.
    Tasks are then padded to the most, so that one compiled program serves all of them. `Batch.weight` is 1 for the
    examples of a task and 0 for padding, which has inputs from the data set.

    The sampler is a pytree that holds the data. Pass it to a jitted function as an argument, and do not close over it.

    Example:
        >>> import jax, numpy as np
        >>> images = np.zeros((12, 28, 28, 1), np.uint8)
        >>> sampler = FewShot.create(images, np.arange(12) // 4, ways=2, shots=1, queries=3)
        >>> draw = jax.jit(lambda sampler, keys: jax.vmap(sampler)(keys))
        >>> tasks = draw(sampler, jax.random.split(jax.random.key(0), 32))
        >>> tasks.support.x.shape, tasks.query.x.shape, tasks.query.y[0].tolist()
        ((32, 2, 28, 28, 1), (32, 6, 28, 28, 1), [0, 0, 0, 1, 1, 1])

    References:
        Vinyals et al., Matching Networks for One Shot Learning, 2016, https://arxiv.org/abs/1606.04080
    """

    inputs: jax.Array
    """All examples: `[M, ...]`. Images in uint8 reach the model as float32 in [0, 1], other types unchanged."""
    rows: jax.Array
    """Rows of `inputs`, class by class: `[M]`, int32."""
    starts: jax.Array
    """Position in `rows` of the first example of each class: `[classes]`, int32."""
    counts: jax.Array
    """Number of examples of each class: `[classes]`, int32."""
    ways: Size = struct.field(pytree_node=False)
    """Number of classes in a task, N."""
    shots: Size = struct.field(pytree_node=False)
    """Number of support examples per class, K."""
    queries: Size = struct.field(pytree_node=False)
    """Number of query examples per class, Q."""
    rotations: int = struct.field(pytree_node=False, default=1)
    """4 if each class rotated by 90, 180 and 270 degrees counts as a class of its own, else 1."""
    replacement: bool = struct.field(pytree_node=False, default=False)
    """True if the examples of a class are drawn with replacement. A query example may then be a support example too."""
    shuffle: bool = struct.field(pytree_node=False, default=True)
    """True if the classes of a task are in random order, else they are sorted by rotation, then by number."""
    class_names: tuple[str, ...] = struct.field(pytree_node=False, default=())
    """Names of the classes, in the order of `counts`. Empty if the labels are numbers."""

    __repr__ = short_repr

    @classmethod
    def create(
        cls,
        inputs: Any,
        labels: Any = None,
        *,
        ways: Size = 5,
        shots: Size = 1,
        queries: Size = 15,
        rotations: int = 1,
        replacement: bool = False,
        device: Placement | None = None,
    ) -> "FewShot":
        """Builds a sampler from examples and their labels.

        Args:
            inputs: examples: `[M, ...]`, for images `[M, H, W, C]`. Arrays, lists, series and frames are read by
                position. `Examples` bring their own labels.
            labels: class of each example, any integers or strings in any order: `[M]`.
            ways: number of classes in a task, N, or a pair `(least, most)`, as the next two.
            shots: number of support examples per class, K.
            queries: number of query examples per class, Q.
            rotations: 4 to treat each class rotated by 90, 180 and 270 degrees as a class of its own (Santoro et al.
                2016). All examples of a class in a task are rotated alike, on the device. 1 for no rotations.
            replacement: whether to draw the examples of a class with replacement.
            device: device of the examples, by default JAX's default device. A `NamedSharding` of the first axis
                divides them among the devices of a mesh, for data that one device cannot hold. XLA then sends the
                indices of a task to all devices, each device looks up its own examples, and the results are added.
                The tasks are the same, but every example is communicated, so do this only when you must.

        Returns:
            The sampler.

        Raises:
            TypeError: if the labels are missing or neither integers nor strings, or an argument is no container.
            ValueError: if the arrays are empty, do not match or have the wrong shape, if there are fewer than `ways`
                classes, or if a class has fewer than `shots + queries` examples.
        """
        inputs, labels = check_examples(inputs, labels)
        sizes = TaskSizes(ways, (shots, queries), replacement)
        return from_groups(inputs, group(labels), sizes, rotations, device)

    @classmethod
    def from_classes(
        cls,
        inputs: ArrayLike,
        *,
        ways: Size = 5,
        shots: Size = 1,
        queries: Size = 15,
        rotations: int = 1,
        names: Any = None,
        device: Placement | None = None,
    ) -> "FewShot":
        """Builds a sampler from examples that are already grouped, the same number for each class.

        Args:
            inputs: examples by class: `[classes, examples, ...]`, for images `[classes, examples, H, W, C]`.
            ways: number of classes in a task, N, or a pair `(least, most)`, as the next two.
            shots: number of support examples per class, K.
            queries: number of query examples per class, Q.
            rotations: see `create`.
            names: name of each class, if the classes have names: `[classes]`.
            device: see `create`.

        Returns:
            The sampler.

        Raises:
            ValueError: in the cases of `create`.

        Example:
            >>> import numpy as np
            >>> FewShot.from_classes(np.zeros((30, 20, 8, 8, 1)), ways=20, queries=1, rotations=4).num_classes
            120
        """
        if inputs.ndim < 2 or 0 in inputs.shape[:2]:
            raise ValueError(f"inputs must be a non-empty [classes, examples, ...], got shape {inputs.shape}")
        classes, examples = inputs.shape[:2]
        flat = check_inputs(inputs.reshape(classes * examples, *inputs.shape[2:]))
        found = np.arange(classes) if names is None else as_labels(names, "names").astype(str)
        if len(found) != classes:
            raise ValueError(f"names must match inputs: got {len(found)} names for {classes} classes")
        rows = np.arange(classes * examples, dtype=np.int32)
        groups = Groups(found, rows, rows[::examples], np.full(classes, examples, np.int32))
        return from_groups(flat, groups, TaskSizes(ways, (shots, queries)), rotations, device)

    def with_sizes(
        self, *, ways: Size | None = None, shots: Size | None = None, queries: Size | None = None
    ) -> "FewShot":
        """Returns a sampler over the same arrays with other task sizes, checked as in `create`.

        Args:
            ways: number of classes in a task, or a pair. `None` keeps the present number, here and below.
            shots: number of support examples per class.
            queries: number of query examples per class.

        Returns:
            The new sampler, which shares the arrays.

        Raises:
            ValueError: if a size is not a positive integer or a pair of them, or the data has too few classes or
                examples.
        """
        ways, shots, queries = check_sizes(
            ways=self.ways if ways is None else ways,
            shots=self.shots if shots is None else shots,
            queries=self.queries if queries is None else queries,
        )
        counts = np.asarray(jax.device_get(self.counts))
        sizes = TaskSizes(ways, (shots, queries), self.replacement)
        check_enough(sizes, counts, np.array(self.class_names or range(len(counts))), self.rotations)
        return dataclasses.replace(self, ways=ways, shots=shots, queries=queries)

    @property
    def num_classes(self) -> int:
        """Number of classes to draw from, including rotations."""
        return self.rotations * self.counts.shape[0]

    @property
    def example(self) -> jax.Array:
        """One input of zeros, as the model gets it, for `model.init`: `[1, ...]`."""
        return zeros_for_model(self.inputs)

    def __call__(self, key: jax.Array) -> Task:
        """Draws one task.

        Args:
            key: random key. The same key gives the same task.

        Returns:
            The task. The support set has `x: [ways * shots, ...]` and `y: [ways * shots]` (int32). The query set has
            `queries` examples per class. Both have a `weight` if a size of theirs is a pair.
        """
        return Task(*(part._replace(x=self.gather(part.x)) for part in self.indices(key)))

    def indices(self, key: jax.Array) -> Task:
        """Draws the same task as a call, without its inputs.

        Args:
            key: random key.

        Returns:
            The task, with an `ExampleIndex` in place of the inputs `x`.
        """
        ways, shots, queries = draw_sizes(key, self.ways, self.shots, self.queries)
        _, turns, rows = self._draw(key, ways)
        most_ways, most_shots = largest(self.ways), largest(self.shots)

        def part(rows: jax.Array, size: int | jax.Array) -> Batch:
            repeats = rows.shape[1]
            labels = jnp.repeat(jnp.arange(most_ways, dtype=jnp.int32), repeats)
            index = ExampleIndex(rows.reshape(-1), jnp.repeat(turns, repeats))
            if isinstance(ways, int) and isinstance(size, int):
                return Batch(index, labels)
            counts = (labels < ways) & (jnp.tile(jnp.arange(repeats), most_ways) < size)
            return Batch(index, labels, counts.astype(jnp.float32))

        return Task(support=part(rows[:, :most_shots], shots), query=part(rows[:, most_shots:], queries))

    def class_ids(self, key: jax.Array) -> jax.Array:
        """Returns the number of the class of each label in the task of a key: `[ways]`, int32.

        A number is an index of `class_names`. With rotations the classes are counted once for each quarter turn.
        """
        classes, turns, _ = self._draw(key, draw_sizes(key, self.ways)[0])
        return turns * self.counts.shape[0] + classes

    def _draw(self, key: jax.Array, ways: int | jax.Array) -> Draw:
        """Draws the classes of a task of so many ways, in the order of its labels, and their examples."""
        per_class = largest(self.shots) + largest(self.queries)
        bits = jax.random.bits(key, (largest(self.ways), 1 + per_class), jnp.uint32)  # one call for a task
        drawn = draw(bits, self.rows, self.starts, self.counts, self.rotations, self.replacement)
        return drawn if self.shuffle else sort_classes(drawn, ways)

    def gather(self, index: ExampleIndex) -> jax.Array:
        """Returns the inputs of an index, rotated and scaled for the model.

        Args:
            index: the `x` of a part of the task that `indices` returns: `[n]`.

        Returns:
            Inputs: `[n, ...]`.
        """
        x = self.inputs.at[index.example].get(mode="promise_in_bounds")
        x = rotate(x, index.turns) if self.rotations > 1 else x
        return to_float(jax.lax.optimization_barrier(x))  # fusing the gather and the scaling is slower on a CPU


def from_groups(
    inputs: ArrayLike, groups: Groups, sizes: TaskSizes, rotations: int, device: Placement | None
) -> FewShot:
    """Builds a sampler from grouped examples and checks it.

    Args:
        inputs: examples: `[M, ...]`.
        groups: the examples of each class.
        sizes: sizes of a task, `per_class` with two entries.
        rotations: see `FewShot.create`.
        device: see `FewShot.create`.

    Returns:
        The sampler.

    Raises:
        ValueError: in the cases of `FewShot.create`.
    """
    check_choice("rotations", rotations, (1, 4))
    if rotations > 1 and (inputs.ndim != 4 or inputs.shape[1] != inputs.shape[2]):
        raise ValueError(f"rotations=4 needs square images [..., H, W, C], got inputs of shape {inputs.shape[1:]}")
    shots, queries = sizes.per_class
    ways, shots, queries = check_sizes(ways=sizes.ways, shots=shots, queries=queries)
    check_enough(sizes, groups.counts, groups.names, rotations)
    warn_of_inputs(inputs)
    placed, rows, starts, counts = place(inputs, groups[1:], device)
    sampler = FewShot(placed, rows, starts, counts, ways, shots, queries, rotations, sizes.replacement)
    named = groups.names.dtype.kind == "U"
    return dataclasses.replace(sampler, class_names=tuple(groups.names.tolist())) if named else sampler
