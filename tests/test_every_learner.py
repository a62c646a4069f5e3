"""What holds for every few-shot learner, whatever JAX's switches, the types of the parameters and the task."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_shot_learners import GRADIENTS, HEADS, NAMES, REGRESSORS, learner_of, parameters

import jaxmeta
from jaxmeta import Batch, Task

KEY = jax.random.key(0)


def drawn(labels=(0, 1, 2, 3, 0, 1, 2, 3), *, regression=False, dtype=jnp.float32):
    """A task, whose inputs depend on the labels."""
    y = np.asarray(labels)
    rng = np.random.default_rng(0)

    def batch():
        x = rng.normal(size=(len(y), 5)) + y[:, None]
        x = jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype)  # as LEO wants its features
        return Batch(x, jnp.asarray(rng.normal(size=(len(y), 1)), dtype) if regression else jnp.asarray(y))

    return Task(batch(), batch())


def outcome(learner, params, task):
    """Metrics and meta-gradient in training, then the loss and its metrics after adaptation at test."""
    meta = learner.init(params)
    return learner.grad(meta, task, KEY), learner.loss(learner.adapt(meta, task.support, KEY), task.query, KEY)


def assert_finite(tree):
    for path, leaf in jax.tree.leaves_with_path(tree):
        assert np.isfinite(np.asarray(leaf, np.float64)).all(), jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.quick("protonet")
def test_runs_without_jit_and_where_nan_is_an_error(name):
    """With the numbers of the compiled program."""
    learner, model = learner_of(name)
    params, task = parameters(model, jnp.float32), drawn(regression=name in REGRESSORS)
    with jax.debug_nans(True):
        compiled = jax.jit(outcome, static_argnums=0)(learner, params, task)
        with jax.disable_jit():
            plain = outcome(learner, params, task)
    assert_finite(compiled)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), plain, compiled)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.quick("leo", "fine-tuning", "oml")
def test_details_change_no_metric(name):
    """They are those of the same test, with a row for each step if there are any."""
    learner, model = learner_of(name)
    task, meta = drawn(regression=name in REGRESSORS), learner.init(parameters(model, jnp.float32))
    run = jax.jit(
        lambda meta: [jaxmeta.evaluate(learner, 2, details=d)(meta, lambda _: task, KEY) for d in (False, True)]
    )
    plain, (metrics, details) = run(meta)
    assert_finite(metrics)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), metrics, plain)
    outputs = jax.tree.leaves(details.outputs)
    assert (outputs == []) == (name == "oml") and all(x.shape[:2] == (2, len(task.query.y)) for x in outputs)
    steps = {"fine-tuning": 3, "oml": len(task.support.y)}.get(name, 2)
    assert (details.steps is None) == (learner.follow is None)
    assert learner.follow is None or details.steps["loss"].shape == (2, steps + 1)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float64])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.quick("protonet-bfloat16", "maml-float16")
def test_parameters_of_any_type(name, dtype):
    """Meta-gradients have the types of the meta-parameters, metrics are at least float32, all are finite."""
    with jax.enable_x64(dtype == jnp.float64):
        learner, model = learner_of(name)
        params, task = parameters(model, dtype), drawn(regression=name in REGRESSORS, dtype=dtype)
        (metrics, grads), (loss, _) = jax.jit(outcome, static_argnums=0)(learner, params, task)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(dtype)}
    least = jnp.float64 if dtype == jnp.float64 else jnp.float32
    assert metrics["loss"].dtype == loss.dtype == least
    assert_finite((metrics, grads, loss))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.quick("protonet", "maml", "leo")
def test_tasks_of_one_class(name):
    """All support and query examples are of one class."""
    learner, model = learner_of(name)
    if name in REGRESSORS:
        pytest.skip("regression has no classes")
    results = jax.jit(outcome, static_argnums=0)(learner, parameters(model, jnp.float32), drawn([2, 2, 2]))
    assert_finite(results)
    assert results[1][1]["accuracy"] == 1 or name not in HEADS


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.quick("maml", "leo", "proto-maml")
def test_no_steps(name):
    """A rate then changes nothing, and no step of adaptation either."""
    task, results = drawn(), []
    for rate in (0.1, 0.5):
        learner, model = learner_of(name, rate, 0)
        (metrics, grads), tested = jax.jit(outcome, static_argnums=0)(learner, parameters(model, jnp.float32), task)
        results.append((metrics, grads.params, tested))
    assert_finite(results)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *results)


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.quick("maml", "meta-sgd", "cavia")
def test_rates_under_vmap(name):
    params, task = parameters(learner_of(name)[1], jnp.float32), drawn()

    def losses(rate):
        (metrics, grads), (loss, _) = outcome(learner_of(name, rate)[0], params, task)
        return metrics["loss"], jax.tree.map(jnp.sum, grads), loss

    rates = jnp.array([0.05, 0.2])
    together = jax.jit(jax.vmap(losses))(rates)
    alone = [jax.jit(losses)(rate) for rate in rates]
    for i, expected in enumerate(alone):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-4), together, expected)
    assert name == "fomaml" or together[2][0] != together[2][1]


def test_the_table_has_every_learner():
    found = {name for name, value in vars(jaxmeta).items() if inspect.isfunction(value) and returns_learner(value)}
    others = {
        "protonet-cosine": "protonet",
        "full-context": "matching_network",
        "baseline++": "baseline_plus_plus",
        "fine-tuning": "baseline",
        "maml++": "maml_plus_plus",
        "neural-process": "conditional_neural_process",
    }
    assert found - {"inner_loop", "with_head"} == {others.get(name, name.replace("-", "_")) for name in NAMES}


def returns_learner(function):
    return "MetaLearner" in str(function.__annotations__.get("return"))
