"""Sentences: the readers, hashed pieces of words, and tasks of CLINC150's real sentences."""

import csv
import io
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxmeta import Experiment
from jaxmeta.data import FewShot, get_tasksets, hash_ngrams, load_examples
from jaxmeta.data.sources import standard_splits

DATA = Path(os.environ.get("JAXMETA_DATA", Path(__file__).parents[2] / "shared" / "data"))
PARTS = ("train", "validation", "test")


def intents():
    return sorted(of for part in standard_splits("clinc150")["domains"].values() for of in part)


def put_clinc(folder, rows=2):
    parts = {
        part: [[f"{part} {of} {i}", of] for of in intents() for i in range(rows)] for part in ("train", "val", "test")
    }
    folder.mkdir(parents=True, exist_ok=True)
    content = parts | {f"oos_{part}": [["what is love", "oos"]] for part in parts}
    (folder / "data_full.json").write_text(json.dumps(content))


def put_banking(folder, header=("text", "category")):
    for name in ("train", "test"):
        file = io.StringIO()
        table = csv.writer(file)
        table.writerow(header)
        for intent in range(77):
            table.writerows([[f'{name} "{intent}",\n{i}', f"intent_{intent}"] for i in range(2)])
        (folder / f"{name}.csv").write_text(file.getvalue(), newline="")


def put_news(folder, rows=2, extra=""):
    categories = [of for part in PARTS for of in standard_splits("huffpost")["bao"][part]]
    lines = [
        json.dumps({"category": of, "headline": f"{of} número {i}", "authors": "", "link": "", "date": "2018-05-26"})
        for i in range(rows)
        for of in [*categories, "U.S. NEWS"]
    ]
    (folder / "News_Category_Dataset_v3.json").write_text("\n".join(lines) + "\n" + extra, encoding="utf-8")


def test_clinc150_layout(tmp_path):
    put_clinc(tmp_path / "clinc150")
    division = load_examples("clinc150", tmp_path)
    for part, examples in zip(PARTS, division, strict=True):
        assert examples.names == tuple(standard_splits("clinc150")["domains"][part])
        assert len(examples.labels) == 6 * len(examples.names)
        assert all(examples.names[label] in x for x, label in zip(examples.inputs, examples.labels, strict=True))
    assert len(load_examples("clinc150", tmp_path, per_class=1).test.labels) == 45


def test_banking77_layout(tmp_path):
    put_banking(tmp_path)
    division = load_examples("banking77", tmp_path, seed=3, split="random")
    assert [len(part.names) for part in division] == [23, 25, 29]  # 25, 25 and 27 on average
    assert len({name for part in division for name in part.names}) == 77
    for part in division:
        for sentence, label in zip(part.inputs.tolist(), part.labels, strict=True):
            assert part.names[label] == f"intent_{sentence.split(chr(34))[1]}" and "\n" in sentence
    put_banking(tmp_path, ("sentence", "label"))
    with pytest.raises(ValueError, match=r"train.csv must have the columns text and category in every row"):
        load_examples("banking77", tmp_path)


def test_huffpost_layout(tmp_path):
    put_news(tmp_path)
    division = load_examples("huffpost", tmp_path)
    assert [len(part.names) for part in division] == [20, 5, 16]
    assert all("U.S. NEWS" not in part.names for part in division)
    assert all(
        x == f"{division.test.names[0]} número {i}"
        for i, x in enumerate(division.test.inputs[division.test.labels == 0])
    )
    put_news(tmp_path, extra="{}\n")
    with pytest.raises(ValueError, match=r"v3.json: line 85 is not an article \(KeyError\('headline'\)\)"):
        load_examples("huffpost", tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"train": [], "val": [], "test": [["a"]]}', '{"train": 1}'])
def test_damaged_clinc150_is_named(content, tmp_path):
    (tmp_path / "data_full.json").write_text(content)
    with pytest.raises(ValueError, match=r"data_full.json is not CLINC150"):
        load_examples("clinc150", tmp_path)


def test_incomplete_clinc150_is_named(tmp_path):
    rows = {"train": [["hello", "greeting"]], "val": [], "test": []}
    (tmp_path / "data_full.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match="clinc150: the data is not complete: 149 of 150 classes are missing"):
        load_examples("clinc150", tmp_path)


def test_hashes_equal_those_of_the_definition():
    """Written out for one word: the word itself and the three- and four-letter pieces of <pay>, by CRC-32."""
    pieces = ["pay", "#<pa", "#pay", "#ay>", "#<pay", "#pay>"]
    expected = np.zeros(97)
    for piece in pieces:
        expected[zlib.crc32(piece.encode()) % 97] += 1
    np.testing.assert_allclose(hash_ngrams(["PAY"], 97)[0], expected / np.linalg.norm(expected), rtol=1e-6)
    only = hash_ngrams(["pay"], 97, pieces=())[0]
    assert np.flatnonzero(only).tolist() == [zlib.crc32(b"pay") % 97] and only.max() == 1


def test_vectors_of_sentences():
    sentences = ["Pay my bill!", "pay, pay... my BILL", "my bills: pay", "", "?!", "größe 東京"]
    features = hash_ngrams(sentences)
    assert features.shape == (6, 2048) and features.dtype == np.float32
    np.testing.assert_array_equal(features[0], features[1])  # each different word counts once
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [1, 1, 1, 0, 0, 1], rtol=1e-6)
    assert 0.5 < features[0] @ features[2] < 1 and features[0] @ features[5] < 0.2
    np.testing.assert_array_equal(hash_ngrams(np.array(sentences)[::-1])[::-1], features)
    assert hash_ngrams([], 8).shape == (0, 8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("one",), TypeError, "sentences must be many strings, got one"),
        (([1],), TypeError, "sentences must be strings, got 1"),
        ((["a"], 0), ValueError, "size must be an integer of at least 1, got 0"),
        ((["a"], 8, (0,)), ValueError, "pieces must be an integer of at least 1, got 0"),
    ],
)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        hash_ngrams(*arguments)


