# pyright: reportArgumentType=false
"""Bilevel problems: hyper-gradients against closed forms, loops that are written out, and each other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import Batch, Task, bilevel, models, optim, testing
from jaxmeta.bilevel import weight_by_example

KEY = jax.random.key(0)
PLAIN = jaxmeta.InnerProblem(
    start=lambda meta, support, key: jnp.zeros(3),
    loss=lambda w, meta, batch, key: (
        jnp.mean((batch.x @ w - batch.y) ** 2) + jnp.sum(jnp.exp(meta.params) * w**2) / len(batch.y),
        {},
    ),
    finish=lambda w, meta: w,
)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def mean_squares(w, batch, key):
    return jnp.mean((batch.x @ w - batch.y) ** 2), {}


def squares(w, batch, key):
    return (batch.x @ w - batch.y) ** 2


def examples(key, n=12):
    x = jax.random.normal(key, (n, 3))
    return Batch(x, x @ jnp.array([1.0, -2.0, 0.5]) + 0.3 * jax.random.normal(jax.random.fold_in(key, 1), (n,)))


def whole_sets(key):
    """The same data in each step: ridge regression, whose solution is known."""
    return Task(examples(jax.random.key(1)), examples(jax.random.key(2)))


def noisy_sets(key):
    return Task(*(examples(k) for k in jax.random.split(key)))


def states_of(training, sampler, updates=3):
    state, states, metrics = training.init(jnp.zeros(3) - 1, KEY), [], []
    step = jax.jit(lambda state, key: training.step(state, key, sampler))
    for i in range(updates):
        state, measured = step(state, jax.random.key(i))
        states.append(state)
        metrics.append(measured)
    return states, metrics


def ridge_gradient(hyper):
    """NumPy: the derivative of the validation loss of ridge regression in the logarithms of its strengths."""
    train, validation = whole_sets(KEY)
    x, y, strengths = np.array(train.x), np.array(train.y), np.exp(np.array(hyper))
    hessian = x.T @ x + np.diag(strengths)
    w = np.linalg.solve(hessian, x.T @ y)
    outer = 2 * np.array(validation.x).T @ (np.array(validation.x) @ w - np.array(validation.y)) / len(y)
    return w, -strengths * w * np.linalg.solve(hessian, outer)


@pytest.mark.parametrize(
    ("meta_gradient", "tolerance"),
    [
        (jaxmeta.reverse(), 1e-8),
        (jaxmeta.mixed(), 1e-8),
        (jaxmeta.forward(), 1e-8),
        (jaxmeta.implicit(jaxmeta.cg(3), proximal=1e-6), 1e-4),
    ],
    ids=["reverse", "mixed", "forward", "implicit"],
)
def test_converged_training_has_the_gradient_of_ridge_regression(meta_gradient, tolerance):
    """SGD of rate 1 as outer optimizer moves the hyper-parameters by the gradient."""
    training = bilevel.bilevel_step(
        PLAIN, optax.sgd(0.2), optax.sgd(1.0), 300, outer_loss=mean_squares, meta_gradient=meta_gradient
    )
    (state,), _ = states_of(training, whole_sets, 1)
    w, gradient = ridge_gradient(-np.ones(3))
    np.testing.assert_allclose(state.params, w, rtol=1e-4, atol=tolerance)
    np.testing.assert_allclose(-1 - np.array(state.meta.params), gradient, rtol=tolerance, atol=tolerance)


INNER = {
    "momentum": optax.sgd(0.05, momentum=0.9),
    "adam": optax.adam(0.05, eps_root=1e-12),
    "schedule": optax.sgd(optax.exponential_decay(0.05, 3, 0.5)),
}


@pytest.mark.parametrize("inner", INNER)
def test_training_goes_on_as_in_a_loop_written_out(inner):
    """Two steps an update, three updates: the parameters are those of six steps, and the gradient of the last two."""
    training = bilevel.bilevel_step(PLAIN, INNER[inner], optax.sgd(0.5), 2, outer_loss=mean_squares)
    states, metrics = states_of(training, noisy_sets)

    w, hyper = jnp.zeros(3), jnp.zeros(3) - 1
    inner_state = INNER[inner].init(w)
    for i, state in enumerate(states):
        support_key, query_key = jax.random.split(jax.random.key(i), 5)[:2]
        batches = [noisy_sets(key).support for key in jax.random.split(support_key, 2)]

        def end(hyper, w=w, inner_state=inner_state, batches=batches):
            for batch in batches:
                grads = jax.grad(lambda w: PLAIN.loss(w, jaxmeta.MetaParams(hyper), batch, None)[0])(w)  # noqa: B023
                updates, inner_state = INNER[inner].update(grads, inner_state, w)
                w = optax.apply_updates(w, updates)
            return w, inner_state

        def outer(hyper, end=end, query_key=query_key):
            return mean_squares(end(hyper)[0], noisy_sets(query_key).query, None)[0]

        loss, gradient = jax.value_and_grad(outer)(hyper)
        (w, inner_state), hyper = end(hyper), hyper - 0.5 * gradient
        np.testing.assert_allclose(np.array(metrics[i]["loss"]), np.array(loss), rtol=1e-12)
        np.testing.assert_allclose(np.array(state.params), np.array(w), rtol=1e-12)
        np.testing.assert_allclose(state.meta.params, hyper, rtol=1e-10)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), state.inner_state, inner_state)
    assert sorted(metrics[0]) == ["inner_loss", "loss"]


@pytest.mark.parametrize("steps", [1, 3])
def test_sama_is_the_derivative_of_the_last_step(steps):
    """Against the exact derivative of one step from where the others end, with another optimizer's Jacobian."""
    inner = optax.adam(0.05, eps_root=1e-8)

    def outer(hyper, window, meta_gradient):
        meta, w, keys = jaxmeta.MetaParams(hyper), jnp.zeros(3), jax.random.split(KEY, steps)
        loss = lambda w, _, key: PLAIN.loss(w, meta, noisy_sets(key).support, key)  # noqa: E731
        before = jaxmeta.unroll(loss, inner, w, None, keys[: steps - window])
        before = jax.lax.stop_gradient(before)
        end = jaxmeta.unroll(
            loss, inner, before.params, None, keys[steps - window :], state=before.state, meta_gradient=meta_gradient
        )
        return jnp.sum(jnp.sin(end.params)) + end.params[0]

    hyper = jnp.array([-1.0, 0.0, 1.0])
    found = jax.jit(jax.grad(lambda hyper: outer(hyper, steps, jaxmeta.sama(1e-3))))(hyper)
    np.testing.assert_allclose(found, jax.grad(lambda hyper: outer(hyper, 1, jaxmeta.reverse()))(hyper), rtol=1e-6)


