# pyright: reportArgumentType=false
"""MAML++'s multi-step loss and its schedules, against closed forms on a quadratic and against MAML."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta
from jaxmeta import Task, optim

KEY = jax.random.key(0)

# Support loss (w - a)^2 / 2, query loss (w - b)^2 / 2, from w by SGD with the rates r_1 ... r_K.
A, B, W = 2.0, -1.0, 0.5
RATES = np.array([0.1, 0.3, 0.6, 0.2])
WEIGHTS = np.array([0.4, 0.0, 0.25, 0.35])
STEPS = len(RATES)
TASK = Task(jnp.array(A), jnp.array(B))


def quadratic(w, target, key):
    return 0.5 * (w - target) ** 2, {"distance": jnp.abs(w - target)}


def by_hand(differentiated):
    """Loss, last distance, and derivatives by w and the rates; only the last `differentiated` steps are."""
    w, by_w, by_rates = W, 1.0, np.zeros(STEPS)
    loss, loss_by_w, loss_by_rates = 0.0, 0.0, np.zeros(STEPS)
    for i, (rate, weight) in enumerate(zip(RATES, WEIGHTS, strict=True)):
        curvature = 1.0 if i >= STEPS - differentiated else 0.0
        by_w, by_rates = by_w * (1 - rate * curvature), by_rates * (1 - rate * curvature)
        by_rates[i] = -(w - A)
        w -= rate * (w - A)
        loss += weight * 0.5 * (w - B) ** 2
        loss_by_w += weight * (w - B) * by_w
        loss_by_rates = loss_by_rates + weight * (w - B) * by_rates
    return loss, abs(w - B), loss_by_w, loss_by_rates


@pytest.mark.parametrize(
    ("meta_gradient", "differentiated"),
    [
        (jaxmeta.reverse(), STEPS),
        (jaxmeta.reverse(remat=3), STEPS),
        (jaxmeta.mixed(), STEPS),
        (jaxmeta.mixed(remat=True), STEPS),
        (jaxmeta.truncated(2), 2),
        (jaxmeta.first_order(), 0),
    ],
    ids=["reverse", "nested", "mixed", "mixed-remat", "truncated", "first-order"],
)
def test_multi_step_loss_of_a_quadratic(meta_gradient, differentiated):
    learner = jaxmeta.maml_plus_plus(quadratic, steps=STEPS, step_weights=WEIGHTS, meta_gradient=meta_gradient)
    meta = learner.init(jnp.array(W))
    meta = meta._replace(learned=jax.tree.map(lambda _: jnp.asarray(RATES, jnp.float32), meta.learned))
    metrics, grads = jax.jit(learner.grad)(meta, TASK, KEY)
    loss, distance, by_w, by_rates = by_hand(differentiated)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(metrics["distance"], distance, rtol=1e-6)
    np.testing.assert_allclose(grads.params, by_w, rtol=1e-5)
    (rate_grads,) = jax.tree.leaves(grads.learned)
    np.testing.assert_allclose(rate_grads, by_rates, rtol=1e-5)


def test_steps_are_weighted_alike_by_default():
    default, equal = (
        jaxmeta.maml_plus_plus(quadratic, 0.3, STEPS, step_weights=weights) for weights in (None, (0.25,) * STEPS)
    )
    meta = default.init(jnp.array(W))
    both = jax.jit(lambda meta: [learner.grad(meta, TASK, KEY) for learner in (default, equal)])(meta)
    jax.tree.map(np.testing.assert_array_equal, *both)


@pytest.mark.parametrize(
    "meta_gradient",
    [jaxmeta.reverse(), jaxmeta.mixed(remat=2), jaxmeta.first_order(), jaxmeta.truncated(1), jaxmeta.evolution(3)],
    ids=["reverse", "mixed", "first-order", "truncated", "evolution"],
)
@pytest.mark.quick("reverse", "truncated")
def test_judged_by_the_last_step_alone_it_is_maml(meta_gradient):
    """On a loss with noise, so that the keys are the same too."""

    def noisy(w, target, key):
        return jnp.sum((w - target - jax.random.normal(key, w.shape)) ** 4), {}

    inner = optim.scale_by_learned_rate(0.01, per="tensor", steps=3)
    maml = jaxmeta.maml(noisy, inner, 3, meta_gradient=meta_gradient)
    ours = jaxmeta.maml_plus_plus(noisy, 0.01, 3, step_weights=[0.0, 0.0, 1.0], meta_gradient=meta_gradient)
    meta = maml.init(jnp.array([W, A]))
    expected, actual = jax.jit(lambda meta: [learner.grad(meta, TASK, KEY) for learner in (maml, ours)])(meta)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), actual, expected)


def test_schedules_are_functions_of_the_update():
    """One program for the whole run gives what a learner of each phase gives."""

    @jax.jit
    def grad(meta, update):
        weights = jaxmeta.multi_step_weights(STEPS, update / 10)
        learner = jaxmeta.maml_plus_plus(quadratic, 0.3, STEPS, step_weights=weights, second_order=update >= 5)
        return learner.grad(meta, TASK, KEY)

    for update, weights, second_order in [
        (0, [0.25, 0.25, 0.25, 0.25], False),
        (4, [0.15, 0.15, 0.15, 0.55], False),
        (6, [0.1, 0.1, 0.1, 0.7], True),
        (12, [0.0, 0.0, 0.0, 1.0], True),
    ]:
        phase = jaxmeta.maml_plus_plus(quadratic, 0.3, STEPS, step_weights=weights, second_order=second_order)
        meta = phase.init(jnp.array(W))
        expected = jax.jit(phase.grad)(meta, TASK, KEY)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), grad(meta, update), expected)


@pytest.mark.parametrize(("weights", "evaluations"), [([0.0, 0.0, 1.0], 1), ([0.0, 0.5, 0.5], 3)])
def test_a_step_of_weight_zero_costs_nothing(weights, evaluations):
    """The last step's loss is evaluated once, that of any other step again for its derivative."""
    seen = []

    def loss_fn(w, batch, key):
        jax.debug.callback(lambda x: seen.append(float(x)), batch)
        return (w - batch) ** 2, {}

    learner = jaxmeta.maml_plus_plus(loss_fn, 0.1, 3, step_weights=weights)
    jax.jit(jax.vmap(learner.grad, (None, 0, None)))(
        learner.init(jnp.array(W)), Task(jnp.zeros(2), jnp.array([7.0, 8.0])), KEY
    )
    jax.effects_barrier()
    assert sorted(x for x in seen if x) == [7.0] * evaluations + [8.0] * evaluations


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jaxmeta.maml_plus_plus(quadratic, float("nan")), "inner_rate must be a finite number"),
        (lambda: jaxmeta.maml_plus_plus(quadratic, steps=-1), "steps must be an integer of at least 0, got -1"),
        (
            lambda: jaxmeta.maml_plus_plus(quadratic, steps=3, step_weights=[1.0, 2.0]),
            r"step_weights must have shape \(3,\), got \(2,\)",
        ),
        (lambda: jaxmeta.multi_step_weights(0, 0.0), "steps must be an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
