"""Each head against something independent: numpy by hand, the primal solution, scipy's optimizers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy

import jaxmeta
from jaxmeta.algorithms._lr_d2 import logistic
from jaxmeta.algorithms._r2d2 import ridge
from jaxmeta.algorithms._svm import crammer_singer

LABELS = np.array([0, 2, 1, 1, 2, 2, 0, 1, 1])  # of 9 examples: 2, 4 and 3 per class


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def problem(d, labels=LABELS, seed=0):
    """Features `[n, d]` and one-hot labels `[n, ways]`."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(len(labels), d)), np.eye(labels.max() + 1)[labels]


def fit(head, x, y, queries):
    """Logits of `queries` by a head that is fitted with its initial learned numbers."""
    return np.asarray(head.logits(head.fit(jax.tree.map(jnp.asarray, head.learned), jnp.asarray(x), y), queries))


def rows_to_length_1(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("center", [None, 0.3])
@pytest.mark.parametrize("normalize", [False, True])
def test_euclidean_head_by_hand(center, normalize):
    x, y = problem(4)
    queries = np.random.default_rng(1).normal(size=(5, 4))
    head = jaxmeta.euclidean_head(2.0, center=None if center is None else jnp.full(4, center), normalize=normalize)
    logits = fit(head, x, y, queries)
    if center is not None:
        x, queries = x - center, queries - center
    if normalize:
        x, queries = rows_to_length_1(x), rows_to_length_1(queries)
    for i, query in enumerate(queries):
        for k in range(3):
            prototype = np.mean([row for row, label in zip(x, LABELS, strict=True) if label == k], axis=0)
            np.testing.assert_allclose(logits[i, k], -2.0 * np.sum((query - prototype) ** 2), rtol=1e-6)


def test_cosine_head_by_hand():
    x, y = problem(4)
    queries = np.random.default_rng(1).normal(size=(5, 4))
    prototypes = np.stack([x[k == LABELS].mean(0) for k in range(3)])
    expected = 10.0 * rows_to_length_1(queries) @ rows_to_length_1(prototypes).T
    np.testing.assert_allclose(fit(jaxmeta.cosine_head(), x, y, queries), expected, rtol=1e-6)
    assert jaxmeta.cosine_head(3.0).learned == {"scale": 3.0}
    assert jaxmeta.cosine_head(3.0, learn=False).learned == ()


def test_attention_head_by_hand():
    x, y = problem(4)
    queries = np.random.default_rng(1).normal(size=(5, 4))
    weights = np.exp(3.0 * rows_to_length_1(queries) @ rows_to_length_1(x).T)
    expected = (weights / weights.sum(1, keepdims=True)) @ y
    np.testing.assert_allclose(np.exp(fit(jaxmeta.attention_head(3.0), x, y, queries)), expected, rtol=1e-6)


def primal_ridge(x, y, regularization):
    return jnp.linalg.inv(x.T @ x + regularization * jnp.eye(x.shape[1])) @ x.T @ y


def dual_ridge(x, y, regularization):
    return x.T @ jnp.linalg.inv(x @ x.T + regularization * jnp.eye(x.shape[0])) @ y


@pytest.mark.parametrize("d", [4, 40])
@pytest.mark.parametrize("form", [primal_ridge, dual_ridge])
def test_ridge_equals_both_forms_and_so_do_its_gradients(d, form):
    x, y = problem(d)
    direction = np.random.default_rng(1).normal(size=(d, 3))

    def value_and_gradients(solve):
        def objective(x, y, regularization):
            weights = solve(x, y, regularization)
            return jnp.sum(direction * weights), weights

        return jax.jit(jax.value_and_grad(objective, (0, 1, 2), has_aux=True))(x, y, 0.7)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
        value_and_gradients(ridge),
        value_and_gradients(form),
    )


def test_ridge_head_scales_and_regularizes():
    x, y = problem(4)
    queries = np.random.default_rng(1).normal(size=(5, 4))
    expected = 3.0 * queries @ np.linalg.solve(x.T @ x + 0.5 * np.eye(4), x.T @ y)
    for learn in (True, False):
        head = jaxmeta.ridge_head(0.5, 3.0, learn_regularization=learn)
        np.testing.assert_allclose(fit(head, x, y, queries), expected, rtol=1e-9)
        assert ("log_regularization" in head.learned) == learn


