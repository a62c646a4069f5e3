# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
"""Meta-training in windows: every estimator against closed forms on processes whose gradient is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import estimators, optim
from jaxmeta._noise import noise_like
from jaxmeta.estimators import Process

KEY = jax.random.key(0)
HORIZON, WINDOW = 12, 3
SGD = optax.sgd(0.1)
ESTIMATORS = {
    "backprop": estimators.truncated_backprop,
    "evolution": estimators.truncated_evolution,
    "persistent": estimators.persistent_evolution,
}
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)

# x' = A x + theta b with loss (x_0 - 1)^2 / 2: the influence problem of the PES paper. In the long run theta pushes x_0
# down, in a short window it pushes it up, so that truncated gradients have the wrong sign.
SIZE, START = 5, 0.5
A = 0.5 * np.eye(SIZE) + 0.5 * np.eye(SIZE, k=1)
B = np.array([1.0, -1.0, -1.0, -1.0, -1.0])


def influence(horizon=HORIZON):
    def step(theta, x, key):
        x = jnp.asarray(A, x.dtype) @ x + theta * jnp.asarray(B, x.dtype)
        return x, 0.5 * (x[0] - 1.0) ** 2

    return Process(lambda key: jnp.zeros(SIZE), step, horizon)


def influence_gradient(window):
    """The mean over the windows of a run of the gradient of the mean loss, by the recursion of dx/dtheta."""
    x, slope, total = np.zeros(SIZE), np.zeros(SIZE), 0.0
    for i in range(HORIZON):
        slope = B + A @ (0 * slope if i % window == 0 else slope)
        x = A @ x + START * B
        total += (x[0] - 1) * slope[0]
    return total / HORIZON


def gradients(estimator, process, theta, num_runs, windows):
    """At fixed theta, of so many windows one after the other: `[runs, windows]`."""

    def one(key):
        run = estimator.init(process, theta, key)

        def body(run, key):
            _, gradient, run = estimator.grad(process, theta, run, key)
            return run, gradient

        return jax.lax.scan(body, run, jax.random.split(key, windows))[1]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(KEY, num_runs)))


def test_the_influence_problem_misleads_short_windows():
    assert influence_gradient(HORIZON) > 7
    assert influence_gradient(WINDOW) < -1


@pytest.mark.parametrize("window", [1, WINDOW, HORIZON])
def test_backprop_is_the_truncated_gradient(window):
    with jax.enable_x64(True):
        found = gradients(estimators.truncated_backprop(window), influence(), jnp.array(START), 1, HORIZON // window)
    np.testing.assert_allclose(found.mean(), influence_gradient(window), rtol=1e-12)


@pytest.mark.parametrize(
    ("estimator", "exact_window"),
    [
        (estimators.truncated_evolution(WINDOW, scale=0.1), WINDOW),
        (estimators.persistent_evolution(WINDOW, scale=0.1), HORIZON),
        (estimators.persistent_evolution(HORIZON, scale=0.1), HORIZON),
    ],
    ids=["truncated", "persistent", "one-window"],
)
def test_mean_of_evolution(estimator, exact_window):
    """Smoothing does not change the gradient of a quadratic loss, so the means are exact: PES has no window's bias."""
    windows = HORIZON // estimator.window
    per_run = gradients(estimator, influence(), jnp.array(START), 30_000, windows).mean(axis=1)
    error = per_run.std() / len(per_run) ** 0.5
    assert error < 0.1
    assert abs(per_run.mean() - influence_gradient(exact_window)) < 4 * error


