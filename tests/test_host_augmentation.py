# pyright: reportArgumentType=false
"""Augmentation on the host: of the task alone, and with the transforms of Pillow, NumPy and torchvision."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxmeta import data, models

X = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1)).astype(np.uint8)
LABELS = np.arange(60) % 6
TRANSFORMS = [data.NWays(3), data.KShots(1, queries=2), data.LoadData(), data.RemapLabels()]
KEY = jax.random.key(3)


def jitter(rng, x):
    assert x.dtype == np.uint8, "it gets the example as it is in the data"
    return np.roll(x, rng.integers(0, 4), axis=rng.integers(0, 2))


def test_an_augmentation_of_pillow():
    """What it gets and gives may be pictures: the task has the arrays."""
    picture = Image.fromarray

    def turned(rng, x):
        return picture(x[..., 0]).rotate(90 * int(rng.integers(1, 4)))

    images = np.random.default_rng(0).integers(0, 255, (len(LABELS), 6, 6, 1), np.uint8)
    tasks = data.Taskset((images, LABELS), [*TRANSFORMS, data.AugmentOnHost(turned)])
    plain = data.Taskset((images, LABELS), TRANSFORMS)
    for found, expected in zip(tasks[3].query.x, plain[3].query.x, strict=True):
        assert any((np.squeeze(found) == np.rot90(expected[..., 0], k)).all() for k in (1, 2, 3))


def test_an_augmentation_on_the_host_belongs_to_its_task():
    def tasks(*more, seed=0):
        return data.Taskset((X, LABELS), [*TRANSFORMS, *more], seed=seed)

    both, support = tasks(data.AugmentOnHost(jitter)), tasks(data.AugmentOnHost(jitter, query=False))
    plain, again = tasks(), tasks(data.AugmentOnHost(jitter))
    jax.tree.map(np.testing.assert_array_equal, both[7], again[7])
    jax.tree.map(np.testing.assert_array_equal, both[7], pickle.loads(pickle.dumps(both))[7])
    jax.tree.map(np.testing.assert_array_equal, both[7].query.y, plain[7].query.y)
    jax.tree.map(np.testing.assert_array_equal, support[7].query, plain[7].query)
    np.testing.assert_array_equal(support[7].support.x, both[7].support.x)
    for found, expected in zip(both[7].query.x, plain[7].query.x, strict=True):
        assert sorted(found.ravel()) == sorted(expected.ravel())
    assert all((both[i].query.x != plain[i].query.x).any() for i in range(9))
    assert not np.array_equal(both[7].query.x, tasks(data.AugmentOnHost(jitter), seed=1)[7].query.x)
    twice = tasks(data.AugmentOnHost(jitter), data.AugmentOnHost(jitter))
    assert not np.array_equal(twice[7].query.x, both[7].query.x)
    in_program = jax.jit(lambda sampler, key: sampler(key))(both, both.key(7))
    jax.tree.map(np.testing.assert_array_equal, in_program, both[7])
    with pytest.raises(ValueError, match=r"to_device cannot run AugmentOnHost.* prefetch"):
        both.to_device()


class Tensor:
    """A tensor of torch, as far as jaxmeta asks one."""

    def __init__(self, array):
        self.array = np.asarray(array)

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.array

    def permute(self, *axes):
        return Tensor(self.array.transpose(axes))


class Flip:
    """A transform of torchvision: one picture of Pillow in, one out."""

    def __call__(self, img):
        if not isinstance(img, Image.Image):
            raise TypeError(f"img should be PIL Image. Got {type(img)}")
        return img.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


class ToTensor:
    """A picture or an array in, a float tensor with the channels first out."""

    def __call__(self, pic):
        array = np.asarray(pic)
        return Tensor(np.float32(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)) / 255)


class Module:
    """A module of torch: it takes anything, and only its `forward` knows how many arguments."""

    def __call__(self, *args, **options):
        return self.forward(*args, **options)

    def forward(self, img):
        return Flip()(img)


class Second:
    """A transform of torchvision's second version, which hands on what is no picture."""

    def __call__(self, *inputs):
        return inputs if len(inputs) > 1 else next(iter(inputs))


SQUARES = np.random.default_rng(0).integers(0, 255, (60, 6, 6, 3), np.uint8)
PICTURES = [(Image.fromarray(x), int(label)) for x, label in zip(SQUARES, LABELS, strict=True)]


@pytest.mark.parametrize("dataset", [PICTURES, (SQUARES, LABELS)])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rng, x: Flip()(Image.fromarray(np.asarray(x))), lambda x: x[:, :, ::-1]),
        (lambda rng, x: np.asarray(x)[::-1].copy(), lambda x: x[:, ::-1]),
        (lambda rng, x: ToTensor()(x).permute(1, 2, 0), lambda x: x),
    ],
)
def test_transforms_of_torchvision_on_the_host(dataset, change, expected):
    """Pictures, arrays and tensors with the channels last come back as what the model takes, in [0, 1]."""
    tasks = data.Taskset(dataset, [*TRANSFORMS, data.AugmentOnHost(change)])
    plain = data.Taskset((SQUARES, LABELS), TRANSFORMS)
    x = tasks[3].query.x
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, expected(plain[3].query.x), atol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda s, key: s(key))(tasks, tasks.key(3)).query.x, x, atol=1e-6)


@pytest.mark.parametrize("where", [data.Map, lambda fn: data.AugmentOnHost(lambda rng, x: fn(x))])
def test_tensors_with_the_channels_first_are_told(where):
    tasks = data.Taskset(PICTURES, [*TRANSFORMS, where(ToTensor())])
    with pytest.warns(UserWarning, match=r"channels first, and the models of jaxmeta take .*, H, W, C"):
        x = tasks[0].support.x
    assert x.shape == (3, 3, 6, 6)
    with pytest.raises(ValueError, match="channels"):
        models.CNN4(ways=3).init(KEY, jnp.asarray(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: data.AugmentOnHost(Flip()),
            r"fn must take 2 arguments \(rng, x\), but .* takes \(img\)\. A transform of",
        ),
        (lambda: data.AugmentOnHost(Flip), r"fn must take 2 arguments \(rng, x\), but the class Flip takes \(\)"),
        (lambda: on_host(Module()), r"failed with \(rng, x\): .*AugmentOnHost\(lambda rng, x: transform\(x\)\)"),
        (lambda: on_host(Second()), r"must return the changed x, got tuple\. A transform of the image alone"),
        (lambda: on_host(lambda rng, x: None), "must return the changed x, got NoneType"),
        (lambda: data.Augment(Flip()), r"2 arguments \(key, x\), with AugmentOnHost \(rng, x\), but .* takes \(img\)"),
        (
            lambda: data.Map(lambda rng, x: x),
            r"fn must take 1 argument, the input of an example, but .* takes \(rng, x\)",
        ),
        (
            lambda: data.Taskset(PICTURES, [*TRANSFORMS, Flip()])[0],
            r"failed \(img should be .* use Map\(f\) or Augment",
        ),
    ],
)
def test_transforms_in_the_wrong_place_are_told_where_they_go(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def on_host(fn):
    return data.Taskset(PICTURES, [*TRANSFORMS, data.AugmentOnHost(fn)])[0]
