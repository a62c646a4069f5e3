# pyright: reportArgumentType=false
"""Sentences and regression data of one's own."""

import jax
import numpy as np
import optax
import pytest
import scipy.sparse

import jaxmeta
from jaxmeta import data, models
from jaxmeta.__main__ import main

NAMES = [f"intent {i % 12}" for i in range(120)]
SENTENCES = [f"please do thing{i % 12} number {i}" for i in range(120)]


def by_class():
    return {name: [s for s, of in zip(SENTENCES, NAMES, strict=True) if of == name] for name in sorted(set(NAMES))}


def put_table(root):
    root.mkdir(parents=True)
    rows = [f'{name},"{text}, really"' for name, text in zip(NAMES, SENTENCES, strict=True)]
    (root / "all.csv").write_text("\n".join(["label,text", *rows]))
    return root / "all.csv"


def put_lists(root):
    root.mkdir(parents=True)
    for name, texts in by_class().items():
        (root / f"{name}.txt").write_text("\n".join([*texts, "", ""]))
    (root / ".hidden.csv").write_text("x")
    (root / "readme.md").write_text("x")
    return root


def put_lines(root):
    root.mkdir(parents=True)
    lines = [f"{name}\t{text}" for name, text in zip(NAMES, SENTENCES, strict=True)]
    (root / "all.txt").write_text("\n".join([*lines[:60], "", *lines[60:]]))
    return root / "all.txt"


@pytest.mark.parametrize("put", [put_table, put_lists, put_lines])
def test_sentences_of_a_file_or_folder(put, tmp_path):
    root = put(tmp_path / "mine")
    division = data.load_examples("sentences", root, split="all")
    assert division.train.names == tuple(by_class())
    for number, texts in enumerate(by_class().values()):
        found = division.train.inputs[division.train.labels == number].tolist()
        assert [text.removesuffix(", really") for text in found] == texts
    tasksets = data.get_tasksets("sentences", 3, 1, 4, root=root, size=64, per_class=6)
    assert tasksets.train.example.shape == (1, 64)
    assert sum(len(names) for names in tasksets.classes.values()) == 12


def test_sentences_in_containers_are_vectors_of_hashes():
    tasksets = data.get_tasksets("sentences", 3, 1, 2, examples=(np.array(SENTENCES, object), NAMES), split="all")
    np.testing.assert_array_equal(tasksets.train.inputs, data.hash_ngrams(SENTENCES))  # pyright: ignore
    vectors = np.random.default_rng(0).normal(size=(120, 7)).astype(np.float32)  # of an encoder of one's own
    tasksets = data.get_tasksets("sentences", 3, 1, 2, examples=(vectors, NAMES))
    assert tasksets.test.example.shape == (1, 7)


def test_a_run_on_own_sentences(tmp_path):
    root = put_lists(tmp_path / "mine")
    options = "--learner protonet --ways 3 --queries 2 --test-queries 2 --iterations 1 --num-tasks 2 --size 32"
    folder = ["--folder", str(tmp_path / "run"), "--root", str(root)]
    tests = "--validate-every 1 --validation-tasks 2 --test-tasks 2 --hidden 4"
    assert main(["train", "--benchmark", "sentences", *options.split(), *tests.split(), *folder]) in (0, None)
    assert (tmp_path / "run" / "result.json").is_file()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "must have tables .csv with text and label, or a list <class>.txt each, got neither"),
        ({"a.csv": "text,label\nx,y", "b.txt": "x"}, "got both"),
        ({"a.csv": "sentence,intent\nx,y"}, "must have the columns text and label in every row"),
        ({"a.csv": "text;label\nx;y"}, "separated by commas. Its first row is 'text;label'"),
        ({"a.txt": "\n\n"}, "has no sentences"),
    ],
)
def test_damaged_sentences_are_named(files, message, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        data.load_examples("sentences", tmp_path)


@pytest.mark.parametrize("line", ["no class", "\ta sentence", "class and sentence"])
def test_a_line_without_a_class_is_named(line, tmp_path):
    (tmp_path / "all.txt").write_text(f"a\tx\n\n{line}\n")
    with pytest.raises(ValueError, match=r"all.txt: line 3 must be `class<TAB>sentence`, got '"):
        data.load_examples("sentences", tmp_path / "all.txt")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (scipy.sparse.csr_matrix(np.eye(120)), r"must be dense: this is a sparse matrix, pass its toarray\(\)"),
        ([{"a": 1}] * 120, "got dict with several"),
        ([None, *SENTENCES[1:]], "must be all numbers or all strings, got None for example 0"),
    ],
)
def test_other_inputs_are_refused_in_words(inputs, message):
    with pytest.raises((TypeError, ValueError), match=message):
        data.get_tasksets("sentences", 3, 1, 2, examples=(inputs, NAMES))
    with pytest.raises(ValueError, match="hash_ngrams turns sentences into vectors"):
        data.FewShot.create(SENTENCES, NAMES)
    with pytest.raises(FileNotFoundError, match="or a table .csv or a list .txt, got"):
        data.load_examples("sentences", "nowhere.csv")


