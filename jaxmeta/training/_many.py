"""Meta-training of several runs in one program: seeds and rates side by side."""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta._checks import check_sampler
from jaxmeta._step import evaluate, meta_step
from jaxmeta._types import MetaLearner, MetaParams, PyTree, Sampler, Training, check_key, check_meta
from jaxmeta.training._callback import Callback, Callbacks
from jaxmeta.training._chunks import Snapshot, followed, no_metrics, program
from jaxmeta.training._course import Course, LoopSettings, Validate, chosen_monitor
from jaxmeta.training._log import Log
from jaxmeta.training._loop import (
    INIT,
    Trained,
    check_settings,
    finished,
    first_snapshot,
    save_after,
    training_bar,
    what_decides,
)
from jaxmeta.training._preemption import deferred_signals
from jaxmeta.training._train import as_tree, at_first, means, task_settings

Build = Callable[[Any], tuple[MetaLearner | Callable[[jax.Array], MetaLearner], optax.GradientTransformation]]
"""`(point) -> (learner, optimizer)`."""


def train_many(
    build: Build,
    points: Sequence[PyTree],
    metas: Sequence[MetaParams],
    tasks: Sampler,
    keys: Sequence[jax.Array],
    *,
    iterations: int,
    minutes: float | None = None,
    num_tasks: int,
    batch_size: int | None = None,
    validation: Sampler | None = None,
    validation_tasks: int = 200,
    validate_every: int = 500,
    monitor: str | None = None,
    log_every: int = 50,
    skip_nonfinite: bool = False,
    folders: Sequence[str | os.PathLike[str]] | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback | Sequence[Callback]] | None = None,
) -> list[Trained | FloatingPointError]:
    """Meta-trains several runs in one program, which `jax.vmap` makes: seeds, or rates side by side.

    It compiles once, whatever the number of runs. Each run gives what `train` gives for it alone, up to rounding, and
    its folder is that of `train`: it resumes alone, or with others. A run that diverges ends; the others go on.

    Args:
        build: `(point) -> (learner, optimizer)`, as `train` takes them. It is called with the numbers of each point,
            and once more with traced ones.
        points: what differs, such as a rate or a dict of rates: pytrees of numbers of the same structure.
        metas: initial meta-parameters of each run, of the same shapes.
        tasks: sampler of training tasks.
        keys: root of all randomness of each run.
        iterations: see `train`, as all arguments from here on.
        minutes: see `train`.
        num_tasks: see `train`.
        batch_size: tasks that each run computes at once, see `meta_step`.
        validation: see `train`.
        validation_tasks: see `train`.
        validate_every: see `train`.
        monitor: see `train`.
        log_every: see `train`.
        skip_nonfinite: see `train`.
        folders: a folder for each run, or `None`.
        progress: show one progress bar, with the numbers of the first run.
        callbacks: one function of a record, or some, for each run.

    Returns:
        For each run what `train` returns, or the error with which it ended.

    Raises:
        ValueError: as `train`; if the numbers of points, metas, keys, folders and callbacks differ; with several
            processes.

    Example:
        >>> import jaxmeta
        >>> from jaxmeta import data
        >>> def build(rate):
        ...     return jaxmeta.maml(jaxmeta.regression(lambda w, x: x * w), optax.sgd(rate)), optax.adam(1e-3)
        >>> metas = [jaxmeta.MetaParams(jnp.array([1.0]))] * 2
        >>> keys = [jax.random.key(0)] * 2
        >>> runs = train_many(build, [0.01, 0.02], metas, data.Sinusoid(), keys, iterations=4, num_tasks=2,
        ...                   log_every=2, progress=False)
        >>> [record["step"] for record in runs[1].history]
        [2, 4]
    """
    chosen = (iterations, validate_every, log_every, monitor, skip_nonfinite)
    options = task_settings(*chosen, minutes=minutes, num_tasks=num_tasks, validation_tasks=validation_tasks)
    _check_lengths(len(points), metas=metas, keys=keys, folders=folders, callbacks=callbacks)
    check_sampler(tasks=tasks, **({} if validation is None else {"validation": validation}))
    for meta, key in zip(metas, keys, strict=True):
        check_meta(meta)
        check_key(key)
    tasks, validation = as_tree(tasks), as_tree(validation)
    pairs = [jax.random.split(key) for key in keys]
    trainings = [meta_step(*build(point), num_tasks, batch_size=batch_size) for point in points]
    check_settings(trainings[0], options, validation=validation)
    traced = [jax.tree.map(jnp.asarray, point) for point in points]
    validates: Sequence[Validate | None] = [None] * len(points)
    if validation is not None:
        last = [key for _, key in pairs]
        validates, names = _validators(build, traced, metas, validation, last, validation_tasks, batch_size)
        options = options._replace(monitor=chosen_monitor(monitor, names))

    def step(state: Any, key: jax.Array, tasks: Sampler, point: PyTree) -> Any:
        return meta_step(*build(point), num_tasks, batch_size=batch_size).step(state, key, tasks)

    updates = _Updates(step, options, [key for key, _ in pairs], tasks, traced)
    called = [Callbacks(()) if callbacks is None else Callbacks(callbacks[i]) for i in range(len(points))]
    with contextlib.ExitStack() as stack:
        asked = stack.enter_context(deferred_signals())
        courses: list[Course] = []
        for i, (training, meta) in enumerate(zip(trainings, metas, strict=True)):
            decides = what_decides(training, updates.keys[i], options)
            fresh = updates.start(i, training, meta)
            log = stack.enter_context(Log(folders[i] if folders else None, fresh, decides))
            bar = stack.enter_context(training_bar(iterations, log.start, progress and i == 0))
            courses.append(Course(options, log, log.snapshot, lambda tree: tree, validates[i], called[i], bar, asked))
        return _run(courses, updates)


