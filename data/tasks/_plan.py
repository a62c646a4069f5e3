"""What a list of task transforms comes to: what is done once, what is drawn, and what is left to each task."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta.data.samplers import FewShot, Placement, Request, check_inputs, from_table
from jaxmeta.data.tasks._augmented import Augmented
from jaxmeta.data.tasks._collate import stack
from jaxmeta.data.tasks._description import TaskDescription
from jaxmeta.data.tasks._loading import Augment, LoadData, Map, apply_map
from jaxmeta.data.tasks._meta_dataset import MetaDataset
from jaxmeta.data.tasks._transforms import (
    ConsecutiveLabels,
    FilterLabels,
    FusedNWaysKShots,
    Groups,
    KShots,
    NWays,
    RandomClassRotation,
    RemapLabels,
)

_ALIKE = (FilterLabels, RandomClassRotation, LoadData, Map, Augment)  # do the same in every task


class Plan(NamedTuple):
    """How to make a task."""

    start: TaskDescription
    """What every task starts from: the examples that may be drawn."""
    draw: FusedNWaysKShots | None
    """How classes and examples are drawn from it; `None` if something else comes first."""
    groups: Groups | None
    """The classes to draw from."""
    rest: tuple[Callable[[TaskDescription], TaskDescription], ...]
    """What follows, task by task."""

    @classmethod
    def of(cls, dataset: MetaDataset, transforms: list[Any]) -> "Plan":
        """Check transforms, and do once what is alike in every task."""
        transforms = _joined(transforms)
        everything = np.arange(len(dataset)), dataset.targets.view(), np.zeros(len(dataset), int)
        for array in everything:
            array.flags.writeable = False  # every task sees them
        start = TaskDescription(*everything, key=np.zeros(2, np.uint32))
        alike = list(itertools.takewhile(lambda transform: isinstance(transform, _ALIKE), transforms))
        for transform in alike:
            start = transform(start)
        rest = tuple(transforms[len(alike) :])
        if not rest or not isinstance(rest[0], FusedNWaysKShots):
            return cls(start, None, None, rest)
        groups = Groups.of(start)
        rest[0].check(groups)
        return cls(start, rest[0], groups, rest[1:])


def compile_plan(plan: Plan, dataset: MetaDataset, device: Placement | None) -> FewShot | Augmented:
    """Return the sampler that draws the tasks of a plan on the device; see `Taskset.to_device`."""
    draw, groups = plan.draw, plan.groups
    if draw is None or groups is None:
        raise ValueError(
            f"to_device needs KShots, and before it at most NWays, {', '.join(t.__name__ for t in _ALIKE)}"
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
    classes = len(groups.counts) // rotations  # the turned ones come after the others
    inputs = dataset.take_all()
    for fn in description.maps:
        inputs = apply_map(fn, inputs)
    sampler = from_table(
        check_inputs(inputs if hasattr(inputs, "shape") else stack(inputs)),
        description.example[groups.table[:classes]].astype(np.int32),
        groups.counts[:classes],
        groups.names[:classes],
        Request(draw.shape(groups)[0], (draw.k, draw.queries), draw.replacement),
        rotations,
        device,
    )
    sampler = dataclasses.replace(sampler, shuffle=shuffle)
    return Augmented(sampler, description.augments) if description.augments else sampler


def _read_rest(plan: Plan) -> tuple[TaskDescription, bool]:
    """Return how examples are read and whether labels are shuffled; raise ValueError for what needs the host."""
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
            raise ValueError(f"to_device cannot run {transform!r}; tasks on the host can, see prefetch")
    if shuffle is None or not description.loaded:
        raise ValueError("to_device needs LoadData and RemapLabels among the transforms")
    if not shuffle and not is_sorted:
        raise ValueError("to_device needs ConsecutiveLabels after RemapLabels(shuffle=False)")
    return description, shuffle


def _joined(transforms: list[Any]) -> list[Any]:
    """Check transforms, and join `NWays` with the `KShots` that follows it."""
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
