# pyright: reportArgumentType=false
"""`PriorFittedClassifier`: against a kernel classifier in NumPy, as one of scikit-learn, and what it refuses."""

import pickle
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas
import pytest
from flax import linen as nn

import jaxmeta
from jaxmeta import ContextTransformer, PriorFittedClassifier, data


class Kernel(nn.Module):
    """A network with known predictions: `p(y | x) ~ sum_i w_i [y_i = y] exp(-|x - x_i|^2)`."""

    out: int
    backbone: Any = None

    def encode(self, x, y, weight):
        return x, jax.nn.one_hot(y, self.out) * weight[:, None]

    def decode(self, context, x):
        known, one_hot = context
        distance = jnp.square(x[:, None] - known[None]).sum(-1)
        return jax.nn.logsumexp(-distance[..., None], axis=1, b=one_hot[None] + 1e-30)


@pytest.fixture
def classifier():
    return PriorFittedClassifier(Kernel(out=4), {}, features=5, rows=50, ensemble=3)


@pytest.fixture(scope="module")
def table():
    """Three clusters in four columns of very different scales, with gaps: 45 rows to read, 300 to ask."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 345)
    x = (random.normal(0, 2, (3, 4))[y] + random.normal(size=(345, 4))) * [1, 100, 0.01, 1] + [0, 1e7, 0, 5]
    x[random.random(x.shape) < 0.1] = np.nan
    names = np.array(["oak", "ash", "elm"])[y]
    return (x[:45], names[:45]), (x[45:], names[45:])


def by_hand(train, x, features):
    """Probabilities of `Kernel` for the sorted classes, computed in NumPy."""
    mean, std = np.nanmean(train[0], 0), np.nanstd(train[0], 0)

    def inputs(rows):
        z = (rows - mean) / std
        far = np.abs(z) > 4
        z[far] = np.sign(z[far]) * (4 + np.log(np.abs(z[far]) - 3))
        return np.concatenate([np.nan_to_num(z) * np.sqrt(features / rows.shape[1]), np.isnan(rows)], 1)

    distance = ((inputs(x)[:, None] - inputs(train[0])[None]) ** 2).sum(-1)
    weight = np.exp(-distance) @ (train[1][:, None] == np.unique(train[1])[None])
    return weight / weight.sum(1, keepdims=True)


def test_probabilities_are_those_of_the_network(classifier, table):
    train, test = table
    found = classifier.fit(*train).predict_proba(test[0])
    np.testing.assert_allclose(found, by_hand(train, test[0], 5), atol=2e-3)
    assert classifier.classes_.tolist() == ["ash", "elm", "oak"] and classifier.n_features_in_ == 4
    assert (classifier.predict(test[0]) == classifier.classes_[found.argmax(1)]).all()
    assert classifier.score(*test) == np.mean(classifier.predict(test[0]) == test[1]) > 0.75
    assert classifier.predict_proba(test[0][:0]).shape == (0, 3)


@pytest.fixture(scope="module")
def untrained():
    """A transformer with random parameters, whose predictions depend on positions of columns and classes."""
    network = ContextTransformer(out=4, width=8, layers=2, heads=2)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 10)))
    return PriorFittedClassifier(network, variables, features=5, rows=50, ensemble=4)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: pandas.DataFrame(x, columns=list("abcd")),
        lambda x: pandas.DataFrame(x).astype(object).where(~np.isnan(x), None),
        lambda x: x.tolist(),
        lambda x: x * [1e-12, 3, -1, 1] - 7,
        lambda x: np.concatenate([x, np.full((len(x), 1), 0.1)], 1),
        lambda x: np.concatenate([np.full((len(x), 1), np.nan), x], 1),
    ],
    ids=["frame", "objects", "lists", "units", "constant", "unknown"],
)
def test_the_form_and_the_units_of_columns_do_not_matter(classifier, table, change):
    train, test = table
    before = classifier.fit(*train).predict_proba(test[0])
    after = classifier.fit(change(train[0]), train[1]).predict_proba(change(test[0]))
    np.testing.assert_allclose(after, before, atol=2e-3)


def test_rows_have_no_order_and_no_neighbors(untrained, table):
    (x, y), (asked, _) = table
    before = untrained.fit(x, y).predict_proba(asked)
    turned = untrained.fit(x[::-1], y[::-1]).predict_proba(asked)
    np.testing.assert_allclose(turned, before, atol=1e-4)
    np.testing.assert_allclose(untrained.predict_proba(asked[:1]), turned[:1], atol=1e-5)
    np.testing.assert_allclose(before.sum(1), 1, atol=1e-5)


@pytest.mark.slow
def test_an_ensemble_of_all_orders_knows_no_positions(table):
    """With many members the mean hardly depends on the order of the columns or on the names of the classes."""
    network = ContextTransformer(out=4, width=8, layers=2, heads=2)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 10)))
    (x, y), (asked, _) = table
    renamed, back = np.where(y == "oak", "aaa", y), [1, 2, 0]  # oak was the last class and is the first
    worst = []
    for ensemble in (1, 256):
        found = PriorFittedClassifier(network, variables, features=5, rows=50, ensemble=ensemble)
        before = found.fit(x, y).predict_proba(asked)
        after = found.fit(x[:, ::-1], renamed).predict_proba(asked[:, ::-1])[:, back]
        worst.append(np.abs(after - before).max())
    assert worst[1] < 0.25 * worst[0]


def test_seeds_and_files(untrained, table, tmp_path):
    (x, y), (asked, _) = table
    before = untrained.fit(x, y).predict_proba(asked)
    untrained.save(tmp_path / "file")
    loaded = PriorFittedClassifier.load(tmp_path / "file", ensemble=4)
    assert repr(loaded) == "PriorFittedClassifier(classes=4, features=5, rows=50, ensemble=4)"
    assert (loaded.fit(x, y).predict_proba(asked) == before).all()
    assert (pickle.loads(pickle.dumps(loaded)).predict_proba(asked) == before).all()
    other = loaded.set_params(seed=1).fit(x, y).predict_proba(asked)
    assert loaded.get_params()["seed"] == 1 and np.abs(other - before).max() > 1e-6


def test_files_that_are_refused(classifier, untrained, tmp_path):
    untrained.save(tmp_path / "file")
    content = bytearray((tmp_path / "file").read_bytes())
    content[200] ^= 1
    (tmp_path / "changed").write_bytes(content)
    jaxmeta.save(tmp_path / "arrays", {"w": jnp.zeros(3)})
    for name in ("changed", "arrays"):
        with pytest.raises(ValueError, match=name):
            PriorFittedClassifier.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        PriorFittedClassifier.load(tmp_path / "none")
    network = ContextTransformer(out=2, backbone=jaxmeta.models.MLP())
    with pytest.raises(ValueError, match="network must have no backbone"):
        PriorFittedClassifier(network, {}, features=2, rows=2).save(tmp_path / "other")


X, Y = np.arange(12.0).reshape(6, 2), np.array([0, 1] * 3)


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (X, np.arange(6), ValueError, "at most 4 classes, for which the network is trained, got 6"),
        (np.zeros((6, 9)), Y, ValueError, "at most 5 columns, .* got 9"),
        (np.zeros((60, 2)), np.arange(60) % 2, ValueError, "at most 50 rows, .* got 60"),
        (X, Y[:5], ValueError, "y must have a class for each row of X: got 5 for 6 rows"),
        (X, np.zeros(6), ValueError, "y must have at least two classes"),
        (X, [0, 1, 0, 1, 0, np.nan], ValueError, "y must have a class for each row, got nan in row 5"),
        (X, ["a", None, "b", "a", "b", "a"], ValueError, "y must have a class for each row, got None in row 1"),
        (X, ["a", 1, "b", "a", "b", "a"], TypeError, "y must be all numbers or all strings, got both"),
        (X, Y[:, None], ValueError, r"y must have shape \[rows\], got \(6, 1\)"),
        (X[0], Y, ValueError, r"X must have shape \[rows, columns\], got \(2,\): a single row is X\[None\]"),
        ([["a", "b"]] * 6, Y, TypeError, "X must be numbers, got <U1: give each category a number"),
        (pandas.DataFrame({"u": [1] * 6, "v": ["red"] * 6}), Y, TypeError, "got 'red' in column 'v': give each"),
        ([[1, 2], [3]] * 3, Y, ValueError, "X must have rows of the same length"),
        (np.where(X == 5, np.inf, X), Y, ValueError, "X must be finite, .* got inf in column 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_tables_are_named(classifier, x, y, error, message):
    with pytest.raises(error, match=message):
        classifier.fit(x, y)


def test_wrong_calls_are_named(classifier):
    with pytest.raises(ValueError, match="call fit"):
        classifier.predict(X)
    with pytest.raises(ValueError, match="X must have 2 columns, as in fit, got 1"):
        classifier.fit(X, Y).predict_proba(X[:, :1])
    with pytest.raises(ValueError, match="params must be among network, .* got 'rate'"):
        classifier.set_params(rate=1)
    with pytest.raises(ValueError, match="ensemble must be an integer of at least 1, got 0"):
        classifier.set_params(ensemble=0).fit(X, Y)


def test_a_classifier_of_scikit_learn(classifier, table):
    selection = pytest.importorskip("sklearn.model_selection")
    base, pipeline = pytest.importorskip("sklearn.base"), pytest.importorskip("sklearn.pipeline")
    scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler()
    train, test = table
    assert base.is_classifier(classifier)
    assert selection.cross_val_score(classifier, *train, cv=3).mean() > 0.7
    alone = classifier.fit(*train).predict_proba(test[0])
    copied = pipeline.make_pipeline(scaler, base.clone(classifier)).fit(*train)
    np.testing.assert_allclose(copied.predict_proba(test[0]), alone, atol=2e-3)


@pytest.mark.slow
def test_a_network_that_is_trained_for_seconds_beats_chance():
    prior = data.TablePrior(ways=2, features=(1, 3), shots=(10, 30), queries=20, missing=0)
    network = ContextTransformer(out=2, width=32, layers=2)
    learner = jaxmeta.in_context(*(partial(network.apply, method=name) for name in ("encode", "decode")))
    meta = learner.init(network.init(jax.random.key(0), prior.example))
    options = {"iterations": 400, "num_tasks": 16, "log_every": 100, "progress": False}
    trained = jaxmeta.train(learner, optax.adam(2e-3), meta, prior, jax.random.key(1), **options)
    classifier = PriorFittedClassifier(network, trained.meta.params, features=3, rows=30)
    random = np.random.default_rng(0)
    x = random.normal(size=(230, 3))
    y = x @ [1, -1, 0.5] > 0
    assert classifier.fit(x[:30], y[:30]).score(x[30:], y[30:]) > 0.75
