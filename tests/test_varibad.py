# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""VariBAD: its bound against numpy, whose gradient reaches whom, and that it learns."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import envs, rl
from jaxmeta._parallel import replicate
from jaxmeta.envs import State
from jaxmeta.rl._belief import join, split
from jaxmeta.rl._elbo import elbo_terms
from jaxmeta.rl._recorded_trial import play_recorded

KEY = jax.random.key(0)
STEPS, TASKS = 5, 3


class Aim:
    """Environment of two steps that counts them, with the distance of the action to the task as cost.

    The first observation is random.
    """

    observation_size, action_size, discrete, horizon = 1, 1, False, 2

    def sample_tasks(self, key, n, *, split="train"):
        return jax.random.rademacher(key, (n,), float)

    def reset(self, key, task=None):
        zero = jnp.zeros(())
        obs = 0.5 * jax.random.uniform(key, (1,))
        return State(zero, obs, zero, zero, {}, {"task": task, "steps": zero, "truncation": zero})

    def step(self, state, action):
        steps = state.info["steps"] + 1
        over = jnp.where(steps >= self.horizon, 1.0, 0.0)
        reward = -jnp.abs(action[0] - state.info["task"])
        info = {**state.info, "steps": steps, "truncation": over}
        return State(steps, steps[None], reward, over, {}, info)


BANDIT = rl.Trial(envs.make("bandit-bernoulli", arms=2, horizon=6))
AIM = rl.Trial(Aim(), episodes=3)
SMALL = {"latent_size": 2, "sizes": (8,), "decoder_sizes": (8,)}


def network(trial, memory=None, **options):
    return rl.BeliefPolicy(trial.action_size, trial.discrete, memory or rl.GRU(8), **{**SMALL, **options})


def start(trial, policy, scale=0.3):
    """Draws parameters that are not at a special place."""
    params = jax.jit(policy.init)(KEY, jnp.zeros((1, trial.observation_size)), policy.empty_memory(1))
    return jax.tree.map(lambda x: x + scale * jax.random.normal(KEY, x.shape), params)


def play(trial, policy, params):
    tasks = trial.sample_tasks(KEY, TASKS)
    return jax.jit(partial(play_recorded, trial, policy))(params, tasks, jax.random.split(KEY, TASKS))


KINDS = {
    "discrete": (BANDIT, network(BANDIT)),
    "continuous": (AIM, network(AIM, decode_transitions=True)),
    "linear": (AIM, network(AIM, rl.LinearRecurrent(8))),
}


# ------------------------------------------------------------------------------------------------------------ policy


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_trial_equals_step_by_step(kind):
    trial, policy = KINDS[kind]
    params = start(trial, policy)
    obs = jax.random.normal(KEY, (STEPS, TASKS, trial.observation_size))
    whole, values = jax.jit(partial(policy.apply, method="unroll"))(params, obs)
    one = jax.jit(partial(policy.apply, method="with_value"))
    memory = policy.empty_memory(TASKS)
    for t in range(STEPS):
        dist, memory, value = one(params, obs[t], memory)
        expected = jax.tree.map(lambda x, t=t: x[t], (whole, values))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), (dist, value), expected)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_each_loss_reaches_its_own_networks(kind):
    trial, policy = KINDS[kind]
    params = start(trial, policy)
    data = play(trial, policy, params)

    def acts(params):
        dist, value = policy.apply(params, data.obs, method="unroll")
        return jnp.sum(dist.log_prob(data.action)) + jnp.sum(value)

    def believes(params):
        return sum(elbo_terms(policy, params, data, KEY).values())

    for loss, reaches in ((acts, 0), (believes, 1)):
        parts = split(jax.jit(jax.grad(loss))(params))
        assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(parts[reaches])), jax.tree.map(jnp.max, parts)
        assert all(np.abs(x).max() == 0 for x in jax.tree.leaves(parts[1 - reaches]))
    jax.tree.map(np.testing.assert_array_equal, join(*split(params)), params)


def test_a_trial_keeps_the_observation_that_ends_an_episode():
    trial, policy = KINDS["continuous"]
    data = play(trial, policy, start(trial, policy))
    np.testing.assert_array_equal(data.next_obs[:, 0, 0], [1, 2] * 3)
    assert (np.asarray(data.obs[::2, :, 0]) < 0.5).all()  # of resets


# ------------------------------------------------------------------------------------------------------------- bound


def fixed_latents(params):
    """Makes the belief so narrow that a latent is its mean."""
    inner = dict(params["params"])
    inner["log_spread"] = {"kernel": 0 * inner["log_spread"]["kernel"], "bias": 0 * inner["log_spread"]["bias"] - 30}
    return {"params": inner}


def perceptron(part, latent, step):
    """Computes a decoder of one hidden layer in numpy."""
    dense = [{name: np.asarray(x, np.float64) for name, x in part[f"Dense_{i}"].items()} for i in range(3)]
    hidden = step @ dense[0]["kernel"] + dense[0]["bias"] + latent @ dense[1]["kernel"]
    return np.maximum(hidden, 0) @ dense[2]["kernel"] + dense[2]["bias"]


