"""Harmonic and Linear: shapes, the functions, their distributions, and what least squares finds."""

import math
from functools import partial

import jax
import numpy as np
import pytest
import scipy

from jaxmeta.data import Harmonic, Linear, Sinusoid

KEY = jax.random.key(0)
FAMILIES = (Harmonic, Linear)


@jax.jit
def _draw(sampler, keys):
    of = sampler.tone if isinstance(sampler, Harmonic) else sampler.line
    return jax.vmap(sampler)(keys), jax.vmap(of)(keys)


def draw(family, seed=1, **arguments):
    """Four thousand tasks of 2 + 2 examples, and the functions behind them."""
    return _draw(family(shots=2, queries=2, **arguments), jax.random.split(jax.random.key(seed), 4000))


def expected(function, x):
    """The targets of one task in NumPy and float64."""
    values = [np.asarray(value, np.float64) for value in function]
    if len(values) == 2:
        return values[0] * x + values[1]
    amplitudes, frequency, phases = values
    return sum(amplitudes[i] * np.sin((i + 1) * frequency * x + phases[i]) for i in range(2))


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_and_values(family):
    sampler = family(shots=5, queries=7)
    task = jax.eval_shape(sampler, KEY)
    assert task.support.x.shape == task.support.y.shape == (5, 1)
    assert task.query.x.shape == task.query.y.shape == (7, 1)
    assert sampler.example.shape == (1, 1) and not sampler.example.any()
    tasks, functions = draw(family)
    for part in tasks:
        for i in range(20):
            wanted = expected([value[i] for value in functions], np.asarray(part.x[i], np.float64))
            np.testing.assert_allclose(part.y[i], wanted, atol=2e-4)
    jax.tree.map(np.testing.assert_array_equal, tasks, draw(family)[0])
    assert (np.asarray(tasks.support.x) != np.asarray(draw(family, seed=2)[0].support.x)).all()


def test_distributions():
    """Every number has its published distribution and no two go together."""
    tasks, tone = draw(Harmonic)
    lines, line = draw(Linear)
    first, second = (np.asarray(part.x)[:, 0, 0] for part in tasks)
    harmonic = {
        "frequency": (tone.frequency, scipy.stats.uniform(5, 2)),
        "phase 1": (tone.phases[:, 0], scipy.stats.uniform(0, 2 * math.pi)),
        "phase 2": (tone.phases[:, 1], scipy.stats.uniform(0, 2 * math.pi)),
        "amplitude 1": (tone.amplitudes[:, 0], scipy.stats.norm()),
        "amplitude 2": (tone.amplitudes[:, 1], scipy.stats.norm()),
        "distance of two inputs": (first - second, scipy.stats.norm(scale=math.sqrt(2))),
    }
    linear = {
        "slope": (line.slope, scipy.stats.uniform(-3, 6)),
        "intercept": (line.intercept, scipy.stats.uniform(-3, 6)),
        "x": (lines.query.x[:, 0, 0], scipy.stats.uniform(-5, 10)),
    }
    for columns in (harmonic, linear):
        for name, (values, distribution) in columns.items():
            assert scipy.stats.kstest(np.asarray(values), distribution.cdf).pvalue > 1e-3, name
        table = np.corrcoef([np.asarray(values) for values, _ in columns.values()])
        assert np.abs(table - np.eye(len(table))).max() < 0.07
    # An input is uniform(-4, 4), the same for the whole task, plus a standard normal number of its own.
    assert abs(first.std() - math.sqrt(64 / 12 + 1)) < 0.1 and abs(first.mean()) < 0.2
    assert abs(np.corrcoef(first, second)[0, 1] - 64 / 12 / (64 / 12 + 1)) < 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_is_normal_and_of_its_own(family):
    noisy, functions = draw(family, noise=0.3)
    clean, same = draw(family)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), functions, same)
    np.testing.assert_array_equal(noisy.support.x, clean.support.x)
    noise = np.concatenate([np.ravel(a.y) - np.ravel(b.y) for a, b in zip(noisy, clean, strict=True)])
    assert scipy.stats.kstest(noise, scipy.stats.norm(scale=0.3).cdf).pvalue > 1e-3


def test_least_squares_solves_a_linear_task():
    tasks, line = draw(Linear)
    for i in range(50):
        x, y = (np.ravel(value[i]).astype(np.float64) for value in tasks.support[:2])
        slope, intercept = np.polyfit(x, y, 1)
        np.testing.assert_allclose([slope, intercept], [line.slope[i], line.intercept[i]], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_draws_without_transfers(family):
    sampler, keys = family(shots=2, queries=2), jax.random.split(KEY, 4000)
    with jax.transfer_guard("disallow"), jax.numpy_rank_promotion("raise"):
        jax.block_until_ready(_draw(sampler, keys))


def test_sinusoid_is_unchanged():
    """Numbers of the first release: results that name a seed stay what they were."""
    task = Sinusoid(shots=2, queries=1)(KEY)
    key_inputs, key_wave = jax.random.split(KEY)
    x = jax.random.uniform(key_inputs, (3, 1), minval=-5.0, maxval=5.0)
    np.testing.assert_array_equal(np.concatenate([task.support.x, task.query.x]), x)
    u = np.asarray(jax.random.uniform(key_wave, (2,)), np.float64)
    wanted = (0.1 + 4.9 * u[0]) * np.sin(np.asarray(x, np.float64) - math.pi * u[1])
    np.testing.assert_allclose(np.concatenate([task.support.y, task.query.y]), wanted, atol=1e-5)


def test_noise_and_ranges_may_be_traced():
    """A sweep of a distribution under `vmap` gives what each number gives alone."""

    def draw(value):
        lines = Linear(slopes=(value, 2 * value), noise=value)(KEY)
        return lines, Harmonic(centers=(value, 2.0), noise=value)(KEY), Sinusoid(amplitudes=(0.0, value))(KEY)

    swept = jax.vmap(draw)(np.array([0.0, 0.3], np.float32))
    for i, value in enumerate((0.0, 0.3)):
        single = jax.tree.map(lambda leaf, i=i: leaf[i], swept)
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), single, draw(value))


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        (Harmonic, {"shots": 0}, "shots must be an integer of at least 1, got 0"),
        (Harmonic, {"frequencies": (2.0, 1.0)}, "frequencies must be a pair"),
        (Harmonic, {"centers": (0.0, math.inf)}, "centers must be a pair"),
        (Harmonic, {"noise": -1.0}, "noise must be a number of at least 0, got -1.0"),
        (Linear, {"queries": 1.5}, "queries must be an integer of at least 1, got 1.5"),
        (Linear, {"slopes": (1.0, math.nan)}, "slopes must be a pair"),
        (Linear, {"intercepts": (1.0,)}, "intercepts must be a pair"),
        (Linear, {"inputs": (1.0, 0.0)}, "inputs must be a pair"),
        (Linear, {"noise": math.nan}, "noise must be a number of at least 0, got nan"),
    ],
)
def test_bad_input_is_named(family, arguments, message):
    with pytest.raises(ValueError, match=message):
        family(**arguments)
