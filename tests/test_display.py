# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""Short texts of values, pictures of tasks, and that both leave the values what they are."""

import base64
import copy
import io
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import jaxmeta
from jaxmeta import Batch, Task, data, envs, estimators, models, optim, rl

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 255, (60, 8, 8, 1)).astype(np.uint8), np.arange(60) % 6
LOSS, SGD = jaxmeta.classification(models.OmniglotCNN()), optax.sgd(0.1)
PARAMS = {f"layer {i}": {"w": np.ones((30, 40), np.float32), "b": np.ones(40, np.float32)} for i in range(20)}
META = jaxmeta.MetaParams(PARAMS)
FEW = data.FewShot.create(IMAGES, [f"class {label}" for label in LABELS], ways=5, shots=(1, 5), queries=2)
TASK = Task(*(Batch(jnp.zeros((n, 8, 8, 1)), jnp.zeros(n, jnp.int32)) for n in (10, 5)))

SHOWN = {
    "maml": (
        lambda: jaxmeta.maml(LOSS, SGD, meta_gradient=jaxmeta.reverse()),
        "maml(steps=1, meta_gradient=reverse())",
    ),
    "fomaml": (lambda: jaxmeta.fomaml(LOSS, SGD, 5, test_steps=10), "fomaml(steps=5, test_steps=10)"),
    "truncated": (lambda: jaxmeta.truncated(2), "truncated(steps=2)"),
    "implicit": (lambda: jaxmeta.implicit(proximal=2), "implicit(proximal=2)"),
    "loss": (lambda: LOSS, "classification(model=OmniglotCNN)"),
    "protonet": (lambda: jaxmeta.protonet(lambda p, x: x, 5), "protonet(ways=5, distance='euclidean')"),
    "head": (lambda: jaxmeta.ridge_head(0.5), "ridge_head(regularization=0.5, scale=10.0, learn_regularization=True)"),
    "traced": (lambda: jaxmeta.meta_sgd(LOSS, jnp.float32(0.25)), "meta_sgd(inner_rate=0.25, steps=1)"),
    "optimizer": (lambda: optim.scale_by_learned_rate(0.1), "scale_by_learned_rate(learning_rate=0.1, per='weight')"),
    "estimator": (lambda: estimators.truncated_backprop(4), "truncated_backprop(window=4)"),
    "training": (
        lambda: jaxmeta.meta_step(jaxmeta.fomaml(LOSS, SGD), SGD, 4),
        "meta_step(learner=fomaml(steps=1), num_tasks=4)",
    ),
    "meta": (lambda: META, "MetaParams(params=dict of 40 arrays with 24,800 numbers)"),
    "small meta": (lambda: jaxmeta.MetaParams({"w": jnp.ones(3)}), "MetaParams(params={'w': f32[3]})"),
    "batch": (lambda: Batch(IMAGES[:5], LABELS[:5]), "Batch(x=u8[5,8,8,1], y=i64[5])"),
    "weights": (lambda: Batch(1.0, 2, jnp.ones(3, bool)), "WeightedBatch(x=1.0, y=2, weight=bool[3])"),
    "task": (
        lambda: TASK,
        "Task(support=Batch(x=f32[10,8,8,1], y=i32[10]), query=Batch(x=f32[5,8,8,1], y=i32[5]))",
    ),
    "examples": (
        lambda: data.Examples.of(IMAGES, LABELS),
        "Examples(inputs=u8[60,8,8,1], labels=i64[60], names=('0', '1', '2', '3', '4', '5'))",
    ),
    "meta dataset": (lambda: data.MetaDataset((IMAGES, LABELS)), "MetaDataset(60 examples of 6 classes)"),
    "glyphs": (lambda: data.Glyphs(ways=3), r"Glyphs(ways=3, shots=1, queries=15, split='train', seed=0, size=28)"),
    "learned": (lambda: jaxmeta.Learned(np.ones((2, 3))), "Learned(value=f64[2,3])"),
    "keys": (lambda: Batch(jax.random.split(KEY, 3), KEY), "Batch(x=key<fry>[3], y=key<fry>[])"),
    "half": (lambda: Batch(jnp.ones((2, 3), jnp.bfloat16), np.array(["a", "bc"])), "Batch(x=bf16[2,3], y=str[2])"),
    "summary": (
        lambda: jaxmeta.summarize({"a": np.array([0.0, 1.0, 1.0])})["a"],
        "Summary(mean=0.666667, interval=0.653333, median=1.0, finite=1.0, num_tasks=3)",
    ),
    "experiment": (
        lambda: jaxmeta.Experiment("glyphs", "protonet", ways=3),
        "Experiment(benchmark='glyphs', learner='protonet', ways=3)",
    ),
    "transform": (lambda: data.Map(np.flip), "Map(fn=flip)"),
    "env state": (
        lambda: envs.make("bandit-gaussian").reset(KEY).replace(pipeline_state=(), info={}),
        "State(pipeline_state=(), obs=f32[1], reward=0.0, done=0.0, metrics={'regret': 0.0}, info={})",
    ),
    "trajectory": (
        lambda: rl.Transition(*(np.zeros((4, i)) for i in range(1, 6))),
        "Transition(obs=f64[4,1], action=f64[4,2], reward=f64[4,3], next_obs=f64[4,4], terminated=f64[4,5])",
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_value_is_shown_in_short(name):
    make, expected = SHOWN[name]
    assert repr(make()) == expected


@pytest.mark.parametrize(
    "value",
    [
        FEW,
        data.get_tasksets("glyphs"),
        data.FixedTasks(FEW, KEY, 3),
        data.RegressionSampler.from_tasks([(IMAGES[:40, 0, 0], IMAGES[:40, 0, 0] / 2)]),
        data.Taskset((IMAGES, LABELS), [data.NWays(5)]),
        jaxmeta.Trained(META, 3, [{"step": i, "loss": 0.5} for i in range(400)], META),
        jaxmeta.Minibatches(FEW, 8),
        jaxmeta.TrainingState(META, optax.adam(1e-3).init(META), jnp.int32(3)),
        jaxmeta.Prediction("a", 0.5, {str(i): 0.01 for i in range(100)}),
        jaxmeta.maml(LOSS, SGD)._replace(init=lambda variables: META),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_array_is_printed(value):
    text = repr(value)
    assert len(text) < 500 and " at 0x" not in text and "array(" not in text.lower() and "\n" not in text
    assert text.startswith(f"{type(value).__name__}(")


def test_the_values_stay_what_they_are():
    learner = jaxmeta.maml(LOSS, SGD)
    assert (
        isinstance(learner, jaxmeta.MetaLearner)
        and learner == tuple(learner)
        and len(learner) == len(jaxmeta.MetaLearner._fields)
    )
    assert repr(copy.copy(learner)) == repr(learner) == "maml(steps=1)"
    assert jax.tree.structure(TASK).num_leaves == 4 and jax.tree.leaves(learner) == list(learner)
    mapped = jax.tree.map(lambda leaf: leaf, jaxmeta.reverse())
    assert isinstance(mapped, jaxmeta.MetaGradient) and repr(mapped).startswith("MetaGradient(unroll=")
    assert isinstance(optim.learn(optax.sgd, learning_rate=0.1), optax.GradientTransformationExtraArgs)
    part = Batch(IMAGES[:2], LABELS[:2])
    again = pickle.loads(pickle.dumps(part))
    assert type(again) is Batch and np.array_equal(again.x, part.x) and part == tuple(part)
    donated = jnp.ones(())
    donated.delete()
    assert repr(Batch(donated, jax.ShapeDtypeStruct((3,), np.int32))) == "Batch(x=f32[], y=i32[3])"


def pictures_of(html):
    """The images of each cell of a task's table, by row and column, as numbers."""
    rows = re.findall(r"<tr><th>(\d+)</th><td.*?>(.*?)</td><td.*?>(.*?)</td></tr>", html)
    return {
        int(label): [
            np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
            for cell in cells
            for content in re.findall("base64,([^']+)", cell)
        ]
        for label, *cells in rows
    }


def test_a_task_of_images_is_a_table_of_pictures():
    labels = np.repeat(np.arange(3), 4)
    support = Batch(IMAGES[:12], labels, labels != 2)  # a class of padding
    query = Batch(IMAGES[12:24].astype(np.float32) / 255, labels)
    html = str(Task(support, query)._repr_html_())
    assert html.count("<tr>") == 4 and html.count("<img") == 5
    found = pictures_of(html)
    for label in (0, 1):
        for strip, part in zip(found[label], (IMAGES[:12], IMAGES[12:24]), strict=True):
            for i, image in enumerate(part[labels == label]):
                np.testing.assert_array_equal(strip[:, 10 * i : 10 * i + 8], image[..., 0])


@pytest.mark.parametrize(
    "task",
    [
        Task(3, 4),
        Task(Batch(IMAGES[:, 0, 0], LABELS), Batch(IMAGES[:, 0, 0], LABELS)),
        Task(*(Batch(IMAGES[:, :1, :1, 0], LABELS / 2) for _ in range(2))),
    ],
    ids=["numbers", "vectors", "regression"],
)
def test_other_tasks_have_no_picture(task):
    assert task._repr_html_() is None
    assert jax.eval_shape(lambda task: [] if task._repr_html_() is None else [1], TASK) == []


def test_the_cost_of_a_program_that_is_there_has_no_time():
    jitted = jax.jit(lambda x: jnp.sin(x @ x))
    x = jnp.ones((3, 3))
    first, second = (jaxmeta.cost(jitted, x) for _ in range(2))
    plain = [jaxmeta.cost(jitted.__wrapped__, x).compile_seconds for _ in range(2)]
    assert first.compile_seconds > 0 and np.isnan(second.compile_seconds) and min(plain) > 0
    assert repr(second).endswith(", compile_seconds=nan)")
