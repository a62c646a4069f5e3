# pyright: reportArgumentType=false
"""Every optax optimizer where jaxmeta takes one: the extra arguments it needs, or a refusal by name."""

import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from optax import contrib

import jaxmeta
from jaxmeta import Batch, Task, estimators, optim
from jaxmeta.training import pretrain_step

KEY = jax.random.key(0)
START = jnp.array([1.0, -2.0])
TARGET = jnp.array([0.5, 1.0])
# Optimizers whose update takes the loss, its gradient, or the function.
WITH_VALUE = {
    "polyak_sgd": optax.polyak_sgd(0.1),
    "momo": contrib.momo(0.1),
    "momo_adam": contrib.momo_adam(0.1),
    "plateau": optax.chain(optax.sgd(0.1), contrib.reduce_on_plateau(patience=1)),
    "multi_steps": optax.MultiSteps(optax.polyak_sgd(0.1), 2).gradient_transformation(),
    "learned": optim.learn(optax.polyak_sgd, max_learning_rate=0.1),
}
LINE_SEARCHES = {
    "lbfgs": optax.lbfgs(),
    "backtracking": optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(10)),
    "multi_steps_lbfgs": optax.MultiSteps(optax.lbfgs(), 2).gradient_transformation(),
}
with_value = pytest.mark.parametrize("name", WITH_VALUE)
line_searches = pytest.mark.parametrize("name", LINE_SEARCHES)


def loss_fn(w, target, key):
    return jnp.sum(jnp.array([1.0, 3.0]) * (w - target) ** 2) + jnp.sum(w**4), {}


def by_hand(optimizer, steps, loss=lambda w: loss_fn(w, TARGET, None)[0], w=START):
    """The same steps by optax alone."""
    state = optimizer.init(w)
    for _ in range(steps):
        value, grads = jax.value_and_grad(loss)(w)
        extra = {"value": value, "grad": grads, "value_fn": loss}
        updates, state = optimizer.update(grads, state, w, **extra)
        w = optax.apply_updates(w, updates)
    return w


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), found, expected)


@pytest.mark.parametrize("name", WITH_VALUE | LINE_SEARCHES)
def test_inner_steps_are_those_of_optax(name):
    optimizer = (WITH_VALUE | LINE_SEARCHES)[name]
    found = jax.jit(lambda w: jaxmeta.adapt(loss_fn, optimizer, w, TARGET, KEY, steps=3))(START)
    close(found, jax.jit(lambda w: by_hand(optimizer, 3, w=w))(START))


@with_value
def test_derivatives_go_through_the_value(name):
    optimizer = WITH_VALUE[name]
    ours = jax.grad(lambda w: jnp.sum(jaxmeta.adapt(loss_fn, optimizer, w, TARGET, KEY, steps=2)))
    plain = jax.grad(lambda w: jnp.sum(by_hand(optimizer, 2, w=w)))
    close(jax.jit(ours)(START), jax.jit(plain)(START))


@pytest.mark.parametrize("name", ["lbfgs", "backtracking"])
@pytest.mark.parametrize(
    ("make", "steps"),
    [(jaxmeta.reverse, 1), (jaxmeta.reverse, 2), (jaxmeta.mixed, 2), (jaxmeta.first_order, 2)],
    ids=["reverse-1", "reverse", "mixed", "first-order"],
)
def test_line_searches_have_no_derivative(name, make, steps):
    learner = jaxmeta.maml(loss_fn, LINE_SEARCHES[name], steps, meta_gradient=make())
    meta = learner.init(START)
    with pytest.raises(TypeError, match="inner must not be a line search or optax.lbfgs where"):
        jax.eval_shape(learner.grad, meta, Task(TARGET, TARGET), KEY)


@line_searches
def test_line_searches_reach_the_minimum_that_implicit_differentiates(name):
    """`w = argmin a (w - t)^2 + |w - w0|^2 / 2` moves by `1 / (1 + 2 a)` of `w0`."""

    def quadratic(w, target, key):
        return jnp.sum(jnp.array([1.0, 3.0]) * (w - target) ** 2), {}

    learner = jaxmeta.maml(quadratic, LINE_SEARCHES[name], 30, meta_gradient=jaxmeta.implicit(jaxmeta.cg(2)))
    task = Task(TARGET, jnp.zeros(2))
    _, grads = jax.jit(learner.grad)(learner.init(START), task, KEY)
    a = np.array([1.0, 3.0])
    w = (START + 2 * a * TARGET) / (1 + 2 * a)
    np.testing.assert_allclose(grads.params, 2 * a * w / (1 + 2 * a), rtol=5e-3)


class Line(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x)


