"""Strict JAX for every test, and one compilation cache for the whole suite.

The suite compiles much and computes little, so it asks XLA for quick compilation. Set JAXMETA_XLA_DEFAULT=1 to compile
as users do. Flags that you set in XLA_FLAGS stay, except the number of devices. Subprocesses of tests inherit them all.
"""

import fnmatch
import gc
import os
import signal
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

QUICK = ["--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):  # another XLA may not know these flags, and would refuse to start
    QUICK += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
if os.environ.get("JAXMETA_XLA_DEFAULT") == "1":
    QUICK = []
# The last of several equal flags counts: so yours override ours, except your number of devices.
flags = [*QUICK, *os.environ.get("XLA_FLAGS", "").split(), "--xla_force_host_platform_device_count=8"]
os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys(flags))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # more threads are slower for small matrices
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax
import pytest

gc.set_threshold(50_000, 20, 20)  # traces make many objects, and few cycles
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data, or skip."""
    folder = Path(os.environ.get("JAXMETA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (set JAXMETA_DATA)")
    return folder


@pytest.fixture
def hears_hangups() -> Iterator[None]:
    """Lets a test hear SIGHUP, which `nohup` has told the whole run to ignore."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the rows of a table as slow that its mark `quick` does not name."""
    quick: dict[str, bool] = {}
    for item in items:
        marker, row = item.get_closest_marker("quick"), getattr(item, "callspec", None)
        if marker is None or row is None:
            continue
        table = item.nodeid.partition("[")[0]
        known = any(fnmatch.fnmatch(row.id, pattern) for pattern in marker.args)
        quick[table] = quick.get(table, False) or known
        if not known:
            item.add_marker(pytest.mark.slow)
    if len(quick) > 1 and not all(quick.values()):  # a single row may have been asked for
        raise pytest.UsageError(f"no row is quick in {[table for table, found in quick.items() if not found]}")
