"""Films of the policy of a run."""

from pathlib import Path
from typing import Any

import jax

from jaxmeta import envs
from jaxmeta._checks import check_choice, check_integer
from jaxmeta._types import MetaParams
from jaxmeta.catalog import Settings
from jaxmeta.runs._experiment import build


def save_film(settings: Settings, meta: MetaParams, path: Path, task: int, step: int | None) -> Path:
    """Saves a film of a policy in a test task, see `Run.film`."""
    if settings.kind != "environment":
        raise TypeError(f"film is for policies, and this run is on {settings.benchmark} ({settings.kind})")
    check_choice("the ending of path", path.suffix, (".html", ".gif", ".mp4"))
    check_integer(least=0, task=task)
    if task >= settings.test_tasks:
        raise ValueError(f"task must be below {settings.test_tasks}, the number of test tasks, got {task}")
    parts: Any = build(settings)
    needed = "physics" if path.suffix == ".html" else "render"
    if not hasattr(parts.env, needed):
        instead = ". Save a .gif" if hasattr(parts.env, "render") else ", which cannot be drawn"
        raise ValueError(f"{path.suffix} does not apply to {settings.benchmark}{instead}")
    states = jax.device_get(parts.film(meta, task))
    number = states.done.shape[0]
    chosen = number - 1 if step is None else step
    check_integer(least=0, step=chosen)
    if chosen >= number:
        raise ValueError(f"step must be at most {number - 1}, got {step}")
    save = envs.save_html if path.suffix == ".html" else envs.save_video
    save(parts.env, jax.tree.map(lambda x: x[chosen], states), path)
    return path
