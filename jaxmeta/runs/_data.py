"""The data of a run: read, described in its folder, and replaced where only their shape matters."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import data
from jaxmeta.catalog import Settings

_DRAWINGS = 20  # of each class, where classes are drawn without end


def load_tasksets(s: Settings, root: str | Path | None, download: bool) -> data.BenchmarkTasksets:
    """Returns the samplers of the run's benchmark."""
    sizes = {"shots": s.train_shots, "queries": s.queries, "test_shots": s.shots, "test_queries": s.test_queries}
    if "ways" in s:
        sizes |= {"ways": s.get("train_ways", s.ways), "test_ways": s.ways}
    found = {name: s[name] for name in ("split", "test_rotations") if name in s}
    tasksets = data.get_tasksets(s.benchmark, **sizes, **found, root=root, download=download or None)
    return tasksets._replace(train=_drawn(tasksets.train, s)) if "base_classes" in s else tasksets


def _drawn(glyphs: Any, s: Settings) -> data.FewShot:
    """The first classes of an endless sampler as a data set, a fixed number of drawings of each."""

    @jax.jit
    def draw(number: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), number), _DRAWINGS)
        return jnp.round(255 * jax.vmap(partial(glyphs.render, number))(keys)).astype(jnp.uint8)

    images = jax.lax.map(draw, jnp.arange(s.base_classes))
    return data.FewShot.from_classes(images, ways=glyphs.ways, shots=glyphs.shots, queries=glyphs.queries)


def facts_of(settings: Settings, tasksets: data.BenchmarkTasksets) -> dict[str, Any]:
    """Returns what must be known of the data to rebuild a run without them, and to make inputs of pictures."""
    train: Any = tasksets.train
    return {
        "input_shape": list(train.example.shape[1:]),
        "train_classes": getattr(train, "num_classes", None),
        "invert": data.describe_tasksets(settings.benchmark).bright_ink,
    }


def stand_in(facts: Mapping[str, Any]) -> data.BenchmarkTasksets:
    """Returns samplers of zeros in the shape of the data."""
    zeros = np.zeros((facts["train_classes"] or 1, 2, *facts["input_shape"]), np.float32)
    sampler = data.FewShot.from_classes(zeros, ways=1, shots=1, queries=1)
    return data.BenchmarkTasksets(sampler, sampler, sampler)