def test_sama_has_no_derivative_of_the_start():
    learner = jaxmeta.maml(mean_squares, optax.sgd(0.1), meta_gradient=jaxmeta.sama())
    with pytest.raises(TypeError, match=r"sama\(\) has no derivative for the initial parameters"):
        learner.grad(learner.init(jnp.zeros(3)), noisy_sets(KEY), KEY)


def test_sama_of_an_outer_loss_without_slope_is_zero():
    training = bilevel.bilevel_step(
        PLAIN,
        optax.sgd(0.1),
        optax.sgd(1.0),
        outer_loss=lambda w, b, k: (0 * w.sum(), {}),
        meta_gradient=jaxmeta.sama(),
    )
    np.testing.assert_array_equal(states_of(training, noisy_sets, 1)[0][0].meta.params, -np.ones(3))


def test_learned_rates_are_hyper_parameters():
    """The derivative of one step in its rate is minus the product of the two gradients."""
    inner = optim.scale_by_learned_rate(0.1, per="tensor")
    training = bilevel.bilevel_step(PLAIN, inner, optax.sgd(1e-3), outer_loss=mean_squares)
    (state,), _ = states_of(training, whole_sets, 1)
    train, validation = whole_sets(KEY)
    grads = jax.grad(lambda w: PLAIN.loss(w, jaxmeta.MetaParams(jnp.zeros(3) - 1), train, None)[0])(jnp.zeros(3))
    outer = jax.grad(lambda w: mean_squares(w, validation, None)[0])(-0.1 * grads)
    np.testing.assert_allclose(jax.tree.leaves(state.meta.learned)[0], 0.1 + 1e-3 * grads @ outer, rtol=1e-6)


