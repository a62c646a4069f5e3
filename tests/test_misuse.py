# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
"""Mistakes that everyone makes get an answer that names the argument, what came, and what is allowed."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxmeta
from jaxmeta import Batch, Task, data, envs, estimators, models, optim, register, rl

KEY = jax.random.key(0)
X, Y = np.zeros((60, 8), np.float32), np.arange(60) % 6
TASKS = data.FewShot.create(X, Y, ways=5, shots=1, queries=2)
MODEL = models.MLP(sizes=(4,), out=5)
PARAMS = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(MODEL.init, KEY, X[:1]))
LOSS, SGD, ADAM = jaxmeta.classification(MODEL), optax.sgd(0.1), optax.adam(1e-3)
LEARNER = jaxmeta.maml(LOSS, SGD)
META = LEARNER.init(PARAMS)
PART = Batch(X[:5], np.arange(5))
TASK = Task(PART, PART)
STEP = jaxmeta.meta_step(LEARNER, ADAM, 2)
TASKSETS = data.get_tasksets("glyphs", 5)
ENV = envs.make("particles2d")
POLICY = rl.GaussianPolicy(2, (4,))
COLLECT = rl.Collector(env=ENV, policy=POLICY.apply, episodes=2)
PLAIN = [data.NWays(5), data.KShots(1, 2), data.LoadData()]


def train(learner=LEARNER, optimizer=ADAM, meta=META, tasks=TASKS, key=KEY, **options):
    options = {"iterations": 1, "num_tasks": 1, "log_every": 1, "validate_every": 1, "progress": False} | options
    return jaxmeta.train(learner, optimizer, meta, tasks, key, **options)


def traced(model, ways=5):
    """Traces an update for a model, without compiling it, on tasks of `ways` classes."""
    made = isinstance(model, jaxmeta.MetaLearner)
    learner = model if made else jaxmeta.maml(jaxmeta.classification(model), SGD)
    training = jaxmeta.meta_step(learner, ADAM, 1)
    params = PARAMS if made else jax.eval_shape(model.init, KEY, X[:1])
    tasks = TASKS.with_sizes(ways=ways)
    jax.eval_shape(lambda params: training.step(training.init(learner.init(params)), KEY, tasks), params)


def of_loss(loss_fn):
    """Traces the adaptation with a loss."""
    learner = jaxmeta.maml(loss_fn, SGD)
    jax.eval_shape(learner.adapt, learner.init(PARAMS), PART, KEY)


def logits_of(labels):
    LOSS.test(PARAMS, Batch(X[:5], labels), KEY)


def mean(params, x):
    return jnp.mean(MODEL.apply(params, x))


LABELS = [
    (lambda: traced(models.MLP(sizes=(4,), out=3)), ValueError, "up to 4, but there are only 3 outputs: .* out=5"),
    (lambda: traced(jaxmeta.protonet(MODEL, 3)), ValueError, "up to 4, but there are only 3 outputs"),
    (lambda: traced(jaxmeta.r2d2(MODEL, 4)), ValueError, "the learner ways=5"),
    (lambda: jax.eval_shape(jaxmeta.evaluate(jaxmeta.protonet(MODEL, 2), 1), META, TASKS, KEY), ValueError, "up to 4"),
    (lambda: traced(MODEL, (2, 6)), ValueError, "up to 5, but there are only 5 outputs"),
    (
        lambda: train(tasks=data.Taskset((X, Y + 10), PLAIN)),
        ValueError,
        r"labels go up to 1\d, .* number the classes of each task from 0",
    ),
    (
        lambda: jaxmeta.pretrain(MODEL, ADAM, PARAMS, jaxmeta.Minibatches(TASKS, 8), KEY, iterations=1, progress=False),
        ValueError,
        "up to 5, but there are only 5 outputs",
    ),
    (lambda: logits_of(np.eye(5, dtype=int)), ValueError, r"shape \(5,\), .* got \(5, 5\): jnp.argmax"),
    (lambda: logits_of(np.arange(5)[:, None]), ValueError, r"got \(5, 1\): labels\[..., 0\]"),
    (lambda: logits_of(np.arange(4)), ValueError, r"shape \(5,\), one for each row of outputs, got \(4,\)"),
    (lambda: logits_of(np.arange(5.0)), TypeError, r"labels must be integers from 0 to 4, got f64\[5\]"),
    (lambda: logits_of(np.array(list("abcde"))), TypeError, r"labels must be integers .* got str\[5\]"),
    (lambda: logits_of(np.arange(5) - 1), ValueError, r"labels must be integers from 0 to 4, got \[-1\]"),
]
LOSSES = [
    (lambda: jaxmeta.classification(models.MLP), TypeError, "model must be .* got the class MLP: make one"),
    (lambda: jaxmeta.regression(PARAMS), TypeError, "model must be a function .* got {'params': .*f32"),
    (
        lambda: jaxmeta.classification(lambda x: x),
        TypeError,
        r"model must take 2 arguments \(params, x\), .* takes \(x\)",
    ),
    (lambda: jaxmeta.classification(X, Y, 3), TypeError, "too many positional arguments. Arguments: model, train"),
    (lambda: jaxmeta.classification(lambda p, x: x[:, 0]).test(0, PART, KEY), ValueError, r"return logits .* f32\[5\]"),
    (lambda: jaxmeta.classification(lambda p, x: (x, x)).test(0, PART, KEY), ValueError, "model must return logits"),
    (
        lambda: jaxmeta.regression(lambda p, x: x).test(0, Batch(X[:5], X[:5, 0]), KEY),
        ValueError,
        r"\(5,\), got f32\[5,8\]",
    ),
    (lambda: LOSS.test(PARAMS, (X[:5], Y[:5]), KEY), TypeError, r"batch must be a Batch, got \(f32\[5,8\], i64\[5\]\)"),
    (lambda: LOSS.test(PARAMS, {"x": X, "y": Y}, KEY), TypeError, "batch must be a Batch, got {'x'"),
    (
        lambda: LOSS.test(PARAMS, Batch(X[:5], [0, 1, 2, 3, 4]), KEY),
        TypeError,
        r"batch.y must be of arrays, got \[0, 1",
    ),
    (lambda: LOSS.test(PARAMS, Batch(X[:5].tolist(), PART.y), KEY), TypeError, "batch.x must be of arrays, got "),
    (lambda: LOSS.test(PARAMS, Batch(X[:5], None), KEY), TypeError, "batch.y must be of arrays, got None"),
    (
        lambda: LOSS.test(PARAMS, Batch(*PART, np.ones(3)), KEY),
        ValueError,
        r"weight must have shape \(5,\), .* got \(3,\)",
    ),
    (
        lambda: LOSS.test(META, PART, KEY),
        TypeError,
        r"parameters of the model are needed, got MetaParams.*meta.variables",
    ),
    (lambda: LEARNER.predict(META, X[:2]), TypeError, "got MetaParams: learner.adapt"),
    (lambda: LOSS.test(PARAMS["params"], PART, KEY), ValueError, "do not fit inputs f32.* They come from model.init"),
    (lambda: LOSS.test(PARAMS, Batch(X[:5, :3], PART.y), KEY), ValueError, r"parameters do not fit inputs f32\[5,3\]"),
    (lambda: of_loss(lambda p, b: (mean(p, b.x), {})), TypeError, r"must take 3 arguments \(params, batch, key\)"),
    (
        lambda: of_loss(lambda p, b, k: mean(p, b.x)),
        TypeError,
        r"return \(loss, metrics\), with {} for no metrics, got f32\[\]",
    ),
    (
        lambda: of_loss(lambda p, b, k: (mean(p, b.x), None)),
        TypeError,
        r"return \(loss, metrics\), .* got \(f32\[\], None\)",
    ),
    (
        lambda: of_loss(lambda p, b, k: (MODEL.apply(p, b.x)[:, 0], {})),
        TypeError,
        r"a scalar loss, .* got shape \(5,\)",
    ),
    (lambda: jaxmeta.maml(MODEL, SGD), TypeError, r"loss_fn .* got a model: jaxmeta.classification\(MLP"),
    (lambda: jaxmeta.reptile(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), SGD), TypeError, "got a model"),
]
FACTORIES = [
    (lambda: jaxmeta.maml(LOSS, 0.1), TypeError, "inner must be an optax.GradientTransformation, such .* got 0.1"),
    (lambda: jaxmeta.cavia(LOSS, optax.sgd, 3), TypeError, "inner .* got sgd: call it"),
    (
        lambda: jaxmeta.maml(LOSS, SGD, meta_gradient="first_order"),
        TypeError,
        r"meta_gradient .* such as first_order\(\), got 'f",
    ),
    (lambda: jaxmeta.anil(LOSS, SGD, meta_gradient=jaxmeta.first_order), TypeError, "got first_order: call it"),
    (lambda: jaxmeta.maml_plus_plus(LOSS, meta_gradient=jaxmeta.truncated), TypeError, "got truncated: call it"),
    (lambda: jaxmeta.leo(5, meta_gradient=True), TypeError, "meta_gradient must be .* got True"),
    (lambda: rl.promp(COLLECT, SGD, meta_gradient="mixed"), TypeError, "meta_gradient must be .* got 'mixed'"),
    (
        lambda: estimators.optimizer_training(SGD, LOSS, TASKS, horizon=2, meta_gradient="reverse"),
        TypeError,
        "meta_gradient must be .* got 'reverse'",
    ),
    (
        lambda: jaxmeta.maml(LOSS, SGD, first_order=True),
        TypeError,
        r"'first_order': write meta_gradient=jaxmeta.first_order\(\)",
    ),
    (
        lambda: jaxmeta.maml(MODEL, lr=0.1),
        TypeError,
        r"'lr': the rate is that of the inner optimizer, .* Arguments: loss_fn",
    ),
    (lambda: jaxmeta.anil(LOSS, SGD, num_steps=5), TypeError, "'num_steps': write steps="),
    (lambda: jaxmeta.protonet(MODEL), TypeError, "missing a required argument: 'ways'. Arguments: features_fn, ways"),
    (lambda: jaxmeta.meta_sgd(LOSS, SGD), ValueError, "inner_rate must be a finite number, got GradientTransform"),
    (lambda: jaxmeta.imaml(LOSS, SGD, solver=jaxmeta.cg), TypeError, r"\(matvec, b\), such as cg\(5\), but cg takes"),
    (lambda: jaxmeta.implicit(5), TypeError, "solver must be a function, got 5"),
    (lambda: jaxmeta.with_head(MODEL, "euclidean", 5), TypeError, r"head must be a Head, such as euclidean_head\(\)"),
    (
        lambda: jaxmeta.metaoptnet(MODEL, 5, head=jaxmeta.ridge_head),
        TypeError,
        "head must be a Head, .* got ridge_head",
    ),
    (lambda: jaxmeta.protonet(PARAMS, 5), TypeError, "features_fn must be a function"),
    (lambda: jaxmeta.protonet(MODEL, (2, 5)), ValueError, r"ways must be an integer of at least 1, got \(2, 5\)"),
    (
        lambda: jaxmeta.inner_loop(LOSS, SGD, outer_loss=LOSS),
        TypeError,
        "problem must be an InnerProblem, .* got classific",
    ),
    (lambda: jaxmeta.adapt(LOSS, 0.1, PARAMS, PART, KEY, steps=1), TypeError, "inner must be an optax"),
    (lambda: jaxmeta.adapt(LOSS, SGD, PARAMS, PART, KEY, steps=1.5), ValueError, "steps must be an integer"),
    (lambda: jaxmeta.adapt(LOSS, SGD, PARAMS, PART, 3, steps=1), TypeError, "key must be one random key, .* got 3"),
    (lambda: jaxmeta.unroll(LOSS, SGD, PARAMS, PART, 5), TypeError, r"xs must have one entry per step, .* got 5"),
    (lambda: jaxmeta.unroll(LOSS, SGD, PARAMS, PART, KEY), TypeError, r"xs must have one entry .* got key<fry>\[\]"),
    (lambda: models.MLP(5), ValueError, r"sizes must be a sequence of integers, such as \(64, 64\), got 5"),
    (lambda: models.MLP(activation="relu"), TypeError, "activation must be a function, got 'relu'"),
    (
        lambda: models.ResNet12(5).init(KEY, np.zeros((2, 3, 84, 84))),
        ValueError,
        r"transpose\(0, 2, 3, 1\) puts the ch",
    ),
    (
        lambda: models.OmniglotCNN(5).init(KEY, np.zeros((2, 1, 28, 28))),
        ValueError,
        r"OmniglotCNN .* puts the channels",
    ),
]
TRAINING = [
    (lambda: jaxmeta.save(PARAMS, "weights"), TypeError, "path must be a path, got {'params'"),
    (lambda: jaxmeta.load(3), TypeError, "path must be a path, got 3"),
    (lambda: jaxmeta.summarize(np.zeros(3)), TypeError, r"metrics must be a mapping .* got f64\[3\]"),
    (lambda: jaxmeta.compare_runs("runs"), ValueError, "folders must be of two runs or more, got 'runs'"),
    (lambda: jaxmeta.anil(LOSS, SGD, head=3), TypeError, "head must be a name .* got 3"),
    (lambda: jaxmeta.meta_step(LEARNER, 1e-3, 4), TypeError, "optimizer must be an optax.* got 0.001"),
    (lambda: jaxmeta.meta_step(LEARNER, optax.adam, 4), TypeError, "optimizer .* got adam: call it"),
    (lambda: jaxmeta.meta_step(ADAM, LEARNER, 4), TypeError, "learner must be a MetaLearner, .* got Gradient"),
    (
        lambda: jaxmeta.meta_step(jaxmeta.maml, ADAM, 4),
        TypeError,
        "learner must take 1 argument, .* maml takes .loss_fn",
    ),
    (lambda: jaxmeta.meta_step(MODEL, ADAM, 4), TypeError, "learner must be a MetaLearner, .* got MLP"),
    (lambda: jaxmeta.meta_step(LEARNER, ADAM, 4, mesh=2), TypeError, "mesh must be a jax.sharding.Mesh, .* got 2"),
    (lambda: jaxmeta.cost(jnp.ones(3)), TypeError, r"fn must be a function, got f32\[3\]"),
    (lambda: jaxmeta.evaluate(LOSS), TypeError, r"learner must be a MetaLearner, .* got classification\(model=MLP\)"),
    (lambda: jaxmeta.evaluate(LEARNER, TASKS), ValueError, "num_tasks must be an integer .* got FewShot"),
    (lambda: STEP.init(PARAMS), TypeError, r"meta must be MetaParams, got {.*learner.init\(params\) makes them"),
    (
        lambda: STEP.step(META, KEY, TASKS),
        TypeError,
        r"state must be a TrainingState, got MetaParams.* training.init\(meta\)",
    ),
    (lambda: STEP.step(STEP.init(META), 0, TASKS), TypeError, "key must be one random key, .* got 0"),
    (lambda: STEP.step(STEP.init(META), KEY, TASKSETS), TypeError, "pass one of its parts, such as tasksets.train"),
    (lambda: STEP.step(STEP.init(META), TASKS, KEY), TypeError, "key must be one random key, .* got FewShot"),
    (
        lambda: STEP.step(STEP.init(META), jax.random.split(KEY), TASKS),
        TypeError,
        r"one random key, .* got key<fry>\[2\]",
    ),
    (lambda: jaxmeta.evaluate(LEARNER, 1)(META, KEY, TASKS), TypeError, "sampler must be a sampler, .* got key<fry>"),
    (
        lambda: jaxmeta.evaluate(LEARNER, 1)(STEP.init(META), TASKS, KEY),
        TypeError,
        "got TrainingState.*: pass its field meta",
    ),
    (lambda: train(meta=PARAMS), TypeError, r"meta must be MetaParams, got {.*learner.init\(params\)"),
    (lambda: train(meta=jaxmeta.Trained(META, 1, [], None)), TypeError, "got Trained.*: pass its field meta"),
    (lambda: train(tasks=TASKSETS), TypeError, "tasks must be a sampler, .* pass one of its parts"),
    (lambda: train(validation=TASKSETS), TypeError, "validation must be a sampler, .* pass one of its parts"),
    (lambda: train(tasks=TASK), TypeError, "tasks must be a sampler, .* got Task"),
    (lambda: train(tasks=[TASK]), TypeError, "tasks must be a sampler, .* got "),
    (
        lambda: train(tasks=data.MetaDataset((X, Y))),
        TypeError,
        r"tasks must be .* MetaDataset\(60 examples of 6 classes\)",
    ),
    (
        lambda: train(tasks=data.FewShot),
        TypeError,
        "got the class FewShot: make one, for example with its method create",
    ),
    (
        lambda: train(tasks=lambda: TASK),
        TypeError,
        r"tasks must take 1 argument, a random key, but a lambda takes \(\)",
    ),
    (lambda: train(tasks=lambda key: (PART, PART)), TypeError, r"task must be a jaxmeta.Task\(support, query\)"),
    (lambda: train(tasks=lambda key: PART), TypeError, r"task must be a jaxmeta.Task.* got Batch"),
    (lambda: train(tasks=data.Taskset((X, Y), PLAIN[:2])), ValueError, r"only with LoadData\(\) among its transforms"),
    (lambda: train(key=np.random.default_rng(0)), TypeError, "key must be one random key, .* got Generator"),
    (lambda: train(optimizer=1e-3), TypeError, "optimizer must be an optax.* got 0.001"),
    (lambda: LEARNER.adapt(PARAMS, PART, KEY), TypeError, "meta must be MetaParams"),
    (
        lambda: LEARNER.adapt(META, TASK, KEY),
        TypeError,
        "batch must be a Batch, got Task.*: pass its part support or query",
    ),
    (lambda: LEARNER.grad(META, PART, KEY), TypeError, "task must be a jaxmeta.Task.* got Batch"),
    (lambda: jaxmeta.protonet(MODEL, 5).grad(META, (PART, PART), KEY), TypeError, "task must be a jaxmeta.Task"),
    (lambda: LEARNER.grad(PARAMS, TASK, KEY), TypeError, "meta must be MetaParams"),
    (lambda: jaxmeta.summarize({"a": {"b": X}}), ValueError, r"metrics must be arrays .* got {'b': f32.* for 'a'"),
    (lambda: LEARNER.adapt(META, X, Y), TypeError, "key must be one random key"),
    (lambda: jaxmeta.protonet(MODEL, 5).adapt(PARAMS, PART, KEY), TypeError, "meta must be MetaParams"),
    (lambda: jaxmeta.protonet(MODEL, 5).adapt(META, (X, Y), KEY), TypeError, "batch must be a Batch"),
    (lambda: jaxmeta.Minibatches(TASKSETS.train)(KEY), TypeError, "source must be a FewShot sampler, got Glyphs"),
    (
        lambda: jax.eval_shape(jaxmeta.pretrain_step(MODEL, ADAM).step, STEP.init(META), KEY, TASKS),
        TypeError,
        "batch must be a Batch, got T",
    ),
]
DATA = [
    (lambda: data.FewShot(X, Y, ways=5), TypeError, "FewShot is made by FewShot.create or FewShot.from_classes"),
    (
        lambda: data.RegressionSampler(X, Y),
        TypeError,
        "is made by RegressionSampler.create or RegressionSampler.from_t",
    ),
    (lambda: data.FixedTasks(TASKS, 5, 3)(KEY), TypeError, "key must be one random key, .* got 5"),
    (lambda: data.Taskset((X, Y), data.NWays(5)), TypeError, r"must be a list of transforms, .* got NWays\(n=5\)"),
    (lambda: data.Taskset(X, Y), TypeError, r"must be a list of transforms, .* got i64\[60\]"),
    (lambda: data.prefetch(TASKS, 2), TypeError, "tasks must be a Taskset .* got FewShot"),
    (lambda: data.FewShot.create((X, Y)), TypeError, "labels must be given"),
    (lambda: data.FewShot.create(X, np.eye(6)[Y]), ValueError, r"labels must be of shape \[M\], got \(60, 6\)"),
    (lambda: data.FewShot.create(X, Y / 1), TypeError, "labels must be integers or strings, got float64"),
    (lambda: data.FewShot.create(X * np.nan, Y, queries=2), UserWarning, "NaN in 60 of 60 examples, first in 0"),
    (
        lambda: data.FewShot.create(np.zeros((60, 3, 9, 9)), Y, queries=2),
        UserWarning,
        r"channels first, .* x.transpose\(0",
    ),
]
RL = [
    (
        lambda: rl.Collector(env="particles2d", policy=POLICY.apply),
        TypeError,
        r"env must be .* envs.make.* got 'particles2d'",
    ),
    (
        lambda: rl.Collector(env=ENV, policy=POLICY),
        TypeError,
        r"policy must be a function .* GaussianPolicy\(...\).apply",
    ),
    (lambda: rl.Collector(env=ENV, policy=lambda x: x), TypeError, r"policy must take 2 arguments \(params, obs\)"),
    (lambda: rl.EnvTasks(ENV, "valid"), ValueError, "split must be one of 'train', 'test', got 'valid'"),
    (lambda: rl.Trial("cartpole", 2), TypeError, "env must be an environment"),
    (lambda: rl.maml_trpo(ENV, SGD), TypeError, "collect must be a Collector.* got Particles2D"),
    (lambda: rl.maml_trpo(COLLECT, SGD, surrogate="ratio"), TypeError, "surrogate must be a function, got 'ratio'"),
    (
        lambda: rl.promp(COLLECT, SGD, surrogate=rl.clipped),
        TypeError,
        r"\(log_prob, samples\), but clipped takes \(clip\)",
    ),
    (lambda: rl.adaptation_curve(ENV, SGD), TypeError, "collect must be a Collector.* got Particles2D"),
    (lambda: envs.GymEnv("CartPole-v1"), TypeError, r"such as make.'cartpole'., got 'CartPole-v1'"),
    (lambda: rl.rl2(ENV, POLICY), TypeError, r"trial must be a Trial\(env, episodes\), got Particles2D"),
    (lambda: rl.rl2(rl.Trial(ENV), POLICY), TypeError, "policy must be a RecurrentPolicy, got GaussianPolicy"),
    (lambda: rl.pearl(ENV, POLICY, None), TypeError, "tasks must be training tasks, .* got None"),
    (lambda: rl.rollout("x", POLICY.apply, PARAMS, 0, KEY, episodes=1), TypeError, "env must be an environment"),
]
ELSEWHERE = [
    (lambda: register.model("my-model", 3), TypeError, "build must be a function, got 3"),
    (lambda: register.learner("my-learner", None, []), TypeError, "build must be a function, got None"),
    (lambda: jaxmeta.algorithms.MAML(MODEL, lr=0.1), AttributeError, r"Here write maml\(loss_fn, optax.sgd\(rate\)\)"),
    (lambda: jaxmeta.MetaSGD, AttributeError, "Here write meta_sgd"),
    (lambda: jaxmeta.clone_module, AttributeError, "values are never changed in place"),
    (lambda: jaxmeta.vision.benchmarks, AttributeError, "data are in jaxmeta.data"),
    (lambda: optim.SGD, AttributeError, r"Here write optax.sgd\(rate\)"),
    (lambda: data.transforms.NWays, AttributeError, r"Here they are in jaxmeta.data itself, as data.NWays\(5\)"),
    (lambda: data.Tasksets, AttributeError, "Did you mean 'Taskset'"),
    (lambda: models.ResNet13, AttributeError, "Did you mean 'ResNet12'"),
    (lambda: LEARNER.clone(), AttributeError, r"learner.adapt\(meta, support, key\) returns"),
    (lambda: LEARNER.parameters(), AttributeError, r"meta = learner.init\(params\) holds them"),
    (lambda: LEARNER.fit(X, Y), AttributeError, "Here write jaxmeta.train"),
    (lambda: LEARNER.adapt(3.0), TypeError, "missing 2 required positional arguments: 'support' and 'key'"),
    (lambda: TASKSETS.train.sample(), AttributeError, r"a task is drawn by a call with a key, as sampler\(jax"),
]


@pytest.mark.parametrize(
    ("misuse", "error", "words"), [*LABELS, *LOSSES, *FACTORIES, *TRAINING, *DATA, *RL, *ELSEWHERE]
)
def test_the_answer_names_the_mistake(misuse, error, words):
    with pytest.raises(error) as found:
        misuse()
    assert re.search(words, str(found.value)), str(found.value)
    assert len(str(found.value)) < 500


@pytest.mark.parametrize("name", ["rl", "envs", "testing", "register"])
def test_a_package_needs_no_import_of_its_own(name, monkeypatch):
    monkeypatch.delattr(jaxmeta, name, raising=False)
    assert getattr(jaxmeta, name).__name__ == f"jaxmeta.{name}"


def test_the_words_of_python_stay_for_other_names():
    with pytest.raises(AttributeError, match="module 'jaxmeta' has no attribute '_absent'$"):
        _ = jaxmeta._absent
    assert not hasattr(LEARNER, "__jax_array__") and hasattr(jaxmeta, "rl")


def test_labels_of_an_auxiliary_head_are_its_own():
    """A head with fewer outputs than the tasks have ways, on labels that are not those of the tasks."""

    def loss_fn(params, batch, key):
        loss, metrics = LOSS.test(params, batch, key)
        return loss + jaxmeta.classification(lambda p, x: x[:, :2]).test(params, batch._replace(y=batch.y % 2), key)[
            0
        ], metrics

    traced(jaxmeta.maml(loss_fn, SGD))
