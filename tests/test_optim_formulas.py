# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
"""Each learned transformation against a formula of its own, in numpy or by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import jaxmeta
from jaxmeta import Learned, Task, optim, partition

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


class Scale(nn.Module):
    @nn.compact
    def __call__(self, gradient):
        return self.param("scale", nn.initializers.ones, gradient.shape) * gradient


def run(optimizer, grads):
    """The updates for given gradients."""
    state, updates = optimizer.init(grads[0]), []
    for g in grads:
        update, state = optimizer.update(g, state, g)
        updates.append(update)
    return updates, state


def with_learned(transform, params, value):
    """A state of the transformation with another value in its first field."""
    return transform.init(params)._replace(**{transform.init(params)._fields[0]: Learned(value)})


def test_kronecker_is_the_explicit_kronecker_product():
    transform = optim.scale_by_kronecker()
    left, right, grad = (RNG.normal(size=shape) for shape in ((3, 3), (2, 2), (3, 2)))
    factors = [optim.Factors(jnp.asarray(left), jnp.asarray(right))]
    update, _ = transform.update(jnp.asarray(grad), with_learned(transform, jnp.asarray(grad), factors))
    np.testing.assert_allclose(update.reshape(-1), np.kron(left, right) @ grad.reshape(-1), rtol=1e-4, atol=1e-6)
    kernel = RNG.normal(size=(3, 1, 2, 4))
    update, _ = transform.update(jnp.asarray(kernel), with_learned(transform, jnp.asarray(kernel), factors))
    for out in range(4):
        expected = np.kron(left, right) @ kernel[..., out].reshape(-1)
        np.testing.assert_allclose(update[..., out].reshape(-1), expected, rtol=1e-4, atol=1e-6)


def test_deep_kronecker_is_a_residual_network():
    transform = optim.scale_by_kronecker(2, jax.nn.relu, max_size=2)
    grad, l1, r1, l2, r2 = (RNG.normal(size=shape) for shape in ((3, 2), (3,), (2, 2), (3,), (2, 2)))
    state = transform.init(jnp.asarray(grad))
    assert [f.left.shape for f in state.layers.value] == [(3,), (3,)]
    factors = [optim.Factors(jnp.asarray(l1), jnp.asarray(r1)), optim.Factors(jnp.asarray(l2), jnp.asarray(r2))]
    update, _ = transform.update(jnp.asarray(grad), state._replace(layers=Learned(factors)))
    hidden = np.diag(l1) @ grad @ r1.T
    expected = hidden + np.diag(l2) @ np.maximum(hidden, 0) @ r2.T
    np.testing.assert_allclose(update, expected, rtol=1e-4, atol=1e-6)


def test_curvature_is_three_mode_products():
    transform = optim.scale_by_curvature()
    grad, m_f, m_i, m_o = (RNG.normal(size=shape) for shape in ((2, 3, 4, 2), (6, 6), (4, 4), (2, 2)))
    value = optim.Curvature(jnp.asarray(m_o), jnp.asarray(m_i), jnp.asarray(m_f))
    update, _ = transform.update(jnp.asarray(grad), with_learned(transform, jnp.asarray(grad), value))
    expected = np.einsum("fg,ij,op,gjp->fio", m_f, m_i, m_o, grad.reshape(6, 4, 2)).reshape(grad.shape)
    np.testing.assert_allclose(update, expected, rtol=1e-4, atol=1e-5)
    dense = grad[0, 0]
    value = value._replace(m_f=None)
    update, _ = transform.update(jnp.asarray(dense), with_learned(transform, jnp.asarray(dense), value))
    np.testing.assert_allclose(update, m_i @ dense @ m_o.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [optim.scale_by_kronecker, optim.scale_by_curvature])
def test_factors_above_the_limit_are_diagonal(make):
    shapes = [{x.shape for x in jax.tree.leaves(make(max_size=limit).init(jnp.ones((7, 3))))} for limit in (6, 7, None)]
    assert shapes == [{(7,), (3, 3)}, {(7, 7), (3, 3)}, {(7, 7), (3, 3)}]
    assert {x.shape for x in jax.tree.leaves(make().init(jnp.ones((784, 3))))} == {(784,), (3, 3)}


def test_rates_per_step_by_hand():
    """On the loss (w - a)^2 / 2 a step of rate r multiplies w - a by 1 - r; the third step uses the last rate again."""
    a, b, w, (r0, r1) = 2.0, -1.0, 0.5, (0.1, 0.3)

    def loss_fn(w, target, key):
        return 0.5 * (w - target) ** 2, {}

    inner = optim.scale_by_learned_rate(0.2, per="tensor", steps=2)
    learner = jaxmeta.maml(loss_fn, inner, steps=3)
    meta = learner.init(jnp.array(w))
    meta = meta._replace(learned=jax.tree.map(lambda _: jnp.array([r0, r1]), meta.learned))
    metrics, grads = learner.grad(meta, Task(jnp.array(a), jnp.array(b)), KEY)
    distance = a + (1 - r0) * (1 - r1) ** 2 * (w - a) - b
    np.testing.assert_allclose(metrics["loss"], 0.5 * distance**2, rtol=1e-5)
    (rate_grad,) = jax.tree.leaves(grads.learned)
    expected = [-((1 - r1) ** 2) * (w - a) * distance, -2 * (1 - r0) * (1 - r1) * (w - a) * distance]
    np.testing.assert_allclose(rate_grad, expected, rtol=1e-5)
    np.testing.assert_allclose(grads.params, (1 - r0) * (1 - r1) ** 2 * distance, rtol=1e-5)


GRADS = [{"a": RNG.normal(size=3), "b": RNG.normal(size=2)} for _ in range(4)]


@pytest.mark.parametrize("per", ["global", "tensor"])
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_hypergradient_descent_by_hand(per, decay):
    rate, hyper_rate = 0.1, 0.05
    optimizer = optim.hypergradient_descent(rate, hyper_rate, per=per, direction=optax.trace(decay))
    updates, _ = run(optimizer, [jax.tree.map(jnp.asarray, g) for g in GRADS])
    names = GRADS[0].keys()
    rates, previous = dict.fromkeys(names, rate), {name: np.zeros_like(GRADS[0][name]) for name in names}
    for g, update in zip(GRADS, updates, strict=True):
        rise = {name: g[name] @ previous[name] for name in names}
        rates = {name: rates[name] + hyper_rate * (rise[name] if per == "tensor" else sum(rise.values())) for name in g}
        previous = {name: g[name] + decay * previous[name] for name in names}
        for name in names:
            np.testing.assert_allclose(update[name], -rates[name] * previous[name], rtol=1e-4, atol=1e-6)


def test_adaptive_rate_is_hypergradient_descent():
    grads = [jax.tree.map(jnp.asarray, g) for g in GRADS]
    for make, per in ((partial(optim.scale_by_learned_rate, per="tensor"), "tensor"), (learned_sgd, "global")):
        ours, _ = run(optim.adaptive(make(0.1), optax.sgd(0.05)), grads)
        theirs, _ = run(optim.hypergradient_descent(0.1, 0.05, per=per), grads)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, theirs)


def learned_sgd(rate):
    return optim.learn(optax.sgd, learning_rate=rate)


def test_adaptive_hypergradient_by_hand():
    """Updates -r * s * g have the derivative -r * g_t * g_{t+1} with respect to s; Adam counts from the second one."""
    rate, hyper = 0.1, optax.adam(0.01)
    scale = optim.scale_by_module(lambda shape: Scale(), KEY)
    updates, state = run(
        optim.adaptive(optax.chain(scale, optax.sgd(rate)), hyper), [jnp.asarray(g["a"]) for g in GRADS]
    )
    scales, hyper_state = jnp.ones(3), hyper.init(jnp.ones(3))
    for t, update in enumerate(updates):
        if t > 0:
            hypergradient = jnp.asarray(-rate * GRADS[t - 1]["a"] * GRADS[t]["a"])
            step, hyper_state = hyper.update(hypergradient, hyper_state)
            scales = scales + step
        np.testing.assert_allclose(update, -rate * scales * GRADS[t]["a"], rtol=1e-4)
    np.testing.assert_allclose(jax.tree.leaves(partition(state)[0])[0], scales, rtol=1e-5)


def test_adaptive_differentiates_the_update_that_was_made():
    """With rates per step, the second gradient changes the first step's rate, and the third one the second step's."""
    g0, g1, g2 = grads = [jnp.asarray(g["a"]) for g in GRADS[:3]]
    rates = optim.scale_by_learned_rate(0.1, per="tensor", steps=2)
    updates, state = run(optim.adaptive(rates, optax.sgd(0.05)), grads)
    first, second = 0.1 + 0.05 * g0 @ g1, 0.1 + 0.05 * g1 @ g2
    np.testing.assert_allclose(updates, jnp.stack([-0.1 * g0, -0.1 * g1, -second * g2]), rtol=1e-4)
    np.testing.assert_allclose(state.transform.rate.value, [first, second], rtol=1e-4)


@pytest.mark.parametrize(
    "optimizer",
    [
        optim.hypergradient_descent(1e-3, 1e-3),
        optim.hypergradient_descent(1e-3, 1e-4, per="tensor", direction=optax.trace(0.9)),
        optim.adaptive(optim.scale_by_learned_rate(1e-3), optax.sgd(1e-3)),
        optim.adaptive(
            optax.chain(optax.scale_by_adam(), optim.scale_by_curvature(), optax.sgd(1e-3)), optax.adam(0.1)
        ),
    ],
    ids=["global", "momentum", "adaptive-rate", "adaptive-adam"],
)
def test_adapts_in_plain_training(optimizer):
    """From a rate that is far too small: with it alone, 1 - 0.001 to the power 400 = 0.67 of the loss is left."""
    start = {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}

    def step(carry, _):
        params, state = carry
        loss, grads = jax.value_and_grad(lambda p: 0.5 * sum(jnp.sum((x - 1) ** 2) for x in jax.tree.leaves(p)))(params)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    losses = jax.jit(lambda: jax.lax.scan(step, (start, optimizer.init(start)), length=200))()[1]
    assert losses[-1] < 0.05 * losses[0]
    donating = jax.jit(lambda carry: step(carry, None)[0], donate_argnums=0)
    jax.block_until_ready(donating(donating((start, optimizer.init(start)))))


def test_learn_runs_the_factory_with_the_current_values():
    grads = [jax.tree.map(jnp.asarray, g) for g in GRADS]
    inner = optim.learn(partial(optax.sgd, nesterov=True), positive="momentum", learning_rate=0.3, momentum=0.8)
    ours, state = run(inner, grads)
    theirs, _ = run(optax.sgd(0.3, 0.8, nesterov=True), grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, theirs)
    np.testing.assert_allclose(state.hyperparams.value["momentum"], np.log(0.8), rtol=1e-6)


def test_modules_depend_on_the_key_only():
    transform = optim.scale_by_module(lambda shape: nn.Dense(shape[-1]), KEY)
    first, second = (transform.init({"a": jnp.ones(2), "b": value}) for value in (jnp.ones(2), jnp.zeros(2)))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    kernels = [first.variables.value[name]["params"]["kernel"] for name in ("a", "b")]
    assert not np.allclose(*kernels)
