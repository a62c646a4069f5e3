# pyright: reportArgumentType=false
"""A run that was interrupted, and whose data are others when it resumes: told by name, and nothing is lost."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxmeta import Experiment, data
from jaxmeta.data import _benchmarks
from jaxmeta.runs import evaluate_run, run_all

CLASSES = {f"c{i:02}": 6 for i in range(14)}
OTHERS = {f"k{i:02}": 6 for i in range(14)}
TINY = {"ways": 3, "queries": 2, "test_queries": 2, "train_ways": 3, "num_tasks": 1}
SHORT = {"iterations": 4, "validate_every": 1, "validation_tasks": 2, "test_tasks": 2}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))


def put_pictures(root: Path, counts: dict[str, int], seed: int):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (6, 6), (i, len(name), seed)).save(root / name / f"{i}.png")


def put_sentences(root: Path, counts: dict[str, int], seed: int):
    root.mkdir(parents=True)
    for name, count in counts.items():
        (root / f"{name}.txt").write_text("\n".join(f"{seed} say {name} {i}" for i in range(count)))


def put_vectors(root: Path, counts: dict[str, int], seed: int):
    names = np.array([name for name, count in counts.items() for _ in range(count)])
    root.parent.mkdir(parents=True, exist_ok=True)
    np.savez(root, x=np.random.default_rng(seed).normal(size=(len(names), 5)).astype(np.float32), y=names)


def put_frame(root: Path, counts: dict[str, int], seed: int):
    root.parent.mkdir(parents=True, exist_ok=True)
    names = [name for name, count in counts.items() for _ in range(count)]
    values = np.random.default_rng(seed).normal(size=(len(names), 2)).astype(np.float32)
    pd.DataFrame(values, columns=["a", "b"]).assign(name=names).sample(frac=1, random_state=0).to_pickle(root)


def tasks_of_frame(root=None, ways=5, shots=1, queries=1, test_ways=5, test_shots=1, test_queries=1):
    """A benchmark of one's own on a frame, with tasks from the host, all classes in each part."""
    frame: Any = pd.read_pickle(str(root))
    dataset = data.MetaDataset((frame[["a", "b"]], frame["name"]))

    def tasks(*sizes):
        return data.Taskset(dataset, [data.FusedNWaysKShots(*sizes), data.LoadData(), data.RemapLabels()])

    test = tasks(test_ways, test_shots, test_queries)
    return data.BenchmarkTasksets(tasks(ways, shots, queries), test, test)


KINDS = {
    "folder": (put_pictures, {"model": "fc", "size": 8, **TINY}),
    "sentences": (put_sentences, {"size": 16, "hidden": 4, **TINY}),
    "features": (put_vectors, TINY),
    "my-frame": (put_frame, TINY),
}


@pytest.fixture(params=KINDS)
def interrupted(request, tmp_path, monkeypatch):
    """The kind of the data, and an experiment with its folder that was stopped after two of four updates."""
    monkeypatch.setattr(_benchmarks, "BENCHMARKS", dict(_benchmarks.BENCHMARKS))
    data.register_tasksets("my-frame", tasks_of_frame, about="A frame", kind="vectors")
    put, options = KINDS[request.param]
    experiment = Experiment(request.param, "protonet", **options, **SHORT)
    put(root_of(request.param, tmp_path / "first"), CLASSES, 0)

    def stop(record):
        if record["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(experiment, tmp_path / "run", root_of(request.param, tmp_path / "first"), callback=stop)
    return request.param, experiment, tmp_path / "run"


def root_of(kind: str, folder: Path) -> Path:
    return folder / {"features": "mine.npz", "my-frame": "mine.pickle"}.get(kind, "mine")


def run(experiment, folder, root, **options):
    return experiment.run(folder, root=root, progress=False, **options)


def values(result):
    """The records of a training without the times."""
    return [{k: v for k, v in record.items() if "second" not in k} for record in result.trained.history]


def content(folder: Path):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("interrupted", ["folder", "sentences", "features"], indirect=True)
@pytest.mark.quick("*sentences*")
def test_one_more_class_is_reported_and_left_out(interrupted, tmp_path):
    """The run goes on to the numbers of one that was not disturbed."""
    kind, experiment, folder = interrupted
    more = root_of(kind, tmp_path / "more")
    KINDS[kind][0](more, CLASSES | {"zebra": 6}, 0)
    recorded = json.loads((folder / "config.json").read_text())
    with pytest.warns(UserWarning, match="zebra are new in the data and in no part of the run, so they are left out"):
        resumed = run(experiment, folder, more)
    whole = run(experiment, tmp_path / "whole", root_of(kind, tmp_path / "first"))
    assert values(resumed) == values(whole) and len(values(whole)) >= 4
    assert resumed.test["accuracy"].mean == whole.test["accuracy"].mean
    assert json.loads((folder / "config.json").read_text()) == recorded
    with pytest.warns(UserWarning, match="zebra are new"):
        evaluate_run(folder, root=more)


@pytest.mark.parametrize("interrupted", ["my-frame"], indirect=True)
def test_one_more_class_of_a_benchmark_without_a_split(interrupted, tmp_path):
    _, experiment, folder = interrupted
    put_frame(tmp_path / "more", CLASSES | {"zebra": 6}, 0)
    before = content(folder)
    with pytest.raises(ValueError, match=r"run cannot be resumed: .* trained on: zebra are new\. Choose another"):
        run(experiment, folder, tmp_path / "more")
    assert content(folder) == before


@pytest.mark.parametrize("change", ["others", "one less", "contents", "no root"])
@pytest.mark.quick("my-frame-contents", "folder-others", "sentences-one less")
def test_other_data_are_refused_and_nothing_is_lost(interrupted, change, tmp_path):
    kind, experiment, folder = interrupted
    counts = {"others": OTHERS, "one less": dict(list(CLASSES.items())[:-1])}.get(change, CLASSES)
    root = root_of(kind, tmp_path / "second")
    KINDS[kind][0](root, counts, 1)
    told = {
        "others": "c00, c01, c02, c03, c04.*k00, k01, k02, k03, k04",
        "one less": "c13",
        "contents": "the examples differ",
    }
    before = content(folder)
    if change == "no root":
        with pytest.raises((ValueError, OSError), match="needs root|'None'"):
            run(experiment, folder, None)
    else:
        with pytest.raises(ValueError, match=rf"^folder {folder}.* cannot be resumed: .*{told[change]}"):
            run(experiment, folder, root)
    assert content(folder) == before
    done = run(experiment, folder, root_of(kind, tmp_path / "first"))  # with its own data it goes on
    assert done.trained.history[-1]["step"] == 4


@pytest.mark.slow
def test_runs_in_one_program_say_it_too(tmp_path):
    runs = Experiment("features", "protonet", **TINY, **SHORT).vary(seed=(0, 1))
    for counts, name in ((CLASSES, "first.npz"), (OTHERS, "second.npz")):
        put_vectors(tmp_path / name, counts, 0)
    options = {"progress": False, "one_program": True}
    run_all(runs, tmp_path / "runs", root=tmp_path / "first.npz", **options)
    with pytest.raises(ValueError, match=r"seed=0, whose data were read from .*first.npz, cannot be resumed: .*k00"):
        run_all(runs, tmp_path / "runs", root=tmp_path / "second.npz", **options)
