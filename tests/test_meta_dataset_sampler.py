"""The tasks of Meta-Dataset against its formulas in NumPy, and what every task must hold."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from jaxmeta.data import MetaDatasetSampler
from jaxmeta.data.samplers._meta_dataset_sampler import episode_sizes

COUNTS = np.array([20, 7, 33, 20, 150, 12, 9, 2, 50, 20, 20])
GROUPS = np.array([0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4])


def sampler(groups: Any = GROUPS, **sizes):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(COUNTS)) * 3, COUNTS))
    rows = np.arange(len(labels), dtype=np.float32)[:, None]
    given: Any = {"ways": (3, 5)} | sizes
    return MetaDatasetSampler.create(rows, labels, groups, **given), labels // 3


def papers_sizes(counts, beta, alpha, max_support, max_shots, max_queries):
    """Section 3.2 of the paper, one class after the other."""
    queries = min([max_queries] + [int(0.5 * n) for n in counts])
    support = min(max_support, sum(int(np.ceil(beta * min(max_shots, n - queries))) for n in counts))
    total = sum(np.exp(a) * n for a, n in zip(alpha, counts, strict=True))
    shots = []
    for a, n in zip(alpha, counts, strict=True):
        ratio = np.exp(a) * n / total
        shots.append(min(int(ratio * (support - len(counts))) + 1, n - queries))
    return shots, queries


@pytest.mark.parametrize(("max_support", "max_shots", "max_queries"), [(500, 100, 10), (60, 100, 10), (500, 5, 3)])
def test_sizes_are_those_of_the_paper(max_support, max_shots, max_queries):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        limits = {"max_support": max_support, "max_shots": max_shots, "max_queries": max_queries}
        compute = jax.jit(functools.partial(episode_sizes, **limits))
        for ways in (5, 8, 20, 20, 20):
            counts, padding = rng.integers(2, 200, ways), 20 - ways
            beta, alpha = 1 - rng.uniform(), rng.uniform(np.log(0.5), np.log(2), ways)
            padded = np.pad(counts, (0, padding), constant_values=1), np.arange(20) < ways
            found = compute(*map(jnp.asarray, padded), beta, jnp.asarray(np.pad(alpha, (0, padding))))
            shots, queries = papers_sizes(counts, beta, alpha, max_support, max_shots, max_queries)
            assert found.shots.tolist() == shots + [0] * padding and int(found.queries) == queries
            assert sum(shots) <= max_support


def test_tasks_are_of_one_group_without_repetition_and_as_likely_as_they_should_be():
    tasks, classes_of = sampler()
    drawn = jax.jit(jax.vmap(tasks))(jax.random.split(jax.random.key(0), 3_000))
    found_groups, found_ways, found_betas = [], [], []
    for support, query in zip(*(zip(*map(np.asarray, part), strict=True) for part in drawn), strict=True):
        rows, labels = (np.concatenate([part[i][part[2] > 0] for part in (support, query)]) for i in (0, 1))
        rows = rows[:, 0].astype(int)
        assert len(set(rows)) == len(rows), "an example comes twice"
        ways = labels.max() + 1
        classes = [set(classes_of[rows[labels == way]]) for way in range(ways)]
        assert all(len(c) == 1 for c in classes), "a label has several classes"
        classes = [c.pop() for c in classes]
        assert len(set(classes)) == ways and len(set(GROUPS[classes])) == 1
        queries = np.bincount(query[1][query[2] > 0], minlength=ways)
        assert (queries == min(10, COUNTS[classes].min() // 2)).all()
        shots = np.bincount(support[1][support[2] > 0], minlength=ways)
        assert (shots >= 1).all() and (shots <= COUNTS[classes] - queries).all()
        found_groups.append(GROUPS[classes[0]])
        found_ways.append(ways)
        found_betas.append(shots.sum() / np.minimum(100, COUNTS[classes] - queries).sum())
    assert scipy.stats.chisquare(np.unique(found_groups, return_counts=True)[1]).pvalue > 1e-4
    assert scipy.stats.chisquare(np.unique(found_ways, return_counts=True)[1]).pvalue > 1e-4
    assert 0.35 < np.mean(found_betas) < 0.55  # beta is uniform, and shots are rounded down or cut off


def test_groups_may_overlap():
    """As the nodes of ImageNet's hierarchy do."""
    nodes = [{0, 1, 2, 3, 4}, {3, 4, 5, 6}, {6, 7, 8}]
    tasks, classes_of = sampler([[3 * c for c in node] for node in nodes])
    found = np.zeros(len(nodes))
    draw = jax.jit(jax.vmap(tasks))(jax.random.split(jax.random.key(0), 600))
    for x, weight in zip(np.asarray(draw.support.x), np.asarray(draw.support.weight), strict=True):
        classes = set(classes_of[x[weight > 0][:, 0].astype(int)])
        within = [classes <= node for node in nodes]
        assert len(classes) >= 3 and sum(within) == 1
        found += within
    assert scipy.stats.chisquare(found).pvalue > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ways": 5}, r"ways must be a pair \(least, most\), got 5"),
        ({"ways": (6, 9)}, r"ways must be at most the size of a group, got \(6, 9\) for 5 in 4"),
        ({"max_support": 4}, "max_support must be an integer of at least 5, got 4"),
        ({"max_queries": 0}, "max_queries must be an integer of at least 1"),
    ],
)
def test_bad_sizes(change, message):
    with pytest.raises(ValueError, match=message):
        sampler(**change)


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([0, 0, 1], None, "2 examples of each class at least, class 1 has 1"),
        ([0, 0, 1, 1], None, "labels must match inputs: got 4 labels for 3 inputs"),
        ([4, 4, 4], [[4], [5, 7]], r"groups must hold labels, got \[5, 7\] in group 1, which are none"),
        ([0, 0, 0], [1, 2], r"groups must have one entry for each of 1 classes, got shape \(2,\)"),
    ],
)
def test_bad_arrays(labels, groups, message):
    with pytest.raises(ValueError, match=message):
        MetaDatasetSampler.create(np.zeros((3, 1)), labels, groups, ways=(1, 2))
