"""Augmentations against NumPy, under jit and vmap, their distributions and what they refuse."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from jaxmeta.data import color_jitter, cutmix, cutout, mixup, normalize, random_crop, random_flip

KEY = jax.random.key(0)
N = 400
IMAGES: Any = np.random.default_rng(0).uniform(0.01, 1, (N, 6, 5, 3)).astype(np.float32)
SOFT: Any = np.eye(4, dtype=np.float32)[np.arange(N) % 4]


ALONE = {
    "random_crop": partial(random_crop, padding=2),
    "random_flip": random_flip,
    "color_jitter": color_jitter,
    "cutout": partial(cutout, size=3),
}


@pytest.fixture(scope="module")
def results():
    """Augmentations of `IMAGES`, from one program, and of three of them under `vmap` over two keys."""

    def run(key, images):
        keys = jnp.stack([KEY, key])
        few = {name: jax.vmap(fn, (0, None))(keys, images[:3]) for name, fn in ALONE.items()}
        return {name: fn(key, images) for name, fn in ALONE.items()}, few

    return jax.device_get(jax.jit(run)(KEY, IMAGES))


@pytest.mark.parametrize("name", ALONE)
def test_changes_images_and_batches_over_keys(name, results):
    image, few = (result[name] for result in results)
    assert image.shape == IMAGES.shape and (image != np.asarray(IMAGES)).any()
    np.testing.assert_array_equal(few[0], few[1])
    eager = ALONE[name](KEY, IMAGES[:3])
    np.testing.assert_allclose(few[0], eager, atol=1e-6)


@pytest.mark.parametrize("name", [*ALONE, "mixup", "cutmix"])
def test_keeps_shape_and_type(name):
    few, soft = IMAGES[:3].astype(jnp.bfloat16), SOFT[:3]
    if name in ALONE:
        result = jax.eval_shape(ALONE[name], KEY, few)
    else:
        result, labels = jax.eval_shape({"mixup": mixup, "cutmix": cutmix}[name], KEY, few, soft)
        assert (labels.shape, labels.dtype) == (soft.shape, soft.dtype)
    assert (result.shape, result.dtype) == (few.shape, few.dtype)


@pytest.mark.parametrize("name", ["random_crop", "random_flip", "cutout"])
def test_any_type(name):
    images = (255 * IMAGES[:4]).astype(jnp.uint8)
    assert jax.eval_shape(ALONE[name], KEY, images).dtype == jnp.uint8


def test_crops_are_parts_of_the_padded_image_and_uniform(results):
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    corners = []
    for image, crop in zip(padded, results[0]["random_crop"], strict=True):
        found = [(i, j) for i in range(5) for j in range(5) if np.array_equal(image[i : i + 6, j : j + 5], crop)]
        assert len(found) == 1
        corners.append(found[0])
    assert scipy.stats.chisquare(np.unique(corners, axis=0, return_counts=True)[1]).pvalue > 1e-4
    assert len(set(corners)) == 25


def test_half_of_the_images_are_mirrored(results):
    images = np.asarray(IMAGES)
    flipped = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(results[0]["random_flip"], images, strict=True)])
    same = np.array([np.array_equal(a, b) for a, b in zip(results[0]["random_flip"], images, strict=True)])
    assert (flipped ^ same).all() and scipy.stats.binomtest(int(flipped.sum()), N).pvalue > 1e-4


def test_jitter_equals_numpy_with_some_factors(results):
    images = np.asarray(IMAGES, np.float64)
    keys = jax.random.split(KEY, 3)
    brightness, contrast, saturation = (
        np.asarray(jax.random.uniform(key, (N, 1, 1, 1), jnp.float32, 0.6, 1.4), np.float64) for key in keys
    )

    def gray(x):
        return (0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2])[..., None]

    x = np.clip(images * brightness, 0, 1)
    x = np.clip(contrast * x + (1 - contrast) * gray(x).mean((1, 2), keepdims=True), 0, 1)
    x = np.clip(saturation * x + (1 - saturation) * gray(x), 0, 1)
    np.testing.assert_allclose(results[0]["color_jitter"], x, atol=1e-5)
    for factor in (brightness, contrast, saturation):
        assert scipy.stats.kstest(factor.ravel(), "uniform", (0.6, 0.8)).pvalue > 1e-4


def test_jitter_of_strength_zero_and_of_one_channel():
    np.testing.assert_allclose(color_jitter(KEY, IMAGES, 0, 0, 0), IMAGES, rtol=1e-6)
    gray = IMAGES[..., :1]
    np.testing.assert_allclose(color_jitter(KEY, gray, 0, 0, 0.9), gray, rtol=1e-5)


def test_cutout_clears_one_square_around_any_pixel(results):
    holes = (results[0]["cutout"] == 0).all(-1)
    np.testing.assert_array_equal(np.where(holes[..., None], 0, IMAGES), results[0]["cutout"])
    known = {}
    for row in range(6):
        for column in range(5):
            hole = np.zeros((6, 5), bool)
            hole[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = True
            known[hole.tobytes()] = (row, column)
    centers = [known[hole.tobytes()] for hole in holes]
    assert len(known) == len(set(centers)) == 30
    assert scipy.stats.chisquare(np.unique(centers, axis=0, return_counts=True)[1]).pvalue > 1e-4


def test_mixup_mixes_images_and_labels_alike():
    images = jnp.eye(N)  # so that the result shows who was mixed
    mixed, labels = jax.device_get(jax.jit(partial(mixup, alpha=0.3))(KEY, images, SOFT))
    share = np.diag(mixed)
    other = (mixed - np.diag(share)).argmax(axis=1)
    moved = other != np.arange(N)
    soft = np.asarray(SOFT)
    expected = share[:, None] * soft + (1 - share[:, None]) * soft[np.where(share == 1, np.arange(N), other)]
    np.testing.assert_allclose(labels, expected, atol=1e-6)
    np.testing.assert_allclose(mixed.sum(axis=1), 1, rtol=1e-6)
    assert len(set(other[share < 1].tolist())) == (share < 1).sum()  # a permutation
    assert scipy.stats.kstest(share[moved], "beta", (0.3, 0.3)).pvalue > 1e-4


def test_cutmix_replaces_a_box_and_mixes_labels_by_its_share():
    images = jnp.broadcast_to(jnp.arange(N, dtype=jnp.float32)[:, None, None, None], (N, 12, 10, 1))
    mixed, labels = jax.device_get(jax.jit(cutmix)(KEY, images, SOFT))
    soft = np.asarray(SOFT)
    shares = []
    for i, image in enumerate(mixed[..., 0]):
        foreign = image != i
        rows, columns = foreign.any(axis=1), foreign.any(axis=0)
        np.testing.assert_array_equal(foreign, rows[:, None] & columns)  # a box
        assert (np.diff(np.flatnonzero(rows)) == 1).all() and (np.diff(np.flatnonzero(columns)) == 1).all()
        assert len(np.unique(image[foreign])) <= 1
        other = int(image[foreign][0]) if foreign.any() else i
        share = foreign.mean()
        shares.append(share)
        np.testing.assert_allclose(labels[i], (1 - share) * soft[i] + share * soft[other], atol=1e-6)
    assert 0.2 < np.mean(shares) < 0.5  # half, less what lies outside


def test_normalize():
    mean, std = [0.1, 0.2, 0.3], [1.0, 2.0, 4.0]
    np.testing.assert_allclose(normalize(IMAGES, mean, std), (np.asarray(IMAGES) - mean) / std, rtol=1e-5, atol=1e-6)
    assert normalize(IMAGES.astype(jnp.bfloat16), mean, std).dtype == jnp.bfloat16


@pytest.mark.slow
def test_strengths_may_be_traced():
    """A sweep of a strength under `vmap` gives what each number gives alone."""
    images, labels, values = IMAGES[:4], SOFT[:4], (0.1, 0.5, 1.5)

    def all_of(value):
        jittered = color_jitter(KEY, images, value, contrast=value, saturation=value)
        return jittered, mixup(KEY, images, labels, value), cutmix(KEY, images, labels, value)

    swept = jax.vmap(all_of)(jnp.array(values))
    for i, value in enumerate(values):
        single = jax.tree.map(lambda leaf, i=i: leaf[i], swept)
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), single, all_of(value))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (partial(random_crop, KEY, IMAGES, 0), ValueError, "padding must be an integer of at least 1, got 0"),
        (partial(random_crop, KEY, IMAGES[0]), ValueError, r"shape \[n, H, W, C\], got \(6, 5, 3\)"),
        (partial(random_flip, KEY, SOFT), ValueError, r"shape \[n, H, W, C\]"),
        (partial(cutout, KEY, IMAGES, -1), ValueError, "size must be"),
        (
            partial(color_jitter, KEY, IMAGES, contrast=-1),
            ValueError,
            "contrast must be a number of at least 0",
        ),
        (partial(color_jitter, KEY, IMAGES[..., :2]), ValueError, "1 or 3 channels"),
        (partial(color_jitter, KEY, IMAGES.astype(jnp.uint8)), TypeError, "images must be floats, got uint8"),
        (partial(normalize, IMAGES.astype(jnp.uint8), 0, 1), TypeError, "images must be floats"),
        (partial(mixup, KEY, IMAGES, SOFT, 0), ValueError, "alpha must be a positive number, got 0"),
        (partial(mixup, KEY, IMAGES, SOFT[:3]), ValueError, r"shape \[400, ways\], got \(3, 4\)"),
        (partial(cutmix, KEY, IMAGES, jnp.arange(N)), TypeError, "probabilities such as jax.nn.one_hot"),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