NET = models.MLP(sizes=(4,), param_dtype=jnp.float64)
WEIGH = {
    "net": (bilevel.weight_by_loss(NET.apply), lambda: NET.init(KEY, jnp.zeros((1, 1)))),
    "examples": (weight_by_example, lambda: jnp.linspace(-1, 1, 12)),
}


@pytest.mark.parametrize("kind", WEIGH)
def test_gradient_of_weights_by_finite_differences(kind):
    weigh, hyper = WEIGH[kind][0], WEIGH[kind][1]()
    problem = bilevel.weighted_losses(squares, weigh, lambda key: jnp.ones(3))
    train, validation = whole_sets(KEY)
    batch = bilevel.Rows(train.x, train.y, jnp.arange(12))
    training = bilevel.bilevel_step(problem, optax.sgd(0.2), optax.sgd(1.0), outer_loss=mean_squares)
    state, _ = training.step(training.init(hyper, KEY), KEY, lambda key: Task(batch, validation))
    gradient = jax.tree.map(jnp.subtract, hyper, state.meta.params)

    def outer(hyper):  # NumPy's one step: the weights are constants of the inner gradient
        residuals = np.array(train.x) @ np.ones(3) - np.array(train.y)
        weights = np.array(weigh(hyper, jnp.array(residuals**2), batch))
        w = np.ones(3) - 0.2 * 2 * np.array(train.x).T @ (weights * residuals) / weights.sum()
        return np.mean((np.array(validation.x) @ w - np.array(validation.y)) ** 2)

    direction = jax.tree.map(lambda x: jax.random.normal(KEY, x.shape), hyper)
    moved = [outer(jax.tree.map(lambda h, d, s=s: h + s * 1e-5 * d, hyper, direction)) for s in (1, -1)]
    np.testing.assert_allclose(optax.tree.vdot(gradient, direction), (moved[0] - moved[1]) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize("meta_gradient", [jaxmeta.reverse(), jaxmeta.sama()], ids=["reverse", "sama"])
def test_wrong_examples_lose_their_weight(meta_gradient):
    clean = examples(KEY, 40)
    noisy = Batch(clean.x, clean.y.at[:16].add(4.0))
    tasks = bilevel.TrainAndValidation(noisy, examples(jax.random.key(9), 20), 20, 20)
    problem = bilevel.weighted_losses(squares, weight_by_example, lambda key: jnp.zeros(3))
    training = bilevel.bilevel_step(
        problem, optax.sgd(0.05), optax.adam(0.1), outer_loss=mean_squares, meta_gradient=meta_gradient
    )
    run = jax.jit(lambda s, keys: jax.lax.scan(lambda s, k: training.step(s, k, tasks), s, keys))
    state, metrics = run(training.init(jnp.zeros(40), KEY), jax.random.split(KEY, 200))
    assert state.meta.params[:16].mean() < state.meta.params[16:].mean() - 0.5
    assert metrics["loss"][-20:].mean() < 0.2
    assert state.params.dtype == jnp.float64


def test_rows_know_where_they_come_from():
    train = Batch(jnp.arange(20.0).reshape(10, 2), jnp.arange(10))
    task = bilevel.TrainAndValidation(train, train, 6, 3)(KEY)
    np.testing.assert_array_equal(task.support.x, train.x[task.support.index])
    np.testing.assert_array_equal(task.support.y, task.support.index)
    assert task.query.x.shape == (3, 2) and task.support.weight is None


def test_distilled_data_have_the_gradient_of_finite_differences():
    """Through two steps from a random start, and with a learned rate for each."""
    loss_fn = jaxmeta.classification(lambda w, x: x @ w)
    start = lambda key: jax.random.normal(key, (3, 2))  # noqa: E731
    problem = bilevel.distilled_data(loss_fn, jnp.array([0, 1]), start)
    inner = optim.scale_by_learned_rate(0.5, per="tensor", steps=2)
    learner = jaxmeta.inner_loop(problem, inner, 2, outer_loss=loss_fn)
    real = Batch(jax.random.normal(KEY, (8, 3)), jnp.arange(8) % 2)
    testing.check_meta_gradient(learner, jax.random.normal(KEY, (2, 3)), Task(real, real))


STEP = partial(bilevel.bilevel_step, PLAIN, optax.sgd(0.1), optax.sgd(0.1), outer_loss=mean_squares)
BATCH = bilevel.Rows(jnp.zeros((2, 3)), jnp.zeros(2), jnp.arange(2))


def inner_loss(problem, hyper, batch=BATCH):
    return problem.loss(jnp.zeros(3), jaxmeta.MetaParams.of(hyper), batch, KEY)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: STEP(0), ValueError, "steps must be an integer of at least 1, got 0"),
        (lambda: STEP(meta_gradient=jaxmeta.sama), TypeError, "meta_gradient must be a value such as first_order"),
        (
            lambda: bilevel.bilevel_step(squares, optax.sgd(0.1), optax.sgd(0.1), outer_loss=mean_squares),
            TypeError,
            "problem must be an InnerProblem",
        ),
        (
            lambda: bilevel.bilevel_step(
                PLAIN._replace(stream=lambda *_: 0), optax.sgd(0.1), optax.sgd(0.1), outer_loss=mean_squares
            ),
            ValueError,
            "problem must have no stream",
        ),
        (
            lambda: bilevel.bilevel_step(PLAIN, 0.1, optax.sgd(0.1), outer_loss=mean_squares),
            TypeError,
            "inner must be an optax.GradientTransformation",
        ),
        (
            lambda: bilevel.bilevel_step(
                PLAIN,
                optim.scale_by_learned_rate(0.1),
                optax.sgd(0.1),
                outer_loss=mean_squares,
                meta_gradient=jaxmeta.sama(),
            ).init(jnp.zeros(3), KEY),
            ValueError,
            "inner must have no jaxmeta.Learned values",
        ),
        (lambda: STEP().step(STEP().init(jnp.zeros(3), KEY), KEY, 3), TypeError, "sampler must be a sampler"),
        (lambda: STEP().init(jnp.zeros(3), 0), TypeError, "key must be one random key"),
        (
            lambda: inner_loss(
                bilevel.weighted_losses(squares, weight_by_example, lambda key: 0), jnp.zeros(2), (0, 1)
            ),
            AttributeError,
            "no attribute",
        ),
        (
            lambda: inner_loss(
                bilevel.weighted_losses(lambda w, b, k: w.sum(), weight_by_example, lambda key: 0), jnp.zeros(2)
            ),
            ValueError,
            "losses must return one loss per example",
        ),
        (
            lambda: inner_loss(bilevel.weighted_losses(squares, lambda h, v, b: h, lambda key: 0), jnp.zeros(5)),
            ValueError,
            r"weigh must return weights \(2,\)",
        ),
        (
            lambda: weight_by_example(jnp.zeros(2), jnp.zeros(2), Batch(0, 0)),
            TypeError,
            "rows of its examples in index",
        ),
        (lambda: bilevel.TrainAndValidation(BATCH, BATCH, 0), ValueError, "size must be an integer of at least 1"),
        (lambda: bilevel.weight_by_loss(3), TypeError, "net must be a function"),
        (
            lambda: bilevel.weighted_losses(lambda w: w, weight_by_example, lambda key: 0),
            TypeError,
            r"losses must take 3 arguments \(params, batch, key\)",
        ),
        (lambda: bilevel.distilled_data(mean_squares, jnp.arange(2), 3), TypeError, "start must be a function"),
        (lambda: STEP(meta_gradient=jaxmeta.first_order()), ValueError, "the inner loss would never learn"),
        (
            lambda: jaxmeta.ml3(mean_squares, mean_squares, optax.sgd(0.1), meta_gradient=jaxmeta.truncated(0)),
            ValueError,
            "the inner loss would never learn",
        ),
        (lambda: jaxmeta.sama(0.0), ValueError, "scale must be a positive number, got 0.0"),
        (lambda: jaxmeta.forward(0), ValueError, "limit must be an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
