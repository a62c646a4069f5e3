"""Random tables for classification, a prior as TabPFN's (Hollmann et al. 2023, https://arxiv.org/abs/2207.01848)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxmeta._checks import check_fraction, check_integer
from jaxmeta._types import Batch, Task
from jaxmeta.data.containers import Columns, table_inputs
from jaxmeta.data.samplers._checks import Size, check_sizes, largest
from jaxmeta.data.samplers._sampling import draw_sizes
from jaxmeta.data.samplers._table_graph import classes_of, random_choice, random_labels, random_nodes, standardized
from jaxmeta.display import short_repr

_LEVELS = 10  # of a column of categories, at most
_SMALLEST = 16  # nodes of a layer, at least


class Table(NamedTuple):
    """A random table, as `TablePrior.table` draws it."""

    x: jax.Array
    """Values of the columns: `[rows, features]`, 0 where they are missing and in columns that do not exist."""
    seen: jax.Array
    """False where a value is missing or the column does not exist: `[rows, features]`."""
    y: jax.Array
    """Classes: `[rows]`, int32."""
    shots: jax.Array
    """Number of the first rows that are labeled, a scalar."""

    __repr__ = short_repr


@struct.dataclass
class TablePrior:
    """A sampler of classification tasks that are random tables, for networks that learn to classify tables.

    Each task is a table of its own. A random network with sparse weights, one to four layers, random activations and
    noise has a node for each variable. Either columns and class are any of its nodes, as in a structural causal model,
    or the columns are its inputs and its outputs decide the class, as for a Bayesian neural network. The class is the
    interval in which a node is, or the largest of some nodes, or a root of the graph with a center for each class.
    Proportions, numbers and order of the classes are random. Some columns are skewed, some are cut into categories, and
    in some tables values are missing.

    Columns are standardized by the statistics of the support set. A missing value is 0, the mean, and each column has a
    flag of what is missing, so an input has `2 * features` numbers. The values are multiplied by the square root of
    `features` divided by the number of columns that vary.

    A pair such as `features=(1, 32)` is the least and the most of a number that is drawn for each task, all equally
    likely. The number of classes is the smaller of two draws. Tasks are padded to the most, and `Batch.weight` is 0 for
    support examples that are padding. A query whose class has no support example has the weight 0, since nothing could
    predict it. So have all queries of a table with a single class in its support set.

    Raises:
        ValueError: if a size is neither an integer of at least 1 nor a pair of them, `ways` starts below 2, or
            `missing` is no share.

    Example:
        >>> import jax
        >>> sampler = TablePrior(ways=(2, 3), features=(1, 8), shots=(5, 20), queries=10)
        >>> task = jax.jit(sampler)(jax.random.key(0))
        >>> task.support.x.shape, task.query.y.shape, int(task.support.weight.sum())
        ((20, 16), (10,), 16)

    References:
        Müller, Hollmann, Pineda Arango, Grabocka & Hutter, *Transformers Can Do Bayesian Inference*, ICLR 2022,
        https://arxiv.org/abs/2112.10510
        Hollmann, Müller, Eggensperger & Hutter, *TabPFN: A Transformer That Solves Small Tabular Classification
        Problems in a Second*, ICLR 2023, https://arxiv.org/abs/2207.01848
    """

    ways: Size = struct.field(pytree_node=False, default=(2, 10))
    """Number of classes."""
    features: Size = struct.field(pytree_node=False, default=(2, 32))
    """Number of columns."""
    shots: Size = struct.field(pytree_node=False, default=(5, 100))
    """Number of support examples, all classes together."""
    queries: int = struct.field(pytree_node=False, default=40)
    """Number of query examples, all classes together."""
    missing: float = struct.field(pytree_node=False, default=0.2)
    """Share of the tables with missing values."""

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_sizes(ways=self.ways, features=self.features, shots=self.shots)
        check_integer(queries=self.queries)
        if min(self.ways if isinstance(self.ways, tuple) else (self.ways,)) < 2:
            raise ValueError(f"ways must be at least 2, got {self.ways!r}")
        check_fraction(missing=self.missing)

    @property
    def example(self) -> jax.Array:
        """One input of zeros, for `model.init`: `[1, 2 * features]`."""
        return jnp.zeros((1, 2 * largest(self.features)))

    def __call__(self, key: jax.Array) -> Task:
        """Draws one task.

        Args:
            key: random key. The same key gives the same task.

        Returns:
            The task, whose examples have `x: [n, 2 * features]`, `y: [n]` (int32) and a `weight: [n]`.
        """
        table = self.table(key)
        most = largest(self.shots)
        weight = (jnp.arange(most) < table.shots).astype(table.x.dtype)
        support, query = Columns(table.x[:most], table.seen[:most]), Columns(table.x[most:], table.seen[most:])
        y, asked = table.y[:most], table.y[most:]
        counts = jnp.zeros(largest(self.ways)).at[y].add(weight)
        fair = (counts[asked] > 0) & (jnp.sum(counts > 0) > 1)
        return Task(
            support=Batch(table_inputs(support, support, weight), y, weight),
            query=Batch(table_inputs(query, support, weight), asked, fair.astype(table.x.dtype)),
        )

    def table(self, key: jax.Array) -> Table:
        """Draws the table of the same task, as it is before columns are standardized.

        Args:
            key: random key of the task.

        Returns:
            The table. Its first `shots` rows are the support examples, the last `queries` rows the query examples.
        """
        keys = jax.random.split(key, 9)
        sizes = draw_sizes(keys[8], self.ways, self.ways, self.features, self.shots)
        count, again, used, shots = map(jnp.asarray, sizes)
        count = jnp.minimum(count, again)
        rows, ways, features = largest(self.shots) + self.queries, largest(self.ways), largest(self.features)
        width = max(features, ways, _SMALLEST)
        causal, rooted = jax.random.bernoulli(keys[0], 0.7), jax.random.bernoulli(keys[1], 0.3)
        labels = random_labels(keys[2], rows, count, ways)
        nodes = random_nodes(keys[3], labels, causal, rooted, used, width)
        targets = random_choice(keys[4], nodes.is_target, ways, width)
        free = nodes.is_column.at[targets].set(False)
        columns = random_choice(keys[5], free, features, width)
        y = classes_of(keys[6], labels, standardized(nodes.values[:, targets]), rooted)
        exists = jnp.arange(features) < jnp.minimum(used, jnp.sum(free))
        x, seen = self._columns(keys[7], nodes.values[:, columns], exists)
        return Table(x, seen, y, shots)

    def _columns(self, key: jax.Array, nodes: jax.Array, exists: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns skewed, cut and incomplete columns, in random order before those that do not exist."""
        keys = jax.random.split(key, 8)
        features = nodes.shape[1]
        order = jnp.argsort(jnp.where(exists, jax.random.uniform(keys[0], (features,)), 2))
        x = standardized(nodes[:, order])
        skewed = jax.random.bernoulli(keys[1], 0.5 * jax.random.uniform(keys[2]), (1, features))
        x = jnp.where(skewed, jnp.exp(x), x)
        x = _cut(keys[3], x)
        rate = 0.5 * jax.random.uniform(keys[4], (1, features))
        rate = jnp.where(jax.random.bernoulli(keys[5], 0.5, (1, features)), rate, 0)
        rate = jnp.where(jax.random.bernoulli(keys[6], float(self.missing)), rate, 0)
        seen = exists[None] & ~jax.random.bernoulli(keys[7], rate, x.shape)
        return jnp.where(seen, x, 0), seen


def _cut(key: jax.Array, x: jax.Array) -> jax.Array:
    """Cuts a random share of the columns `[n, d]` into categories, with random numbers for half of them."""
    key_share, key_some, key_which, key_place, key_levels, key_names, key_named = jax.random.split(key, 7)
    share = jnp.where(jax.random.bernoulli(key_some, 0.4), jax.random.uniform(key_share), 0)
    shape = (1, x.shape[1])
    ends = jnp.take_along_axis(x, jax.random.randint(key_place, (_LEVELS - 1, x.shape[1]), 0, x.shape[0]), 0)
    levels = jax.random.randint(key_levels, shape, 1, _LEVELS)
    above = (x[:, None] > ends[None]) & (jnp.arange(_LEVELS - 1)[:, None] < levels)[None]
    level = jnp.sum(above, 1)
    names = jnp.take_along_axis(jax.random.normal(key_names, (_LEVELS, x.shape[1])), level, 0)
    found = jnp.where(jax.random.bernoulli(key_named, 0.5, shape), names, level.astype(x.dtype))
    return jnp.where(jax.random.bernoulli(key_which, share, shape), found, x)
