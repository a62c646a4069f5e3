"""One table of learners that are fitted to the support set at once; they pass `check_learner`, and more below."""

import functools
import subprocess
import sys
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from few_shot_learners import methods
from flax import struct
from jax.tree_util import Partial

import jaxmeta
from jaxmeta import Batch, MetaParams, Task, data, models
from jaxmeta.testing import check_learner, check_meta_gradient


@struct.dataclass
class Clusters:
    """Classification of points around random centers; half of the inputs are noise that has to be learned away."""

    ways: int = struct.field(pytree_node=False, default=3)
    shots: int = struct.field(pytree_node=False, default=2)
    queries: int = struct.field(pytree_node=False, default=2)

    def __call__(self, key):
        noise = jax.random.uniform(key, (self.ways, 1 + self.shots + self.queries, 6), minval=-2.0, maxval=2.0)
        signal = noise[:, :1, :3] + 0.3 * noise[:, 1:, :3]
        x = jnp.concatenate([signal, noise[:, 1:, 3:]], 2)
        y = jnp.broadcast_to(jnp.arange(self.ways)[:, None], x.shape[:2])
        parts = [(x[:, : self.shots], y[:, : self.shots]), (x[:, self.shots :], y[:, self.shots :])]
        return Task(*(Batch(x.reshape(-1, 6), y.reshape(-1)) for x, y in parts))


MODEL = models.MLP(sizes=(8,), out=3, activation=jnp.tanh)
(FEATURES,) = methods(MODEL, "features")
CONTEXT, RELATION = jaxmeta.FullContext(MODEL, steps=2), jaxmeta.RelationNet(MODEL, hidden=8)
PROCESS, BLACK_BOX = jaxmeta.NeuralProcess(1, (16, 8), (16,)), jaxmeta.ContextTransformer(3, 8, 1, 2, MODEL)
REGRESSOR, PRIOR_FITTED = jaxmeta.ContextTransformer(1, 8, 1, 2), jaxmeta.BarTransformer(6, 8, 1, 2)
WITH_CONTEXT, SUPPORT, QUERY = methods(CONTEXT, "features", "support", "query")
CONTEXTS: Any = {"support_context": SUPPORT, "query_context": QUERY}
RELATION_FEATURES, RELATION_FN = methods(RELATION, "features", "relation")
MSE, CLASSIFIER = jaxmeta.regression(lambda predictor, x: predictor(x)), jaxmeta.classification(MODEL.apply)
SGD = optax.sgd(0.5)

TASKS, WAVES = Clusters(), data.Sinusoid(shots=5, queries=5)
# name: (learner, model, tasks)
LEARNERS = {
    "protonet": (jaxmeta.protonet(FEATURES, 3), MODEL, TASKS),
    "protonet-cosine": (jaxmeta.protonet(FEATURES, 3, distance="cosine"), MODEL, TASKS),
    "matching-network": (jaxmeta.matching_network(FEATURES, 3), MODEL, TASKS),
    "full-context": (jaxmeta.matching_network(WITH_CONTEXT, 3, **CONTEXTS), CONTEXT, TASKS),
    "relation-network": (jaxmeta.relation_network(RELATION_FEATURES, RELATION_FN, 3), RELATION, TASKS),
    "r2d2": (jaxmeta.r2d2(FEATURES, 3), MODEL, TASKS),
    "lr-d2": (jaxmeta.lr_d2(FEATURES, 3), MODEL, TASKS),
    "metaoptnet": (jaxmeta.metaoptnet(FEATURES, 3, label_smoothing=0.1), MODEL, TASKS),
    "simpleshot": (jaxmeta.simpleshot(FEATURES, 3, center=jnp.full(8, 0.1)), MODEL, TASKS),
    "meta-baseline": (jaxmeta.meta_baseline(FEATURES, 3), MODEL, TASKS),
    "baseline": (jaxmeta.baseline(FEATURES, 3, SGD, 5), MODEL, TASKS),
    "baseline++": (jaxmeta.baseline_plus_plus(FEATURES, 3, SGD, 5), MODEL, TASKS),
    "fine-tuning": (jaxmeta.baseline(FEATURES, 3, SGD, 3, fine_tune=True), MODEL, TASKS),
    "proto-maml": (jaxmeta.proto_maml(FEATURES, CLASSIFIER, SGD, 2), MODEL, TASKS),
    "neural-process": (jaxmeta.conditional_neural_process(*methods(PROCESS, "encode", "decode")), PROCESS, WAVES),
    "prior-fitted-network": (
        jaxmeta.prior_fitted_network(*methods(PRIOR_FITTED, "encode", "decode")),
        PRIOR_FITTED,
        WAVES,
    ),
    "in-context": (jaxmeta.in_context(*methods(BLACK_BOX, "encode", "decode")), BLACK_BOX, TASKS),
    "in-context-regression": (
        jaxmeta.in_context(*methods(REGRESSOR, "encode", "decode"), loss_fn=MSE),
        REGRESSOR,
        WAVES,
    ),
}
CLASSIFIERS = [name for name, (_, _, tasks) in LEARNERS.items() if tasks is TASKS and name != "proto-maml"]