def test_persistent_evolution_counts_all_noise_since_the_reset():
    """The loss is theta itself, so a window's slope is its own noise; it is multiplied with the sum so far."""
    process = Process(lambda key: jnp.zeros([]), lambda theta, state, key: (state + 1, jnp.sum(theta)), HORIZON)
    training = estimators.process_step(process, estimators.persistent_evolution(WINDOW, scale=0.1), optax.sgd(1.0), 1)
    state, total = training.init(jnp.zeros(3), KEY), np.zeros(3)
    step = jax.jit(training.step)
    for i, key in enumerate(jax.random.split(KEY, 2 * HORIZON // WINDOW)):
        new, _ = step(state, key)
        first = i % (HORIZON // WINDOW) == 0
        own = np.asarray(new.runs.noise[0]) - (0 if first else total)
        total = np.asarray(new.runs.noise[0])
        np.testing.assert_allclose(state.meta - new.meta, own.sum() * total, rtol=1e-3, atol=1e-4)
        age = (i * WINDOW) % HORIZON + WINDOW
        np.testing.assert_array_equal(new.runs.state[0], [age, age])
        state = new


def family(key):
    """A quadratic of random curvatures."""
    start_key, curvature_key = jax.random.split(key)
    start = jax.random.normal(start_key, (3,))
    return estimators.Problem(start, jnp.exp(jax.random.uniform(curvature_key, (3,), minval=-2.0)))


def quadratic(w, curvature, key):
    return 0.5 * jnp.sum(curvature * w**2), {}


def moved_mlp(nominal):
    """A learned optimizer whose network does something."""
    sizes = {"sizes": (4,), "momenta": (0.5,)}
    weights = optim.learned_mlp(nominal, key=KEY, **sizes).init({}).weights.value
    noise = noise_like(KEY, weights)
    return optim.learned_mlp(nominal, weights=jax.tree.map(lambda w, n: w + 0.1 * n, weights, noise), **sizes)


@pytest.mark.parametrize(
    ("window", "meta_gradient", "seen_gradient"),
    [
        (4, None, lambda grads: grads),
        (2, jaxmeta.mixed(remat=True), lambda grads: grads),
        (4, jaxmeta.first_order(), jax.lax.stop_gradient),
        (2, jaxmeta.truncated(0), jax.lax.stop_gradient),
    ],
    ids=["whole", "truncated-mixed", "first-order", "truncated-first-order"],
)
@pytest.mark.quick("truncated-mixed", "truncated-first-order")
def test_backprop_through_a_training_run_equals_a_plain_loop(window, meta_gradient, seen_gradient):
    """In float64, against `jax.grad` of a Python loop with optax alone."""
    horizon = 4
    with jax.enable_x64(True):
        problem = jax.tree.map(lambda x: x.astype(jnp.float64), family(KEY))
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), moved_mlp(optax.sgd(0.1)))
        theta, rest = jaxmeta.partition(optimizer.init(problem.params))

        def plain(theta):
            params, state, losses = problem.params, jaxmeta.combine(theta, rest), []
            for i in range(horizon):
                if i % window == 0:
                    params, (_, memory) = jax.lax.stop_gradient((params, jaxmeta.partition(state)))
                    state = jaxmeta.combine(theta, memory)
                loss, grads = jax.value_and_grad(lambda p: quadratic(p, problem.batch, None)[0])(params)
                updates, state = optimizer.update(seen_gradient(grads), state, params)
                params = optax.apply_updates(params, updates)
                losses.append(loss)
            return jnp.mean(jnp.stack(losses))

        process = estimators.optimizer_training(
            optimizer, quadratic, lambda key: problem, horizon=horizon, meta_gradient=meta_gradient
        )
        estimator = estimators.truncated_backprop(window)
        found = gradients(estimator, process, theta, 1, horizon // window)
        expected = jax.tree.map(np.asarray, jax.jit(jax.grad(plain))(theta))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0].mean(0), b, rtol=1e-12, atol=1e-15), found, expected)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 1e-3


def train(name, num_runs, optimizer):
    learned = optax.chain(optim.scale_by_learned_rate(0.1), optax.trace(0.5))
    process = estimators.optimizer_training(learned, quadratic, family, horizon=HORIZON)
    theta, _ = jaxmeta.partition(learned.init(family(KEY).params))
    training = estimators.process_step(process, ESTIMATORS[name](WINDOW), optimizer, num_runs)
    return training, training.init(theta, KEY)


