# pyright: reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false
"""Normalization of observations in PEARL: its statistics against NumPy, and units that do not matter."""

import jax
import numpy as np
import optax
import pytest
from shifted_particles import Shifted

from jaxmeta import envs, rl
from jaxmeta.rl import _moments

KEY = jax.random.key(0)


LATENT = rl.LatentPolicy(2, latent_size=2, sizes=(8,), encoder_sizes=(8,))


def played(env):
    """Returns episodes whose actions do not depend on what is seen."""
    task = jax.tree.map(lambda x: x[0], env.sample_tasks(KEY, 1))
    return rl.rollout(env, lambda params, obs: rl.DiagonalGaussian(0 * obs, 0 * obs), None, task, KEY, episodes=16)


def latent_learner(env, **options):
    start = jax.jit(LATENT.init)(KEY, rl.example_observations(env), LATENT.prior().mean)
    sizes: dict = {"num_tasks": 3, "episodes": 2, "updates": 4, "batch_size": 16, "context_size": 8}
    return rl.pearl(env, LATENT, env.sample_tasks(KEY, 3), **sizes, **options), start


def test_the_statistics_of_pearl_are_those_of_its_episodes():
    """Episodes end early at a goal, and the steps after it do not count."""
    env = Shifted(horizon=8, tolerance=0.2, max_step=0.5)
    training, start = latent_learner(env, normalize=True)
    state = training.init(start)
    np.testing.assert_array_equal(state.meta.state.mean, 0)
    for i in range(2):
        state, _ = jax.jit(training.step)(state, jax.random.key(i))
    sizes = np.asarray(state.replay.size)
    played = np.concatenate([x[:n] for x, n in zip(np.asarray(state.replay.data.obs), sizes, strict=True)])
    assert len(played) == state.meta.state.number < 2 * 3 * 2 * 8
    np.testing.assert_allclose(state.meta.state.mean, played.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(state.meta.state.variance, played.var(axis=0), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [True, False])
def test_pearl_does_not_know_the_units_of_normalized_observations(normalize):
    """Policy, critics and encoder all see by the statistics: one that did not would give other numbers."""
    found = []
    for env in (envs.Particles2D(horizon=5), Shifted(horizon=5)):
        training, start = latent_learner(env, normalize=normalize, optimizer=optax.sgd(1e-3))
        state, data = training.init(start), played(env)
        if normalize:
            seen = _moments.add_moments(state.meta.state, data.obs, data.valid)
            state = state._replace(meta=state.meta._replace(state=seen))
        state, metrics = jax.jit(training.step)(state, KEY)
        curve = jax.jit(rl.pearl_curve(env, LATENT, 1))
        found.append((state.meta.params, metrics, curve(state.meta, env.sample_tasks(KEY, 2), KEY).sampled))
    apart = [np.abs(np.asarray(x) - y).max() for x, y in zip(*map(jax.tree.leaves, found), strict=True)]
    assert max(apart) < 1e-3 if normalize else max(apart) > 1
