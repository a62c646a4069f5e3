# pyright: reportArgumentType=false
"""One table of learners; every row passes `check_learner`, and each has closed forms of its own below."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import jaxmeta
from jaxmeta import Batch, MetaParams, Task, data, models, optim
from jaxmeta.testing import check_learner, check_meta_gradient

MLP = models.MLP(sizes=(8,), activation=nn.tanh)
WARPED, WITH_LOSS = MLP.clone(warp=True), models.WithLoss(MLP, models.LossMLP((6,)))
MSE = jaxmeta.regression(MLP.apply)
FEATURES = partial(MLP.apply, method="features")
HEAD_MSE = jaxmeta.regression(partial(MLP.apply, method=lambda module, features: module.head(features)))
SINUSOID = data.Sinusoid(shots=5, queries=5)
LEARNED_CHAIN = optax.chain(optax.clip_by_global_norm(1.0), optim.scale_by_learned_rate(0.02), optax.trace(0.5))


def context_mlp(params, x):
    """The network with the context beside each input."""
    context = jnp.broadcast_to(params.context, (x.shape[0], params.context.shape[0]))
    return MLP.apply(params.params, jnp.concatenate([x, context], axis=1))


def learned_loss(params, batch, key):
    """The learned loss, added to that of the task, because alone it takes long to learn."""
    losses = WITH_LOSS.apply(params, batch.x, batch.y, method="losses")
    return jnp.mean(losses + (WITH_LOSS.apply(params, batch.x) - batch.y)[:, 0] ** 2), {}


# name: (learner, whether its meta-gradient is the derivative of the loss that it reports)
LEARNERS = {
    "maml": (jaxmeta.maml(MSE, optax.sgd(0.02), steps=3, test_steps=5), True),
    "maml-adam": (jaxmeta.maml(MSE, optax.adam(0.01, eps_root=1e-8), steps=2), True),
    "maml-learned-chain": (jaxmeta.maml(MSE, LEARNED_CHAIN, steps=3, meta_gradient=jaxmeta.mixed()), True),
    "fomaml": (jaxmeta.fomaml(MSE, optax.sgd(0.02), steps=2), False),
    "anil": (jaxmeta.anil(MSE, optax.sgd(0.02), steps=2), True),
    "meta-sgd": (jaxmeta.meta_sgd(MSE, 0.02, steps=2), True),
    "reptile": (jaxmeta.reptile(MSE, optax.sgd(0.02), steps=4, batch_size=2), False),
    "meta-curvature": (jaxmeta.meta_curvature(MSE, 0.02, steps=2), True),
    "meta-kfo": (jaxmeta.meta_kfo(MSE, 0.02, steps=2, layers=2), True),
    "maml++": (jaxmeta.maml_plus_plus(MSE, 0.02, steps=3, step_weights=[0.2, 0.0, 0.8], test_steps=5), True),
    "tnet": (jaxmeta.tnet(jaxmeta.regression(WARPED.apply), optax.sgd(0.02), steps=2), True),
    "boil": (jaxmeta.boil(MSE, optax.sgd(0.02), steps=2), True),
    "imaml": (jaxmeta.imaml(MSE, optax.sgd(0.02), steps=8), False),
    "es-maml": (jaxmeta.maml(MSE, optax.sgd(0.02), meta_gradient=jaxmeta.evolution(8)), False),
    "oml": (jaxmeta.oml(FEATURES, HEAD_MSE, optax.sgd(0.02)), True),
    "oml-learned": (jaxmeta.oml(FEATURES, HEAD_MSE, LEARNED_CHAIN, meta_gradient=jaxmeta.mixed()), True),
    "ml3": (jaxmeta.ml3(learned_loss, jaxmeta.regression(WITH_LOSS.apply), optax.sgd(0.02), steps=2), True),
    "cavia": (
        jaxmeta.cavia(
            jaxmeta.regression(context_mlp), LEARNED_CHAIN, 2, steps=2, test_steps=4, meta_gradient=jaxmeta.mixed()
        ),
        True,
    ),
}


@cache
def parameters(model, inputs):
    return jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, inputs)))


def initial_params(name):
    return parameters({"tnet": WARPED, "ml3": WITH_LOSS}.get(name, MLP), 3 if name.startswith("cavia") else 1)


@pytest.fixture(scope="module")
def task():
    return jax.jit(SINUSOID)(jax.random.key(1))


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.quick("cavia")
def test_learner(name):
    check_learner(LEARNERS[name][0], initial_params(name), SINUSOID)


@pytest.mark.parametrize("name", [name for name, (_, exact) in LEARNERS.items() if exact])
@pytest.mark.quick("maml-learned-chain", "maml++", "cavia", "ml3")
def test_meta_gradient_equals_finite_differences(name, task):
    check_meta_gradient(LEARNERS[name][0], initial_params(name), task)


@pytest.fixture(scope="module")
def images():
    """A small network with batch norm, its parameters, and a task of images."""
    model = models.OmniglotCNN(ways=3, hidden=4, layers=2)
    sampler = data.Glyphs(ways=3, shots=2, queries=2, size=12)
    return model, jax.jit(model.init)(jax.random.key(0), sampler.example), jax.jit(sampler)(jax.random.key(1))


@pytest.mark.parametrize("meta_gradient", [jaxmeta.reverse(), jaxmeta.mixed()], ids=["reverse", "mixed"])
@pytest.mark.quick("mixed")
def test_meta_gradient_through_batch_norm_equals_finite_differences(meta_gradient, images):
    """A plain `torch.func.grad` of a `vmap` is 11 % off here, silently."""
    model, params, task = images
    learner = jaxmeta.maml(jaxmeta.classification(model.apply), optax.sgd(0.4), steps=3, meta_gradient=meta_gradient)
    check_meta_gradient(learner, params, task)


# Closed forms on a quadratic: support loss (w - a)^2 / 2, query loss (w - b)^2 / 2, SGD of rate r.
A, B, R, W = 2.0, -1.0, 0.3, 0.5
QUADRATIC_TASK = Task(jnp.array(A), jnp.array(B))


def quadratic(w, target, key):
    return 0.5 * (w - target) ** 2, {"distance": jnp.abs(w - target)}


def quadratic_after(steps, w=W):
    return A + (1 - R) ** steps * (w - A)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize(
    ("make", "derivative"),
    [
        (jaxmeta.maml, lambda k: (1 - R) ** k),
        (lambda *args: jaxmeta.maml(*args, meta_gradient=jaxmeta.mixed()), lambda k: (1 - R) ** k),
        (jaxmeta.fomaml, lambda k: 1.0),
    ],
    ids=["maml", "maml-mixed", "fomaml"],
)
def test_quadratic_meta_gradient(make, derivative, steps):
    learner = make(quadratic, optax.sgd(R), steps)
    metrics, grads = learner.grad(learner.init(jnp.array(W)), QUADRATIC_TASK, jax.random.key(0))
    adapted = quadratic_after(steps)
    np.testing.assert_allclose(metrics["loss"], 0.5 * (adapted - B) ** 2, rtol=1e-6)
    np.testing.assert_allclose(metrics["distance"], abs(adapted - B), rtol=1e-6)
    np.testing.assert_allclose(grads.params, derivative(steps) * (adapted - B), rtol=1e-5)


def test_reptile_on_a_quadratic():
    learner = jaxmeta.reptile(quadratic_examples, optax.sgd(R), steps=3)
    task = Task(jnp.full((4,), A), jnp.full((4,), B))
    _, grads = learner.grad(learner.init(jnp.array(W)), task, jax.random.key(0))
    np.testing.assert_allclose(grads.params, W - quadratic_after(3), rtol=1e-6)


def quadratic_examples(w, targets, key):
    return jnp.mean(0.5 * (w - targets) ** 2), {}


def test_reptile_passes_over_the_support_set():
    """Twice as many minibatch steps as there are minibatches use every example twice."""
    seen = []

    def loss_fn(w, batch, key):
        jax.debug.callback(lambda x: seen.extend(x.tolist()), batch)
        return jnp.sum(w * 0.0), {}

    learner = jaxmeta.reptile(loss_fn, optax.sgd(1.0), steps=4, batch_size=3)
    learner.adapt(MetaParams(jnp.array(0.0)), jnp.arange(6), jax.random.key(0))
    jax.effects_barrier()
    assert sorted(seen) == sorted([*range(6), *range(6)])


def test_meta_sgd_gradient_of_the_rates():
    """One step w - r * (w - a): the derivative of the query loss with respect to r is -(w - a) * (adapted - b)."""
    learner = jaxmeta.meta_sgd(quadratic, R)
    _, grads = learner.grad(learner.init(jnp.array(W)), QUADRATIC_TASK, jax.random.key(0))
    (rate_grad,) = jax.tree.leaves(grads.learned)
    np.testing.assert_allclose(rate_grad, -(W - A) * (quadratic_after(1) - B), rtol=1e-5)


def test_first_order_keeps_the_gradient_of_learned_rates():
    inner = optim.scale_by_learned_rate(R)
    learner = jaxmeta.maml(quadratic, inner, meta_gradient=jaxmeta.first_order())
    _, grads = learner.grad(learner.init(jnp.array(W)), QUADRATIC_TASK, jax.random.key(0))
    (rate_grad,) = jax.tree.leaves(grads.learned)
    np.testing.assert_allclose(rate_grad, -(W - A) * (quadratic_after(1) - B), rtol=1e-5)
    np.testing.assert_allclose(grads.params, quadratic_after(1) - B, rtol=1e-5)


def test_test_steps_apply_to_adapt_and_not_to_grad():
    learner = jaxmeta.maml(quadratic, optax.sgd(R), steps=1, test_steps=5)
    meta = learner.init(jnp.array(W))
    np.testing.assert_allclose(learner.adapt(meta, A, jax.random.key(0)), quadratic_after(5), rtol=1e-6)
    metrics, _ = learner.grad(meta, QUADRATIC_TASK, jax.random.key(0))
    np.testing.assert_allclose(metrics["loss"], 0.5 * (quadratic_after(1) - B) ** 2, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(
    "meta_gradient", [jaxmeta.reverse(), jaxmeta.mixed(), jaxmeta.truncated(1), jaxmeta.implicit()], ids=range(4)
)
@pytest.mark.parametrize("make", [jaxmeta.maml, jaxmeta.anil])
def test_labels_that_the_model_has_not_raise_in_an_eager_call(make, meta_gradient, steps):
    loss_fn = jaxmeta.classification(lambda p, x: x @ p["body"] @ p["head"])
    learner = make(loss_fn, optax.sgd(0.1), steps, meta_gradient=meta_gradient)
    meta = learner.init({"body": jnp.eye(2), "head": jnp.eye(2)})
    with pytest.raises(ValueError, match=r"labels must be integers from 0 to 1, got \[-1, 5\]"):
        learner.adapt(meta, Batch(jnp.ones((3, 2)), jnp.array([0, 5, -1])), jax.random.key(0))


STREAMED = {
    "reptile": lambda loss: jaxmeta.reptile(loss, optax.sgd(0.1), 2, batch_size=2),
    "oml": lambda loss: jaxmeta.oml(lambda p, x: x @ p["body"], loss, optax.sgd(0.1)),
}


@pytest.mark.parametrize("name", STREAMED)
def test_labels_are_checked_where_steps_see_parts_of_the_support_set(name):
    uses_body = name == "reptile"
    loss_fn = jaxmeta.classification(lambda p, x: (x @ p["body"] if uses_body else x) @ p["head"])
    learner, good = STREAMED[name](loss_fn), Batch(jnp.ones((3, 2)), jnp.array([0, 1, 1]))
    meta = learner.init({"body": jnp.eye(2), "head": jnp.eye(2)})
    bad = good._replace(y=jnp.array([0, 2, 1]))
    key = jax.random.key(0)
    calls = [lambda batch: learner.adapt(meta, batch, key), lambda batch: learner.grad(meta, Task(batch, good), key)]
    for call in calls:
        call(good)
        with pytest.raises(ValueError, match=r"labels must be integers from 0 to 1, got \[2\]"):
            call(bad)
    other = jaxmeta.meta_sgd(loss_fn).init({"body": jnp.eye(2), "head": jnp.eye(2)})
    with pytest.raises(ValueError, match="learned must fit the inner optimizer"):
        learner.adapt(other, good, jax.random.key(0))


def test_anil_adapts_the_head_only(task):
    learner = jaxmeta.anil(MSE, optax.sgd(0.1), steps=3)
    meta = learner.init(parameters(MLP, 1))
    adapted = jax.jit(learner.adapt)(meta, task.support, jax.random.key(0))["params"]
    before = meta.params["params"]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), adapted["body"], before["body"]))
    assert not jnp.allclose(adapted["head"]["kernel"], before["head"]["kernel"])
    _, grads = jax.jit(learner.grad)(meta, task, jax.random.key(0))
    assert all(bool(jnp.any(g != 0)) for g in jax.tree.leaves(grads.params)), "the body is meta-learned"


def test_boil_adapts_the_body_only(task):
    learner = jaxmeta.boil(MSE, optax.sgd(0.1), steps=3)
    meta = learner.init(parameters(MLP, 1))
    adapted = jax.jit(learner.adapt)(meta, task.support, jax.random.key(0))["params"]
    before = meta.params["params"]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), adapted["head"], before["head"]))
    assert not jnp.allclose(adapted["body"]["dense_0"]["kernel"], before["body"]["dense_0"]["kernel"])


def test_cavia_adapts_the_context_only_and_starts_at_zero():
    """Prediction p + c and target a: one step of rate r on (p + c - a)^2 from c = 0 gives c = -2 r (p - a)."""
    loss_fn = jaxmeta.regression(lambda p, x: p.params + p.context + 0 * x)
    learner = jaxmeta.cavia(loss_fn, optax.sgd(0.1), context_size=1)
    batch = Batch(jnp.zeros((1,)), jnp.array([A]))
    meta = learner.init(jnp.array([W]))
    adapted = learner.adapt(meta, batch, jax.random.key(0))
    assert adapted.params == meta.params
    np.testing.assert_allclose(adapted.context, -2 * 0.1 * (W - A), rtol=1e-6)
    _, grads = learner.grad(meta, Task(batch, batch), jax.random.key(0))
    # The adapted error is (p - a)(1 - 2 r).
    np.testing.assert_allclose(grads.params, 2 * (1 - 0.2) ** 2 * (W - A), rtol=1e-6)


@pytest.mark.parametrize("meta_gradient", [jaxmeta.reverse(), jaxmeta.mixed()], ids=["reverse", "mixed"])
def test_derivative_with_respect_to_what_the_inner_loss_closes_over(meta_gradient):
    """An L2 strength that enters only the inner loss: w - r * ((w - a) + s * w), differentiated with respect to s."""

    def objective(strength):
        def loss_fn(w, target, key):
            return quadratic(w, target, key)[0] + 0.5 * strength * w**2, {}

        w = jaxmeta.adapt(
            loss_fn, optax.sgd(R), jnp.array(W), A, jax.random.key(0), steps=1, meta_gradient=meta_gradient
        )
        return quadratic(w, B, None)[0]

    strength = 0.7
    adapted = W - R * ((W - A) + strength * W)
    np.testing.assert_allclose(jax.grad(objective)(strength), -R * W * (adapted - B), rtol=1e-5)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(1, 8, rngs=rngs)
        self.out = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x)))


def test_nnx_and_plain_dicts_give_what_linen_gives(task):
    linen_params = parameters(MLP, 1)
    body, head = linen_params["params"]["body"]["dense_0"], linen_params["params"]["head"]

    graph, state = nnx.split(Net(nnx.Rngs(0)))
    nnx.replace_by_pure_dict(
        state,
        {
            "hidden": {"kernel": body["kernel"], "bias": body["bias"]},
            "out": {"kernel": head["kernel"], "bias": head["bias"]},
        },
    )
    plain = {"w": body["kernel"], "b": body["bias"], "v": head["kernel"], "c": head["bias"]}
    cases = [
        (MLP.apply, linen_params),
        (lambda state, x: nnx.merge(graph, state)(x), state),
        (lambda p, x: jnp.tanh(x @ p["w"] + p["b"][None]) @ p["v"] + p["c"][None], plain),
    ]
    norms = []
    for apply, params in cases:
        learner = jaxmeta.maml(jaxmeta.regression(apply), optax.sgd(0.02), 2, meta_gradient=jaxmeta.mixed())
        _, grads = jax.jit(learner.grad)(learner.init(params), task, jax.random.key(0))
        norms.append(float(optax.tree.norm(grads.params)))
    np.testing.assert_allclose(norms, norms[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: jaxmeta.maml(MSE, 0.1), TypeError, "inner must be an optax.GradientTransformation"),
        (lambda: jaxmeta.maml(MSE, optax.sgd(0.1), 1.5), ValueError, "steps must be an integer of at least 0, got 1.5"),
        (lambda: jaxmeta.maml(MSE, optax.sgd(0.1), test_steps=-1), ValueError, "test_steps must be an integer"),
        (lambda: jaxmeta.reptile(MSE, optax.sgd(0.1), batch_size=0), ValueError, "batch_size must be an integer"),
        (
            lambda: jaxmeta.reptile(MSE, optim.scale_by_learned_rate(0.1)).init(jnp.ones(2)),
            ValueError,
            "inner must have no jaxmeta.Learned values",
        ),
        (
            lambda: jaxmeta.anil(MSE, optax.sgd(0.1), head="top").init({"body": jnp.ones(1), "head": jnp.ones(1)}),
            ValueError,
            "head must name a part of the parameters, got 'top'",
        ),
        (
            lambda: jaxmeta.regression(lambda p, x: x)(None, Batch(jnp.ones((3, 2)), jnp.ones((3, 1))), None),
            ValueError,
            r"model must return the targets' shape \(3, 1\), got f32\[3,2\]",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