@every_estimator
@pytest.mark.quick("persistent")
def test_training_lowers_the_loss_of_new_problems(name):
    """In the loop with checkpoints, which gives what a plain scan gives."""
    training, state = train(name, 16, optax.adam(0.01))
    done = jaxmeta.loop(training, state.meta, KEY, iterations=300, log_every=100, progress=False)
    state = training.init(state.meta, jax.random.fold_in(KEY, 2**32 - 1))  # as `loop` starts
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(300))
    again, _ = jax.jit(lambda state: jax.lax.scan(training.step, state, keys))(state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), again.meta, done.state.meta)

    frozen, _ = train("backprop", 200, optax.set_to_zero())
    keys = jax.random.split(jax.random.key(2), 2 * HORIZON // WINDOW)
    measure = jax.jit(lambda theta: jax.lax.scan(frozen.step, frozen.init(theta, jax.random.key(1)), keys)[1]["loss"])
    before, after = (float(measure(theta)[HORIZON // WINDOW :].mean()) for theta in (state.meta, done.state.meta))
    assert after < 0.9 * before


@every_estimator
def test_a_step_is_one_program_whatever_the_batch_size(name):
    results, traces = [], []
    for batch_size in (None, 3):
        training = estimators.process_step(influence(), ESTIMATORS[name](WINDOW), SGD, 4, batch_size=batch_size)

        @jax.jit
        def step(state, key, training=training):
            traces.append(1)
            return training.step(state, key)

        first, second = jax.random.split(KEY)
        state, key = jax.device_put((training.init(jnp.float32(START), KEY), second))
        state, _ = step(state, first)
        with jax.transfer_guard("disallow"):
            state, metrics = step(state, key)
        assert metrics["loss"].shape == ()
        results.append((state, metrics))
    assert len(traces) == 2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results)


@every_estimator
def test_runs_are_reset_at_their_own_times(name):
    """The state counts its steps; the ages are spread evenly, and a reset draws a new problem."""
    process = Process(
        lambda key: (jnp.zeros([], jnp.int32), jax.random.normal(key)),
        lambda theta, state, key: ((state[0] + 1, state[1]), theta * jnp.cos(state[1])),
        HORIZON,
    )
    training = estimators.process_step(process, ESTIMATORS[name](WINDOW), optax.sgd(0.0), 8)
    state = training.init(jnp.array(1.0), KEY)
    assert state.runs.age.tolist() == [0, 0, 3, 3, 6, 6, 9, 9]
    lead = np.asarray(state.runs.age)
    problems = np.asarray(state.runs.state[1])
    step = jax.jit(training.step)
    for i, key in enumerate(jax.random.split(KEY, 2 * HORIZON // WINDOW)):
        over = state.runs.age == HORIZON
        state, _ = step(state, key)
        np.testing.assert_array_equal(state.runs.age, (lead + i * WINDOW) % HORIZON + WINDOW)
        changed = np.asarray(state.runs.state[1]) != problems
        np.testing.assert_array_equal(changed.reshape(8, -1).all(1), over)
        np.testing.assert_array_equal(changed.reshape(8, -1).any(1), over)
        problems = np.asarray(state.runs.state[1])
    counts = np.asarray(state.runs.state[0]).reshape(8, -1)
    np.testing.assert_array_equal(counts, np.broadcast_to(np.asarray(state.runs.age)[:, None], counts.shape))


@every_estimator
def test_gradients_keep_structure_and_type(name):
    theta = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones([])}
    process = Process(
        lambda key: jnp.zeros([]),
        lambda theta, state, key: (state, jnp.sum(theta["a"].astype(jnp.float32)) * theta["b"]),
        HORIZON,
    )
    estimator = ESTIMATORS[name](WINDOW)
    run = estimator.init(process, theta, KEY)
    _, gradient, after = estimator.grad(process, theta, run, KEY)
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (gradient, theta, after, run)]
    assert shapes[0] == shapes[1]
    assert shapes[2] == shapes[3]


def step_of(window=WINDOW, horizon=HORIZON, optimizer=SGD, num_runs=2, **options):
    return estimators.process_step(
        influence(horizon), estimators.truncated_backprop(window), optimizer, num_runs, **options
    )


def test_what_a_model_carries_is_not_trained_by_the_optimizer():
    """With a learned rate of 0.5 and the loss `(w - 1)^2 / 2` of `w = mean`, which only the loss reads."""

    def loss_fn(variables, batch, key):
        return 0.5 * (variables["params"]["w"] - variables["batch_stats"]["mean"]) ** 2, {}

    variables = {"params": {"w": jnp.array(3.0)}, "batch_stats": {"mean": jnp.array(1.0)}}
    optimizer = optim.scale_by_learned_rate(0.5)
    theta, _ = jaxmeta.partition(optimizer.init(jaxmeta.split(variables)[0]))
    process = estimators.optimizer_training(
        optimizer, loss_fn, lambda key: estimators.Problem(variables, ()), horizon=2
    )
    run, losses = jax.lax.scan(
        lambda run, key: process.step(theta, run, key), process.reset(KEY), jax.random.split(KEY)
    )
    assert losses.tolist() == [2.0, 0.5]
    assert (float(run.params["params"]["w"]), float(run.params["batch_stats"]["mean"])) == (1.5, 1.0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: estimators.truncated_backprop(0), ValueError, "window must be an integer of at least 1, got 0"),
        (lambda: estimators.truncated_evolution(1.5), ValueError, "window must be an integer of at least 1, got 1.5"),
        (lambda: estimators.truncated_evolution(1, scale=0.0), ValueError, "scale must be a positive number, got 0.0"),
        (lambda: estimators.persistent_evolution(0), ValueError, "window must be an integer"),
        (
            lambda: estimators.persistent_evolution(1, scale=np.inf),
            ValueError,
            "scale must be a positive number, got inf",
        ),
        (lambda: step_of(window=5), ValueError, r"horizon must be a multiple of the window \(5\), got 12"),
        (lambda: step_of(horizon=0), ValueError, "horizon must be an integer of at least 1, got 0"),
        (lambda: step_of(num_runs=0), ValueError, "num_runs must be an integer of at least 1, got 0"),
        (lambda: step_of(batch_size=0), ValueError, "batch_size must be an integer of at least 1, got 0"),
        (lambda: step_of(optimizer=0.1), TypeError, "optimizer must be an optax.GradientTransformation"),
        (
            lambda: estimators.optimizer_training(0.1, quadratic, family, horizon=1),
            TypeError,
            "optimizer must be an optax.GradientTransformation",
        ),
        (
            lambda: estimators.optimizer_training(optax.sgd(0.1), quadratic, family, horizon=0),
            ValueError,
            "horizon must be an integer of at least 1, got 0",
        ),
        *[
            (
                lambda m=meta_gradient: estimators.optimizer_training(
                    SGD, quadratic, family, horizon=1, meta_gradient=m
                ),
                ValueError,
                "meta_gradient must go through the inner steps here",
            )
            for meta_gradient in (jaxmeta.implicit(), jaxmeta.evolution())
        ],
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
