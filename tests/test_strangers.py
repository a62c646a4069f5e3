# pyright: reportArgumentType=false
"""What happens first: packages and folders are checked before data are read, plain functions are samplers."""

import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import data
from jaxmeta.__main__ import main


@pytest.mark.parametrize("benchmark", ["ant-goal", "half-cheetah-velocity"])
def test_a_missing_package_is_named_before_a_folder_is_made(benchmark, tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name == "brax" or name.startswith("brax.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "brax", None)
    assert main(["train", "--benchmark", benchmark, "--folder", str(tmp_path / "run")]) not in (0, None)
    *_, line = capsys.readouterr().err.strip().split("\n")
    assert 'needs brax: pip install "jaxmeta[envs]"' in line and not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["metrics.jsonl", "checkpoints"])
def test_a_folder_of_something_else_is_refused_before_data_are_read(content, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / content).write_text("mine")
    monkeypatch.setattr(data, "get_tasksets", lambda *_, **__: pytest.fail("data were read"))
    experiment = jaxmeta.Experiment("omniglot", "protonet", iterations=1)
    with pytest.raises(ValueError, match=f"holds {content} of something else. Choose another folder"):
        experiment.run(tmp_path / "run", root=tmp_path, progress=False)


def test_the_folder_of_another_run_is_refused_before_data_are_read(tmp_path, monkeypatch):
    tiny: dict[str, Any] = {"iterations": 1, "num_tasks": 1, "validation_tasks": 1, "test_tasks": 1, "hidden": 4}
    jaxmeta.Experiment("sinusoid", **tiny).run(tmp_path / "run", progress=False)
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(data, "get_tasksets", lambda *_, **__: pytest.fail("data were read"))
    experiment = jaxmeta.Experiment("omniglot", "protonet", iterations=1)
    for name, message in {"run": "holds another run .benchmark was 'sinusoid'", "file": "file is a file"}.items():
        with pytest.raises((ValueError, OSError), match=message):
            experiment.run(tmp_path / name, root=tmp_path, progress=False)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_split_of_all_has_every_class_of_a_published_benchmark(part):
    labels = np.repeat([f"texture {i}" for i in range(47)], 2)
    examples = (np.zeros((94, 84, 84, 3), np.uint8), labels)
    tasksets = data.get_tasksets("dtd", ways=40, queries=1, examples=examples, split="all")
    assert sorted(tasksets.classes[part]) == sorted(set(labels))


SAMPLER = data.Sinusoid(shots=2, queries=2)


class Bound:
    def draw(self, key):
        return SAMPLER(key)


@pytest.mark.parametrize(
    "tasks", [partial(lambda sampler, key: sampler(key), SAMPLER), Bound().draw], ids=["partial", "bound"]
)
def test_a_function_of_a_key_is_a_sampler(tasks):
    learner = jaxmeta.maml(jaxmeta.regression(lambda w, x: w * x), optax.sgd(0.01))
    start, key = learner.init(jnp.array([[1.0]])), jax.random.key(0)
    options = {"iterations": 1, "num_tasks": 1, "log_every": 1, "validate_every": 1, "progress": False}
    found = [jaxmeta.train(learner, optax.sgd(0.1), start, t, key, **options).meta.params for t in (tasks, SAMPLER)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    assert abs(float(found[0][0, 0]) - 1) > 1e-3


def test_a_split_of_all_has_every_class_in_every_part():
    examples = data.Examples.of(np.arange(24.0)[:, None], [f"c{i % 4}" for i in range(24)])
    for part in data.load_examples("folder", examples=examples, split="all"):
        assert part.names == ("c0", "c1", "c2", "c3")
        np.testing.assert_array_equal(part.inputs[:, 0] % 4, part.labels)
