"""The learned discount: its derivative against finite differences in float64, and its direction."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import rl
from jaxmeta.envs import State

KEY = jax.random.key(0)
RATE = 0.5


class Patience:
    """Environment of four steps, in which the first action has a cost at once and pays twice its cost at the end."""

    observation_size, action_size, discrete, horizon = 1, 1, False, 4

    def sample_tasks(self, key, n, *, split="train"):
        return jnp.zeros(n)

    def reset(self, key, task=None):
        zero = jnp.zeros(())
        return State(zero, jnp.zeros(1), zero, zero, {}, {"task": task, "steps": zero, "truncation": zero})

    def step(self, state, action):
        steps = state.info["steps"] + 1
        first = jnp.where(steps == 1, action[0], state.pipeline_state)
        over = jnp.where(steps >= self.horizon, 1.0, 0.0)
        reward = jnp.where(steps == 1, -first, 0.0) + 2 * first * over
        info = {**state.info, "steps": steps, "truncation": over}
        return State(first, jnp.where(steps > 0, 1.0, 0.0)[None], reward, over, {}, info)


def policy(params, obs):
    """Policy whose mean is the first parameter for the first action, and the second one for all others."""
    mean = jnp.where(obs > 0, params[1], params[0])
    return rl.DiagonalGaussian(mean, jnp.full_like(mean, -0.5))


@dataclass(frozen=True, kw_only=True)
class Fixed(rl.Collector):
    """Collector of the same episodes for all parameters, so that a difference quotient is a derivative."""

    def play(self, params, task, key):
        return super().play(jnp.array([0.3, -0.2]), task, KEY)


@pytest.mark.slow
def test_the_derivative_equals_finite_differences():
    with jax.enable_x64(True):
        collect = Fixed(env=Patience(), policy=policy, episodes=8, discount=1.0)
        start = jnp.array([0.1, 0.2])

        def validated(discount, trace_decay):
            def loss(params, samples):
                log_prob = policy(params, samples.trajectory.obs).log_prob(samples.trajectory.action)
                return -jnp.mean(log_prob * samples.advantage)

            data = collect.play(None, jnp.zeros(()), KEY)
            learned = rl.estimate_advantages(data, discount=discount, trace_decay=trace_decay)
            moved = start - RATE * jax.grad(loss)(start, learned)
            return loss(moved, rl.estimate_advantages(data, discount=1.0, trace_decay=1.0))

        validated = jax.jit(validated)
        training = rl.learned_discount(
            collect, optax.sgd(RATE), optax.sgd(1.0), num_tasks=1, discount=0.4, trace_decay=0.7
        )
        before = training.init(start)
        state, _ = jax.jit(training.step)(before, KEY)
        found = jax.tree.map(jnp.subtract, before.meta.learned, state.meta.learned)
        for name in ("discount", "trace_decay"):

            def along(logit, name=name):
                return validated(**{"discount": 0.4, "trace_decay": 0.7, name: jax.nn.sigmoid(logit)})

            logit = before.meta.learned[name]
            quotient = (along(logit + 1e-5) - along(logit - 1e-5)) / 2e-5
            assert abs(quotient) > 1e-4
            np.testing.assert_allclose(found[name], quotient, rtol=1e-5)


def test_a_discount_that_is_too_low_grows():
    collect = rl.Collector(env=Patience(), policy=policy, episodes=16, discount=1.0)
    training = rl.learned_discount(collect, optax.sgd(0.02), optax.adam(0.05), num_tasks=4, discount=0.3)
    done = jaxmeta.loop(training, jnp.zeros(2), KEY, iterations=150, log_every=50, validate_every=50, progress=False)
    first, *_, last = done.history
    assert first["train/discount"] < 0.7
    assert last["train/discount"] > 0.85
    assert last["train/return"] > first["train/return"]


@pytest.mark.slow
def test_starts_side_by_side_equal_one_alone():
    """The initial discount and the discounts of the collector may be traced."""

    def after(discount, trace_decay):
        collect = rl.Collector(env=Patience(), policy=policy, episodes=4, discount=discount, trace_decay=trace_decay)
        training = rl.learned_discount(collect, optax.sgd(0.1), optax.sgd(0.1), num_tasks=2, discount=discount)
        return training.step(training.init(jnp.zeros(2)), KEY)[0].meta

    numbers = jnp.array([0.3, 0.9]), jnp.array([0.5, 1.0])
    both = jax.jit(jax.vmap(after))(*numbers)
    for i in range(2):
        alone = jax.jit(after)(*(x[i] for x in numbers))
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-4, atol=1e-6), both, alone)


def test_learned_discount_rejects():
    collect = rl.Collector(env=Patience(), policy=policy)
    with pytest.raises(ValueError, match="trace_decay must be a number of at least 0 and less than 1, got 1.0"):
        rl.learned_discount(collect, optax.sgd(0.1), optax.sgd(0.1), trace_decay=1.0)
    with pytest.raises(ValueError, match="discount must be a positive number, got 0.0"):
        rl.learned_discount(collect, optax.sgd(0.1), optax.sgd(0.1), discount=0.0)
    with pytest.raises(TypeError, match="meta_optimizer must be an optax.GradientTransformation"):
        rl.learned_discount(collect, optax.sgd(0.1), 0.1)  # pyright: ignore[reportArgumentType]
