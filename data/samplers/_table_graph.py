"""Random networks of variables from which the columns of a table and its classes are read."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

_LAYERS = 4  # at most


class Nodes(NamedTuple):
    """Variables of a random network and the roles that they may play."""

    values: jax.Array
    """Values of all nodes, cause by cause and layer by layer: `[n, nodes]`."""
    is_column: jax.Array
    """True for nodes that may be columns: `[nodes]`."""
    is_target: jax.Array
    """True for nodes that may decide the class: `[nodes]`."""


class Labels(NamedTuple):
    """Classes of a table, as three kinds of tables need them."""

    number: jax.Array
    """Number of classes, a scalar."""
    logits: jax.Array
    """Logarithms of the proportions of the classes: `[ways]`, -inf for classes that do not exist."""
    root: jax.Array
    """Classes that cause everything else: `[n]`."""


def log_uniform(key: jax.Array, low: float, high: float) -> jax.Array:
    """Draws a number whose logarithm is uniform."""
    return jnp.exp(jax.random.uniform(key, minval=math.log(low), maxval=math.log(high)))


def standardized(x: jax.Array) -> jax.Array:
    """Returns columns `[n, d]` of mean 0 and standard deviation 1, zeros where they are constant."""
    centered = x - jnp.mean(x, 0, keepdims=True)
    deviation = jnp.sqrt(jnp.mean(jnp.square(centered), 0, keepdims=True))
    return jnp.where(deviation > 1e-5, centered / jnp.where(deviation > 1e-5, deviation, 1), 0)


def random_labels(key: jax.Array, rows: int, number: jax.Array, ways: int) -> Labels:
    """Draws the proportions of the classes, and a class for each row."""
    key_spread, key_logits, key_root = jax.random.split(key, 3)
    logits = jax.random.uniform(key_spread) * jax.random.normal(key_logits, (ways,))
    logits = jax.nn.log_softmax(jnp.where(jnp.arange(ways) < number, logits, -jnp.inf))
    return Labels(number, logits, jax.random.categorical(key_root, logits, shape=(rows,)))


def random_nodes(
    key: jax.Array, labels: Labels, causal: jax.Array, rooted: jax.Array, used: jax.Array, width: int
) -> Nodes:
    """Draws a network and the values of its nodes for each row.

    Args:
        key: random key.
        labels: the classes.
        causal: whether columns and class are any nodes. Else the columns are the inputs of the network.
        rooted: whether the causes are clusters around a center for each class.
        used: number of columns.
        width: nodes of a layer.

    Returns:
        The nodes.
    """
    keys = jax.random.split(key, 7)
    rows, ways = labels.root.shape[0], labels.logits.shape[0]
    some = 1 + jnp.floor(width / 2 * jnp.square(jax.random.uniform(keys[0]))).astype(jnp.int32)
    number = jnp.where(causal, some, used)
    cause = jax.random.normal(keys[1], (rows, width))
    flat = jax.scipy.special.ndtr(cause)
    cause = jnp.where(jax.random.bernoulli(keys[2], 0.3), math.sqrt(12) * (flat - 0.5), cause)
    centers = log_uniform(keys[3], 0.5, 5.0) * jax.random.normal(keys[4], (ways, width))
    cause = jnp.where(rooted, centers[labels.root] + cause, cause)
    cause = jnp.where((jnp.arange(width) < number)[None], cause, 0)
    depth = jax.random.randint(keys[5], (), 1, _LAYERS + 1)
    layers = _random_network(keys[6], cause)
    level, place = jnp.repeat(jnp.arange(_LAYERS + 1), width), jnp.tile(jnp.arange(width), _LAYERS + 1)
    exists = jnp.where(level == 0, place < number, level <= depth)
    values = jnp.concatenate([cause[None], layers]).transpose(1, 0, 2).reshape(rows, -1)
    is_column = exists & (causal | (level == 0))
    is_target = exists & jnp.where(causal, level > 0, level == depth)
    return Nodes(values, is_column, is_target)


def random_choice(key: jax.Array, allowed: jax.Array, number: int, group: int) -> jax.Array:
    """Draws different entries, first those that are allowed, and more of some groups than of others.

    Args:
        key: random key.
        allowed: whether an entry may be chosen: `[entries]`.
        number: number of entries to choose.
        group: size of a group.

    Returns:
        The entries: `[number]`. Those that are allowed come first.
    """
    key_entry, key_group = jax.random.split(key)
    preference = 2 * jax.random.normal(key_group, (allowed.shape[0] // group,))
    score = jax.random.gumbel(key_entry, allowed.shape) + jnp.repeat(preference, group)
    return jax.lax.top_k(jnp.where(allowed, score, -jnp.inf), number)[1]


def classes_of(key: jax.Array, labels: Labels, targets: jax.Array, rooted: jax.Array) -> jax.Array:
    """Returns the class of each row, numbered at random.

    Args:
        key: random key.
        labels: the classes.
        targets: standardized nodes `[n, ways]`. Either the first one is cut into intervals, one for each class, or the
            largest is the class.
        rooted: whether the classes are the roots.

    Returns:
        Classes `[n]`, int32.
    """
    key_how, key_order = jax.random.split(key)
    ways = labels.logits.shape[0]
    rank = (jnp.argsort(jnp.argsort(targets[:, 0])) + 0.5) / targets.shape[0]
    ends = jnp.cumsum(jnp.exp(labels.logits))
    interval = jnp.minimum(jnp.sum(rank[:, None] > ends[None], 1), labels.number - 1)
    largest = jnp.argmax(targets + labels.logits[None], 1)
    found = jnp.where(jax.random.bernoulli(key_how), interval, largest)
    found = jnp.where(rooted, labels.root, found)
    score = jnp.where(jnp.arange(ways) < labels.number, jax.random.uniform(key_order, (ways,)), 2)
    return jnp.argsort(score)[found].astype(jnp.int32)


def _random_network(key: jax.Array, cause: jax.Array) -> jax.Array:
    """Returns the nodes of all layers, `[layers, n, width]`, of a network with random weights, functions and noise."""
    key_gain, key_noise, key_density, key_layers = jax.random.split(key, 4)
    gain, noise = log_uniform(key_gain, 0.5, 2.5), log_uniform(key_noise, 0.003, 0.3)
    density = log_uniform(key_density, 0.1, 1.0)
    width = cause.shape[1]

    def layer(nodes: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(key, 6)
        weight = jax.random.normal(keys[0], (width, width)) * jax.random.bernoulli(keys[1], density, (width, width))
        x = gain * standardized(nodes @ weight) + jax.random.normal(keys[2], (1, width))
        which = jax.random.randint(keys[3], (), 0, 6)
        shapes = [jnp.tanh(x), jax.nn.relu(x), x, jnp.sin(x), jnp.abs(x), jnp.sign(x)]
        after = standardized(jnp.select([which == i for i in range(len(shapes))], shapes))
        spread = noise * jnp.abs(jax.random.normal(keys[4], (1, width)))
        after += spread * jax.random.normal(keys[5], after.shape)
        return after, after

    return jax.lax.scan(layer, cause, jax.random.split(key_layers, _LAYERS))[1]
