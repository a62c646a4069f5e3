# pyright: reportArgumentType=false
"""Every `meta_gradient` against the exact one, or against its stated bias."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.flatten_util import ravel_pytree

import jaxmeta
from jaxmeta import Task, data, models, optim

MLP = models.MLP(sizes=(8,), activation=nn.tanh)
MSE = jaxmeta.regression(MLP.apply)
SINUSOID = data.Sinusoid(shots=5, queries=5)
STEPS = 5
KEY = jax.random.key(0)

# A quadratic task: support loss (w - a)^2 / 2, query loss (w - b)^2 / 2, SGD of rate r from w.
A, B, R, W = 2.0, -1.0, 0.3, 0.5


def quadratic(w, target, key):
    return 0.5 * (w - target) ** 2, {}


def quadratic_grad(meta_gradient, steps=STEPS, key=KEY):
    learner = jaxmeta.maml(quadratic, optax.sgd(R), steps, meta_gradient=meta_gradient)
    metrics, grads = learner.grad(learner.init(jnp.array(W)), Task(jnp.array(A), jnp.array(B)), key)
    return metrics["loss"], grads.params


@cache
def network_and_task():
    return jax.jit(MLP.init)(KEY, SINUSOID.example), jax.jit(SINUSOID)(KEY)


def network_grad(meta_gradient):
    inner = optax.chain(optax.clip_by_global_norm(1.0), optim.scale_by_learned_rate(0.05), optax.trace(0.5))
    learner = jaxmeta.maml(MSE, inner, STEPS, meta_gradient=meta_gradient)
    params, task = network_and_task()
    return jax.jit(learner.grad)(learner.init(params), task, KEY)


@pytest.fixture(scope="module")
def exact():
    return network_grad(jaxmeta.reverse())


@pytest.mark.parametrize(
    "meta_gradient",
    [
        jaxmeta.mixed(),
        jaxmeta.mixed(remat=True),
        jaxmeta.mixed(remat=2),
        jaxmeta.forward(),
        jaxmeta.reverse(remat=True),
        jaxmeta.reverse(remat=2),
        jaxmeta.reverse(remat=7),
        jaxmeta.truncated(STEPS),
        jaxmeta.truncated(STEPS + 1, remat=True),
    ],
    ids=[
        "mixed",
        "mixed-remat",
        "mixed-nested",
        "forward",
        "remat",
        "nested",
        "nested-long",
        "truncated-none",
        "truncated-longer",
    ],
)
def test_exact_ones_agree(meta_gradient, exact):
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, network_grad(meta_gradient), exact)


@pytest.mark.parametrize("last", [0, 1, 3, 5])
def test_truncated_differentiates_the_last_steps(last):
    loss, grad = quadratic_grad(jaxmeta.truncated(last))
    adapted = A + (1 - R) ** STEPS * (W - A)
    np.testing.assert_allclose(loss, 0.5 * (adapted - B) ** 2, rtol=1e-6)
    np.testing.assert_allclose(grad, (1 - R) ** last * (adapted - B), rtol=1e-5)


def test_one_step_takes_what_tasks_share_once():
    """Under `vmap` the first product has the weights as they are, not a copy for each of the tasks."""
    copied = []

    @jax.custom_batching.custom_vmap
    def multiply(x, w):
        return x @ w

    @multiply.def_vmap
    def _multiply_under_vmap(axis_size, in_batched, x, w):
        copied.append(in_batched[1])
        return jax.vmap(jnp.matmul, [0 if batched else None for batched in in_batched])(x, w), True

    @jax.custom_jvp
    def product(x, w):
        return multiply(x, w)

    @product.defjvp
    def _product_jvp(primals, tangents):
        return product(*primals), primals[0] @ tangents[1]

    def adapt(steps, x):
        loss_fn = lambda w, x, key: (jnp.sum(product(x, w) ** 2), {})  # noqa: E731
        return jaxmeta.adapt(loss_fn, optax.sgd(0.1), jnp.ones((2, 4)), x, KEY, steps=steps)

    jax.eval_shape(jax.vmap(partial(adapt, 1)), jnp.ones((7, 3, 2)))
    assert copied == [False]
    jax.eval_shape(jax.vmap(partial(adapt, 2)), jnp.ones((7, 3, 2)))
    assert True in copied


def test_truncated_to_nothing_is_first_order():
    jax.tree.map(np.testing.assert_array_equal, network_grad(jaxmeta.truncated(0)), network_grad(jaxmeta.first_order()))


@pytest.mark.parametrize("last", [0, 1, 3], ids=["first-order", "truncated-1", "truncated-3"])
def test_only_the_inner_gradient_is_constant(last):
    """The losses of the steps depend on the start, the learned rate, the data and what the loss closes over."""
    steps = 4
    inner = optax.chain(optax.clip_by_global_norm(1.0), optim.scale_by_learned_rate(0.3), optax.trace(0.5))

    def loss_fn(strength):
        return lambda w, batch, x: (jnp.sum(jnp.tanh(w * batch - x) ** 2) + strength * jnp.sum(w**2), {})

    def plain(w, learned, batch, strength, xs):
        state, losses = jaxmeta.combine(learned, inner.init(w)), []
        for i in range(steps):
            loss, grads = jax.value_and_grad(lambda w, i=i: loss_fn(strength)(w, batch, xs[i])[0])(w)
            grads = grads if i >= steps - last else jax.lax.stop_gradient(grads)
            updates, state = inner.update(grads, state, w)
            w = optax.apply_updates(w, updates)
            losses.append(loss)
        return jnp.stack(losses).sum() + jnp.sum(jnp.square(jnp.asarray(w)))

    def ours(w, learned, batch, strength, xs):
        meta_gradient = jaxmeta.truncated(last) if last else jaxmeta.first_order()
        end = jaxmeta.unroll(loss_fn(strength), inner, w, batch, xs, learned=learned, meta_gradient=meta_gradient)
        return end.losses.sum() + jnp.sum(end.params**2)

    with jax.enable_x64(True):
        w = jnp.array([0.5, -1.5])
        arguments = w, jaxmeta.partition(inner.init(w))[0], jnp.array([1.0, 2.0]), 0.1, jnp.linspace(0.1, 0.4, steps)
        found, expected = (jax.jit(jax.grad(f, argnums=range(5)))(*arguments) for f in (ours, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected)


@pytest.mark.parametrize("solver", [jaxmeta.cg(3), jaxmeta.neumann(200, rate=0.2)], ids=["cg", "neumann"])
@pytest.mark.parametrize("proximal", [0.5, 2.0])
@pytest.mark.quick("2.0-cg")
def test_implicit_on_a_quadratic(solver, proximal):
    """The minimum of (w - a)^2 / 2 + l (w - w0)^2 / 2 is (a + l w0) / (1 + l)."""
    loss, grad = quadratic_grad(jaxmeta.implicit(solver, proximal=proximal), steps=200)
    adapted = (A + proximal * W) / (1 + proximal)
    np.testing.assert_allclose(loss, 0.5 * (adapted - B) ** 2, rtol=1e-5)
    np.testing.assert_allclose(grad, proximal / (1 + proximal) * (adapted - B), rtol=1e-5)


@pytest.mark.parametrize("solve", [jaxmeta.cg(3), jaxmeta.neumann(200, rate=0.2)], ids=["cg", "neumann"])
@pytest.mark.parametrize("types", [("bfloat16", "float32"), ("float32", "float64"), ("float16", "float16")], ids=str)
def test_solvers_take_mixed_types(solve, types):
    """A solution in the types of the right side, as exact as each of them is."""
    with jax.enable_x64(True):
        b = {name: jnp.array([3.0, -1.0], dtype) for name, dtype in zip("ab", types, strict=True)}
        found = jax.jit(lambda b: solve(lambda x: {"a": 4.0 * x["a"] + x["b"], "b": x["a"] + 2.0 * x["b"]}, b))(b)
        assert {name: x.dtype for name, x in found.items()} == {name: x.dtype for name, x in b.items()}
        exact = np.linalg.solve([[4.0, 1.0], [1.0, 2.0]], np.ones(2))
        for x, one in zip(found.values(), exact, strict=True):
            np.testing.assert_allclose(np.asarray(x, float), one * np.array([3.0, -1.0]), rtol=0.02)


def test_implicit_takes_mixed_types():
    """The closed form of `test_implicit_on_a_quadratic` for each of two parameters."""
    with jax.enable_x64(True):
        start = {"a": jnp.array(W, jnp.float32), "b": jnp.array(W, jnp.float64)}

        def loss_fn(params, target, key):
            return sum(quadratic(w, target, key)[0] for w in params.values()), {}

        learner = jaxmeta.maml(loss_fn, optax.sgd(R), 100, meta_gradient=jaxmeta.implicit(jaxmeta.cg(2)))
        _, grads = jax.jit(learner.grad)(learner.init(start), Task(jnp.array(A), jnp.array(B)), KEY)
    assert {name: x.dtype for name, x in grads.params.items()} == {"a": jnp.float32, "b": jnp.float64}
    for x in grads.params.values():
        np.testing.assert_allclose(x, 0.5 * ((A + W) / 2 - B), rtol=1e-5)


def test_implicit_differentiates_what_the_loss_closes_over():
    """With an L2 strength s: w = (a + l w0) / (1 + l + s), whose derivative is -w / (1 + l + s)."""
    proximal, strength = 0.5, 0.7

    def objective(strength):
        def loss_fn(w, target, key):
            return quadratic(w, target, key)[0] + 0.5 * strength * w**2, {}

        meta_gradient = jaxmeta.implicit(jaxmeta.cg(3), proximal=proximal)
        w = jaxmeta.adapt(loss_fn, optax.sgd(R), jnp.array(W), A, KEY, steps=100, meta_gradient=meta_gradient)
        return quadratic(w, B, None)[0]

    w = (A + proximal * W) / (1 + proximal + strength)
    np.testing.assert_allclose(jax.grad(objective)(strength), -w / (1 + proximal + strength) * (w - B), rtol=1e-5)


@pytest.mark.slow
def test_implicit_approaches_the_exact_gradient_as_the_inner_loop_converges():
    """On a network: against reverse mode through many steps on the same proximal loss."""
    proximal, rate = 2.0, 0.05
    params, task = network_and_task()

    def by_reverse(params):
        def proximal_loss(current, batch, key):
            distance = optax.tree.norm(jax.tree.map(jnp.subtract, current, params), squared=True)
            return MSE(current, batch, key)[0] + 0.5 * proximal * distance, {}

        adapted = jaxmeta.adapt(proximal_loss, optax.sgd(rate), params, task.support, KEY, steps=400)
        return MSE(adapted, task.query, KEY)[0]

    exact, _ = ravel_pytree(jax.jit(jax.grad(by_reverse))(params))
    errors = []
    for steps, iterations in ((5, 1), (30, 5), (400, 30)):
        meta_gradient = jaxmeta.implicit(jaxmeta.cg(iterations), proximal=proximal)
        learner = jaxmeta.maml(MSE, optax.sgd(rate), steps, meta_gradient=meta_gradient)
        _, grads = jax.jit(learner.grad)(learner.init(params), task, KEY)
        ours, _ = ravel_pytree(grads.params)
        errors.append(float(jnp.linalg.norm(ours - exact) / jnp.linalg.norm(exact)))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3


def temporary_bytes(meta_gradient, steps):
    learner = jaxmeta.maml(MSE, optax.sgd(0.05), steps, meta_gradient=meta_gradient)
    params, task = network_and_task()
    return jaxmeta.cost(learner.grad, learner.init(params), task, KEY).temporary_bytes


@pytest.mark.slow
def test_memory_of_implicit_does_not_grow_with_the_steps():
    """But for the steps' keys and losses, a few bytes each; reverse mode keeps every step's values."""
    grown = temporary_bytes(jaxmeta.implicit(), 50) - temporary_bytes(jaxmeta.implicit(), 5)
    assert grown <= 45 * 64
    reverse_grown = temporary_bytes(jaxmeta.reverse(), 50) - temporary_bytes(jaxmeta.reverse(), 5)
    assert reverse_grown > 10 * grown


@pytest.mark.parametrize("antithetic", [True, False])
def test_evolution_on_a_quadratic(antithetic):
    exact_loss, exact = quadratic_grad(jaxmeta.reverse())
    meta_gradient = jaxmeta.evolution(4000, scale=0.05, antithetic=antithetic)
    loss, grad = jax.jit(lambda key: quadratic_grad(meta_gradient, key=key))(KEY)
    np.testing.assert_allclose(loss, exact_loss, rtol=1e-5)
    # The mean of 4000 squared normals has a standard error of sqrt(2 / 4000) = 2.2 %.
    np.testing.assert_allclose(grad, exact, rtol=0.08)


def test_evolution_is_unbiased_over_keys_on_a_network(exact):
    found = network_grad(jaxmeta.evolution(4000, scale=0.01))
    ours, theirs = (ravel_pytree(grads)[0] for grads in (found[1], exact[1]))
    assert ours @ theirs > 0.95 * jnp.linalg.norm(ours) * jnp.linalg.norm(theirs)


def test_cost_of_a_matrix_product():
    cost = jaxmeta.cost(lambda x, y: x @ y, jnp.ones((32, 64)), jax.ShapeDtypeStruct((64, 16), jnp.float32))
    assert cost.argument_bytes == 4 * (32 * 64 + 64 * 16)
    assert cost.flops == pytest.approx(2 * 32 * 64 * 16, rel=0.01)
    assert cost.compile_seconds > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jaxmeta.reverse(remat=0), "remat must be an integer of at least 1, got 0"),
        (lambda: jaxmeta.truncated(1, remat=0), "remat must be an integer of at least 1, got 0"),
        (lambda: jaxmeta.truncated(-1), "steps must be an integer of at least 0, got -1"),
        (lambda: jaxmeta.implicit(proximal=0.0), "proximal must be a positive number, got 0.0"),
        (lambda: jaxmeta.cg(0), "steps must be an integer of at least 1, got 0"),
        (lambda: jaxmeta.cg(1, damping=-1.0), "damping must be a number of at least 0, got -1.0"),
        (lambda: jaxmeta.neumann(1, rate=0.0), "rate must be a positive number, got 0.0"),
        (lambda: jaxmeta.evolution(0), "samples must be an integer of at least 1, got 0"),
        (lambda: jaxmeta.evolution(2.5), "samples must be an integer of at least 1, got 2.5"),
        (lambda: jaxmeta.mixed(remat=2.5), "remat must be an integer of at least 1, got 2.5"),
        (lambda: jaxmeta.evolution(1, scale=-1.0), "scale must be a positive number"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
