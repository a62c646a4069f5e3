# pyright: reportArgumentType=false
"""LEO: the checks of every learner, its encoder and penalties by hand, and what is random when."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import jaxmeta
from jaxmeta import Batch, MetaParams, Task
from jaxmeta.algorithms._leo import _correlation
from jaxmeta.algorithms._leo_networks import encode
from jaxmeta.testing import check_learner, check_meta_gradient

KEY = jax.random.key(0)
WAYS, FEATURES, LATENTS = 3, 6, 4


@struct.dataclass
class Clusters:
    """Classes whose means are random points of a plane that all tasks share, as unit vectors."""

    plane: jax.Array

    def __call__(self, key):
        mean_key, noise_key = jax.random.split(key)
        y = jnp.tile(jnp.arange(WAYS), 5)
        means = jax.random.normal(mean_key, (WAYS, 2)) @ self.plane
        x = means[y] + 0.3 * jax.random.normal(noise_key, (len(y), FEATURES))
        x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
        return Task(Batch(x[: 2 * WAYS], y[: 2 * WAYS]), Batch(x[2 * WAYS :], y[2 * WAYS :]))


@pytest.fixture(scope="module")
def sampler():
    return Clusters(jax.random.normal(jax.random.key(2), (2, FEATURES)))


@cache
def initial_params():
    return jax.jit(jaxmeta.leo_params, static_argnums=(1, 2))(jax.random.key(1), FEATURES, LATENTS)


@pytest.fixture(scope="module")
def task(sampler):
    return jax.jit(lambda key: sampler(key))(jax.random.key(3))


@pytest.mark.slow
def test_learner(sampler):
    check_learner(jaxmeta.leo(WAYS, steps=2, head_steps=2, dropout=0.0), initial_params(), sampler)


def test_meta_gradient_equals_finite_differences(task):
    """But for the distance of the codes, whose gradient is deliberately that of one side only."""
    learner = jaxmeta.leo(WAYS, steps=2, head_rate=0.1, head_steps=2, encoder_weight=0.0, meta_gradient=jaxmeta.mixed())
    check_meta_gradient(learner, initial_params(), task)


def test_encoder_by_hand(task):
    x, y = np.asarray(task.support.x), np.asarray(task.support.y)
    codes = x @ np.asarray(initial_params().encoder)
    classes = np.zeros((WAYS, 2 * LATENTS))
    for i, label in enumerate(y):
        for other in codes:
            hidden = np.concatenate([codes[i], other])
            for matrix in initial_params().relation[:-1]:
                hidden = np.maximum(hidden @ np.asarray(matrix), 0)
            classes[label] += hidden @ np.asarray(initial_params().relation[-1]) / len(codes) / np.sum(y == label)
    encoded = encode(initial_params(), task.support.x, jax.nn.one_hot(task.support.y, WAYS), None)
    mean, u = np.split(classes, 2, axis=1)
    np.testing.assert_allclose(encoded[0], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(encoded[1], np.maximum(np.exp(u) - 1, 1e-10), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_adapt_takes_means_and_is_gradient_descent_in_codes_then_in_weights(task):
    """With a rate of its own for every latent dimension and feature."""
    learner = jaxmeta.leo(WAYS, steps=2, head_steps=1)
    rates = jnp.linspace(0.5, 2.0, LATENTS)[None], jnp.linspace(0.1, 0.4, FEATURES)[None]
    meta = learner.init(initial_params())
    meta = MetaParams(initial_params(), jax.tree.unflatten(jax.tree.structure(meta.learned), rates))
    x, y = task.support

    def loss(weights):
        return -jnp.mean(jax.nn.log_softmax(x @ weights.T)[jnp.arange(len(y)), y])

    def decode(codes):
        return (codes @ initial_params().decoder)[:, :FEATURES]

    codes, _ = encode(initial_params(), x, jax.nn.one_hot(y, WAYS), None)
    for _ in range(2):
        codes = codes - rates[0] * jax.grad(lambda codes: loss(decode(codes)))(codes)
    weights = decode(codes)
    weights = weights - rates[1] * jax.grad(loss)(weights)
    for key in jax.random.split(KEY):
        np.testing.assert_allclose(learner.adapt(meta, task.support, key).weights, weights, rtol=1e-4, atol=1e-6)
    classifier = learner.adapt(meta, task.support, KEY)
    losses = [learner.loss(classifier, task.query, key)[0] for key in jax.random.split(KEY)]
    assert losses[0] == losses[1]


def test_meta_training_is_random(task):
    @jax.jit
    def losses(meta):
        plain, dropped = (jaxmeta.leo(WAYS, steps=1, head_steps=1, dropout=dropout) for dropout in (0.0, 0.5))
        cases = [(plain, KEY), (plain, jax.random.key(1)), (dropped, KEY)]
        return [learner.grad(meta, task, key)[0]["loss"] for learner, key in cases]

    plain, other_draw, dropped = losses(jaxmeta.leo(WAYS).init(initial_params()))
    assert abs(plain - other_draw) > 1e-3
    assert abs(plain - dropped) > 1e-3


def test_the_order_of_the_classes_does_not_matter(task):
    learner = jaxmeta.leo(WAYS, steps=2, head_steps=2)
    meta, order = learner.init(initial_params()), jnp.array([2, 0, 1])
    weights = learner.adapt(meta, task.support, KEY).weights
    renamed = learner.adapt(meta, task.support._replace(y=order[task.support.y]), KEY).weights
    np.testing.assert_allclose(renamed[order], weights, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_penalties(task):
    """Each is what the loss and the gradient grow by when its weight does; on the same random numbers."""
    weights = {"kl_weight": 0.0, "encoder_weight": 0.0, "orthogonality_weight": 0.0}

    @jax.jit
    def all_grads(meta):
        def grad(**changed):
            return jaxmeta.leo(WAYS, steps=2, head_steps=1, dropout=0.0, **weights | changed).grad(meta, task, KEY)

        return grad(), {name: grad(**{name: 1.0}) for name in weights}

    meta = jaxmeta.leo(WAYS).init(initial_params())
    (plain, plain_grads), found = all_grads(meta)
    grown = {name: metrics["loss"] - plain["loss"] for name, (metrics, _) in found.items()}
    changes = {name: jax.tree.map(jnp.subtract, grads, plain_grads) for name, (_, grads) in found.items()}

    one_hot = jax.nn.one_hot(task.support.y, WAYS)
    mean, deviation = map(np.asarray, encode(initial_params(), task.support.x, one_hot, None))
    noise = np.random.default_rng(0).normal(size=(20_000, *mean.shape))
    log_ratio = 0.5 * (mean + deviation * noise) ** 2 - np.log(deviation) - 0.5 * noise**2
    np.testing.assert_allclose(grown["kl_weight"], log_ratio.mean(), atol=0.02)

    np.testing.assert_allclose(grown["orthogonality_weight"], _correlation(initial_params().decoder), rtol=1e-4)
    only_decoder = changes["orthogonality_weight"].params._replace(decoder=jnp.zeros(()))
    assert max(jnp.abs(change).max() for change in jax.tree.leaves(only_decoder)) < 1e-6

    # The distance of the last codes from the first: only the first are pulled, so the rates and the decoder are not.
    assert grown["encoder_weight"] > 1e-3
    assert jnp.abs(changes["encoder_weight"].params.encoder).max() > 1e-4
    unmoved = changes["encoder_weight"].learned, changes["encoder_weight"].params.decoder
    assert max(jnp.abs(change).max() for change in jax.tree.leaves(unmoved)) < 1e-6


def test_correlation():
    np.testing.assert_allclose(_correlation(3.0 * jnp.eye(4, 6)), 0.0, atol=1e-7)
    np.testing.assert_allclose(_correlation(jnp.array([[1.0, 2.0], [-2.0, -4.0], [2.0, -1.0]])), 2 / 9, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: jaxmeta.leo(0), ValueError, "ways must be an integer of at least 1, got 0"),
        (lambda: jaxmeta.leo(2, head_steps=-1), ValueError, "head_steps must be an integer of at least 0, got -1"),
        (
            lambda: jaxmeta.leo(2, dropout=1.0),
            ValueError,
            "dropout must be a number of at least 0 and less than 1",
        ),
        (lambda: jaxmeta.leo(2, float("inf")), ValueError, "inner_rate must be a finite number, got inf"),
        (lambda: jaxmeta.leo(2, kl_weight="a"), ValueError, "kl_weight must be a finite number, got 'a'"),
        (lambda: jaxmeta.leo(2).init({}), TypeError, "params must be LEOParams"),
        (lambda: jaxmeta.leo_params(KEY, 0), ValueError, "features must be an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
