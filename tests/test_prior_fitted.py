"""Prior-fitted networks: what they learn is the exact posterior, for support sets of every size."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from few_shot_learners import methods

import jaxmeta
from jaxmeta import Batch, Experiment, data
from jaxmeta.__main__ import main

KEY = jax.random.key(0)
MODEL = jaxmeta.BarTransformer(bars=20, width=16, layers=1, heads=2)
LEARNER = jaxmeta.prior_fitted_network(*methods(MODEL, "encode", "decode"))
GP = data.GaussianProcess(shots=(0, 3), queries=8, kernels=("rbf",), lengthscales=(1.0, 1.0), scales=(1.0, 1.0))


@pytest.fixture(scope="module")
def meta() -> jaxmeta.MetaParams:
    draws = jax.jit(jax.vmap(GP))(jax.random.split(KEY, 500)).query.y
    return LEARNER.init(jax.jit(MODEL.init)(KEY, GP.example, draws))


def drawn(seed=1) -> jaxmeta.Task:
    return GP(jax.random.key(seed))


def test_edges_come_from_the_prior_and_are_no_parameters(meta):
    draws = jax.jit(jax.vmap(GP))(jax.random.split(KEY, 500)).query.y
    np.testing.assert_allclose(meta.variables["bars"]["edges"], jaxmeta.bar_edges(draws, 20), rtol=1e-5)
    assert all("bars" not in str(path) for path, _ in jax.tree.leaves_with_path(meta.params))
    step = jaxmeta.meta_step(LEARNER, optax.adamw(0.1, weight_decay=0.5), 2)
    after, metrics = jax.jit(step.step)(step.init(meta), KEY, GP)
    np.testing.assert_array_equal(after.meta.variables["bars"]["edges"], meta.variables["bars"]["edges"])
    assert set(metrics) == {"loss", "mse"}


def test_edges_without_draws_are_those_of_a_standard_normal():
    edges = np.asarray(MODEL.init(KEY, jnp.zeros((1, 1)))["bars"]["edges"])
    np.testing.assert_allclose(edges[[5, 10, 15]], [-0.67449, 0.0, 0.67449], atol=1e-3)


def test_padding_has_no_influence(meta):
    """The dense set, the padded one with any content, and any order give one prediction."""
    task = drawn()
    x, y = task.support.x, task.support.y

    def predict(support):
        return LEARNER.adapt(meta, support, KEY)(task.query.x).logits

    dense = predict(Batch(x[:2], y[:2]))
    for filler in (0.0, 7.0):
        padded = Batch(x.at[2].set(filler), y.at[2].set(-filler), jnp.array([1.0, 1.0, 0.0]))
        np.testing.assert_allclose(predict(padded), dense, atol=1e-5)
    np.testing.assert_allclose(predict(Batch(x[1::-1], y[1::-1])), dense, atol=1e-5)
    assert np.abs(predict(Batch(x, y)) - dense).max() > 1e-3


def test_an_empty_support_set_is_one_of_padding(meta):
    """Both are finite, equal, and have finite meta-gradients."""
    task = drawn()
    padding = task.support._replace(weight=jnp.zeros(3))
    empty = LEARNER.adapt(meta, Batch(task.support.x[:0], task.support.y[:0]), KEY)(task.query.x)
    found = LEARNER.adapt(meta, padding, KEY)(task.query.x)
    assert np.isfinite(found.logits).all()
    np.testing.assert_allclose(found.logits, empty.logits, atol=1e-6)
    metrics, grads = jax.jit(LEARNER.grad)(meta, task._replace(support=padding), KEY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((metrics, grads)))


def test_loss_is_the_mean_of_log_densities(meta):
    task = drawn()
    batch = Batch(task.query.x, task.query.y, jnp.arange(8.0))
    regressor = LEARNER.adapt(meta, task.support, KEY)
    loss, metrics = LEARNER.loss(regressor, batch, KEY)
    predicted = regressor(task.query.x)
    weights = np.arange(8.0) / 28
    np.testing.assert_allclose(loss, -np.sum(weights * np.ravel(predicted.log_prob(task.query.y))), rtol=1e-5)
    np.testing.assert_allclose(
        metrics["mse"], np.sum(weights * np.square(np.ravel(predicted.mean - task.query.y))), rtol=1e-5
    )


@pytest.mark.slow
def test_learns_the_posterior():
    """After a short training the divergence from the exact posterior is small, and falls with the training."""
    gp = GP.replace(queries=16)  # pyright: ignore[reportAttributeAccessIssue]
    draws = jax.jit(jax.vmap(gp))(jax.random.split(KEY, 500)).query.y
    meta = LEARNER.init(jax.jit(MODEL.init)(KEY, gp.example, draws))
    rate = optax.cosine_decay_schedule(3e-3, 1500)
    trained = jaxmeta.train(
        LEARNER, optax.adam(rate), meta, gp, KEY, iterations=1500, num_tasks=16, batch_size=16, progress=False
    )

    def divergence(meta: jaxmeta.MetaParams, key: jax.Array) -> jax.Array:
        task = gp(key)
        exact = gp.posterior(task.support, task.query.x, gp.kernel(key))
        found = LEARNER.adapt(meta, task.support, key)(task.query.x)
        density = jax.scipy.stats.norm.logpdf(task.query.y, exact.mean, exact.std)
        return jnp.mean(density - found.log_prob(task.query.y))

    keys = jax.random.split(jax.random.key(9), 300)
    before, after = (jax.jit(jax.vmap(partial(divergence, m)))(keys).mean() for m in (meta, trained.meta))
    assert after < 0.3 and after < before / 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxmeta.BarTransformer(bars=1), "bars must be an integer of at least 2, got 1"),
        (
            lambda: LEARNER.adapt(
                LEARNER.init(MODEL.init(KEY, jnp.zeros((1, 1)))), Batch(jnp.zeros((3, 1)), jnp.zeros(3)), KEY
            ),
            r"y must be targets of shape \(3, 1\), one for each input, got f32\[3\]",
        ),
        (
            lambda: LEARNER.loss(lambda x: x, Batch(jnp.zeros((3, 1)), jnp.zeros((3, 1))), KEY),
            r"decode must return a BarDistribution of the targets' shape \(3, 1\), got f32\[3,1\]",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_a_run_saves_its_bars_and_tells_means(tmp_path, capsys):
    """A run from the command line: its edges are those of its seed's prior, and the predictions are means."""
    folder = tmp_path / "run"
    words = "train --benchmark gp-prior --learner pfn --bars 10 --hidden 4 --iterations 2 --num-tasks 2 --shots 3"
    words += " --validation-tasks 2 --test-tasks 4"
    assert main([*words.split(), "--folder", str(folder)]) == 0, capsys.readouterr().err
    parts: Any = Experiment("gp-prior", "pfn", bars=10, hidden=4, shots=3).build()
    loaded = jaxmeta.load_run(folder)
    edges = [np.asarray(meta.variables["bars"]["edges"]) for meta in (loaded.meta, parts.meta)]
    np.testing.assert_array_equal(edges[0], edges[1])
    other: Any = Experiment("gp-prior", "pfn", bars=10, hidden=4, shots=3, seed=1).build()
    assert (np.asarray(other.meta.variables["bars"]["edges"]) != edges[0]).any()
    for ending in ("csv", "npz"):
        jaxmeta.evaluate_run(folder, predictions=tmp_path / f"predictions.{ending}")
    rows = np.genfromtxt(tmp_path / "predictions.csv", delimiter=",", names=True)
    outputs = np.load(tmp_path / "predictions.npz")["outputs"]
    assert outputs.shape == (2, 4, 10, 1) and (outputs[1] > 0).all()
    np.testing.assert_allclose(rows["prediction"], outputs[0].ravel(), rtol=1e-5, atol=1e-6)
