"""Augmentations of images `[n, H, W, C]` as JAX functions, each image with randomness of its own."""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxmeta.data.samplers._checks import ArrayLike, check_positive

_Channels: TypeAlias = float | Sequence[float] | ArrayLike


def random_crop(key: jax.Array, images: jax.Array, padding: int = 4) -> jax.Array:
    """Pad each image with zeros and cut a part of its old size out of it, at random.

    Args:
        key: A random key.
        images: Images of any type: `[n, H, W, C]`.
        padding: Pixels on each side.

    Returns:
        Images: `[n, H, W, C]`.

    Raises:
        ValueError: If `padding` is not positive, or `images` has not four axes.

    Example:
        >>> random_crop(jax.random.key(0), jnp.ones((3, 28, 28, 1))).shape
        (3, 28, 28, 1)
    """
    n, height, width, channels = _shape(images)
    check_positive(padding=padding)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    corners = jax.random.randint(key, (n, 2), 0, 2 * padding + 1)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))

    return jax.vmap(cut)(padded, corners)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirror each image left to right with probability 1/2.

    Args:
        key: A random key.
        images: Images of any type: `[n, H, W, C]`.

    Returns:
        Images: `[n, H, W, C]`.

    Raises:
        ValueError: If `images` has not four axes.

    Example:
        >>> random_flip(jax.random.key(1), jnp.arange(6).reshape(3, 1, 2, 1))[:, 0, :, 0].tolist()
        [[1, 0], [2, 3], [5, 4]]
    """
    n, *_ = _shape(images)
    return jnp.where(jax.random.bernoulli(key, shape=(n, 1, 1, 1)), images[:, :, ::-1], images)


def color_jitter(
    key: jax.Array,
    images: jax.Array,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
) -> jax.Array:
    """Change brightness, then contrast, then saturation of each image by random factors.

    A factor is uniform in `[1 - s, 1 + s]` (not below 0) for a strength `s`. Brightness multiplies the image; contrast
    moves it from or to its mean gray, and saturation from or to its own gray values, by the weights 0.299, 0.587 and
    0.114. Values are cut to [0, 1] after each. Images of one channel have no saturation to change.

    Args:
        key: A random key.
        images: Floats in [0, 1], of 1 or 3 channels: `[n, H, W, C]`.
        brightness: Strength, at least 0; 0 for none.
        contrast: Strength.
        saturation: Strength.

    Returns:
        Images in [0, 1]: `[n, H, W, C]`.

    Raises:
        ValueError: If a strength is negative, or the images are not of 1 or 3 channels.
        TypeError: If the images are not floats.

    Example:
        >>> images = jax.jit(color_jitter)(jax.random.key(0), jnp.full((2, 8, 8, 3), 0.5))
        >>> images.shape, bool((images[0] != images[1]).any())
        ((2, 8, 8, 3), True)
    """
    n, _, _, channels = _shape(images)
    _check_floats(images)
    if channels not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got shape {images.shape}")
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    factors = []
    for name, strength, part in zip(strengths, strengths.values(), jax.random.split(key, 3), strict=True):
        if strength < 0:
            raise ValueError(f"{name} must be at least 0, got {strength!r}")
        low, high = max(0.0, 1 - strength), 1 + strength
        factors.append(jax.random.uniform(part, (n, 1, 1, 1), images.dtype, low, high))

    def blend(images: jax.Array, other: jax.Array, factor: jax.Array) -> jax.Array:
        return jnp.clip(factor * images + (1 - factor) * other, 0, 1)

    images = blend(images, jnp.zeros_like(images), factors[0])
    images = blend(images, _gray(images).mean((1, 2), keepdims=True), factors[1])
    return blend(images, _gray(images), factors[2])


def cutout(key: jax.Array, images: jax.Array, size: int) -> jax.Array:
    """Set a square of each image to zero. Its center is any pixel, so a part of it may lie outside.

    Args:
        key: A random key.
        images: Images of any type: `[n, H, W, C]`.
        size: Side of the square in pixels.

    Returns:
        Images: `[n, H, W, C]`.

    Raises:
        ValueError: If `size` is not positive, or `images` has not four axes.

    Example:
        >>> int(cutout(jax.random.key(0), jnp.ones((1, 9, 9, 1)), size=2).sum())
        77

    References:
        DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017,
        https://arxiv.org/abs/1708.04552
    """
    n, height, width, _ = _shape(images)
    check_positive(size=size)
    hole = _box(key, (n, height, width), jnp.full((n, 1), size), jnp.full((n, 1), size))
    return jnp.where(hole, jnp.zeros((), images.dtype), images)


def mixup(key: jax.Array, images: jax.Array, labels: jax.Array, alpha: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Mix each image, and its label, with another one of the batch.

    Args:
        key: A random key.
        images: Floats: `[n, ...]`.
        labels: Probabilities of the classes, such as `jax.nn.one_hot(y, ways)`: `[n, ways]`.
        alpha: The share of the image itself is drawn from Beta(alpha, alpha), for each image.

    Returns:
        Images `[n, ...]` and labels `[n, ways]`.

    Raises:
        ValueError: If `alpha` is not positive, or labels do not match.
        TypeError: If images or labels are not floats.

    Example:
        >>> labels = jax.nn.one_hot(jnp.array([0, 1, 1]), 2)
        >>> images, labels = jax.jit(mixup)(jax.random.key(0), jnp.zeros((3, 8, 8, 1)), labels)
        >>> images.shape, labels.shape
        ((3, 8, 8, 1), (3, 2))

    References:
        Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018, https://arxiv.org/abs/1710.09412
    """
    _check_soft(images, labels, alpha)
    key_share, key_other = jax.random.split(key)
    n = len(images)
    share = jax.random.beta(key_share, alpha, alpha, (n,), images.dtype)
    other = jax.random.permutation(key_other, n)

    def mix(x: jax.Array) -> jax.Array:
        part = share.reshape((n,) + (1,) * (x.ndim - 1)).astype(x.dtype)
        return part * x + (1 - part) * x[other]

    return mix(images), mix(labels)


