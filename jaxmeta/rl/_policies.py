"""Policies in Flax, from an observation to a distribution of actions."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_integer, check_integers, check_positive
from jaxmeta._types import MetaParams, PyTree
from jaxmeta._variables import is_variable
from jaxmeta.models import MLP
from jaxmeta.rl._distributions import Categorical, DiagonalGaussian, Distribution


class GaussianPolicy(nn.Module):
    """Gaussian policy: a network for the mean, and standard deviations that do not depend on the observation.

    Parameters are `{"mean": {"body": ..., "head": ...}, "log_std": [action_size]}`. The mean is not squashed, because
    the environment clips actions.

    Attributes:
        action_size: number of values in an action.
        sizes: width of each hidden layer.
        activation: activation after each hidden layer.
        init_std: initial standard deviation, a number or `[action_size]`.
        min_std: smallest standard deviation, a number or `[action_size]`.

    Raises:
        ValueError: if a size is less than 1 or a standard deviation is not positive.

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
    init_std: float | jax.Array = 1.0
    min_std: float | jax.Array = 1e-6

    def __post_init__(self) -> None:
        check_integer(action_size=self.action_size)
        check_integers(sizes=self.sizes)
        check_positive(init_std=self.init_std, min_std=self.min_std)
        super().__post_init__()

    @nn.compact
    def __call__(self, obs: jax.Array) -> DiagonalGaussian:
        """Returns the distributions of actions for `obs: [..., observation_size]`."""
        mean = MLP(self.sizes, self.action_size, self.activation, name="mean")(obs)
        start = nn.initializers.constant(_log(self.init_std))
        log_std = self.param("log_std", start, (self.action_size,), mean.dtype)
        log_std = jnp.maximum(log_std, _log(self.min_std))
        return DiagonalGaussian(mean, jnp.broadcast_to(log_std, mean.shape))


def policy_params(params: PyTree, learned: PyTree = ()) -> MetaParams:
    """Returns the meta-parameters of a policy.

    Raises:
        ValueError: if the parameters hold what would only be carried, such as running statistics. A policy returns a
            distribution and no new state, so that nothing could update it.
    """
    meta = MetaParams.of(params)
    if meta.state != ():
        paths = jax.tree.leaves_with_path(meta.state, is_leaf=is_variable)
        names = ", ".join(jax.tree_util.keystr(path) for path, _ in paths)
        raise ValueError(
            f"params of a policy must be real numbers that are trained, got also {names}: a policy has no running "
            "statistics, counters or random keys. Layer norm has none"
        )
    return meta._replace(learned=learned)


def _log(value: float | jax.Array) -> float | jax.Array:
    """Returns the logarithm, as a Python number for a Python number."""
    return math.log(value) if isinstance(value, int | float) else jnp.log(value)


class CategoricalPolicy(nn.Module):
    """Categorical policy: a network for the logits of discrete actions.

    Parameters are `{"logits": {"body": ..., "head": ...}}`.

    Attributes:
        action_size: number of actions.
        sizes: width of each hidden layer.
        activation: activation after each hidden layer.

    Raises:
        ValueError: if a size is less than 1.

    Example:
        >>> policy = CategoricalPolicy(action_size=4)
        >>> params = jax.jit(policy.init)(jax.random.key(0), jnp.zeros((1, 3)))
        >>> policy.apply(params, jnp.zeros((5, 3))).sample(jax.random.key(1)).shape
        (5,)
    """

    action_size: int
    sizes: Sequence[int] = (64, 64)
    activation: Callable[[jax.Array], jax.Array] = nn.tanh

    def __post_init__(self) -> None:
        check_integer(action_size=self.action_size)
        check_integers(sizes=self.sizes)
        super().__post_init__()

    @nn.compact
    def __call__(self, obs: jax.Array) -> Categorical:
        """Returns the distributions of actions for `obs: [..., observation_size]`."""
        return Categorical(MLP(self.sizes, self.action_size, self.activation, name="logits")(obs))


class RecurrentPolicy(nn.Module):
    """Recurrent policy with a critic: a gated recurrent unit (GRU) with a linear head for each.

    Attributes:
        action_size: number of values in an action, or number of discrete actions.
        discrete: whether actions are integers.
        hidden: number of values in the memory.

    Raises:
        ValueError: if a size is less than 1.

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
        check_integer(action_size=self.action_size, hidden=self.hidden)
        super().__post_init__()

    def empty_memory(self, *batch: int) -> jax.Array:
        """Returns the memory before the first observation, `[*batch, hidden]`."""
        return jnp.zeros((*batch, self.hidden))

    def __call__(self, obs: jax.Array, memory: jax.Array) -> tuple[Distribution, jax.Array]:
        """Returns the distributions of actions and the next memory.

        Args:
            obs: observations, `[..., observation_size]`.
            memory: memory before them, `[..., hidden]`.
        """
        return self.with_value(obs, memory)[:2]

    @nn.compact
    def with_value(self, obs: jax.Array, memory: jax.Array) -> tuple[Distribution, jax.Array, jax.Array]:
        """Returns the distributions of actions, the next memory and the critic's values `[...]`.

        Args:
            obs: observations, `[..., observation_size]`.
            memory: memory before them, `[..., hidden]`.
        """
        memory, features = nn.GRUCell(self.hidden)(memory, obs)
        head = nn.Dense(self.action_size, kernel_init=nn.initializers.orthogonal(0.01), name="action")(features)
        value = nn.Dense(1, kernel_init=nn.initializers.orthogonal(1.0), name="value")(features)[..., 0]
        if self.discrete:
            return Categorical(head), memory, value
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_size,), head.dtype)
        return DiagonalGaussian(head, jnp.broadcast_to(log_std, head.shape)), memory, value
