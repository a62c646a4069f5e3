# pyright: reportArgumentType=false
"""meta_step, evaluate, summarize: the batch over tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from scipy import stats

import jaxmeta
from jaxmeta import MetaLearner, data, models

MODEL = models.MLP(sizes=(8,))
LEARNER = jaxmeta.maml(jaxmeta.regression(MODEL.apply), optax.sgd(0.01))
SAMPLER = data.Sinusoid(shots=3, queries=4)
META = LEARNER.init(MODEL.init(jax.random.key(0), SAMPLER.example))
KEY = jax.random.key(1)


def task_grad(meta, key):
    """What `meta_step` does for one of its keys."""
    task_key, learner_key = jax.random.split(key)
    return LEARNER.grad(meta, SAMPLER(task_key), learner_key)


def assert_close(actual, expected, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), actual, expected)


@pytest.fixture(scope="module")
def mean_of_five():
    results = jax.jit(jax.vmap(task_grad, (None, 0)))(META, jax.random.split(KEY, 5))
    return jax.tree.map(lambda x: x.mean(0), results)


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 5, 100])  # 2 and 3 leave 1 and 2 tasks over
def test_step_is_the_mean_over_tasks_however_they_are_batched(batch_size, mean_of_five):
    optimizer = optax.sgd(0.1, momentum=0.9)
    opt_state = optimizer.init(META)
    metrics, grads = mean_of_five
    updates, new_state = optimizer.update(grads, opt_state, META)
    step = jax.jit(jaxmeta.meta_step(LEARNER, optimizer, 5, batch_size=batch_size))
    assert_close(step(META, opt_state, SAMPLER, KEY), (optax.apply_updates(META, updates), new_state, metrics))


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_step_traces_once_and_stays_on_the_device(batch_size):
    traces = []

    def grad(meta, task, key):
        traces.append(1)
        return LEARNER.grad(meta, task, key)

    optimizer = optax.adam(1e-3)
    step = jax.jit(jaxmeta.meta_step(LEARNER._replace(grad=grad), optimizer, 4, batch_size=batch_size))
    meta, opt_state, sampler, key = jax.device_put((META, optimizer.init(META), SAMPLER, KEY))
    meta, opt_state, _ = step(meta, opt_state, sampler, key)
    traced = len(traces)
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            meta, opt_state, _ = step(meta, opt_state, sampler, key)
    assert len(traces) == traced, "traced again"


def test_batch_size_of_one_has_no_batch_axis():
    """One task at a time is the fast way on a CPU only if the model sees no batch of tasks."""
    seen = []

    def apply(params, x):
        seen.append(type(x).__name__)
        return MODEL.apply(params, x)

    learner = jaxmeta.maml(jaxmeta.regression(apply), optax.sgd(0.01))
    jax.jit(jaxmeta.evaluate(learner, 3, batch_size=1)).lower(META, SAMPLER, KEY)
    jax.jit(jaxmeta.meta_step(learner, optax.sgd(0.1), 3, batch_size=1)).lower(
        META, optax.sgd(0.1).init(META), SAMPLER, KEY
    )
    assert seen
    assert "BatchTracer" not in seen


@pytest.mark.parametrize(
    "build", [lambda **k: jaxmeta.meta_step(LEARNER, optax.sgd(1.0), **k), lambda **k: jaxmeta.evaluate(LEARNER, **k)]
)
@pytest.mark.parametrize("sizes", [{"num_tasks": 0}, {"num_tasks": -1}, {"num_tasks": 2, "batch_size": 0}])
def test_bad_sizes_are_named(build, sizes):
    with pytest.raises(ValueError, match=f"{list(sizes)[-1]} must be at least 1"):
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
        step = jaxmeta.meta_step(learner, optimizer, 1000, batch_size=batch_size)
        new, _, metrics = jax.jit(step)(meta, optimizer.init(meta), SAMPLER, KEY)
        assert metrics["loss"].dtype == jnp.bfloat16
        assert (float(metrics["loss"]), float(new.params)) == (1.0, -1.0)


@pytest.mark.parametrize("batch_size", [None, 2, 5])
def test_evaluate_gives_one_value_per_task(batch_size):
    @jax.jit
    def by_hand(key):
        task_key, adapt_key, loss_key = jax.random.split(key, 3)
        task = SAMPLER(task_key)
        return LEARNER.loss(LEARNER.adapt(META, task.support, adapt_key), task.query, loss_key)[0]

    metrics = jax.jit(jaxmeta.evaluate(LEARNER, 5, batch_size=batch_size))(META, SAMPLER, KEY)
    assert_close(metrics, {"loss": jnp.stack([by_hand(key) for key in jax.random.split(KEY, 5)])})


def test_summary_by_hand():
    values = np.random.default_rng(0).normal(size=37).astype(np.float32)
    summary = jaxmeta.summarize({"loss": jnp.asarray(values)})["loss"]
    assert summary.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-12)
    assert summary.interval == pytest.approx(1.96 * stats.sem(values.astype(np.float64)), rel=1e-12)
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


def test_tasks_sharded_over_eight_devices_give_the_same_mean():
    assert jax.device_count() == 8, "tests/conftest.py simulates eight devices"
    auto = jax.sharding.AxisType.Auto
    mesh = jax.make_mesh((8,), ("tasks",), axis_types=(auto,))

    def shard(meta, keys):
        # Derivatives with respect to a value that is the same on all devices are summed over the devices, those of the
        # inner loop too: tell JAX that each device has parameters of its own.
        meta = jax.lax.pcast(meta, "tasks", to="varying")
        local = jax.tree.map(lambda x: x.mean(0), jax.lax.map(lambda key: task_grad(meta, key), keys))
        return jax.lax.pmean(local, "tasks")

    sharded = jax.shard_map(
        shard, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec("tasks")), out_specs=PartitionSpec()
    )
    metrics, grads = jax.jit(sharded)(META, jax.random.split(KEY, 16))
    optimizer = optax.sgd(1.0)
    step = jax.jit(jaxmeta.meta_step(LEARNER, optimizer, 16))
    meta, _, expected = step(META, optimizer.init(META), SAMPLER, KEY)
    assert_close((metrics, grads), (expected, jax.tree.map(jnp.subtract, META, meta)))
