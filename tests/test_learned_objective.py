# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
"""The learned objective: as A2C in numpy at its start, what its network sees, and lifetimes as a process."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxmeta import envs, estimators, models, rl

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
ENV = envs.TabularMDP(states=3, actions=2, horizon=4)
NUMBERS = {"discount": 0.8, "trace_decay": 0.6, "entropy_weight": 0.2, "value_weight": 0.3}
OBJECTIVE = rl.LearnedObjective(rl.LSTM(3), hidden=4, **NUMBERS)
POLICY, CRITIC, SGD = rl.CategoricalPolicy(2, sizes=()), models.MLP((), out=1), optax.sgd(0.5)
SIZES = {"horizon": 4, "episodes": 3}


def moved(theta, amount=0.5):
    """Weights whose last layer is not zero."""
    return jax.tree.map(lambda w: w + amount * jnp.asarray(RNG.normal(size=w.shape), w.dtype), theta)


THETA = OBJECTIVE.initial(KEY)
MOVED = moved(THETA)


def process_of(objective=OBJECTIVE, env=ENV, policy=POLICY, critic=CRITIC, optimizer=SGD, **options):
    return rl.agent_training(objective, env, policy, critic, optimizer, **SIZES | options)


def after(process, theta, updates=1, key=KEY):
    """The agent after some updates, and the loss of each."""
    step, keys = partial(process.step, theta), jax.random.split(key, updates)
    return jax.jit(lambda theta: jax.lax.scan(step, process.reset(key), keys))(theta)


def a2c_in_numpy(data, states, logits, values, next_values):
    """The gradients of A2C by the logits and the values of a table, one step after the other."""
    steps = [(t, e) for t, e in np.ndindex(data.reward.shape) if data.valid[t, e]]
    gamma, decay = NUMBERS["discount"], NUMBERS["trace_decay"]
    advantage = np.zeros(data.reward.shape)
    for t, e in reversed(steps):
        bootstrap = 0.0 if data.terminated[t, e] else next_values[t, e]
        advantage[t, e] = data.reward[t, e] + gamma * bootstrap - values[states[t, e]]
        if not (data.terminated[t, e] or data.truncated[t, e]):
            advantage[t, e] += gamma * decay * advantage[t + 1, e]
    seen = np.array([advantage[step] for step in steps])
    by_logits, by_values = np.zeros_like(logits), np.zeros_like(values)
    for t, e in steps:
        s, probabilities = states[t, e], np.exp(logits[states[t, e]]) / np.exp(logits[states[t, e]]).sum()
        entropy = -(probabilities * np.log(probabilities)).sum()
        credit = (advantage[t, e] - seen.mean()) / seen.std()
        by_logits[s] -= credit * (np.eye(len(probabilities))[data.action[t, e]] - probabilities)
        by_logits[s] += NUMBERS["entropy_weight"] * probabilities * (np.log(probabilities) + entropy)
        by_values[s] -= 2 * NUMBERS["value_weight"] * advantage[t, e]
    return by_logits / len(steps), by_values / len(steps)


def episodes(dtype=np.float64):
    """Two episodes by hand, of which the first is cut off and the second terminates early."""
    states, action = RNG.integers(0, 3, (4, 2)), jnp.asarray(RNG.integers(0, 2, (4, 2)))
    valid = jnp.array([[1, 1], [1, 1], [1, 0], [1, 0]], bool)
    ends = {"truncated": jnp.zeros((4, 2), bool).at[3, 0].set(True)}
    ends |= {"terminated": jnp.zeros((4, 2), bool).at[1, 1].set(True)}
    reward = jnp.asarray(np.where(valid, RNG.normal(size=(4, 2)), 0), dtype)
    obs = jax.nn.one_hot(states, 3, dtype=dtype)
    data = rl.Trajectory(obs, action, None, reward, reward, obs, **ends, valid=valid)  # no log-probability is read
    return data, states


def loss_of(theta, data, logits, values, next_values):
    value = (data.obs @ values[:, None])[..., 0]
    return OBJECTIVE.apply(theta, data, rl.Categorical(data.obs @ logits), value, next_values, jnp.array(0.25))


def test_starts_as_a2c():
    with jax.enable_x64(True):
        theta, (data, states) = OBJECTIVE.initial(KEY), episodes()
        logits, values, next_values = RNG.normal(size=(3, 2)), RNG.normal(size=3), RNG.normal(size=(4, 2))
        arrays = (jnp.asarray(x) for x in (logits, values, next_values))
        found = jax.jit(jax.grad(loss_of, (2, 3)))(theta, data, *arrays)
    data = jax.tree.map(np.asarray, data)
    for x, y in zip(found, a2c_in_numpy(data, states, logits, values, next_values), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_an_update_of_an_agent_is_that_of_a2c():
    """The second one, with rewards divided by the root of their mean square in both."""
    process, keys = process_of(), jax.random.split(KEY)
    step, before = jax.jit(process.step), jax.jit(process.reset)(KEY)
    first, _ = step(THETA, before, keys[0])
    second, loss = step(THETA, first, keys[1])
    play = partial(rl.rollout, ENV, POLICY.apply, task=first.task, episodes=3)
    old, new = (
        jax.tree.map(np.asarray, jax.jit(play)(agent.params["policy"], key=key))
        for agent, key in zip((before, first), keys, strict=True)
    )
    np.testing.assert_allclose(loss, -new.reward.sum(axis=0).mean(), rtol=1e-6)

    size = np.sqrt(np.mean(np.concatenate([old.reward, new.reward]) ** 2))
    layers = [first.params["policy"]["params"]["logits"]["head"], first.params["critic"]["params"]["head"]]
    logits, values = (np.asarray(layer["kernel"], float) + np.asarray(layer["bias"], float) for layer in layers)
    values = values[:, 0]
    given = new._replace(reward=new.reward / size)
    gradients = a2c_in_numpy(given, new.obs.argmax(-1), logits, values, values[new.next_obs.argmax(-1)])
    policy, critic = second.params["policy"]["params"]["logits"]["head"], second.params["critic"]["params"]["head"]
    for old_layer, layer, gradient in zip(layers, (policy, critic), gradients, strict=True):
        gradient = gradient.reshape(3, -1)
        kernel, bias = (old_layer[name] - layer[name] for name in ("kernel", "bias"))
        np.testing.assert_allclose(kernel, 0.5 * gradient, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(bias, 0.5 * gradient.sum(axis=0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("memory", [rl.LSTM(3), rl.GRU(3)], ids=["lstm", "gru"])
def test_a_step_knows_what_came_of_it(memory):
    """A change is seen at the steps before it in its own episode, and one after the end of an episode nowhere."""
    objective = rl.LearnedObjective(memory, hidden=4)
    theta = moved(objective.initial(KEY))
    valid = jnp.array([[1, 1], [1, 1], [1, 1], [1, 0], [1, 0]], bool)
    features = jnp.asarray(RNG.normal(size=(5, 2, 14)), jnp.float32)
    outputs = jax.jit(partial(objective.apply, method="corrections"))
    before = np.asarray(outputs(theta, features, valid))

    def seen(t, e):
        found = np.asarray(outputs(theta, features.at[t, e].add(1.0), valid))
        return (np.abs(found - before).max(axis=-1) > 1e-6) & np.asarray(valid)

    for e in (0, 1):
        expected = np.zeros((5, 2), bool)
        expected[:3, e] = True
        np.testing.assert_array_equal(seen(2, e), expected)
    assert not seen(3, 1).any() and not seen(4, 1).any()


def test_the_objective_has_derivatives_of_its_weights_only():
    """All weights matter to the agent's gradient. The agent's parameters matter through the loss alone."""
    data, _ = episodes(np.float32)
    tables = jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32), jnp.asarray(RNG.normal(size=3), jnp.float32)
    next_values = jnp.asarray(RNG.normal(size=(4, 2)), jnp.float32)

    def size_of_step(theta):
        slopes = jax.grad(loss_of, (2, 3))(theta, data, *tables, next_values)
        return sum(jnp.sum(slope**2) for slope in slopes)

    for weights in jax.tree.leaves(jax.jit(jax.grad(size_of_step))(MOVED)):
        assert np.all(np.isfinite(weights)) and np.any(weights != 0)
    np.testing.assert_array_equal(jax.jit(jax.grad(loss_of, 4))(MOVED, data, *tables, next_values), 0)


def test_the_order_of_episodes_does_not_matter():
    data, _ = episodes(np.float32)
    tables = jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32), jnp.asarray(RNG.normal(size=3), jnp.float32)
    next_values, loss = jnp.asarray(RNG.normal(size=(4, 2)), jnp.float32), jax.jit(loss_of)
    turned = jax.tree.map(lambda x: x[:, ::-1], data)
    first, second = loss(MOVED, data, *tables, next_values), loss(MOVED, turned, *tables, next_values[:, ::-1])
    np.testing.assert_allclose(first, second, rtol=1e-5)


class Pixels(nn.Module):
    """A critic for images."""

    @nn.compact
    def __call__(self, obs):
        return models.MLP((4,), out=1)(rl.ObservationEncoder((4, 4, 2), 8)(obs))


@pytest.mark.parametrize(
    ("env", "policy", "critic"),
    [
        (envs.TabularMDP(states=7, actions=5, horizon=3), rl.CategoricalPolicy(5, (4,)), models.MLP((4,))),
        (
            envs.DarkRoom(size=4, horizon=3),
            rl.CategoricalPolicy(5, encoder=rl.ObservationEncoder((4, 4, 2), 8)),
            Pixels(),
        ),
        (envs.make("particles2d", horizon=3), rl.GaussianPolicy(2, (4,)), models.MLP((4,))),
    ],
    ids=["more-states", "images", "continuous-actions"],
)
def test_one_objective_serves_all_agents(env, policy, critic):
    process = process_of(env=env, policy=policy, critic=critic)
    agent = jax.eval_shape(process.reset, KEY)
    found, loss = jax.eval_shape(process.step, MOVED, agent, KEY)
    types = jax.tree.map(lambda x: (x.shape, x.dtype), (agent, found))
    assert types[0] == types[1] and loss.shape == ()


def with_rewards(process, factor):
    """A new agent in a task whose rewards are multiplied."""
    agent = process.reset(KEY)
    return agent._replace(task=agent.task | {"rewards": factor * agent.task["rewards"]})


def test_the_size_of_rewards_does_not_matter():
    process = process_of(env=envs.TabularMDP(states=3, actions=2, horizon=4, noise=0.0))

    def lived(factor):
        agent = with_rewards(process, factor)
        return jax.lax.scan(partial(process.step, MOVED), agent, jax.random.split(KEY, 4))

    (one, losses), (other, larger) = jax.jit(lived)(1.0), jax.jit(lived)(64.0)
    np.testing.assert_allclose(larger, 64 * losses, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), one.params, other.params)


def test_an_environment_without_rewards_teaches_nothing_wrong():
    process = process_of(env=envs.TabularMDP(states=3, actions=2, horizon=4, noise=0.0))
    agent, loss = jax.jit(lambda: process.step(MOVED, with_rewards(process, 0.0), KEY))()
    assert loss == 0 and all(np.all(np.isfinite(x)) for x in jax.tree.leaves(agent.params))


def test_splits_have_other_tasks():
    train, test = (jax.jit(process_of(split=split).reset)(KEY) for split in ("train", "test"))
    assert not np.allclose(train.task["rewards"], test.task["rewards"])
    jax.tree.map(np.testing.assert_array_equal, train.params, test.params)


def test_works_in_float64():
    with jax.enable_x64(True):
        agent, losses = after(process_of(), moved(OBJECTIVE.initial(KEY)), 2)
        assert losses.dtype == jnp.float64 and agent.rewards.mean.dtype == jnp.float64


def trainer(process, optimizer, iterations, num_runs):
    """A compiled function from weights to the state after meta-training, and the metrics."""
    estimator = estimators.persistent_evolution(2, scale=0.1)
    training = estimators.process_step(process, estimator, optimizer, num_runs, batch_size=num_runs)

    def run(theta):
        return jax.lax.scan(training.step, training.init(theta, KEY), jax.random.split(KEY, iterations))

    return jax.jit(run)


def test_persistent_evolution_trains_it():
    """Two equal runs, whose weights all move."""
    process = process_of(optimizer=optax.sgd(5.0))
    train = trainer(process, optax.sgd(0.1), 3, 16)
    (one, metrics), (other, _) = (train(THETA) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one.meta, other.meta)
    assert np.all(np.isfinite(metrics["loss"]))
    jax.tree.map(lambda x, y: np.testing.assert_array_less(0, np.abs(x - y).max()), one.meta, THETA)


@pytest.mark.slow
def test_meta_training_raises_the_return_in_new_tasks():
    """A2C with a rate that is much too low learns to step further."""
    env = envs.TabularMDP(states=2, actions=3, horizon=3, noise=0.1)
    objective = rl.LearnedObjective(rl.LSTM(3), hidden=4, entropy_weight=0.01)
    options = {"env": env, "policy": rl.CategoricalPolicy(3, sizes=()), "optimizer": optax.sgd(0.1), "horizon": 10}
    theta = objective.initial(KEY)
    state, _ = trainer(process_of(objective, **options), optax.adam(0.03), 100, 64)(theta)
    process = process_of(objective, **options, split="test")
    lives = jax.jit(jax.vmap(lambda theta, key: after(process, theta, 10, key)[1].mean(), (None, 0)))
    keys = jax.random.split(jax.random.key(7), 256)
    gains = np.asarray(lives(theta, keys) - lives(state.meta, keys))
    assert gains.mean() > 0.5
    assert gains.mean() > 4 * gains.std() / len(gains) ** 0.5


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (partial(rl.LearnedObjective, 8), TypeError, "memory must be a memory, such as rl.GRU(64), got 8"),
        (partial(rl.LearnedObjective, hidden=0), ValueError, "hidden must be an integer of at least 1, got 0"),
        (partial(rl.LearnedObjective, discount=1.1), ValueError, "discount must be a number from 0 to 1, got 1.1"),
        (
            partial(rl.LearnedObjective, entropy_weight=-1.0),
            ValueError,
            "entropy_weight must be a number of at least 0, got -1.0",
        ),
        (partial(process_of, objective=THETA), TypeError, "objective must be an rl.LearnedObjective, got "),
        (partial(process_of, env="tabular"), TypeError, "env must be an environment"),
        (partial(process_of, policy=POLICY.apply), TypeError, "policy must be a Flax module"),
        (partial(process_of, critic=None), TypeError, "critic must be a Flax module, such as models.MLP"),
        (partial(process_of, optimizer=0.1), TypeError, "optimizer must be an optax.GradientTransformation"),
        (partial(process_of, horizon=0), ValueError, "horizon must be an integer of at least 1, got 0"),
        (partial(process_of, episodes=0), ValueError, "episodes must be an integer of at least 1, got 0"),
        (partial(process_of, split="validation"), ValueError, "split must be"),
        (
            lambda: after(process_of(critic=models.MLP((), out=2)), THETA),
            ValueError,
            r"critic must give values \[\.\.\., 1\], got \[4, 3, 2\] for \[4, 3\] steps",
        ),
    ],
)
def test_bad_arguments_are_named(make, error, text):
    with pytest.raises(error, match=text if "\\" in text else None) as caught:
        make()
    assert "\\" in text or text in str(caught.value)
