"""PEARL: squashed Gaussians, replay buffers, posteriors and losses against NumPy, and inference of the task."""

from collections import deque
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import envs, rl
from jaxmeta.envs import State
from jaxmeta.rl._latent import product
from jaxmeta.rl._pearl import _task_loss
from jaxmeta.rl._replay import add, draw, empty_replay, transitions

KEY = jax.random.key(0)


# --------------------------------------------------------------------------------------------------- distributions


def test_a_squashed_gaussian_against_numerical_integration():
    mean, std, other_std = 0.4, 0.8, 0.5
    dist = rl.TanhGaussian(rl.DiagonalGaussian(jnp.array([mean]), jnp.log(jnp.array([std]))))
    other = rl.TanhGaussian(rl.DiagonalGaussian(jnp.array([0.0]), jnp.log(jnp.array([other_std]))))
    edges = np.linspace(-1, 1, 20001)
    action = (edges[1:] + edges[:-1]) / 2
    log_prob, other_log_prob = (
        np.asarray(jax.vmap(d.log_prob)(jnp.asarray(action)[:, None]), float) for d in (dist, other)
    )
    mass = np.exp(log_prob) * np.diff(edges)
    np.testing.assert_allclose(mass.sum(), 1, atol=1e-4)
    np.testing.assert_allclose(dist.entropy(), -(mass * log_prob).sum(), atol=1e-3)
    np.testing.assert_allclose(dist.kl(other), (mass * (log_prob - other_log_prob)).sum(), atol=1e-3)
    np.testing.assert_allclose(action[np.searchsorted(mass.cumsum(), 0.5)], dist.mode()[0], atol=1e-3)


