# pyright: reportArgumentType=false
"""Integers and numbers in the arguments of every factory: NumPy's too, and rates also as arrays and tracers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import Batch, Task, models, optim, rl

KEY = jax.random.key(0)
ADAPT_KEY, GRAD_KEY = jax.random.key(1), jax.random.key(2)
LOSS = jaxmeta.regression(lambda p, x: jnp.tanh(x @ p["body"]) @ p["head"])
RNG = np.random.default_rng(0)


def normal(*shape):
    """Random numbers, by NumPy, which takes no time when this file is imported."""
    return RNG.normal(size=shape).astype(np.float32)


NET = {"body": 0.3 * normal(3, 4), "head": np.full((4, 1), 0.5, np.float32)}
FEATURES_NET = {"body": NET["body"]}
CODES = jax.tree.map(lambda x: 0.5 * normal(*x.shape), jax.eval_shape(lambda: jaxmeta.leo_params(KEY, 3, 4)))
SGD, QUICK = optax.sgd(0.1), {"steps": 2, "head_steps": 2}


def features(params, x):
    return x @ params["body"]


def examples(targets):
    return Batch(normal(6, 3), targets)


REGRESSION = Task(examples(normal(6, 1)), examples(normal(6, 1)))
CLASSES = Task(examples(np.arange(6) % 2), examples(np.arange(6) % 2))


def learner(make, params=NET, task=REGRESSION):
    """What a learner made with a number adapts to, and its meta-gradient."""

    def results(value):
        made = make(value)
        meta, (support, query) = jax.tree.map(jnp.asarray, (made.init(params), task))
        loss = made.loss(made.adapt(meta, support, ADAPT_KEY), query, GRAD_KEY)[0]
        return loss, made.grad(meta, Task(support, query), GRAD_KEY)[1]

    return results


def inner(make):
    return learner(lambda value: jaxmeta.maml(LOSS, make(value), steps=2))


def head(make):
    return learner(lambda value: jaxmeta.with_head(features, make(value), 2), FEATURES_NET, CLASSES)


def on_features(make):
    return learner(make, FEATURES_NET, CLASSES)


def leo():
    """All numbers of LEO at once, because it takes long to compile."""
    names = ("inner_rate", "head_rate", "dropout", "kl_weight", "encoder_weight", "orthogonality_weight")
    return learner(lambda value: jaxmeta.leo(2, **QUICK, **dict.fromkeys(names, value)), CODES, CLASSES)


def model(make, shape=(2, 16, 16, 3)):
    x = jax.random.normal(KEY, shape)
    params = jax.jit(make(0.5).init)(KEY, x)
    return lambda value: make(value).apply(params, x, rngs={"dropout": ADAPT_KEY})


# name: (a function of the number, two values of it)
RATES, SCALES, SHARES = (0.05, 0.2), (0.5, 2.0), (0.0, 0.3)
NUMBERS = {
    "maml": (lambda: learner(lambda rate: jaxmeta.maml(LOSS, optax.sgd(rate), 2)), RATES),
    "anil": (lambda: learner(lambda rate: jaxmeta.anil(LOSS, optax.sgd(rate), 2)), RATES),
    "reptile": (lambda: learner(lambda rate: jaxmeta.reptile(LOSS, optax.sgd(rate), 2)), RATES),
    "meta_sgd": (lambda: learner(lambda rate: jaxmeta.meta_sgd(LOSS, rate, 2)), RATES),
    "maml_plus_plus": (lambda: learner(lambda rate: jaxmeta.maml_plus_plus(LOSS, rate, 2)), RATES),
    "meta_kfo": (lambda: learner(lambda rate: jaxmeta.meta_kfo(LOSS, rate, 2)), RATES),
    "meta_curvature": (lambda: learner(lambda rate: jaxmeta.meta_curvature(LOSS, rate, 2)), RATES),
    "imaml-proximal": (lambda: learner(lambda pull: jaxmeta.imaml(LOSS, SGD, 4, proximal=pull)), (1.0, 2.0)),
    "multi_step_weights": (lambda: partial(jaxmeta.multi_step_weights, 3), (0.1, 0.5)),
    "euclidean_head": (lambda: head(jaxmeta.euclidean_head), SCALES),
    "euclidean_head-learned": (lambda: head(partial(jaxmeta.euclidean_head, learn=True)), SCALES),
    "cosine_head": (lambda: head(jaxmeta.cosine_head), SCALES),
    "cosine_head-fixed": (lambda: head(partial(jaxmeta.cosine_head, learn=False)), SCALES),
    "attention_head": (lambda: head(jaxmeta.attention_head), SCALES),
    "ridge_head": (lambda: head(lambda value: jaxmeta.ridge_head(value, scale=value)), SCALES),
    "ridge_head-fixed": (lambda: head(partial(jaxmeta.ridge_head, learn_regularization=False)), SCALES),
    "logistic_head": (lambda: head(lambda value: jaxmeta.logistic_head(value, scale=value)), SCALES),
    "svm_head": (lambda: head(lambda value: jaxmeta.svm_head(value, scale=value, damping=value)), SCALES),
    "linear_head": (lambda: head(lambda value: jaxmeta.linear_head(optax.sgd(value), 3, scale=value)), RATES),
    "protonet": (lambda: on_features(lambda scale: jaxmeta.protonet(features, 2, scale=scale)), SCALES),
    "meta_baseline": (lambda: on_features(lambda scale: jaxmeta.meta_baseline(features, 2, scale=scale)), SCALES),
    "matching_network": (lambda: on_features(lambda scale: jaxmeta.matching_network(features, 2, scale=scale)), SCALES),
    "r2d2": (lambda: on_features(lambda strength: jaxmeta.r2d2(features, 2, regularization=strength)), SCALES),
    "lr_d2": (lambda: on_features(lambda strength: jaxmeta.lr_d2(features, 2, regularization=strength)), SCALES),
    "baseline_plus_plus": (
        lambda: on_features(lambda scale: jaxmeta.baseline_plus_plus(features, 2, SGD, 3, scale=scale, fine_tune=True)),
        SCALES,
    ),
    "metaoptnet": (lambda: on_features(lambda share: jaxmeta.metaoptnet(features, 2, label_smoothing=share)), SHARES),
    "leo": (leo, RATES),
    "scale_by_learned_rate": (lambda: inner(optim.scale_by_learned_rate), RATES),
    "learn": (lambda: inner(lambda rate: optim.learn(optax.sgd, learning_rate=rate)), RATES),
    "learn-positive": (
        lambda: inner(lambda rate: optim.learn(optax.sgd, positive="learning_rate", learning_rate=rate)),
        RATES,
    ),
    "hypergradient_descent": (lambda: inner(lambda rate: optim.hypergradient_descent(rate, rate)), RATES),
    "learned_lstm": (
        lambda: inner(lambda scale: optim.learned_lstm(SGD, key=KEY, hidden=3, step_scale=scale)),
        RATES,
    ),
    "learned_mlp": (
        lambda: inner(lambda x: optim.learned_mlp(SGD, key=KEY, step_scale=x, momenta=(0.5, x), second_moment=x)),
        SHARES,
    ),
    "NeuralProcess": (lambda: model(lambda std: jaxmeta.NeuralProcess(1, (4,), (4,), std), (2, 1)), (0.1, 0.2)),
    "CosineDense": (lambda: lambda scale: models.CosineDense(4, scale).init(KEY, jnp.ones(3)), SCALES),
    "BatchNorm": (lambda: model(models.BatchNorm), (0.1, 0.5)),
    "GroupNorm": (lambda: model(partial(models.GroupNorm, 1)), (0.1, 0.5)),
    "DropBlock": (lambda: model(lambda rate: models.DropBlock(rate, 2)), SHARES),
    "ResNet12": (lambda: model(lambda rate: models.ResNet12(sizes=(4, 4, 4), norm="none", drop_rate=rate)), SHARES),
    "WRN28": (lambda: model(lambda rate: models.WRN28(widen=1, blocks=1, norm="none", drop_rate=rate)), SHARES),
    "R2D2CNN": (lambda: model(lambda rate: models.R2D2CNN(sizes=(4, 4), norm="none", drop_rate=rate)), SHARES),
    "ViT": (lambda: model(lambda rate: models.ViT(patch=8, hidden=6, depth=1, drop_rate=rate)), SHARES),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.quick(
    "maml",
    "meta_sgd",
    "imaml-proximal",
    "multi_step_weights",
    "cosine_head",
    "svm_head",
    "protonet",
    "metaoptnet",
    "learn",
    "BatchNorm",
)
def test_a_rate_may_be_a_number_an_array_or_a_tracer_under_vmap(name):
    make, (other, value) = NUMBERS[name]
    results = make()

    array = jnp.float32(value)  # made here, so that it is concrete where it is used

    @jax.jit
    def run(traced):
        return results(value), results(array), jax.tree.map(lambda x: x[1], jax.vmap(results)(traced))

    expected, *others = run(jnp.array([other, value]))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(expected))
    for found in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, expected)


def test_the_svm_is_differentiable_in_the_weight_of_its_violations():
    x, y = CLASSES.support

    def scores(c):
        fitted = jaxmeta.svm_head(c, iterations=40)
        return fitted.logits(fitted.fit(fitted.learned, jnp.asarray(x, float), jax.nn.one_hot(y, 2, dtype=float)), x)

    with jax.enable_x64(True):
        change = jax.jacfwd(scores)(0.05)
        np.testing.assert_allclose(change, (scores(0.05 + 1e-6) - scores(0.05 - 1e-6)) / 2e-6, rtol=1e-5, atol=1e-8)
        assert float(jnp.max(jnp.abs(change))) > 0.1


MODEL = models.MLP(sizes=(8,))
# (name of the argument, a function of an integer)
NUMBERS_OF_STEPS = [
    ("steps", lambda n: jaxmeta.maml(LOSS, SGD, n)),
    ("test_steps", lambda n: jaxmeta.maml(LOSS, SGD, test_steps=n)),
    ("steps", lambda n: jaxmeta.fomaml(LOSS, SGD, n)),
    ("steps", lambda n: jaxmeta.anil(LOSS, SGD, n)),
    ("steps", lambda n: jaxmeta.boil(LOSS, SGD, n)),
    ("steps", lambda n: jaxmeta.tnet(LOSS, SGD, n)),
    ("steps", lambda n: jaxmeta.imaml(LOSS, SGD, n)),
    ("steps", lambda n: jaxmeta.meta_sgd(LOSS, steps=n)),
    ("steps", lambda n: jaxmeta.meta_curvature(LOSS, steps=n)),
    ("steps", lambda n: jaxmeta.meta_kfo(LOSS, steps=n)),
    ("steps", lambda n: jaxmeta.cavia(LOSS, SGD, 1, n)),
    ("steps", lambda n: jaxmeta.reptile(LOSS, SGD, n)),
    ("steps", lambda n: jaxmeta.maml_plus_plus(LOSS, steps=n)),
    ("steps", lambda n: jaxmeta.proto_maml(features, LOSS, SGD, n)),
    ("steps", lambda n: jaxmeta.ml3(LOSS, LOSS, SGD, n)),
    ("steps", lambda n: jaxmeta.leo(2, steps=n)),
    ("head_steps", lambda n: jaxmeta.leo(2, head_steps=n)),
]
INTEGERS = [
    ("layers", lambda n: jaxmeta.meta_kfo(LOSS, layers=n)),
    ("steps", lambda n: jaxmeta.multi_step_weights(n, 0.0)),
    ("context_size", lambda n: jaxmeta.cavia(LOSS, SGD, n)),
    ("batch_size", lambda n: jaxmeta.reptile(LOSS, SGD, batch_size=n)),
    ("test_batch_size", lambda n: jaxmeta.reptile(LOSS, SGD, test_batch_size=n)),
    ("ways", lambda n: jaxmeta.leo(n)),
    ("features", lambda n: jaxmeta.leo_params(KEY, n)),
    ("latents", lambda n: jaxmeta.leo_params(KEY, 2, n)),
    ("ways", lambda n: jaxmeta.protonet(features, n)),
    ("test_ways", lambda n: jaxmeta.protonet(features, 2, test_ways=n)),
    ("ways", lambda n: jaxmeta.matching_network(features, n)),
    ("ways", lambda n: jaxmeta.relation_network(features, features, n)),
    ("ways", lambda n: jaxmeta.simpleshot(features, n)),
    ("ways", lambda n: jaxmeta.meta_baseline(features, n)),
    ("ways", lambda n: jaxmeta.r2d2(features, n)),
    ("ways", lambda n: jaxmeta.lr_d2(features, n)),
    ("ways", lambda n: jaxmeta.metaoptnet(features, n)),
    ("ways", lambda n: jaxmeta.baseline(features, n)),
    ("ways", lambda n: jaxmeta.baseline_plus_plus(features, n, fine_tune=True)),
    ("steps", lambda n: jaxmeta.baseline(features, 2, steps=n, fine_tune=True)),
    ("steps", lambda n: jaxmeta.linear_head(steps=n)),
    ("steps", lambda n: jaxmeta.logistic_head(steps=n)),
    ("iterations", lambda n: jaxmeta.svm_head(iterations=n)),
    ("steps", lambda n: jaxmeta.FullContext(MODEL, n)),
    ("hidden", lambda n: jaxmeta.RelationNet(MODEL, n)),
    ("out", lambda n: jaxmeta.NeuralProcess(n)),
    (r"encoder\[0\]", lambda n: jaxmeta.NeuralProcess(encoder=(n,))),
    (r"decoder\[1\]", lambda n: jaxmeta.NeuralProcess(decoder=(3, n))),
    ("out", lambda n: jaxmeta.ContextTransformer(n)),
    ("width", lambda n: jaxmeta.ContextTransformer(2, width=n, heads=1)),
    ("layers", lambda n: jaxmeta.ContextTransformer(2, layers=n)),
    ("heads", lambda n: jaxmeta.ContextTransformer(2, heads=n)),
    ("steps", lambda n: optim.scale_by_learned_rate(steps=n)),
    ("max_size", lambda n: optim.scale_by_curvature(max_size=n)),
    ("layers", lambda n: optim.scale_by_kronecker(n)),
    ("max_size", lambda n: optim.scale_by_kronecker(max_size=n)),
    ("hidden", lambda n: optim.learned_lstm(SGD, key=KEY, hidden=n)),
    ("layers", lambda n: optim.learned_lstm(SGD, key=KEY, layers=n)),
    (r"sizes\[1\]", lambda n: optim.learned_mlp(SGD, key=KEY, sizes=(3, n))),
    ("features", lambda n: models.Conv(n, (3, 3))),
    (r"kernel_size\[0\]", lambda n: models.Conv(1, (n, 3))),
    (r"strides\[0\]", lambda n: models.Conv(1, (3, 3), n)),
    (r"strides\[1\]", lambda n: models.Conv(1, (3, 3), (1, n))),
    ("ways", lambda n: models.OmniglotCNN(n)),
    ("hidden", lambda n: models.OmniglotCNN(hidden=n)),
    ("layers", lambda n: models.OmniglotCNN(layers=n)),
    ("ways", lambda n: models.CNN4(n)),
    ("hidden", lambda n: models.CNN4(hidden=n)),
    ("blocks", lambda n: models.CNN4(blocks=n)),
    ("ways", lambda n: models.OmniglotFC(n)),
    (r"sizes\[0\]", lambda n: models.OmniglotFC(sizes=(n,))),
    ("out", lambda n: models.MLP(out=n)),
    (r"sizes\[0\]", lambda n: models.MLP(sizes=(n,))),
    ("ways", lambda n: models.R2D2CNN(n)),
    (r"sizes\[1\]", lambda n: models.R2D2CNN(sizes=(3, n))),
    ("joined", lambda n: models.R2D2CNN(joined=n)),
    ("ways", lambda n: models.ResNet12(n)),
    (r"sizes\[0\]", lambda n: models.ResNet12(sizes=(n,))),
    ("block_size", lambda n: models.ResNet12(block_size=n)),
    ("ways", lambda n: models.WRN28(n)),
    ("widen", lambda n: models.WRN28(widen=n)),
    ("blocks", lambda n: models.WRN28(blocks=n)),
    ("ways", lambda n: models.ViT(n)),
    ("patch", lambda n: models.ViT(patch=n)),
    ("hidden", lambda n: models.ViT(hidden=n, heads=1)),
    ("depth", lambda n: models.ViT(depth=n)),
    ("heads", lambda n: models.ViT(heads=n)),
    ("size", lambda n: models.DropBlock(0.1, n)),
    ("groups", lambda n: models.GroupNorm(n)),
    ("features", lambda n: models.CosineDense(n)),
    ("rows", lambda n: models.KroneckerDense(n, 2)),
    ("columns", lambda n: models.KroneckerDense(2, n)),
    (r"sizes\[0\]", lambda n: rl.GaussianPolicy(2, sizes=(n,))),
    (r"sizes\[1\]", lambda n: rl.CategoricalPolicy(2, sizes=(3, n))),
    (r"sizes\[0\]", lambda n: rl.LatentPolicy(2, sizes=(n,))),
    (r"encoder_sizes\[0\]", lambda n: rl.LatentPolicy(2, encoder_sizes=(n,))),
]


@pytest.mark.parametrize(("argument", "make"), INTEGERS)
def test_numpy_integers_are_integers_and_nothing_else_is(argument, make):
    check_that_it_takes_integers(argument, make, least=1)


@pytest.mark.parametrize(("argument", "make"), NUMBERS_OF_STEPS)
def test_a_number_of_inner_steps_may_be_zero(argument, make):
    check_that_it_takes_integers(argument, make, least=0)


def check_that_it_takes_integers(argument, make, least):
    make(np.int64(least))
    for wrong in (True, 2.5, "2", least - 1, -1):
        with pytest.raises(ValueError, match=rf"^{argument} must be an integer of at least {least}, got {wrong!r}"):
            make(wrong)


def test_numpy_integers_work_wherever_a_size_is_used():
    two, one = np.int64(2), np.int64(1)
    x = jnp.ones((2, 8, 8, 1))
    networks = [
        models.OmniglotCNN(two, two, two, padding=one),
        models.CNN4(two, two, two),
        models.OmniglotFC(two, (two,)),
        models.R2D2CNN(two, (two, two), one),
        models.ResNet12(two, (two,), block_size=two),
        models.WRN28(two, one, one),
        models.ViT(two, two, two, one, one),
    ]
    for network in networks:
        assert jax.eval_shape(network.init_with_output, KEY, x)[0].shape == (2, 2)
    assert jax.eval_shape(models.Conv(two, (two, two), two, one).init_with_output, KEY, x)[0].shape == (2, 5, 5, 2)
    learners = [
        (jaxmeta.maml_plus_plus(LOSS, 0.1, two, test_steps=two), NET, REGRESSION),
        (jaxmeta.reptile(LOSS, SGD, two, batch_size=two), NET, REGRESSION),
        (jaxmeta.leo(two, steps=two, head_steps=two), CODES, CLASSES),
        (jaxmeta.lr_d2(features, two, test_ways=two, steps=two), FEATURES_NET, CLASSES),
        (jaxmeta.with_head(features, jaxmeta.svm_head(iterations=two), two), FEATURES_NET, CLASSES),
        (jaxmeta.baseline(features, two, steps=two, fine_tune=True), FEATURES_NET, CLASSES),
    ]
    for made, params, task in learners:
        jax.eval_shape(learner(lambda _, made=made: made, params, task), 0)


NOT_NUMBERS = [
    ("inner_rate", lambda n: jaxmeta.meta_sgd(LOSS, n), "a finite number"),
    ("inner_rate", lambda n: jaxmeta.meta_kfo(LOSS, n), "a finite number"),
    ("inner_rate", lambda n: jaxmeta.meta_curvature(LOSS, n), "a finite number"),
    ("inner_rate", lambda n: jaxmeta.maml_plus_plus(LOSS, n), "a finite number"),
    ("progress", lambda n: jaxmeta.multi_step_weights(2, n), "a finite number"),
    ("inner_rate", lambda n: jaxmeta.leo(2, n), "a finite number"),
    ("head_rate", lambda n: jaxmeta.leo(2, head_rate=n), "a finite number"),
    ("dropout", lambda n: jaxmeta.leo(2, dropout=n), "a number of at least 0 and less than 1"),
    ("scale", lambda n: jaxmeta.protonet(features, 2, scale=n), "a positive number"),
    ("scale", lambda n: jaxmeta.protonet(features, 2, distance="cosine", scale=n), "a positive number"),
    ("scale", lambda n: jaxmeta.meta_baseline(features, 2, scale=n), "a positive number"),
    ("scale", lambda n: jaxmeta.attention_head(n), "a positive number"),
    ("scale", lambda n: jaxmeta.linear_head(scale=n), "a positive number"),
    ("regularization", lambda n: jaxmeta.ridge_head(n), "a positive number"),
    ("regularization", lambda n: jaxmeta.logistic_head(n), "a positive number"),
    ("c", lambda n: jaxmeta.svm_head(n), "a positive number"),
    ("damping", lambda n: jaxmeta.svm_head(damping=n), "a positive number"),
    ("label_smoothing", lambda n: jaxmeta.metaoptnet(features, 2, label_smoothing=n), "a number of at least 0 and"),
    ("min_std", lambda n: jaxmeta.NeuralProcess(min_std=n), "a positive number"),
    ("learning_rate", lambda n: optim.scale_by_learned_rate(n), "a finite number"),
    ("learning_rate", lambda n: optim.learn(optax.sgd, learning_rate=n), "a finite number"),
    ("hyper_rate", lambda n: optim.hypergradient_descent(hyper_rate=n), "a finite number"),
    ("step_scale", lambda n: optim.learned_lstm(SGD, key=KEY, step_scale=n), "a finite number"),
    (r"momenta\[0\]", lambda n: optim.learned_mlp(SGD, key=KEY, momenta=(n,)), "a number of at least 0 and less"),
    ("drop_rate", lambda n: models.ResNet12(drop_rate=n), "a number of at least 0 and less than 1"),
    ("drop_rate", lambda n: models.ViT(drop_rate=n), "a number of at least 0 and less than 1"),
    ("rate", lambda n: models.DropBlock(n), "a number of at least 0 and less than 1"),
    ("scale", lambda n: models.CosineDense(2, n), "a positive number"),
    ("epsilon", lambda n: models.BatchNorm(n), "a number of at least 0"),
]


@pytest.mark.parametrize(("argument", "make", "kind"), NOT_NUMBERS)
def test_what_is_not_a_number_is_refused(argument, make, kind):
    for wrong in (True, "0.1", float("nan"), np.float32("inf"), jnp.array(jnp.nan), [0.1]):
        with pytest.raises(ValueError, match=rf"^{argument} must be {kind}"):
            make(wrong)