@pytest.mark.parametrize("name", ["momo", "lbfgs"])
def test_pretraining_gives_the_loss_and_its_function(name):
    optimizer = (WITH_VALUE | LINE_SEARCHES)[name]
    batch = Batch(jnp.array([[0.0, 1.0], [2.0, -1.0]]), jnp.array([0, 1]))
    training = pretrain_step(Line(), optimizer)
    state = training.init(Line().init(KEY, batch.x))
    new, _ = jax.jit(lambda state: training.step(state, KEY, lambda key: batch))(state)
    loss = lambda params: jaxmeta.classification(Line().apply)(params, batch, KEY)[0]  # noqa: E731
    close(new.meta, jax.jit(lambda params: by_hand(optimizer, 1, loss, params))(state.meta))


def processes(optimizer):
    process = estimators.Process(
        lambda key: jnp.zeros([]), lambda theta, state, key: (state, jnp.sum((theta - TARGET) ** 2)), 4
    )
    return estimators.process_step(process, estimators.truncated_backprop(2), optimizer, 2)


@with_value
def test_processes_give_the_loss(name):
    training = processes(WITH_VALUE[name])
    state, _ = jax.jit(training.step)(training.init(START, KEY), KEY)
    close(state.meta, by_hand(WITH_VALUE[name], 1, lambda theta: jnp.sum((theta - TARGET) ** 2)))


@line_searches
def test_processes_refuse_line_searches(name):
    training = processes(LINE_SEARCHES[name])
    state = training.init(START, KEY)
    with pytest.raises(TypeError, match="optimizer must not evaluate the loss at other parameters in process_step"):
        jax.eval_shape(training.step, state, KEY)


def test_multi_steps_is_told_how_it_becomes_a_transformation():
    with pytest.raises(TypeError, match=r"inner must be .*: call MultiSteps\(...\).gradient_transformation\(\)"):
        jaxmeta.maml(loss_fn, optax.MultiSteps(optax.sgd(0.1), 2))


@pytest.mark.parametrize(
    "factory",
    [
        optax.inject_hyperparams(optax.sgd),
        lambda learning_rate: optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.adam)(learning_rate)),
    ],
    ids=["itself", "inside-a-chain"],
)
def test_learn_refuses_hyper_parameters_that_the_state_keeps(factory):
    inner = optim.learn(factory, positive="learning_rate", learning_rate=0.1)
    with pytest.raises(ValueError, match="factory must not keep the hyper-parameters in its initial state"):
        jax.jit(inner.init)(START)


@pytest.mark.parametrize(
    "inner",
    [
        optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
        optax.chain(optax.adaptive_grad_clip(0.1), optax.sgd(0.1)),
        optax.adam(0.1),
        optax.radam(0.1),
        optax.rmsprop(0.1),
        optax.lars(0.1),
        optax.polyak_sgd(0.1),
        contrib.momo(0.1),
    ],
    ids=["clip", "adaptive-clip", "adam", "radam", "rmsprop", "lars", "polyak", "momo"],
)
@pytest.mark.parametrize("steps", [1, 2])
def test_tasks_without_a_gradient_have_a_meta_gradient(inner, steps):
    """The support loss is constant, so that the meta-gradient is that of the query loss at the initial parameters."""

    def flat_on_support(w, target, key):
        return jnp.sum(target * (w["kernel"] - 1.0) ** 2) + jnp.sum(target * w["bias"]), {}

    start = {"kernel": jnp.array([[1.5, -2.0]]), "bias": jnp.zeros(2)}
    learner = jaxmeta.maml(flat_on_support, inner, steps)
    _, grads = jax.jit(learner.grad)(learner.init(start), Task(jnp.array(0.0), jnp.array(1.0)), KEY)
    close(grads.params, {"kernel": 2.0 * (start["kernel"] - 1.0), "bias": jnp.ones(2)})


OPTIMIZERS = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "optimizers.py"))
PAGE = OPTIMIZERS["PAGE"].read_text(encoding="utf-8")
SAMPLE = ("adam", "clip_by_global_norm", "lbfgs", "contrib.dog", "contrib.galore", "contrib.sam", "contrib.sophia")


def test_the_page_has_every_optimizer():
    names = [name for name, _ in OPTIMIZERS["optimizers"]()]
    on_page = re.findall(r"^\| `([\w.]+)` \|", PAGE, re.M)
    assert [name for name in on_page if name in names] == names  # an older optax has fewer
    assert set(SAMPLE) < set(names)


@pytest.mark.parametrize("name", SAMPLE)
@pytest.mark.quick("adam")
def test_the_page_is_current(name):
    """The rows of the others are made anew by `python docs/optimizers.py`."""
    assert OPTIMIZERS["row"](name, dict(OPTIMIZERS["optimizers"]())[name]) in PAGE.splitlines()