def test_squashed_log_densities_of_draws():
    """Log-densities of sampled actions are sums over their numbers, and stay exact where tanh rounds to 1."""
    mean, log_std = jnp.array([[0.5, -1.0], [9.0, 0.0]]), jnp.array([[-1.0, 0.2], [-2.0, 0.0]])
    base = rl.DiagonalGaussian(mean, log_std)
    action, log_prob = rl.TanhGaussian(base).sample_with_log_prob(KEY)
    np.testing.assert_array_equal(action, rl.TanhGaussian(base).sample(KEY))
    np.testing.assert_allclose(rl.TanhGaussian(base).log_prob(action)[0], log_prob[0], rtol=1e-4)
    x, mean, std = np.asarray(base.sample(KEY), float), np.asarray(mean, float), np.exp(np.asarray(log_std, float))
    normal = -0.5 * ((x - mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(log_prob, (normal + 2 * np.log(np.cosh(x))).sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(rl.TanhGaussian(base).log_prob(jnp.array([[1.0, -1.0]] * 2)) > -jnp.inf, True)


def test_a_product_of_gaussians():
    """The product equals that of the densities on a grid, and invalid factors do not count, even if they are NaN."""
    mean, log_std = np.array([[1.0], [-0.5], [np.nan]]), np.log([[0.5], [2.0], [np.nan]])
    factors = rl.DiagonalGaussian(jnp.asarray(mean), jnp.asarray(log_std))
    prior = rl.DiagonalGaussian(jnp.array([0.2]), jnp.log(jnp.array([1.5])))
    valid = jnp.array([True, True, False])
    grid = np.linspace(-10, 10, 100001)
    log_density = -0.5 * ((grid - 0.2) / 1.5) ** 2
    log_density -= 0.5 * (((grid - mean[:2]) / np.exp(log_std[:2])) ** 2).sum(axis=0)
    density = np.exp(log_density) / np.exp(log_density).sum()
    expected = (density * grid).sum()
    result = product(prior, factors, valid)
    np.testing.assert_allclose(result.mean, [expected], rtol=1e-5)
    np.testing.assert_allclose(jnp.exp(result.log_std), [np.sqrt((density * (grid - expected) ** 2).sum())], rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), product(prior, factors, ~valid & valid), prior)


# --------------------------------------------------------------------------------------------------------- buffers


def step_of(number):
    """Returns a transition with its number in every field."""
    number = jnp.asarray(number, float)
    return rl.Transition(number[..., None], -number[..., None], number, number[..., None] + 0.5, number % 2 == 0)


def test_ring_buffers_against_deques():
    """Blocks with gaps, some longer than the buffer, go to three of four tasks until the buffers have wrapped."""
    rng = np.random.default_rng(0)
    capacity, replay = 5, empty_replay(step_of(0), 4, 5)
    queues = [deque(maxlen=capacity) for _ in range(4)]
    add_jitted = jax.jit(add)
    for block in range(8):
        tasks = rng.permutation([0, 1, 3])
        numbers = 100 * block + np.arange(21).reshape(3, 7)
        valid = rng.random(numbers.shape) < (1.0 if block == 3 else 0.4)
        replay = add_jitted(replay, jnp.asarray(tasks), step_of(numbers), jnp.asarray(valid))
        for task, row, ok in zip(tasks, numbers, valid, strict=True):
            queues[task].extend(row[ok])
        np.testing.assert_array_equal(replay.size, [len(queue) for queue in queues])
        for task, queue in enumerate(queues):
            slots = (int(replay.end[task]) - len(queue) + np.arange(len(queue))) % capacity
            stored = jax.tree.map(lambda x, task=task, slots=slots: x[task][slots], replay.data)
            jax.tree.map(np.testing.assert_array_equal, stored, step_of(np.array(queue)))

    for newest in (2, capacity):
        drawn = jax.jit(partial(draw, n=400, newest=newest))(replay, jnp.array([1, 3, 1]), KEY)
        for task, row in zip([1, 3, 1], drawn.reward, strict=True):
            values, counts = np.unique(row, return_counts=True)
            np.testing.assert_array_equal(values, np.sort(list(queues[task])[-newest:]))
            assert counts.min() > 0.7 * 400 / len(values)
        jax.tree.map(np.testing.assert_array_equal, drawn, step_of(drawn.reward))


# ---------------------------------------------------------------------------------------------------------- losses

POLICY = rl.LatentPolicy(action_size=2, latent_size=2, sizes=(3,), encoder_sizes=(4,))
DISCOUNT, ENTROPY, KL = 0.9, 0.3, 0.2


def mlp(params, *x):
    x = np.concatenate(x, axis=-1)
    for name in ("body", "head"):
        layers = [params[name]] if "kernel" in params[name] else [params[name][k] for k in sorted(params[name])]
        for layer in layers:
            x = x @ layer["kernel"] + layer["bias"]
        x = np.maximum(x, 0) if name == "body" else x
    return x


def act(params, obs, z, noise):
    mean, log_std = np.split(mlp(params["actor"], obs, np.tile(z, (len(obs), 1))), 2, axis=-1)
    log_std = np.clip(log_std, -20, 2)
    x = mean + np.exp(log_std) * noise
    log_prob = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - np.tanh(x) ** 2)
    return np.tanh(x), log_prob.sum(axis=1)


def q_values(params, obs, action, z):
    z = np.tile(z, (len(obs), 1))
    return np.concatenate([mlp(params[f"critic_{i}"], obs, action, z) for i in range(2)], axis=1).min(axis=1), [
        mlp(params[f"critic_{i}"], obs, action, z)[:, 0] for i in range(2)
    ]


def by_hand(params, fixed, target, context, batch, noise):
    """Returns the losses in NumPy, with the parameters `fixed` where no derivative flows."""

    def infer(params):
        parts = mlp(params["encoder"], context.obs, context.action, context.reward[:, None], context.next_obs)
        mean, raw = np.split(parts, 2, axis=1)
        precision = 1 / np.log1p(np.exp(raw))
        variance = 1 / (1 + precision.sum(axis=0))
        return variance * (precision * mean).sum(axis=0), variance

    (mean, variance), (fixed_mean, fixed_variance) = infer(params), infer(fixed)
    z, fixed_z = mean + np.sqrt(variance) * noise[0], fixed_mean + np.sqrt(fixed_variance) * noise[0]
    next_action, next_log_prob = act(fixed, batch.next_obs, fixed_z, noise[1])
    next_value = q_values(target, batch.next_obs, next_action, fixed_z)[0] - ENTROPY * next_log_prob
    q_target = batch.reward + DISCOUNT * (1 - batch.terminated) * next_value
    _, values = q_values(params, batch.obs, batch.action, z)
    error = np.mean([(value - q_target) ** 2 for value in values])
    action, log_prob = act(params, batch.obs, fixed_z, noise[2])
    actor_loss = np.mean(ENTROPY * log_prob - q_values(fixed, batch.obs, action, fixed_z)[0])
    kl = 0.5 * (variance + mean**2 - 1 - np.log(variance)).sum()
    return 2 * error + KL * kl + actor_loss, error, -log_prob.mean(), kl


@pytest.fixture(scope="module")
def losses():
    """Returns the losses as a function of parameters, for a context of four and a batch of five transitions."""
    init_key, target_key, key = jax.random.split(KEY, 3)
    make = jax.jit(POLICY.init)
    params, target = (make(k, jnp.zeros((1, 3)), jnp.zeros(2)) for k in (init_key, target_key))
    # Biases start at zero, where a derivative of a ReLU may jump.
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(KEY, x.shape), params)
    rng = np.random.default_rng(0)

    def some(n):
        obs, next_obs, action = rng.normal(size=(n, 3)), rng.normal(size=(n, 3)), rng.uniform(-1, 1, size=(n, 2))
        parts: Any = obs, action, rng.normal(size=n), next_obs, np.arange(n) % 3 == 1
        return rl.Transition(*parts)

    context, batch = some(4), some(5)

    def loss(params):
        data = (jax.tree.map(jnp.asarray, context), jax.tree.map(jnp.asarray, batch))
        return _task_loss(POLICY, DISCOUNT, ENTROPY, KL, params, target, data[0], data[1], key)

    keys = jax.random.split(key, 3)
    noise = [
        np.asarray(jax.random.normal(k, shape), float) for k, shape in zip(keys, [(2,), (5, 2), (5, 2)], strict=True)
    ]

    def hand(params, fixed):
        params, fixed, other = (
            jax.tree.map(partial(np.asarray, dtype=float), p)["params"] for p in (params, fixed, target)
        )
        return by_hand(params, fixed, other, context, batch, noise)

    return params, jax.jit(jax.value_and_grad(loss, has_aux=True)), loss, hand


