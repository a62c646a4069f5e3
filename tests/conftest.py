"""Strict JAX for every test, and one compilation cache for the whole suite.

The suite compiles much and computes little, so it compiles at XLA's lowest optimization level. Set JAXMETA_XLA_DEFAULT=1
to compile as users do. What is set in XLA_FLAGS stays, except the number of devices. Subprocesses inherit all of it.
"""

import os
from pathlib import Path

LEVEL = "" if os.environ.get("JAXMETA_XLA_DEFAULT") == "1" else "--xla_backend_optimization_level=0"
DEVICES = "--xla_force_host_platform_device_count=8"
# The last of two equal flags counts: yours before our level, our number of devices before yours.
os.environ["XLA_FLAGS"] = " ".join([LEVEL, os.environ.get("XLA_FLAGS", ""), DEVICES]).strip()
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # more threads are slower for small matrices
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data, or skip."""
    folder = Path(os.environ.get("JAXMETA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (set JAXMETA_DATA)")
    return folder