def errors_by_loops(policy, params, data):
    """Returns the squared errors `[T, TASKS]` of rewards and next observations, summed over the steps of a trial."""
    mean = np.asarray(policy.apply(params, data.obs, method="infer").mean, np.float64)
    obs, action, reward, following = (np.asarray(x) for x in (data.obs, data.action, data.reward, data.next_obs))
    found = np.zeros((2, *reward.shape))
    for t, n, i in np.ndindex(len(reward), TASKS, len(reward)):
        if not data.valid[i, n]:
            continue
        taken = np.eye(policy.action_size)[action[i, n]] if policy.discrete else action[i, n]
        step = np.concatenate([obs[i, n, : -policy.action_size - 2], taken, following[i, n]])
        guess = perceptron(params["params"]["reward"], mean[t, n], step)
        found[0, t, n] += (guess[0] - reward[i, n]) ** 2
        if policy.decode_transitions:
            guess = perceptron(params["params"]["transition"], mean[t, n], step[: -following.shape[-1]])
            found[1, t, n] += np.sum((guess - following[i, n]) ** 2)
    return found


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_the_errors_of_the_decoders(kind):
    """One trial ends early. Random times are some of all times, and on average the same."""
    trial, policy = KINDS[kind]
    params = fixed_latents(start(trial, policy))
    data = play(trial, policy, params)
    data = data._replace(valid=data.valid.at[4:, 1].set(False))
    expected = errors_by_loops(policy, params, data)
    valid = np.asarray(data.valid)
    terms = jax.jit(elbo_terms, static_argnums=(0, 4))
    found = terms(policy, params, data, KEY, None)
    np.testing.assert_allclose(found["reward_error"], expected[0][valid].mean(), rtol=1e-4)
    if policy.decode_transitions:
        np.testing.assert_allclose(found["transition_error"], expected[1][valid].mean(), rtol=1e-4)
    else:
        assert "transition_error" not in found

    each = np.array([expected[0][t][valid[t]].mean() for t in range(len(valid))])
    drawn = np.array([terms(policy, params, data, jax.random.key(i), 1)["reward_error"] for i in range(20)])
    distance = np.abs(drawn[:, None] - each)
    np.testing.assert_allclose(distance.min(axis=1), 0, atol=1e-4)
    assert len(set(distance.argmin(axis=1))) > 3


def test_the_chain_of_divergences():
    """Sum of log(s'/s) + (s^2 + (m - m')^2) / (2 s'^2) - 1/2, from N(0, 1) on, and of the latents' spread."""
    trial, policy = KINDS["discrete"]
    params = start(trial, policy)
    data = play(trial, policy, params)
    belief = policy.apply(params, data.obs, method="infer")
    mean, std = np.asarray(belief.mean, np.float64), np.exp(np.asarray(belief.log_std, np.float64))
    assert np.ptp(mean) > 0.1 and np.ptp(std) > 0.1
    total = 0.0
    for n in range(TASKS):
        m, s = np.zeros(2), np.ones(2)
        for t in range(len(mean)):
            a, b = mean[t, n], std[t, n]
            total += np.sum(np.log(s / b) + (b**2 + (a - m) ** 2) / (2 * s**2) - 0.5)
            m, s = a, b
    found = elbo_terms(policy, params, data, KEY, 1)["belief_kl"]
    np.testing.assert_allclose(found, total / TASKS / len(mean), rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("kind", ["discrete", pytest.param("continuous", marks=pytest.mark.slow)])
def test_the_policy_that_plays_is_the_one_that_learns(kind):
    """The first gradient step sees the policy that played, so there is no divergence. Afterwards all has moved."""
    trial, policy = KINDS[kind]
    params = start(trial, policy)
    options = {"optimizer": optax.sgd(0.1), "belief_optimizer": optax.sgd(0.01)}
    training = rl.varibad(trial, policy, num_tasks=4, epochs=1, belief_epochs=1, minibatches=1, **options)
    state, metrics = jax.jit(training.step)(training.init(params), KEY)
    np.testing.assert_allclose(metrics["kl"], 0, atol=1e-6)
    assert set(metrics) == {"return", "loss", "entropy", "kl", "value_error", "reward_error", "belief_kl"} | (
        {"transition_error"} if policy.decode_transitions else set()
    )
    moved = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), state.meta.params, params)
    assert min(jax.tree.leaves(moved)) > 0, moved


class Sure(envs.BernoulliBandit):
    """Bandit whose arms pay 1 and 0 in either order."""

    def draw_task(self, key, split):
        first = jax.random.bernoulli(key).astype(float)
        return {"means": jnp.stack([first, 1 - first])}


