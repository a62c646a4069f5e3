"""Meta-gradients against exact ones, from all eight trajectories of two states, two actions and three steps."""

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import rl

STEPS, RATE = 3, 0.7
KEY = jax.random.key(0)
ACTIONS = np.array(list(product((0, 1), repeat=STEPS))).T  # [STEPS, 8]
STATES = np.zeros((STEPS, 8), int)
for _t in range(1, STEPS):
    STATES[_t] = STATES[_t - 1] ^ ACTIONS[_t - 1]  # action 1 changes the state
REWARDS = np.array([[1.0, -0.5], [0.3, 2.0]])[STATES, ACTIONS]
VALUES = np.array([0.4, -0.2])[STATES]  # of no use as a critic: right for any
ADVANTAGES = np.cumsum(REWARDS[::-1], axis=0)[::-1] - VALUES
THETA = np.array([[0.3, -0.8], [0.5, 0.1]])


def policy(theta, obs):
    """Policy whose logits are not linear in the parameters."""
    return rl.Categorical((theta + 0.3 * jnp.sin(2 * theta))[obs[..., 0].astype(int)])


def log_probs(theta):
    """Returns the log-probability of each action in each trajectory, `[STEPS, 8]`."""
    return policy(theta, jnp.asarray(STATES)[..., None]).log_prob(jnp.asarray(ACTIONS))


@jax.jit
def expected_return(theta):
    return jnp.exp(log_probs(theta).sum(axis=0)) @ REWARDS.sum(axis=0)


class TwoStates:
    """Stand-in for an environment, of which only the tasks and the horizon are used."""

    horizon = 1

    def sample_tasks(self, key, n, *, split="train"):
        return jnp.arange(n)


@dataclass(frozen=True, kw_only=True)
class Enumerated(rl.Collector):
    """Collector of all trajectories, weighted by their probabilities.

    A mean over its samples is the expectation of a sum over the steps. With `one`, and at parameters 0, where all
    trajectories have the same probability, it returns the trajectory with the index `task` alone.
    """

    one: bool = False

    def __call__(self, params, task, key):
        params = jax.lax.stop_gradient(params)
        alone = jnp.all(params == 0) & self.one
        chosen = jnp.where(alone, task, jnp.arange(8))
        obs, action = jnp.asarray(STATES, float)[:, chosen, None], jnp.asarray(ACTIONS)[:, chosen]
        dist = policy(params, obs)
        log_prob = dist.log_prob(action)
        weight = jnp.where(alone, 1.0, 8 * jnp.exp(log_prob.sum(axis=0)))
        weight = jnp.broadcast_to(weight, (STEPS, 8))
        on = jnp.ones((STEPS, 8), bool)
        reward = weight * jnp.asarray(REWARDS)[:, chosen]
        data = rl.Trajectory(obs, action, dist, log_prob, reward, obs, ~on, ~on, on)
        return rl.Samples(data, STEPS * weight * jnp.asarray(ADVANTAGES)[:, chosen])


ENV: Any = TwoStates()
COLLECT = Enumerated(env=ENV, policy=policy)
SURROGATES = {"reinforce": rl.reinforce, "ratio": rl.ratio, "dice": rl.dice, "clipped": rl.clipped(0.2)}


def log_prob_curvature(theta):
    """Returns the Hessian that `reinforce` uses for the expected return, that of the log-probabilities alone."""
    hessians = jax.hessian(log_probs)(theta)
    return jnp.einsum("e,te,teabcd->abcd", jnp.exp(log_probs(theta).sum(axis=0)), ADVANTAGES, hessians)


def ratio_curvature(theta):
    """Returns the Hessian that `ratio` uses, that of each step's probability given the steps before."""
    hessians = jax.hessian(lambda theta: jnp.exp(log_probs(theta)))(theta)
    weight = jnp.exp(log_probs(theta).sum(axis=0, keepdims=True) - log_probs(theta))
    return jnp.einsum("te,te,teabcd->abcd", weight, ADVANTAGES, hessians)


CURVATURES = {"reinforce": log_prob_curvature, "ratio": ratio_curvature, "dice": jax.hessian(expected_return)}


