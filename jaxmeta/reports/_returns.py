"""Returns of a policy in test tasks: what is measured, the metrics made of it, and what a run's result keeps of it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta import rl
from jaxmeta._types import PyTree


class Returns(NamedTuple):
    """Returns of a policy by the number of episodes that it has seen of a task, and those that it is scored between."""

    episodes: np.ndarray
    """Number of episodes that were seen before each measurement, `[n]`."""
    sampled: np.ndarray
    """Return with sampled actions, `[num_tasks, n]`."""
    mode: np.ndarray
    """Return with the most probable actions, `[num_tasks, n]`."""
    floor: np.ndarray | None = None
    """Return of a policy that does nothing useful, `[num_tasks]`, or `None` if it is not known."""
    oracle: np.ndarray | None = None
    """Return of a policy that knows the task, `[num_tasks]`, or `None` if it is not known."""
    names: tuple[str | None, ...] = ()
    """Name of each task, of which some may have none. Empty if no task has a name."""

    @property
    def scores(self) -> np.ndarray:
        """Scores with sampled and with the most probable actions, `[num_tasks, n, 2]`, NaN where there are none.

        See `rl.ScoreScale`.
        """
        both = np.stack([self.sampled, self.mode], axis=-1)
        found = rl.ScoreScale(_array(self.floor), _array(self.oracle)).score(both)
        return np.full(both.shape, np.nan) if found is None else np.asarray(found)

    def named(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the values `[num_tasks, ...]` of the tasks of each name."""
        names = np.array(self.names, object)
        return {name: values[names == name] for name in sorted({name for name in self.names if name is not None})}

    def metrics_at(self, place: int) -> dict[str, np.ndarray]:
        """Returns the metrics of one measurement, each with a value for every task that has it."""
        found = {"return": self.sampled[:, place], "mode_return": self.mode[:, place]}
        scores = self.scores[:, place]
        measured = ~np.isnan(scores).any(axis=1)
        if measured.any():
            found |= {"score": scores[measured, 0], "mode_score": scores[measured, 1]}
        return found | {f"return ({name})": values for name, values in self.named(self.sampled[:, place]).items()}

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Metrics of the last measurement by their names, and of each one with the episodes seen in the name."""
        found = self.metrics_at(-1)
        for place, number in enumerate(self.episodes):
            for name, values in self.metrics_at(place).items():
                first, *rest = name.split(" ", 1)
                found[" ".join([f"{first}_{number}", *rest])] = values
        return found

    def as_record(self) -> dict[str, Any]:
        """Returns the values as lists, for a file."""
        return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in self._asdict().items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Returns":
        """Returns what `as_record` has made a record of.

        Raises:
            KeyError: if a value is missing.
            ValueError: if the values do not go together.
        """
        values: Any = {name: record[name] for name in cls._fields}
        for name in ("sampled", "mode", "floor", "oracle"):
            values[name] = None if values[name] is None else np.asarray(values[name], float)
        values |= {"episodes": np.asarray(values["episodes"], int), "names": tuple(values["names"])}
        found = cls(**values)
        shape = found.sampled.shape
        fits = shape == found.mode.shape == (*shape[:1], len(found.episodes)) and shape[0] > 0 < shape[1]
        for each in (found.floor, found.oracle, found.names or None):
            fits = fits and (each is None or len(each) == shape[0])
        if not fits:
            raise ValueError(f"returns of shape {shape} do not fit {len(found.episodes)} measurements")
        return found


def _array(values: np.ndarray | None) -> Any:
    return None if values is None else jax.numpy.asarray(values)


def returns_of(env: Any, tasks: PyTree, curve: rl.ReturnCurve, scale: rl.ScoreScale) -> Returns:
    """Returns what was measured in some tasks, with the names that the environment gives them."""
    found: Any = jax.device_get((tasks, curve._replace(states=None), scale))
    tasks, curve, scale = found
    number = curve.sampled.shape[0]
    names: tuple[str | None, ...] = ()
    if hasattr(env, "task_name"):
        names = tuple(env.task_name(jax.tree.map(lambda x, i=i: x[i], tasks)) for i in range(number))
    known = names if any(name is not None for name in names) else ()
    arrays: Any = {"episodes": curve.episodes, "sampled": curve.sampled, "mode": curve.mode, **scale._asdict()}
    return Returns(**arrays, names=known)
