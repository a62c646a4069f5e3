"""Augmentations of images `[n, H, W, C]` as JAX functions. Each image is changed independently."""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_integer, check_not_negative, check_positive
from jaxmeta.data.samplers._checks import ArrayLike

_Number: TypeAlias = float | jax.Array
_Channels: TypeAlias = float | Sequence[float] | ArrayLike


def random_crop(key: jax.Array, images: jax.Array, padding: int = 4) -> jax.Array:
    """Pads each image with zeros and crops it at random to its original size.

    Args:
        key: random key.
        images: images of any type: `[n, H, W, C]`.
        padding: number of zero pixels on each side.

    Returns:
        Images: `[n, H, W, C]`.

    Raises:
        ValueError: if `padding` is not a positive integer, or `images` does not have four axes.

    Example:
        >>> random_crop(jax.random.key(0), jnp.ones((3, 28, 28, 1))).shape
        (3, 28, 28, 1)
    """
    n, height, width, channels = _shape(images)
    check_integer(padding=padding)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    corners = jax.random.randint(key, (n, 2), 0, 2 * padding + 1)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))

    return jax.vmap(cut)(padded, corners)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Flips each image left to right with probability 1/2.

    Args:
        key: random key.
        images: images of any type: `[n, H, W, C]`.

    Returns:
        Images: `[n, H, W, C]`.

    Raises:
        ValueError: if `images` does not have four axes.

    Example:
        >>> random_flip(jax.random.key(1), jnp.arange(6).reshape(3, 1, 2, 1))[:, 0, :, 0].tolist()
        [[1, 0], [2, 3], [5, 4]]
    """
    n, *_ = _shape(images)
    return jnp.where(jax.random.bernoulli(key, shape=(n, 1, 1, 1)), images[:, :, ::-1], images)


def color_jitter(
    key: jax.Array,
    images: jax.Array,
    brightness: _Number = 0.4,
    contrast: _Number = 0.4,
    saturation: _Number = 0.4,
) -> jax.Array:
    """Changes brightness, then contrast, then saturation of each image by random factors.

    The factor `f` is uniform in `[max(0, 1 - s), 1 + s]` for a strength `s`. Each change blends the image with another
    one, `f * image + (1 - f) * other`, and clips the result to [0, 1]. For brightness the other image is black, for
    contrast it is the mean gray value, and for saturation it is the gray image. Gray values weight the channels by
    0.299, 0.587 and 0.114. Images with one channel have no saturation to change.

    Args:
        key: random key.
        images: floats in [0, 1] with 1 or 3 channels: `[n, H, W, C]`.
        brightness: strength `s` of the change of brightness, at least 0. 0 leaves it as it is.
        contrast: strength of the change of contrast.
        saturation: strength of the change of saturation.

    Returns:
        Images in [0, 1]: `[n, H, W, C]`.

    Raises:
        ValueError: if a strength is negative, or the images do not have 1 or 3 channels.
        TypeError: if the images are not floats.

    Example:
        >>> images = jax.jit(color_jitter)(jax.random.key(0), jnp.full((2, 8, 8, 3), 0.5))
        >>> images.shape, bool((images[0] != images[1]).any())
        ((2, 8, 8, 3), True)
    """
    n, _, _, channels = _shape(images)
    _check_floats(images)
    if channels not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got shape {images.shape}")
    check_not_negative(brightness=brightness, contrast=contrast, saturation=saturation)
    factors = []
    for strength, part in zip((brightness, contrast, saturation), jax.random.split(key, 3), strict=True):
        low = jnp.maximum(jnp.asarray(1 - strength, images.dtype), 0)
        factors.append(jax.random.uniform(part, (n, 1, 1, 1), images.dtype, low, 1 + strength))

    def blend(images: jax.Array, other: jax.Array, factor: jax.Array) -> jax.Array:
        return jnp.clip(factor * images + (1 - factor) * other, 0, 1)

    images = blend(images, jnp.zeros_like(images), factors[0])
    images = blend(images, _gray(images).mean((1, 2), keepdims=True), factors[1])
    return blend(images, _gray(images), factors[2])


def cutout(key: jax.Array, images: jax.Array, size: int) -> jax.Array:
    """Sets a random square of each image to zero.

    The center of the square is a random pixel, so a part of the square may lie outside the image.

    Args:
        key: random key.
        images: images of any type: `[n, H, W, C]`.
        size: side of the square in pixels.

    Returns:
        Images: `[n, H, W, C]`.

    Raises:
        ValueError: if `size` is not a positive integer, or `images` does not have four axes.

    Example:
        >>> int(cutout(jax.random.key(0), jnp.ones((1, 9, 9, 1)), size=2).sum())
        77

    References:
        DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017,
        https://arxiv.org/abs/1708.04552
    """
    n, height, width, _ = _shape(images)
    check_integer(size=size)
    hole = _box(key, (n, height, width), jnp.full((n, 1), size), jnp.full((n, 1), size))
    return jnp.where(hole, jnp.zeros((), images.dtype), images)


def mixup(key: jax.Array, images: jax.Array, labels: jax.Array, alpha: _Number = 1.0) -> tuple[jax.Array, jax.Array]:
    """Mixes each image and its label with another image of the batch and its label.

    The result is `share * own + (1 - share) * other`, where `share` is drawn from Beta(alpha, alpha) for each image.

    Args:
        key: random key.
        images: floats: `[n, ...]`.
        labels: class probabilities, such as `jax.nn.one_hot(y, ways)`: `[n, ways]`.
        alpha: both parameters of the beta distribution, positive.

    Returns:
        Images `[n, ...]` and labels `[n, ways]`.

    Raises:
        ValueError: if `alpha` is not positive, or the labels do not match the images.
        TypeError: if images or labels are not floats.

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


