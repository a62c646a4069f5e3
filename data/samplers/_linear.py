"""Straight lines (Finn, Xu & Levine 2018, https://arxiv.org/abs/1806.02817)."""

from typing import NamedTuple

import jax
from flax import struct

from jaxmeta._checks import check_integer, check_not_negative
from jaxmeta._types import Task
from jaxmeta.data.samplers._regression import Range, add_noise, check_ranges, one_input, regression_task, uniform
from jaxmeta.display import short_repr


class Line(NamedTuple):
    """Target function of a linear task: `slope * x + intercept`."""

    slope: jax.Array
    """Slope of the line, a scalar."""
    intercept: jax.Array
    """Value of the line at 0, a scalar."""

    __repr__ = short_repr


@struct.dataclass
class Linear:
    """A sampler of regression tasks: `y = slope * x + intercept` with `slope`, `intercept` and `x` uniform.

    The ranges are those of the lines in probabilistic MAML, which adds noise of 0.3 to the targets. Here there is no
    noise by default. The best possible answer is known: least squares.

    Example:
        >>> import jax
        >>> sampler = Linear(shots=5)
        >>> task = sampler(jax.random.key(0))
        >>> task.support.x.shape, task.query.y.shape
        ((5, 1), (10, 1))
        >>> line = sampler.line(jax.random.key(0))
        >>> bool((sampler.target(task.support.x, line) == task.support.y).all())
        True

    References:
        Finn, Xu and Levine, Probabilistic Model-Agnostic Meta-Learning, 2018, https://arxiv.org/abs/1806.02817
    """

    shots: int = struct.field(pytree_node=False, default=10)
    """Number of support examples, K."""
    queries: int = struct.field(pytree_node=False, default=10)
    """Number of query examples, Q."""
    slopes: Range = struct.field(pytree_node=False, default=(-3.0, 3.0))
    """Range of the slope."""
    intercepts: Range = struct.field(pytree_node=False, default=(-3.0, 3.0))
    """Range of the intercept."""
    inputs: Range = struct.field(pytree_node=False, default=(-5.0, 5.0))
    """Range of the inputs `x`."""
    noise: float | jax.Array = struct.field(pytree_node=False, default=0.0)
    """Standard deviation of normal noise on the targets."""

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_integer(shots=self.shots, queries=self.queries)
        check_ranges(slopes=self.slopes, intercepts=self.intercepts, inputs=self.inputs)
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
        _, key_inputs, key_noise = jax.random.split(key, 3)
        x = uniform(key_inputs, self.inputs, (self.shots + self.queries, 1))
        y = self.target(x, self.line(key))
        return regression_task(x, add_noise(key_noise, y, self.noise), self.shots)

    def line(self, key: jax.Array) -> Line:
        """Returns the target function of the task of a key.

        Args:
            key: random key of the task.

        Returns:
            The task's slope and intercept.
        """
        key_slope, key_intercept = jax.random.split(jax.random.split(key, 3)[0])
        return Line(uniform(key_slope, self.slopes), uniform(key_intercept, self.intercepts))

    @staticmethod
    def target(x: jax.Array, line: Line) -> jax.Array:
        """Returns the noise-free targets of inputs `x`: `slope * x + intercept`, in the shape of `x`."""
        return line.slope * x + line.intercept
