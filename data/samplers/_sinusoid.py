"""Sinusoid regression tasks (Finn et al. 2017, https://arxiv.org/abs/1703.03400)."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxmeta._checks import check_integer
from jaxmeta._types import Task
from jaxmeta.data.samplers._regression import Range, check_ranges, one_input, regression_task, uniform
from jaxmeta.display import short_repr


class Wave(NamedTuple):
    """Target function of a sinusoid task: `amplitude * sin(x - phase)`."""

    amplitude: jax.Array
    """Amplitude of the sine, a scalar."""
    phase: jax.Array
    """Phase of the sine in radians, a scalar."""

    __repr__ = short_repr


@struct.dataclass
class Sinusoid:
    """A sampler of regression tasks: `y = A sin(x - p)` with `A`, `p` and `x` uniform.

    Example:
        >>> import jax
        >>> sampler = Sinusoid(shots=5)
        >>> task = sampler(jax.random.key(0))
        >>> task.support.x.shape, task.query.y.shape
        ((5, 1), (10, 1))
        >>> wave = sampler.wave(jax.random.key(0))
        >>> bool((sampler.target(task.support.x, wave) == task.support.y).all())
        True

    References:
        Finn et al., Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, 2017,
        https://arxiv.org/abs/1703.03400
    """

    shots: int = struct.field(pytree_node=False, default=10)
    """Number of support examples, K."""
    queries: int = struct.field(pytree_node=False, default=10)
    """Number of query examples, Q."""
    amplitudes: Range = struct.field(pytree_node=False, default=(0.1, 5.0))
    """Range of the amplitude `A`."""
    phases: Range = struct.field(pytree_node=False, default=(0.0, math.pi))
    """Range of the phase `p`."""
    inputs: Range = struct.field(pytree_node=False, default=(-5.0, 5.0))
    """Range of the inputs `x`."""

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_integer(shots=self.shots, queries=self.queries)
        check_ranges(amplitudes=self.amplitudes, phases=self.phases, inputs=self.inputs)

    @property
    def example(self) -> jax.Array:
        """One input of zeros, for `model.init`: `[1, 1]`."""
        return one_input()

    def __call__(self, key: jax.Array) -> Task:
        """Draws one task.

        Args:
            key: random key. The same key gives the same task.

        Returns:
            The task. The support set has `x` and `y` of shape `[shots, 1]`, the query set of shape `[queries, 1]`.
        """
        key_inputs, _ = jax.random.split(key)
        x = uniform(key_inputs, self.inputs, (self.shots + self.queries, 1))
        return regression_task(x, self.target(x, self.wave(key)), self.shots)

    def wave(self, key: jax.Array) -> Wave:
        """Returns the target function of the task of a key, for plots.

        Args:
            key: random key of the task.

        Returns:
            The task's amplitude and phase.
        """
        _, key_wave = jax.random.split(key)
        low, high = jnp.array([self.amplitudes, self.phases]).T
        amplitude, phase = low + (high - low) * jax.random.uniform(key_wave, (2,))
        return Wave(amplitude, phase)

    @staticmethod
    def target(x: jax.Array, wave: Wave) -> jax.Array:
        """Returns the noise-free targets of inputs `x`: `amplitude * sin(x - phase)`, in the shape of `x`."""
        return wave.amplitude * jnp.sin(x - wave.phase)
