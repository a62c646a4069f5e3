"""Tasks of environments outside of JAX: trees of numbers, or handles of objects."""

import pickle
from typing import Any

import jax
import numpy as np

from jaxmeta._types import PyTree
from jaxmeta.display import brief
from jaxmeta.envs._base import SPLITS
from jaxmeta.envs._host_simulators import Blueprint, Simulators
from jaxmeta.envs._host_workers import Workers

_DRAWS = 1000  # of objects that are kept


class HostTasks:
    """Tasks of an environment outside of JAX.

    A task that is not made of numbers is drawn on the host when it is needed. In JAX it is the handle
    `{"draw": [4], "index": []}` of its place in a draw: the words of the seed, the number of tasks in the draw and the
    split, and the index of the task. So it is the same one in another process, such as in a run that is resumed.

    Args:
        name: name of the environment, for errors.
        blueprint: everything about the environment.

    Raises:
        TypeError: if the tasks are not what a sampler may return.
        ValueError: if they differ in their shapes, or are not determined by the seed.
    """

    example: PyTree
    """A task, without leading axis."""

    def __init__(self, name: str, blueprint: Blueprint) -> None:
        self._name = name
        self._draws: dict[tuple[int, ...], list[Any]] = {}
        simulators = Simulators(blueprint)
        try:
            first, second = simulators.tasks([((0, 0), 2, "train")] * 2)
        finally:
            simulators.close()
        self._opaque = not _is_numeric(first)
        if self._opaque:
            _check_objects(first, 2)
            same = [pickle.dumps(task) for task in first] == [pickle.dumps(task) for task in second]
            self.example = {"draw": np.zeros(4, np.uint32), "index": np.zeros((), np.int32)}
        else:
            stacked, again = (_stack(tasks, 2) for tasks in (first, second))
            same = all(map(np.array_equal, jax.tree.leaves(stacked), jax.tree.leaves(again)))
            self.example = jax.tree.map(lambda x: x[0], stacked)
        if not same:
            raise ValueError(f"sample_tasks of {name} must draw the same tasks from the same rng or seed, and does not")

    def draw(self, workers: Workers, words: np.ndarray, n: int, split: str, result: PyTree) -> PyTree:
        """Draws `n` tasks for each of some pairs of words, with the types of `result`, `[..., n, ...]`."""
        lead, rows = words.shape[:-1], words.reshape(-1, 2).tolist()
        if self._opaque:
            draws = np.array([[*row, n, SPLITS.index(split)] for row in rows], np.uint32)
            trees = [{"draw": np.tile(draw, (n, 1)), "index": np.arange(n, dtype=np.int32)} for draw in draws]
        else:
            answer = workers.ask({0: ("tasks", [(row, n, split) for row in rows])})[0]
            trees = [_stack(tasks, n) for tasks in answer]
            self.check(jax.tree.map(lambda x: x[0], trees[0]))
        return jax.tree.map(lambda out, *x: np.stack(x).astype(out.dtype).reshape((*lead, *out.shape)), result, *trees)

    def unpack(self, workers: Workers, tasks: PyTree) -> list[Any]:
        """Returns stacked tasks as a list of what the environment takes."""
        leaves, structure = jax.tree.flatten(tasks)
        if not self._opaque:
            return [structure.unflatten([leaf[i] for leaf in leaves]) for i in range(len(leaves[0]))]
        draws = list(map(tuple, tasks["draw"].tolist()))
        missing = list(dict.fromkeys(draw for draw in draws if draw not in self._draws))
        if missing:
            asked = [(words, n, SPLITS[split]) for *words, n, split in missing]
            for draw, objects in zip(missing, workers.ask({0: ("tasks", asked)})[0], strict=True):
                _check_objects(objects, draw[2])
                self._draws[draw] = list(objects)
        found = [self._draws[draw][index] for draw, index in zip(draws, tasks["index"].tolist(), strict=True)]
        while len(self._draws) > _DRAWS:
            del self._draws[next(iter(self._draws))]
        return found

    def check(self, task: PyTree) -> None:
        """Raises ValueError unless a task has the form of the example."""
        wanted, found = (jax.tree.map(np.shape, tree) for tree in (self.example, task))
        if wanted != found:
            raise ValueError(f"tasks of {self._name} must have the shapes {wanted}, got {found}")


def _is_numeric(tasks: Any) -> bool:
    leaves = jax.tree.leaves(tasks)
    return bool(leaves) and all(np.asarray(leaf).dtype.kind in "biuf" for leaf in leaves)


def _check_objects(tasks: Any, n: int) -> None:
    if not isinstance(tasks, list | tuple) or len(tasks) != n:
        raise TypeError(f"sample_tasks must return a list of {n} tasks or a tree of arrays, got {brief(tasks)}")


def _stack(tasks: Any, n: int) -> PyTree:
    """Stacks a list of `n` tasks, or returns those that are stacked already."""
    if not isinstance(tasks, list):
        stacked = jax.tree.map(np.asarray, tasks)
        lengths = {np.shape(x)[:1] for x in jax.tree.leaves(stacked)}
        if lengths != {(n,)}:
            raise ValueError(f"sample_tasks must return a list or arrays with leading axis [{n}], got {brief(tasks)}")
        return stacked
    _check_objects(tasks, n)
    shapes = [jax.tree.map(np.shape, task) for task in tasks]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"tasks must have the same shapes, got {brief(shapes)}")
    return jax.tree.map(lambda *x: np.stack(x), *tasks)
