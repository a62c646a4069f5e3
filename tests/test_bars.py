"""BarDistribution and bar_edges: against numerical integration, numbers by hand, and draws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from jaxmeta import BarDistribution, bar_edges

RNG = np.random.default_rng(0)
CASES = {  # name: (logits, edges)
    "two": ([0.3, -0.4], [-1.0, 0.5, 1.0]),
    "three": ([0.0, 2.0, -1.0], [-2.0, -1.9, 3.0, 3.5]),
    "many": (RNG.normal(size=20), np.cumsum(RNG.uniform(0.1, 1.0, 21)) - 5),
    "one bar": ([-200.0, 0.0, -200.0, -200.0], [0.0, 1.0, 2.0, 3.0, 4.0]),
}
EDGES = np.array([-3.0, -1.0, 0.0, 1.0, 2.0])


def density(logits, edges, y):
    """The density in float64, from SciPy's half-normal and uniform distributions."""
    logits, edges = np.asarray(logits, float), np.asarray(edges, float)
    p = np.exp(logits - scipy.special.logsumexp(logits))
    sigma = np.array([edges[1] - edges[0], edges[-1] - edges[-2]]) / scipy.stats.halfnorm.median()
    parts = [scipy.stats.halfnorm(scale=sigma[0]).pdf(edges[1] - y), scipy.stats.halfnorm(edges[-2], sigma[1]).pdf(y)]
    inner = [scipy.stats.uniform(a, b - a).pdf(y) * (y < b) for a, b in itertools.pairwise(edges[1:-1])]
    return sum(weight * part for weight, part in zip(p, [parts[0] * (y < edges[1]), *inner, parts[1]], strict=True))


def integral(case, function, low=-60.0, high=60.0):
    """Integral of a function times the density, piece by piece."""
    logits, edges = CASES[case]
    inner = np.asarray(edges, float)[1:-1]
    cuts = np.unique(np.clip([low, *inner, high], low, high))
    nodes, weights = np.polynomial.legendre.leggauss(200)
    total = 0.0
    for a, b in itertools.pairwise(cuts):
        y = a + (b - a) * (nodes + 1) / 2
        total += (b - a) / 2 * np.sum(weights * function(y) * density(logits, edges, y))
    return total