def cutmix(key: jax.Array, images: jax.Array, labels: jax.Array, alpha: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Replace a box of each image by that of another one of the batch, and mix the labels by the box's share.

    Args:
        key: A random key.
        images: Floats: `[n, H, W, C]`.
        labels: Probabilities of the classes, such as `jax.nn.one_hot(y, ways)`: `[n, ways]`.
        alpha: The share of the image itself is drawn from Beta(alpha, alpha), for each image; the box has the image's
            proportions, and its center is any pixel.

    Returns:
        Images `[n, H, W, C]` and labels `[n, ways]`.

    Raises:
        ValueError: If `alpha` is not positive, or shapes are wrong.
        TypeError: If images or labels are not floats.

    Example:
        >>> labels = jax.nn.one_hot(jnp.array([0, 1, 1]), 2)
        >>> images, labels = jax.jit(cutmix)(jax.random.key(0), jnp.zeros((3, 8, 8, 1)), labels)
        >>> images.shape, labels.shape
        ((3, 8, 8, 1), (3, 2))

    References:
        Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, 2019,
        https://arxiv.org/abs/1905.04899
    """
    n, height, width, _ = _shape(images)
    _check_soft(images, labels, alpha)
    key_share, key_other, key_box = jax.random.split(key, 3)
    side = jnp.sqrt(1 - jax.random.beta(key_share, alpha, alpha, (n, 1)))
    other = jax.random.permutation(key_other, n)
    box = _box(key_box, (n, height, width), (height * side).astype(jnp.int32), (width * side).astype(jnp.int32))
    share = box.mean((1, 2, 3), dtype=labels.dtype)[:, None]
    return jnp.where(box, images[other], images), (1 - share) * labels + share * labels[other]


def normalize(images: jax.Array, mean: _Channels, std: _Channels) -> jax.Array:
    """Subtract a mean from each channel and divide by a standard deviation.

    Args:
        images: Floats: `[..., C]`.
        mean: A number, or one for each channel: `[C]`.
        std: Likewise.

    Returns:
        Images of the same type: `[..., C]`.

    Raises:
        TypeError: If the images are not floats.

    Example:
        >>> normalize(jnp.array([[0.0, 1.0]]), mean=[0.5, 0.5], std=0.25).tolist()
        [[-2.0, 2.0]]
    """
    _check_floats(images)
    center, scale = (jnp.broadcast_to(jnp.asarray(a, images.dtype), images.shape) for a in (mean, std))
    return (images - center) / scale


def _box(key: jax.Array, shape: tuple[int, int, int], heights: jax.Array, widths: jax.Array) -> jax.Array:
    """Return masks of boxes of the given sides `[n, 1]` around random pixels: `[n, H, W, 1]`, bool."""
    n, height, width = shape
    key_row, key_column = jax.random.split(key)

    def inside(key: jax.Array, length: int, sides: jax.Array) -> jax.Array:
        first = jax.random.randint(key, (n, 1), 0, length) - sides // 2
        place = jnp.arange(length)[None]
        return (place >= first) & (place < first + sides)

    rows, columns = inside(key_row, height, heights), inside(key_column, width, widths)
    return rows[:, :, None, None] & columns[:, None, :, None]


def _gray(images: jax.Array) -> jax.Array:
    if images.shape[-1] == 1:
        return images
    return (images @ jnp.array([0.299, 0.587, 0.114], images.dtype))[..., None]


def _shape(images: jax.Array) -> tuple[int, int, int, int]:
    if images.ndim != 4:
        raise ValueError(f"images must be of shape [n, H, W, C], got {images.shape}")
    n, height, width, channels = images.shape
    return n, height, width, channels


def _check_floats(images: jax.Array) -> None:
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images must be floats, got {images.dtype}")


def _check_soft(images: jax.Array, labels: jax.Array, alpha: float) -> None:
    _check_floats(images)
    if not jnp.issubdtype(labels.dtype, jnp.floating):
        raise TypeError(f"labels must be probabilities such as jax.nn.one_hot(y, ways), got {labels.dtype}")
    if labels.ndim != 2 or len(labels) != len(images):
        raise ValueError(f"labels must be of shape [{len(images)}, ways], got {labels.shape}")
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, got {alpha!r}")