@functools.cache
def parameters(model, tasks):
    """Initial parameters of a model, and a task."""
    task = jax.jit(tasks)(jax.random.key(1))
    return jax.jit(model.init)(jax.random.key(0), task.query.x), task


def initial(name):
    """The learner, its model's parameters, and a task."""
    learner, model, tasks = LEARNERS[name]
    return learner, *parameters(model, tasks)


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.quick("protonet")
def test_learner(name):
    learner, params, _ = initial(name)
    check_learner(learner, params, LEARNERS[name][2])


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.quick("protonet", "metaoptnet", "fine-tuning", "proto-maml")
def test_meta_gradient_equals_finite_differences(name):
    check_meta_gradient(*initial(name))


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.quick("protonet", "relation-network", "metaoptnet", "lr-d2")
def test_order_of_examples_and_names_of_classes_do_not_matter(name):
    learner, params, task = initial(name)
    meta, support = learner.init(params), task.support

    @jax.jit
    def logits(support):
        return learner.adapt(meta, support, jax.random.key(0))(task.query.x)

    order, classes = jnp.array([5, 0, 3, 1, 4, 2]), jnp.array([2, 0, 1])
    plain = logits(support)
    assert plain.shape == (6, 3)
    assert float(jnp.std(plain)) > 1e-3
    if name != "full-context":  # whose LSTM reads the support set in order
        shuffled = logits(Batch(support.x[order], support.y[order]))
        np.testing.assert_allclose(shuffled, plain, rtol=1e-4, atol=1e-4)
    if name != "in-context":  # which learns a vector for each label
        renamed = logits(Batch(support.x, classes[support.y]))
        np.testing.assert_allclose(renamed[:, classes], plain, rtol=1e-4, atol=1e-4)