@pytest.mark.slow
def test_it_learns():
    """One pull is enough for 5.5 of 6. Random pulls get 3."""
    trial = rl.Trial(Sure(arms=2, horizon=6))
    policy = network(trial, decoder_sizes=(16,), sizes=(16,))
    training = rl.varibad(trial, policy, belief_epochs=6, optimizer=optax.adam(0.01))
    options = {"iterations": 80, "log_every": 10, "validate_every": 10, "progress": False}
    done = jaxmeta.loop(training, start(trial, policy, 0.0), KEY, **options)
    assert done.history[0]["train/return"] < 4.5
    assert done.history[-1]["train/return"] > 5.2
    assert done.history[-1]["train/reward_error"] < 0.5 * done.history[0]["train/reward_error"]


@pytest.mark.slow
def test_it_resumes_from_a_checkpoint_and_its_curve_is_played(tmp_path):
    trial, policy = KINDS["continuous"]
    training = rl.varibad(trial, policy, num_tasks=4, minibatches=2)
    options = {"log_every": 1, "validate_every": 1, "progress": False}
    run = partial(jaxmeta.loop, training, start(trial, policy), KEY, **options)
    whole = run(iterations=2)
    run(iterations=1, folder=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, whole.state, run(iterations=2, folder=tmp_path).state)

    with jax.numpy_rank_promotion("allow"):
        curve = jax.jit(rl.trial_curve(trial, policy, states=True))(whole.meta, trial.sample_tasks(KEY, 4), KEY)
    assert curve.sampled.shape == (4, 3)
    assert curve.states.obs.shape == (4, 3, 2, 1)


@pytest.mark.slow
def test_numbers_may_be_traced():
    trial, policy = KINDS["continuous"]
    params = start(trial, policy)
    names = ("discount", "trace_decay", "clip", "value_weight", "entropy_weight", "transition_weight", "kl_weight")

    def moved(numbers):
        training = rl.varibad(trial, policy, num_tasks=4, minibatches=2, **dict(zip(names, numbers, strict=True)))
        return training.step(training.init(params), KEY)[0].meta

    numbers = jnp.array([[0.9, 0.95, 0.2, 0.5, 0.01, 1.0, 0.1], [0.5, 0.0, 0.01, 0.0, 1.0, 0.0, 1.0]])
    both = jax.jit(jax.vmap(lambda x: moved(tuple(x))))(numbers)
    for i in range(2):
        alone = jax.jit(lambda x: moved(tuple(x)))(numbers[i])
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-3, atol=1e-5), both, alone)


@pytest.mark.slow
def test_an_iteration_does_not_depend_on_the_devices_in_float64():
    with jax.enable_x64(True):
        policy = network(AIM)
        params = jax.tree.map(lambda x: x.astype(float), start(AIM, policy))
        found = []
        for mesh in (None, jaxmeta.task_mesh(2)):
            training = rl.varibad(AIM, policy, num_tasks=6, minibatches=2, optimizer=optax.sgd(0.1), mesh=mesh)
            found.append(jax.jit(training.step)(*replicate((training.init(params), KEY), mesh)))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-8), *found)
        assert {x.dtype for x in jax.tree.leaves((found[0][0].meta, found[0][1]))} == {np.dtype(np.float64)}


def image_trial():
    class Pictures(Aim):
        observation_size = (4, 4, 3)

    return rl.Trial(Pictures())


TASK = rl.GaussianPolicy(1)
BAD = [
    (lambda: rl.varibad(Aim(), network(AIM)), TypeError, r"trial must be a Trial\(env, episodes\), got"),
    (lambda: rl.varibad(AIM, TASK), TypeError, "policy must be a BeliefPolicy, got GaussianPolicy"),
    (
        lambda: rl.varibad(image_trial(), network(AIM)),
        ValueError,
        r"trial must have vectors as observations for varibad, .* got \{'obs': \(4, 4, 3\), 'last': 3\}: .* use rl2",
    ),
    (lambda: rl.varibad(AIM, network(AIM), num_tasks=6), ValueError, r"multiple of minibatches \(4\), got 6"),
    (lambda: rl.varibad(AIM, network(AIM), belief_epochs=0), ValueError, "belief_epochs must be an integer of at"),
    (lambda: rl.varibad(AIM, network(AIM), elbo_samples=0), ValueError, "elbo_samples must be an integer of at"),
    (lambda: rl.varibad(AIM, network(AIM), kl_weight=-1), ValueError, "kl_weight must be a number of at least 0"),
    (lambda: rl.varibad(AIM, network(AIM), discount=2), ValueError, "discount must be a number from 0 to 1, got 2"),
    (lambda: rl.varibad(AIM, network(AIM), belief_optimizer=0.1), TypeError, "belief_optimizer must be an optax"),
    (lambda: rl.BeliefPolicy(2, True, rl.GRU), TypeError, "memory must be a memory, such as rl.GRU"),
    (lambda: rl.BeliefPolicy(2, True, latent_size=0), ValueError, "latent_size must be an integer of at least 1"),
    (lambda: rl.BeliefPolicy(2, True, decoder_sizes=(0,)), ValueError, r"decoder_sizes\[0\] must be an integer"),
    (lambda: rl.BeliefPolicy(2, False, init_std=0.0), ValueError, "init_std must be a positive number, got 0"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
