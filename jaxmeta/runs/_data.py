"""The data of a run: read, described in its folder, and replaced where only their shape matters."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import data
from jaxmeta.catalog import Settings
from jaxmeta.data.sources import RecordedLists

_DRAWINGS = 20  # of each class, where classes are drawn without end


def load_tasksets(
    s: Settings, root: str | Path | None, download: bool = False, classes: Mapping[str, Sequence[str]] | None = None
) -> data.BenchmarkTasksets:
    """Returns the samplers of the run's benchmark, with the given classes in each part if they have names."""
    tasksets = _read(s, root, download, classes)
    return tasksets._replace(train=_drawn(tasksets.train, s)) if "base_classes" in s else tasksets


def _read(
    s: Settings, root: str | Path | None, download: bool, classes: Mapping[str, Sequence[str]] | None
) -> data.BenchmarkTasksets:
    sizes = {"shots": s.train_shots, "queries": s.queries, "test_shots": s.shots, "test_queries": s.test_queries}
    given = {name: s[name] for name in ("split", "test_rotations") if name in s}
    given |= {name: s[name] for name in ("size", "channels", "invert", "per_class", "min_per_class") if s.get(name)}
    given |= {"seed": s.get("split_seed") or None, "root": root, "download": download or None}
    lists = {part: names for part, names in (classes or {}).items() if names}
    own = len({name for names in lists.values() for name in names}) == sum(map(len, lists.values()))  # no shared class
    if lists and own and "split" in data.describe_tasksets(s.benchmark).arguments:
        given |= {"split": RecordedLists(lists), "seed": None}
    if "ways" not in s:
        return data.get_tasksets(s.benchmark, **sizes, **given)
    ways = s.get("train_ways", s.ways)
    if ways == s.ways or "root" not in data.describe_tasksets(s.benchmark).arguments:
        return data.get_tasksets(s.benchmark, ways, **sizes, test_ways=s.ways, **given)
    tasksets = data.get_tasksets(s.benchmark, s.ways, **sizes, **given)  # which classes are there decides `train_ways`
    if not isinstance(tasksets.train, data.FewShot):
        return data.get_tasksets(s.benchmark, ways, **sizes, test_ways=s.ways, **given)
    return tasksets._replace(train=tasksets.train.with_sizes(ways=min(ways, tasksets.train.num_classes)))


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
        "train_ways": settings.get("train_ways", settings.get("ways")),
        "train_classes": getattr(train, "num_classes", None),
        "classes": tasksets.classes,
        "stamp": tasksets.stamp,
        "invert": bool(settings.get("invert")) or data.describe_tasksets(settings.benchmark).bright_ink,
    }


def changed_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Returns in words how the data of a run have changed, or an empty string if they have not."""
    if before.get("stamp") == now.get("stamp"):
        return ""
    old, new = _parts_of_classes(before), _parts_of_classes(now)
    changed = {
        "are missing": old.keys() - new.keys(),
        "are new": new.keys() - old.keys(),
        "are in another part": {name for name in old.keys() & new.keys() if old[name] != new[name]},
    }
    told = [f"{', '.join(sorted(names)[:5])} {how}" for how, names in changed.items() if names]
    return f"the data are not those that the run was trained on: {', '.join(told) or 'the examples differ'}"


def _parts_of_classes(facts: Mapping[str, Any]) -> dict[str, set[str]]:
    """Returns the parts of each class. With `split="all"` it is in all of them."""
    found: dict[str, set[str]] = {}
    for part, names in (facts["classes"] or {}).items():
        for name in names:
            found.setdefault(name, set()).add(part)
    return found


def stand_in(facts: Mapping[str, Any]) -> data.BenchmarkTasksets:
    """Returns samplers of zeros in the shape of the data."""
    ways = facts["train_ways"] or 1
    zeros = np.zeros((facts["train_classes"] or ways, 2, *facts["input_shape"]), np.float32)
    sampler = data.FewShot.from_classes(zeros, ways=ways, shots=1, queries=1)
    return data.BenchmarkTasksets(sampler, sampler, sampler)