@partial(jax.jit, static_argnums=0)
def exact_meta_gradient(curvature, theta):
    """Returns the gradient of the expected return after one step of ascent, with a given Hessian."""
    adapted = theta + RATE * jax.grad(expected_return)(theta)
    outer = jax.grad(expected_return)(adapted)
    return outer + RATE * jnp.einsum("abcd,ab->cd", curvature(theta), outer)


def ascent(training, theta):
    """Returns the meta-gradient that a training with the outer optimizer `optax.sgd(1.0)` has followed."""
    state, metrics = jax.jit(training.step)(training.init(theta), KEY)
    return state.meta.params - theta, metrics


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", SURROGATES)
def test_the_gradient_of_each_surrogate_is_exact(name):
    theta = jnp.asarray(THETA)
    loss_fn = rl.policy_gradient(COLLECT, SURROGATES[name])
    (loss, metrics), gradient = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(theta, 0, KEY)
    exact = jax.grad(expected_return)(theta)
    assert np.abs(exact).max() > 0.1
    np.testing.assert_allclose(gradient, -exact, rtol=1e-10)
    np.testing.assert_allclose([loss, metrics["return"]], [-expected_return(theta), expected_return(theta)])


@pytest.mark.parametrize("name", CURVATURES)
@pytest.mark.quick("dice")
def test_the_meta_gradient_through_each_surrogate(name):
    """The meta-gradient of DiCE is exact. The others have the error of their Hessian."""
    theta = jnp.asarray(THETA)
    training = rl.maml_a2c(COLLECT, optax.sgd(RATE), num_tasks=2, optimizer=optax.sgd(1.0), surrogate=SURROGATES[name])
    found, metrics = ascent(training, theta)
    np.testing.assert_allclose(found, exact_meta_gradient(CURVATURES[name], theta), rtol=1e-9)

    learner = jaxmeta.maml(rl.policy_gradient(COLLECT, SURROGATES[name]), optax.sgd(RATE))
    core = jax.jit(learner.grad)(learner.init(theta), jaxmeta.Task(0, 0), KEY)[1]
    np.testing.assert_allclose(core.params, -found, rtol=1e-9)

    true = jax.jit(jax.grad(lambda theta: expected_return(theta + RATE * jax.grad(expected_return)(theta))))(theta)
    if name == "dice":
        np.testing.assert_allclose(found, true, rtol=1e-9)
    else:
        assert np.abs(found - true).max() > 0.02
    np.testing.assert_allclose(metrics["return_0"], expected_return(theta))
    assert metrics["return_1"] > metrics["return_0"]


def test_two_inner_steps():
    """Every inner step uses episodes of the current parameters."""
    theta = jnp.asarray(THETA)
    training = rl.maml_a2c(COLLECT, optax.sgd(RATE), 2, num_tasks=1, optimizer=optax.sgd(1.0), surrogate=rl.dice)
    found, metrics = ascent(training, theta)

    def after(theta, steps):
        for _ in range(steps):
            theta = theta + RATE * jax.grad(expected_return)(theta)
        return expected_return(theta)

    np.testing.assert_allclose(found, jax.grad(partial(after, steps=2))(theta), rtol=1e-9)
    returns = [metrics[f"return_{i}"] for i in range(3)]
    np.testing.assert_allclose(returns, [after(theta, steps) for steps in range(3)])
    assert metrics["loss"] == -returns[-1]


def test_the_outer_ratio_and_the_first_order():
    theta = jnp.asarray(THETA)
    outer = optax.sgd(1.0)
    found, metrics = ascent(rl.maml_trpo(COLLECT, optax.sgd(RATE), num_tasks=1, optimizer=outer), theta)
    np.testing.assert_allclose(found, exact_meta_gradient(ratio_curvature, theta), rtol=1e-9)
    assert metrics["kl"] > 0  # between the adapted policies, in nats: a mean over the steps

    first = rl.maml_trpo(COLLECT, optax.sgd(RATE), num_tasks=1, optimizer=outer, meta_gradient=jaxmeta.first_order())
    np.testing.assert_allclose(
        ascent(first, theta)[0], exact_meta_gradient(lambda _: jnp.zeros((2, 2, 2, 2)), theta), rtol=1e-9
    )


