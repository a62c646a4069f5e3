"""The core: what adapts, what is carried, and who knows training from test, against loops written by hand."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from jax.tree_util import Partial

import jaxmeta
from jaxmeta import data
from jaxmeta._types import Batch, MetaParams, Task

RATE, STEPS = 0.3, 2
SGD = optax.sgd(RATE)


class LinenNet(nn.Module):
    """A network of Flax's own layers, with running statistics and dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(6, use_bias=False, param_dtype=x.dtype)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.8, param_dtype=x.dtype, dtype=x.dtype)(x)
        x = nn.Dropout(0.3, deterministic=not train)(nn.tanh(x))
        return nn.Dense(3, name="head", param_dtype=x.dtype)(x)


class NNXNet(nnx.Module):
    """The same in NNX, with a counter of its passes."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(4, 6, param_dtype=jnp.float64, rngs=rngs)
        self.norm = nnx.BatchNorm(6, momentum=0.8, param_dtype=jnp.float64, dtype=jnp.float64, rngs=rngs)
        self.norm.mean, self.norm.var = nnx.BatchStat(jnp.zeros(6)), nnx.BatchStat(jnp.ones(6))
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.head = nnx.Linear(6, 3, param_dtype=jnp.float64, rngs=rngs)
        self.passes = nnx.BatchStat(jnp.array(0))

    def __call__(self, x):
        self.passes[...] += 1
        return self.head(self.dropout(nnx.tanh(self.norm(self.hidden(x)))))


def draw_task(key, dtype=jnp.float64):
    def batch(key, n):
        return Batch(jax.random.normal(key, (n, 4), dtype), jnp.arange(n) % 3)

    first, second = jax.random.split(key)
    return Task(batch(first, 6), batch(second, 9))


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def close(tree, other, tolerance=1e-12):
    a, b = jax.tree.leaves(tree), jax.tree.leaves(other)
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
def test_flax_batch_norm_and_dropout_in_maml_are_a_loop_by_hand():
    with jax.enable_x64(True):
        net, task, key = LinenNet(), draw_task(jax.random.key(0)), jax.random.key(1)
        variables = net.init(jax.random.key(2), task.support.x)
        learner = jaxmeta.maml(jaxmeta.classification(net), SGD, STEPS)
        meta = learner.init(variables)
        optimizer = optax.adamw(1e-2, weight_decay=0.5)
        training = jaxmeta.meta_step(learner, optimizer, num_tasks=3)
        state, _ = jax.jit(training.step)(training.init(meta), key, Partial(draw_task))

        def passed(params, batch, key):
            rngs = {"params": key, "dropout": key}
            stats = {"params": params, "batch_stats": variables["batch_stats"]}
            logits, new = net.apply(stats, batch.x, train=True, rngs=rngs, mutable=["batch_stats"])
            return cross_entropy(logits, batch.y), new["batch_stats"]

        def query_loss(params, key):
            task_key, learner_key = jax.random.split(key)
            task = draw_task(task_key)
            adapt_key, loss_key = jax.random.split(learner_key)
            for step_key in jax.random.split(adapt_key, STEPS):
                grads = jax.grad(lambda p, k: passed(p, task.support, k)[0])(params, step_key)
                params = jax.tree.map(lambda p, g: p - RATE * g, params, grads)
            return passed(params, task.query, loss_key)

        found = [jax.grad(query_loss, has_aux=True)(variables["params"], k) for k in jax.random.split(key, 3)]
        grads, stats = jax.tree.map(lambda *x: sum(x) / 3, *found)
        updates, _ = optimizer.update(grads, optimizer.init(variables["params"]), variables["params"])
        close(state.meta.params["params"], optax.apply_updates(variables["params"], updates))
        close(state.meta.variables["batch_stats"], stats)
        assert jax.tree.leaves(state.meta.params["batch_stats"]) == []


@pytest.mark.slow
def test_flax_batch_norm_and_dropout_in_protonet_are_a_loop_by_hand():
    with jax.enable_x64(True):
        net, task, key = LinenNet(), draw_task(jax.random.key(0)), jax.random.key(1)
        variables = net.init(jax.random.key(2), task.support.x)
        learner = jaxmeta.protonet(net, ways=3)
        meta = learner.init(variables)
        metrics, gradient = learner.grad(meta, task, key)
        fit_key, predict_key, _ = jax.random.split(key, 3)

        def passed(params, stats, x, key):
            rngs = {"params": key, "dropout": key}
            variables = {"params": params, "batch_stats": stats}
            return net.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])

        def loss(params):
            support, new = passed(params, variables["batch_stats"], task.support.x, fit_key)
            query, new = passed(params, new["batch_stats"], task.query.x, predict_key)
            means = jnp.stack([support[task.support.y == k].mean(0) for k in range(3)])
            logits = -jnp.sum((query[:, None] - means[None]) ** 2, -1)
            return cross_entropy(logits, task.query.y), new["batch_stats"]

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        close(metrics["loss"], value, 1e-6)
        close(gradient.params["params"], grads, 1e-6)
        close(gradient.state["batch_stats"], stats)
        # At test one example does not see the others, and nothing is random.
        classifier = learner.adapt(meta, task.support, key)
        close(learner.predict(classifier, task.query.x)[:1], classifier(task.query.x[:1]))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_nnx_with_running_statistics_and_dropout_is_a_loop_by_hand(steps):
    with jax.enable_x64(True):
        net, task, key = NNXNet(nnx.Rngs(0)), draw_task(jax.random.key(0)), jax.random.key(1)
        learner = jaxmeta.maml(jaxmeta.classification(net), SGD, steps)
        meta = learner.init(net)
        metrics, gradient = jax.jit(learner.grad)(meta, task, key)
        params = nnx.to_pure_dict(nnx.state(net, nnx.Param))

        def loss(params, batch, key):
            hidden = batch.x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None]
            mean, var = hidden.mean(0), hidden.var(0)
            normal = (hidden - mean[None]) / jnp.sqrt(var + 1e-5)[None]
            active = jnp.tanh(normal * params["norm"]["scale"][None] + params["norm"]["bias"][None])
            kept = jax.random.bernoulli(jax.random.fold_in(jax.random.fold_in(key, 1), 0), 0.7, active.shape)
            logits = jnp.where(kept, active / 0.7, 0) @ params["head"]["kernel"] + params["head"]["bias"][None]
            return cross_entropy(logits, batch.y), {"mean": 0.2 * mean, "var": 0.8 + 0.2 * var}

        adapt_key, loss_key = jax.random.split(key)

        def query_loss(params):
            for step_key in jax.random.split(adapt_key, steps):
                grads = jax.grad(lambda p, k: loss(p, task.support, k)[0])(params, step_key)
                params = jax.tree.map(lambda p, g: p - RATE * g, params, grads)
            return loss(params, task.query, loss_key)

        (value, after), grads = jax.value_and_grad(query_loss, has_aux=True)(params)
        close(metrics["loss"], value)
        close(gradient.params, grads, 1e-9)
        close(gradient.state["norm"], after)
        assert int(gradient.state["passes"][...]) == 1
        adapted = learner.adapt(meta, task.support, key)
        again = learner.adapt(meta, task.support, jax.random.key(9))
        close(nnx.filter_state(adapted, nnx.Param), nnx.filter_state(again, nnx.Param))  # no dropout at test
        net.eval()
        assert learner.predict(adapted, task.query.x).shape == (9, 3)
        if steps == 0:
            close(learner.predict(adapted, task.query.x), net(task.query.x))


def test_counters_and_keys_are_carried_and_never_trained():
    params = {"w": jnp.ones((2, 1)), "count": jnp.array(7), "key": jax.random.key(3), "frozen": True}

    def loss_fn(params, batch, key):
        noise = jax.random.normal(params["key"])
        loss = jnp.mean((batch.x @ params["w"] - batch.y + 0 * noise) ** 2)
        return loss, {}, {**params, "count": params["count"] + 2}

    learner = jaxmeta.maml(jaxmeta.Loss(loss_fn, lambda *args: loss_fn(*args)[:2]), optax.adam(0.1, eps_root=1e-8), 2)
    meta = learner.init(params)
    assert jax.tree.leaves(meta.params) == [params["w"]] or len(jax.tree.leaves(meta.params)) == 1

    def sampler(key):
        x = jax.random.normal(key, (4, 2))
        return Task(Batch(x, x[:, :1]), Batch(x, x[:, :1]))

    for batch_size in (1, 3):
        training = jaxmeta.meta_step(learner, optax.adamw(0.1, weight_decay=1.0), 3, batch_size=batch_size)
        state = training.init(meta)
        for i in range(2):
            state, _ = jax.jit(training.step)(state, jax.random.key(i), Partial(sampler))
        found = state.meta.variables
        assert int(found["count"]) == 11 and found["count"].dtype == params["count"].dtype
        assert found["key"] == params["key"] and found["frozen"]
        assert not np.allclose(found["w"], params["w"])
    evolved = jaxmeta.maml(learner.loss, SGD, meta_gradient=jaxmeta.evolution(2))
    _, gradient = evolved.grad(meta, sampler(jax.random.key(0)), jax.random.key(0))
    assert len(jax.tree.leaves(gradient.params)) == 1


SCALAR = jaxmeta.regression(lambda w, x: x * w)
MOVABLE = {
    "maml": partial(jaxmeta.maml, inner=SGD),
    "fomaml": partial(jaxmeta.fomaml, inner=optax.sgd(0.1, momentum=0.9)),
    "anil": partial(jaxmeta.anil, inner=SGD),
    "boil": partial(jaxmeta.boil, inner=optax.chain(optax.clip(1.0), SGD)),
    "reptile": partial(jaxmeta.reptile, inner=optax.adam(0.1)),
    "imaml": partial(jaxmeta.imaml, inner=SGD, steps=2),
    "maml-adam": partial(jaxmeta.maml, inner=optax.adam(0.1, eps_root=1e-8)),
}
TWO_PARTS = jaxmeta.regression(lambda p, x: x * p["body"] * p["head"])


@pytest.mark.parametrize("first", MOVABLE)
@pytest.mark.parametrize("second", MOVABLE)
def test_meta_parameters_move_between_learners(first, second):
    """Those of a learner with nothing learned fit every other learner."""
    params = {"body": jnp.array(1.0), "head": jnp.array(0.5)}
    meta = MOVABLE[first](TWO_PARTS).init(params)
    one = Batch(jnp.ones((1, 1)), jnp.ones((1, 1)))
    learner = MOVABLE[second](TWO_PARTS)
    adapted = jax.eval_shape(learner.adapt, meta, one, jax.random.key(0))
    gradient = jax.eval_shape(learner.grad, MetaParams(params), Task(one, one), jax.random.key(0))[1]
    assert jax.tree.structure(adapted) == jax.tree.structure(gradient.params) == jax.tree.structure(params)


def features(params, x):
    return x @ params["body"]


NUMBERS = {"body": jnp.eye(3), "head": jnp.ones((3, 2))}
LOGITS = jaxmeta.classification(lambda params, x: features(params, x) @ params["head"])
LEARNING = {  # name: (learner with learned values, parameters)
    "meta-sgd": (jaxmeta.meta_sgd(LOGITS, 0.1), NUMBERS),
    "maml++": (jaxmeta.maml_plus_plus(LOGITS, 0.1, 2), NUMBERS),
    "cosine": (jaxmeta.protonet(features, 2, distance="cosine"), NUMBERS),
    "r2d2": (jaxmeta.r2d2(features, 2), NUMBERS),
    "metaoptnet": (jaxmeta.metaoptnet(features, 2), NUMBERS),
    "leo": (jaxmeta.leo(2, steps=1, head_steps=1), None),
}
TWO = Batch(jnp.eye(3)[:2], jnp.arange(2))
RELATION = jaxmeta.relation_network(features, lambda params, pairs: pairs @ jnp.ones(6), 2)
IN_CONTEXT = jaxmeta.in_context(lambda params, x, y: x.mean(0), lambda params, context, x: x @ params["head"])


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.quick("maml++", "r2d2")
def test_learned_values_start_where_the_learner_says(name):
    """In meta-parameters of a learner with nothing learned."""
    learner, params = LEARNING[name]
    params = jaxmeta.leo_params(jax.random.key(0), 3, 4) if params is None else params
    found, expected = (
        learner.loss(learner.adapt(meta, TWO, jax.random.key(0)), TWO, jax.random.key(1))[0]
        for meta in (MetaParams(params), learner.init(params))
    )
    assert float(found) == float(expected)
    gradient = jax.eval_shape(learner.grad, MetaParams(params), Task(TWO, TWO), jax.random.key(0))[1]
    assert jax.tree.structure(gradient) == jax.tree.structure(MetaParams(params))


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("meta-sgd", jaxmeta.maml(LOGITS, SGD), r"inner optimizer: it holds learned values at \.rate.* has no learned"),
        ("meta-sgd", "maml++", r"inner optimizer: .*\['body'\] \[3, 3\].* has learned values at .*\['body'\] \[2\]"),
        ("maml++", "meta-sgd", r"inner optimizer: .*\['body'\] \[2\].* has learned values at .*\['body'\] \[3, 3\]"),
        ("r2d2", "metaoptnet", r"head: .*log_scale.* the head has learned values at \['scale'\]"),
        ("metaoptnet", jaxmeta.protonet(features, 2), r"head: .*\['scale'\] \[\], and the head has no learned values"),
        ("r2d2", "meta-sgd", r"inner optimizer: it holds learned values at \['log_regularization'\]"),
        ("r2d2", RELATION, r"learner: it holds learned values at \['log_regularization'\].* has no learned values"),
        ("meta-sgd", IN_CONTEXT, r"learner: it holds learned values at \.rate"),
    ],
)
def test_learned_values_of_another_learner_are_refused_by_name(source, target, message):
    """Both sides are named, also where only the shapes differ."""
    meta = LEARNING[source][0].init(NUMBERS)
    learner = LEARNING[target][0] if isinstance(target, str) else target
    with pytest.raises(ValueError, match="learned must fit the " + message):
        jax.eval_shape(learner.adapt, meta, TWO, jax.random.key(0))


def held(part):
    """Optimizers that leave all but one part where it is: by name, by a rate of zero, by a mask of elements."""
    rate, off = optax.sgd(0.05), "body" if part == "head" else "head"
    mask = {"body": jnp.full(2, part == "body"), "head": jnp.full(3, part == "head")}
    return {
        "partition": optax.partition({"on": rate, "off": optax.set_to_zero()}, {part: "on", off: "off"}),
        "rate": optax.partition({"on": rate, "off": optax.sgd(0.0)}, {part: "on", off: "off"}),
        "elements": optax.chain(rate, optax.stateless(lambda g, _: jax.tree.map(jnp.multiply, g, mask))),
    }


@pytest.mark.parametrize("part", ["head", "body"])
@pytest.mark.parametrize("means", ["learner", "partition", "rate", "elements"])
@pytest.mark.quick("learner-head")
def test_implicit_is_exact_for_a_part(part, means):
    """d phi / d theta in closed form, for a support loss that couples what adapts with what does not."""
    with jax.enable_x64(True):
        root = jax.random.normal(jax.random.key(0), (5, 5), jnp.float64)
        curvature, strength = root @ root.T + jnp.eye(5), 0.7
        support, query = jax.random.normal(jax.random.key(1), (2, 5), jnp.float64)

        def loss_fn(params, target, key):
            gap = jnp.concatenate([params["body"], params["head"]]) - target
            return 0.5 * gap @ curvature @ gap, {}

        implicit = jaxmeta.implicit(jaxmeta.cg(10), proximal=strength)
        if means == "learner":
            make = jaxmeta.anil if part == "head" else jaxmeta.boil
            learner = make(loss_fn, optax.sgd(0.05), 2000, meta_gradient=implicit)
        else:
            learner = jaxmeta.maml(loss_fn, held(part)[means], 2000, meta_gradient=implicit)
        params = {"body": jnp.array([0.1, -0.3]), "head": jnp.array([1.0, 0.4, -2.0])}
        _, gradient = learner.grad(learner.init(params), Task(support, query), jax.random.key(0))

        moves = np.arange(5) >= 2 if part == "head" else np.arange(5) < 2
        block, rest = curvature[moves][:, moves], curvature[moves][:, ~moves]
        start = jnp.concatenate([params["body"], params["head"]])
        system = block + strength * jnp.eye(len(block))
        slope = curvature @ (start - support)
        end = start.at[moves].add(-jnp.linalg.solve(system, slope[moves]))
        outer = curvature @ (end - query)
        expected = jnp.zeros(5).at[moves].set(strength * jnp.linalg.solve(system, outer[moves]))
        expected = expected.at[~moves].set(outer[~moves] - rest.T @ jnp.linalg.solve(system, outer[moves]))
        close(jnp.concatenate([gradient.params["body"], gradient.params["head"]]), expected, 1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda mg: jaxmeta.maml_plus_plus(SCALAR, meta_gradient=mg),
        lambda mg: jaxmeta.leo(2, meta_gradient=mg),
        lambda mg: jaxmeta.oml(lambda p, x: x, SCALAR, SGD, meta_gradient=mg),
        lambda mg: jaxmeta.meta_sgd(SCALAR, meta_gradient=mg).init(jnp.ones(1)),
        lambda mg: jaxmeta.meta_curvature(SCALAR, meta_gradient=mg).init(jnp.ones((2, 2))),
    ],
)
def test_implicit_is_refused_where_it_is_not_defined(make):
    with pytest.raises(ValueError, match="meta_gradient"):
        make(jaxmeta.implicit())


@pytest.mark.parametrize("wrap", [lambda apply: apply, jax.jit], ids=["plain", "jit"])
def test_work_that_does_not_depend_on_what_adapts_is_done_once(wrap):
    """The exact meta-gradient of ANIL, with one pass of the body for any number of steps."""
    passes = []

    @jax.custom_vjp
    def body(w, x):
        return jnp.tanh(x @ w)

    def forward(w, x):
        return body(w, x), (w, x)

    def backward(saved, g):
        jax.debug.callback(lambda: passes.append(1))
        w, x = saved
        slope = g * (1 - jnp.tanh(x @ w) ** 2)
        return x.T @ slope, slope @ w.T

    body.defvjp(forward, backward)
    with jax.enable_x64(True):
        params = {"body": jax.random.normal(jax.random.key(0), (4, 5)), "head": jnp.ones((5, 3)) * 0.1}
        task = draw_task(jax.random.key(1))
        gradients = {}
        for name, features in (("counted", body), ("plain", lambda w, x: jnp.tanh(x @ w))):
            apply = wrap(lambda p, x, features=features: features(p["body"], x) @ p["head"])
            loss_fn = jaxmeta.classification(apply)
            for steps in (1, 4):
                passes.clear()
                learner = jaxmeta.anil(loss_fn, SGD, steps)
                gradients[name, steps] = jax.jit(learner.grad)(learner.init(params), task, jax.random.key(2))[1].params
                jax.effects_barrier()
                if name == "counted":
                    assert len(passes) <= 2, f"{steps} steps: {len(passes)} backward passes of the body"
        for steps in (1, 4):
            close(gradients["counted", steps], gradients["plain", steps])
        stopped = optax.partition({"on": SGD, "off": optax.set_to_zero()}, {"body": "off", "head": "on"})
        plain = jaxmeta.maml(loss_fn, stopped, 4)
        close(gradients["plain", 4], plain.grad(plain.init(params), task, jax.random.key(2))[1].params)


def test_a_proximal_problem_pulls_to_its_start():
    one = Batch(jnp.ones((1, 1)), jnp.ones((1, 1)))
    problem = jaxmeta.proximal(jaxmeta.model_problem(SCALAR), 2.0)
    learner = jaxmeta.inner_loop(problem, optax.sgd(0.1), 200, outer_loss=SCALAR)
    adapted = learner.adapt(learner.init(jnp.array(3.0)), one, jax.random.key(0))
    assert float(adapted) == pytest.approx((2 * 1.0 + 2.0 * 3.0) / (2 + 2.0), rel=1e-5)  # of (w - 1)^2 + (w - 3)^2
    implicit = jaxmeta.inner_loop(
        problem, optax.sgd(0.1), 200, outer_loss=SCALAR, meta_gradient=jaxmeta.implicit(proximal=1e-9)
    )
    _, gradient = implicit.grad(implicit.init(jnp.array(3.0)), Task(one, one), jax.random.key(0))
    _, exact = learner.grad(learner.init(jnp.array(3.0)), Task(one, one), jax.random.key(0))
    close(gradient.params, exact.params, 1e-4)


def test_steps_of_a_stream_see_their_entries():
    """Inner steps on one example after the other, weighted by the stream, and the loss after each of them."""
    with jax.enable_x64(True):

        def loss(w, meta, batch, key):
            support, (index, weight) = batch
            return weight * meta.params["curvature"] * (w - support.x[index]) ** 2, {}

        def stream(meta, support, key, steps):
            assert steps == 3  # a stream need not keep to it
            return jnp.array([2, 0]), meta.params["weights"]

        def outer(w, batch, key):
            return jnp.sum((w - batch.y) ** 2), {}

        problem = jaxmeta.InnerProblem(lambda meta, support, key: meta.params["w"], loss, lambda w, meta: w)
        streamed = problem._replace(stream=stream)
        params = {"w": jnp.array(0.3), "curvature": jnp.array(0.7), "weights": jnp.array([1.0, 0.5])}
        task = Task(Batch(jnp.array([1.0, 5.0, -2.0]), None), Batch(None, jnp.array([0.5])))

        def by_hand(params):
            w = params["w"]
            for index, weight in zip((2, 0), params["weights"], strict=True):
                w = w - 0.1 * weight * params["curvature"] * 2 * (w - task.support.x[index])
            return jnp.sum((w - task.query.y) ** 2)

        learner = jaxmeta.inner_loop(streamed, optax.sgd(0.1), 3, outer_loss=outer)
        metrics, gradient = learner.grad(learner.init(params), task, jax.random.key(0))
        close(metrics["loss"], by_hand(params), 1e-12)
        close(gradient.params, jax.grad(by_hand)(params), 1e-12)
    with pytest.raises(ValueError, match="meta_gradient must see the whole inner loop"):
        jaxmeta.inner_loop(streamed, SGD, outer_loss=outer, meta_gradient=jaxmeta.implicit())


@pytest.mark.parametrize(
    "meta_gradient", [None, jaxmeta.mixed(), jaxmeta.first_order()], ids=["reverse", "mixed", "first"]
)
def test_outer_loss_after_every_step(meta_gradient):
    """ANIL with weights of the steps is the weighted sum of ANIL with 1, 2 and 3 steps."""
    with jax.enable_x64(True):
        params = {"body": jax.random.normal(jax.random.key(0), (4, 5)), "head": jnp.ones((5, 3)) * 0.1}
        task, key = draw_task(jax.random.key(1)), jax.random.key(2)
        loss_fn = jaxmeta.classification(lambda p, x: jnp.tanh(x @ p["body"]) @ p["head"])
        head = jaxmeta.model_problem(loss_fn, jaxmeta.named("head"))

        def grad(steps, weights=None):
            learner = jaxmeta.inner_loop(
                head, SGD, steps, outer_loss=loss_fn, step_weights=weights, meta_gradient=meta_gradient
            )
            metrics, gradient = jax.jit(learner.grad)(learner.init(params), task, key)
            return metrics["loss"], gradient.params

        weights = [0.2, 0.0, 0.7]
        alone = [grad(steps) for steps in (1, 2, 3)]
        expected = jax.tree.map(lambda *values: sum(w * v for w, v in zip(weights, values, strict=True)), *alone)
        close(grad(3, weights), expected)
    with pytest.raises(ValueError, match=r"step_weights must have shape \(2,\), got \(3,\)"):
        jaxmeta.inner_loop(head, SGD, 2, outer_loss=loss_fn, step_weights=weights)


def test_reduce_weighs_tasks():
    learner = jaxmeta.maml(SCALAR, SGD)
    meta = learner.init(jnp.array([[0.5]]))

    def hardest(metrics, gradients):
        return jax.tree.map(lambda g: g[jnp.argmax(metrics["loss"])], gradients)

    key = jax.random.key(0)
    for batch_size in (1, 2):
        training = jaxmeta.meta_step(learner, optax.sgd(1.0), 4, batch_size=batch_size, reduce=hardest)
        state, metrics = training.step(training.init(meta), key, data.Sinusoid())
        found = []
        for k in jax.random.split(key, 4):
            task_key, learner_key = jax.random.split(k)
            found.append(learner.grad(meta, data.Sinusoid()(task_key), learner_key))
        losses = [float(m["loss"]) for m, _ in found]
        close(meta.params - state.meta.params, found[int(np.argmax(losses))][1].params, 1e-5)
        assert float(metrics["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.slow
def test_outer_optimizers_get_what_they_ask_for():
    """The value, the gradient and the function of the mean loss over the tasks of the update."""
    seen = {}

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        value, grad, value_fn = (extra[name] for name in ("value", "grad", "value_fn"))
        seen.update(value=value, grad=grad, again=value_fn(params))
        return updates, state

    learner = jaxmeta.maml(SCALAR, SGD)
    meta = learner.init(jnp.array([[0.5]]))
    spy = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    for outer in (spy, optax.contrib.reduce_on_plateau(), optax.polyak_sgd(), optax.contrib.momo(), optax.lbfgs()):
        training = jaxmeta.meta_step(learner, outer, 3)
        state, metrics = jax.jit(training.step)(training.init(meta), jax.random.key(0), data.Sinusoid())
        assert np.isfinite(state.meta.params).all()
    training = jaxmeta.meta_step(learner, spy, 3)
    _, metrics = training.step(training.init(meta), jax.random.key(0), data.Sinusoid())
    close([seen["value"], seen["again"]], [metrics["loss"], metrics["loss"]], 1e-6)


def test_metrics_are_means_in_float():
    def loss_fn(params, batch, key):
        return jnp.sum(params), {"solved": batch.y[0, 0] > 0, "near": jnp.sum(batch.y > 0), "half": jnp.float16(0.5)}

    learner, sampler = jaxmeta.maml(loss_fn, SGD), data.Sinusoid()
    for batch_size in (1, 3, 8):
        training = jaxmeta.meta_step(learner, SGD, 8, batch_size=batch_size)
        _, metrics = training.step(training.init(learner.init(jnp.ones(2))), jax.random.key(0), sampler)
        tasks = [sampler(jax.random.split(k)[0]) for k in jax.random.split(jax.random.key(0), 8)]
        assert float(metrics["solved"]) == pytest.approx(np.mean([t.query.y[0, 0] > 0 for t in tasks]))
        assert float(metrics["near"]) == pytest.approx(np.mean([np.sum(t.query.y > 0) for t in tasks]))
        assert metrics["half"].dtype == jnp.float16


@pytest.mark.parametrize(
    ("metrics", "message"),
    [({"loss": 1.0}, "must not have the name 'loss'"), ({"each": jnp.ones(3)}, r"got shape \(3,\) for 'each'")],
)
def test_metrics_that_would_be_wrong_are_refused(metrics, message):
    learner = jaxmeta.maml(lambda p, b, k: (jnp.sum(p), metrics), SGD)
    one = Batch(jnp.ones((1, 1)), jnp.ones((1, 1)))
    with pytest.raises(ValueError, match=message):
        learner.grad(learner.init(jnp.ones(2)), Task(one, one), jax.random.key(0))


def test_predict_says_what_it_needs():
    learner = jaxmeta.maml(lambda p, b, k: (jnp.sum(p), {}), SGD)
    with pytest.raises(TypeError, match="predict needs to know the model"):
        learner.predict(jnp.ones(2), jnp.ones((1, 1)))


def test_a_head_without_parameters_below_it_starts_in_float32():
    learner = jaxmeta.with_head(lambda params, x: x, jaxmeta.cosine_head(), ways=2)
    assert learner.init(()).learned["scale"].dtype == jnp.float32


@pytest.mark.slow
def test_pretraining_of_flax_batch_norm_is_a_loop_by_hand():
    with jax.enable_x64(True):
        net, optimizer = LinenNet(), optax.adamw(1e-2, weight_decay=0.3)
        batches = lambda key: draw_task(key).query  # noqa: E731
        variables = net.init(jax.random.key(0), draw_task(jax.random.key(1)).query.x)
        training = jaxmeta.pretrain_step(net, optimizer)
        state = training.init(variables)
        params, stats, opt_state = variables["params"], variables["batch_stats"], optimizer.init(variables["params"])
        for i in range(3):
            key = jax.random.key(i)
            state, _ = jax.jit(training.step, static_argnums=2)(state, key, batches)
            batch_key, _, dropout = jax.random.split(key, 3)
            batch = batches(batch_key)

            def loss(params, stats=stats, batch=batch, dropout=dropout):
                rngs = {"params": dropout, "dropout": dropout}
                variables = {"params": params, "batch_stats": stats}
                logits, new = net.apply(variables, batch.x, train=True, rngs=rngs, mutable=["batch_stats"])
                return cross_entropy(logits, batch.y), new["batch_stats"]

            grads, stats = jax.grad(loss, has_aux=True)(params)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            params = optax.apply_updates(params, updates)
        close(state.meta["params"], params)
        close(state.meta["batch_stats"], stats)
