"""Strict JAX for every test, and one compilation cache for the whole suite."""

import os
from pathlib import Path

# Eight simulated devices; and the suite compiles much and computes little, so quick compilation is what counts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # more threads are slower for small matrices

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data, or skip."""
    folder = Path(os.environ.get("JAXMETA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (set JAXMETA_DATA)")
    return folder
