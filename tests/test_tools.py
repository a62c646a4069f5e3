# pyright: reportArgumentType=false
"""Differentiable updates for people who write their own: `unroll`, and `implicit_argmin` around any solver."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from jax.test_util import check_grads

import jaxmeta
from jaxmeta import optim

ADAM = optax.adam(0.1, eps_root=1e-8)


def tree_loss(params, scale, target):
    residual = jnp.tanh(params["w"]) * params["b"] - target
    return scale * jnp.mean(residual**2), {}


def draw(rng, *shape):
    return jnp.asarray(rng.normal(size=shape))


def problem(rng, steps=4):
    """Parameters, what the steps share, and a target for each of them."""
    return {"w": draw(rng, 3), "b": draw(rng, 3)}, jnp.asarray(0.7), draw(rng, steps, 3)


def by_hand(params, scale, targets):
    """The same loop in the three lines that a differentiable optax update takes."""
    state, losses = ADAM.init(params), []
    for target in targets:
        (loss, _), grads = jax.value_and_grad(tree_loss, has_aux=True)(params, scale, target)
        updates, state = ADAM.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(loss)
    return jaxmeta.Unrolled(params, state, jnp.stack(losses))


def assert_close(a, b, rtol=1e-12):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-14), a, b)


def test_unroll_is_the_loop_written_by_hand():
    with jax.enable_x64(True):
        arguments = problem(np.random.default_rng(0))
        assert_close(jaxmeta.unroll(tree_loss, ADAM, *arguments), by_hand(*arguments))


@pytest.mark.parametrize("way", ["reverse", "mixed"])
@pytest.mark.quick("mixed")
def test_every_output_of_unroll_is_differentiable_in_every_input(way):
    meta_gradient = getattr(jaxmeta, way)()

    def total(unroll, *arguments):
        end = unroll(*arguments)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves((end.params, end.state[0].mu, end.losses)))

    def ours(*arguments):
        return jaxmeta.unroll(tree_loss, ADAM, *arguments, meta_gradient=meta_gradient)

    with jax.enable_x64(True):
        arguments = problem(np.random.default_rng(1))
        gradients = [jax.grad(total, argnums=(1, 2, 3))(unroll, *arguments) for unroll in (ours, by_hand)]
        assert_close(*gradients, rtol=1e-9)
        check_grads(lambda *arguments: total(by_hand, *arguments), arguments, order=1, modes=["rev"], rtol=1e-5)


@pytest.mark.slow
def test_a_long_loop_in_windows_is_the_same_loop():
    def whole(params, scale, targets):
        return jaxmeta.unroll(tree_loss, ADAM, params, scale, targets)

    def windows(params, scale, targets):
        first = jaxmeta.unroll(tree_loss, ADAM, params, scale, targets[:1])
        last = jaxmeta.unroll(tree_loss, ADAM, first.params, scale, targets[1:], state=first.state)
        return last._replace(losses=jnp.concatenate([first.losses, last.losses]))

    with jax.enable_x64(True):
        arguments = problem(np.random.default_rng(2))
        assert_close(whole(*arguments), windows(*arguments))
        gradients = [jax.grad(lambda *args, f=f: jnp.sum(f(*args).params["w"]))(*arguments) for f in (whole, windows)]
        assert_close(*gradients, rtol=1e-9)


def test_learned_values_replace_those_of_the_state():
    rate = optim.scale_by_learned_rate(0.5)
    params = jnp.array([1.0, 2.0])
    learned = jax.tree.map(lambda x: 0.2 * x, jaxmeta.partition(rate.init(params))[0])

    def loss_fn(w, batch, x):
        return 0.5 * jnp.sum(w**2), {}

    for state in (None, rate.init(params)):
        end = jaxmeta.unroll(loss_fn, rate, params, None, jnp.zeros(1), state=state, learned=learned)
        np.testing.assert_allclose(end.params, 0.9 * params, rtol=1e-6)


def ridge_loss(w, x, y, strength):
    return 0.5 * jnp.sum((x @ w - y) ** 2) + 0.5 * strength * jnp.sum(w**2)


def ridge_by_numpy(x, y, strength):
    """Plain NumPy: JAX can neither trace nor differentiate it."""
    x, y = np.asarray(x), np.asarray(y)
    return np.linalg.solve(x.T @ x + float(strength) * np.eye(x.shape[1]), x.T @ y)


def ridge_by_descent(x, y, strength):
    """A `while_loop` to convergence, which has no reverse-mode derivative."""
    rate = 1 / (jnp.sum(x**2) + strength)

    def gradient(w):
        return x.T @ (x @ w - y) + strength * w

    start = jnp.zeros(x.shape[1], x.dtype)
    return jax.lax.while_loop(lambda w: jnp.sum(gradient(w) ** 2) > 1e-26, lambda w: w - rate * gradient(w), start)


def ridge(rng):
    return draw(rng, 6, 3), draw(rng, 6), jnp.asarray(0.5)


def closed_form(x, y, strength):
    return jnp.linalg.solve(x.T @ x + strength * jnp.eye(x.shape[1], dtype=x.dtype), x.T @ y)


@pytest.mark.parametrize("minimize", [ridge_by_numpy, ridge_by_descent])
@pytest.mark.parametrize("solver", [jaxmeta.cg(3), jaxmeta.neumann(4000, rate=0.02)], ids=["cg", "neumann"])
@pytest.mark.quick("cg-ridge_by_numpy")
def test_implicit_argmin_of_ridge_regression(minimize, solver):
    with jax.enable_x64(True):
        x, y, strength = ridge(np.random.default_rng(4))
        solution = jaxmeta.implicit_argmin(ridge_loss, minimize, solver)
        w = solution(x, y, strength)
        np.testing.assert_allclose(w, closed_form(x, y, strength), rtol=1e-9)
        hessian = x.T @ x + strength * np.eye(3)
        by_strength = jnp.stack([jax.grad(lambda s, i=i: solution(x, y, s)[i])(strength) for i in range(3)])
        np.testing.assert_allclose(by_strength, -np.linalg.solve(hessian, w), rtol=1e-9)
        by_y = jnp.stack([jax.grad(lambda y, i=i: solution(x, y, strength)[i])(y) for i in range(3)])
        np.testing.assert_allclose(by_y, np.linalg.solve(hessian, x.T), rtol=1e-9)
        ours, exact = (jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x, y, strength))))(x) for f in (solution, closed_form))
        np.testing.assert_allclose(ours, exact, rtol=1e-8)


@pytest.mark.slow
def test_implicit_argmin_has_second_derivatives():
    solution = jaxmeta.implicit_argmin(ridge_loss, ridge_by_descent, jaxmeta.cg(3))
    with jax.enable_x64(True):
        x, y, strength = ridge(np.random.default_rng(5))
        second = [
            jax.jit(jax.jacrev(jax.grad(lambda s, f=f: jnp.sum(jnp.sin(f(x, y, s))))))(strength)
            for f in (solution, closed_form)
        ]
        np.testing.assert_allclose(*second, rtol=1e-8)


def test_implicit_argmin_with_pytrees_closures_and_integers():
    """Logistic regression with a weight per example, fitted by Newton's method, against float64 finite differences."""

    def loss_with(strength):
        def loss(params, weights, batch):
            logits = batch.x @ params["w"] + params["b"]
            losses = optax.sigmoid_binary_cross_entropy(logits, batch.y)
            return jnp.mean(jnp.exp(weights) * losses) + strength * optax.tree.norm(params, squared=True)

        return loss

    def newton(loss, *args):
        flat, unravel = ravel_pytree({"w": jnp.zeros(2), "b": jnp.zeros(())})
        flat_loss = lambda w: loss(unravel(w), *args)  # noqa: E731

        def step(w, _):
            return w - jnp.linalg.solve(jax.hessian(flat_loss)(w), jax.grad(flat_loss)(w)), None

        return unravel(jax.lax.scan(step, flat, length=20)[0])

    with jax.enable_x64(True):
        rng = np.random.default_rng(6)
        batch = jaxmeta.Batch(draw(rng, 8, 2), jnp.arange(8) % 2)

        def validation(weights, strength):
            fit = partial(newton, loss_with(jax.lax.stop_gradient(strength)))
            fitted = jaxmeta.implicit_argmin(loss_with(strength), fit, jaxmeta.cg(3))(weights, batch)
            return jnp.sum(jnp.sin(fitted["w"])) + fitted["b"] ** 2

        arguments = (0.3 * draw(rng, 8), jnp.asarray(0.2))
        check_grads(jax.jit(validation), arguments, order=1, modes=["rev"], rtol=1e-5)


def test_implicit_argmin_maps_over_tasks():
    solution = jaxmeta.implicit_argmin(ridge_loss, ridge_by_descent, jaxmeta.cg(3))
    with jax.enable_x64(True):
        rng = np.random.default_rng(7)
        tasks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(ridge(rng) for _ in range(3)))
        grad = jax.grad(lambda *task: jnp.sum(jnp.sin(solution(*task))), argnums=2)
        exact = jax.grad(lambda *task: jnp.sum(jnp.sin(closed_form(*task))), argnums=2)
        np.testing.assert_allclose(jax.vmap(grad)(*tasks), jax.vmap(exact)(*tasks), rtol=1e-8)


@pytest.mark.parametrize("bad", ["loss", "minimize", "solver"])
def test_implicit_argmin_wants_functions(bad):
    arguments = {"loss": ridge_loss, "minimize": ridge_by_numpy, "solver": jaxmeta.cg(3)}
    with pytest.raises(TypeError, match=f"{bad} must be a function, got 3"):
        jaxmeta.implicit_argmin(**{**arguments, bad: 3})
