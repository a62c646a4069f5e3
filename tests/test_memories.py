# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false
"""Tests of memories: equations in numpy, and that playing and learning read a sequence alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import envs, rl
from jaxmeta.rl import _linear_recurrent

KEY = jax.random.key(0)
MEMORIES = {
    "gru": rl.GRU(4),
    "lstm": rl.LSTM(4),
    "linear": rl.LinearRecurrent(4, layers=2),
    "transformer": rl.CausalTransformer(4, layers=2, heads=2, context=16),
    "short transformer": rl.CausalTransformer(4, layers=2, heads=2, context=3),
}


def drawn(memory, *shape, key=KEY):
    """Returns inputs, and parameters none of which is zero."""
    xs = jax.random.normal(key, (*shape, 3))
    params = jax.jit(memory.init)(key, memory.empty(*shape[1:]), xs[0])
    return xs, jax.tree.map(lambda x: x + 0.3 * jax.random.normal(key, x.shape), params)


def one_by_one(memory, params, xs):
    return jax.lax.scan(lambda m, x: memory.apply(params, m, x), memory.empty(*xs.shape[1:-1]), xs)


@pytest.mark.parametrize("name", MEMORIES)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_a_sequence_at_once_is_the_sequence_step_by_step(name, batch):
    memory = MEMORIES[name]
    xs, params = drawn(memory, 11, *batch)
    last, steps = jax.jit(lambda params, xs: one_by_one(memory, params, xs))(params, xs)
    np.testing.assert_allclose(memory.apply(params, xs, method="unroll"), steps, atol=1e-5)
    assert jax.tree.map(jnp.shape, last) == jax.tree.map(jnp.shape, memory.empty(*batch))


@pytest.mark.parametrize("name", MEMORIES)
def test_features_depend_on_the_past_and_not_on_the_future(name):
    memory = MEMORIES[name]
    xs, params = drawn(memory, 6)
    reads = jax.jit(lambda xs: memory.apply(params, xs, method="unroll"))
    before, changed = reads(xs), reads(xs.at[2].add(1.0))
    moved = np.abs(before - changed).max(axis=1)
    assert (moved[:2] == 0).all()
    assert (moved[2:4] > 1e-4).all()


def test_a_transformer_forgets_what_is_older_than_its_context():
    memory = rl.CausalTransformer(4, layers=1, heads=2, context=3)
    xs, params = drawn(memory, 6)
    moved = np.abs(one_by_one(memory, params, xs)[1] - one_by_one(memory, params, xs.at[1].add(1.0))[1]).max(axis=1)
    assert (moved[1:4] > 1e-4).all()
    assert (moved[4:] == 0).all()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(p, xs):
    w, b, u, c = p["input"]["kernel"], p["input"]["bias"], p["recurrent"], p["bias"]
    h, out = np.zeros(4), []
    for x in xs:
        a = x @ w + b
        r, z = sigmoid(a[:4] + h @ u[0]), sigmoid(a[4:8] + h @ u[1])
        h = (1 - z) * np.tanh(a[8:] + r * (h @ u[2] + c)) + z * h
        out.append(h)
    return out


def lstm(p, xs):
    w, b, u = p["input"]["kernel"], p["input"]["bias"], p["recurrent"]
    h, cell, out = np.zeros(4), np.zeros(4), []
    for x in xs:
        i, f, g, o = (x @ w + b).reshape(4, 4) + np.stack([h @ u[k] for k in range(4)])
        cell = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(cell)
        out.append(h)
    return out


def normed(u, p):
    centered = u - u.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def linear(p, xs):
    """The states as an explicit sum over the past."""
    u = xs @ p["input"]["kernel"] + p["input"]["bias"]
    for q in (p["layer_0"], p["layer_1"]):
        factor = np.exp(-np.exp(q["log_decay"]) + 1j * np.exp(q["log_phase"]))
        x = normed(u, q["norm"])
        drive = np.exp(q["log_gamma"]) * (x @ q["into"][:, :4] + 1j * (x @ q["into"][:, 4:]))
        state = np.stack([sum(factor ** (t - s) * drive[s] for s in range(t + 1)) for t in range(len(u))])
        y = gelu(state.real @ q["out"][:4] + state.imag @ q["out"][4:] + q["skip"] * x)
        value, gate = np.split(y @ q["gated"]["kernel"] + q["gated"]["bias"], 2, axis=-1)
        u = u + value * sigmoid(gate)
    return u


def transformer(p, xs):
    u = xs @ p["input"]["kernel"] + p["input"]["bias"]
    for q in (p["layer_0"], p["layer_1"]):
        made = normed(u, q["attention_norm"]) @ q["project"]["kernel"] + q["project"]["bias"]
        query, key, value = (made[:, 4 * i : 4 * i + 4].reshape(-1, 2, 2) for i in range(3))
        mixed = np.zeros((len(u), 2, 2))
        for t in range(len(u)):
            for head, slope in enumerate((1 / 16, 1 / 256)):
                past = [s for s in range(t + 1) if t - s < 16]
                logits = np.array([query[t, head] @ key[s, head] / np.sqrt(2) - slope * (t - s) for s in past])
                weights = np.exp(logits) / np.exp(logits).sum()
                mixed[t, head] = sum(w * value[s, head] for w, s in zip(weights, past, strict=True))
        u = u + mixed.reshape(-1, 4) @ q["merge"]["kernel"] + q["merge"]["bias"]
        wide = gelu(normed(u, q["mlp_norm"]) @ q["wide"]["kernel"] + q["wide"]["bias"])
        u = u + wide @ q["narrow"]["kernel"] + q["narrow"]["bias"]
    return normed(u, p["norm"])


FORMULAS = {"gru": gru, "lstm": lstm, "linear": linear, "transformer": transformer}


@pytest.mark.parametrize("name", FORMULAS)
def test_memories_compute_their_formulas(name):
    xs, params = drawn(MEMORIES[name], 7)
    numbers = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])
    expected = FORMULAS[name](numbers, np.asarray(xs, np.float64))
    np.testing.assert_allclose(MEMORIES[name].apply(params, xs, method="unroll"), np.stack(expected), atol=1e-5)


def test_the_recurrence_in_parallel_is_that_of_a_cpu():
    """Only a test reaches the version for accelerators on a CPU."""
    multiplier = jnp.array([0.9, 0.5]), jnp.array([0.1, -0.6])
    drive = jax.random.normal(KEY, (9, 3, 4))
    here = jax.jit(_linear_recurrent._recurrence)(multiplier, drive)
    np.testing.assert_allclose(_linear_recurrent._in_parallel(multiplier, drive), here, atol=1e-6)


@pytest.mark.parametrize("name", MEMORIES)
def test_rl2_trains_any_memory(name):
    trial = rl.Trial(envs.make("bandit-bernoulli", arms=2, horizon=5))
    policy = rl.RecurrentPolicy(trial.action_size, trial.discrete, MEMORIES[name])
    start = jax.jit(policy.init)(KEY, rl.example_observations(trial), policy.empty_memory(1))
    training = rl.rl2(trial, policy, num_tasks=4, epochs=1, minibatches=1)
    state, metrics = jax.jit(training.step)(training.init(start), KEY)
    np.testing.assert_allclose(metrics["kl"], 0, atol=1e-6)  # the policy that learns is the one that played
    moved = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), state.meta.params, start)
    assert np.median(jax.tree.leaves(moved)) > 1e-3  # a step of Adam, so that no gradient drowns the others
