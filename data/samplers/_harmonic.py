"""Sums of two sines (Lacoste et al. 2018, https://arxiv.org/abs/1806.07528)."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxmeta._checks import check_integer, check_not_negative
from jaxmeta._types import Task
from jaxmeta.data.samplers._regression import Range, add_noise, check_ranges, one_input, regression_task, uniform
from jaxmeta.display import short_repr


class Tone(NamedTuple):
    """Target function of a harmonic task: `sum_i amplitudes[i] * sin((i + 1) * frequency * x + phases[i])`."""

    amplitudes: jax.Array
    """Amplitudes of the sine and of its overtone: `[2]`."""
    frequency: jax.Array
    """Frequency of the sine, a scalar."""
    phases: jax.Array
    """Phases of the sine and of its overtone: `[2]`."""

    __repr__ = short_repr


@struct.dataclass
class Harmonic:
    """A sampler of regression tasks: a sine and its first overtone, near a random place.

    The target is `y = a_1 sin(w x + b_1) + a_2 sin(2 w x + b_2)`. The frequency `w` is uniform, the two phases `b` are
    uniform on the circle, and the two amplitudes `a` are standard normal. The inputs of a task are normal with standard
    deviation 1 around a uniform center, so that a task shows only a part of its function.

    Example:
        >>> import jax
        >>> sampler = Harmonic(shots=5)
        >>> task = sampler(jax.random.key(0))
        >>> task.support.x.shape, task.query.y.shape
        ((5, 1), (10, 1))
        >>> tone = sampler.tone(jax.random.key(0))
        >>> bool((sampler.target(task.support.x, tone) == task.support.y).all())
        True

    References:
        Lacoste et al., Uncertainty in Multitask Transfer Learning, 2018, https://arxiv.org/abs/1806.07528
    """

    shots: int = struct.field(pytree_node=False, default=10)
    """Number of support examples, K."""
    queries: int = struct.field(pytree_node=False, default=10)
    """Number of query examples, Q."""
    frequencies: Range = struct.field(pytree_node=False, default=(5.0, 7.0))
    """Range of the frequency."""
    centers: Range = struct.field(pytree_node=False, default=(-4.0, 4.0))
    """Range of the center of the inputs."""
    noise: float | jax.Array = struct.field(pytree_node=False, default=0.0)
    """Standard deviation of normal noise on the targets."""

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_integer(shots=self.shots, queries=self.queries)
        check_ranges(frequencies=self.frequencies, centers=self.centers)
        check_not_negative(noise=self.noise)

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
        _, key_center, key_inputs, key_noise = jax.random.split(key, 4)
        x = uniform(key_center, self.centers) + jax.random.normal(key_inputs, (self.shots + self.queries, 1))
        y = self.target(x, self.tone(key))
        return regression_task(x, add_noise(key_noise, y, self.noise), self.shots)

    def tone(self, key: jax.Array) -> Tone:
        """Returns the target function of the task of a key.

        Args:
            key: random key of the task.

        Returns:
            The task's amplitudes, frequency and phases.
        """
        key_amplitudes, key_frequency, key_phases = jax.random.split(jax.random.split(key, 4)[0], 3)
        return Tone(
            amplitudes=jax.random.normal(key_amplitudes, (2,)),
            frequency=uniform(key_frequency, self.frequencies),
            phases=uniform(key_phases, (0.0, 2 * math.pi), (2,)),
        )

    @staticmethod
    def target(x: jax.Array, tone: Tone) -> jax.Array:
        """Returns the noise-free targets of inputs `x`, in the shape of `x`."""
        first = tone.amplitudes[0] * jnp.sin(tone.frequency * x + tone.phases[0])
        return first + tone.amplitudes[1] * jnp.sin(2 * tone.frequency * x + tone.phases[1])
