"""Base of the adapters to other packages of pure environments in JAX."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxmeta._checks import check_function
from jaxmeta._types import PyTree
from jaxmeta.envs._base import BaseEnv
from jaxmeta.envs._meta_env import ObservationSize


@dataclasses.dataclass(frozen=True, eq=False)
class ForeignEnv(BaseEnv):
    """Environment of another package with parameters, of which the task is a part.

    Args:
        env: the environment of the other package.
        params: its parameters.
        sample_task: function of a key that draws a task.
        sample_test_task: the same for split `"test"`; `None` for `sample_task` with other keys.
        horizon: number of steps after which an episode is truncated; 0 for the limit in `params`.
    """

    env: Any
    params: Any
    sample_task: Callable[[jax.Array], PyTree]
    sample_test_task: Callable[[jax.Array], PyTree] | None = None
    horizon: int = dataclasses.field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if self.horizon == 0:
            object.__setattr__(self, "horizon", self.limit)
        super().__post_init__()
        check_function(sample_task=self.sample_task)
        if self.sample_test_task is not None:
            check_function(sample_test_task=self.sample_test_task)

    @property
    @abc.abstractmethod
    def limit(self) -> int:
        """Number of steps of an episode according to the parameters."""

    @property
    def observation_size(self) -> ObservationSize:
        """Length of an observation, its shape, or a mapping from names to these."""

        def first(key: jax.Array) -> PyTree:
            return self.begin(key, self.draw_task(key, "train"))[1]

        return _form(jax.eval_shape(first, jax.random.key(0)))

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draws a task."""
        sample = self.sample_test_task if split == "test" else None
        return (sample or self.sample_task)(key)

    def __eq__(self, other: object) -> bool:
        return self is other  # parameters hold arrays, so only the object itself is a key of the caches of jit

    def __hash__(self) -> int:
        return id(self)


def _form(obs: Any) -> ObservationSize:
    """Returns the form of observations of some shapes."""
    if isinstance(obs, Mapping):
        return {name: _form(part) for name, part in obs.items()}
    return obs.shape[0] if len(obs.shape) == 1 else obs.shape
