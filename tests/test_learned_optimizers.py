# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
"""The learned optimizers against numpy, at their start, in second order, and saved for someone else's loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import Batch, Task, models, optim
from jaxmeta.testing import check_meta_gradient

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
MOMENTA, SECOND, SCALE, HIDDEN = (0.5, 0.9), 0.99, 0.1, 3


def lstm(nominal, **options):
    return optim.learned_lstm(nominal, hidden=HIDDEN, step_scale=SCALE, **options)


def mlp(nominal, **options):
    options = {"momenta": MOMENTA, "second_moment": SECOND, "step_scale": SCALE, **options}
    return optim.learned_mlp(nominal, sizes=(4, HIDDEN), **options)


MAKERS = {"lstm": lstm, "mlp": mlp}
every_maker = pytest.mark.parametrize("name", MAKERS)
KERNEL = jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32)
PARAMS = {"kernel": KERNEL, "bias": jnp.array([0.5, -2.0]), "gain": jnp.ones([])}


def gradient_like(params):
    return jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape), p.dtype), params)


def moved(name, amount=0.3):
    """Weights whose last layer is not zero."""
    weights = MAKERS[name](optax.identity(), key=KEY).init({}).weights.value
    return jax.tree.map(lambda w: w + amount * jnp.asarray(RNG.normal(size=w.shape), w.dtype), weights)


def run(optimizer, params, gradients):
    """The update of each step, parameters fixed."""
    state, found = optimizer.init(params), []
    for gradient in gradients:
        updates, state = jax.jit(optimizer.update)(gradient, state, params)
        found.append(updates)
    return found


@every_maker
def test_starts_as_the_nominal_optimizer(name):
    """Several steps of Adam under a schedule, to the bit, in one chain with clipping."""
    nominal = optax.adam(optax.linear_schedule(0.1, 0.0, 5))
    clip = optax.clip_by_global_norm(0.5)
    gradients = [gradient_like(PARAMS) for _ in range(4)]
    ours = run(optax.chain(clip, MAKERS[name](nominal, key=KEY)), PARAMS, gradients)
    theirs = run(optax.chain(clip, nominal), PARAMS, gradients)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def lstm_in_numpy(weights, gradients, params):
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    hidden, cell, found = np.zeros((2, HIDDEN)), np.zeros((2, HIDDEN)), []
    for g in gradients:
        x = np.array([np.log(abs(g)) / 10, np.sign(g)] if abs(g) >= np.exp(-10) else [-1.0, np.exp(10) * g])
        for i in range(2):
            layer = weights[f"cell_{i}"]
            into, forget, new, out = np.split(np.concatenate([x, hidden[i]]) @ layer["kernel"] + layer["bias"], 4)
            cell[i] = sigmoid(forget + 1) * cell[i] + sigmoid(into) * np.tanh(new)
            x = hidden[i] = sigmoid(out) * np.tanh(cell[i])
        found.append(-SCALE * (x @ weights["out"]["kernel"] + weights["out"]["bias"])[0])
    return found


def test_lstm_equals_numpy_one_coordinate_at_a_time():
    weights = moved("lstm")
    values = RNG.normal(size=(5, 2, 3)) * 10.0 ** RNG.integers(-6, 3, size=(5, 2, 3))
    values[:, 0, 0] = 0.0
    found = run(lstm(optax.set_to_zero(), weights=weights), jnp.ones((2, 3)), jnp.asarray(values, jnp.float32))
    weights = jax.tree.map(np.float64, weights)
    expected = [lstm_in_numpy(weights, series, None) for series in values.reshape(5, 6).T]
    np.testing.assert_allclose(np.stack(found).reshape(5, 6).T, expected, rtol=1e-4, atol=1e-6)


def mlp_in_numpy(weights, gradients, param):
    """One tensor, as a list of its coordinates."""
    first, second, found = np.zeros((2, param.size)), np.zeros(param.size), []
    for t, g in enumerate(gradients):
        first = np.array([d * m + (1 - d) * g for d, m in zip(MOMENTA, first, strict=True)])
        second = SECOND * second + (1 - SECOND) * g**2
        means = [m / (1 - d ** (t + 1)) for d, m in zip(MOMENTA, first, strict=True)]
        square = second / (1 - SECOND ** (t + 1)) + 1e-10
        scales = np.array([1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5])
        steps = []
        for i in range(param.size):
            x = [v[i] / np.sqrt(np.mean(v**2) + 1e-10) for v in (g, *means, param)]
            x += [v[i] / np.sqrt(square[i]) for v in (g, *means)]
            x += [0.1 * np.log(square[i] / np.mean(square)), *np.tanh(t / scales - 1)]
            for layer in ("layer_0", "layer_1"):
                x = np.maximum(0, x @ weights[layer]["kernel"] + weights[layer]["bias"])
            direction, magnitude = x @ weights["out"]["kernel"] + weights["out"]["bias"]
            steps.append(-SCALE * direction * np.exp(magnitude))
        found.append(steps)
    return found


@pytest.mark.parametrize("shape", [(2, 3), (4,), ()])
def test_mlp_equals_numpy_one_coordinate_at_a_time(shape):
    weights = moved("mlp")
    param, values = RNG.normal(size=shape), RNG.normal(size=(4, *shape))
    optimizer = mlp(optax.set_to_zero(), weights=weights)
    found = run(optimizer, jnp.asarray(param, jnp.float32), jnp.asarray(values, jnp.float32))
    expected = mlp_in_numpy(jax.tree.map(np.float64, weights), values.reshape(4, -1), param.reshape(-1))
    np.testing.assert_allclose(np.stack(found).reshape(4, -1), expected, rtol=1e-3, atol=1e-5)


def test_mlp_does_not_see_the_scale_of_the_loss():
    optimizer = mlp(optax.set_to_zero(), weights=moved("mlp"))
    gradients = [gradient_like(PARAMS) for _ in range(3)]
    large = [jax.tree.map(lambda g: 1000 * g, gradient) for gradient in gradients]
    found, scaled = run(optimizer, PARAMS, gradients), run(optimizer, PARAMS, large)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, scaled)


@every_maker
@pytest.mark.quick("mlp")
def test_derivatives_are_finite(name):
    """First and second ones, by weights and gradients, also where a gradient is zero, tiny or large."""
    params = jnp.zeros(3)
    optimizer = MAKERS[name](optax.sgd(0.1), weights=moved(name))
    learned, rest = jaxmeta.partition(optimizer.init(params))

    def second_update(learned, gradient):
        _, state = optimizer.update(gradient, jaxmeta.combine(learned, rest), params)
        return optimizer.update(gradient, state, params)[0]

    def slope(learned, gradient):
        pull_back = jax.vjp(second_update, learned, gradient)[1]
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(pull_back(jnp.ones(3))))

    sizes = jnp.array([0.0, 1e-20, 1e-3, 1e4])
    gradients = sizes[:, None] * jnp.array([1.0, -1.0, 0.0])[None]
    derivatives = jax.jit(jax.vmap(jax.value_and_grad(slope, argnums=(0, 1)), (None, 0)))(learned, gradients)
    for leaf in jax.tree.leaves(derivatives):
        assert bool(jnp.all(jnp.isfinite(leaf)))


@every_maker
@pytest.mark.quick("mlp")
def test_meta_gradient_of_moved_weights_equals_finite_differences(name):
    """In the table of transformations the last layer is zero, which hides most of the network."""
    model = jaxmeta.regression(lambda p, x: jnp.tanh(x @ p))
    x, y = jnp.asarray(RNG.normal(size=(4, 3))), jnp.asarray(RNG.normal(size=(4, 2)))
    inner = MAKERS[name](optax.sgd(0.1), weights=moved(name, 0.1))
    check_meta_gradient(jaxmeta.maml(model, inner, steps=2), KERNEL, Task(Batch(x, y), Batch(x + 1, y)))


@pytest.mark.slow
def test_saved_and_used_in_a_plain_optax_loop(tmp_path):
    """Meta-train a little, save; load and train another model with optax alone: as the meta-trained state would."""
    nominal = optax.sgd(0.05)
    optimizer = mlp(nominal, key=KEY)
    process = jaxmeta.estimators.optimizer_training(
        optimizer,
        lambda w, target, key: (jnp.sum((w - target) ** 2), {}),
        lambda key: jaxmeta.estimators.Problem(jnp.zeros(2), jax.random.normal(key, (2,))),
        horizon=4,
    )
    theta, _ = jaxmeta.partition(optimizer.init(jnp.zeros(2)))
    estimator = jaxmeta.estimators.truncated_backprop(4)
    train = jaxmeta.estimators.process_step(process, estimator, optax.adam(1e-2), num_runs=4)
    state, metrics = jax.jit(lambda state, keys: jax.lax.scan(train.step, state, keys))(
        train.init(theta, KEY), jax.random.split(KEY, 30)
    )
    assert float(metrics["loss"][-5:].mean()) < float(metrics["loss"][:5].mean())
    jaxmeta.save(tmp_path / "optimizer", state.meta.weights.value)

    model = models.MLP(sizes=(4,))
    x = jnp.linspace(-1.0, 1.0, 8)[:, None]

    def losses(optimizer, weights):
        params = model.init(KEY, x)
        opt_state = optimizer.init(params)
        if weights is not None:
            opt_state = opt_state._replace(weights=jaxmeta.Learned(weights))

        @jax.jit
        def step(params, opt_state):
            loss, grads = jax.value_and_grad(lambda p: jnp.mean((model.apply(p, x) - x**2) ** 2))(params)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, loss

        found = []
        for _ in range(5):
            params, opt_state, loss = step(params, opt_state)
            found.append(float(loss))
        return found

    loaded = mlp(nominal, weights=jaxmeta.load(tmp_path / "optimizer"))
    assert losses(loaded, None) == losses(optimizer, state.meta.weights.value)
    assert losses(loaded, None) != losses(optimizer, None)


LSTM, MLP, SGD = optim.learned_lstm, optim.learned_mlp, optax.sgd(0.1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LSTM(0.1, key=KEY), TypeError, "nominal must be an optax.GradientTransformation"),
        (lambda: MLP(0.1, key=KEY), TypeError, "nominal must be an optax.GradientTransformation"),
        (lambda: LSTM(SGD), ValueError, "give either weights or a key for initial ones, got neither"),
        (lambda: MLP(SGD, key=KEY, weights={}), ValueError, "ones, got both"),
        (lambda: LSTM(SGD, key=KEY, hidden=0), ValueError, "hidden must be an integer of at least 1, got 0"),
        (lambda: LSTM(SGD, key=KEY, layers=0), ValueError, "layers must be an integer of at least 1, got 0"),
        (lambda: LSTM(SGD, key=KEY, step_scale=np.inf), ValueError, "step_scale must be a finite number, got inf"),
        (lambda: MLP(SGD, key=KEY, sizes=()), ValueError, "sizes must have at least one hidden layer"),
        (lambda: MLP(SGD, key=KEY, sizes=(4, 0)), ValueError, r"sizes\[1\] must be an integer of at least 1, got 0"),
        (
            lambda: MLP(SGD, key=KEY, momenta=(1.0,)),
            ValueError,
            r"momenta\[0\] must be a number of at least 0 and",
        ),
        (
            lambda: MLP(SGD, key=KEY, second_moment=-0.1),
            ValueError,
            "second_moment must be a number of at least 0",
        ),
        (
            lambda: lstm(SGD, weights={**moved("lstm"), "out": {"kernel": np.ones((2, 1)), "bias": np.ones(1)}}),
            ValueError,
            r"weights must have the given sizes: missing is out/kernel \(3, 1\)",
        ),
        (lambda: MLP(SGD, weights=moved("mlp")), ValueError, r"missing is layer_0/bias \(16,\)"),
        (
            lambda: mlp(SGD, weights={**moved("mlp"), "more": {"bias": np.ones(1)}}),
            ValueError,
            r"weights must have the given sizes: .*unexpected is more/bias \(1,\)",
        ),
        (lambda: mlp_without_params(), ValueError, "learned_mlp needs the parameters"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def mlp_without_params():
    optimizer = MLP(SGD, key=KEY)
    optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
