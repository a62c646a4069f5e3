"""The agent for environments outside of JAX adapts like the library, to consecutive episodes of different lengths."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import MetaParams, envs, rl

ENV = envs.make("particles2d", horizon=6, tolerance=0.2)
GOALS = {"goal": jnp.array([[0.3, 0.1], [-0.2, -0.4]])}
START = {"weights": jnp.array([[0.3, -0.2], [0.1, 0.4]]), "bias": jnp.array([0.2, -0.1])}


def policy(params, obs):
    mean = jnp.tanh(obs @ params["weights"] + params["bias"][(None,) * (obs.ndim - 1)])
    return rl.DiagonalGaussian(mean, jnp.full_like(mean, -0.5))


COLLECT = rl.Collector(env=ENV, policy=policy, episodes=3, discount=0.9, trace_decay=0.8)


def agent_of(**options):
    return rl.AdaptingAgent(
        policy, MetaParams(START), optax.sgd(0.1, momentum=0.9), discount=0.9, trace_decay=0.8, **options
    )


def stream(data):
    """Returns the valid steps of a lane's episodes one after the other, as Meta-World gives them."""
    data = jax.tree.map(np.asarray, data)
    return [
        (data.obs[t, e], data.action[t, e], data.reward[t, e], data.terminated[t, e], data.truncated[t, e])
        for e in range(data.valid.shape[1])
        for t in np.flatnonzero(data.valid[:, e])
    ]


@pytest.mark.slow
def test_an_inner_step_is_that_of_the_library():
    play = jax.jit(jax.vmap(lambda goal, key: COLLECT.play(START, goal, key)))
    data = play(GOALS, jax.random.split(jax.random.key(5), 2))
    assert len(set(np.asarray(data.valid).sum(axis=1)[0])) > 1 and np.any(data.terminated)

    agent = agent_of()
    agent.adapt_action(np.zeros((2, 2)))
    names = ("observation", "action", "reward", "terminated", "truncated")
    lanes = [stream(jax.tree.map(lambda x, i=i: x[i], data)) for i in range(2)]
    for now in zip(*lanes, strict=False):
        agent.step(SimpleNamespace(**dict(zip(names, map(np.stack, zip(*now, strict=True)), strict=True))))
    agent.adapt()
    shorter = int(np.argmin([len(lane) for lane in lanes]))  # the other one is in the middle of an episode
    own = jax.tree.map(lambda x: x[shorter], data)

    def loss(params):
        samples = rl.estimate_advantages(own, discount=0.9, trace_decay=0.8)
        return rl.ratio(policy(params, own.obs).log_prob(own.action), samples)

    expected = jax.tree.map(lambda x, g: x - 0.1 * g, START, jax.jit(jax.grad(loss))(START))
    assert np.abs(expected["bias"] - START["bias"]).max() > 0.01
    obs = np.array([[0.1, -0.3], [0.1, -0.3]])
    actions = agent.eval_action(obs)
    np.testing.assert_allclose(actions[shorter], policy(expected, jnp.asarray(obs)).mode()[0], atol=2e-5)
    assert np.abs(actions[0] - actions[1]).max() > 1e-3  # in every lane its own

    agent.init()
    np.testing.assert_allclose(agent.eval_action(obs), policy(START, jnp.asarray(obs)).mode(), atol=1e-6)


def test_actions_are_random_until_the_evaluation():
    obs = np.zeros((500, 2))
    drawn, more = agent_of(seed=3).adapt_action(obs)
    assert more == {}
    np.testing.assert_array_equal(drawn, agent_of(seed=3).adapt_action(obs)[0])
    np.testing.assert_allclose(drawn.mean(axis=0), np.tanh([0.2, -0.1]), atol=0.1)
    np.testing.assert_allclose(drawn.std(axis=0), np.exp(-0.5), rtol=0.1)


def test_errors():
    with pytest.raises(ValueError, match="adapt must come after adapt_action and step, got no steps"):
        agent_of().adapt()
    with pytest.raises(TypeError, match="inner must be an optax"):
        rl.AdaptingAgent(policy, MetaParams(START), 0.1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="discount must be a number from 0 to 1, got 2"):
        rl.AdaptingAgent(policy, MetaParams(START), optax.sgd(0.1), discount=2.0)