@pytest.mark.parametrize("d", [4, 40])
def test_logistic_head_converges_to_scipys_minimum(d):
    x, y = problem(d)
    weight = np.random.default_rng(2).uniform(0.2, 2.0, len(x))
    weights = logistic(jnp.asarray(x), jnp.asarray(y), jnp.asarray(0.3), 20, jnp.asarray(weight))
    for k in range(3):
        signs = 2 * y[:, k] - 1

        def loss(w, signs=signs):
            return weight @ np.logaddexp(0, -signs * (x @ w)) + 0.15 * w @ w

        def gradient(w, signs=signs):
            return -x.T @ (weight * signs / (1 + np.exp(signs * (x @ w)))) + 0.3 * w

        found = scipy.optimize.minimize(loss, np.zeros(d), jac=gradient, method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(weights[:, k], found.x, atol=1e-7)


def test_one_logistic_step_is_newtons():
    x, y = problem(4)
    weights = logistic(jnp.asarray(x), jnp.asarray(y), jnp.asarray(0.3), 1, jnp.ones(len(x)))
    expected = np.linalg.solve(0.25 * x.T @ x + 0.3 * np.eye(4), x.T @ (y - 0.5))
    np.testing.assert_allclose(weights, expected, rtol=1e-9)


def test_weighted_ridge_head_solves_the_weighted_equations():
    x, y = problem(4)
    weight = np.random.default_rng(2).uniform(0.2, 2.0, (len(x), 1))
    queries = np.random.default_rng(1).normal(size=(5, 4))
    expected = 3.0 * queries @ np.linalg.solve(x.T @ (weight * x) + 0.5 * np.eye(4), x.T @ (weight * y))
    for wide in (False, True):  # the other form of the solution, with features that are more than examples
        pad = ((0, 0), (0, 20 * wide))
        head = jaxmeta.ridge_head(0.5, 3.0)
        logits = fit(head, np.pad(x, pad), weight * y, np.pad(queries, pad))
        np.testing.assert_allclose(logits, expected, rtol=1e-9)


def test_linear_head_takes_the_steps_of_gradient_descent():
    x, y = problem(4)
    queries = np.random.default_rng(1).normal(size=(5, 4))
    kernel, bias = np.zeros((4, 3)), np.zeros(3)
    for _ in range(6):
        scores = np.exp(x @ kernel + bias)
        error = (scores / scores.sum(1, keepdims=True) - y) / len(x)
        kernel, bias = kernel - 0.7 * x.T @ error, bias - 0.7 * error.sum(0)
    np.testing.assert_allclose(
        fit(jaxmeta.linear_head(optax.sgd(0.7), 6), x, y, queries), queries @ kernel + bias, rtol=1e-9
    )


def test_cosine_linear_head_starts_at_the_class_means_and_lowers_the_loss():
    x, y = problem(4)
    started = fit(jaxmeta.linear_head(optax.sgd(1e-12), 1, scale=2.0), x, y, x)
    np.testing.assert_allclose(started, fit(jaxmeta.cosine_head(2.0), x, y, x), rtol=1e-6)
    trained = fit(jaxmeta.linear_head(optax.sgd(1.0), 50, scale=2.0), x, y, x)
    loss = [float(jnp.mean(optax.softmax_cross_entropy(logits, y))) for logits in (trained, started)]
    assert loss[0] < loss[1] - 0.01
    assert np.abs(trained).max() <= 2.0


# The quadratic program of the support vector machine: 5 ways, and two tasks at once.


def svm_problem(shots, damping=1.0):
    """The Gram matrices `[2, n, n]` and labels `[2, n, 5]` of two tasks, labels in different orders."""
    rng = np.random.default_rng(shots)
    x = rng.normal(size=(2, 5 * shots, 16))
    y = np.stack([np.eye(5)[rng.permutation(np.arange(5 * shots) % 5)] for _ in range(2)])
    return x @ x.transpose(0, 2, 1) + damping * np.eye(5 * shots), y


def by_scipy(gram, y, c, weight=1e4):
    """The dual variables by an exact active-set method: with slacks `s = c * y - a`, it is least squares of `s >= 0`.

    That the slacks of a row sum to `c` is one more equation, with a large weight: an error of about 1 / weight**2.
    """
    n, ways = y.shape
    root, target = np.linalg.cholesky(gram).T, np.linalg.solve(np.linalg.cholesky(gram), y)
    sums = np.kron(np.eye(n), np.ones((1, ways)))
    matrix = np.vstack([np.kron(-root, np.eye(ways)), weight * sums])
    right = np.concatenate([(target - root @ (c * y)).ravel(), weight * np.sum(c * y, 1)])
    return c * y - scipy.optimize.nnls(matrix, right, maxiter=10_000)[0].reshape(n, ways)


@pytest.mark.parametrize("shots", [1, 5, 15])
def test_svm_equals_scipys_solution_and_its_finite_differences_in_a_batch_of_tasks(shots):
    grams, y = svm_problem(shots)
    rng = np.random.default_rng(9)
    directions, cotangents = rng.normal(size=grams.shape), rng.normal(size=y.shape)
    directions += directions.transpose(0, 2, 1)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, 0, 0, None))
    def solve(gram, y, direction, cotangent, c):
        duals, change = jax.jvp(lambda gram: crammer_singer(gram, y, c, 30), (gram,), (direction,))
        _, pull_back = jax.vjp(lambda gram: crammer_singer(gram, y, c, 30), gram)
        return duals, change, jnp.sum(pull_back(cotangent)[0] * direction)

    for c in (0.1, 1.0):
        results = solve(grams, y, directions, cotangents, c)
        for i, (duals, change, reverse) in enumerate(zip(*results, strict=True)):
            np.testing.assert_allclose(duals, by_scipy(grams[i], y[i], c), atol=2e-8)
            plus, minus = (by_scipy(grams[i] + h * directions[i], y[i], c) for h in (1e-5, -1e-5))
            difference = (plus - minus) / 2e-5
            np.testing.assert_allclose(change, difference, atol=2e-6 * np.abs(difference).max())
            np.testing.assert_allclose(reverse, np.sum(cotangents[i] * difference), rtol=1e-4)


