"""A value network as the baseline of a policy gradient."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxmeta._checks import check_integer, check_integers, check_transformation
from jaxmeta._learned import update_with
from jaxmeta._types import PyTree
from jaxmeta.display import short_repr
from jaxmeta.models import MLP
from jaxmeta.rl._moments import Moments, add_moments, empty_moments


class ValueState(NamedTuple):
    """State of a `ValueNetwork`."""

    params: PyTree
    """The network's parameters."""
    opt_state: optax.OptState
    """State of its optimizer."""
    returns: Moments
    """Running statistics of the returns, to which the network's outputs are relative."""

    __repr__ = short_repr


@dataclass(frozen=True)
class ValueNetwork:
    """Value network: a baseline for all tasks, which is trained on the returns of every iteration.

    The network reads the observation and the time within the episode, `t / T`. Its outputs are relative to the running
    mean and deviation of the returns, so that their scale does not matter. It is not adapted to tasks. Use it where the
    linear baseline cannot follow, as with images.

    Attributes:
        sizes: width of each hidden layer.
        encoder: module that maps observations to vectors, such as `rl.ObservationEncoder(env.observation_size)`; `None`
            for observations that are vectors.
        optimizer: optimizer of the network; `optax.adam(1e-3)` if `None`.
        updates: number of updates per iteration, which divide the steps of all episodes among themselves.

    Raises:
        TypeError: if `optimizer` is not an optax transformation.
        ValueError: if a number is less than 1.

    Example:
        >>> from jaxmeta import envs, rl
        >>> env, policy = envs.make("particles2d"), rl.GaussianPolicy(action_size=2)
        >>> collect = rl.Collector(env=env, policy=policy.apply, baseline=rl.ValueNetwork((32, 32)))
        >>> training = rl.promp(collect, optax.sgd(0.1))
    """

    sizes: Sequence[int] = (64, 64)
    encoder: nn.Module | None = None
    optimizer: optax.GradientTransformation = field(default_factory=lambda: optax.adam(1e-3))
    updates: int = 20

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_integers(sizes=self.sizes)
        check_integer(updates=self.updates)
        check_transformation(optimizer=self.optimizer)

    def init(self, key: jax.Array, obs: PyTree) -> ValueState:
        """Returns the initial state, for observations like `obs: [n, observation_size]`."""
        params = self._network.init(key, obs, jnp.zeros(len(jax.tree.leaves(obs)[0])))
        return ValueState(params, self.optimizer.init(params), empty_moments(jnp.zeros(())))

    def values(self, state: ValueState, obs: PyTree) -> jax.Array:
        """Returns the values `[T, E]` of the observations of episodes, `[T, E, observation_size]`."""
        time = _time(jax.tree.leaves(obs)[0].shape[:2])
        return state.returns.mean + jnp.sqrt(state.returns.variance) * self._network.apply(state.params, obs, time)

    def fit(self, state: ValueState, obs: PyTree, returns: jax.Array, valid: jax.Array, key: jax.Array) -> ValueState:
        """Trains the network on the returns of episodes.

        Args:
            state: state before.
            obs: observations, `[..., T, E, observation_size]`.
            returns: returns, `[..., T, E]`.
            valid: which steps count, bool `[..., T, E]`.
            key: a random key for the order of the steps.
        """
        moments = add_moments(state.returns, returns, valid)
        target = (returns - moments.mean) / jnp.sqrt(jnp.maximum(moments.variance, 1e-8))
        time = jnp.broadcast_to(_time(returns.shape[-2:]), returns.shape)
        data = jax.tree.map(
            lambda x: x.reshape(-1, *x.shape[returns.ndim :]), jax.lax.stop_gradient((obs, time, target, valid))
        )
        updates = min(self.updates, returns.size)
        size = returns.size // updates
        order = jax.random.permutation(key, returns.size)[: updates * size].reshape(updates, size)
        (params, opt_state), _ = jax.lax.scan(partial(self._update, data), (state.params, state.opt_state), order)
        return ValueState(params, opt_state, moments)

    def _update(self, data: Any, carry: tuple[PyTree, optax.OptState], chosen: jax.Array) -> tuple[Any, None]:
        """Takes a step on the squared error of some steps of episodes."""
        params, opt_state = carry
        obs, time, target, valid = jax.tree.map(lambda x: x[chosen], data)

        def error(params: PyTree) -> jax.Array:
            squared = (self._network.apply(params, obs, time) - target) ** 2
            return jnp.sum(jnp.where(valid, squared, 0)) / jnp.maximum(jnp.sum(valid), 1)

        value, grads = jax.value_and_grad(error)(params)
        return update_with(self.optimizer, grads, opt_state, params, value=value, value_fn=error), None

    @property
    def _network(self) -> Any:
        return _Network(tuple(self.sizes), self.encoder)


class _Network(nn.Module):
    """Network of values, before their scale."""

    sizes: Sequence[int]
    encoder: nn.Module | None

    @nn.compact
    def __call__(self, obs: PyTree, time: jax.Array) -> jax.Array:
        x = obs if self.encoder is None else self.encoder(obs)
        x = jnp.concatenate([x, time[..., None].astype(x.dtype)], axis=-1)
        return MLP(self.sizes, activation=nn.tanh)(x)[..., 0]


def _time(shape: tuple[int, ...]) -> jax.Array:
    """Returns `t / T` for each step `[T, E]`."""
    return jnp.broadcast_to((jnp.arange(1, shape[0] + 1) / shape[0])[:, None], shape)