FACTORIES = {
    "protonet": jaxmeta.protonet,
    "matching-network": jaxmeta.matching_network,
    "full-context": functools.partial(jaxmeta.matching_network, **CONTEXTS),
    "relation-network": lambda features, ways, test_ways: jaxmeta.relation_network(
        features, RELATION_FN, ways, test_ways=test_ways
    ),
    "r2d2": jaxmeta.r2d2,
    "lr-d2": jaxmeta.lr_d2,
    "metaoptnet": jaxmeta.metaoptnet,
    "simpleshot": jaxmeta.simpleshot,
    "meta-baseline": jaxmeta.meta_baseline,
    "baseline": jaxmeta.baseline,
    "baseline++": jaxmeta.baseline_plus_plus,
    "fine-tuning": functools.partial(jaxmeta.baseline, fine_tune=True),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_ways_in_training_and_at_test(name):
    model = LEARNERS[name][1]
    learner = FACTORIES[name](methods(model, "features")[0], 4, test_ways=2)

    def shapes(key):
        four, two = Clusters(4)(key), Clusters(2)(key)
        meta = learner.init(model.init(key, four.query.x))
        return meta, learner.grad(meta, four, key)[1], learner.adapt(meta, two.support, key)(two.query.x)

    meta, grads, logits = jax.eval_shape(shapes, jax.random.key(0))
    assert logits.shape == (4, 2)
    assert grads == meta


@pytest.mark.parametrize("fine_tune", [False, True])
@pytest.mark.quick("False")
def test_more_ways_in_training_change_nothing_at_test_and_the_other_way_round(fine_tune):
    def make(ways, test_ways=None):
        learner = jaxmeta.baseline(FEATURES, ways, SGD, 2, test_ways=test_ways, fine_tune=fine_tune)
        return jax.jit(learner.grad), jax.jit(lambda meta: learner.adapt(meta, two.support, key)(two.query.x))

    key = jax.random.key(0)
    four, two = Clusters(4)(key), Clusters(2)(key)
    meta = MetaParams(MODEL.init(key, four.query.x))
    (grad, logits), (grad_of_4, _), (_, logits_of_2) = make(4, 2), make(4), make(2)
    chex.assert_trees_all_equal(grad(meta, four, key), grad_of_4(meta, four, key))
    np.testing.assert_array_equal(logits(meta), logits_of_2(meta))
    assert np.isfinite(grad(meta, four, key)[0]["loss"])


def identity(params, x):
    """Features that are the inputs."""
    return x + 0 * params


@pytest.mark.parametrize("head", [jaxmeta.euclidean_head(), jaxmeta.ridge_head(), jaxmeta.svm_head()])
@pytest.mark.parametrize("labels", [[0, 1, 3], [0, 1, -1]], ids=["too large", "negative"])
def test_labels_that_do_not_fit_give_nan_in_a_jitted_function_and_else_an_error(head, labels):
    learner = jaxmeta.with_head(identity, head, ways=3)
    meta, support = learner.init(jnp.array(0.0)), Batch(jnp.eye(3), jnp.array(labels))
    classifier = jax.jit(learner.adapt)(meta, support, jax.random.key(0))
    assert bool(jnp.all(jnp.isnan(classifier(jnp.eye(3)))))
    with pytest.raises(ValueError, match=rf"labels must be integers from 0 to 2, got \[{labels[-1]}\]"):
        learner.adapt(meta, support, jax.random.key(0))


@pytest.mark.slow
def test_train_features_are_used_in_training_only():
    learner = jaxmeta.protonet(
        identity, 2, train_features=lambda params, x, key: x + params * jax.random.normal(key, x.shape)
    )
    meta, batch = learner.init(jnp.array(1.0)), Batch(jnp.eye(2), jnp.array([0, 1]))
    losses = [float(learner.grad(meta, Task(batch, batch), jax.random.key(i))[0]["loss"]) for i in range(2)]
    tested = float(learner.loss(learner.adapt(meta, batch, jax.random.key(0)), batch, jax.random.key(0))[0])
    np.testing.assert_allclose(tested, np.log(1 + np.exp(-2.0)), rtol=1e-6)
    assert len({*losses, tested}) == 3


@pytest.mark.parametrize("loss", ["mse", "cross-entropy"])
@pytest.mark.quick("mse")
def test_relation_network_on_feature_maps_by_hand(loss):
    rng = np.random.default_rng(0)
    x, queries, y, truth = rng.normal(size=(4, 2, 2, 3)), rng.normal(size=(5, 2, 2, 3)), [0, 1, 1, 0], [0, 1, 1, 0, 0]

    def relation(params, pairs):
        return jnp.sum(pairs[..., :3] * jnp.tanh(pairs[..., 3:]), (1, 2, 3))[:, None]

    learner = jaxmeta.relation_network(identity, relation, 2, loss=loss)
    support, query = Batch(jnp.asarray(x), jnp.array(y)), Batch(jnp.asarray(queries), jnp.array(truth))
    classifier = learner.adapt(learner.init(jnp.array(0.0)), support, jax.random.key(0))
    logits = np.array([[np.sum((x[k] + x[3 - k if k == 0 else 2]) * np.tanh(q)) for k in (0, 1)] for q in queries])
    np.testing.assert_allclose(classifier(query.x), logits, rtol=1e-4)
    value, metrics = learner.loss(classifier, query, jax.random.key(0))
    squared = np.mean((1 / (1 + np.exp(-logits)) - np.eye(2)[truth]) ** 2)
    entropy = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(5), truth])
    np.testing.assert_allclose(value, squared if loss == "mse" else entropy, rtol=1e-4)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(logits.argmax(1) == truth), rtol=1e-6)


