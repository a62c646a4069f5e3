"""The tasks of Meta-Dataset: random ways, and different numbers of shots of the classes of a task."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxmeta._checks import check_integer
from jaxmeta._types import Batch, Task
from jaxmeta.data.containers import as_labels, to_float, warn_of_inputs
from jaxmeta.data.samplers._checks import Created, check_examples, check_sizes
from jaxmeta.data.samplers._placement import Placement, place, zeros_for_model
from jaxmeta.data.samplers._sampling import Groups, distinct, group
from jaxmeta.display import short_repr


class EpisodeSizes(NamedTuple):
    """Numbers of examples of the classes of a task, see `episode_sizes`."""

    shots: jax.Array
    """Number of support examples of each class, 0 for padding: `[ways]`, int32."""
    queries: jax.Array
    """Number of query examples of every class: scalar, int32."""


@struct.dataclass
class MetaDatasetSampler(Created):
    """A sampler of tasks of random and unequal sizes, by the rules of Meta-Dataset.

    A call draws one task. It draws a group of classes, such as an alphabet, and from it the classes: the number of ways
    is uniform from the least to the most, or to the number of classes in the group. With the number of examples `n_c`
    of class `c`, the numbers of query examples `q`, of support examples `S` and of shots `k_c` are

        q = min(10, min_c floor(n_c / 2))
        S = min(500, sum_c ceil(beta * min(100, n_c - q))),                    beta ~ U(0, 1]
        R_c = exp(alpha_c) n_c / sum_j exp(alpha_j) n_j,                       alpha_c ~ U[log 0.5, log 2)
        k_c = min(floor(R_c * (S - ways)) + 1, n_c - q)

    All tasks are padded to the largest: the support set has 500 rows, the query set 10 for each of the most ways.
    `Batch.weight` is 1 for the examples of a task and 0 for padding, which has inputs from the data set. The examples
    of a class are in random order and follow each other. Make a sampler with `MetaDatasetSampler.create`, and pass it
    to a jitted function as an argument.

    The `data.MetaDataset` of task transforms has learn2learn's name, and is another thing.

    Example:
        >>> import numpy as np
        >>> labels = np.repeat(np.arange(12), 20)
        >>> sampler = MetaDatasetSampler.create(np.zeros((240, 3)), labels, np.arange(12) // 6, ways=(2, 5))
        >>> task = sampler(jax.random.key(0))
        >>> task.support.x.shape, task.query.x.shape, bool(task.support.weight.sum() < 100)
        ((500, 3), (50, 3), True)

    References:
        Triantafillou et al., Meta-Dataset: A Dataset of Datasets for Learning to Learn from Few Examples, ICLR 2020,
        https://arxiv.org/abs/1903.03096, section 3.2
    """

    inputs: jax.Array
    """All examples: `[M, ...]`. Images in uint8 reach the model as float32 in [0, 1], other types unchanged."""
    rows: jax.Array
    """Rows of `inputs`, class by class: `[M]`, int32."""
    starts: jax.Array
    """Position in `rows` of the first example of each class: `[classes]`, int32."""
    counts: jax.Array
    """Number of examples of each class: `[classes]`, int32."""
    groups: jax.Array
    """Classes of each group, padded: `[groups, largest size]`, int32."""
    group_sizes: jax.Array
    """Number of classes of each group: `[groups]`, int32."""
    ways: tuple[int, int] = struct.field(pytree_node=False)
    """The least and the most classes in a task."""
    max_support: int = struct.field(pytree_node=False)
    """The most support examples in a task."""
    max_shots: int = struct.field(pytree_node=False)
    """The most examples with which a class counts towards the size of the support set."""
    max_queries: int = struct.field(pytree_node=False)
    """The most query examples per class."""
    largest_class: int = struct.field(pytree_node=False)
    """Number of examples of the largest class."""

    __repr__ = short_repr

    @classmethod
    def create(
        cls,
        inputs: Any,
        labels: Any = None,
        groups: Any = None,
        *,
        ways: tuple[int, int] = (5, 50),
        max_support: int = 500,
        max_shots: int = 100,
        max_queries: int = 10,
        device: Placement | None = None,
    ) -> "MetaDatasetSampler":
        """Builds a sampler from examples and their labels.

        Args:
            inputs: examples: `[M, ...]`, for images `[M, H, W, C]`, in any container, or `Examples`.
            labels: class of each example, any integers or strings in any order: `[M]`.
            groups: group of each class, in the sorted order of the labels, integers or strings: `[classes]`. Or a list
                of the classes of each group, as labels, where groups may overlap. All groups are equally likely. `None`
                (default) has all classes in one group. The paper draws Omniglot by alphabets. For ImageNet its groups
                are the inner nodes of WordNet that span at least the least ways and at most 392 classes.
            ways: the least and the most classes in a task.
            max_support: the most support examples in a task, at least the most ways.
            max_shots: the most examples with which a class counts towards the size of the support set.
            max_queries: the most query examples per class.
            device: see `FewShot.create`.

        Returns:
            The sampler.

        Raises:
            TypeError: if the labels are missing or neither integers nor strings, or an argument is no container.
            ValueError: if the arrays are empty, do not match or have the wrong shape, a number is out of range, a group
                has fewer classes than the least ways, or a class has fewer than 2 examples.
        """
        inputs, labels = check_examples(inputs, labels)
        warn_of_inputs(inputs)
        names, *index = group(labels)
        counts = index[-1]
        least, most = _pair(ways)
        check_integer(max_shots=max_shots, max_queries=max_queries)
        check_integer(max_support=max_support, least=most)
        group_names, group_table, group_sizes = _groups(groups, names)
        if group_sizes.min() < least:
            few = group_names[group_sizes.argmin()]
            raise ValueError(f"ways must be at most the size of a group, got {ways} for {group_sizes.min()} in {few}")
        if counts.min() < 2:
            raise ValueError(
                f"labels must have 2 examples of each class at least, class {names[counts.argmin()]} has 1"
            )
        small = (*index, group_table, group_sizes.astype(np.int32))
        data, rows, starts, placed_counts, placed_groups, placed_sizes = place(inputs, small, device)
        fields = (data, rows, starts, placed_counts, placed_groups, placed_sizes, (least, most), max_support)
        return cls(*fields, max_shots, max_queries, int(counts.max()))

    @property
    def example(self) -> jax.Array:
        """One input of zeros, as the model gets it, for `model.init`: `[1, ...]`."""
        return zeros_for_model(self.inputs)

    def __call__(self, key: jax.Array) -> Task:
        """Draws one task.

        Args:
            key: random key. The same key gives the same task.

        Returns:
            The task, with support set `x: [max_support, ...]` and query set `x: [most ways * max_queries, ...]`. Both
            have `y` (int32) and `weight` (float32).
        """
        class_key, beta_key, alpha_key, example_key = jax.random.split(key, 4)
        most = self.ways[1]
        classes, ways = self._classes(class_key)
        present = jnp.arange(most) < ways
        beta = 1 - jax.random.uniform(beta_key)
        alpha = jax.random.uniform(alpha_key, (most,), minval=np.log(0.5), maxval=np.log(2.0))
        counts = self.counts[classes]
        sizes = episode_sizes(counts, present, beta, alpha, self.max_support, self.max_shots, self.max_queries)
        # The examples of a class in random order: first those of the query set, then those of the support set.
        words = jax.random.bits(example_key, (most, self.largest_class), jnp.uint32)
        missing = jnp.arange(self.largest_class)[None] >= counts[:, None]
        order = jnp.lexsort((words, missing), axis=1)
        starts = self.starts[classes]

        def part(labels: jax.Array, columns: jax.Array, counted: jax.Array) -> Batch:
            labels, columns = (jnp.where(counted, index, 0).astype(jnp.int32) for index in (labels, columns))
            rows = self.rows.at[starts[labels] + order[labels, columns]].get(mode="promise_in_bounds")
            x = self.inputs.at[rows].get(mode="promise_in_bounds")
            return Batch(to_float(jax.lax.optimization_barrier(x)), labels, counted.astype(jnp.float32))

        ends, row = jnp.cumsum(sizes.shots), jnp.arange(self.max_support)
        labels = jnp.searchsorted(ends, row, side="right")
        first = (ends - sizes.shots)[jnp.minimum(labels, most - 1)]
        support = part(labels, sizes.queries + row - first, row < ends[-1])
        labels, columns = jnp.divmod(jnp.arange(most * self.max_queries), self.max_queries)
        return Task(support, part(labels, columns, (labels < ways) & (columns < sizes.queries)))

    def class_ids(self, key: jax.Array) -> jax.Array:
        """Returns the number of the class of each label in the task of a key: `[most ways]`, int32."""
        return self._classes(jax.random.split(key, 4)[0])[0]

    def _classes(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draws the classes of a task, `[most ways]`, and how many of them count."""
        group_key, ways_key, class_key = jax.random.split(key, 3)
        drawn = jax.random.randint(group_key, (), 0, len(self.group_sizes))
        size = self.group_sizes[drawn]
        least, most = self.ways
        ways = jax.random.randint(ways_key, (), least, jnp.minimum(most, size) + 1)
        position = distinct(jax.random.bits(class_key, (most,), jnp.uint32), size)
        return self.groups[drawn, jnp.where(jnp.arange(most) < ways, position, 0)], ways


def episode_sizes(
    counts: jax.Array,
    present: jax.Array,
    beta: jax.Array,
    alpha: jax.Array,
    max_support: int,
    max_shots: int,
    max_queries: int,
) -> EpisodeSizes:
    """Computes the sizes of a task from its random numbers, by the formulas of `MetaDatasetSampler`.

    Args:
        counts: number of examples of each class: `[ways]`.
        present: which of the classes are no padding: `[ways]`, bool.
        beta: random number in (0, 1].
        alpha: random numbers of the classes: `[ways]`.
        max_support: see `MetaDatasetSampler`.
        max_shots: see `MetaDatasetSampler`.
        max_queries: see `MetaDatasetSampler`.
    """
    ways = jnp.sum(present)
    queries = jnp.minimum(max_queries, jnp.min(jnp.where(present, counts, jnp.iinfo(counts.dtype).max)) // 2)
    rest = counts - queries
    wanted = jnp.ceil(beta * jnp.minimum(max_shots, rest)).astype(jnp.int32)
    support = jnp.minimum(max_support, jnp.sum(jnp.where(present, wanted, 0)))
    share = jnp.where(present, jnp.exp(alpha) * counts, 0)
    shots = jnp.floor(share / jnp.sum(share) * (support - ways)).astype(jnp.int32) + 1
    return EpisodeSizes(jnp.where(present, jnp.minimum(shots, rest), 0), queries)


def _groups(groups: Any, names: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the names of the groups, their classes, padded, and the number of classes of each."""
    if groups is None:
        groups = np.zeros(len(names), np.int32)
    if not isinstance(groups, list | tuple) or all(np.ndim(entry) == 0 for entry in groups):
        groups = as_labels(groups, "groups")
        if groups.shape != names.shape:
            raise ValueError(f"groups must have one entry for each of {len(names)} classes, got shape {groups.shape}")
        return _padded(group(groups))
    members = [np.unique(as_labels(entry, "groups")) for entry in groups]
    for number, classes in enumerate(members):
        unknown = np.setdiff1d(classes, names)
        if unknown.size:
            raise ValueError(f"groups must hold labels, got {unknown.tolist()} in group {number}, which are none")
    sizes = np.array([len(classes) for classes in members])
    table = np.zeros((len(members), sizes.max()), np.int32)
    for row, classes in zip(table, members, strict=True):
        row[: len(classes)] = np.searchsorted(names, classes)
    return np.arange(len(members)), table, sizes


def _padded(groups: Groups) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the names of groups of classes, their classes, padded, and the number of classes of each."""
    table = np.zeros((len(groups.names), groups.counts.max()), np.int32)
    for row, start, count in zip(table, groups.starts, groups.counts, strict=True):
        row[:count] = groups.rows[start : start + count]
    return groups.names, table, groups.counts


def _pair(ways: tuple[int, int]) -> tuple[int, int]:
    """Returns the least and the most ways, and raises ValueError unless they are a pair."""
    (found,) = check_sizes(ways=ways)
    if not isinstance(found, tuple):
        raise ValueError(f"ways must be a pair (least, most), got {ways!r}")
    return found
