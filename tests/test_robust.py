"""Disks that are full, folders that cannot be written, files that are damaged: one clear error, and nothing is lost."""

import contextlib
import errno
import gc
import io
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

import jaxmeta
from jaxmeta._save import write_tree
from jaxmeta.bounded import mat_numbers

SIZE = 50_000  # numbers, 200 kB of a checkpoint
KEY = jax.random.key(0)
# Where reading or writing fails in orbax, it leaves tasks behind that complain when they are collected.
failing_orbax = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def run(folder=None, when=None, **options):
    """Twelve updates, a checkpoint at every fourth; `when(step)` is called before each of these."""

    def step(state, key):
        drift = jax.random.normal(key)
        return state._replace(meta=state.meta + drift), {"loss": drift**2}

    def validate(state):
        nonlocal validated
        validated += 4
        if when is not None:
            when(validated)
        return {"loss": float(validated)}

    validated = -4  # the start is validated too
    start = jax.random.normal(jax.random.key(1), (SIZE,))
    numbers = {"iterations": 12, "log_every": 2, "validate_every": 4, "progress": False, **options}
    training = jaxmeta.Training(lambda meta, key: jaxmeta.TrainingState(meta, (), jax.numpy.int32(0)), step)
    return jaxmeta.loop(training, start, KEY, validate=validate, folder=folder, **numbers)


@pytest.fixture(scope="module")
def undisturbed():
    return run()


def check_goes_on(folder, undisturbed):
    jax.tree.map(np.testing.assert_array_equal, run(folder).state, undisturbed.state)
    assert [path.name for path in folder.rglob("*tmp*")] == []
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 7


def saved(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())


@contextlib.contextmanager
def no_large_files():
    """Writing more than 64 KiB to a file fails, as on a full disk, for root too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@failing_orbax
def test_a_checkpoint_that_cannot_be_written(tmp_path, undisturbed):
    with no_large_files() as forbid:
        message = f"folder {tmp_path} cannot be written: File too large; once it can, run again to resume from"
        with pytest.raises(OSError, match=message) as caught:
            run(tmp_path, lambda step: forbid() if step == 8 else None)
        gc.collect()
    assert caught.value.errno == errno.EFBIG
    assert saved(tmp_path) == [4]
    check_goes_on(tmp_path, undisturbed)


def test_metrics_that_cannot_be_written(tmp_path, undisturbed):
    metrics = tmp_path / "metrics.jsonl"

    def fill(step):
        if step == 8:
            metrics.rename(tmp_path / "kept")
            metrics.symlink_to("/dev/full")

    with pytest.raises(OSError, match="cannot be written: No space left on device") as caught:
        run(tmp_path, fill)
    assert caught.value.errno == errno.ENOSPC
    assert saved(tmp_path) == [4]
    (tmp_path / "kept").replace(metrics)
    check_goes_on(tmp_path, undisturbed)


def test_a_folder_that_cannot_be_made_or_written_at_the_start(tmp_path):
    """Something is in the way, which stops root too, as a missing permission stops others."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=f"but {tmp_path / 'file'} is a file"):
        run(tmp_path / "file" / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").symlink_to("nowhere/metrics.jsonl")
    with pytest.raises(FileNotFoundError, match=f"folder {tmp_path / 'run'} cannot be written: No such file"):
        run(tmp_path / "run")


# Damaged files.


def corrupt(content, random):
    """Cut, or some bytes changed."""
    changed = bytearray(content)
    if random.random() < 0.25:
        return bytes(changed[: random.integers(len(changed))])
    for _ in range(random.choice([1, 2, 16])):
        changed[random.integers(len(changed))] ^= random.integers(1, 256)
    return bytes(changed)


@pytest.mark.parametrize(
    "content",
    [
        {"program": 3, "arrays": {}},
        {"program": np.zeros(4, np.uint8), "arrays": 3},
        {"program": np.zeros(4, np.uint8), "arrays": {}},
        {"program": np.zeros(4, np.uint8), "arrays": {"x": np.ones(2)}},
    ],
    ids=["no program", "no arrays", "zeros", "names"],
)
def test_classifiers_of_something_else(content, tmp_path):
    write_tree(tmp_path / "classifier", content | {"about": np.zeros(1, np.uint8)}, "classifier")
    with pytest.raises(ValueError, match="classifier is damaged, or of a version of JAX that this one cannot read"):
        jaxmeta.load_classifier(tmp_path / "classifier")


@failing_orbax
def test_damaged_checkpoints(tmp_path):
    from jaxmeta.training._checkpoint import Checkpoints  # orbax takes long to import

    like = {"w": jnp.arange(300.0), "n": jnp.int32(3)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, like)
    random = np.random.default_rng(0)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        for path in sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size):
            content = path.read_bytes()
            for changed in (b"", corrupt(content, random)):
                path.write_bytes(changed)
                try:
                    restored = checkpoints.restore(like)
                except ValueError as error:
                    assert f"checkpoint {tmp_path / '1'} is" in str(error)
                else:  # it was something that is not needed to restore
                    jax.tree.map(np.testing.assert_array_equal, restored, like)
            path.write_bytes(content)
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(like), like)
    gc.collect()


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_files_as_scipy_writes_them(compressed):
    """And any damage to them is a ValueError; scipy's own reader can crash."""
    random = np.random.default_rng(0)
    for kind in ("u1", "i2", "f4", "f8"):
        labels = np.arange(1, 20, dtype=kind)
        file = io.BytesIO()
        scipy.io.savemat(file, {"a": np.ones((2, 3)), "labels": labels[None]}, do_compression=compressed)
        np.testing.assert_array_equal(mat_numbers(file.getvalue(), "labels"), labels)
        with pytest.raises(ValueError, match="it holds no matrix b"):
            mat_numbers(file.getvalue(), "b")
        for _ in range(200):
            with contextlib.suppress(ValueError):
                mat_numbers(corrupt(file.getvalue(), random), "labels")