def test_the_losses_by_hand(losses):
    params, loss, _, hand = losses
    (value, metrics), _ = loss(params)
    expected = hand(params, params)
    found = value, metrics["critic_error"], metrics["entropy"], metrics["kl"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("network", ["actor", "encoder", "critic_0", "critic_1"])
def test_gradients_by_finite_differences(losses, network):
    """The gradient of each network is checked along a random direction."""
    params, loss, _, hand = losses
    gradient = loss(params)[1]["params"][network]
    rng = np.random.default_rng(1)
    step = jax.tree.map(lambda x: 1e-5 * rng.normal(size=x.shape), params["params"][network])

    def moved(sign):
        shifted = jax.tree.map(lambda x, d: np.asarray(x, float) + sign * d, params["params"][network], step)
        return hand({"params": {**params["params"], network: shifted}}, params)[0]

    slope = sum(np.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, step)), strict=True))
    np.testing.assert_allclose(slope, (moved(1) - moved(-1)) / 2, rtol=1e-3)
    assert abs(slope) > 1e-7


def test_only_the_critics_and_the_divergence_teach_the_encoder(losses):
    params, _, loss, _ = losses

    def part(params):
        value, metrics = loss(params)
        taught = 2 * metrics["critic_error"] + KL * metrics["kl"]
        return jnp.stack([value - taught, taught])

    of_actor, of_rest = (jax.tree.map(lambda x, i=i: x[i], jax.jit(jax.jacrev(part))(params)["params"]) for i in (0, 1))

    def largest(tree):
        return {name: max(np.abs(x).max() for x in jax.tree.leaves(part)) for name, part in tree.items()}

    of_actor, of_rest = largest(of_actor), largest(of_rest)
    assert of_actor.pop("actor") > 1e-3 and max(of_actor.values()) < 1e-7
    assert of_rest.pop("actor") == 0 and min(of_rest.values()) > 1e-3


