"""The devices of a run, and where its compiled programs are kept."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from jaxmeta._files import cache_folder
from jaxmeta._parallel import task_mesh
from jaxmeta.catalog import LEARNERS, Settings

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container


def keep_programs() -> None:
    """Lets JAX keep compiled programs in the user's cache, unless the user has chosen a folder or none."""
    config = _config()
    if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:
        return
    with contextlib.suppress(OSError, RuntimeError):  # no home, or a folder that cannot be written: nothing is kept
        folder = cache_folder().absolute() / "programs"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        config.update("jax_compilation_cache_dir", str(folder))


def requested_mesh(
    devices: int | None, distributed: bool, coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Any:
    """Returns the requested devices, or None for one device."""
    import jax

    if coordinator is None and (num_processes, process_id) != (None, None):
        raise ValueError("--num-processes and --process-id need --coordinator")
    if coordinator is not None and None in (num_processes, process_id):
        raise ValueError("--coordinator needs --num-processes and --process-id")
    if distributed or coordinator is not None:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    elif devices is None:
        return None
    elif devices > 1:
        with contextlib.suppress(RuntimeError):  # JAX runs already; on a CPU, as many devices as requested
            jax.config.update("jax_num_cpu_devices", devices)
    return task_mesh(devices)


def mesh_of_cores(settings: Settings) -> Any:
    """Returns a simulated device for each core of a machine that has only a CPU, where that is faster, or None.

    Milliseconds per update on two cores, one device and two, the least of 12 in turns: MAML on glyphs 213 and 138,
    ProtoNets with 5 ways and 8 tasks 131 and 98, with 60 ways and 2 tasks 339 and 310, MAML on 26 sinusoids 1.32 and
    0.80. ProMP on Particles2D 1,250 and 1,138, but it compiles for 27 s instead of 16, so policies stay on one device.
    So do larger networks: XLA ends a process whose devices wait for each other for a minute, as they may on a busy
    machine if an update is slow.
    """
    import jax

    cores, config = _cores(), _config()
    chosen = config.jax_num_cpu_devices not in (-1, cores) or "device_count" in os.environ.get("XLA_FLAGS", "")
    faster = LEARNERS[settings.learner].trains_on in ("tasks", "streams") and settings.num_tasks % cores == 0
    quick = settings.get("model", "mlp") in ("cnn", "fc", "mlp")
    if chosen or cores == 1 or not (faster and quick):
        return None
    with contextlib.suppress(RuntimeError):  # JAX runs already
        config.update("jax_num_cpu_devices", cores)
    return task_mesh() if jax.default_backend() == "cpu" and jax.device_count() == cores else None


def _config() -> Any:
    """Returns JAX's options, whose names type checkers do not know."""
    import jax

    return jax.config


def _cores() -> int:
    """Returns how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # there is no such file, or it says "max"
        quota, period = map(int, _CPU_QUOTA.read_text().split())
        cores = min(cores, quota // period)
    return max(1, cores)
