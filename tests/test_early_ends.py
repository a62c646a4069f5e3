# pyright: reportArgumentType=false
"""Episodes that end early, as when a body falls: what comes after their end counts nowhere, against NumPy."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import envs, rl
from jaxmeta.envs import State

KEY = jax.random.key(3)
LEAST, DISCOUNT, DECAY = 0.5, 0.9, 0.7


class Walk:
    """Walk that falls beyond 0.5, and is NaN if it goes on then. A step pays 1 and the task times the place."""

    observation_size, action_size, discrete, horizon = 1, 1, False, 6

    def sample_tasks(self, key, n, *, split="train"):
        return jnp.linspace(-1.0, 2.0, n)

    def reset(self, key, task=None):
        zero, place = jnp.zeros(()), 0.3 * jax.random.normal(key)
        return State(place, place[None], zero, zero, {}, {"task": task, "steps": zero, "truncation": zero})

    def step(self, state, action):
        broken = jnp.where(state.pipeline_state > LEAST, jnp.nan, 0.0)
        place, steps = state.pipeline_state + 0.5 * action[0] + broken, state.info["steps"] + 1
        fallen, late = place > LEAST, steps >= self.horizon
        info = {**state.info, "steps": steps, "truncation": jnp.where(late & ~fallen, 1.0, 0.0)}
        reward = 1 + state.info["task"] * place
        return State(place, place[None], reward, jnp.where(fallen | late, 1.0, 0.0), {}, info)


ENV: Any = Walk()
THETA, OTHER = np.array([0.4, 0.1, -0.2]), np.array([0.5, 0.05, -0.1])


def policy(theta, obs):
    mean = theta[0] * obs + theta[1]
    return rl.DiagonalGaussian(mean, jnp.broadcast_to(theta[2], mean.shape))


def log_probs(theta, obs, action):
    """In NumPy, of numbers."""
    std = np.exp(theta[2])
    return -0.5 * ((action - theta[0] * obs - theta[1]) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))


def walked(place, actions, task):
    """The rewards of an episode until its end, from its first place."""
    rewards = []
    for action in actions[: ENV.horizon]:
        place += 0.5 * action
        rewards.append(1 + task * place)
        if place > LEAST:
            break
    return np.array(rewards)


def discounted(rewards, factor):
    found = np.zeros(len(rewards) + 1)
    for t in reversed(range(len(rewards))):
        found[t] = rewards[t] + factor * found[t + 1]
    return found[:-1]


@pytest.fixture(scope="module")
def samples():
    collect = rl.Collector(env=ENV, policy=policy, episodes=12, discount=DISCOUNT, trace_decay=DECAY, baseline="none")
    found = jax.jit(collect)(jnp.asarray(THETA), jnp.array(1.5), KEY)
    return jax.tree.map(np.asarray, found)


@pytest.fixture(scope="module")
def lengths(samples):
    obs, action = samples.trajectory.obs[..., 0], samples.trajectory.action[..., 0]
    return [len(walked(obs[0, e], action[:, e], 1.5)) for e in range(12)]


def of_episodes(x, lengths):
    """The steps that count, of all episodes one after another."""
    return np.concatenate([x[:length, e] for e, length in enumerate(lengths)])


def test_what_counts_is_what_was_walked(samples, lengths):
    data = samples.trajectory
    assert min(lengths) < 3 and max(lengths) == ENV.horizon
    time = np.arange(ENV.horizon)[:, None]
    np.testing.assert_array_equal(data.valid, time < lengths)
    np.testing.assert_array_equal(data.terminated | data.truncated, time == np.array(lengths) - 1)
    rewards = [walked(data.obs[0, e, 0], data.action[:, e, 0], 1.5) for e in range(12)]
    np.testing.assert_allclose(of_episodes(data.reward, lengths), np.concatenate(rewards), rtol=1e-5)
    assert (data.reward[~data.valid] == 0).all()


def test_advantages_are_those_of_the_steps_that_count(samples, lengths):
    """Without a baseline: sums of rewards within each episode, scaled over the steps of all of them."""
    data = samples.trajectory
    rewards = [walked(data.obs[0, e, 0], data.action[:, e, 0], 1.5) for e in range(12)]
    sums = np.concatenate([discounted(episode, DISCOUNT * DECAY) for episode in rewards])
    expected = (sums - sums.mean()) / sums.std()
    np.testing.assert_allclose(of_episodes(samples.advantage, lengths), expected, rtol=1e-4, atol=1e-5)
    assert (samples.advantage[~data.valid] == 0).all()


def test_the_linear_baseline_does_not_see_what_comes_after_the_end(samples, lengths):
    data = samples.trajectory
    junk = np.where(data.valid[..., None], data.obs, 1e3 * np.random.default_rng(0).normal(size=data.obs.shape))
    estimate = partial(rl.estimate_advantages, discount=DISCOUNT, trace_decay=DECAY)
    found, expected = (estimate(jax.tree.map(jnp.asarray, data._replace(obs=obs))) for obs in (junk, data.obs))
    np.testing.assert_allclose(found.advantage, expected.advantage, rtol=1e-4, atol=1e-5)


def plain(ratio, log_prob, advantage):
    return log_prob * advantage


def importance(ratio, log_prob, advantage):
    return ratio * advantage


def pessimistic(ratio, log_prob, advantage):
    return np.minimum(ratio * advantage, np.clip(ratio, 0.9, 1.1) * advantage)


SURROGATES = {
    "reinforce": (rl.reinforce, plain),
    "ratio": (rl.ratio, importance),
    "clipped": (rl.clipped(0.1), pessimistic),
    "dice": (rl.dice, plain),
}


@pytest.mark.parametrize("name", SURROGATES)
def test_surrogates_and_their_gradients_are_means_over_the_steps_that_count(samples, lengths, name):
    surrogate, gain = SURROGATES[name]
    data = samples.trajectory
    obs, action, old = (
        of_episodes(x, lengths).astype(float) for x in (data.obs[..., 0], data.action[..., 0], data.log_prob)
    )
    advantage = of_episodes(samples.advantage, lengths).astype(float)

    def by_hand(theta):
        log_prob = log_probs(theta, obs, action)
        return -gain(np.exp(log_prob - old), log_prob, advantage).mean()

    def loss(theta):
        return surrogate(policy(theta, data.obs).log_prob(jnp.asarray(data.action)), samples)

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(OTHER))
    np.testing.assert_allclose(value, 0 if name == "dice" else by_hand(OTHER), rtol=1e-4, atol=1e-5)
    slopes = [(by_hand(OTHER + step) - by_hand(OTHER - step)) / 2e-6 for step in 1e-6 * np.eye(3)]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-3, atol=1e-5)


# ----------------------------------------------------------------------------------------------------------- trials

TRIAL = rl.Trial(ENV, 3)
NETWORK = rl.RecurrentPolicy(1, False, rl.GRU(4))
NUMBER = 4


@pytest.fixture(scope="module")
def network():
    start = jax.jit(NETWORK.init)(KEY, rl.example_observations(TRIAL), NETWORK.empty_memory(1))
    return jax.tree.map(lambda x: x + 0.2 * jax.random.normal(KEY, x.shape), start)


@pytest.fixture(scope="module")
def trials(network):
    """The trials that an update plays, `[T, NUMBER]`."""
    task_key, play_key, _ = jax.random.split(KEY, 3)
    tasks = TRIAL.sample_tasks(task_key, NUMBER)

    def play(task, key):
        data = rl.rollout(TRIAL, NETWORK.apply, network, task, key, episodes=1, memory=NETWORK.empty_memory(1))
        return jax.tree.map(lambda x: x[:, 0], data), TRIAL.episode_returns(data)[0]

    keys = jax.random.split(play_key, NUMBER)
    return tasks, *jax.tree.map(np.asarray, jax.jit(jax.vmap(play, out_axes=(1, 0)))(tasks, keys))


def test_a_trial_goes_on_with_the_next_episode_and_ends_with_the_last(trials):
    tasks, data, returns = trials
    found = []
    for i, task in enumerate(np.asarray(tasks)):
        first, ended = 0, []
        for episode in range(3):
            rewards = walked(data.obs[first, i, 0], data.action[first:, i, 0], task)
            np.testing.assert_allclose(data.reward[first : first + len(rewards), i], rewards, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(returns[i, episode], rewards.sum(), rtol=1e-4, atol=1e-4)
            first += len(rewards)
            ended.append(first)
        steps = np.arange(TRIAL.horizon)
        np.testing.assert_array_equal(data.valid[:, i], steps < first)
        np.testing.assert_array_equal(data.terminated[:, i], steps == first - 1)
        np.testing.assert_array_equal(data.obs[1:first, i, -1], np.isin(steps[1:first], ended))
        found.append(first)
    assert min(found) < TRIAL.horizon - 4 and max(found) == TRIAL.horizon
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(data))


@pytest.mark.slow
def test_an_update_of_rl2_is_that_of_the_steps_that_count(network, trials):
    """The gradient of a loss without masks, on trials that are cut where they end."""
    _, data, _ = trials
    number = data.valid.sum(axis=0)
    cut = [jax.tree.map(lambda x, i=i: x[: number[i], i : i + 1], data) for i in range(NUMBER)]
    weights = {"value_weight": 0.5, "entropy_weight": 0.02}
    apply: Any = NETWORK.apply

    advantages, targets = [], []
    for trial in cut:
        value = np.append(np.asarray(apply(network, trial.obs, method="unroll")[1])[:, 0], 0.0)
        errors = trial.reward[:, 0] + DISCOUNT * value[1:] - value[:-1]
        advantages.append(discounted(errors, DISCOUNT * DECAY))
        targets.append(advantages[-1] + value[:-1])
    mean, std = np.concatenate(advantages).mean(), np.concatenate(advantages).std()

    def loss(params):
        terms = []
        for trial, advantage, target in zip(cut, advantages, targets, strict=True):
            dist, value = apply(params, trial.obs, method="unroll")
            ratio = jnp.exp(dist.log_prob(trial.action) - trial.log_prob)[:, 0]
            error = (value[:, 0] - target) ** 2
            gain = ratio * ((advantage - mean) / std) - weights["value_weight"] * error
            terms.append(gain + weights["entropy_weight"] * dist.entropy()[:, 0])
        return -jnp.mean(jnp.concatenate(terms))

    expected = jax.grad(loss)(network)
    options: dict[str, Any] = {"epochs": 1, "minibatches": 1, "discount": DISCOUNT, "trace_decay": DECAY, **weights}
    training = rl.rl2(TRIAL, NETWORK, num_tasks=NUMBER, optimizer=optax.sgd(1.0), **options)
    state, _ = jax.jit(training.step)(training.init(network), KEY)
    found = jax.tree.map(lambda before, after: before - after, network, state.meta.params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-2, atol=2e-5), found, expected)


# ------------------------------------------------------------------------------------------------------- a humanoid


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of brax, when it is imported
@pytest.mark.parametrize("learner", ["promp", "rl2"])
def test_humanoids_that_fall_train(learner):
    env = envs.ScaledActions(envs.make("humanoid-forward-backward", horizon=160), 0.4)
    with jax.numpy_rank_promotion("allow"):
        if learner == "promp":
            body = rl.GaussianPolicy(env.action_size, (8,))
            collect = rl.Collector(env=env, policy=body.apply, episodes=2, normalize=True)
            training = rl.promp(collect, optax.sgd(0.1), num_tasks=2)
            start = jax.jit(body.init)(KEY, rl.example_observations(env))
        else:
            trial = rl.Trial(env, 2)
            network = rl.RecurrentPolicy(env.action_size, False, rl.GRU(8))
            training = rl.rl2(trial, network, num_tasks=2, minibatches=1, normalize=True)
            start = jax.jit(network.init)(KEY, rl.example_observations(trial), network.empty_memory(1))
        state, metrics = jax.jit(training.step)(training.init(start), KEY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, metrics)))
    moved = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), state.meta.params, start)
    assert np.median(jax.tree.leaves(moved)) > 1e-5
    episode = metrics["return_0"] if learner == "promp" else metrics["return"] / 2
    assert episode < 0.8 * 5 * env.horizon  # each step on its feet pays about 5
