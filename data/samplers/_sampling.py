"""Draws of classes and examples without replacement, with the same code and numbers on the device and the host."""

from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.data.samplers._checks import Size
from jaxmeta.display import short_repr


class ExampleIndex(NamedTuple):
    """Origin of the examples of a task in the data set (see `FewShot.indices`)."""

    example: jax.Array
    """Rows of `FewShot.inputs`: `[n]`."""
    turns: jax.Array
    """Number of quarter turns, counterclockwise: `[n]`."""

    __repr__ = short_repr


class Groups(NamedTuple):
    """Examples grouped by class, in arrays as long as the examples and the classes, however unequal the classes are."""

    names: np.ndarray
    """Sorted names of the classes: `[classes]`."""
    rows: np.ndarray
    """Rows of the examples, class by class, in order within a class: `[M]`, int32."""
    starts: np.ndarray
    """Position in `rows` of the first example of each class: `[classes]`, int32."""
    counts: np.ndarray
    """Number of examples of each class: `[classes]`, int32."""


class Draw(NamedTuple):
    """Result of `draw`: arrays of JAX or NumPy, like the random words."""

    classes: Any
    """Numbers of the classes, all different: `[..., ways]`."""
    turns: Any
    """Number of quarter turns of each class: `[..., ways]`."""
    rows: Any
    """Rows of the examples, `size` of each class: `[..., ways, size]`."""


def draw(bits: Any, rows: Any, starts: Any, counts: Any, rotations: int = 1, replacement: bool = False) -> Draw:
    """Converts random words to the classes and the examples of a task.

    Arguments are not checked. With NumPy arrays it never calls JAX.

    Args:
        bits: uniform random words: `[..., ways, 1 + size]`, uint32. The first word of a row chooses the class.
        rows: rows of the examples, class by class: `[M]`, int32.
        starts: position of the first example of each class: `[classes]`, int32.
        counts: number of examples of each class: `[classes]`, int32.
        rotations: number of times that each class counts, once for each rotation.
        replacement: whether an example may be drawn twice.

    Returns:
        The classes, turns and examples.
    """
    xp = _namespace(bits)
    turns, classes = xp.divmod(distinct(bits[..., 0], rotations * counts.shape[0]), counts.shape[0])
    sizes = _get(counts, classes)
    if replacement:
        columns = _scale(bits[..., 1:], xp.expand_dims(sizes, -1).astype(xp.uint32))
    else:
        columns = distinct(bits[..., 1:], sizes)
    return Draw(classes, turns, _get(rows, xp.expand_dims(_get(starts, classes), -1) + columns))


def sort_classes(drawn: Draw, ways: int | jax.Array) -> Draw:
    """Returns a draw with its first `ways` classes sorted by rotation and number; those of padding stay last."""
    order = jnp.lexsort((drawn.classes, drawn.turns, jnp.arange(drawn.classes.shape[0]) >= ways))
    return Draw(*(part[order] for part in drawn))


def rotate(x: jax.Array, turns: jax.Array) -> jax.Array:
    """Returns images `[n, H, W, C]`, each after its number of quarter turns, counterclockwise."""
    turns = turns[:, None, None, None]
    x = jnp.where(turns % 2 == 1, jnp.swapaxes(x, 1, 2), x)
    x = jnp.where((turns == 1) | (turns == 2), x[:, ::-1], x)
    return jnp.where(turns >= 2, x[:, :, ::-1], x)


def draw_sizes(key: jax.Array, *sizes: Size) -> list[int | jax.Array]:
    """Draws the sizes that are pairs, with keys of their own, so that other draws from the key do not change."""
    return [
        jax.random.randint(jax.random.fold_in(key, number), (), size[0], size[1] + 1)
        if isinstance(size, tuple)
        else size
        for number, size in enumerate(sizes)
    ]


def group(labels: np.ndarray) -> Groups:
    """Groups examples by class.

    Args:
        labels: class of each example: `[M]`.

    Returns:
        The groups.
    """
    names, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rows, starts = np.argsort(classes, kind="stable"), np.cumsum(counts) - counts
    return Groups(names, *(array.astype(np.int32) for array in (rows, starts, counts)))


def sample_without_replacement(key: jax.Array, n: int | jax.Array, k: int) -> jax.Array:
    """Draws `k` different integers from `[0, n)`, uniformly and in random order.

    This is a Fisher-Yates shuffle that stops after `k` positions and never builds the array that it shuffles. It takes
    `k` random words and `k^2` comparisons for any `n`. Each draw uses one 32-bit word, so probabilities are uniform up
    to a relative error of `n / 2^32`.

    Args:
        key: random key.
        n: number of integers to draw from, at least `k`. It may be a traced scalar and is not checked.
        k: number of integers to draw.

    Returns:
        Distinct integers: `[k]`, int32.

    Example:
        >>> import jax
        >>> sorted(sample_without_replacement(jax.random.key(0), 5, 5).tolist())
        [0, 1, 2, 3, 4]
    """
    return distinct(jax.random.bits(key, (k,), jnp.uint32), n)


def distinct(bits: Any, n: Any) -> Any:
    """Converts random words to different integers from `[0, n)`, see `sample_without_replacement`.

    Args:
        bits: uniform random words, an array of JAX or NumPy: `[..., k]`, uint32.
        n: number of integers to draw from, at least `k`: a scalar or `[...]`, which may be traced.

    Returns:
        Distinct integers: `[..., k]`, int32, an array of JAX or NumPy like the words.
    """
    xp = _namespace(bits)
    k = bits.shape[-1]
    step = xp.arange(k, dtype=xp.int32).reshape((1,) * (bits.ndim - 1) + (k,))
    n = xp.asarray(n, xp.int32)
    n = xp.expand_dims(n, -1) if n.ndim else n
    # Step i swaps position i with a position drawn from [i, n). Position p then holds what position t held at step t,
    # where t is the last earlier step that drew p, and p itself if there is none. Follow that trail for all i at once.
    drawn = step + _scale(bits, (n - step).astype(xp.uint32))

    def follow(position: Any, earlier: tuple[Any, Any]) -> tuple[Any, None]:
        t, drawn_at_t = earlier
        return xp.where((step > t) & (position == drawn_at_t), t, position), None

    earlier = xp.moveaxis(drawn[..., :-1], -1, 0)[..., None]
    if xp is jnp:
        return jax.lax.scan(follow, drawn, (xp.arange(k - 1, dtype=xp.int32), earlier), reverse=True)[0]
    position = drawn
    for t in reversed(range(k - 1)):
        position, _ = follow(position, (np.int32(t), earlier[t]))
    return position


def _scale(bits: Any, n: Any) -> Any:
    """Maps uniform 32-bit words to `[0, n)`: the upper half of the 64-bit product, from 16-bit halves."""
    bits_low, bits_high = bits & 0xFFFF, bits >> 16
    n_low, n_high = n & 0xFFFF, n >> 16
    cross = bits_high * n_low + (bits_low * n_low >> 16)
    other = bits_low * n_high + (cross & 0xFFFF)
    return (bits_high * n_high + (cross >> 16) + (other >> 16)).astype(_namespace(bits).int32)


def _namespace(array: Any) -> ModuleType:
    return np if isinstance(array, np.ndarray) else jnp


def _get(array: Any, index: Any) -> Any:
    return array[index] if isinstance(array, np.ndarray) else array.at[index].get(mode="promise_in_bounds")