@pytest.mark.parametrize("shots", [1, 5, 15])
def test_fifteen_iterations_in_float32_are_enough(shots):
    grams, y = svm_problem(shots)
    solve = jax.jit(jax.vmap(lambda gram, y: crammer_singer(gram, y, 0.1, 15)))
    duals = solve(jnp.float32(grams), jnp.float32(y))
    assert duals.dtype == jnp.float32
    np.testing.assert_allclose(duals, [by_scipy(*task, 0.1) for task in zip(grams, y, strict=True)], atol=2e-6)


@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_svm_stays_exact_far_from_unit_features(size):
    """More iterations change nothing, and nothing overflows."""
    x, y = problem(4)
    gram = jnp.float32(size * x @ x.T + size * np.eye(len(x)))
    few, many = (crammer_singer(gram, jnp.float32(y), 10.0, iterations) for iterations in (20, 100))
    np.testing.assert_allclose(many, few, atol=1e-3)
    np.testing.assert_allclose(jnp.sum(many, 1), 0, atol=1e-3)
    assert bool(jnp.all(many <= 10.0 * y + 1e-3))


def test_weights_bound_the_dual_variables_of_the_svm():
    grams, y = svm_problem(2)
    weight = np.random.default_rng(2).uniform(0.2, 2.0, (len(grams[0]), 1))
    found = crammer_singer(jnp.asarray(grams[0]), jnp.asarray(weight * y[0]), 0.1, 30)
    np.testing.assert_allclose(found, by_scipy(grams[0], y[0], 0.1 * weight), atol=2e-8)


def test_second_derivative_of_the_svm_is_right_too():
    x, y = problem(4)
    gram, direction = x @ x.T + np.eye(9), np.outer(x[:, 0], x[:, 0])

    def squares(t):
        return jnp.sum(crammer_singer(gram + t * direction, jnp.asarray(y), 0.1, 25) ** 2)

    slope, h = jax.jit(jax.grad(squares)), 1e-4
    np.testing.assert_allclose(jax.jit(jax.grad(slope))(0.0), (slope(h) - slope(-h)) / (2 * h), rtol=1e-5)


def test_svm_head_separates_with_the_margin():
    """Far from the bound `c`, the right class's score exceeds the others' by 1 at least, and by 1 exactly somewhere."""
    x, y = problem(40)
    head = jaxmeta.svm_head(c=1e3, damping=1e-9, iterations=40)
    scores = fit(head, x, y, x)
    margins = scores[np.arange(9), LABELS][:, None] - np.where(y == 1, -np.inf, scores)
    np.testing.assert_allclose(margins[y == 0].min(), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: jaxmeta.cosine_head(0.0), ValueError, "scale must be a positive number, got 0.0"),
        (lambda: jaxmeta.euclidean_head(-1.0), ValueError, "scale must be a positive number"),
        (lambda: jaxmeta.ridge_head(0.0), ValueError, "regularization must be a positive number"),
        (lambda: jaxmeta.logistic_head(steps=0), ValueError, "steps must be an integer of at least 1, got 0"),
        (lambda: jaxmeta.svm_head(c=float("inf")), ValueError, "c must be a positive number"),
        (lambda: jaxmeta.svm_head(iterations=0), ValueError, "iterations must be an integer"),
        (
            lambda: fit(jaxmeta.svm_head(), np.ones((2, 2)), np.ones((2, 1)), np.ones((1, 2))),
            ValueError,
            "ways must be",
        ),
        (lambda: jaxmeta.attention_head(-1.0), ValueError, "scale must be a positive number"),
        (lambda: jaxmeta.linear_head(0.1), TypeError, "inner must be an optax.GradientTransformation"),  # pyright: ignore
        (lambda: jaxmeta.linear_head(scale=0.0), ValueError, "scale must be a positive number"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