def cutmix(key: jax.Array, images: jax.Array, labels: jax.Array, alpha: _Number = 1.0) -> tuple[jax.Array, jax.Array]:
    """Replaces a box in each image by the same box of another image of the batch.

    A box has the proportions of the image and a random pixel as its center. It covers `1 - share` of the image, where
    `share` is drawn from Beta(alpha, alpha), less where it reaches over the edge. Labels are mixed by the covered area.

    Args:
        key: random key.
        images: floats: `[n, H, W, C]`.
        labels: class probabilities, such as `jax.nn.one_hot(y, ways)`: `[n, ways]`.
        alpha: both parameters of the beta distribution, positive.

    Returns:
        Images `[n, H, W, C]` and labels `[n, ways]`.

    Raises:
        ValueError: if `alpha` is not positive, or a shape is wrong.
        TypeError: if images or labels are not floats.

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
    """Subtracts a mean from each channel and divides it by a standard deviation.

    Args:
        images: floats: `[..., C]`.
        mean: one number, or one for each channel: `[C]`.
        std: one number, or one for each channel: `[C]`.

    Returns:
        Images of the same type: `[..., C]`.

    Raises:
        TypeError: if the images are not floats.

    Example:
        >>> normalize(jnp.array([[0.0, 1.0]]), mean=[0.5, 0.5], std=0.25).tolist()
        [[-2.0, 2.0]]
    """
    _check_floats(images)
    center, scale = (jnp.broadcast_to(jnp.asarray(a, images.dtype), images.shape) for a in (mean, std))
    return (images - center) / scale


def _box(key: jax.Array, shape: tuple[int, int, int], heights: jax.Array, widths: jax.Array) -> jax.Array:
    """Returns masks `[n, H, W, 1]` of boxes around random pixels, with the given sides `[n, 1]`."""
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


def _check_soft(images: jax.Array, labels: jax.Array, alpha: _Number) -> None:
    _check_floats(images)
    if not jnp.issubdtype(labels.dtype, jnp.floating):
        raise TypeError(f"labels must be probabilities such as jax.nn.one_hot(y, ways), got {labels.dtype}")
    if labels.ndim != 2 or len(labels) != len(images):
        raise ValueError(f"labels must be of shape [{len(images)}, ways], got {labels.shape}")
    check_positive(alpha=alpha)