def test_metaoptnets_label_smoothing_by_hand():
    batch = Batch(jnp.eye(3), jnp.arange(3))
    losses = []
    for share in (0.0, 0.3):
        learner = jaxmeta.metaoptnet(identity, 3, head=jaxmeta.cosine_head(2.0), label_smoothing=share)
        classifier = learner.adapt(learner.init(jnp.array(0.0)), batch, jax.random.key(0))
        losses.append(learner.loss(classifier, batch, jax.random.key(0))[0])
    log_p = 2 * np.eye(3) - np.log(np.exp(2.0) + 2)
    smoothed = 0.7 * np.eye(3) + 0.1
    np.testing.assert_allclose(losses, [-log_p[0, 0], -np.sum(smoothed * log_p) / 3], rtol=1e-5)


def test_neural_processs_likelihood_by_hand():
    learner, params, task = initial("neural-process")
    regressor = learner.adapt(learner.init(params), task.support, jax.random.key(0))
    mean, std = map(np.asarray, regressor(task.query.x))
    assert std.min() >= 0.1
    error = np.asarray(task.query.y) - mean
    expected = np.mean(0.5 * (error / std) ** 2 + np.log(std) + 0.5 * np.log(2 * np.pi))
    loss, metrics = learner.loss(regressor, task.query, jax.random.key(0))
    np.testing.assert_allclose([loss, metrics["mse"]], [expected, np.mean(error**2)], rtol=1e-5)


@pytest.mark.parametrize("name", ["neural-process", "in-context", "full-context", "metaoptnet"])
def test_queries_do_not_see_each_other(name):
    learner, params, task = initial(name)

    @jax.jit
    def predictions(support, x):
        predictor = learner.adapt(learner.init(params), support, jax.random.key(0))
        return predictor(x), predictor(x[:1])

    together, alone = predictions(task.support, task.query.x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[:1], b, rtol=1e-4, atol=1e-5), together, alone)


