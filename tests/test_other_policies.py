# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
"""Policies of NNX and equinox train as the Linen policy with the same weights does."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxmeta
from jaxmeta import envs, rl

KEY = jax.random.key(0)
ENV = envs.make("particles2d", horizon=4)
TRIAL = rl.Trial(ENV, 2)
SIZE = 4


@pytest.fixture(autouse=True)
def wide():
    """Numbers of 64 bits, so that a line search takes the same way in all libraries."""
    with jax.enable_x64(True):
        yield


class Policy(NamedTuple):
    """A policy, its weights, and the function that lays them out as `start` of Linen."""

    apply: Any
    params: Any
    as_linen: Any


def start(policy, *inputs):
    params = jax.jit(policy.init)(KEY, *inputs)
    return jax.tree.map(lambda x: (x + 0.1 * jax.random.normal(KEY, x.shape)).astype(float), params)["params"]


def linear(layer, kernel="kernel", transpose=False):
    weights = getattr(layer, kernel)[...]
    return {"kernel": weights.T if transpose else weights, "bias": layer.bias[...]}


def given(weights):
    """An NNX layer with the weights of one of Linen."""
    layer = nnx.Linear(*weights["kernel"].shape, rngs=nnx.Rngs(0))
    layer.kernel, layer.bias = nnx.Param(weights["kernel"]), nnx.Param(weights["bias"])
    return layer


# ---------------------------------------------------------------------------------------------------- without memory


def linen():
    policy = rl.GaussianPolicy(2, (SIZE,))
    return Policy(policy.apply, {"params": start(policy, jnp.zeros((1, 2)))}, lambda params: params["params"])


class Actor(nnx.Module):
    def __init__(self, weights):
        self.body, self.head = given(weights["mean"]["body"]["dense_0"]), given(weights["mean"]["head"])
        self.log_std = nnx.Param(weights["log_std"])

    def __call__(self, obs):
        mean = self.head(jnp.tanh(self.body(obs)))
        return rl.DiagonalGaussian(mean, jnp.broadcast_to(self.log_std[...], mean.shape))


def nnx_policy():
    graph, params = nnx.split(Actor(linen().params["params"]))

    def as_linen(params):
        actor = nnx.merge(graph, params)
        mean = {"body": {"dense_0": linear(actor.body)}, "head": linear(actor.head)}
        return {"mean": mean, "log_std": actor.log_std[...]}

    return Policy(lambda params, obs: nnx.merge(graph, params)(obs), params, as_linen)


def equinox_policy():
    eqx = pytest.importorskip("equinox")
    weights = linen().params["params"]
    layers = weights["mean"]["body"]["dense_0"], weights["mean"]["head"]
    net = eqx.nn.MLP(2, 2, SIZE, 1, activation=jnp.tanh, key=KEY)
    arrays = [x for layer in layers for x in (layer["kernel"].T, layer["bias"])]
    net = eqx.tree_at(lambda net: [x for layer in net.layers for x in (layer.weight, layer.bias)], net, arrays)
    params, rest = eqx.partition((net, weights["log_std"]), eqx.is_inexact_array)

    def policy(params, obs):
        net, log_std = eqx.combine(params, rest)
        mean = jnp.vectorize(net, signature="(n)->(m)")(obs)
        return rl.DiagonalGaussian(mean, jnp.broadcast_to(log_std, mean.shape))

    def as_linen(params):
        body, head = (linear(layer, "weight", transpose=True) for layer in params[0].layers)
        return {"mean": {"body": {"dense_0": body}, "head": head}, "log_std": params[1]}

    return Policy(policy, params, as_linen)


LIBRARIES = {"linen": linen, "nnx": nnx_policy, "equinox": equinox_policy}
SIZES: dict[str, Any] = {"num_tasks": 2}
TRAININGS = {
    "promp": lambda collect: rl.promp(collect, optax.sgd(0.1), **SIZES),
    "maml-trpo": lambda collect: rl.maml_trpo(collect, optax.sgd(0.1), **SIZES),
    "multi-task-ppo": lambda collect: rl.multi_task_ppo(collect, **SIZES),
}
COLLECTORS = {"linear": {}, "network": {"baseline": rl.ValueNetwork((SIZE,), updates=2), "normalize": True}}


def assert_close(found, expected, rtol=1e-6):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-9), found, expected)


def moved(before, after):
    return min(float(np.abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (before, after)), strict=True))


def trained(policy, name, options):
    """The weights, the state and the metrics after two updates."""
    collect = rl.Collector(env=ENV, policy=policy.apply, episodes=3, **options)
    training = TRAININGS[name](collect)
    state, step, metrics = training.init(policy.params), jax.jit(training.step), {}
    for i in range(2):
        state, metrics = step(state, jax.random.key(i))
    return policy.as_linen(state.meta.params), state.meta.state, metrics


@pytest.mark.parametrize("library", ["nnx", "equinox"])
@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("collector", COLLECTORS)
@pytest.mark.quick("network-promp-nnx")
def test_meta_training_is_that_of_linen(library, name, collector):
    policy, other = linen(), LIBRARIES[library]()
    assert_close(other.as_linen(other.params), policy.as_linen(policy.params))
    found, expected = (trained(p, name, COLLECTORS[collector]) for p in (other, policy))
    assert_close(found, expected, 1e-2 if name == "maml-trpo" else 1e-6)  # conjugate gradients double their rounding
    assert moved(policy.as_linen(policy.params), found[0]) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("library", ["nnx", "equinox"])
def test_learners_of_the_core_train_them(library):
    found = []
    for policy in (linen(), LIBRARIES[library]()):
        collect = rl.Collector(env=ENV, policy=policy.apply, episodes=3)
        learner = jaxmeta.maml(rl.policy_gradient(collect), optax.sgd(0.1))
        options = {"iterations": 2, "num_tasks": 2, "log_every": 2, "validate_every": 2, "progress": False}
        tasks, meta = rl.EnvTasks(ENV), learner.init(policy.params)
        done = jaxmeta.train(learner, optax.adam(1e-3), meta, tasks, KEY, **options)
        found.append(policy.as_linen(done.meta.params))
        assert moved(policy.as_linen(policy.params), found[-1]) > 1e-4
    assert_close(*found)


def test_an_nnx_module_is_its_own_start():
    policy, actor = nnx_policy(), Actor(linen().params["params"])
    training = TRAININGS["promp"](rl.Collector(env=ENV, policy=policy.apply, episodes=2))
    assert_close(training.init(actor), training.init(policy.params))


def test_functions_among_the_weights_are_refused_with_the_way_out():
    eqx = pytest.importorskip("equinox")
    training = TRAININGS["promp"](rl.Collector(env=ENV, policy=linen().apply, episodes=2))
    message = r"params of a policy must be real numbers .* got also \.activation, .*: give the arrays of params, rest ="
    with pytest.raises(ValueError, match=message):
        training.init(eqx.nn.MLP(2, 2, SIZE, 1, key=KEY))


# ------------------------------------------------------------------------------------------------------ with memory

NETWORK = rl.RecurrentPolicy(2, False, rl.GRU(SIZE))


class Recurrent(nnx.Module):
    """`RecurrentPolicy` with `GRU`, in NNX."""

    def __init__(self, weights):
        memory = weights["memory"]
        self.input, self.action, self.value = (given(x) for x in (memory["input"], weights["action"], weights["value"]))
        self.recurrent, self.bias = nnx.Param(memory["recurrent"]), nnx.Param(memory["bias"])
        self.log_std = nnx.Param(weights["log_std"])

    def heads(self, h):
        mean = self.action(h)
        return rl.DiagonalGaussian(mean, jnp.broadcast_to(self.log_std[...], mean.shape)), self.value(h)[..., 0]

    def advance(self, h, obs):
        x, (h_r, h_z, h_n) = jnp.split(self.input(obs), 3, axis=-1), (h @ w for w in self.recurrent[...])
        r, z = jax.nn.sigmoid(x[0] + h_r), jax.nn.sigmoid(x[1] + h_z)
        return (1 - z) * jnp.tanh(x[2] + r * (h_n + jnp.broadcast_to(self.bias[...], h_n.shape))) + z * h

    def __call__(self, obs, memory):
        memory = self.advance(memory, obs)
        return self.heads(memory)[0], memory

    def unroll(self, obs):
        def advance(h, x):
            h = self.advance(h, x)
            return h, h

        return self.heads(jax.lax.scan(advance, jnp.zeros((*obs.shape[1:-1], SIZE)), obs)[1])


class RecurrentOfNNX:
    """What `rl2` needs of a policy: an empty memory, and `apply` with the methods `__call__` and `unroll`."""

    def __init__(self, module):
        self.graph, self.params = nnx.split(module)

    def empty_memory(self, *batch):
        return jnp.zeros((*batch, SIZE))

    def apply(self, params, *inputs, method="__call__"):
        return getattr(nnx.merge(self.graph, params), method)(*inputs)

    def as_linen(self, params):
        net = nnx.merge(self.graph, params)
        memory = {"input": linear(net.input), "recurrent": net.recurrent[...], "bias": net.bias[...]}
        heads = {"action": linear(net.action), "value": linear(net.value), "log_std": net.log_std[...]}
        return {"memory": memory, **heads}


@pytest.mark.slow
def test_rl2_with_a_policy_of_nnx_is_that_of_linen():
    weights = start(NETWORK, rl.example_observations(TRIAL), NETWORK.empty_memory(1))
    other, found = RecurrentOfNNX(Recurrent(weights)), []
    for policy, params, as_linen in (
        (NETWORK, {"params": weights}, lambda params: params["params"]),
        (other, other.params, other.as_linen),
    ):
        training = rl.rl2(TRIAL, policy, num_tasks=4, minibatches=2, normalize=True)
        state, step, metrics = training.init(params), jax.jit(training.step), {}
        for i in range(2):
            state, metrics = step(state, jax.random.key(i))
        curve = jax.jit(rl.trial_curve(TRIAL, policy))(state.meta, ENV.sample_tasks(KEY, 2), KEY)
        found.append((as_linen(state.meta.params), state.meta.state, metrics, curve.sampled, curve.mode))
    assert_close(*found)
    assert moved(weights, found[1][0]) > 1e-4
