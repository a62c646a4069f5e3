"""Supervised pre-training: minibatches of all classes, what is learned, what is returned."""

from functools import cache
from typing import Any

import jax
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import Minibatches, data, models

KEY = jax.random.key(0)


def test_minibatches_draw_every_example_alike():
    counts = np.array([3, 1, 4])
    labels = np.repeat([7, 2, 5], counts)  # so the rows of the table are 2, 5, 7
    images = np.arange(8, dtype=np.float32)[:, None, None, None] + np.array([[0, 100], [200, 300]])[None, :, :, None]
    source = data.FewShot.create(images, labels, ways=2, shots=1, queries=1, replacement=True, rotations=4)
    batches = Minibatches(source, 4000)
    batch = jax.jit(lambda batches, key: batches(key))(batches, KEY)
    assert batches.num_classes == 12 and batches.example.shape == (1, 2, 2, 1)

    examples = np.asarray(batch.x).min((1, 2, 3)).astype(int)
    turns = np.array([np.argmax(np.rot90(images[0, :, :, 0], turn).ravel() == 0) for turn in range(4)])
    turn = np.argmax(np.asarray(batch.x).reshape(-1, 4).argmin(1)[:, None] == turns[None], 1)
    row = np.searchsorted([2, 5, 7], labels[examples])
    assert np.array_equal(batch.y, turn * 3 + row)
    shares = np.bincount(examples * 4 + turn, minlength=32) / 4000
    np.testing.assert_allclose(shares, np.full(32, 1 / 32), atol=5 * (1 / 32 / 4000) ** 0.5)


@cache
def clusters(seed, classes):
    """Classes of 10 points that are close together in 4 of 24 dimensions, and far apart in the others."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(classes, 10, 6, 4, 1))
    points[:, :, 0] = 0.3 * points[:, :, 0] + rng.normal(size=(classes, 1, 4, 1))
    points[:, :, 1:] *= 2
    return data.FewShot.from_classes(points.astype(np.float32), ways=3, shots=1, queries=5)


def base():
    return clusters(0, 60)


def tasks():
    return clusters(1, 20)


MODEL = models.OmniglotFC(ways=60, sizes=(64, 32))


def run(**options):
    batches = Minibatches(base(), 64)
    params = MODEL.init(KEY, batches.example)
    arguments = {"iterations": 200, "validate_every": 100, "log_every": 100, "progress": False, **options}
    return jaxmeta.pretrain(MODEL, optax.adam(1e-2), params, batches, jax.random.key(1), **arguments)


def features(variables, x) -> Any:
    return MODEL.apply(variables, x, method="features")


@pytest.mark.slow
def test_learns_features_for_few_shots(tmp_path):
    """Accuracy on new classes rises, is what `evaluate` gives for the result, and does not depend on who is beside."""
    done = run(validation=tasks(), validation_tasks=50, folder=tmp_path)
    start, first, last = done.history
    assert start["step"] == 0 and start["validation/accuracy"] < 0.5
    assert first["train/accuracy"] < 0.6 < 0.9 < last["train/accuracy"]
    accuracy = max(first["validation/accuracy"], last["validation/accuracy"])
    assert {100: first, 200: last}[done.step]["validation/accuracy"] == accuracy

    learner = jaxmeta.simpleshot(features, ways=3)
    evaluate = jax.jit(jaxmeta.evaluate(learner, 50))
    key = jax.random.split(jax.random.key(1), 3)[2]
    start = jax.jit(MODEL.init)(KEY, base().example)
    start = models.with_batch_stats(MODEL, start, base().inputs.reshape(10, 60, 6, 4, 1))
    before, after = (np.mean(evaluate(learner.init(v), tasks(), key)["accuracy"]) for v in (start, done.meta))
    assert before < 0.5 < 0.7 < accuracy
    np.testing.assert_allclose(after, accuracy, atol=1e-6)

    embedded, alone = features(done.meta, tasks().inputs[:7]), features(done.meta, tasks().inputs[:1])
    np.testing.assert_allclose(embedded[:1], alone, rtol=1e-4, atol=1e-4)
    again = run(validation=tasks(), validation_tasks=50, folder=tmp_path)  # finished: only read
    jax.tree.map(np.testing.assert_array_equal, again.meta, done.meta)


@pytest.mark.slow
def test_augment_and_given_learner():
    """With its inputs gone nothing can be learned; a learner of ours is what validation measures."""
    learner = jaxmeta.protonet(features, 3, scale=1e-6)
    options = {"iterations": 20, "validate_every": 20, "log_every": 20, "validation": tasks(), "validation_tasks": 2}
    done = run(augment=lambda key, x: 0 * x, learner=learner, **options)
    assert done.history[-1]["train/loss"] > 3.9  # log 60 is 4.1
    np.testing.assert_allclose(done.history[-1]["validation/loss"], np.log(3), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statistics_batches": 0}, "statistics_batches"),
        ({"validation_tasks": 0}, "validation_tasks"),
        ({"iterations": 0}, "iterations"),
        ({"learner": jaxmeta.protonet(features, 3)}, "needs validation"),
        ({"validation": data.Sinusoid()}, "learner must be given, as validation has no ways: Sinusoid"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_other_errors():
    optimizer: Any = 0.1
    with pytest.raises(TypeError, match="optimizer"):
        jaxmeta.pretrain(MODEL, optimizer, {}, Minibatches(base()), KEY, iterations=1)
    with pytest.raises(ValueError, match="size"):
        Minibatches(base(), 0)
