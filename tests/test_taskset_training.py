"""A `Taskset` is a sampler: it trains like the sampler on the device, with validation, checkpoints and resume."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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


def test_sentences_are_told_to_become_numbers():
    tasks = data.Taskset(([f"sentence {i}" for i in range(60)], LABELS), TRANSFORMS)
    with pytest.raises(ValueError, match=r"only if its inputs are numbers, got <U.*: hash_ngrams turns sentences into"):
        _ = tasks.example
    vectors = data.Taskset(tasks.dataset, [*TRANSFORMS, data.Map(lambda text: data.hash_ngrams([text], 32)[0])])
    assert vectors.example.shape == (1, 32)
