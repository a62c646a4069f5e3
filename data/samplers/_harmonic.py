"""Sums of two sines (Lacoste et al. 2018, https://arxiv.org/abs/1806.07528)."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxmeta._types import Task
from jaxmeta.data.samplers._checks import check_positive
from jaxmeta.data.samplers._regression import add_noise, check_noise, check_ranges, one_input, regression_task, uniform


class Tone(NamedTuple):
    """The function that a harmonic task asks for, `sum_i amplitudes[i] * sin((i + 1) * frequency * x + phases[i])`."""

    amplitudes: jax.Array
    """`[2]`."""
    frequency: jax.Array
    """Scalar."""
    phases: jax.Array
    """`[2]`."""


@struct.dataclass
class Harmonic:
    """A sampler of regression tasks: a sine and its first overtone, seen around a place of its own.

    The frequency is uniform, the two phases are uniform on the circle, and the two amplitudes standard normal. Inputs
    are normal with a standard deviation of 1 around a uniform center, so that a task shows a part of its function only.

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
    """Support examples, K."""
    queries: int = struct.field(pytree_node=False, default=10)
    """Query examples, Q."""
    frequencies: tuple[float, float] = struct.field(pytree_node=False, default=(5.0, 7.0))
    """Range of the frequency."""
    centers: tuple[float, float] = struct.field(pytree_node=False, default=(-4.0, 4.0))
    """Range of the center of the inputs."""
    noise: float = struct.field(pytree_node=False, default=0.0)
    """Standard deviation of normal noise on the targets."""

    def __post_init__(self) -> None:
        check_positive(shots=self.shots, queries=self.queries)
        check_ranges(frequencies=self.frequencies, centers=self.centers)
        check_noise(self.noise)

    @property
    def example(self) -> jax.Array:
        """One input of zeros, for `model.init`: `[1, 1]`."""
        return one_input()

    def __call__(self, key: jax.Array) -> Task:
        """Draw one task.

        Args:
            key: A random key; the same key gives the same task.

        Returns:
            The task; support `x` and `y`: `[shots, 1]`; query `x` and `y`: `[queries, 1]`.
        """
        _, key_center, key_inputs, key_noise = jax.random.split(key, 4)
        x = uniform(key_center, self.centers) + jax.random.normal(key_inputs, (self.shots + self.queries, 1))
        y = self.target(x, self.tone(key))
        return regression_task(x, add_noise(key_noise, y, self.noise), self.shots)

    def tone(self, key: jax.Array) -> Tone:
        """Return the function behind the task that `key` gives.

        Args:
            key: The key of the task.

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
        """Return the noise-free targets of inputs `x`, in the shape of `x`."""
        first = tone.amplitudes[0] * jnp.sin(tone.frequency * x + tone.phases[0])
        return first + tone.amplitudes[1] * jnp.sin(2 * tone.frequency * x + tone.phases[1])
