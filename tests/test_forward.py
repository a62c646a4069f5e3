"""Forward-mode meta-gradients against reverse mode in float64, and their memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta

KEY = jax.random.key(0)
X = np.linspace(-1.0, 1.0, 12).reshape(4, 3)  # the last input is never used by `dead`
HYPER = {"rate": np.array(-2.5), "decay": np.array([-3.0, -1.0]), "target": np.array([0.1, -0.3, 0.2, 0.4])}
OPTIMIZERS = {
    "momentum": lambda h: optax.sgd(jnp.exp(h["rate"]), momentum=jax.nn.sigmoid(h["decay"][0]), nesterov=True),
    "adam": lambda h: optax.adam(jnp.exp(h["rate"])),
    "adamw, schedule": lambda h: optax.adamw(
        lambda count: jnp.exp(h["rate"]) / (1.0 + jnp.asarray(count, float)),
        eps_root=1e-12,
        weight_decay=h["decay"][1] ** 2,
    ),
    "clipped": lambda h: optax.chain(optax.clip_by_global_norm(jnp.exp(h["rate"])), optax.sgd(0.2)),
}


def least_squares(h, w, batch, key):
    loss = jnp.mean((batch @ w["a"] + w["b"] - h["target"]) ** 2)
    return loss + jnp.exp(h["decay"]) @ jnp.stack([jnp.sum(w["a"] ** 2), w["b"] ** 2]), {}


def noisy_network(h, w, batch, key):
    hidden = jnp.tanh((batch + 0.1 * jax.random.normal(key, batch.shape)) * w["a"][None] + w["b"])
    return jnp.mean((hidden.sum(1) - h["target"]) ** 2) + jnp.exp(h["decay"][0]) * w["b"] ** 2, {}


def dead(h, w, batch, key):
    """A loss whose gradient is exactly zero in one number, where Adam's derivative is NaN by itself."""
    return least_squares(h, {**w, "a": w["a"].at[2].set(0.0)}, batch, key)


PROBLEMS = {"least squares": least_squares, "network": noisy_network, "dead": dead}


def outer(hyper, problem, optimizer, meta_gradient, steps=15):
    start = {"a": jnp.array([0.5, -0.5, 0.3]), "b": jnp.array(0.2)}
    loss_fn, inner, keys = partial(PROBLEMS[problem], hyper), OPTIMIZERS[optimizer](hyper), jax.random.split(KEY, steps)
    end = jaxmeta.unroll(loss_fn, inner, start, jnp.asarray(X), keys, meta_gradient=meta_gradient)
    return jnp.sum(jnp.sin(end.params["a"])) + end.params["b"] ** 2 + end.losses.mean()


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.quick("momentum-network", "adam-dead", "adamw, schedule-least squares", "clipped-network")
def test_equals_reverse_mode(problem, optimizer):
    with jax.enable_x64(True):
        hyper = jax.tree.map(jnp.asarray, HYPER)
        found, exact = (
            jax.jit(jax.value_and_grad(partial(outer, problem=problem, optimizer=optimizer, meta_gradient=m)))(hyper)
            for m in (jaxmeta.forward(), jaxmeta.reverse())
        )
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(exact))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), found, exact)


def test_in_closed_form_and_batched_over_seeds():
    """SGD of rate r on h w^2 / 2 ends at w (1 - r h)^n."""
    steps, rate = 20, 0.1

    def end(h, w):
        loss_fn = lambda w, batch, key: (0.5 * h * w**2, {})  # noqa: E731
        return jaxmeta.adapt(loss_fn, optax.sgd(rate), w, None, KEY, steps=steps, meta_gradient=jaxmeta.forward())

    h = jnp.array([0.5, 2.0])
    by_h, by_w = jax.vmap(jax.grad(end, (0, 1)), (0, None))(h, 3.0)
    np.testing.assert_allclose(by_h, -3.0 * steps * rate * (1 - rate * h) ** (steps - 1), rtol=1e-5)
    np.testing.assert_allclose(by_w, (1 - rate * h) ** steps, rtol=1e-5)


def test_memory_does_not_grow_with_the_steps():
    """But for the keys of the steps, 8 bytes each."""

    def bytes_of(meta_gradient, steps):
        def of_end(h):
            loss_fn, keys = partial(noisy_network, h), jax.random.split(KEY, steps)
            start = {"a": jnp.ones(3), "b": jnp.ones(())}
            inner = OPTIMIZERS["adam"](h)
            return jaxmeta.unroll(loss_fn, inner, start, X, keys, meta_gradient=meta_gradient).params["b"]

        return jaxmeta.cost(jax.grad(of_end), HYPER).temporary_bytes

    assert bytes_of(jaxmeta.forward(), 10_000) - bytes_of(jaxmeta.forward(), 100) <= 9900 * 24
    assert bytes_of(jaxmeta.reverse(), 10_000) - bytes_of(jaxmeta.reverse(), 100) > 9900 * 100


def test_too_many_hyper_parameters_are_counted():
    learner = jaxmeta.maml(
        jaxmeta.regression(lambda w, x: x @ w), optax.sgd(0.1), meta_gradient=jaxmeta.forward(limit=5)
    )
    part = jaxmeta.Batch(jnp.ones((4, 6)), jnp.ones((4, 1)))
    with pytest.raises(
        ValueError, match=r"differentiated in 6 numbers \(arrays \(6, 1\)\). It must be at most limit=5"
    ):
        learner.grad(learner.init(jnp.ones((6, 1))), jaxmeta.Task(part, part), KEY)


def test_a_line_search_is_refused():
    def end(h):
        loss_fn = lambda w, batch, key: (0.5 * h * jnp.sum(w**2), {})  # noqa: E731
        meta_gradient = jaxmeta.forward()
        return jaxmeta.adapt(loss_fn, optax.lbfgs(), jnp.ones(2), None, KEY, steps=3, meta_gradient=meta_gradient).sum()

    with pytest.raises(TypeError, match="inner must not be a line search"):
        jax.grad(end)(2.0)
