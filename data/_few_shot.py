"""Few-shot classification tasks from any labelled arrays, drawn on the device."""

import operator
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxmeta._types import Batch, Task
from jaxmeta.data._sampling import distinct

ArrayLike: TypeAlias = np.ndarray | jax.Array


class ExampleIndex(NamedTuple):
    """Where an example of a task comes from (see `FewShot.indices`)."""

    example: jax.Array
    """Row of `FewShot.inputs`: `[n]`."""
    turns: jax.Array
    """Quarter turns, counterclockwise: `[n]`."""


@struct.dataclass
class FewShot:
    """A sampler of N-way K-shot tasks over labelled examples.

    A call draws one task: `ways` classes, all equally likely and in random order, get the labels `0 ... ways - 1`;
    each gives `shots` support and `queries` query examples, drawn without replacement from its own examples, however
    many they are. Examples are grouped by class: the first `shots` rows of the support set have label 0, and so on.

    The sampler is a pytree that holds the data: pass it to a jitted function as an argument, do not close over it.
    Make one with `FewShot.create` or `FewShot.from_classes`, which check their arguments; the constructor does not.

    Example:
        >>> import jax, numpy as np
        >>> images = np.zeros((12, 28, 28, 1), np.uint8)
        >>> sampler = FewShot.create(images, np.arange(12) // 4, ways=2, shots=1, queries=3)
        >>> task = jax.jit(lambda sampler, key: sampler(key))(sampler, jax.random.key(0))
        >>> task.support.x.shape, task.query.x.shape, task.query.y.tolist()
        ((2, 28, 28, 1), (6, 28, 28, 1), [0, 0, 0, 1, 1, 1])
        >>> keys = jax.random.split(jax.random.key(0), 32)
        >>> jax.vmap(sampler)(keys).support.x.shape
        (32, 2, 28, 28, 1)

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

        Returns:
            The sampler.

        Raises:
            ValueError: If the arrays are empty, do not match or are not of the right type, if there are fewer
                than `ways` classes, or a class with fewer than `shots + queries` examples.
        """
        labels = np.asarray(labels)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels must be integers of shape [M], got {labels.dtype} of shape {labels.shape}")
        inputs = _check_inputs(inputs)
        if inputs.shape[0] != labels.shape[0]:
            raise ValueError(f"labels must match inputs: got {labels.shape[0]} labels for {inputs.shape[0]} inputs")
        names, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        column = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
        table = np.zeros((len(names), counts.max()), np.int32)
        table[np.repeat(np.arange(len(names)), counts), column] = np.argsort(classes, kind="stable")
        return cls._checked(inputs, table, counts, names, ways, shots, queries, rotations)

    @classmethod
    def from_classes(
        cls, inputs: ArrayLike, *, ways: int = 5, shots: int = 1, queries: int = 15, rotations: int = 1
    ) -> "FewShot":
        """Make a sampler from examples that are already grouped, the same number for each class.

        Args:
            inputs: Examples by class: `[classes, examples, ...]`; images `[classes, examples, H, W, C]`.
            ways: Classes in a task, N.
            shots: Support examples per class, K.
            queries: Query examples per class, Q.
            rotations: As in `create`.

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
        flat = _check_inputs(inputs.reshape(classes * examples, *inputs.shape[2:]))
        counts = np.full(classes, examples)
        return cls._checked(flat, table, counts, np.arange(classes), ways, shots, queries, rotations)

    @classmethod
    def _checked(
        cls,
        inputs: ArrayLike,
        table: np.ndarray,
        counts: np.ndarray,
        names: np.ndarray,
        ways: int,
        shots: int,
        queries: int,
        rotations: int,
    ) -> "FewShot":
        if rotations not in (1, 4):
            raise ValueError(f"rotations must be 1 or 4, got {rotations!r}")
        if rotations > 1 and (inputs.ndim != 4 or inputs.shape[1] != inputs.shape[2]):
            raise ValueError(f"rotations=4 needs square images [..., H, W, C], got inputs of shape {inputs.shape[1:]}")
        ways, shots, queries = _check_sizes(ways, shots, queries, rotations, counts, names)
        return cls(
            inputs=jnp.asarray(inputs),
            table=jnp.asarray(table),
            counts=jnp.asarray(counts, jnp.int32),
            ways=ways,
            shots=shots,
            queries=queries,
            rotations=rotations,
        )

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
        counts = np.asarray(jax.device_get(self.counts))
        ways, shots, queries = _check_sizes(
            self.ways if ways is None else ways,
            self.shots if shots is None else shots,
            self.queries if queries is None else queries,
            self.rotations,
            counts,
            np.arange(len(counts)),
        )
        return FewShot(self.inputs, self.table, self.counts, ways, shots, queries, self.rotations)

    @property
    def num_classes(self) -> int:
        """Number of classes to draw from, rotations included."""
        return self.rotations * self.counts.shape[0]

    @property
    def example(self) -> jax.Array:
        """One input of zeros, as the model sees it, for `model.init`: `[1, ...]`."""
        return _to_float(jnp.zeros((1, *self.inputs.shape[1:]), self.inputs.dtype))

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
        size = self.shots + self.queries
        bits = jax.random.bits(key, (self.ways, 1 + size))  # one call for the whole task
        turns, classes = jnp.divmod(distinct(bits[:, 0], self.num_classes), self.counts.shape[0])
        counts = self.counts.at[classes].get(mode="promise_in_bounds")
        columns = jax.vmap(distinct)(bits[:, 1:], counts)
        rows = self.table.at[classes[:, None], columns].get(mode="promise_in_bounds")

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
        if self.rotations == 1:
            x = self.inputs.at[index.example].get(mode="promise_in_bounds")
        else:
            _, height, width, channels = self.inputs.shape
            pixels = np.arange(height * width, dtype=np.int32).reshape(height, width)
            turned = jnp.asarray([np.rot90(pixels, turn).ravel() for turn in range(4)])[index.turns]
            flat = self.inputs.reshape(-1, height * width, channels)
            x = flat.at[index.example[:, None], turned].get(mode="promise_in_bounds")
            x = x.reshape(-1, height, width, channels)
        return _to_float(jax.lax.optimization_barrier(x))  # fused into one loop, gather and scaling run slower on a CPU


def _to_float(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x


def _check_inputs(inputs: ArrayLike) -> ArrayLike:
    inputs = inputs if isinstance(inputs, jax.Array) else np.asarray(inputs)
    if inputs.ndim < 1 or inputs.size == 0:
        raise ValueError(f"inputs must be a non-empty [M, ...], got shape {inputs.shape}")
    if not (jnp.issubdtype(inputs.dtype, jnp.number) or inputs.dtype == np.bool_):
        raise ValueError(f"inputs must be numbers, got {inputs.dtype}")
    return inputs


def _check_sizes(
    ways: int, shots: int, queries: int, rotations: int, counts: np.ndarray, names: np.ndarray
) -> tuple[int, int, int]:
    ways, shots, queries = check_positive(ways=ways, shots=shots, queries=queries)
    classes = rotations * len(counts)
    if ways > classes:
        raise ValueError(f"ways must be at most the number of classes, got ways={ways} for {classes} classes")
    smallest = int(counts.argmin())
    if shots + queries > counts[smallest]:
        raise ValueError(
            f"shots + queries must be at most the size of the smallest class, got {shots} + {queries}, "
            f"but class {names[smallest]} has {counts[smallest]} examples"
        )
    return ways, shots, queries


def check_positive(**sizes: int) -> tuple[int, ...]:
    """Return the given sizes as a tuple of `int`; raise ValueError for one that is not a positive integer."""
    for name, size in sizes.items():
        try:
            positive = operator.index(size) >= 1
        except TypeError:
            positive = False
        if not positive:
            raise ValueError(f"{name} must be a positive integer, got {size!r}")
    return tuple(operator.index(size) for size in sizes.values())