# -------------------------------------------------------------------------------------------------------- training


class Target:
    """Environment with minus the squared distance of the action to the task as reward.

    The observation is the number of the step. In task 9 an episode terminates with its first step. In the other tasks
    it is cut off after two.
    """

    observation_size, action_size, discrete, horizon = 1, 1, False, 2

    def sample_tasks(self, key, n, *, split="train"):
        return 0.8 * jax.random.rademacher(jax.random.fold_in(key, split == "test"), (n,), float)

    def reset(self, key, task=None):
        zero = jnp.zeros(())
        return State(zero, jnp.zeros(1), zero, zero, {}, {"task": task, "steps": zero, "truncation": zero})

    def step(self, state, action):
        task, steps = state.info["task"], state.info["steps"] + 1
        terminated = jnp.where(task == 9, 1.0, 0.0)
        truncation = jnp.where(steps >= self.horizon, 1 - terminated, 0.0)
        reward = -((action[0] - task) ** 2)
        info = {**state.info, "steps": steps, "truncation": truncation}
        return State(steps, steps[None], reward, terminated + truncation, {}, info)


ENV = Target()
SMALL = rl.LatentPolicy(action_size=1, latent_size=1, sizes=(16,), encoder_sizes=(16,))


@pytest.fixture(scope="module")
def start():
    return jax.jit(SMALL.init)(KEY, jnp.zeros((1, 1)), jnp.zeros(1))


@pytest.mark.slow
def test_played_steps_are_stored(start):
    """Steps after the end of an episode are not stored, and an episode that is cut off has not terminated."""
    tasks = jnp.array([0.8, 9.0, -0.8])
    training = rl.pearl(ENV, SMALL, tasks, num_tasks=3, episodes=3, updates=1, batch_size=4, capacity=8)
    state, _ = jax.jit(training.step)(training.init(start), KEY)
    data, end, size = state.replay
    np.testing.assert_array_equal(size, [6, 3, 6])
    np.testing.assert_array_equal(end, [6, 3, 6])
    for i, task in enumerate(tasks):
        obs = [0, 0, 0] if task == 9 else [0, 1, 0, 1, 0, 1]
        stored = jax.tree.map(lambda x, i=i, obs=obs: np.asarray(x)[i, : len(obs)], data)
        np.testing.assert_array_equal(stored.obs[:, 0], obs)
        np.testing.assert_array_equal(stored.next_obs[:, 0], np.add(obs, 1))
        np.testing.assert_array_equal(stored.terminated, task == 9)
        np.testing.assert_allclose(stored.reward, -((stored.action[:, 0] - task) ** 2), rtol=1e-5)
        assert len(np.unique(stored.action)) == len(obs)


@pytest.fixture(scope="module")
def training():
    tasks = jnp.array([0.8, -0.8, 0.8, -0.8])
    return rl.pearl(
        ENV,
        SMALL,
        tasks,
        num_tasks=3,
        episodes=2,
        updates=40,
        optimizer=optax.adam(5e-3),
        context_size=4,
        batch_size=16,
        capacity=200,
        discount=0.5,
        entropy_weight=0.1,
        kl_weight=0.01,
        target_rate=0.05,
    )


@pytest.mark.slow
def test_it_finds_out_which_task_it_is(training, start):
    """Both steps pay -0.64 without knowledge of the task, and 0 with it, and one episode tells which task it is."""
    done = jaxmeta.loop(training, start, KEY, iterations=60, log_every=30, validate_every=30, progress=False)
    tasks = jnp.array([0.8, -0.8] * 20)
    curve = jax.jit(rl.pearl_curve(ENV, SMALL, 2))(done.state.meta, tasks, KEY)
    assert curve.sampled.shape == curve.mode.shape == (40, 3)
    assert curve.mode[:, 0].mean() <= -2 * 0.64 + 1e-5
    assert curve.mode[:, 1:].mean() > -0.3
    assert curve.sampled[:, 1:].mean() > curve.sampled[:, 0].mean() + 0.5