@pytest.mark.slow
def test_e_maml_is_the_gradient_of_what_single_trajectories_lead_to():
    """The objective is the mean over first trajectories of the expected return after adapting on one of them."""
    theta = jnp.zeros((2, 2))

    def after(theta, trajectory):
        step = jax.grad(lambda theta: log_probs(theta)[:, trajectory] @ ADVANTAGES[:, trajectory])(theta)
        return expected_return(theta + RATE * step)

    returns = jnp.stack([after(theta, i) for i in range(8)])
    exact = jax.grad(lambda theta: sum(jnp.exp(log_probs(theta).sum(axis=0))[i] * after(theta, i) for i in range(8)))(
        theta
    )
    make = partial(rl.e_maml, Enumerated(env=ENV, policy=policy, one=True), optax.sgd(RATE), num_tasks=8)
    # Credit is in deviations of the returns, and the term is a mean over the steps.
    found, _ = ascent(make(optimizer=optax.sgd(1.0), exploration=STEPS * float(jnp.std(returns))), theta)
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    without, _ = ascent(make(optimizer=optax.sgd(1.0), exploration=0.0), theta)
    assert np.abs(without - exact).max() > 0.02


@pytest.mark.slow
def test_the_penalty_and_the_epochs_of_promp():
    """Two epochs are two steps on the clipped loss with the penalty, on the samples of the first parameters."""
    theta = jnp.asarray(THETA)
    collected = COLLECT(theta, 0, KEY)

    def adapted(theta):
        return theta - RATE * jax.grad(lambda theta: rl.ratio(log_probs(theta), collected))(theta)

    last = COLLECT(adapted(theta), 0, KEY)

    def objective(moved):
        states = jnp.array([[0.0], [1.0]])
        visits = jnp.array([np.sum(s == STATES) for s in (0, 1)]) / STATES.size
        divergence = visits @ policy(theta, states).kl(policy(moved, states))
        log_prob = log_probs(adapted(moved))
        change = jnp.exp(log_prob - last.trajectory.log_prob)
        gain = jnp.minimum(change * last.advantage, jnp.clip(change, 0.95, 1.05) * last.advantage)
        return -gain.mean() + 0.5 * divergence

    expected = theta
    for _ in range(2):
        expected = expected - 0.1 * jax.grad(objective)(expected)
    training = rl.promp(
        COLLECT, optax.sgd(RATE), num_tasks=1, optimizer=optax.sgd(0.1), epochs=2, clip=0.05, kl_penalty=0.5
    )
    found, _ = ascent(training, theta)
    np.testing.assert_allclose(found, expected - theta, rtol=1e-8)


@pytest.mark.slow
def test_weights_may_be_traced():
    """A sweep over the weights of the losses is a `jax.vmap`, and an absent term equals a weight of 0."""
    theta = jnp.asarray(THETA)
    inner, outer = optax.sgd(RATE), optax.sgd(0.1)

    def promp(numbers):
        clip, kl_penalty = numbers
        return rl.promp(COLLECT, inner, num_tasks=1, optimizer=outer, epochs=2, clip=clip, kl_penalty=kl_penalty)

    def e_maml(exploration):
        return rl.e_maml(COLLECT, inner, num_tasks=2, optimizer=outer, exploration=exploration)

    for make, numbers in ((promp, (jnp.array([0.05, 0.3]), jnp.array([0.5, 0.0]))), (e_maml, jnp.array([0.0, 1.0]))):

        def moved(numbers, make=make):
            training = make(numbers)
            return training.step(training.init(theta), KEY)[0].meta.params

        both = jax.jit(jax.vmap(moved))(numbers)
        for i in range(2):
            alone = jax.jit(moved)(jax.tree.map(lambda x, i=i: float(x[i]), numbers))
            np.testing.assert_allclose(both[i], alone, rtol=1e-9)
    without = rl.maml_trpo(COLLECT, inner, num_tasks=2, optimizer=outer, surrogate=rl.reinforce)
    np.testing.assert_allclose(both[0] - theta, ascent(without, theta)[0], rtol=1e-9)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_a_control_that_does_not_adapt(backend, monkeypatch):
    """Tasks follow each other on a CPU, and are batched elsewhere."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    theta = jnp.asarray(THETA)
    found, metrics = ascent(rl.multi_task_ppo(COLLECT, num_tasks=2, optimizer=optax.sgd(1.0), epochs=1), theta)
    np.testing.assert_allclose(found, jax.grad(expected_return)(theta), rtol=1e-9)
    assert "return_1" not in metrics
