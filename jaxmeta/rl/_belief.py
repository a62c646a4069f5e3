"""Networks of VariBAD: a memory that infers a belief about the task, a policy that reads it, and decoders."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_integer, check_integers, check_positive
from jaxmeta._types import PyTree
from jaxmeta.rl._distributions import DiagonalGaussian, Distribution, distribution_of
from jaxmeta.rl._memory import GRU, check_memory

_ACTING = ("actor", "critic", "log_std")


class BeliefPolicy(nn.Module):
    """Policy that knows a trial through a belief about its task, with a critic and with decoders of the task.

    A memory reads the trial and gives a Gaussian belief over a latent after each observation. The actor and the critic
    read the environment's observation and the belief, its means and the logarithms of its variances, and no derivative
    of theirs reaches the memory. Decoders predict each step of a trial from a latent, the observation, the action and
    the next observation (transitions without the latter).

    Parameters are `{"memory": ..., "mean": ..., "log_spread": ..., "actor": ..., "critic": ..., "reward": ...}`, with
    `"log_std"` and `"transition"` where there are some, all made by `init`.

    Attributes:
        action_size: number of values in an action, or number of discrete actions.
        discrete: whether actions are integers.
        memory: the memory, see `RecurrentPolicy`; `rl.GRU(64)` by default.
        latent_size: number of values in a latent.
        sizes: width of each hidden layer of the actor and the critic.
        decoder_sizes: width of each hidden layer of the decoders.
        decode_transitions: whether to predict next observations too, for tasks that differ in their dynamics.
        init_std: initial standard deviation of actions that are not discrete.

    Raises:
        TypeError: if `memory` is no memory.
        ValueError: if a size is less than 1 or `init_std` is not positive.

    Example:
        >>> from jaxmeta import rl
        >>> policy = rl.BeliefPolicy(action_size=5, discrete=True, latent_size=3)
        >>> obs, memory = jnp.zeros((2, 9)), policy.empty_memory(2)
        >>> params = jax.jit(policy.init)(jax.random.key(0), obs, memory)
        >>> actions, memory = policy.apply(params, obs, memory)
        >>> actions.logits.shape, policy.apply(params, obs[None], method="infer").mean.shape
        ((2, 5), (1, 2, 3))

    References:
        Zintgraf, Shiarlis, Igl, Schulze, Gal, Hofmann & Whiteson, *VariBAD: A Very Good Method for Bayes-Adaptive Deep
        RL via Meta-Learning*, ICLR 2020, https://arxiv.org/abs/1910.08348
    """

    action_size: int
    discrete: bool
    memory: Any = dataclasses.field(default_factory=lambda: GRU(64))
    latent_size: int = 5
    sizes: Sequence[int] = (32, 32)
    decoder_sizes: Sequence[int] = (64, 32)
    decode_transitions: bool = False
    init_std: float = 1.0

    def __post_init__(self) -> None:
        check_integer(action_size=self.action_size, latent_size=self.latent_size)
        check_integers(sizes=self.sizes)
        check_integers(decoder_sizes=self.decoder_sizes)
        check_positive(init_std=self.init_std)
        check_memory(self.memory)
        super().__post_init__()

    def setup(self) -> None:
        """Builds the networks."""
        self.mean = nn.Dense(self.latent_size)
        self.log_spread = nn.Dense(self.latent_size)
        self.actor = _Head(self.sizes, self.action_size, 0.01)
        self.critic = _Head(self.sizes, 1, 1.0)
        self.reward = _Decoder(self.decoder_sizes)
        self.transition = _Decoder(self.decoder_sizes) if self.decode_transitions else None
        start = nn.initializers.constant(jnp.log(self.init_std))
        self.log_std = None if self.discrete else self.param("log_std", start, (self.action_size,))

    def empty_memory(self, *batch: int) -> PyTree:
        """Returns the memory before the first observation, leading axes `[*batch]`."""
        return self.memory.empty(*batch)

    def __call__(self, obs: jax.Array, memory: PyTree) -> tuple[Distribution, PyTree]:
        """Returns the distributions of actions and the next memory.

        Args:
            obs: observations of a trial, `[*batch, observation_size]`.
            memory: memory before them, leading axes `[*batch]`.
        """
        return self.with_value(obs, memory)[:2]

    def with_value(self, obs: jax.Array, memory: PyTree) -> tuple[Distribution, PyTree, jax.Array]:
        """Returns the distributions of actions, the next memory and the critic's values `[*batch]`.

        Args:
            obs: observations of a trial, `[*batch, observation_size]`.
            memory: memory before them, leading axes `[*batch]`.
        """
        memory, features = self.memory(memory, obs)
        belief = self._belief(features)
        dist, value = self.act(obs, belief)
        if self.is_initializing():
            self.decode(belief.mean, obs, dist.mode(), self._of_env(obs))
        return dist, memory, value

    def unroll(self, obs: jax.Array) -> tuple[Distribution, jax.Array]:
        """Returns the distributions of actions and the critic's values `[T, *batch]` for whole trials.

        Args:
            obs: observations of `T` steps from an empty memory on, `[T, *batch, observation_size]`.
        """
        return self.act(obs, self.infer(obs))

    def infer(self, obs: jax.Array) -> DiagonalGaussian:
        """Returns the belief after each observation of whole trials, `[T, *batch, latent_size]`.

        Args:
            obs: observations of `T` steps from an empty memory on, `[T, *batch, observation_size]`.
        """
        return self._belief(self.memory.unroll(obs))

    def act(self, obs: jax.Array, belief: DiagonalGaussian) -> tuple[Distribution, jax.Array]:
        """Returns the distributions of actions and the critic's values, whose derivatives leave the belief alone.

        Args:
            obs: observations of a trial, `[..., observation_size]`.
            belief: beliefs, `[..., latent_size]`.
        """
        x = jax.lax.stop_gradient(jnp.concatenate([self._of_env(obs), belief.mean, 2 * belief.log_std], axis=-1))
        return distribution_of(self.actor(x), self.log_std), self.critic(x)[..., 0]

    def decode(
        self, latent: jax.Array, obs: jax.Array, action: jax.Array, next_obs: jax.Array
    ) -> tuple[jax.Array, jax.Array | None]:
        """Returns the rewards and next observations that a latent predicts for steps in its task.

        Args:
            latent: latents, `[..., latent_size]`.
            obs: observations of a trial before the steps, `[T, ..., observation_size]`.
            action: actions, `[T, ..., action_size]` or integers `[T, ...]`.
            next_obs: the environment's observations after the steps, `[T, ..., n]`.

        Returns:
            Rewards `[T, ...]`, and next observations `[T, ..., n]` or `None` without `decode_transitions`.
        """
        taken = jax.nn.one_hot(action, self.action_size) if self.discrete else action
        before = jnp.concatenate([self._of_env(obs), taken], axis=-1)
        reward = self.reward(latent, jnp.concatenate([before, next_obs], axis=-1), 1)[..., 0]
        if self.transition is None:
            return reward, None
        return reward, self.transition(latent, before, next_obs.shape[-1])

    def _belief(self, features: jax.Array) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean(features), self.log_spread(features))

    def _of_env(self, obs: jax.Array) -> jax.Array:
        """Returns the environment's part of an observation of a trial, in which the action and two numbers follow."""
        return obs[..., : -self.action_size - 2]


