"""A learned objective of reinforcement learning (Oh et al. 2020, https://arxiv.org/abs/2007.08794).

A small network takes the place of the formula by which an agent learns from its episodes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_fraction, check_integer, check_not_negative
from jaxmeta._types import PyTree
from jaxmeta.rl._distributions import Distribution
from jaxmeta.rl._memory import LSTM, check_memory
from jaxmeta.rl._returns import gae, masked_mean, normalize
from jaxmeta.rl._rollout import Trajectory

_FEATURES = 14
_OUTPUTS = 5


class LearnedObjective(nn.Module):
    """Learned objective: the loss of an advantage actor-critic (A2C), corrected at every step by a network.

    With the policy `pi`, the critic `V`, the entropy `H`, generalized advantage estimates `A` and their normalized
    values `Z`, the loss of some episodes is::

        - mean((exp(o_1) * Z + o_2) * log pi(a))
        + value_weight * mean(exp(o_3) * (V - (V_old + A + o_4))^2)
        - entropy_weight * mean(exp(o_5) * H)

    The network gives the five numbers `o` of each step. It reads the episodes backwards with a memory, so that a step
    knows what came of it. Its inputs are the reward, `Z`, `A`, the error of the critic, the critic's values before and
    after the step, the probability of the action, the entropy, whether the episode ended, and how much of the agent's
    lifetime is over. None of them depends on the number of states or actions, so that one objective serves agents of
    any form in any environment. No derivative of the agent's parameters flows through them.

    The last layer starts at zero, so an untrained objective is A2C. Learned policy gradient (LPG), whose form this
    follows, starts from nothing, and its agents predict vectors. A known start learns within minutes. That the
    objective knows the lifetime is from Jackson et al. (2024).

    Attributes:
        memory: memory that reads the episodes, see `rl.Memory`.
        hidden: number of units between the memory and the outputs.
        discount: `gamma`, the discount per step.
        trace_decay: `lambda` of generalized advantage estimation.
        entropy_weight: weight of the entropy, at least 0.
        value_weight: weight of the critic's squared error, at least 0.

    Raises:
        TypeError: if `memory` is no memory.
        ValueError: if a number is out of range.

    Example:
        >>> from jaxmeta import rl
        >>> objective = rl.LearnedObjective(rl.LSTM(8), hidden=16)
        >>> theta = objective.initial(jax.random.key(0))
        >>> sum(x.size for x in jax.tree.leaves(theta))
        1189

    References:
        Oh, Hessel, Czarnecki, Xu, van Hasselt, Singh & Silver, *Discovering Reinforcement Learning Algorithms*, NeurIPS
        2020, https://arxiv.org/abs/2007.08794

        Jackson, Lu, Kirsch, Lange, Whiteson & Foerster, *Discovering Temporally-Aware Reinforcement Learning
        Algorithms*, ICLR 2024, https://arxiv.org/abs/2402.05828
    """

    memory: Any = LSTM(8)
    hidden: int = 16
    discount: float | jax.Array = 0.9
    trace_decay: float | jax.Array = 0.9
    entropy_weight: float | jax.Array = 0.01
    value_weight: float | jax.Array = 0.5

    def __post_init__(self) -> None:
        check_memory(self.memory)
        check_integer(hidden=self.hidden)
        check_fraction(discount=self.discount, trace_decay=self.trace_decay)
        check_not_negative(entropy_weight=self.entropy_weight, value_weight=self.value_weight)
        super().__post_init__()

    def initial(self, key: jax.Array) -> PyTree:
        """Returns weights with which the objective is A2C, the meta-parameters at the start.

        Args:
            key: a random key.
        """
        example = jnp.zeros((1, 1, _FEATURES)), jnp.ones((1, 1), bool)
        return self.init(key, *example, method="corrections")

    def __call__(
        self, data: Trajectory, dist: Distribution, value: jax.Array, next_value: jax.Array, progress: jax.Array
    ) -> jax.Array:
        """Returns the loss of an agent.

        Args:
            data: episodes of the agent, with rewards of about size 1.
            dist: the policy's distributions at the observations, leading axes `[T, E]`.
            value: the critic's values before each step, `[T, E]`.
            next_value: the critic's values after each step, `[T, E]`. They count at an episode's end if it was
                truncated.
            progress: how much of the agent's lifetime is over, from 0 to 1, `[]`.
        """
        valid = data.valid
        old, next_old = jax.lax.stop_gradient((value, next_value))
        ends = data.terminated, data.truncated
        numbers = {"discount": self.discount, "trace_decay": self.trace_decay}
        advantage = gae(data.reward, old, next_old, *ends, **numbers)
        error = gae(data.reward, old, next_old, *ends, **numbers | {"trace_decay": 0.0})
        normalized = normalize(advantage, valid)
        log_prob, entropy = dist.log_prob(data.action), dist.entropy()

        ended = (data.terminated | data.truncated).astype(old.dtype)
        own = [normalized, advantage, error, data.reward, old, next_old, log_prob, jnp.exp(log_prob), entropy, ended]
        shared = [masked_mean(old, valid), masked_mean(entropy, valid), 2 * progress - 1, jnp.exp(-10 * progress)]
        features = jnp.stack([*own, *(jnp.broadcast_to(x, old.shape).astype(old.dtype) for x in shared)], axis=-1)
        outputs = self.corrections(_squash(jax.lax.stop_gradient(features)), valid)
        gain, shift, certainty, aim, randomness = jnp.moveaxis(outputs, -1, 0)

        credit = jnp.exp(gain) * normalized + shift
        squared = (value - (old + advantage + aim)) ** 2
        losses = jnp.stack(
            [
                -log_prob * credit,
                self.value_weight * jnp.exp(certainty) * squared,
                -self.entropy_weight * jnp.exp(randomness) * entropy,
            ]
        )
        return masked_mean(jnp.sum(losses, axis=0), valid)

    @nn.compact
    def corrections(self, features: jax.Array, valid: jax.Array) -> jax.Array:
        """Returns the outputs `o` of the network for features of each step, `[T, E, 5]`."""
        later = _backward(self.memory.unroll(_backward(features, valid)), valid)
        x = nn.tanh(nn.Dense(self.hidden)(jnp.concatenate([later, features], axis=-1)))
        return nn.Dense(_OUTPUTS, kernel_init=nn.initializers.zeros)(x)


def _squash(x: jax.Array) -> jax.Array:
    """Returns numbers whose size grows with the logarithm, and which are like `x` near 0."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def _backward(xs: jax.Array, valid: jax.Array) -> jax.Array:
    """Turns the valid steps of each episode around, of `xs: [T, E, n]`, and so undoes itself."""
    length = jnp.sum(valid, axis=0, dtype=int)
    order = (length[None] - 1 - jnp.arange(valid.shape[0])[:, None]) % valid.shape[0]
    return jnp.take_along_axis(xs, order[..., None], axis=0)