def bars_of(case, dtype=jnp.float32):
    return BarDistribution(*(jnp.asarray(part, dtype) for part in CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_density(case):
    logits, edges = CASES[case]
    assert abs(integral(case, np.ones_like) - 1) < 1e-6  # the reference itself
    y = np.linspace(edges[0] - 3.01, edges[-1] + 3.02, 61).astype(np.float32)  # no edge, which rounding would cross
    found = jax.vmap(bars_of(case).log_prob)(jnp.asarray(y))
    wanted = density(logits, edges, y.astype(float))
    np.testing.assert_allclose(np.exp(np.asarray(found)), wanted, rtol=2e-4, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_moments_are_integrals(case):
    bars = bars_of(case)
    mean = integral(case, lambda y: y)
    np.testing.assert_allclose(bars.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bars.std, integral(case, lambda y: np.square(y - mean)) ** 0.5, rtol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_cdf_is_an_integral_and_quantile_its_inverse(case):
    bars = bars_of(case)
    for y in (-7.0, -1.95, 0.3, 1.5, 3.2, 9.0):
        np.testing.assert_allclose(bars.cdf(y), integral(case, np.ones_like, high=y), atol=1e-5)
    with jax.enable_x64(True):
        bars = bars_of(case, jnp.float64)
        q = jnp.asarray([1e-6, 0.01, 0.2, 0.5, 0.77, 0.99, 1 - 1e-6])
        y = jax.vmap(bars.quantile)(q)
        assert y.dtype == jnp.float64 and (np.diff(y) > 0).all()
        np.testing.assert_allclose(jax.vmap(bars.cdf)(y), q, atol=1e-9)


def test_numbers_by_hand():
    """Four bars of probability 1/4. Half of each tail lies within the width of its bar."""
    bars = BarDistribution(jnp.zeros(4), jnp.asarray(EDGES))
    np.testing.assert_allclose(jnp.exp(bars.log_prob(0.5)), 1 / 4, rtol=1e-6)
    for y, below in ((-3.0, 1 / 8), (-1.0, 1 / 4), (-0.5, 3 / 8), (1.0, 3 / 4), (2.0, 7 / 8)):
        np.testing.assert_allclose(bars.cdf(y), below, rtol=1e-6)
        np.testing.assert_allclose(bars.quantile(below), y, atol=1e-5)
    assert bars.quantile(0.0) == -jnp.inf and bars.quantile(1.0) == jnp.inf


def test_shapes_and_batches():
    """Arrays of distributions, and distributions of their own edges under vmap."""
    logits, edges = jnp.asarray(RNG.normal(size=(3, 5, 1, 4)), jnp.float32), jnp.asarray(EDGES, jnp.float32)
    y = jnp.asarray(RNG.normal(size=(3, 5, 1)), jnp.float32)
    whole = BarDistribution(logits, edges)
    batched = BarDistribution(logits, jnp.broadcast_to(edges, (3, 1, 1, 5)))
    for name in ("log_prob", "cdf"):
        alone = jax.vmap(lambda logits, y, name=name: getattr(BarDistribution(logits, edges), name)(y))(logits, y)
        for bars in (whole, batched):
            assert getattr(bars, name)(y).shape == (3, 5, 1)
            np.testing.assert_allclose(getattr(bars, name)(y), alone, rtol=1e-5, atol=1e-6)
    assert whole.mean.shape == whole.std.shape == whole.quantile(0.3).shape == (3, 5, 1)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_types_and_far_targets(dtype):
    """Derivatives are finite wherever the target is, and at least float32."""
    with jax.enable_x64(dtype == jnp.float64):
        logits, edges = jnp.asarray([1.0, -300.0, 0.0, 2.0], dtype), jnp.asarray(EDGES, dtype)
        wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
        for y in (-1e15, -40.0, -0.5, 0.0, 1e15):
            value, grads = jax.value_and_grad(
                lambda logits, y: BarDistribution(logits, edges).log_prob(y), argnums=(0, 1)
            )(logits, jnp.asarray(y, wide))
            assert value.dtype == wide and jnp.isfinite(value)
            assert all(np.isfinite(np.asarray(grad, np.float64)).all() for grad in grads)


def test_edges_have_equal_mass():
    draws = RNG.normal(size=200_000).astype(np.float32)
    edges = bar_edges(draws.reshape(100, -1, 1), 10)
    wanted = scipy.stats.norm.ppf([0.05, *np.arange(1, 10) / 10, 0.95])
    np.testing.assert_allclose(edges, wanted, atol=0.02)
    # The density of equally probable bars is near the prior's, the tails included.
    y = np.linspace(-2.5, 2.5, 201)
    bars = BarDistribution(jnp.zeros(50), bar_edges(draws, 50))
    np.testing.assert_allclose(jax.vmap(bars.cdf)(jnp.asarray(y, jnp.float32)), scipy.stats.norm.cdf(y), atol=0.01)
    np.testing.assert_allclose([bars.mean, bars.std], [0, 1], atol=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bar_edges(np.arange(9.0), 1), "bars must be an integer of at least 2, got 1"),
        (lambda: bar_edges(np.zeros(9), 3), "targets must have at least as many different values as bars=3, got f"),
        (lambda: BarDistribution(jnp.zeros(3), jnp.arange(3.0)).mean, r"edges must .*shapes \(3,\) and \(3,\)"),
        (lambda: BarDistribution(jnp.zeros(1), jnp.arange(2.0)).mean, "of which there are 2 or more"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
