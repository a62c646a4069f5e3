"""Glyphs: the embedded set of procedural characters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Task
from jaxmeta.data import Glyphs


@pytest.fixture(scope="module")
def drawings() -> np.ndarray:
    """40 classes x 10 drawings: `[40, 10, 28, 28]`."""
    keys = jax.random.split(jax.random.key(0), (40, 10))
    render = jax.jit(jax.vmap(jax.vmap(Glyphs().render, (None, 0))))
    return np.asarray(render(jnp.arange(40), keys))[..., 0]


def equal(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5), a, b)


def test_shapes_labels_and_ranges():
    sampler = Glyphs(ways=3, shots=2, queries=4, split="test", size=20)
    task = jax.jit(sampler)(jax.random.key(0))
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
    assert sampler.example.shape == (1, 20, 20, 1)
    assert not sampler.example.any()
    assert jax.tree.leaves(sampler) == []


def test_the_key_decides():
    sample = jax.jit(lambda sampler, key: sampler(key))
    a, b, c = (sample(Glyphs(), jax.random.key(i)) for i in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert not np.array_equal(a.support.x, c.support.x)


def test_splits_and_seeds_have_their_own_classes():
    samplers = [Glyphs(split="train"), Glyphs(split="validation"), Glyphs(split="test"), Glyphs(seed=1)]
    key = jax.random.key(0)  # the same for all: only the characters differ
    images = [np.asarray(jax.jit(jax.vmap(s.render, (0, None)))(jnp.arange(30), key)).reshape(30, -1) for s in samplers]
    x = np.concatenate(images)
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


def test_classes_are_recognisable_but_not_trivial(drawings):
    x = drawings.reshape(40, 10, -1)
    difference = ((x[:, :, None] - x[:, None, :]) ** 2).sum(-1)
    within = difference.sum((1, 2)) / 90
    first = ((x[:, None, :] - x[None, :, :]) ** 2).sum(-1).mean(-1)
    between = first.sum(1) - np.diag(first)
    assert within.mean() < 0.85 * (between / 39).mean()
    assert within.min() > 10  # no class is one picture

    def accuracy(key):
        task = Glyphs(ways=5, shots=1, queries=3)(key)
        support, query = (b.x.reshape(b.x.shape[0], -1) for b in task)
        nearest = jnp.argmin(((query[:, None] - support[None]) ** 2).sum(-1), 1)
        return jnp.mean(nearest == task.query.y)

    accuracies = jax.jit(lambda keys: jax.lax.map(accuracy, keys))(jax.random.split(jax.random.key(1), 300))
    assert 0.45 < accuracies.mean() < 0.68  # raw pixels, 1 shot; 0.43 on Omniglot, chance 0.20


def test_jit_vmap_and_pmap_agree():
    sampler = Glyphs(ways=2, shots=1, queries=1)
    keys = jax.random.split(jax.random.key(0), (jax.device_count(), 3))
    expected = jax.jit(lambda keys: jax.lax.map(lambda k: jax.lax.map(sampler, k), keys))(keys)
    equal(jax.jit(jax.vmap(jax.vmap(sampler)))(keys), expected)
    equal(jax.pmap(jax.vmap(sampler))(keys), expected)


def test_a_task_is_drawn_on_the_device():
    sampler, key = Glyphs(ways=2, shots=1, queries=1), jax.random.key(0)
    with jax.transfer_guard("disallow"), jax.numpy_rank_promotion("raise"):
        jax.block_until_ready(jax.jit(lambda sampler, key: sampler(key))(sampler, key))


def test_stays_float32_under_x64():
    with jax.enable_x64(True):
        task = jax.eval_shape(Glyphs(), jax.random.key(0))
    assert {a.dtype for a in jax.tree.leaves(task)} == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}


def test_class_ids():
    render, key = jax.jit(Glyphs().render), jax.random.key(0)
    for last in (2**31 - 2, jnp.int32(2**31 - 2), np.int32(2**31 - 2)):
        np.testing.assert_array_equal(render(last, key), render(jnp.int32(2**31 - 2), key))
    assert render(0, key).shape == (28, 28, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ways": 0}, ValueError, "ways must be at least 1, got 0"),
        ({"shots": 0}, ValueError, "shots"),
        ({"queries": -1}, ValueError, "queries"),
        ({"size": 4}, ValueError, "size must be at least 8"),
        ({"seed": -1}, ValueError, "seed"),
        ({"ways": 5.0}, TypeError, "ways must be an int"),
        ({"split": "val"}, ValueError, "split must be one of .*'validation'.*'val'"),
    ],
)
def test_errors(arguments: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        Glyphs(**arguments)
