"""Which classes the tasks of a `Taskset` have: by numbers and by names, as samplers on the device tell them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta
from jaxmeta import data

X = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1)).astype(np.uint8)
LABELS = np.arange(60) % 6
TRANSFORMS = [data.NWays(3), data.KShots(1, queries=2), data.LoadData(), data.RemapLabels()]
KEY = jax.random.key(3)


def noise(key, x):
    return x + 0.01 * jax.random.normal(key, x.shape)


def of_ones_own(description):
    return description.take(np.arange(len(description.example)))


@pytest.mark.parametrize("num_tasks", [-1, 5])
@pytest.mark.parametrize("more", [(), (data.Augment(noise),)])
@pytest.mark.parametrize("turned", [(), (data.FilterLabels(["c1", "c3", "c4", "c5"]), data.RandomClassRotation())])
def test_class_ids_are_those_of_the_sampler_on_the_device(num_tasks, more, turned):
    names = [f"c{label}" for label in LABELS]
    tasks = data.Taskset((X, names), [*turned, *TRANSFORMS, *more], num_tasks=num_tasks, seed=4)
    sampler = tasks.to_device()
    assert tasks.class_names == sampler.class_names != ()
    keys = jax.random.split(KEY, 9)
    found, expected = (jax.jit(lambda s, keys: jax.vmap(s.class_ids)(keys))(s, keys) for s in (tasks, sampler))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(tasks.class_ids(keys[3]), expected[3])


@pytest.mark.parametrize("num_tasks", [-1, 5])
def test_class_ids_of_a_numbered_task_are_those_of_its_examples(num_tasks):
    """With a function of one's own, and with labels that are not in order."""
    order = np.random.default_rng(0).permutation(60)
    tasks = data.Taskset((order, LABELS[order] + 7), [of_ones_own, *TRANSFORMS], num_tasks=num_tasks)
    assert tasks.class_names == ()
    for number in range(5):
        for part in tasks[number]:
            label = np.asarray(tasks.dataset.labels)[np.asarray(tasks.class_ids(number))[part.y]]
            np.testing.assert_array_equal(label, LABELS[part.x] + 7)
    with pytest.raises(TypeError, match="integer"):
        tasks.class_ids(2.5)  # pyright: ignore[reportArgumentType]


def test_class_ids_without_labels_in_order():
    """Without `RemapLabels` a label is its class, and with names there is no number to ask for."""
    plain = TRANSFORMS[:3]
    ids = np.asarray(data.Taskset((X, LABELS), plain).class_ids(0))
    present = np.unique(data.Taskset((X, LABELS), plain)[0].query.y)
    assert [label for label, number in enumerate(ids) if number >= 0] == present.tolist() == ids[ids >= 0].tolist()
    assert data.Taskset((X, [f"c{label}" for label in LABELS]), plain).class_ids(0) is None


def test_evaluate_tells_the_classes_of_tasks_of_the_host():
    tasks = data.Taskset((X, [f"c{label}" for label in LABELS]), TRANSFORMS)
    learner = jaxmeta.protonet(lambda params, x: x.reshape(len(x), -1) * params, ways=3)
    meta = learner.init(jnp.ones(()))
    test = jax.jit(jaxmeta.evaluate(learner, num_tasks=4, details=True))
    (_, of_host), (_, of_device) = (test(meta, sampler, KEY) for sampler in (tasks, tasks.to_device()))
    assert of_host.class_ids.shape == (4, 3)
    jax.tree.map(np.testing.assert_array_equal, (of_host.y, of_host.class_ids), (of_device.y, of_device.class_ids))
