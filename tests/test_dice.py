"""DiCE's derivatives against exact ones, by enumeration of a small stochastic computation."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta

# Two actions of 0 or 1; the second's probability depends on the first. Rewards come after each, [first, second].
FIRST_REWARD = np.array([1.0, -0.5])
SECOND_REWARD = np.array([[0.3, 2.0], [-1.0, 0.7]])
BASELINES = np.array([0.6, -0.4, 1.1])  # before the first action, and after each first action
THETA = (0.3, -0.8)


def log_probs(theta, first, second):
    """Of both actions: Bernoulli, with logits that are no linear function of the parameters."""
    logits = jnp.stack([theta[0] * theta[1], jnp.sin(theta[1]) + first * theta[0] ** 2])
    actions = jnp.array([first, second])
    return actions * jax.nn.log_sigmoid(logits) + (1 - actions) * jax.nn.log_sigmoid(-logits)


def expectation(theta):
    """The exact expected return."""
    return sum(
        jnp.exp(log_probs(theta, a, b).sum()) * (FIRST_REWARD[a] + SECOND_REWARD[a, b])
        for a, b in product((0, 1), repeat=2)
    )


def sampled(theta, operator, baselines):
    """What sampled trajectories average to: their probabilities are no part of the derivative."""
    total = 0.0
    for a, b in product((0, 1), repeat=2):
        logs = log_probs(theta, a, b)
        until_now = operator(jnp.cumsum(logs))
        returns = until_now @ jnp.array([FIRST_REWARD[a], SECOND_REWARD[a, b]])
        control = (1 - operator(logs)) @ jnp.array([baselines[0], baselines[1 + a]])
        total += jax.lax.stop_gradient(jnp.exp(logs.sum())) * (returns + control)
    return total


def derivatives(objective):
    """The value, the gradient, the Hessian and the tensor of third derivatives, as a function."""
    orders = [objective]
    for _ in range(3):
        orders.append(jax.jacfwd(orders[-1]))
    return lambda theta: [order(theta) for order in orders]


@pytest.mark.slow
def test_derivatives_of_every_order_are_exact_and_those_of_a_surrogate_loss_are_not():
    cases = {
        "exact": expectation,
        "dice": partial(sampled, operator=jaxmeta.magic_box, baselines=np.zeros(3)),
        "baseline": partial(sampled, operator=jaxmeta.magic_box, baselines=BASELINES),
        "surrogate": partial(sampled, operator=lambda log_prob: log_prob, baselines=np.zeros(3)),
    }
    with jax.enable_x64(True):
        found = jax.jit(lambda theta: {name: derivatives(case)(theta) for name, case in cases.items()})(
            jnp.array(THETA)
        )
        found = jax.tree.map(np.asarray, found)
    for order, exact in enumerate(found["exact"]):
        assert np.abs(exact).max() > 0.1, f"derivative {order} says nothing"
        np.testing.assert_allclose(found["dice"][order], exact, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found["baseline"][order], exact, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found["surrogate"][1], found["exact"][1], rtol=1e-10)
    for order in (2, 3):
        assert np.abs(found["surrogate"][order] - found["exact"][order]).max() > 0.05


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_value_is_one(dtype):
    ones = jaxmeta.magic_box(jnp.array([[-1e30, -3.0], [0.0, 5.0]], dtype))
    assert ones.dtype == dtype
    assert ones.tolist() == [[1.0, 1.0], [1.0, 1.0]]
