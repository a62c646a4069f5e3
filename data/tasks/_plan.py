"""Analysis of a list of task transforms: the part that is done once, the draw, and the rest for each task."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta.data.samplers import FewShot, Groups, Placement, TaskSizes, from_groups
from jaxmeta.data.tasks._augmented import Augmented
from jaxmeta.data.tasks._description import TaskDescription
from jaxmeta.data.tasks._loading import Augment, LoadData, Map, apply_map, one_array
from jaxmeta.data.tasks._meta_dataset import MetaDataset
from jaxmeta.data.tasks._transforms import (
    ConsecutiveLabels,
    FilterLabels,
    FusedNWaysKShots,
    KShots,
    NWays,
    RandomClassRotation,
    RemapLabels,
    group_examples,
)

_COMMON = (FilterLabels, RandomClassRotation, LoadData, Map, Augment)  # transforms that are the same for every task


class TaskPlan(NamedTuple):
    """Steps to make a task."""

    start: TaskDescription
    """Description that every task starts from, with all examples that may be drawn."""
    draw: FusedNWaysKShots | None
    """Draw of classes and examples, or `None` if another transform comes first."""
    groups: Groups | None
    """Classes to draw from."""
    rest: tuple[Callable[[TaskDescription], TaskDescription], ...]
    """Remaining transforms, applied to each task."""

    @classmethod
    def of(cls, dataset: MetaDataset, transforms: list[Any]) -> "TaskPlan":
        """Checks transforms and applies those that are the same for every task."""
        transforms = _joined(transforms)
        everything = np.arange(len(dataset)), dataset.targets.view(), np.zeros(len(dataset), int)
        for array in everything:
            array.flags.writeable = False  # all tasks share them
        start = TaskDescription(*everything, key=np.zeros(2, np.uint32))
        common = list(itertools.takewhile(lambda transform: isinstance(transform, _COMMON), transforms))
        for transform in common:
            start = transform(start)
        rest = tuple(transforms[len(common) :])
        if not rest or not isinstance(rest[0], FusedNWaysKShots):
            return cls(start, None, None, rest)
        groups = group_examples(start)
        rest[0].check(groups)
        return cls(start, rest[0], groups, rest[1:])


def compile_plan(plan: TaskPlan, dataset: MetaDataset, device: Placement | None) -> FewShot | Augmented:
    """Builds the sampler that draws the tasks of a plan on the device, see `Taskset.to_device`."""
    draw, groups = plan.draw, plan.groups
    if draw is None or groups is None:
        raise ValueError(
            f"to_device needs KShots, and before it at most NWays, {', '.join(t.__name__ for t in _COMMON)}"
        )
    if draw.queries is None:
        raise ValueError("to_device needs queries in KShots, as tasks on the device have support and query")
    if not getattr(jax.config, "jax_threefry_partitionable", True):
        raise ValueError("to_device needs jax_threefry_partitionable, JAX's default, to draw what the host draws")
    description, shuffle = _read_rest(plan)
    turns = set(np.unique(description.turns).tolist())
    if turns not in ({0}, {0, 1, 2, 3}) or description.axes != (0, 1):
        raise ValueError("to_device needs RandomClassRotation with all four turns and channels last")
    rotations = len(turns)
    classes = len(groups.counts) // rotations  # rotated classes come after the others
    inputs = dataset.take_all()
    for fn in description.maps:
        inputs = apply_map(fn, inputs)
    counts = groups.counts[:classes]
    rows = description.example[groups.rows[: counts.sum()]].astype(np.int32)
    names = groups.names[:classes]
    if dataset.class_names:
        names = np.array(dataset.class_names)[np.searchsorted(dataset.labels, names)]
    sampler = from_groups(
        one_array(inputs),
        Groups(names, rows, groups.starts[:classes], counts),
        TaskSizes(draw.shape(groups)[0], (draw.k, draw.queries), draw.replacement),
        rotations,
        device,
    )
    sampler = dataclasses.replace(sampler, shuffle=shuffle)
    return Augmented(sampler, description.augments) if description.augments else sampler


def _read_rest(plan: TaskPlan) -> tuple[TaskDescription, bool]:
    """Returns a description with all later loading, and whether labels are shuffled.

    Raises:
        ValueError: if a transform needs the host.
    """
    description, shuffle, is_sorted = plan.start, None, False
    for transform in plan.rest:
        if isinstance(transform, LoadData | Map | Augment):
            description = transform(description)
        elif isinstance(transform, RemapLabels) and shuffle is None:
            shuffle = transform.shuffle
        elif isinstance(transform, ConsecutiveLabels) and shuffle is not None:
            is_sorted = True
        elif isinstance(transform, ConsecutiveLabels | RemapLabels):
            raise ValueError("to_device needs RemapLabels once, and ConsecutiveLabels after it")
        else:
            raise ValueError(f"to_device cannot run {transform!r}, but tasks on the host can, see prefetch")
    if shuffle is None or not description.loaded:
        raise ValueError("to_device needs LoadData and RemapLabels among the transforms")
    if not shuffle and not is_sorted:
        raise ValueError("to_device needs ConsecutiveLabels after RemapLabels(shuffle=False)")
    return description, shuffle


def _joined(transforms: list[Any]) -> list[Any]:
    """Checks transforms and joins each `NWays` with the `KShots` that follows it."""
    result: list[Any] = []
    for transform in transforms:
        if isinstance(transform, type) or not callable(transform):
            raise TypeError(f"task_transforms must be functions such as LoadData(), got {transform!r}")
        if isinstance(transform, KShots):
            ways = result.pop().n if result and isinstance(result[-1], NWays) else None
            result.append(FusedNWaysKShots(ways, transform.k, transform.queries, transform.replacement))
        elif isinstance(transform, FusedNWaysKShots) and transform.filter_labels is not None:
            fused = FusedNWaysKShots(transform.n, transform.k, transform.queries, transform.replacement)
            result += [FilterLabels(transform.filter_labels), fused]
        else:
            result.append(transform)
    return result
