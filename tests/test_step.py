# pyright: reportArgumentType=false
"""meta_step, evaluate, summarize: the batch over tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy

import jaxmeta
from jaxmeta import MetaLearner, Task, data, models

MODEL = models.MLP(sizes=(8,))
LEARNER = jaxmeta.maml(jaxmeta.regression(MODEL.apply), optax.sgd(0.01))
SAMPLER = data.Sinusoid(shots=3, queries=4)
KEY = jax.random.key(1)


@pytest.fixture(scope="module")
def meta():
    return LEARNER.init(jax.jit(MODEL.init)(jax.random.key(0), SAMPLER.example))


def assert_close(actual, expected, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), actual, expected)


def uniform(key):
    """A task that is a number in [0, 1)."""
    number = jax.random.uniform(key)
    return Task(number, number)


def number_grad(meta, task, key):
    """The meta-gradient of a task is its number."""
    return {"loss": task.support, "square": task.support**2}, jaxmeta.MetaParams(task.support)


NUMBERS = MetaLearner(jaxmeta.MetaParams, lambda meta, x, key: x, lambda x, query, key: (x + query, {}), number_grad)


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 5, 100])  # 2 and 3 leave 1 and 2 tasks over
def test_step_is_the_mean_over_tasks_however_they_are_batched(batch_size):
    """With momentum 0.9 the second update is 1.9 times the first gradient plus what is new in the second."""
    optimizer = optax.sgd(0.1, momentum=0.9)
    training = jaxmeta.meta_step(NUMBERS, optimizer, 5, batch_size=batch_size)
    start = training.init(jaxmeta.MetaParams(jnp.float32(2.0)))
    step = jax.jit(training.step)
    first, metrics = step(start, KEY, jax.tree_util.Partial(uniform))
    second, later = step(first, jax.random.key(2), jax.tree_util.Partial(uniform))
    np.testing.assert_allclose(first.meta.params, 2.0 - 0.1 * metrics["loss"], rtol=1e-6)
    trace = 0.9 * metrics["loss"] + later["loss"]
    np.testing.assert_allclose(second.meta.params, first.meta.params - 0.1 * trace, rtol=1e-6)
    assert (int(start.update), int(second.update)) == (0, 2)
    alone = jaxmeta.meta_step(NUMBERS, optimizer, 5, batch_size=1)
    assert_close(metrics, jax.jit(alone.step)(start, KEY, jax.tree_util.Partial(uniform))[1])


def test_tasks_are_independent_draws():
    """Mean, and mean square, of a thousand uniform numbers."""
    training = jaxmeta.meta_step(NUMBERS, optax.sgd(0.1), 1000, batch_size=1000)
    state = training.init(jaxmeta.MetaParams(jnp.float32(0.0)))
    _, metrics = jax.jit(training.step)(state, KEY, jax.tree_util.Partial(uniform))
    assert abs(float(metrics["loss"]) - 1 / 2) < 4 * (1 / 12 / 1000) ** 0.5
    assert abs(float(metrics["square"]) - 1 / 3) < 4 * (4 / 45 / 1000) ** 0.5


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_step_traces_once_and_stays_on_the_device(batch_size, meta):
    traces = []

    def grad(meta, task, key):
        traces.append(1)
        return LEARNER.grad(meta, task, key)

    optimizer = optax.adam(1e-3)
    training = jaxmeta.meta_step(LEARNER._replace(grad=grad), optimizer, 4, batch_size=batch_size)
    step = jax.jit(training.step)
    state, sampler, key = jax.device_put((training.init(meta), SAMPLER, KEY))
    state, _ = step(state, key, sampler)
    traced = len(traces)
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            state, _ = step(state, key, sampler)
    assert len(traces) == traced, "traced again"


def test_batch_size_of_one_has_no_batch_axis(meta):
    """One task at a time is the fast way on a CPU only if the model sees no batch of tasks."""
    seen = []

    def apply(params, x):
        seen.append(type(x).__name__)
        return MODEL.apply(params, x)

    learner = jaxmeta.maml(jaxmeta.regression(apply), optax.sgd(0.01))
    jax.eval_shape(jaxmeta.evaluate(learner, 3, batch_size=1), meta, SAMPLER, KEY)
    training = jaxmeta.meta_step(learner, optax.sgd(0.1), 3, batch_size=1)
    jax.eval_shape(training.step, training.init(meta), KEY, SAMPLER)
    assert seen
    assert "BatchTracer" not in seen


@pytest.mark.parametrize(
    "build", [lambda **k: jaxmeta.meta_step(LEARNER, optax.sgd(1.0), **k), lambda **k: jaxmeta.evaluate(LEARNER, **k)]
)
@pytest.mark.parametrize("sizes", [{"num_tasks": 0}, {"num_tasks": -1}, {"num_tasks": 2, "batch_size": 0}])
def test_bad_sizes_are_named(build, sizes):
    with pytest.raises(ValueError, match=f"{list(sizes)[-1]} must be an integer of at least 1"):
        build(**sizes)


def test_half_precision_is_accumulated_in_float32():
    """A running sum in bfloat16 of 1000 ones stops at 256."""
    ones = {"loss": jnp.ones((), jnp.bfloat16)}
    meta = jaxmeta.MetaParams(jnp.zeros((), jnp.bfloat16))
    learner = MetaLearner(
        jaxmeta.MetaParams,
        lambda *_: (),
        lambda *_: (),
        lambda meta, task, key: (ones, meta._replace(params=jnp.ones((), jnp.bfloat16))),
    )
    optimizer = optax.sgd(1.0)
    for batch_size in (1, 7):
        training = jaxmeta.meta_step(learner, optimizer, 1000, batch_size=batch_size)
        state, metrics = jax.jit(training.step)(training.init(meta), KEY, SAMPLER)
        assert metrics["loss"].dtype == jnp.bfloat16
        assert (float(metrics["loss"]), float(state.meta.params)) == (1.0, -1.0)


@pytest.mark.parametrize("batch_size", [None, 2, 5])
def test_evaluate_gives_one_value_per_task(batch_size):
    """The learner adapts to the support set, a number, and adds the query set, the same number."""
    run = jax.jit(jaxmeta.evaluate(NUMBERS, 5, batch_size=batch_size))
    losses = run(jaxmeta.MetaParams(()), jax.tree_util.Partial(uniform), KEY)["loss"]
    assert losses.shape == (5,) and len(set(losses.tolist())) == 5
    assert losses.min() >= 0 and losses.max() < 2
    alone = jax.jit(jaxmeta.evaluate(NUMBERS, 5, batch_size=1))
    assert_close(losses, alone(jaxmeta.MetaParams(()), jax.tree_util.Partial(uniform), KEY)["loss"])


def test_summary_by_hand():
    values = np.random.default_rng(0).normal(size=37).astype(np.float32)
    summary = jaxmeta.summarize({"loss": jnp.asarray(values)})["loss"]
    assert summary.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-12)
    assert summary.interval == pytest.approx(1.96 * scipy.stats.sem(values.astype(np.float64)), rel=1e-12)
    assert summary.median == np.median(values)
    assert (summary.finite, summary.num_tasks) == (1.0, 37)


@pytest.mark.parametrize(
    ("values", "mean", "median", "finite"),
    [
        ([1.0, 2.0, 3.0, np.inf], np.inf, 2.5, 0.75),
        ([1.0, np.nan, 3.0, 4.0], np.nan, 3.5, 0.75),
        ([np.inf, -np.inf], np.nan, np.nan, 0.0),
        ([2.0], 2.0, 2.0, 1.0),
    ],
)
def test_summary_of_values_that_are_not_finite(values, mean, median, finite):
    summary = jaxmeta.summarize({"loss": jnp.array(values)})["loss"]
    np.testing.assert_equal(summary, (mean, np.nan, median, finite, len(values)))


@pytest.mark.parametrize("shape", [(), (5, 3)])
def test_a_summary_is_of_one_number_per_task(shape):
    with pytest.raises(ValueError, match=r"metrics must be arrays \[num_tasks\], got shape .* for 'each'"):
        jaxmeta.summarize({"each": jnp.ones(shape)})


IMAGES = data.FewShot.from_classes(
    np.random.default_rng(0).normal(size=(9, 4, 3)).astype(np.float32), ways=2, queries=2
)
NET = models.MLP(sizes=(4,), out=2)
OF_CLASSES = jaxmeta.classification(NET)
FOLLOWED = {  # learners with the number of steps at test
    "momentum": lambda steps: jaxmeta.maml(OF_CLASSES, optax.sgd(0.5, momentum=0.9), test_steps=steps),
    "head": lambda steps: jaxmeta.anil(OF_CLASSES, optax.adam(0.5, eps_root=1e-8), test_steps=steps),
    "minibatches": lambda steps: jaxmeta.reptile(OF_CLASSES, optax.sgd(0.5), batch_size=1, test_steps=steps),
    "implicit": lambda steps: jaxmeta.maml(
        OF_CLASSES, optax.sgd(0.5), test_steps=steps, meta_gradient=jaxmeta.implicit()
    ),
}


@pytest.mark.parametrize("name", FOLLOWED)
@pytest.mark.quick("minibatches")
def test_details_hold_what_the_metrics_are_made_of(name):
    def measure(steps):
        learner = FOLLOWED[name](steps)
        meta = learner.init(NET.init(jax.random.key(0), IMAGES.example))
        return jax.jit(jaxmeta.evaluate(learner, 4, details=True))(meta, IMAGES, KEY)

    metrics, details = measure(2)
    answers = np.argmax(details.outputs, axis=-1) == details.y
    np.testing.assert_allclose(answers.mean(axis=1), metrics["accuracy"], rtol=1e-6)
    assert details.weight is None and details.class_ids.shape == (4, 2) and details.steps["loss"].shape == (4, 3)
    for steps, given in ((0, {}), (2, {"batch_size": 3})):
        learner = FOLLOWED[name](steps)
        meta = learner.init(NET.init(jax.random.key(0), IMAGES.example))
        plain = jax.jit(jaxmeta.evaluate(learner, 4, **given))(meta, IMAGES, KEY)
        assert_close({k: details.steps[k][:, steps] for k in plain}, plain)


def test_a_learner_that_does_not_know_its_model_has_no_predictions():
    _, details = jax.jit(jaxmeta.evaluate(NUMBERS, 2, details=True))(0.0, jax.tree_util.Partial(uniform), KEY)
    assert details == (None, None, None, None, None)