def _run(courses: Sequence[Course], updates: "_Updates") -> list[Trained | FloatingPointError]:
    """Runs courses, which ask for the same chunks as long as they go on."""
    ended: dict[int, FloatingPointError] = {}
    try:
        if any(course.goes_on for course in courses):
            updates.run(courses, 0, 0)  # compiles
        for course in courses:
            if course.goes_on:
                course.begin()
        while live := [i for i, course in enumerate(courses) if course.goes_on and i not in ended]:
            start = min(courses[i].step for i in live)  # some may have been resumed from other updates
            group = [i for i in live if courses[i].step == start]
            size, begin = min(courses[i].size() for i in group), time.perf_counter()
            found = updates.run(courses, start, size)
            busy = time.perf_counter() - begin
            for i in group:
                try:
                    new = followed(courses[i].snapshot, found[i], start, size, updates.options.skip_nonfinite)
                    courses[i].take(new, size, busy)
                except FloatingPointError as error:
                    save_after(error, courses[i])
                    ended[i] = error
    except BaseException as error:
        for course in courses:
            save_after(error, course)
        raise
    return [ended[i] if i in ended else finished(course) for i, course in enumerate(courses)]


class _Updates:
    """The updates of all runs as one program."""

    def __init__(
        self,
        step: Callable[..., Any],
        options: LoopSettings,
        keys: Sequence[jax.Array],
        tasks: Sampler,
        points: Sequence[PyTree],
    ):
        self.options, self.keys = options, keys
        self._update, run = program(step, options.log_every, options.skip_nonfinite)

        def run_all(starts: Any, start: jax.Array, end: jax.Array, keys: Any, tasks: Sampler, points: Any) -> Any:
            (states, rows), keys, points = (
                jax.tree.map(lambda *x: jnp.stack(x), *each) for each in (starts, keys, points)
            )
            axes = 0, 0, None, None, 0, (None, 0)
            found = jax.vmap(run, axes)(states, rows, start, end, keys, (tasks, points))
            return [jax.tree.map(lambda x, i=i: x[i], found) for i in range(len(starts))]

        self._run, self._arguments = jax.jit(run_all), (list(keys), tasks, list(points))

    def start(self, i: int, training: Training, meta: MetaParams) -> Snapshot:
        """Returns where a run starts."""
        state, (keys, tasks, points) = training.init(meta, jax.random.fold_in(self.keys[i], INIT)), self._arguments
        return first_snapshot(
            state, no_metrics(self._update, self.options.log_every, state, keys[i], (tasks, points[i]))
        )

    def run(self, courses: Sequence[Course], start: int, size: int) -> list[Any]:
        """Runs `size` updates of all runs. What the runs do with the results is theirs."""
        starts = [(course.snapshot.state, course.snapshot.metrics) for course in courses]
        return jax.block_until_ready(self._run(starts, np.int32(start), np.int32(start + size), *self._arguments))


def _validators(
    build: Build,
    points: Sequence[PyTree],
    metas: Sequence[MetaParams],
    tasks: Sampler,
    keys: Sequence[jax.Array],
    num_tasks: int,
    batch_size: int | None,
) -> tuple[list[Validate], list[str]]:
    """Returns for each run what measures it, with one program for all, and the names of what it measures."""

    @jax.jit
    def measure(point: PyTree, meta: MetaParams, tasks: Sampler, key: jax.Array) -> Any:
        return evaluate(at_first(build(point)[0]), num_tasks, batch_size=batch_size)(meta, tasks, key)

    def validate_at(point: PyTree, key: jax.Array) -> Validate:
        return lambda meta: means(measure(point, meta, tasks, key))

    names = sorted(measure.eval_shape(points[0], metas[0], tasks, keys[0]))
    return [validate_at(point, key) for point, key in zip(points, keys, strict=True)], names


def _check_lengths(number: int, **given: Sequence[Any] | None) -> None:
    if number == 0:
        raise ValueError("points must hold one point or more, got none")
    if jax.process_count() > 1:
        raise ValueError("train_many needs one process; train takes several")
    for name, values in given.items():
        if values is not None and len(values) != number:
            raise ValueError(f"{name} must hold one value for each of the {number} points, got {len(values)}")
