"""Random tables: sizes and weights, columns against NumPy, and what padding and numbering must not change."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta
from jaxmeta import data
from jaxmeta.data.containers import Columns, table_inputs
from jaxmeta.data.samplers._table_graph import classes_of, random_choice, random_labels

KEY = jax.random.key(0)
SMALL = data.TablePrior(ways=(2, 4), features=(1, 6), shots=(3, 12), queries=8, missing=0.5)
NUMBER = 200


@pytest.fixture(scope="module")
def drawn():
    """Tasks of the small prior, and their tables."""
    keys = jax.random.split(KEY, NUMBER)
    both = jax.jit(jax.vmap(lambda key: (SMALL(key), SMALL.table(key))))(keys)
    return jax.tree.map(np.asarray, both)


@pytest.mark.parametrize(
    ("sizes", "support", "query"),
    [
        ({}, (100, 64), (40, 64)),
        ({"ways": 3, "features": 5, "shots": 7, "queries": 2}, (7, 10), (2, 10)),
        ({"ways": (2, 20), "features": (1, 4), "shots": (1, 9)}, (9, 8), (40, 8)),
    ],
    ids=["default", "numbers", "pairs"],
)
def test_shapes(sizes, support, query):
    sampler = data.TablePrior(**sizes)
    task = jax.eval_shape(sampler, KEY)
    assert (task.support.x.shape, task.query.x.shape) == (support, query)
    assert sampler.example.shape == (1, support[1])
    assert task.support.y.dtype == task.query.y.dtype == jnp.int32
    assert task.support.weight.shape == support[:1] and task.query.weight.shape == query[:1]


def test_sizes_of_tasks_vary_within_their_bounds(drawn):
    task, table = drawn
    shots = task.support.weight.sum(1)
    assert set(shots) == set(range(3, 13)) and (shots == table.shots).all()
    assert (np.diff(task.support.weight, axis=1) <= 0).all()  # padding comes last
    columns = table.seen.any(1)
    assert (np.diff(columns.astype(int), axis=1) <= 0).all() and set(columns.sum(1)) == set(range(1, 7))
    assert table.y.min() == 0 and table.y.max() == 3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(drawn))


def test_queries_count_where_the_support_set_can_tell(drawn):
    task, _ = drawn
    for i in range(NUMBER):
        seen = set(task.support.y[i][task.support.weight[i] > 0].tolist())
        expected = [float(y in seen and len(seen) > 1) for y in task.query.y[i].tolist()]
        assert task.query.weight[i].tolist() == expected
    assert 0.5 < task.query.weight.mean() < 1


@pytest.mark.parametrize("missing", [0.0, 1.0])
def test_missing_is_the_share_of_incomplete_tables(missing):
    sampler = data.TablePrior(ways=2, features=8, shots=20, queries=10, missing=missing)
    seen = np.asarray(jax.jit(jax.vmap(lambda key: sampler.table(key).seen))(jax.random.split(KEY, 50)))
    exists = seen.any(1)
    gaps = ((~seen).sum(1) * exists).sum(1) > 0
    assert gaps.mean() == 0 if missing == 0 else gaps.mean() > 0.9


def test_a_key_gives_a_table_whatever_the_batch(drawn):
    task, _ = drawn
    again = jax.jit(SMALL)(jax.random.split(KEY, NUMBER)[7])
    for one, many in zip(jax.tree.leaves(again), jax.tree.leaves(task), strict=True):
        np.testing.assert_allclose(one, many[7], rtol=1e-4, atol=1e-4)


def test_double_precision():
    with jax.enable_x64(True):
        task = jax.eval_shape(SMALL, jax.random.key(0))
        assert task.support.x.dtype == task.query.x.dtype == task.query.weight.dtype == jnp.float64
        x = jnp.array([[1e6 + 1.0], [1e6 + 2.0], [1e6 + 4.0]])
        seen = jnp.ones((3, 1), bool)
        found = table_inputs(Columns(x, seen), Columns(x, seen), jnp.ones(3))[:, 0]
        np.testing.assert_allclose(found, (x[:, 0] - x.mean()) / x.std(), rtol=1e-9)


def as_columns(values):
    """Values with NaN as the function takes them, with large numbers where they must not matter."""
    return Columns(jnp.asarray(np.where(np.isnan(values), 1e3, values), jnp.float32), jnp.asarray(~np.isnan(values)))


@pytest.fixture(scope="module")
def values():
    """Labeled rows and others: numbers, gaps, a constant column, and one without values."""
    random = np.random.default_rng(0)
    rows = random.normal(3, [1, 10, 0.1, 1, 1, 1], (30, 6))
    rows[:, 3] = 0.1
    rows[:, 4] = np.nan
    rows[random.random((30, 6)) < 0.2] = np.nan
    rows[25, 0], rows[26, 0] = 60.0, -60.0
    return rows[:20], rows[20:]


def test_columns_are_standardized_by_the_labeled_rows(values):
    context, rows = values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a column without values
        mean, std = np.nanmean(context, 0), np.nanstd(context, 0)
    std[3] = np.inf  # constant
    expected = (rows - mean) / std
    far = np.abs(expected) > 4
    expected[far] = np.sign(expected[far]) * (4 + np.log(np.abs(expected[far]) - 3))
    assert far.sum() == 2
    expected = np.nan_to_num(expected) * np.sqrt(6 / 4)  # two of six columns do not vary
    flags = np.isnan(rows) & (np.arange(6) != 4)
    found = table_inputs(as_columns(rows), as_columns(context), jnp.ones(20))
    np.testing.assert_allclose(found, np.concatenate([expected, flags], 1), rtol=1e-4, atol=1e-5)


def test_padding_has_no_influence(values):
    """Rows of weight 0 and columns without values change neither inputs nor what a transformer says."""
    context, rows = values
    network = jaxmeta.ContextTransformer(out=3, width=8, layers=2, heads=2)
    variables = network.init(KEY, jnp.zeros((1, 12)))
    y = jnp.arange(20) % 3

    def logits(context, rows, y, weight):
        table, asked = as_columns(context), as_columns(rows)
        read = network.apply(variables, table_inputs(table, table, weight), y, weight, method="encode")
        found: Any = network.apply(variables, read, table_inputs(asked, table, weight), method="decode")
        return found

    alone = logits(context, rows, y, jnp.ones(20))
    longer = np.concatenate([context, 7 * rows])
    padded = logits(longer, rows, jnp.concatenate([y, jnp.full(10, 2)]), jnp.ones(30).at[20:].set(0))
    np.testing.assert_allclose(padded, alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits(context, rows[:1], y, jnp.ones(20)), alone[:1], rtol=1e-4, atol=1e-5)
    context, rows = context.copy(), rows.copy()
    rows[:, 4] = 5.0  # of a column that no labeled row knows
    np.testing.assert_allclose(logits(context, rows, y, jnp.ones(20)), alone, rtol=1e-4, atol=1e-5)


def test_numbers_of_the_classes_mean_nothing():
    sampler = data.TablePrior(ways=3, features=2, shots=10, queries=1, missing=0)
    y = np.asarray(jax.jit(jax.vmap(lambda key: sampler.table(key).y[0]))(jax.random.split(KEY, 3000)))
    assert np.abs(np.bincount(y, minlength=3) / 3000 - 1 / 3).max() < 4 * np.sqrt(2 / 9 / 3000)


@pytest.mark.parametrize("rooted", [False, True])
def test_classes_are_intervals_the_largest_or_roots(rooted):
    random = np.random.default_rng(1)
    found = set()
    for seed in range(20):
        keys = jax.random.split(jax.random.key(seed), 2)
        labels = random_labels(keys[0], 200, jnp.asarray(3), 5)
        targets = random.normal(size=(200, 5)).astype(np.float32)
        y = np.asarray(classes_of(keys[1], labels, jnp.asarray(targets), jnp.asarray(rooted)))
        assert set(y) <= {0, 1, 2}
        sorted_changes = int((np.diff(y[np.argsort(targets[:, 0])]) != 0).sum())
        largest = np.argmax(targets + np.asarray(labels.logits), 1)
        same = {
            name: len(set(zip(y, other, strict=True))) <= 3
            for name, other in {"root": np.asarray(labels.root), "largest": largest}.items()
        }
        found |= {name for name, holds in {**same, "intervals": sorted_changes <= 2}.items() if holds}
    assert found == ({"root"} if rooted else {"largest", "intervals"})


def test_choices_are_allowed_first_and_all_come_up():
    allowed = jnp.array([True, False, True, True, False, True])
    chosen = np.asarray(jax.vmap(lambda key: random_choice(key, allowed, 5, 3))(jax.random.split(KEY, 500)))
    assert all(len(set(row)) == 5 for row in chosen.tolist())
    assert set(chosen[:, :4].ravel()) == {0, 2, 3, 5} and set(chosen[:, 0]) == {0, 2, 3, 5}


def test_tables_can_be_learned():
    """Ridge regression on the inputs beats the most frequent class, so there is something to learn."""
    sampler = data.TablePrior(ways=2, features=(2, 8), shots=60, queries=40)
    tasks = jax.tree.map(np.asarray, jax.jit(jax.vmap(sampler))(jax.random.split(KEY, 100)))
    gains = []
    for i in range(100):
        x, y, asked = tasks.support.x[i], tasks.support.y[i], tasks.query.y[i]
        sign = 2.0 * y - 1
        weight = np.linalg.solve(x.T @ x + 10 * np.eye(16), x.T @ (sign - sign.mean()))
        right = (tasks.query.x[i] @ weight + sign.mean() > 0) == asked
        gains.append(right.mean() - (asked == (y.mean() > 0.5)).mean())
    assert np.mean(gains) > 0.05


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"ways": 1}, "ways must be at least 2, got 1"),
        ({"ways": (1, 3)}, r"ways must be at least 2, got \(1, 3\)"),
        ({"features": 0}, "features must be an integer of at least 1, got 0"),
        ({"shots": (5, 2)}, r"shots must be an integer or a pair \(least, most\), got \(5, 2\)"),
        ({"queries": 2.5}, "queries must be an integer of at least 1, got 2.5"),
        ({"missing": 1.5}, "missing must be a number from 0 to 1, got 1.5"),
    ],
)
def test_wrong_sizes_are_named(sizes, message):
    with pytest.raises(ValueError, match=message):
        data.TablePrior(**sizes)


@pytest.mark.slow
def test_benchmark():
    sets: Any = data.get_tasksets("table-prior", ways=3, shots=4, queries=2, test_shots=(2, 5))
    assert (sets.train.shots, sets.test.shots, sets.train.ways) == ((5, 12), (6, 15), (2, 3))
    assert sets.train(KEY).query.y.shape == (6,)
