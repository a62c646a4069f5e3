"""Distributions, rollouts, returns and TRPO against closed forms, NumPy, and an environment that gives NaN."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import envs, rl
from jaxmeta.envs import State

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


class Countdown:
    """Environment that ends after `task` steps or at the horizon, and gives NaN after its end.

    The reward of a step is its number.
    """

    observation_size, action_size, discrete, horizon = 2, 1, False, 6

    def sample_tasks(self, key, n, *, split="train"):
        return jnp.arange(1, n + 1)

    def reset(self, key, task=None):
        zero = jnp.zeros(())
        obs = jnp.stack([zero, jax.random.uniform(key)])
        return State(zero, obs, zero, zero, {}, {"task": task, "steps": zero, "truncation": zero})

    def step(self, state, action):
        count = state.pipeline_state + 1
        over = count >= state.info["task"]
        broken = jnp.where(count > jnp.minimum(state.info["task"], self.horizon), jnp.nan, 0.0)
        truncation = jnp.where((count >= self.horizon) & ~over, 1.0, 0.0)
        return State(
            count,
            jnp.stack([count, action[0]]) + broken,
            count + broken,
            over + truncation,
            {},
            {**state.info, "steps": count, "truncation": truncation},
        )


ENV = Countdown()
# ---------------------------------------------------------------------------------------------------- distributions


def gaussian(seed=0):
    mean, log_std = np.random.default_rng(seed).normal(size=(2, 3, 2)).astype(np.float32)
    return rl.DiagonalGaussian(jnp.asarray(mean), jnp.asarray(0.3 * log_std))


def categorical(seed=0):
    return rl.Categorical(jnp.asarray(np.random.default_rng(seed).normal(size=(3, 4)), jnp.float32))


@pytest.mark.parametrize("make", [gaussian, categorical])
def test_entropy_and_divergence_are_means_over_samples(make):
    p, q = make(0), make(1)
    keys = jax.random.split(KEY, 20000)
    samples = jax.vmap(p.sample)(keys)
    own, other = jax.vmap(p.log_prob)(samples), jax.vmap(q.log_prob)(samples)
    assert own.shape == (20000, 3)
    np.testing.assert_allclose(-own.mean(axis=0), p.entropy(), atol=0.03)
    np.testing.assert_allclose((own - other).mean(axis=0), p.kl(q), rtol=0.1, atol=0.03)
    np.testing.assert_allclose(p.kl(p), 0, atol=1e-6)
    assert (p.log_prob(p.mode()) >= own.max(axis=0) - 1e-6).all()


def test_log_probabilities_by_hand():
    action = np.array([[0.1, -0.2], [1.0, 2.0], [-3.0, 0.5]], np.float32)
    p = gaussian()
    std = np.exp(np.asarray(p.log_std))
    density = np.exp(-(((action - p.mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(p.log_prob(jnp.asarray(action)), np.log(density.prod(axis=1)), rtol=1e-5)
    q = categorical()
    share = np.exp(np.asarray(q.logits))
    share /= share.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(q.log_prob(jnp.array([3, 0, 1])), np.log(share[[0, 1, 2], [3, 0, 1]]), rtol=1e-5)


def test_masked_actions_are_those_of_the_smaller_distribution():
    """Actions of logit -inf change nothing: values and derivatives are those without them."""
    few, others = jnp.array([0.3, -1.0, 0.6]), jnp.array([1.0, 0.2, -0.4])
    at = jnp.array([0, 2, 3])

    def masked(logits):
        return rl.Categorical(jnp.full(5, -jnp.inf).at[at].set(logits))

    for of in (lambda make: make(few).entropy(), lambda make: make(few).kl(make(others))):
        np.testing.assert_allclose(of(masked), of(rl.Categorical), rtol=1e-6)
    for fn in (
        lambda make, logits: make(logits).entropy(),
        lambda make, logits: make(logits).kl(make(others)),
        lambda make, logits: make(others).kl(make(logits)),
    ):
        for derivative in (jax.grad, jax.hessian):
            found, expected = (derivative(partial(fn, make))(few) for make in (masked, rl.Categorical))
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.isinf(rl.Categorical(jnp.zeros(5)).kl(masked(few)))  # draws what the other never does
    assert not np.isin(jax.vmap(masked(few).sample)(jax.random.split(KEY, 500)), [1, 4]).any()


def test_policies_have_a_least_deviation():
    policy = rl.GaussianPolicy(action_size=2, sizes=(), init_std=0.5, min_std=0.1)
    params = policy.init(KEY, jnp.zeros((1, 3)))
    dist: Any = policy.apply(params, jnp.ones((4, 3)))
    np.testing.assert_allclose(np.exp(dist.log_std), 0.5, rtol=1e-6)
    collapsed = {"params": {**params["params"], "log_std": jnp.full(2, -50.0)}}
    dist = policy.apply(collapsed, jnp.ones((4, 3)))
    np.testing.assert_allclose(np.exp(dist.log_std), 0.1, rtol=1e-5)
    with pytest.raises(ValueError, match="init_std must be a positive number, got 0"):
        rl.GaussianPolicy(action_size=2, init_std=0.0)
    with pytest.raises(TypeError, match="memory must be a memory, such as rl.GRU\\(64\\), got 64"):
        rl.RecurrentPolicy(action_size=2, discrete=True, memory=64)
    with pytest.raises(ValueError, match="action_size must be an integer of at least 1, got 2.5"):
        rl.CategoricalPolicy(action_size=2.5)  # pyright: ignore[reportArgumentType]


def test_a_deviation_for_each_number_of_an_action():
    def deviations(std):
        policy = rl.GaussianPolicy(action_size=2, sizes=(), init_std=std, min_std=std / 2)
        dist: Any = policy.apply(policy.init(KEY, jnp.zeros((1, 3))), jnp.ones((1, 3)))
        return jnp.exp(dist.log_std[0])

    stds = jnp.array([[0.5, 2.0], [0.1, 0.3]])
    np.testing.assert_allclose(deviations(stds[0]), stds[0], rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(deviations)(stds), stds, rtol=1e-6)


# --------------------------------------------------------------------------------------------------------- rollouts


def follow(params, obs):
    """Policy whose mean is `params` times the first number of the observation."""
    mean = params * obs[..., :1]
    return rl.DiagonalGaussian(mean, jnp.zeros_like(mean))


@partial(jax.jit, static_argnames=("mode", "length"))
def play(task, key, mode=False, length=None):
    return rl.rollout(ENV, follow, jnp.array(2.0), task, key, episodes=3, mode=mode, length=length)


def test_an_episode_that_terminates():
    data = play(4, KEY)
    on = np.arange(6) < 4
    for e in range(3):
        np.testing.assert_array_equal(data.valid[:, e], on)
        np.testing.assert_array_equal(data.terminated[:, e], np.arange(6) == 3)
    assert not data.truncated.any()
    np.testing.assert_array_equal(data.reward[:, 0], [1, 2, 3, 4, 0, 0])
    np.testing.assert_array_equal(rl.episode_returns(data), [10, 10, 10])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(data))
    # What the next step sees is what the last one led to, and an episode that is over keeps its state.
    np.testing.assert_array_equal(data.next_obs[:-1], data.obs[1:])
    np.testing.assert_array_equal(data.obs[4:, :, 0], 4)
    # The environment has seen the actions, whose log-probability is that under the distribution.
    np.testing.assert_array_equal(data.next_obs[:4, :, 1], data.action[:4, :, 0])
    np.testing.assert_allclose(data.log_prob, data.dist.log_prob(data.action), rtol=1e-6)
    np.testing.assert_array_equal(data.dist.mean[..., 0], 2 * data.obs[..., 0])


def test_an_episode_that_is_truncated():
    data = play(100, KEY)
    assert data.valid.all() and not data.terminated.any()
    np.testing.assert_array_equal(data.truncated[:, 0], np.arange(6) == 5)
    cut = play(100, KEY, length=3)
    assert cut.reward.shape == (3, 3)
    np.testing.assert_array_equal(cut.truncated[:, 0], [False, False, True])
    assert not play(3, KEY, length=3).truncated.any()


def test_episodes_have_resets_and_noise_of_their_own():
    data, again, other = play(4, KEY), play(4, KEY), play(4, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, data, again)
    assert len(np.unique(np.concatenate([data.obs[0, :, 1], other.obs[0, :, 1]]))) == 6
    assert len(np.unique(np.concatenate([data.action[0, :, 0], other.action[0, :, 0]]))) == 6
    still = play(4, KEY, mode=True)
    np.testing.assert_array_equal(still.action[..., 0], 2 * still.obs[..., 0])


def test_no_derivative_goes_through_a_rollout():
    def total(params):
        data = rl.rollout(ENV, follow, params, 3, KEY, episodes=2)
        return data.reward.sum() + data.log_prob.sum() + data.action.sum() + data.dist.mean.sum()

    assert float(jax.grad(total)(jnp.array(2.0))) == 0


def test_a_memory_starts_every_episode_and_goes_along():
    def count(params, obs, memory):
        mean = memory[:, None]
        return rl.DiagonalGaussian(mean, jnp.zeros_like(mean)), memory + 1

    data = rl.rollout(ENV, count, None, 9, KEY, episodes=2, memory=jnp.array([0.0, 10.0]), mode=True)
    np.testing.assert_array_equal(data.action[..., 0].T, [np.arange(6), 10 + np.arange(6)])


def test_rollout_rejects():
    with pytest.raises(ValueError, match="episodes must be an integer of at least 1, got 0"):
        rl.rollout(ENV, follow, 1.0, 1, KEY, episodes=0)


GRID, PENDULUM = envs.make("tabular", horizon=2), envs.make("pendulum", horizon=2)


@pytest.mark.parametrize(
    ("env", "policy", "message"),
    [
        (GRID, rl.CategoricalPolicy(4), "the actions of TabularMDP, integers below 5, got integers below 4"),
        (GRID, rl.GaussianPolicy(5), r"integers below 5, got numbers \[5\]"),
        (PENDULUM, rl.CategoricalPolicy(1), "the actions of Pendulum, vectors of 1 numbers, got integers below 1"),
        (PENDULUM, rl.GaussianPolicy(3), r"vectors of 1 numbers, got numbers \[3\]"),
    ],
)
def test_actions_must_be_those_of_the_environment(env, policy, message):
    params = jax.eval_shape(policy.init, KEY, jnp.zeros((1, env.observation_size)))
    task = env.reset(KEY).info["task"]
    play = partial(rl.rollout, env, policy.apply, episodes=2)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(play, params, task, KEY)


def test_what_a_policy_takes_and_returns_is_checked():
    other = rl.GaussianPolicy(1, sizes=(4,))
    params, task = other.init(KEY, jnp.zeros((1, 7))), PENDULUM.reset(KEY).info["task"]
    with pytest.raises(Exception, match="called with 2 observations of Pendulum, whose observation_size is 3"):
        rl.rollout(PENDULUM, other.apply, params, task, KEY, episodes=2)
    with pytest.raises(TypeError, match=r"policy must return a distribution, .* got f32\[2,3\]"):
        rl.rollout(PENDULUM, lambda params, obs: obs, None, task, KEY, episodes=2)

    class Wrong(Countdown):
        observation_size = 5

    with pytest.raises(ValueError, match=r"observation_size of Wrong .* got 5 and observations \[2\]"):
        rl.rollout(Wrong(), follow, 1.0, 1, KEY, episodes=2)


# ---------------------------------------------------------------------------------------------------------- returns


class Ragged(NamedTuple):
    """Episodes of 5, 3 and 1 steps in a table of 5, of which the first is truncated and the others terminate."""

    valid: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    reward: np.ndarray
    obs: np.ndarray


def ragged():
    lengths, time = np.array([5, 3, 1]), np.arange(5)[:, None]
    last = time == lengths - 1
    truncated = last & (np.arange(3) == 0)
    reward = np.where(time < lengths, RNG.normal(size=(5, 3)), 0)
    return Ragged(time < lengths, last & ~truncated, truncated, reward, RNG.normal(size=(5, 3, 2)) * 4)


def as_jax(*arrays):
    return (jnp.asarray(a, jnp.float32) if a.dtype == float else jnp.asarray(a) for a in arrays)


@pytest.mark.parametrize("trace_decay", [0.0, 0.7, 1.0])
def test_advantages_equal_numpy(trace_decay):
    data, gamma = ragged(), 0.9
    value, next_value = RNG.normal(size=(2, 5, 3))
    found = rl.gae(
        *as_jax(data.reward, value, next_value, data.terminated, data.truncated),
        discount=gamma,
        trace_decay=trace_decay,
    )
    for e, length in enumerate([5, 3, 1]):
        for t in range(length):
            expected = 0.0
            for k in range(t, length):
                after = 0.0 if data.terminated[k, e] else next_value[k, e]
                error = data.reward[k, e] + gamma * after - value[k, e]
                expected += (gamma * trace_decay) ** (k - t) * error
            np.testing.assert_allclose(found[t, e], expected, rtol=1e-4, atol=1e-5)


def test_returns_equal_numpy():
    data = ragged()
    reward, ended = as_jax(data.reward, data.terminated | data.truncated)
    found = rl.discounted_returns(reward, ended, discount=0.8)
    for e, length in enumerate([5, 3, 1]):
        for t in range(length):
            expected = sum(0.8 ** (k - t) * data.reward[k, e] for k in range(t, length))
            np.testing.assert_allclose(found[t, e], expected, rtol=1e-5, atol=1e-6)


def test_baseline_equals_numpy_and_sees_valid_steps_only():
    """The baseline is a ridge regression on the valid steps, with the time within each episode."""
    time, episodes = 12, 6
    lengths = np.array([12, 12, 7, 5, 12, 1])
    valid = np.arange(time)[:, None] < lengths
    obs = RNG.normal(size=(time, episodes, 2)) * np.array([1.0, 20.0])
    returns = RNG.normal(size=(time, episodes)) + 3 * np.arange(time)[:, None] / time
    rows, targets = [], []
    for e in range(episodes):
        for t in range(lengths[e]):
            seen = np.clip(obs[t, e], -10, 10)
            clock = (t + 1) / time
            rows.append([*seen, *seen**2, clock, clock**2, clock**3, 1])
            targets.append(returns[t, e])
    x, y = np.array(rows), np.array(targets)
    # Ridge relative to each feature's mean square, in units of the mean over the rows.
    weights = np.linalg.solve(x.T @ x / len(x) + 1e-3 * np.diag((x**2).mean(axis=0)), x.T @ y / len(x))
    wrong = np.where(valid, returns, np.nan)  # what is not valid must not matter
    found = rl.linear_baseline(*as_jax(obs, wrong, valid), ridge=1e-3)
    np.testing.assert_allclose(np.asarray(found).T[valid.T], x @ weights, rtol=1e-3, atol=1e-3)


def test_baseline_of_a_constant_observation_is_finite():
    values = rl.linear_baseline(jnp.zeros((4, 2, 3)), jnp.ones((4, 2)), jnp.ones((4, 2), bool))
    np.testing.assert_allclose(values, 1, atol=1e-3)


@pytest.mark.parametrize(
    ("obs", "valid"),
    [
        (5 + 1e-5 * RNG.normal(size=(200, 20, 24)), None),  # a robot that stands still
        (RNG.normal(size=(50, 2, 300)), None),  # more features than steps
        (RNG.normal(size=(50, 5, 60)).repeat(2, axis=2), RNG.integers(1, 4, 5)),  # copies, and early falls
        (np.full((10, 3, 4), np.inf), None),
        (1e3 * RNG.normal(size=(20, 3, 12)), np.zeros(3)),  # no step at all
    ],
    ids=["still", "wide", "falls", "infinite", "nothing"],
)
@pytest.mark.parametrize("ridge", [0.0, 1e-5])
def test_baseline_is_finite_whatever_is_observed(obs, valid, ridge):
    length, episodes, _ = obs.shape
    valid = np.arange(length)[:, None] < (np.full(episodes, length) if valid is None else valid)
    returns = RNG.normal(size=(length, episodes)) + np.arange(length, 0, -1)[:, None]
    value = jax.jit(rl.linear_baseline)(*as_jax(obs, returns, valid), ridge=ridge)
    assert np.isfinite(value).all()
    if valid.sum() > 1:  # it explains at least what a constant does
        error = np.asarray(value)[valid] - returns[valid]
        assert (error**2).mean() <= 1.01 * returns[valid].var()


def test_one_bad_task_spoils_no_other():
    obs = RNG.normal(size=(2, 30, 4, 40))
    obs[0] = 5 + 1e-5 * obs[0]
    returns, valid = RNG.normal(size=(2, 30, 4)), np.ones((2, 30, 4), bool)
    both = jax.vmap(rl.linear_baseline)(*as_jax(obs, returns, valid))
    np.testing.assert_allclose(both[1], rl.linear_baseline(*as_jax(obs[1], returns[1], valid[1])), atol=1e-4)


def test_normalization_equals_numpy():
    data = ragged()
    advantage = RNG.normal(size=(5, 3)) * 7 + 3
    found = np.asarray(rl.normalize(*as_jax(advantage, data.valid)))
    seen = advantage[data.valid]
    np.testing.assert_allclose(found[data.valid], (seen - seen.mean()) / seen.std(), rtol=1e-4, atol=1e-5)
    assert (found[~data.valid] == 0).all()


def test_interquartile_mean():
    scores = RNG.normal(size=(5, 9))
    ordered = np.sort(scores, axis=None)
    found = rl.interquartile_mean(scores)
    np.testing.assert_allclose(found.value, ordered[11:34].mean())
    assert found.low < found.value < found.high
    alone = rl.interquartile_mean(scores[:1])
    assert alone.low == alone.value == alone.high
    wide, narrow = (rl.interquartile_mean(RNG.normal(size=n)) for n in (10, 1000))
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)
    with pytest.raises(ValueError, match=r"scores must be .* got shape \(0,\)"):
        rl.interquartile_mean([])


# ------------------------------------------------------------------------------------------------------------- TRPO

FISHER = np.diag([1.0, 4.0, 0.25]) + 0.1
SLOPE = np.array([1.0, -2.0, 0.5])
START = jnp.array([0.3, -0.1, 2.0])


def linear(x):
    return jnp.asarray(SLOPE, x.dtype) @ x


def quadratic(x, bend=-0.01):
    """KL divergence that is less than its second-order part with a negative bend, so that the full step is allowed."""
    away = x - START
    form = away @ jnp.asarray(FISHER, x.dtype) @ away
    return 0.5 * form + bend * form**2


def step(loss, kl, grads=None, **options):
    optimizer = rl.trpo(0.05, **options)
    grads = jax.grad(loss)(START) if grads is None else grads
    return jax.jit(lambda g: optimizer.update(g, optimizer.init(START), START, value_fn=loss, kl_fn=kl))(grads)


def test_trpo_takes_the_natural_step_to_the_border():
    updates, state = step(linear, quadratic)
    natural = np.linalg.solve(FISHER, SLOPE)
    np.testing.assert_allclose(updates, -natural * np.sqrt(2 * 0.05 / (SLOPE @ natural)), rtol=1e-3)
    assert float(state.accepted) == 1 and float(state.backtracks) == 0
    np.testing.assert_allclose(state.kl, 0.05 - 0.01 * 0.1**2, rtol=1e-3)


def test_trpo_goes_back_until_the_divergence_is_small():
    kl = partial(quadratic, bend=10.0)
    updates, state = step(linear, kl, backtrack=0.8)
    assert float(state.accepted) == 1 and float(state.backtracks) > 0
    assert 0 < float(kl(START + updates)) <= 0.05 < float(kl(START + updates / 0.8))


@pytest.mark.parametrize(
    "loss, kl",
    [
        (lambda x: jnp.where(jnp.all(x == START), 0.0, jnp.nan) + linear(x), quadratic),
        (linear, lambda x: quadratic(x) + jnp.where(jnp.all(x == START), 0.0, 1.0)),
        (linear, lambda x: quadratic(x) * jnp.nan),
        (linear, lambda x: -quadratic(x)),
        (lambda x: -linear(x), quadratic),
    ],
    ids=["loss is NaN", "too far", "divergence is NaN", "negative curvature", "no descent"],
)
def test_trpo_stays_where_no_step_is_good(loss, kl):
    updates, state = step(loss, kl, grads=jnp.asarray(SLOPE, jnp.float32), max_backtracks=4)
    np.testing.assert_array_equal(updates, 0)
    assert float(state.accepted) == 0 and float(state.backtracks) == 4 and float(state.kl) == 0


def test_trpo_with_no_gradient_stays():
    updates, state = step(linear, quadratic, grads=jnp.zeros(3))
    np.testing.assert_array_equal(updates, 0)
    assert float(state.accepted) == 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_kl": 0.0}, "max_kl must be a positive number, got 0.0"),
        ({"backtrack": 1.0}, "backtrack must be a number of at least 0 and less than 1, got 1.0"),
        ({"backtrack": 0.0}, "backtrack must be a positive number, got 0.0"),
        ({"damping": -1.0}, "damping must be a number of at least 0, got -1.0"),
        ({"max_backtracks": 0}, "max_backtracks must be an integer of at least 1, got 0"),
        ({"cg_steps": 0}, "cg_steps must be an integer of at least 1, got 0"),
    ],
)
def test_trpo_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        rl.trpo(**options)


def test_trpo_with_traced_numbers():
    def updates(max_kl, backtrack):
        optimizer = rl.trpo(max_kl, damping=max_kl * 0, backtrack=backtrack)
        kl = partial(quadratic, bend=10.0)
        return optimizer.update(jax.grad(linear)(START), optimizer.init(START), START, value_fn=linear, kl_fn=kl)

    numbers = jnp.array([0.05, 0.1]), jnp.array([0.8, 0.5])
    both = jax.jit(jax.vmap(updates))(*numbers)
    for i in range(2):
        alone = updates(*(float(x[i]) for x in numbers))
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-4), both, alone)


def test_trpo_takes_other_arguments_of_a_chain():
    optimizer = optax.chain(optax.identity(), rl.trpo(0.05))
    state: Any = optimizer.update(
        jax.grad(linear)(START), optimizer.init(START), START, value_fn=linear, kl_fn=quadratic, other=1
    )[1]
    assert float(state[1].accepted) == 1


@pytest.mark.parametrize(("tolerance", "steps"), [(0.0, 3), (10.0, 1)])  # 10: every step ends an episode
def test_a_trial_tells_the_returns_of_its_episodes(tolerance, steps):
    trial = rl.Trial(envs.Particles2D(horizon=3, tolerance=tolerance), episodes=2)

    def policy(params, obs):
        return rl.DiagonalGaussian(obs[..., :2], 0 * obs[..., :2])

    task = {"goal": jnp.array([0.3, 0.4])}
    data = jax.jit(lambda key: rl.rollout(trial, policy, None, task, key, episodes=4, states=True))(jax.random.key(0))
    rewards = np.asarray(data.reward)[: 2 * steps].reshape(2, steps, 4)
    np.testing.assert_allclose(trial.episode_returns(data), rewards.sum(axis=1).T, rtol=1e-6)
    assert data.states.obs.shape == data.next_obs.shape and (data.states.obs == data.next_obs).all()
    assert rl.rollout(trial, policy, None, task, jax.random.key(0), episodes=1).states is None
