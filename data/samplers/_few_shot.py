"""Few-shot classification tasks from any labeled arrays, drawn on the device."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxmeta._types import Batch, Task
from jaxmeta.data.samplers._checks import ArrayLike, Request, check_enough, check_inputs, check_positive
from jaxmeta.data.samplers._placement import Placement, place
from jaxmeta.data.samplers._sampling import draw, group


class ExampleIndex(NamedTuple):
    """Where an example of a task comes from (see `FewShot.indices`)."""

    example: jax.Array
    """Row of `FewShot.inputs`: `[n]`."""
    turns: jax.Array
    """Quarter turns, counterclockwise: `[n]`."""


@struct.dataclass
class FewShot:
    """A sampler of N-way K-shot tasks over labeled examples.

    A call draws one task: `ways` classes, all equally likely and in random order, get the labels `0 ... ways - 1`;
    each gives `shots` support and `queries` query examples, drawn without replacement from its own examples, however
    many they are. Examples are grouped by class: the first `shots` rows of the support set have label 0, and so on.

    The sampler is a pytree that holds the data: pass it to a jitted function as an argument, do not close over it.
    Make one with `FewShot.create` or `FewShot.from_classes`, which check their arguments; the constructor does not.

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
    """All examples: `[M, ...]`. Images in uint8 reach the model as float32 in [0, 1]; any other type unchanged."""
    table: jax.Array
    """Rows of `inputs` that belong to each class, padded: `[classes, largest count]`, int32."""
    counts: jax.Array
    """Number of examples of each class: `[classes]`, int32."""
    ways: int = struct.field(pytree_node=False)
    """Classes in a task, N."""
    shots: int = struct.field(pytree_node=False)
    """Support examples per class, K."""
    queries: int = struct.field(pytree_node=False)
    """Query examples per class, Q."""
    rotations: int = struct.field(pytree_node=False, default=1)
    """4 if each class turned by 90, 180 and 270 degrees counts as a class of its own, else 1."""
    replacement: bool = struct.field(pytree_node=False, default=False)
    """Whether the examples of a class are drawn with replacement; then a query example may be a support example too."""
    shuffle: bool = struct.field(pytree_node=False, default=True)
    """Whether the classes of a task come in random order; if not, in the order of the table, by turns first."""

    @classmethod
    def create(
        cls,
        inputs: ArrayLike,
        labels: ArrayLike,
        *,
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        rotations: int = 1,
        replacement: bool = False,
        device: Placement | None = None,
    ) -> "FewShot":
        """Make a sampler from examples and their labels.

        Args:
            inputs: Examples: `[M, ...]`; images `[M, H, W, C]`.
            labels: Class of each example, any integers in any order: `[M]`.
            ways: Classes in a task, N.
            shots: Support examples per class, K.
            queries: Query examples per class, Q.
            rotations: 4 to treat each class turned by 90, 180 and 270 degrees as a class of its own (Santoro et al.
                2016): all examples of a class in a task are turned alike, on the device. 1 for none.
            replacement: Draw the examples of a class with replacement.
            device: Where the examples are put; JAX's default device if `None`. A `NamedSharding` of the first axis
                divides them among the devices of a mesh, for data that one device cannot hold: XLA sends the indices
                of a task to all devices, each looks up what it has, and the results are added. The tasks are the
                same; but every example travels, so do this only when you must.

        Returns:
            The sampler.

        Raises:
            ValueError: If the arrays are empty, do not match or are not of the right type, if there are fewer
                than `ways` classes, or a class with fewer than `shots + queries` examples.
        """
        labels = np.asarray(labels)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels must be integers of shape [M], got {labels.dtype} of shape {labels.shape}")
        inputs = check_inputs(inputs)
        if inputs.shape[0] != labels.shape[0]:
            raise ValueError(f"labels must match inputs: got {labels.shape[0]} labels for {inputs.shape[0]} inputs")
        names, table, counts = group(labels)
        request = Request(ways, (shots, queries), replacement)
        return from_table(inputs, table, counts, names, request, rotations, device)

    @classmethod
    def from_classes(
        cls,
        inputs: ArrayLike,
        *,
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        rotations: int = 1,
        device: Placement | None = None,
    ) -> "FewShot":
        """Make a sampler from examples that are already grouped, the same number for each class.

        Args:
            inputs: Examples by class: `[classes, examples, ...]`; images `[classes, examples, H, W, C]`.
            ways: Classes in a task, N.
            shots: Support examples per class, K.
            queries: Query examples per class, Q.
            rotations: As in `create`.
            device: As in `create`.

        Returns:
            The sampler.

        Raises:
            ValueError: As in `create`.

        Example:
            >>> import numpy as np
            >>> FewShot.from_classes(np.zeros((30, 20, 8, 8, 1)), ways=20, queries=1, rotations=4).num_classes
            120
        """
        if inputs.ndim < 2 or 0 in inputs.shape[:2]:
            raise ValueError(f"inputs must be a non-empty [classes, examples, ...], got shape {inputs.shape}")
        classes, examples = inputs.shape[:2]
        table = np.arange(classes * examples, dtype=np.int32).reshape(classes, examples)
        flat = check_inputs(inputs.reshape(classes * examples, *inputs.shape[2:]))
        counts = np.full(classes, examples)
        return from_table(flat, table, counts, np.arange(classes), Request(ways, (shots, queries)), rotations, device)

    def with_sizes(self, *, ways: int | None = None, shots: int | None = None, queries: int | None = None) -> "FewShot":
        """Return a sampler over the same arrays with other task sizes, checked as in `create`.

        Args:
            ways: Classes in a task; `None` keeps the present number, here and below.
            shots: Support examples per class.
            queries: Query examples per class.

        Returns:
            The new sampler; it shares the arrays.

        Raises:
            ValueError: If the data has too few classes or examples.
        """
        ways, shots, queries = check_positive(
            ways=self.ways if ways is None else ways,
            shots=self.shots if shots is None else shots,
            queries=self.queries if queries is None else queries,
        )
        counts = np.asarray(jax.device_get(self.counts))
        request = Request(ways, (shots, queries), self.replacement)
        check_enough(request, counts, np.arange(len(counts)), self.rotations)
        return dataclasses.replace(self, ways=ways, shots=shots, queries=queries)

    @property
    def num_classes(self) -> int:
        """Number of classes to draw from, rotations included."""
        return self.rotations * self.counts.shape[0]

    @property
    def example(self) -> jax.Array:
        """One input of zeros, as the model sees it, for `model.init`: `[1, ...]`."""
        return to_float(jnp.zeros((1, *self.inputs.shape[1:]), self.inputs.dtype))

    def __call__(self, key: jax.Array) -> Task:
        """Draw one task.

        Args:
            key: A random key; the same key gives the same task.

        Returns:
            The task; support `x`: `[ways * shots, ...]`, `y`: `[ways * shots]` (int32); query with `queries` instead.
        """
        return Task(*(Batch(self.gather(part.x), part.y) for part in self.indices(key)))

    def indices(self, key: jax.Array) -> Task:
        """Draw the same task as a call does, without its inputs.

        Args:
            key: A random key.

        Returns:
            The task, with an `ExampleIndex` in the place of the inputs `x`.
        """
        bits = jax.random.bits(key, (self.ways, 1 + self.shots + self.queries), jnp.uint32)  # one call for a task
        classes, turns, rows = draw(bits, self.table, self.counts, self.rotations, self.replacement)
        if not self.shuffle:
            order = jnp.lexsort((classes, turns))
            turns, rows = turns[order], rows[order]

        def part(rows: jax.Array) -> Batch:
            repeats = rows.shape[1]
            labels = jnp.repeat(jnp.arange(self.ways, dtype=jnp.int32), repeats)
            return Batch(ExampleIndex(rows.reshape(-1), jnp.repeat(turns, repeats)), labels)

        return Task(support=part(rows[:, : self.shots]), query=part(rows[:, self.shots :]))

    def gather(self, index: ExampleIndex) -> jax.Array:
        """Return the inputs that an index stands for, turned and scaled as the model sees them.

        Args:
            index: What `indices` puts in the place of the inputs: `[n]`.

        Returns:
            Inputs: `[n, ...]`.
        """
        x = self.inputs.at[index.example].get(mode="promise_in_bounds")
        if self.rotations > 1:
            turns = index.turns[:, None, None, None]
            x = jnp.where(turns % 2 == 1, jnp.swapaxes(x, 1, 2), x)
            x = jnp.where((turns == 1) | (turns == 2), x[:, ::-1], x)
            x = jnp.where(turns >= 2, x[:, :, ::-1], x)
        return to_float(jax.lax.optimization_barrier(x))  # fused into one loop, gather and scaling run slower on a CPU


def from_table(
    inputs: ArrayLike,
    table: np.ndarray,
    counts: np.ndarray,
    names: np.ndarray,
    request: Request,
    rotations: int,
    device: Placement | None,
) -> FewShot:
    """Make a sampler from the fields of `FewShot`, checked; `names` are what messages call the classes."""
    if rotations not in (1, 4):
        raise ValueError(f"rotations must be 1 or 4, got {rotations!r}")
    if rotations > 1 and (inputs.ndim != 4 or inputs.shape[1] != inputs.shape[2]):
        raise ValueError(f"rotations=4 needs square images [..., H, W, C], got inputs of shape {inputs.shape[1:]}")
    shots, queries = request.sizes
    ways, shots, queries = check_positive(ways=request.ways, shots=shots, queries=queries)
    check_enough(request, counts, names, rotations)
    placed, rows, sizes = place(inputs, (table, counts.astype(np.int32)), device)
    return FewShot(placed, rows, sizes, ways, shots, queries, rotations, request.replacement)


def to_float(x: jax.Array) -> jax.Array:
    """Return images in uint8 as float32 in [0, 1], anything else as it is."""
    return x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x
