"""Runs of released versions: what one version has written, later ones read and go on with.

`python tests/test_versions.py` keeps a run of the installed version in `tests/runs`.
"""

import shutil
import warnings
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxmeta
from jaxmeta import Experiment
from jaxmeta._files import read_json, write_json
from jaxmeta.training import read_records

RUNS = Path(__file__).parent / "runs"
ITERATIONS, STOPPED = 6, 4
KEPT = ("config.json", "training.json", "metrics.jsonl", "result.json", "meta.msgpack", "checkpoints")
SIZES: dict[str, Any] = {
    "ways": 2,
    "hidden": 2,
    "num_tasks": 1,
    "steps": 1,
    "test_steps": 1,
    "test_tasks": 2,
    "validation_tasks": 2,
}
EXPERIMENT = Experiment("glyphs", "maml", iterations=ITERATIONS, validate_every=2, **SIZES)


@pytest.fixture(params=[path.stem for path in sorted(RUNS.glob("*.zip"))])
def run(request, tmp_path):
    """The folder of a finished run of a version."""
    with zipfile.ZipFile(RUNS / f"{request.param}.zip") as archive:
        archive.extractall(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def stopped(run):
    """The same as a kill after a checkpoint would have left it."""
    shutil.rmtree(run / "checkpoints" / str(ITERATIONS))
    for name in ("result.json", "meta.msgpack"):
        (run / name).unlink()
    return run


def numbers(folder):
    return np.array([[v for k, v in record.items() if "second" not in k] for record in read_records(folder)[1:]])


def finish(folder):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* that was begun with")
        return EXPERIMENT.run(folder, progress=False)


def test_a_run_goes_on(stopped):
    before, saved = numbers(stopped), {path.name for path in (stopped / "checkpoints").iterdir()}
    assert saved == {str(STOPPED)}
    finish(stopped)
    np.testing.assert_allclose(numbers(stopped), before, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_finished_run_adapts(run, tmp_path):
    loaded, x = jaxmeta.load_run(run), np.random.default_rng(0).random((4, 28, 28, 1), np.float32)
    expected = jaxmeta.load_run(finish(tmp_path / "new").folder)
    found = [one.adapt(list(x), ["a", "b", "a", "b"]).predict(list(x)) for one in (loaded, expected)]
    assert [prediction.name for prediction in found[0]] == [prediction.name for prediction in found[1]]
    np.testing.assert_allclose(*[[p.probability for p in one] for one in found], rtol=1e-2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), loaded.meta, expected.meta)


@pytest.mark.slow
def test_a_run_that_was_begun_with_another_version_says_so(stopped):
    record = read_json(stopped / "training.json")
    write_json(stopped / "training.json", {**record, "versions": record["versions"] | {"optax": "0.0.1"}})
    with pytest.warns(UserWarning, match=r"was begun with .*optax 0\.0\.1, now .* may differ"):
        EXPERIMENT.run(stopped, progress=False)


def keep():
    """Writes the run of the installed version."""
    folder = RUNS / version("jaxmeta")
    EXPERIMENT.run(folder, progress=False)
    with zipfile.ZipFile(f"{folder}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.relative_to(folder).parts[0] in KEPT:
                archive.write(path, path.relative_to(folder))
    shutil.rmtree(folder)


if __name__ == "__main__":
    keep()
