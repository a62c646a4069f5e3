"""Policies in Flax: from an observation to a distribution of actions."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.models import MLP
from jaxmeta.rl._distributions import Categorical, DiagonalGaussian, Distribution


class GaussianPolicy(nn.Module):
    """A network for the mean of each number in an action, and standard deviations that no observation changes.

    Parameters are `{"mean": {"body": ..., "head": ...}, "log_std": [action_size]}`. The mean is not squashed: the
    environment clips actions.

    Attributes:
        action_size: Numbers in an action.
        sizes: Width of each hidden layer.
        activation: Applied after each hidden layer.
        init_std: Standard deviation at the start.
        min_std: The smallest one.

    Raises:
        ValueError: If a size is below 1 or a standard deviation is not positive.

    Example:
        >>> policy = GaussianPolicy(action_size=2)
        >>> params = jax.jit(policy.init)(jax.random.key(0), jnp.zeros((1, 3)))
        >>> policy.apply(params, jnp.zeros((5, 3))).sample(jax.random.key(1)).shape
        (5, 2)

    References:
        Finn, Abbeel & Levine, *Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks*, ICML 2017,
        https://arxiv.org/abs/1703.03400
    """

    action_size: int
    sizes: Sequence[int] = (64, 64)
    activation: Callable[[jax.Array], jax.Array] = nn.tanh
    init_std: float = 1.0
    min_std: float = 1e-6

    def __post_init__(self) -> None:
        for name, value in (("init_std", self.init_std), ("min_std", self.min_std)):
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be a positive number, got {value}")
        super().__post_init__()

    @nn.compact
    def __call__(self, obs: jax.Array) -> DiagonalGaussian:
        """Distributions of actions for observations `obs: [..., observation_size]`."""
        mean = MLP(self.sizes, self.action_size, self.activation, name="mean")(obs)
        start = nn.initializers.constant(math.log(self.init_std))
        log_std = self.param("log_std", start, (self.action_size,), mean.dtype)
        log_std = jnp.maximum(log_std, math.log(self.min_std))
        return DiagonalGaussian(mean, jnp.broadcast_to(log_std, mean.shape))


class CategoricalPolicy(nn.Module):
    """A network for the logits of discrete actions.

    Parameters are `{"logits": {"body": ..., "head": ...}}`.

    Attributes:
        action_size: How many actions there are.
        sizes: Width of each hidden layer.
        activation: Applied after each hidden layer.

    Raises:
        ValueError: If a size is below 1.

    Example:
        >>> policy = CategoricalPolicy(action_size=4)
        >>> params = jax.jit(policy.init)(jax.random.key(0), jnp.zeros((1, 3)))
        >>> policy.apply(params, jnp.zeros((5, 3))).sample(jax.random.key(1)).shape
        (5,)
    """

    action_size: int
    sizes: Sequence[int] = (64, 64)
    activation: Callable[[jax.Array], jax.Array] = nn.tanh

    @nn.compact
    def __call__(self, obs: jax.Array) -> Categorical:
        """Distributions of actions for observations `obs: [..., observation_size]`."""
        return Categorical(MLP(self.sizes, self.action_size, self.activation, name="logits")(obs))


class RecurrentPolicy(nn.Module):
    """A policy with a memory, and a critic that shares it: a gated recurrent unit (GRU) with two linear heads.

    Attributes:
        action_size: Numbers in an action, or how many discrete actions there are.
        discrete: Whether actions are integers.
        hidden: Numbers in the memory.

    Raises:
        ValueError: If a size is below 1.

    Example:
        >>> policy = RecurrentPolicy(action_size=5, discrete=True)
        >>> obs, memory = jnp.zeros((3, 7)), policy.empty_memory(3)
        >>> params = jax.jit(policy.init)(jax.random.key(0), obs, memory)
        >>> actions, memory = policy.apply(params, obs, memory)
        >>> actions.logits.shape, memory.shape
        ((3, 5), (3, 64))

    References:
        Cho et al., *Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation*,
        EMNLP 2014, https://arxiv.org/abs/1406.1078
    """

    action_size: int
    discrete: bool
    hidden: int = 64

    def __post_init__(self) -> None:
        for name, value in (("action_size", self.action_size), ("hidden", self.hidden)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        super().__post_init__()

    def empty_memory(self, *batch: int) -> jax.Array:
        """The memory before the first observation, `[*batch, hidden]`."""
        return jnp.zeros((*batch, self.hidden))

    def __call__(self, obs: jax.Array, memory: jax.Array) -> tuple[Distribution, jax.Array]:
        """`(distribution, memory)` for `obs: [..., observation_size]` and `memory: [..., hidden]`."""
        return self.with_value(obs, memory)[:2]

    @nn.compact
    def with_value(self, obs: jax.Array, memory: jax.Array) -> tuple[Distribution, jax.Array, jax.Array]:
        """`(distribution, memory, value)` for the same arguments, `value: [...]`."""
        memory, features = nn.GRUCell(self.hidden)(memory, obs)
        head = nn.Dense(self.action_size, kernel_init=nn.initializers.orthogonal(0.01), name="action")(features)
        value = nn.Dense(1, kernel_init=nn.initializers.orthogonal(1.0), name="value")(features)[..., 0]
        if self.discrete:
            return Categorical(head), memory, value
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_size,), head.dtype)
        return DiagonalGaussian(head, jnp.broadcast_to(log_std, head.shape)), memory, value
