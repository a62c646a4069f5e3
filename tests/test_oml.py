# pyright: reportArgumentType=false
"""OML against a loop written in numpy, and what makes it online: order, one look at each example, a frozen body."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import Batch, Task, data, models, optim

WAYS, RATE = 4, 0.3
MODEL = models.MLP(sizes=(6,), out=WAYS, activation=jnp.tanh)
FEATURES = partial(MODEL.apply, method="features")
HEAD_LOSS = jaxmeta.classification(partial(MODEL.apply, method=lambda module, features: module.head(features)))
KEY = jax.random.key(0)


@cache
def initial_params():
    return jax.jit(MODEL.init)(KEY, jnp.zeros((1, 3)))


def stream(seed, n=12):
    """Examples in the order of their classes."""
    x = jax.random.normal(jax.random.key(seed), (n, 3))
    return Batch(x, jnp.sort(jnp.arange(n) % WAYS))


def online_softmax_regression(params, stream):
    """One SGD step per example on the head, in numpy."""
    kernel, bias = (np.array(params["params"]["head"][name], np.float64) for name in ("kernel", "bias"))
    for x, label in zip(np.asarray(FEATURES(params, stream.x), np.float64), stream.y, strict=True):
        logits = x @ kernel + bias
        error = np.exp(logits - logits.max())
        error /= error.sum()
        error[label] -= 1
        kernel -= RATE * np.outer(x, error)
        bias -= RATE * error
    return kernel, bias


def test_adapt_equals_a_loop_over_the_examples():
    learner = jaxmeta.oml(FEATURES, HEAD_LOSS, optax.sgd(RATE))
    adapted = learner.adapt(learner.init(initial_params()), stream(1), KEY)["params"]
    kernel, bias = online_softmax_regression(initial_params(), stream(1))
    np.testing.assert_allclose(adapted["head"]["kernel"], kernel, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(adapted["head"]["bias"], bias, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(
        adapted["body"]["dense_0"]["kernel"], initial_params()["params"]["body"]["dense_0"]["kernel"]
    )


@pytest.mark.slow
def test_the_order_of_the_stream_matters_and_a_stream_of_one_is_anil():
    learner = jaxmeta.oml(FEATURES, HEAD_LOSS, optax.sgd(RATE))
    meta = learner.init(initial_params())
    ordered, one = stream(1), stream(1, n=1)
    reverse = jax.tree.map(lambda leaf: leaf[::-1], ordered)
    kernels = [learner.adapt(meta, s, KEY)["params"]["head"]["kernel"] for s in (ordered, reverse)]
    assert float(jnp.abs(kernels[0] - kernels[1]).max()) > 0.01
    anil = jaxmeta.anil(jaxmeta.classification(MODEL.apply), optax.sgd(RATE))
    for ours, theirs in zip(
        jax.tree.leaves(learner.adapt(meta, one, KEY)), jax.tree.leaves(anil.adapt(meta, one, KEY)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_exact_meta_gradients_agree_and_reach_the_body():
    task = Task(stream(1), stream(2, n=8))

    def body_gradient(meta_gradient):
        learner = jaxmeta.oml(FEATURES, HEAD_LOSS, optax.sgd(RATE), meta_gradient=meta_gradient)
        _, grads = jax.jit(learner.grad)(learner.init(initial_params()), task, KEY)
        return grads.params["params"]["body"]["dense_0"]["kernel"]

    exact = body_gradient(None)
    for same in (jaxmeta.mixed(), jaxmeta.reverse(remat=5), jaxmeta.truncated(12)):
        np.testing.assert_allclose(body_gradient(same), exact, rtol=1e-4, atol=1e-6)
    assert float(jnp.abs(body_gradient(jaxmeta.truncated(3)) - exact).max()) > 1e-3


def test_reset_gives_every_stream_a_head_of_its_own():
    def reset(params, key):
        kernel = jax.random.normal(key, (6, WAYS))
        return {"params": {**params["params"], "head": {"kernel": kernel, "bias": jnp.zeros(WAYS)}}}

    learner = jaxmeta.oml(FEATURES, HEAD_LOSS, optax.sgd(0.0), reset=reset)
    meta = learner.init(initial_params())
    first, again, other = (learner.adapt(meta, stream(1), jax.random.key(seed))["params"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first["head"]["kernel"], again["head"]["kernel"])
    assert float(jnp.abs(first["head"]["kernel"] - other["head"]["kernel"]).max()) > 0.1
    assert float(jnp.abs(first["head"]["kernel"] - initial_params()["params"]["head"]["kernel"]).max()) > 0.1
    learner = jaxmeta.oml(FEATURES, HEAD_LOSS, optax.sgd(RATE), reset=reset)
    _, grads = jax.jit(learner.grad)(meta, Task(stream(1), stream(2)), KEY)
    assert not jnp.any(grads.params["params"]["head"]["kernel"]), "the head that was replaced has no gradient"
    assert jnp.any(grads.params["params"]["body"]["dense_0"]["kernel"])


def test_the_stream_is_represented_once():
    """Not once per step: the body is most of the work."""
    shapes = []

    def features(params, x):
        shapes.append(x.shape)
        return FEATURES(params, x)

    learner = jaxmeta.oml(features, HEAD_LOSS, optax.sgd(RATE))
    jax.jit(learner.grad).trace(learner.init(initial_params()), Task(stream(1), stream(2, n=8)), KEY)
    assert shapes == [(12, 3), (8, 3)]


def test_learned_values_of_the_inner_optimizer_are_for_the_head_only():
    learner = jaxmeta.oml(FEATURES, HEAD_LOSS, optim.scale_by_learned_rate(RATE))
    meta = learner.init(initial_params())
    assert sorted(leaf.shape for leaf in jax.tree.leaves(meta.learned)) == [(WAYS,), (6, WAYS)]
    _, grads = jax.jit(learner.grad)(meta, Task(stream(1), stream(2)), KEY)
    assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(grads))


@pytest.mark.slow
def test_meta_training_makes_a_head_forget_less():
    """After a stream of four classes, on the drawings of the first that the stream showed: the learned body against a
    random one, each at the better of two rates."""
    model = models.OmniglotFC(ways=WAYS, sizes=(32, 32), norm="none", kernel_init=jax.nn.initializers.he_normal())
    tasks, test = (data.Glyphs(ways=WAYS, shots=5, queries=5, size=12, split=split) for split in ("train", "test"))
    features = partial(model.apply, method="features")
    head_loss = jaxmeta.classification(partial(model.apply, method=lambda module, features: module.head(features)))
    learner = jaxmeta.oml(features, head_loss, optax.sgd(0.1))
    meta = learner.init(jax.jit(model.init)(KEY, tasks.example))
    training = jaxmeta.meta_step(learner, optax.adam(3e-3), num_tasks=8, batch_size=8)
    step, state = jax.jit(training.step), training.init(meta)
    for key in jax.random.split(KEY, 60):
        state, _ = step(state, key, tasks)

    def oldest(meta, key):
        task = test(key)
        adapted = learner.adapt(meta, task.support, key)
        return learner.loss(adapted, jax.tree.map(lambda leaf: leaf[:5], task.support), key)[1]["accuracy"]

    before, after = (
        float(jax.jit(jax.vmap(oldest, (None, 0)))(m, jax.random.split(jax.random.key(1), 64)).mean())
        for m in (meta, state.meta)
    )
    assert after > before + 0.2, f"accuracy on the oldest class: {before} before, {after} after meta-training"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: jaxmeta.oml(FEATURES, HEAD_LOSS, 0.1), TypeError, "inner must be an optax.GradientTransformation"),
        (
            lambda: jaxmeta.oml(FEATURES, HEAD_LOSS, optax.sgd(0.1), head="top").init(initial_params()),
            ValueError,
            "head must name a part of the parameters, got 'top'",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
