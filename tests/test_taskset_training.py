"""A `Taskset` is a sampler: it trains like the sampler on the device, with validation, checkpoints and resume."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import jaxmeta
from jaxmeta import data, models

X = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1)).astype(np.uint8)
LABELS = np.arange(60) % 6
TRANSFORMS = [data.NWays(3), data.KShots(1, queries=2), data.LoadData(), data.RemapLabels()]
KEY = jax.random.key(3)


def noise(key, x):
    return x + 0.01 * jax.random.normal(key, x.shape)


@pytest.mark.parametrize(
    ("more", "num_tasks"),
    [((), -1), ((), 5), ((data.Augment(noise), data.Augment(noise, support=False)), -1), ((data.Augment(noise),), 7)],
)
@pytest.mark.quick("more0*")
def test_it_draws_what_the_sampler_on_the_device_draws(more, num_tasks):
    tasks = data.Taskset((X, LABELS), [*TRANSFORMS, *more], num_tasks=num_tasks, seed=2)
    keys = jax.random.split(KEY, 6).reshape(2, 3)
    run = jax.jit(lambda sampler, keys: jax.vmap(jax.vmap(sampler))(keys))
    found, expected = run(tasks, keys), run(tasks.to_device(), keys)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    one = tasks(keys[1, 2])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1, 2], b, atol=1e-6), expected, one)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, tasks.sample(keys[1, 2]))
    assert tasks.example.shape == (1, 4, 4, 1) and tasks.example.dtype == jnp.float32


def dictionary(description):
    return description.take(np.arange(len(description.example)))  # a function of one's own, which needs the host


@pytest.mark.slow
def test_it_trains_with_validation_checkpoints_and_resume(tmp_path):
    tasks = data.Taskset((X, LABELS), [dictionary, *TRANSFORMS])
    model = models.OmniglotFC(ways=3, sizes=(8,))
    learner = jaxmeta.maml(jaxmeta.classification(model.apply), optax.sgd(0.1))
    meta = learner.init(jax.jit(model.init)(KEY, tasks.example))

    def run(sampler, folder, iterations):
        options = {"num_tasks": 2, "validation_tasks": 3, "validate_every": 4, "log_every": 4, "progress": False}
        return jaxmeta.train(
            learner,
            optax.adam(1e-2),
            meta,
            sampler,
            KEY,
            validation=sampler,
            monitor="loss",
            folder=folder,
            iterations=iterations,
            **options,
        )

    whole = run(tasks, tmp_path / "whole", 8)
    run(tasks, tmp_path / "parts", 4)
    resumed = run(tasks, tmp_path / "parts", 8)
    jax.tree.map(np.testing.assert_array_equal, whole.meta, resumed.meta)
    on_device = run(data.Taskset((X, LABELS), TRANSFORMS).to_device(), None, 8)
    assert jax.tree.structure(on_device.meta) == jax.tree.structure(whole.meta) and len(whole.history) == 3
    found = jax.jit(jaxmeta.evaluate(learner, num_tasks=4))(whole.meta, tasks, KEY)
    assert np.isfinite(found["loss"]).all()


def test_inputs_may_be_dictionaries():
    pairs = [({"image": X[i], "size": np.float32(i)}, int(LABELS[i])) for i in range(60)]
    tasks = data.Taskset(pairs, TRANSFORMS)
    task = jax.jit(lambda sampler, key: sampler(key))(tasks, tasks.key(4))
    jax.tree.map(np.testing.assert_array_equal, task, jax.tree.map(jnp.asarray, tasks[4]))
    assert task.query.x["image"].dtype == jnp.float32 and tasks.example["size"].shape == (1,)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (data.Taskset((X, LABELS), [data.NWays(2), data.KShots(1), data.LoadData()]), "only with queries in KShots"),
        (data.Taskset((X, LABELS), TRANSFORMS, task_collate=tuple), "without task_collate"),
    ],
)
def test_what_cannot_be_a_sampler_says_so(tasks, message):
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda sampler, key: sampler(key))(tasks, KEY)


def test_tasks_of_different_shapes_are_refused():
    def fewer(description):
        return description.take(np.arange(len(description.example) - int(description.key[0] % 2)))

    tasks = data.Taskset((X, LABELS), [*TRANSFORMS, fewer])
    with pytest.raises(Exception, match="all tasks must have the shapes of the first"):
        jax.block_until_ready(jax.vmap(tasks)(jax.random.split(KEY, 8)))


# Augmentation on the host.


def jitter(rng, x):
    assert x.dtype == np.uint8, "it gets the example as it is in the data"
    return np.roll(x, rng.integers(0, 4), axis=rng.integers(0, 2))


def test_an_augmentation_of_pillow():
    """What it gets and gives may be pictures: the task has the arrays."""
    picture = Image.fromarray

    def turned(rng, x):
        return picture(x[..., 0]).rotate(90 * int(rng.integers(1, 4)))

    images = np.random.default_rng(0).integers(0, 255, (len(LABELS), 6, 6, 1), np.uint8)
    tasks = data.Taskset((images, LABELS), [*TRANSFORMS, data.AugmentOnHost(turned)])
    plain = data.Taskset((images, LABELS), TRANSFORMS)
    for found, expected in zip(tasks[3].query.x, plain[3].query.x, strict=True):
        assert any((np.squeeze(found) == np.rot90(expected[..., 0], k)).all() for k in (1, 2, 3))


def test_an_augmentation_on_the_host_belongs_to_its_task():
    def tasks(*more, seed=0):
        return data.Taskset((X, LABELS), [*TRANSFORMS, *more], seed=seed)

    both, support = tasks(data.AugmentOnHost(jitter)), tasks(data.AugmentOnHost(jitter, query=False))
    plain, again = tasks(), tasks(data.AugmentOnHost(jitter))
    jax.tree.map(np.testing.assert_array_equal, both[7], again[7])
    jax.tree.map(np.testing.assert_array_equal, both[7], pickle.loads(pickle.dumps(both))[7])
    jax.tree.map(np.testing.assert_array_equal, both[7].query.y, plain[7].query.y)
    jax.tree.map(np.testing.assert_array_equal, support[7].query, plain[7].query)
    np.testing.assert_array_equal(support[7].support.x, both[7].support.x)
    for found, expected in zip(both[7].query.x, plain[7].query.x, strict=True):
        assert sorted(found.ravel()) == sorted(expected.ravel())
    assert all((both[i].query.x != plain[i].query.x).any() for i in range(9))
    assert not np.array_equal(both[7].query.x, tasks(data.AugmentOnHost(jitter), seed=1)[7].query.x)
    twice = tasks(data.AugmentOnHost(jitter), data.AugmentOnHost(jitter))
    assert not np.array_equal(twice[7].query.x, both[7].query.x)
    in_program = jax.jit(lambda sampler, key: sampler(key))(both, both.key(7))
    jax.tree.map(np.testing.assert_array_equal, in_program, both[7])
    with pytest.raises(ValueError, match=r"to_device cannot run AugmentOnHost.* prefetch"):
        both.to_device()
