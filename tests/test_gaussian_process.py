"""GaussianProcess: kernels against scikit-learn's formulas in NumPy, draws, and the posterior without Cholesky."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from jaxmeta import Batch
from jaxmeta.data import GaussianProcess, Kernel, get_tasksets
from jaxmeta.testing import check_sampler

KEY = jax.random.key(0)
KINDS = ("rbf", "matern12", "matern32", "matern52", "periodic")
ORDERS = {"matern12": 0.5, "matern32": 1.5, "matern52": 2.5}


def kernel(kind=0, lengthscale=0.7, scale=1.3, period=1.6):
    return Kernel(jnp.asarray(kind), jnp.asarray(lengthscale), jnp.asarray(scale), jnp.asarray(period))


def covariance(name, x, other, k):
    """Covariances in float64. The Matern functions come from the modified Bessel function."""
    length, scale, period = (float(value) for value in k[1:])
    difference = np.asarray(x, float)[:, None] - np.asarray(other, float)[None]
    r = np.sqrt(np.sum(difference**2, -1)) / length
    if name == "rbf":
        return scale**2 * np.exp(-0.5 * r**2)
    if name == "periodic":
        return scale**2 * np.exp(-2 * np.sum((np.sin(np.pi * difference / period) / length) ** 2, -1))
    nu = ORDERS[name]
    z = np.sqrt(2 * nu) * np.where(r > 0, r, 1e-12)
    return scale**2 * 2 ** (1 - nu) / scipy.special.gamma(nu) * z**nu * scipy.special.kv(nu, z)


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("name", KINDS)
def test_kernels(name, dim):
    rng = np.random.default_rng(0)
    x, other = rng.uniform(-2, 2, (6, dim)), rng.uniform(-2, 2, (4, dim))
    other[0] = x[0]
    gp = GaussianProcess(dim=dim)
    found = gp.covariance(jnp.asarray(x, jnp.float32), jnp.asarray(other, jnp.float32), kernel(KINDS.index(name)))
    np.testing.assert_allclose(found, covariance(name, x, other, kernel()), rtol=1e-4, atol=1e-5)
    at_itself = jax.grad(lambda x: gp.covariance(x, x, kernel(KINDS.index(name))).sum())(jnp.zeros((2, dim)))
    assert jnp.isfinite(at_itself).all()


@pytest.mark.parametrize("name", KINDS)
def test_posterior_is_that_of_the_joint_normal_distribution(name):
    """Inverses of whole matrices in float64. Padding has no influence, whatever it holds."""
    rng = np.random.default_rng(1)
    x, y, new = rng.uniform(-2, 2, (5, 2)), rng.normal(size=(5, 1)), rng.uniform(-2, 2, (7, 2))
    with jax.enable_x64(True):
        gp = GaussianProcess(shots=5, queries=7, kernels=(name,), dim=2, noise=0.2)
        noise = 0.04 * np.eye(5)
        inverse = np.linalg.inv(covariance(name, x, x, kernel()) + noise)
        cross = covariance(name, new, x, kernel())
        variance = np.diagonal(covariance(name, new, new, kernel()) + 0.04 - cross @ inverse @ cross.T)
        plain = Batch(jnp.asarray(x), jnp.asarray(y))
        padded = Batch(
            jnp.asarray(np.concatenate([x, x[:1], x[:1]])),
            jnp.asarray(np.concatenate([y, [[9.0], [-9.0]]])),
            jnp.asarray([1.0, 1, 1, 1, 1, 0, 0]),
        )
        evidence = scipy.stats.multivariate_normal(np.zeros(5), np.linalg.inv(inverse)).logpdf(y[:, 0])
        for support in (plain, padded):
            found = gp.posterior(support, jnp.asarray(new), kernel())
            assert found.mean.shape == found.std.shape == (7, 1) and found.std.dtype == jnp.float64
            np.testing.assert_allclose(found.mean, cross @ inverse @ y, rtol=1e-6, atol=1e-8)
            np.testing.assert_allclose(found.std[:, 0], np.sqrt(variance), rtol=1e-6)
            np.testing.assert_allclose(gp.log_evidence(support, kernel()), evidence, rtol=1e-8)
        nothing = gp.posterior(padded._replace(weight=jnp.zeros(7)), jnp.asarray(new), kernel())
        np.testing.assert_allclose(nothing.mean, 0)
        np.testing.assert_allclose(nothing.std, np.sqrt(1.3**2 + 0.04), rtol=1e-6)
        assert gp.log_evidence(padded._replace(weight=jnp.zeros(7)), kernel()) == 0


@pytest.mark.parametrize("name", KINDS)
def test_draws_have_the_covariance_of_their_kernel(name):
    """Targets after the inverse root of their covariance are standard normal, for whatever inputs."""
    gp = GaussianProcess(shots=3, queries=3, kernels=(name,), noise=0.2)

    @jax.jit
    def draw(keys):
        return jax.vmap(gp)(keys), jax.vmap(gp.kernel)(keys)

    tasks, kernels = jax.device_get(draw(jax.random.split(KEY, 400)))
    white = []
    for i in range(400):
        x, y = (np.concatenate([part[field][i] for part in tasks]) for field in (0, 1))
        matrix = covariance(name, x, x, jax.tree.map(lambda leaf, i=i: leaf[i], kernels)) + 0.04 * np.eye(6)
        white.append(np.linalg.solve(np.linalg.cholesky(matrix), y[:, 0]))
    assert scipy.stats.kstest(np.ravel(white), scipy.stats.norm.cdf).pvalue > 1e-3
    assert np.abs(np.cov(np.array(white).T) - np.eye(6)).max() < 0.3


def test_distributions_of_parameters():
    gp = GaussianProcess(shots=(0, 6), queries=1, dim=2)
    keys = jax.random.split(KEY, 4000)
    kernels = jax.jit(jax.vmap(gp.kernel))(keys)
    ranges = {"lengthscale": (0.3, 1.0), "scale": (0.5, 1.5), "period": (1.0, 2.0)}
    for name, (low, high) in ranges.items():
        wanted = scipy.stats.uniform(low, high - low)
        assert scipy.stats.kstest(np.asarray(getattr(kernels, name)), wanted.cdf).pvalue > 1e-3, name
    assert scipy.stats.chisquare(np.bincount(kernels.kind, minlength=5)).pvalue > 1e-3
    table = np.corrcoef(np.array([np.asarray(leaf, float) for leaf in kernels]))
    assert np.abs(table - np.eye(4)).max() < 0.07
    tasks = jax.jit(lambda keys: jax.vmap(gp)(keys))(keys)
    sizes = np.asarray(tasks.support.weight).sum(1).astype(int)
    assert scipy.stats.chisquare(np.bincount(sizes, minlength=7)).pvalue > 1e-3
    assert np.diff(np.asarray(tasks.support.weight, np.float64)).max() <= 0 and tasks.query.weight is None
    assert abs(np.corrcoef(sizes, np.asarray(kernels.lengthscale))[0, 1]) < 0.07
    for i in range(2):
        x = np.asarray(tasks.query.x)[:, 0, i]
        assert scipy.stats.kstest(x, scipy.stats.uniform(-2, 4).cdf).pvalue > 1e-3


@pytest.mark.parametrize("sizes", [{"shots": 4, "queries": 3}, {"shots": (0, 4), "queries": 3, "dim": 2}], ids=str)
def test_is_a_sampler(sizes):
    check_sampler(GaussianProcess(**sizes))


def test_smooth_tasks_without_noise_are_finite():
    """A Cholesky factor exists where float32 has many nearly equal points."""
    gp = GaussianProcess(10, 200, kernels=("rbf",), lengthscales=(1.0, 1.0), noise=0.0)
    tasks = jax.jit(lambda keys: jax.vmap(gp)(keys))(jax.random.split(KEY, 50))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tasks))


def test_numbers_may_be_traced():
    def draw(value):
        gp = GaussianProcess(2, 2, lengthscales=(value, 2 * value), inputs=(-value, value), noise=value)
        return gp(KEY)

    swept = jax.vmap(draw)(jnp.array([0.3, 0.6]))
    for i, value in enumerate((0.3, 0.6)):
        single = jax.tree.map(lambda leaf, i=i: leaf[i], swept)
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), single, draw(value))


def test_benchmark_trains_with_all_sizes_and_tests_with_one():
    sets: Any = get_tasksets("gp-prior", shots=7, queries=4, test_queries=9)
    assert [(s.shots, s.queries) for s in sets] == [((0, 7), 4), (7, 9), (7, 9)]
    sets = get_tasksets("gp-prior", shots=(2, 5))
    assert [s.shots for s in sets] == [(0, 5), (2, 5), (2, 5)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shots": -1}, "shots must be an integer of at least 0, got -1"),
        ({"shots": (3, 2)}, r"shots must be an integer or a pair \(least, most\), got \(3, 2\)"),
        ({"shots": (0, 1.5)}, r"shots\[1\] must be an integer of at least 0, got 1.5"),
        ({"queries": 0}, "queries must be an integer of at least 1, got 0"),
        ({"dim": 0}, "dim must be an integer of at least 1, got 0"),
        ({"kernels": ("linear",)}, "kernels must be one of 'rbf', 'matern12', .* got 'linear'"),
        ({"kernels": ()}, r"kernels must be a tuple of names, such as \('rbf',\), got \(\)"),
        ({"kernels": "rbf"}, "kernels must be a tuple of names"),
        ({"lengthscales": (0.0, 1.0)}, r"lengthscales must be positive, got \(0.0, 1.0\)"),
        ({"scales": (2.0, 1.0)}, "scales must be a pair"),
        ({"periods": (-1.0, 1.0)}, "periods must be positive"),
        ({"inputs": (0.0,)}, "inputs must be a pair"),
        ({"noise": -0.1}, "noise must be a number of at least 0, got -0.1"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianProcess(**arguments)