@pytest.mark.slow
def test_the_loop_resumes_from_a_checkpoint(training, start, tmp_path):
    run = partial(jaxmeta.loop, training, start, KEY, log_every=2, validate_every=2, progress=False)
    done = run(iterations=4)
    run(iterations=2, folder=tmp_path)
    again = run(iterations=4, folder=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, done.state, again.state)
    assert [record["train/return_1"] for record in again.history] == [r["train/return_1"] for r in done.history]
    assert done.history[0].keys() >= {f"train/{x}" for x in ("loss", "return_0", "critic_error", "entropy", "kl")}


def test_posteriors_narrow_from_episode_to_episode(start):
    """The posterior is that of all episodes so far at once, in any order, and the prior before the first one."""
    play = partial(rl.posterior_sampling, ENV, SMALL, start, episodes=3)
    data, posteriors = jax.jit(play)(jnp.array(0.8), KEY)
    first, last = (jax.tree.map(lambda x, i=i: x[i], posteriors) for i in (0, 2))
    jax.tree.map(np.testing.assert_array_equal, first, SMALL.prior())
    shuffled = jax.tree.map(lambda x: x[:2].reshape(4, *x.shape[2:])[jnp.array([2, 0, 3, 1])], transitions(data))
    at_once = SMALL.apply(start, SMALL.prior(), shuffled, jnp.ones(4, bool), method="infer")
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), last, at_once)
    assert (last.log_std < -0.5).all()


@pytest.mark.slow
def test_numbers_side_by_side_equal_one_alone(start):
    """Discount, weights and the rate of the target may be traced."""
    tasks = jnp.array([0.8, -0.8])

    def after(discount, entropy_weight, kl_weight, target_rate):
        numbers = {"discount": discount, "entropy_weight": entropy_weight, "kl_weight": kl_weight}
        training = rl.pearl(
            ENV, SMALL, tasks, num_tasks=2, episodes=1, updates=2, capacity=4, target_rate=target_rate, **numbers
        )
        state, _ = training.step(training.init(start), KEY)
        return state.meta, state.target

    numbers = tuple(jnp.array([[0.9, 0.2, 0.1, 0.1], [0.5, 0.0, 1.0, 1.0]]).T)
    both = jax.jit(jax.vmap(after))(*numbers)
    for i in range(2):
        alone = jax.jit(after)(*(x[i] for x in numbers))
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-4, atol=1e-5), both, alone)


def test_pearl_rejects():
    tasks = jnp.ones(4)
    with pytest.raises(ValueError, match=r"num_tasks must be at most the number of tasks \(4\), got 5"):
        rl.pearl(ENV, SMALL, tasks, num_tasks=5)
    with pytest.raises(ValueError, match="env must have continuous actions"):
        rl.pearl(envs.make("bandit-bernoulli"), SMALL, tasks, num_tasks=2)
    with pytest.raises(ValueError, match="capacity must be an integer of at least 1, got 0"):
        rl.pearl(ENV, SMALL, tasks, num_tasks=2, capacity=0)
    with pytest.raises(ValueError, match="target_rate must be a number from 0 to 1, got 2"):
        rl.pearl(ENV, SMALL, tasks, num_tasks=2, target_rate=2.0)
    with pytest.raises(ValueError, match="kl_weight must be a number of at least 0, got -1"):
        rl.pearl(ENV, SMALL, tasks, num_tasks=2, kl_weight=-1)
    with pytest.raises(TypeError, match="optimizer must be an optax.GradientTransformation"):
        rl.pearl(ENV, SMALL, tasks, num_tasks=2, optimizer=0.1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="latent_size must be an integer of at least 1, got 0"):
        rl.LatentPolicy(action_size=1, latent_size=0)
    with pytest.raises(ValueError, match="steps must be an integer of at least 0, got -1"):
        rl.pearl_curve(ENV, SMALL, -1)
