"""Weights of examples: padding has no influence on any learner, absent classes have no probability."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_shot_learners import GRADIENTS, HEADS, OTHERS, PROCESS, REGRESSORS, SGD, learner_of, parameters

import jaxmeta
from jaxmeta import Batch, Task

ONCE = ("full-context", "metaoptnet", "oml")  # where an example of weight 2 is not the same as two examples


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def drawn(ways, twice, regression=False):
    """A task whose first example comes twice, and the same task with weights and with padding in between."""
    rng = np.random.default_rng(0)

    def part(shots):
        y = np.repeat(np.arange(ways), shots)
        x, weight = rng.normal(size=(len(y), 5)) + y[:, None], np.ones(len(y))
        y = rng.normal(size=(len(y), 1)) if regression else y
        weight[0] += twice
        padding = [0, 2, 2, len(y)]
        padded = Batch(*(np.insert(a, padding, b, axis=0) for a, b in ((x, 1e4), (y, 77), (weight, 0))))
        rows = np.repeat(np.arange(len(y)), weight.astype(int))
        return jax.tree.map(jnp.asarray, (Batch(x[rows], y[rows]), padded))

    (support, padded_support), (query, padded_query) = part(3), part(2)
    return Task(support, query), Task(padded_support, padded_query)


def outcome(learner, model, task, ways):
    """Metrics and meta-gradient in training, then the loss after adaptation at test, and the logits if there are."""

    @jax.jit
    def run(params, task):
        meta, key = learner.init(params), jax.random.key(1)
        adapted = learner.adapt(meta, task.support, key)
        logits = adapted(jnp.ones((2, 5)))[:, :ways] if ways else None
        return learner.grad(meta, task, key), learner.loss(adapted, task.query, key), logits

    return run(parameters(model), task)


def assert_close(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), actual, expected)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.quick("protonet", "lr-d2")
def test_padding_weights_and_more_ways_than_classes_change_no_head(name):
    make, model = HEADS[name]
    dense, padded = drawn(3, name not in ONCE)
    assert_close(outcome(make(4), model, padded, 3), outcome(make(3), model, dense, 3))
    learner = make(4)
    classifier = jax.jit(learner.adapt)(learner.init(parameters(model)), padded.support, jax.random.key(0))
    assert np.isneginf(classifier(jnp.ones((2, 5)))[:, 3]).all()


@pytest.mark.parametrize("name", [*GRADIENTS, *OTHERS])
@pytest.mark.quick("maml", "proto-maml")
def test_padding_and_weights_change_no_other_learner(name):
    learner, model = learner_of(name)
    dense, padded = drawn(4, name not in ONCE, regression=name in REGRESSORS)
    assert_close(outcome(learner, model, padded, None), outcome(learner, model, dense, None))


@pytest.mark.parametrize("weight", [None, np.array([True, False, True]), np.array([0.5, 0.0, 3.5])])
def test_losses_are_numpys_averages(weight):
    rng = np.random.default_rng(0)
    x, y, targets = rng.normal(size=(3, 4)), np.array([0, 2, 1]), rng.normal(size=(3, 4))
    batch, key = Batch(jnp.asarray(x), jnp.asarray(y), weight), jax.random.key(0)
    loss, metrics = jaxmeta.classification(lambda scale, x: scale * x)(2.0, batch, key)
    entropy = np.log(np.exp(2 * x).sum(1)) - 2 * x[np.arange(3), y]
    np.testing.assert_allclose(loss, np.average(entropy, weights=weight))
    np.testing.assert_allclose(metrics["accuracy"], np.average(x.argmax(1) == y, weights=weight))
    loss, _ = jaxmeta.regression(lambda scale, x: scale * x)(2.0, batch._replace(y=jnp.asarray(targets)), key)
    np.testing.assert_allclose(loss, np.average(((2 * x - targets) ** 2).mean(1), weights=weight))


def test_mean_without_examples_is_zero_and_padding_may_be_infinite():
    assert float(jaxmeta.weighted_mean(jnp.ones(3), jnp.zeros(3))) == 0
    slope = jax.grad(lambda x: jaxmeta.weighted_mean(jnp.log(x), jnp.array([1.0, 0.0])))(jnp.array([2.0, 0.0]))
    assert slope[0] == 0.5
    loss = jaxmeta.classification(lambda _, x: x)
    labels = Batch(jnp.eye(2), jnp.array([0, 5]), jnp.array([1, 0]))
    assert np.isfinite(loss((), labels, jax.random.key(0))[0])
    with pytest.raises(ValueError, match=r"labels must be integers from 0 to 1, got \[5\]"):
        loss((), labels._replace(weight=None), jax.random.key(0))


@pytest.mark.parametrize("weight", [None, np.zeros(3)])
def test_empty_context_of_a_neural_process_is_zeros(weight):
    model: Any = PROCESS
    params, n = parameters(model), 0 if weight is None else 3
    empty = model.apply(params, jnp.ones((n, 5)), jnp.ones((n, 1)), weight, method="encode")
    np.testing.assert_array_equal(empty, np.zeros(6))


HALF_HEADS = {
    "euclidean": jaxmeta.euclidean_head(),
    "centered": jaxmeta.euclidean_head(center=jnp.full(8, 0.5), normalize=True),
    "cosine": jaxmeta.cosine_head(),
    "attention": jaxmeta.attention_head(5.0),
    "logistic": jaxmeta.logistic_head(),
    "linear": jaxmeta.linear_head(SGD, 3, scale=2.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", HALF_HEADS)
def test_heads_compute_half_precision_in_float32(name, dtype):
    """The same features in float64 give the same logits, also with a row of zeros, and finite derivatives."""
    head, rng = HALF_HEADS[name], np.random.default_rng(0)
    support = jnp.asarray(rng.normal(size=(6, 8)), dtype).at[0].set(0)
    queries, one_hot = (
        jnp.asarray(rng.normal(size=(4, 8)), dtype).at[0].set(0),
        jnp.eye(3, dtype=dtype)[jnp.arange(6) % 3],
    )

    def logits(support, queries, one_hot):
        return head.logits(head.fit(head.learned, support, one_hot), queries)

    found = logits(support, queries, one_hot)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(
        found, logits(jnp.float64(support), jnp.float64(queries), jnp.float64(one_hot)), atol=2e-5
    )
    slopes = jax.grad(lambda x, q: jnp.mean(logits(x, q, one_hot)), (0, 1))(support, queries)
    assert all(np.isfinite(np.asarray(slope, np.float64)).all() for slope in slopes)


def test_distances_do_not_lose_digits_far_from_the_origin():
    rng = np.random.default_rng(0)
    far, near = (jnp.float32(offset + np.round(rng.normal(size=(9, 64)) * 64) / 64) for offset in (0, 0))
    head, one_hot = jaxmeta.euclidean_head(), jnp.float32(np.eye(3)[np.arange(9) % 3])

    def logits(offset):
        return head.logits(head.fit((), far + offset, one_hot), near + offset)

    np.testing.assert_allclose(logits(1000.0), logits(0.0), rtol=1e-4)