@pytest.mark.slow
def test_a_batch_of_classifiers_from_a_batch_of_tasks():
    learner, params, _ = initial("metaoptnet")
    meta, tasks = learner.init(params), jax.vmap(TASKS)(jax.random.split(jax.random.key(0), 2))
    adapt = jax.jit(jax.vmap(lambda support: learner.adapt(meta, support, jax.random.key(0))))
    logits = jax.jit(jax.vmap(lambda classifier, x: classifier(x)))(adapt(tasks.support), tasks.query.x)
    for i, (support, x) in enumerate(zip(tasks.support.x, tasks.query.x, strict=True)):
        alone = learner.adapt(meta, Batch(support, tasks.support.y[i]), jax.random.key(0))(x)
        np.testing.assert_allclose(logits[i], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_saved_classifiers_give_identical_logits_in_a_fresh_process(tmp_path):
    """One that was adapted by gradients, and a fitted one."""
    rng, model = np.random.default_rng(0), models.OmniglotCNN(ways=3, hidden=4, layers=2)
    x, queries = rng.normal(size=(2, 6, 12, 12, 1)).astype(np.float32)
    maml = jaxmeta.maml(jaxmeta.classification(model.apply), optax.sgd(0.4))
    svm = jaxmeta.metaoptnet(functools.partial(model.apply, method="features"), 3)

    @jax.jit
    def adapted(support):
        params = model.init(jax.random.key(1), support.x)
        return [learner.adapt(learner.init(params), support, jax.random.key(2)) for learner in (maml, svm)]

    tuned, fitted = adapted(Batch(x, jnp.arange(6) % 3))
    classifiers = {"maml": Partial(model.apply, tuned), "svm": fitted}
    for name, classifier in classifiers.items():
        with pytest.warns(UserWarning, match="depend on the other inputs of a batch"):
            jaxmeta.save_classifier(tmp_path / name, classifier, queries[:1])
    np.save(tmp_path / "x.npy", queries)
    code = """if True:
        import numpy as np
        from jaxmeta import load_classifier
        x = np.load("x.npy")
        for name in ("maml", "svm"):
            classifier = load_classifier(name)
            np.savez(name + ".npz", all=classifier(x), four=classifier(x[:4]))
    """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    run = jax.jit(lambda classifier, x: classifier(x))
    for name, classifier in classifiers.items():
        with np.load(tmp_path / f"{name}.npz") as found:
            np.testing.assert_array_equal(found["all"], run(classifier, queries))
            np.testing.assert_array_equal(found["four"], run(classifier, queries[:4]))


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.quick("protonet")
def test_what_adapts_without_jit_is_saved_too(name, tmp_path):
    """Then its numbers are Python's. Each input is classified for itself, and the probabilities are the learner's."""
    learner, params, task = initial(name)
    classifier = learner.adapt(learner.init(params), task.support, jax.random.key(0))
    jaxmeta.save_classifier(tmp_path / "file", classifier, task.query.x[:1])
    loaded, x = jaxmeta.load_classifier(tmp_path / "file"), np.asarray(task.query.x)
    np.testing.assert_array_equal(loaded(x), jax.jit(lambda classifier, x: classifier(x))(classifier, x))
    expected = jax.nn.softmax(loaded(x))
    np.testing.assert_allclose(loaded.probabilities(x), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(loaded.probabilities(x[1]), expected[1:2], rtol=1e-4, atol=1e-6)


def test_what_is_no_classifier_is_not_saved_or_loaded(tmp_path):
    pytest.importorskip("flatbuffers")
    weights = [jnp.ones((100, 100)), "a name"]
    things: tuple[Any, ...] = (jnp.ones(3), lambda x: x, {"w": jnp.ones(3)}, jax.tree_util.Partial(jnp.add, weights))
    for thing in things:
        with pytest.raises(TypeError, match="classifier must be a pytree of arrays that can be called") as refused:
            jaxmeta.save_classifier(tmp_path / "file", thing, jnp.ones((1, 2)))
        assert len(str(refused.value)) < 200  # no weights in it
    jaxmeta.save(tmp_path / "file", {"w": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"file was not made by jaxmeta\.save_classifier"):
        jaxmeta.load_classifier(tmp_path / "file")


WRONG: Any = "l1"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: jaxmeta.protonet(FEATURES, 0), ValueError, "ways must be an integer of at least 1, got 0"),
        (lambda: jaxmeta.r2d2(FEATURES, 5, test_ways=0), ValueError, "test_ways must be an integer"),
        (lambda: jaxmeta.protonet(FEATURES, 5, distance=WRONG), ValueError, "distance must be one of 'euclidean'"),
        (lambda: jaxmeta.relation_network(FEATURES, FEATURES, 5, loss=WRONG), ValueError, "loss must be one of 'mse'"),
        (
            lambda: jaxmeta.metaoptnet(FEATURES, 5, label_smoothing=1.0),
            ValueError,
            "label_smoothing must be a number of at least 0 and less than 1, got 1.0",
        ),
        (lambda: jaxmeta.matching_network(FEATURES, 5, query_context=FEATURES), ValueError, "must be given together"),
        (lambda: jaxmeta.baseline(FEATURES, 5, WRONG, fine_tune=True), TypeError, "inner must be an optax"),
        (lambda: jaxmeta.baseline(FEATURES, 5, steps=0, fine_tune=True), ValueError, "steps must be an integer"),
        (lambda: jaxmeta.baseline_plus_plus(FEATURES, 5, scale=0.0), ValueError, "scale must be a positive number"),
        (lambda: jaxmeta.FullContext(MODEL, steps=0), ValueError, "steps must be an integer"),
        (lambda: jaxmeta.RelationNet(MODEL, hidden=0), ValueError, "hidden must be an integer"),
        (lambda: jaxmeta.NeuralProcess(decoder=(0,)), ValueError, r"decoder\[0\] must be an integer"),
        (lambda: jaxmeta.NeuralProcess(min_std=0.0), ValueError, "min_std must be a positive number"),
        (lambda: jaxmeta.ContextTransformer(3, width=6, heads=4), ValueError, "heads must divide width 6, got 4"),
        (
            lambda: jax.eval_shape(
                jaxmeta.protonet(lambda p, x: x[:, None], 3).grad,
                MetaParams(()),
                TASKS(jax.random.key(0)),
                jax.random.key(1),
            ),
            ValueError,
            r"features_fn must return features \[n, d\], got shape \(6, 1, 6\)",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("by_row", [False, True], ids=["kernel", "weight"])
def test_proto_maml_without_steps_is_a_prototypical_network(by_row):
    """Also for a head as PyTorch has it, `[ways, d]`, and for classes without examples."""
    _, params, task = initial("protonet")
    support = task.support._replace(y=jnp.where(task.support.y == 2, 0, task.support.y))
    matrix = {"weight": jnp.ones((3, 8))} if by_row else {"kernel": jnp.ones((8, 3))}
    head = {**matrix, "bias": jnp.ones(3)}
    variables = {"net": params, "head": head}

    def apply(variables, x):
        matrix = variables["head"]["weight"].T if by_row else variables["head"]["kernel"]
        return FEATURES(variables["net"], x) @ matrix + variables["head"]["bias"][None]

    loss = jaxmeta.classification(apply)
    part = jaxmeta.Part(lambda v: {"head": v["head"]}, lambda part, v: {**v, **part})
    learner = jaxmeta.proto_maml(lambda v, x: FEATURES(v["net"], x), loss, SGD, 0, head=part)
    found = learner.predict(learner.adapt(learner.init(variables), support, jax.random.key(0)), task.query.x)
    protonet = jaxmeta.protonet(FEATURES, 3)
    expected = protonet.adapt(protonet.init(params), support, jax.random.key(0))(task.query.x)
    np.testing.assert_allclose(jax.nn.log_softmax(found), jax.nn.log_softmax(expected), rtol=1e-4, atol=1e-5)
    assert np.isneginf(found[:, 2]).all()
    later = jaxmeta.proto_maml(lambda v, x: FEATURES(v["net"], x), loss, optax.adam(0.1), 3, head=part)
    adapted = later.adapt(later.init(variables), support, jax.random.key(0))
    assert np.isneginf(adapted["head"]["bias"][2]) and np.isfinite(adapted["head"]["bias"][:2]).all()


def test_proto_maml_wants_a_linear_head():
    learner = jaxmeta.proto_maml(FEATURES, CLASSIFIER, SGD, head="body")
    _, params, task = initial("protonet")
    with pytest.raises(ValueError, match=r"head must have one matrix \[8, ways\] or \[ways, 8\], for features of"):
        learner.adapt(learner.init(params), task.support, jax.random.key(0))
