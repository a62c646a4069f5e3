"""Environments whose actions are scaled before they are clipped."""

import dataclasses
from typing import Any

import jax

from jaxmeta._checks import check_positive
from jaxmeta._types import PyTree
from jaxmeta.display import brief
from jaxmeta.envs._meta_env import MetaEnv, ObservationSize, State


@dataclasses.dataclass(frozen=True)
class ScaledActions:
    """Environment whose actions are multiplied by a number before they reach another one, which clips them.

    A policy starts with actions of standard deviation 1, most of which a body's limits of 1 cut off. ProMP's paper
    divides the actions of bodies by ten.

    Attributes:
        env: an environment with continuous actions. What it offers beyond `MetaEnv`, such as `render`, is offered here.
        scale: the factor.

    Raises:
        ValueError: if `env` has discrete actions, or `scale` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxmeta import envs
        >>> env = ScaledActions(envs.make("particles2d"), 0.1)
        >>> state = env.step(env.reset(jax.random.key(0)), jnp.array([1.0, -20.0]))
        >>> print(state.obs)
        [ 0.01 -0.1 ]

    References:
        Rothfuss, Lee, Clavera, Asfour & Abbeel, *ProMP: Proximal Meta-Policy Search*, ICLR 2019,
        https://arxiv.org/abs/1810.06784
    """

    env: MetaEnv
    scale: float

    def __post_init__(self) -> None:
        check_positive(scale=self.scale)
        if self.env.discrete:
            raise ValueError(f"env must have continuous actions, got {brief(self.env)}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)

    @property
    def observation_size(self) -> ObservationSize:
        """Length of an observation, or its shape."""
        return self.env.observation_size

    @property
    def action_size(self) -> int:
        """Numbers in an action."""
        return self.env.action_size

    @property
    def discrete(self) -> bool:
        """Flag of discrete actions."""
        return False

    @property
    def horizon(self) -> int:
        """Number of steps after which an episode is truncated."""
        return self.env.horizon

    def sample_tasks(self, key: jax.Array, n: int, *, split: str = "train") -> PyTree:
        """Draws `n` tasks, stacked on the first axis."""
        return self.env.sample_tasks(key, n, split=split)

    def reset(self, key: jax.Array, task: PyTree | None = None) -> State:
        """Starts an episode."""
        return self.env.reset(key, task)

    def step(self, state: State, action: jax.Array) -> State:
        """Takes one step with the scaled action."""
        return self.env.step(state, self.scale * action)

    @property
    def oracle_action(self) -> Any:
        """Function that returns the best action, before it is scaled, of a policy that knows the task."""
        known = self.env.oracle_action  # pyright: ignore[reportAttributeAccessIssue]
        return lambda state: known(state) / self.scale
