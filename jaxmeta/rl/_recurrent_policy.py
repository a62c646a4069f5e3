"""A recurrent policy with a critic, for any memory."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_integer, check_positive
from jaxmeta._types import PyTree
from jaxmeta.rl._distributions import Distribution, distribution_of
from jaxmeta.rl._memory import check_memory


class RecurrentPolicy(nn.Module):
    """Recurrent policy with a critic: a memory with a linear head for each.

    Attributes:
        action_size: number of values in an action, or number of discrete actions.
        discrete: whether actions are integers.
        memory: the memory: `rl.GRU(64)`, `rl.LSTM(64)`, `rl.LinearRecurrent(64)`, `rl.CausalTransformer(64)`, or a
            module of your own, see `rl.Memory`.
        encoder: module that maps observations to vectors, such as `rl.ObservationEncoder(trial.observation_size)`;
            `None` for observations that are vectors.
        init_std: initial standard deviation of actions that are not discrete.

    Raises:
        TypeError: if `memory` is no memory.
        ValueError: if `action_size` is less than 1 or `init_std` is not positive.

    Example:
        >>> from jaxmeta import rl
        >>> policy = rl.RecurrentPolicy(action_size=5, discrete=True, memory=rl.GRU(64))
        >>> obs, memory = jnp.zeros((3, 7)), policy.empty_memory(3)
        >>> params = jax.jit(policy.init)(jax.random.key(0), obs, memory)
        >>> actions, memory = policy.apply(params, obs, memory)
        >>> actions.logits.shape, memory.shape
        ((3, 5), (3, 64))
    """

    action_size: int
    discrete: bool
    memory: Any
    encoder: nn.Module | None = None
    init_std: float = 1.0

    def __post_init__(self) -> None:
        check_integer(action_size=self.action_size)
        check_positive(init_std=self.init_std)
        check_memory(self.memory)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the heads."""
        self.action = nn.Dense(self.action_size, kernel_init=nn.initializers.orthogonal(0.01))
        self.value = nn.Dense(1, kernel_init=nn.initializers.orthogonal(1.0))
        start = nn.initializers.constant(jnp.log(self.init_std))
        self.log_std = None if self.discrete else self.param("log_std", start, (self.action_size,))

    def empty_memory(self, *batch: int) -> PyTree:
        """Returns the memory before the first observation, leading axes `[*batch]`."""
        return self.memory.empty(*batch)

    def __call__(self, obs: PyTree, memory: PyTree) -> tuple[Distribution, PyTree]:
        """Returns the distributions of actions and the next memory.

        Args:
            obs: observations, `[*batch, observation_size]`.
            memory: memory before them, leading axes `[*batch]`.
        """
        return self.with_value(obs, memory)[:2]

    def with_value(self, obs: PyTree, memory: PyTree) -> tuple[Distribution, PyTree, jax.Array]:
        """Returns the distributions of actions, the next memory and the critic's values `[*batch]`.

        Args:
            obs: observations, `[*batch, observation_size]`.
            memory: memory before them, leading axes `[*batch]`.
        """
        memory, features = self.memory(memory, self._encode(obs))
        return distribution_of(self.action(features), self.log_std), memory, self.value(features)[..., 0]

    def unroll(self, obs: PyTree) -> tuple[Distribution, jax.Array]:
        """Returns the distributions of actions and the critic's values `[T, *batch]` for sequences of observations.

        Args:
            obs: observations of `T` steps from an empty memory on, `[T, *batch, observation_size]`.
        """
        features = self.memory.unroll(self._encode(obs))
        return distribution_of(self.action(features), self.log_std), self.value(features)[..., 0]

    def _encode(self, obs: PyTree) -> jax.Array:
        return obs if self.encoder is None else self.encoder(obs)