class _Head(nn.Module):
    """Perceptron whose last layer starts small, so that a policy starts near actions of 0, or all equally probable."""

    sizes: Sequence[int]
    out: int
    scale: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `[..., out]` for `x: [..., n]`."""
        for size in self.sizes:
            x = nn.tanh(nn.Dense(size)(x))
        return nn.Dense(self.out, kernel_init=nn.initializers.orthogonal(self.scale))(x)


class _Decoder(nn.Module):
    """Perceptron of a latent and a step, whose first layer multiplies a step only once for all latents."""

    sizes: Sequence[int]

    @nn.compact
    def __call__(self, latent: jax.Array, step: jax.Array, out: int) -> jax.Array:
        """Returns `[T, ..., out]` for `latent: [..., n]` and `step: [T, ..., m]`."""
        first, *others = *self.sizes, out
        x = nn.Dense(first)(step)
        x = x + jnp.broadcast_to(nn.Dense(first, use_bias=False)(latent), x.shape)
        for size in others:
            x = nn.Dense(size)(nn.relu(x))
        return x


def split(params: PyTree) -> tuple[PyTree, PyTree]:
    """Divides the parameters of a `BeliefPolicy` into those that act, and those that infer and decode the belief."""
    parts = params["params"]
    acting = {name: part for name, part in parts.items() if name in _ACTING}
    return acting, {name: part for name, part in parts.items() if name not in _ACTING}


def join(acting: PyTree, inferring: PyTree) -> PyTree:
    """Puts what `split` divided together."""
    return {"params": {**acting, **inferring}}
