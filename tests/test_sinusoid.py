"""Sinusoid: the distribution of Finn et al. 2017."""

import math

import jax
import numpy as np
import pytest
import scipy

from jaxmeta.data import Sinusoid

KEY = jax.random.key(0)


@jax.jit
def _draw(sampler, key):
    return sampler(key), sampler.wave(key)


def test_shapes_and_values():
    sampler = Sinusoid(shots=5, queries=7)
    task, wave = _draw(sampler, KEY)
    assert task.support.x.shape == task.support.y.shape == (5, 1)
    assert task.query.x.shape == task.query.y.shape == (7, 1)
    assert sampler.example.shape == (1, 1)
    for part in task:
        expected = float(wave.amplitude) * np.sin(np.asarray(part.x) - float(wave.phase))
        np.testing.assert_allclose(part.y, expected, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, task, _draw(sampler, KEY)[0])
    assert set(np.ravel(task.support.x).tolist()).isdisjoint(np.ravel(task.query.x).tolist())


def test_amplitude_phase_and_inputs_are_uniform():
    keys = jax.random.split(jax.random.key(1), 5000)
    sampler = Sinusoid(shots=1, queries=1)
    wave, task = jax.jit(lambda s, k: (jax.vmap(s.wave)(k), jax.vmap(s)(k)))(sampler, keys)
    ranges = {(0.1, 5.0): wave.amplitude, (0.0, math.pi): wave.phase, (-5.0, 5.0): task.query.x}
    for (low, high), values in ranges.items():
        assert scipy.stats.kstest(np.ravel(values), scipy.stats.uniform(low, high - low).cdf).pvalue > 1e-3
    correlations = np.corrcoef([wave.amplitude, wave.phase, task.support.x[:, 0, 0], task.query.x[:, 0, 0]])
    assert np.abs(correlations - np.eye(4)).max() < 0.06


def test_other_ranges():
    sampler = Sinusoid(amplitudes=(2.0, 2.0), phases=(1.0, 1.0), inputs=(0.0, 1.0))
    task, _ = _draw(sampler, KEY)
    assert (task.support.x >= 0).all() and (task.support.x <= 1).all()
    np.testing.assert_allclose(task.support.y, 2 * np.sin(np.asarray(task.support.x) - 1), rtol=1e-5, atol=1e-6)


def test_jit_vmap_and_pmap_agree_without_transfers():
    sampler, keys = Sinusoid(), jax.random.split(KEY, (1, 4))
    nested = jax.jit(jax.vmap(jax.vmap(sampler)))(keys)
    jax.tree.map(np.testing.assert_array_equal, jax.pmap(jax.vmap(sampler))(keys), nested)
    draw = jax.jit(lambda sampler, key: sampler(key))
    with jax.transfer_guard("disallow"), jax.numpy_rank_promotion("raise"):
        jax.block_until_ready(draw(sampler, KEY))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shots": 0}, "shots must be an integer of at least 1, got 0"),
        ({"queries": -1}, "queries must be an integer of at least 1, got -1"),
        ({"amplitudes": (2.0, 1.0)}, "amplitudes must be a pair"),
        ({"phases": (0.0, math.inf)}, "phases must be a pair"),
        ({"inputs": (1.0, math.nan)}, "inputs must be a pair"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Sinusoid(**arguments)
