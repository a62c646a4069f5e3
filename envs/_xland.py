"""Adapter to environments with the interface of XLand-MiniGrid."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxmeta._types import PyTree
from jaxmeta.envs._base import Outcome
from jaxmeta.envs._foreign import ForeignEnv


@dataclasses.dataclass(frozen=True, eq=False)
class XLandEnv(ForeignEnv):
    """Environment of XLand-MiniGrid as a family, whose tasks are rule sets.

    The task is what `sample_task` returns, a rule set. An episode is one attempt: it terminates when the goal is
    reached, and is truncated at the horizon. Use `jaxmeta.rl.Trial` for several attempts, and no wrapper that resets.
    The limit `max_steps` of `params`, which the rewards contain, is set to the horizon.

    An observation of XLand-MiniGrid is `[view, view, 2]`, with the numbers of a tile and a color. Here it is one-hot,
    `[view, view, 25]`. In a dictionary, which some wrappers return, this is done to the part `"img"`.

    Args:
        env: the environment, such as the first value of `xminigrid.make("XLand-MiniGrid-R1-9x9")`.
        params: its parameters, the second value.
        sample_task: function of a key that draws a rule set, such as `benchmark.sample_ruleset`.
        sample_test_task: the same for split `"test"`; `None` for `sample_task` with other keys, which can draw the same
            rule sets.
        layers: number of values in each layer of an image, by default the tiles and colors of XLand-MiniGrid; `()` to
            leave images as they are.
        horizon: number of steps after which an episode is truncated; 0 for `max_steps` of `params`.

    Raises:
        TypeError: if a function is none.
        ValueError: if images do not have these layers, or there is no limit.

    Example:
        >>> import xminigrid  # doctest: +SKIP
        >>> train, test = xminigrid.load_benchmark("trivial-21k").split(0.8)  # doctest: +SKIP
        >>> world = xminigrid.make("XLand-MiniGrid-R1-9x9")  # doctest: +SKIP
        >>> env = XLandEnv(*world, train.sample_ruleset, test.sample_ruleset)  # doctest: +SKIP
        >>> env.horizon, env.observation_size  # doctest: +SKIP
        (243, (5, 5, 25))

    References:
        Nikulin, Kurenkov, Zisman, Agarkov, Sinii & Kolesnikov, *XLand-MiniGrid: Scalable Meta-Reinforcement Learning
        Environments in JAX*, NeurIPS 2024, https://arxiv.org/abs/2312.12044
    """

    layers: tuple[int, ...] = dataclasses.field(default=(13, 12), kw_only=True)

    @property
    def limit(self) -> int:
        """Number of steps of an episode according to the parameters."""
        if self.params.max_steps is None:
            raise ValueError("horizon must be given, because max_steps of params is None")
        return self.params.max_steps

    @property
    def action_size(self) -> int:
        """Number of actions."""
        return self.env.num_actions(self.params)

    @property
    def discrete(self) -> bool:
        """Flag of discrete actions."""
        return True

    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, PyTree]:
        """Starts an episode."""
        timestep = self.env.reset(self._params_of(task), key)
        return timestep, self._encode(timestep.observation)

    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Takes one step."""
        timestep = self.env.step(self._params_of(task), pipeline_state, action)
        terminated = timestep.last() & (timestep.discount == 0)
        return Outcome(timestep, self._encode(timestep.observation), timestep.reward.astype(float), terminated)

    def _params_of(self, task: PyTree) -> PyTree:
        return self.params.replace(ruleset=task, max_steps=self.horizon)

    def _encode(self, obs: PyTree) -> PyTree:
        if not self.layers:
            return obs
        if isinstance(obs, Mapping):
            return {**obs, "img": self._encode(obs["img"])}
        if obs.shape[-1] != len(self.layers):
            raise ValueError(f"layers must have {obs.shape[-1]} numbers for images {obs.shape}, got {self.layers}")
        return jnp.concatenate([jax.nn.one_hot(obs[..., i], n) for i, n in enumerate(self.layers)], axis=-1)
