"""Models of Linen, NNX, equinox and plain dictionaries: trained, saved, loaded and resumed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import core, nnx
from flax import linen as nn

import jaxmeta
from jaxmeta import Batch, Task

RATE, STEPS, KEY = 0.3, 2, jax.random.key(0)


class Linen(nn.Module):
    """Running statistics and dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.tanh(nn.BatchNorm(use_running_average=not train, momentum=0.8)(nn.Dense(4)(x)))
        return nn.Dense(3)(nn.Dropout(0.3, deterministic=not train)(x))


class NNX(nnx.Module):
    """The same."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.hidden, self.head = nnx.Linear(2, 4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(4, momentum=0.8, rngs=rngs), nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(jnp.tanh(self.norm(self.hidden(x)))))


def linen():
    model = Linen()
    return model, model.init(KEY, jnp.zeros((1, 2)))


def frozen():
    """As older versions of Flax gave them."""
    model, variables = linen()
    return model, core.freeze(variables)


def nnx_module():
    model = NNX()
    return model, model


def equinox():
    """A module with functions among its leaves, and a count."""
    model = eqx.nn.MLP(2, 3, 4, 1, activation=jnp.tanh, key=KEY)
    return (lambda net, x: jax.vmap(net[0])(x)), (model, jnp.int32(7))


def haiku():
    """The dictionary that a transformed function gives."""
    weights = {"linear": {"w": jnp.full((2, 3), 0.1), "b": jnp.zeros(3)}}
    return (lambda params, x: x @ params["linear"]["w"] + params["linear"]["b"][None]), weights


MODELS = {"linen": linen, "frozen": frozen, "nnx": nnx_module, "equinox": equinox, "haiku": haiku}


def draw_task(key):
    x = jax.random.normal(key, (12, 2))
    y = jnp.arange(12) % 3
    x = x + jnp.stack([y, -y], axis=1)
    return Task(Batch(x[:6], y[:6]), Batch(x[6:], y[6:]))


def learners(model):
    return {
        "maml": jaxmeta.maml(jaxmeta.classification(model), optax.sgd(RATE), STEPS),
        "protonet": jaxmeta.protonet(model, ways=3),
    }


def assert_equal(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        a, b = (jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in (a, b))
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maml", "protonet"])
@pytest.mark.parametrize("library", MODELS)
def test_train_resumes_saves_and_loads(library, name, tmp_path):
    """With the numbers of an undisturbed run."""
    model, variables = MODELS[library]()
    learner = learners(model)[name]
    meta = learner.init(variables)

    def train(iterations, folder=None):
        options = {"num_tasks": 2, "log_every": 2, "validate_every": 2, "progress": False}
        validation = {"validation": draw_task, "validation_tasks": 3}
        return jaxmeta.train(
            learner,
            optax.adam(1e-2),
            meta,
            draw_task,
            KEY,
            iterations=iterations,
            folder=folder,
            **options,
            **validation,
        )

    whole = train(4)
    train(2, tmp_path / "run")
    resumed = train(4, tmp_path / "run")
    assert_equal(resumed.state.meta, whole.state.meta)
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(meta.params), jax.tree.leaves(whole.state.meta.params), strict=True)
    ]
    assert all(moved) or name == "protonet"  # whose features may not use a head

    jaxmeta.save(tmp_path / "meta", whole.meta)
    loaded = jaxmeta.load(tmp_path / "meta", meta)
    assert_equal(loaded, whole.meta)
    support = draw_task(KEY).support
    expected = learner.predict(learner.adapt(whole.meta, support, KEY), support.x)
    np.testing.assert_array_equal(learner.predict(learner.adapt(loaded, support, KEY), support.x), expected)


@pytest.mark.slow
def test_equinox_in_maml_is_a_loop_by_hand():
    with jax.enable_x64(True):
        model = eqx.nn.MLP(2, 3, 4, 1, activation=jnp.tanh, key=KEY, dtype=jnp.float64)
        learner = learners(lambda net, x: jax.vmap(net)(x))["maml"]
        task = jax.tree.map(lambda x: x.astype(float) if x.ndim == 2 else x, draw_task(KEY))
        metrics, gradient = jax.jit(learner.grad)(learner.init(model), task, KEY)
        arrays, rest = eqx.partition(model, eqx.is_array)

        def loss(arrays, batch):
            logits = jax.vmap(eqx.combine(arrays, rest))(batch.x)
            return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(6), batch.y])

        def query_loss(arrays):
            for _ in range(STEPS):
                grads = jax.grad(loss)(arrays, task.support)
                arrays = jax.tree.map(lambda p, g: p - RATE * g, arrays, grads)
            return loss(arrays, task.query)

        value, grads = jax.value_and_grad(query_loss)(arrays)
        np.testing.assert_allclose(metrics["loss"], value, rtol=1e-12)
        found, expected = jax.tree.leaves(gradient.params), jax.tree.leaves(grads)
        assert len(found) == len(expected) == 4
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_an_adapted_equinox_module_is_one():
    model, variables = equinox()
    learner = learners(model)["maml"]
    adapted, count = learner.adapt(learner.init(variables), draw_task(KEY).support, KEY)
    assert isinstance(adapted, eqx.nn.MLP)
    assert adapted(jnp.ones(2)).shape == (3,) and int(count) == 7