# Regression.

LENGTHS = (30, 12, 20)


def lines():
    """Tasks of different lengths, in which `y = slope x`, and no two have an input in common."""
    found = []
    for number, length in enumerate(LENGTHS):
        x = np.float32(100 * number) + np.arange(1, length + 1, dtype=np.float32)
        found.append((x[:, None], (number + 1) * x[:, None]))
    return found


def columns():
    order = np.random.default_rng(0).permutation(sum(LENGTHS))
    x, y = (np.concatenate(parts)[order, 0] for parts in zip(*lines(), strict=True))
    names = np.repeat(["a", "b", "c"], LENGTHS)[order]
    return list(x), list(y), names.astype(object)


@pytest.mark.parametrize("kind", ["tasks", "columns"])
def test_regression_tasks_are_those_of_the_data(kind):
    sizes = {"shots": 4, "queries": 8}
    if kind == "tasks":
        sampler = data.RegressionSampler.from_tasks(lines(), **sizes)
    else:
        sampler = data.RegressionSampler.create(*columns(), **sizes)
    assert sampler.num_tasks == 3 and sampler.example.shape == (1, 1)
    tasks = jax.jit(lambda s, k: jax.vmap(s)(k))(sampler, jax.random.split(jax.random.key(0), 200))
    assert tasks.support.x.shape == (200, 4, 1) and tasks.query.y.shape == (200, 8, 1)
    x, y = (np.concatenate(parts, 1)[..., 0] for parts in zip(*tasks, strict=True) if parts[0] is not None)
    number = (x - 1) // 100
    assert (number == number[:, :1]).all(), "a task has examples of another"
    np.testing.assert_array_equal(y, (number + 1) * x)
    assert all(len(set(row)) == 12 for row in x), "an example occurs twice"
    assert len(set(x.ravel())) == sum(LENGTHS) and np.bincount(number[:, 0].astype(int)).min() > 40


def test_it_trains_a_learner():
    sampler = data.RegressionSampler.from_tasks([(x / 100, y / 100) for x, y in lines()], shots=4, queries=4)
    model = models.MLP(out=1, sizes=(4,))
    learner = jaxmeta.maml(jaxmeta.regression(model.apply), optax.sgd(0.01))
    meta = learner.init(jax.jit(model.init)(jax.random.key(0), sampler.example))
    options = {"iterations": 2, "num_tasks": 2, "log_every": 1, "progress": False}
    done = jaxmeta.train(learner, optax.adam(1e-3), meta, sampler, jax.random.key(1), **options)
    assert done.step == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: data.RegressionSampler.from_tasks(lines()), "shots . queries must be .* but task 1 has 12 examples"),
        (lambda: data.RegressionSampler.from_tasks([]), "at least one pair"),
        (lambda: data.RegressionSampler.from_tasks([(np.zeros(3), np.zeros(4))]), "3 and 4 examples for task 0"),
        (lambda: data.RegressionSampler.from_tasks([np.zeros((2, 3))]), "pairs .x, y., got ndarray for task 0"),
        (lambda: data.RegressionSampler.create(np.zeros(3), np.zeros(3), [0, 0]), "3 inputs, 3 targets and 2 tasks"),
        (lambda: data.RegressionSampler.create(["a"] * 3, np.zeros(3), [0] * 3), "inputs must be numbers"),
        (lambda: data.RegressionSampler.create(np.zeros(3), np.zeros(3), [0.5] * 3), "tasks must be integers or str"),
        (lambda: data.RegressionSampler.from_tasks(lines(), shots=(1, 2)), "shots must be an integer"),
    ],
)
def test_bad_regression_data_are_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
