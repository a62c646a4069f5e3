"""Policies in Flax, from an observation to a distribution of actions."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_integer, check_integers, check_positive
from jaxmeta._types import MetaParams, PyTree
from jaxmeta._variables import Static, is_variable
from jaxmeta.models import MLP
from jaxmeta.rl._distributions import Categorical, DiagonalGaussian


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
        encoder: module that maps observations to vectors, such as `rl.ObservationEncoder(env.observation_size)`; `None`
            for observations that are vectors.
        context_size: number of context parameters, inputs beside every observation, which start at 0. Inner steps on
            them alone are CAVIA: `optax.partition` picks `params["params"]["context"]`.

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
    encoder: nn.Module | None = None
    context_size: int = 0

    def __post_init__(self) -> None:
        check_integer(action_size=self.action_size)
        check_integer(least=0, context_size=self.context_size)
        check_integers(sizes=self.sizes)
        check_positive(init_std=self.init_std, min_std=self.min_std)
        super().__post_init__()

    @nn.compact
    def __call__(self, obs: PyTree) -> DiagonalGaussian:
        """Returns the distributions of actions for `obs: [..., observation_size]`."""
        x = _inputs(self, obs)
        mean = MLP(self.sizes, self.action_size, self.activation, name="mean")(x)
        start = nn.initializers.constant(_log(self.init_std))
        log_std = self.param("log_std", start, (self.action_size,), mean.dtype)
        log_std = jnp.maximum(log_std, _log(self.min_std))
        return DiagonalGaussian(mean, jnp.broadcast_to(log_std, mean.shape))


def policy_params(params: PyTree, learned: PyTree = ()) -> MetaParams:
    """Returns the meta-parameters of a policy.

    Raises:
        ValueError: if the parameters hold what would only be carried, such as running statistics, or what is no array,
            such as the activation function of an equinox module. A policy returns a distribution and no new state, so
            that nothing could update it.
    """
    meta = MetaParams.of(params)
    if meta.state != ():
        paths = jax.tree.leaves_with_path(meta.state, is_leaf=lambda x: is_variable(x) or isinstance(x, Static))
        names = ", ".join(jax.tree_util.keystr(path) for path, _ in paths)
        if any(isinstance(leaf, Static) for _, leaf in paths):
            raise ValueError(
                f"params of a policy must be real numbers that are trained, got also {names}: give the arrays of "
                "params, rest = equinox.partition(module, equinox.is_inexact_array), and a policy that calls "
                "equinox.combine(params, rest)"
            )
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
        encoder: module that maps observations to vectors, such as `rl.ObservationEncoder(env.observation_size)`; `None`
            for observations that are vectors.
        context_size: number of context parameters, inputs beside every observation, which start at 0. Inner steps on
            them alone are CAVIA: `optax.partition` picks `params["params"]["context"]`.

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
    encoder: nn.Module | None = None
    context_size: int = 0

    def __post_init__(self) -> None:
        check_integer(action_size=self.action_size)
        check_integer(least=0, context_size=self.context_size)
        check_integers(sizes=self.sizes)
        super().__post_init__()

    @nn.compact
    def __call__(self, obs: PyTree) -> Categorical:
        """Returns the distributions of actions for `obs: [..., observation_size]`."""
        x = _inputs(self, obs)
        return Categorical(MLP(self.sizes, self.action_size, self.activation, name="logits")(x))


def _inputs(policy: Any, obs: PyTree) -> jax.Array:
    """Returns the inputs of a policy's network, `[..., n]`: encoded observations, and the context if there is one."""
    x = obs if policy.encoder is None else policy.encoder(obs)
    if not policy.context_size:
        return x
    context = policy.param("context", nn.initializers.zeros, (policy.context_size,), x.dtype)
    return jnp.concatenate([x, jnp.broadcast_to(context, (*x.shape[:-1], policy.context_size))], axis=-1)
