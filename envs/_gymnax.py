"""Adapter to environments with the interface of gymnax."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._types import PyTree
from jaxmeta.envs._base import Outcome
from jaxmeta.envs._foreign import ForeignEnv

_LIMIT = "max_steps_in_episode"


@dataclasses.dataclass(frozen=True, eq=False)
class GymnaxEnv(ForeignEnv):
    """Environment of gymnax as a family, whose tasks are parameters.

    The task is what `sample_task` returns, an instance of the environment's class of parameters. Any environment will
    do that has `reset(key, params)`, `action_space(params)` and one of these methods: `step_env(key, state, action,
    params)`, as gymnax's own environments, or `step`, as gymnax's wrappers. `step` starts the next episode by itself.
    After it an episode therefore ends with the first observation of the next one.

    Numbers in an action are scaled from [-1, 1] to the bounds of the action space of `params`. Of the limit
    `max_steps_in_episode` only that of `params` is used, as the default of `horizon`. An episode that reaches it is
    truncated, and has not terminated.

    Args:
        env: the environment.
        params: parameters for what all tasks have in common: the actions and the limit.
        sample_task: function of a key that draws parameters.
        sample_test_task: the same for split `"test"`; `None` for `sample_task` with other keys.
        horizon: number of steps after which an episode is truncated; 0 for the limit in `params`.

    Raises:
        TypeError: if a function is none.
        ValueError: if actions are of another kind or have no bounds, or there is no limit.

    Example:
        >>> import gymnax  # doctest: +SKIP
        >>> pendulum, params = gymnax.make("Pendulum-v1")  # doctest: +SKIP
        >>> def sample_task(key):
        ...     return params.replace(m=jax.random.uniform(key, minval=0.5, maxval=1.5))
        >>> env = GymnaxEnv(pendulum, params, sample_task)  # doctest: +SKIP
        >>> env.horizon, env.action_size, env.sample_tasks(jax.random.key(0), 8).m.shape  # doctest: +SKIP
        (200, 1, (8,))

    References:
        Lange, *gymnax: A JAX-based Reinforcement Learning Environment Library*, 2022,
        https://github.com/RobertTLange/gymnax
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        space = self._space
        if self.discrete:
            return
        if getattr(space, "shape", None) is None or not hasattr(space, "low"):
            raise ValueError(f"env must have actions that are integers or numbers with bounds, got {space}")
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise ValueError(f"env must have bounds of its actions, got {space}")

    @property
    def _space(self) -> Any:
        return self.env.action_space(self.params)

    @property
    def limit(self) -> int:
        """Number of steps of an episode according to the parameters."""
        if not hasattr(self.params, _LIMIT):
            raise ValueError(f"horizon must be given, because params has no {_LIMIT}")
        return int(getattr(self.params, _LIMIT))

    @property
    def action_size(self) -> int:
        """Numbers in an action, each in [-1, 1], or the number of discrete actions."""
        return int(self._space.n) if self.discrete else math.prod(self._space.shape)

    @property
    def discrete(self) -> bool:
        """Flag of discrete actions."""
        return hasattr(self._space, "n")

    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, PyTree]:
        """Starts an episode."""
        key, reset_key = jax.random.split(key)
        obs, state = self.env.reset(reset_key, self._without_limit(task))
        return (key, state), obs

    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Takes one step."""
        key, state = pipeline_state
        key, step_key = jax.random.split(key)
        # A wrapper hands out the `step_env` of what it wraps, so only that of the class itself counts.
        step = self.env.step_env if hasattr(type(self.env), "step_env") else self.env.step
        # Since gymnax 1.0, `step` also tells whether the episode was truncated, before the infos.
        obs, state, reward, terminated, *_ = step(step_key, state, self._scaled(action), self._without_limit(task))
        return Outcome((key, state), obs, jnp.asarray(reward, float).reshape(()), jnp.asarray(terminated).reshape(()))

    def _scaled(self, action: jax.Array) -> jax.Array:
        if self.discrete:
            return action
        low, high = (jnp.asarray(bound) for bound in (self._space.low, self._space.high))
        return low + (high - low) * (jnp.clip(action, -1, 1).reshape(self._space.shape) + 1) / 2

    def _without_limit(self, task: PyTree) -> PyTree:
        """Returns the task with a limit that is not reached, because truncation would look like termination."""
        return task.replace(**{_LIMIT: self.horizon + 1}) if hasattr(task, _LIMIT) else task
