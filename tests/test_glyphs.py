"""Glyphs: the embedded set of procedural characters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Task
from jaxmeta.data import Glyphs

SAMPLER = Glyphs(ways=3, shots=2, queries=4, split="test", size=20)
draw = jax.jit(lambda sampler, key: sampler(key))


@pytest.fixture(scope="module")
def drawings() -> np.ndarray:
    """40 classes x 10 drawings: `[40, 10, 28, 28]`."""
    keys = jax.random.split(jax.random.key(0), (40, 10))
    render = jax.jit(jax.vmap(jax.vmap(Glyphs().render, (None, 0))))
    return np.asarray(render(jnp.arange(40), keys))[..., 0]


def equal(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5), a, b)


def test_shapes_labels_and_ranges():
    task = draw(SAMPLER, jax.random.key(0))
    assert isinstance(task, Task)
    assert task.support.x.shape == (6, 20, 20, 1)
    assert task.query.x.shape == (12, 20, 20, 1)
    assert task.support.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert task.query.y.tolist() == 4 * [0] + 4 * [1] + 4 * [2]
    for batch in task:
        assert batch.x.dtype == jnp.float32
        assert batch.y.dtype == jnp.int32
        assert 0 <= batch.x.min() < 0.01
        assert 0.9 < batch.x.max() <= 1
    assert SAMPLER.example.shape == (1, 20, 20, 1)
    assert not SAMPLER.example.any()
    assert jax.tree.leaves(SAMPLER) == []


def test_the_key_decides_and_nothing_leaves_the_device():
    first, second = jax.random.split(jax.random.key(0))
    expected = draw(SAMPLER, first)
    with jax.transfer_guard("disallow"), jax.numpy_rank_promotion("raise"):
        again, other = jax.block_until_ready((draw(SAMPLER, first), draw(SAMPLER, second)))
    jax.tree.map(np.testing.assert_array_equal, again, expected)
    assert not np.array_equal(other.support.x, expected.support.x)


def test_splits_and_seeds_have_their_own_classes():
    samplers = [Glyphs(split="train"), Glyphs(split="validation"), Glyphs(split="test"), Glyphs(seed=1)]
    key = jax.random.key(0)  # the same for all: only the characters differ

    @jax.jit
    def render(classes):
        return jnp.concatenate([jax.vmap(sampler.render, (0, None))(classes, key) for sampler in samplers])

    x = np.asarray(render(jnp.arange(30))).reshape(120, -1)
    distance = ((x[:, None] - x[None]) ** 2).sum(-1) + 1e9 * np.eye(len(x))
    assert distance.min() > 1


def test_images_look_like_handwriting(drawings):
    assert 0.05 < drawings.mean() < 0.15  # Omniglot at 28x28: 0.099
    assert drawings.mean((2, 3)).min() > 0.01  # none is empty
    assert drawings.mean((2, 3)).max() < 0.35  # none is a blot
    assert drawings.max((2, 3)).min() > 0.9
    border = np.concatenate([drawings[:, :, [0, -1]].ravel(), drawings[:, :, :, [0, -1]].ravel()])
    assert border.mean() < 0.01  # they stay on the page
    middle = drawings[(drawings > 0.1) & (drawings < 0.9)]
    assert middle.size < 0.15 * drawings.size  # crisp


def test_classes_are_recognizable_but_not_trivial(drawings):
    x = drawings.reshape(40, 10, -1)
    difference = ((x[:, :, None] - x[:, None, :]) ** 2).sum(-1)
    within = difference.sum((1, 2)) / 90
    first = ((x[:, None, :] - x[None, :, :]) ** 2).sum(-1).mean(-1)
    between = first.sum(1) - np.diag(first)
    assert within.mean() < 0.85 * (between / 39).mean()
    assert within.min() > 10  # no class is one picture

    # Raw pixels, 5 ways, 1 shot: 0.43 on Omniglot, chance is 0.20.
    random = np.random.default_rng(1)
    accuracies = []
    for _ in range(400):
        classes = random.choice(40, 5, replace=False)
        support, query = np.split(x[classes][:, random.permutation(10)], [1], axis=1)
        distance = ((query[:, :, None] - support[:, 0]) ** 2).sum(-1)
        accuracies.append((distance.argmin(-1) == np.arange(5)[:, None]).mean())
    assert 0.45 < np.mean(accuracies) < 0.68


def test_vmap_and_pmap_agree_with_one_task():
    keys = jax.random.split(jax.random.key(0), (2, 2))
    expected = [draw(SAMPLER, key) for key in keys.ravel()]
    expected = jax.tree.map(lambda *parts: np.stack(parts).reshape(*keys.shape, *parts[0].shape), *expected)
    equal(jax.pmap(jax.vmap(SAMPLER))(keys), expected)


def test_stays_float32_under_x64():
    with jax.enable_x64(True):
        task = jax.eval_shape(Glyphs(), jax.random.key(0))
    assert {a.dtype for a in jax.tree.leaves(task)} == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}


def test_class_ids():
    render, key, last = jax.jit(SAMPLER.render), jax.random.key(0), 2**31 - 2
    images = [np.asarray(render(of, key)) for of in (np.int32(last), jnp.int32(last), np.int32(0))]
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).any() and all(image.max() > 0.9 for image in images)
    assert jax.eval_shape(SAMPLER.render, last, key).shape == (20, 20, 1)  # an int of Python


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ways": 0}, "ways must be an integer of at least 1, got 0"),
        ({"shots": 0}, "shots"),
        ({"queries": -1}, "queries"),
        ({"size": 4}, "size must be an integer of at least 8"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"ways": 5.0}, "ways must be an integer"),
        ({"ways": True}, "ways must be an integer"),
        ({"split": "val"}, "split must be one of .*'validation'.*'val'"),
    ],
)
def test_errors(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Glyphs(**arguments)