def test_tasks_of_sentences(tmp_path):
    put_clinc(tmp_path)
    sets = get_tasksets("clinc150", ways=4, shots=2, queries=3, root=tmp_path, size=64)
    samplers = [sampler for sampler in sets if isinstance(sampler, FewShot)]
    assert [sampler.num_classes for sampler in samplers] == [75, 30, 45]
    draw = jax.jit(lambda sampler, key: sampler(key))
    task = draw(samplers[2], jax.random.key(0))
    assert task.support.x.shape == (8, 64) and task.query.x.shape == (12, 64)
    np.testing.assert_allclose(np.linalg.norm(task.query.x, axis=1), 1, rtol=1e-5)
    given = get_tasksets("clinc150", ways=4, shots=2, queries=3, size=64, examples=sentences_of(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, draw(given.test, jax.random.key(0)), task)


VERBS, THINGS = ["pay", "cancel", "show", "find"], ["rent", "bill", "loan", "order", "tax", "gym"]
FRAMES = ["please {} my {}", "can you {} the {} today", "i want to {} this {}", "{} my {} now", "how do i {} a {}"]


@pytest.mark.parametrize("learner", ["maml", "anil", "protonet", "r2d2", "matching-network", "simpleshot"])
@pytest.mark.quick("protonet")
def test_few_intents_are_not_forgotten(learner, tmp_path):
    """Of 24 intents, 15 are trained on. No learner is much worse than the nearest mean of the sentences' vectors."""
    rows = [(frame.format(verb, thing), f"{verb} {thing}") for verb in VERBS for thing in THINGS for frame in FRAMES]
    (tmp_path / "intents.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    sizes: dict[str, Any] = {"ways": 3, "shots": 2, "queries": 3, "test_queries": 3, "test_tasks": 100, "size": 256}
    lengths: dict[str, Any] = {"iterations": 40, "validate_every": 20, "validation_tasks": 50}
    experiment = Experiment("sentences", learner, **sizes, **lengths)
    assert experiment.resolve().model == "skip-linear"
    found = experiment.run(tmp_path / "run", root=tmp_path / "intents.csv", progress=False).test["accuracy"]
    tasks = get_tasksets("sentences", ways=3, shots=2, queries=3, root=tmp_path / "intents.csv", size=256).test
    task = jax.jit(jax.vmap(tasks))(jax.random.split(jax.random.key(0), 300))
    means = np.stack([np.where((task.support.y == c)[..., None], task.support.x, 0).sum(1) / 2 for c in range(3)], 1)
    distances = ((task.query.x[:, :, None] - means[:, None]) ** 2).sum(-1)
    floor = (distances.argmin(-1) == task.query.y).mean()
    assert found.mean + found.interval > floor - 0.03 and floor > 0.5


@pytest.mark.docs
def test_the_experiment_runs(tmp_path):
    """On made-up intents."""
    put_clinc(tmp_path, rows=10)
    options = [
        "--iterations",
        "1",
        "--test-tasks",
        "2",
        "--size",
        "32",
        "--width",
        "4",
        "--learners",
        "ridge",
        "protonet",
    ]
    script = Path(__file__).parents[1] / "experiments" / "text.py"
    folders = ["--root", str(tmp_path), "--folder", str(tmp_path / "out")]
    subprocess.run([sys.executable, script, *options, *folders], check=True, capture_output=True)
    assert [row["learner"] for row in json.loads((tmp_path / "out" / "result.json").read_text())] == [
        "ridge",
        "protonet",
    ]


def sentences_of(folder):
    division = load_examples("clinc150", folder)
    names = [part.names[label] for part in division for label in part.labels]
    return np.concatenate([part.inputs for part in division]), names


def test_real_clinc150_by_domain():
    if not (DATA / "text" / "clinc150" / "data_full.json").is_file():
        pytest.skip(f"no {DATA / 'text' / 'clinc150'} (set JAXMETA_DATA)")
    division = load_examples("clinc150", DATA)
    domains = json.loads((DATA / "text" / "clinc150" / "domains.json").read_text())
    held = [sorted({domain for domain, of in domains.items() if set(of) & set(part.names)}) for part in division]
    assert [len(part) for part in held] == [5, 2, 3] and [domain for part in held for domain in part] == sorted(domains)
    for part, inside in zip(division, held, strict=True):
        assert sorted(part.names) == sorted(of for domain in inside for of in domains[domain])
        assert np.bincount(part.labels).tolist() == [150] * len(part.names)
    # A nearest centroid of 10 intents and 5 sentences each, on a tenth of the test sentences.
    few = [np.flatnonzero(division.test.labels == label)[:15] for label in range(0, 45, 4)][:10]
    features = np.stack([hash_ngrams(division.test.inputs[rows]) for rows in few])
    centroids = features[:, :5].mean(1)
    found = (features[:, 5:] @ (centroids / np.linalg.norm(centroids, axis=1, keepdims=True)).T).argmax(-1)
    assert (found == np.arange(10)[:, None]).mean() > 0.8
