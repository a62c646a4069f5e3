"""Gaussian processes with random kernels (Müller et al. 2022, https://arxiv.org/abs/2112.10510)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.core import Tracer
from jax.scipy.linalg import solve_triangular

from jaxmeta._checks import check_choice, check_integer, check_not_negative
from jaxmeta._types import Batch, Task
from jaxmeta.data.samplers._checks import Size, largest
from jaxmeta.data.samplers._regression import Range, check_ranges, regression_task, uniform
from jaxmeta.data.samplers._sampling import draw_sizes
from jaxmeta.display import short_repr


class Kernel(NamedTuple):
    """Covariance function of a Gaussian process: `scale^2 * k(x, x')`."""

    kind: jax.Array
    """Number of the function `k` in `GaussianProcess.kernels`, int32."""
    lengthscale: jax.Array
    """Distance over which the function changes, in the units of the inputs. The periodic kernel has no unit."""
    scale: jax.Array
    """Standard deviation of the function's values."""
    period: jax.Array
    """Period of the periodic kernel. The others do not use it."""

    __repr__ = short_repr


class Posterior(NamedTuple):
    """Normal distributions of targets, given a support set."""

    mean: jax.Array
    """Means: `[m, 1]`."""
    std: jax.Array
    """Standard deviations of noisy targets: `[m, 1]`."""

    __repr__ = short_repr


@struct.dataclass
class GaussianProcess:
    """A sampler of regression tasks whose targets are draws from a Gaussian process, with a new kernel for each task.

    A task draws the kind of its kernel, its lengthscale, its scale and its period, all independent and uniform, then
    uniform inputs, and targets with normal noise. `posterior` is the best possible answer if the kernel is known.

    With a pair such as `shots=(0, 20)` each task draws its number of support examples, from the least to the most, all
    equally likely. The support set is then padded to the most, and `Batch.weight` is 1 for its examples and 0 for
    padding, so that one compiled program serves all sizes.

    The kernels are functions of the distance `r = |x - x'| / lengthscale`:

    - `"rbf"`: `exp(-r^2 / 2)`, smooth
    - `"matern12"`: `exp(-r)`, rough
    - `"matern32"`: `(1 + sqrt(3) r) exp(-sqrt(3) r)`, once differentiable
    - `"matern52"`: `(1 + sqrt(5) r + 5 r^2 / 3) exp(-sqrt(5) r)`, twice differentiable
    - `"periodic"`: `exp(-2 sum_i sin^2(pi (x_i - x'_i) / period) / lengthscale^2)`

    Example:
        >>> import jax
        >>> gp = GaussianProcess(shots=(0, 20), queries=5, dim=2)
        >>> task = gp(jax.random.key(0))
        >>> task.support.x.shape, task.support.weight.shape, task.query.y.shape
        ((20, 2), (20,), (5, 1))
        >>> gp.posterior(task.support, task.query.x, gp.kernel(jax.random.key(0))).std.shape
        (5, 1)

    References:
        Müller et al., Transformers Can Do Bayesian Inference, 2022, https://arxiv.org/abs/2112.10510
        Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, https://gaussianprocess.org/gpml
    """

    shots: Size = struct.field(pytree_node=False, default=10)
    """Number of support examples, K, or the least and the most. 0 is possible."""
    queries: int = struct.field(pytree_node=False, default=10)
    """Number of query examples, Q."""
    kernels: tuple[str, ...] = struct.field(
        pytree_node=False, default=("rbf", "matern12", "matern32", "matern52", "periodic")
    )
    """Kinds of kernel, all equally likely."""
    dim: int = struct.field(pytree_node=False, default=1)
    """Number of inputs of the function."""
    lengthscales: Range = struct.field(pytree_node=False, default=(0.3, 1.0))
    """Range of the lengthscale."""
    scales: Range = struct.field(pytree_node=False, default=(0.5, 1.5))
    """Range of the standard deviation of the function's values."""
    periods: Range = struct.field(pytree_node=False, default=(1.0, 2.0))
    """Range of the period."""
    inputs: Range = struct.field(pytree_node=False, default=(-2.0, 2.0))
    """Range of each input."""
    noise: float | jax.Array = struct.field(pytree_node=False, default=0.1)
    """Standard deviation of normal noise on the targets."""

    __repr__ = short_repr

    def __post_init__(self) -> None:
        _check_shots(self.shots)
        check_integer(queries=self.queries, dim=self.dim)
        if isinstance(self.kernels, str) or not self.kernels:
            raise ValueError(f"kernels must be a tuple of names, such as ('rbf',), got {self.kernels!r}")
        for kernel in self.kernels:
            check_choice("kernels", kernel, tuple(_KERNELS))
        check_ranges(lengthscales=self.lengthscales, scales=self.scales, periods=self.periods, inputs=self.inputs)
        for name, bounds in (("lengthscales", self.lengthscales), ("scales", self.scales), ("periods", self.periods)):
            if not isinstance(bounds[0], Tracer) and bounds[0] <= 0:
                raise ValueError(f"{name} must be positive, got {bounds!r}")
        check_not_negative(noise=self.noise)

    @property
    def example(self) -> jax.Array:
        """One input of zeros, for `model.init`: `[1, dim]`."""
        return jnp.zeros((1, self.dim))

    def __call__(self, key: jax.Array) -> Task:
        """Draws one task.

        Args:
            key: random key. The same key gives the same task.

        Returns:
            The task. The support set has `x: [shots, dim]` and `y: [shots, 1]`, the query set `[queries, ...]`. The
            support set has a `weight` if its size is a pair.
        """
        _, key_inputs, key_targets = jax.random.split(key, 3)
        most = largest(self.shots)
        x = uniform(key_inputs, self.inputs, (most + self.queries, self.dim))
        kernel = self.kernel(key)
        covariance = self.covariance(x, x, kernel) + self._noise(kernel) * jnp.eye(len(x))
        y = jnp.linalg.cholesky(covariance) @ jax.random.normal(key_targets, (len(x), 1))
        task = regression_task(x, y, most)
        if not isinstance(self.shots, tuple):
            return task
        weight = (jnp.arange(most) < draw_sizes(key, self.shots)[0]).astype(y.dtype)
        return task._replace(support=Batch(task.support.x, task.support.y, weight))

    def kernel(self, key: jax.Array) -> Kernel:
        """Returns the kernel of the task of a key.

        Args:
            key: random key of the task.

        Returns:
            The kind of the kernel and its parameters.
        """
        key_kind, key_length, key_scale, key_period = jax.random.split(jax.random.split(key, 3)[0], 4)
        return Kernel(
            kind=jax.random.randint(key_kind, (), 0, len(self.kernels)),
            lengthscale=uniform(key_length, self.lengthscales),
            scale=uniform(key_scale, self.scales),
            period=uniform(key_period, self.periods),
        )

    def covariance(self, x: jax.Array, other: jax.Array, kernel: Kernel) -> jax.Array:
        """Returns the covariances `[n, m]` of the noise-free targets at `x: [n, dim]` and at `other: [m, dim]`."""
        difference = x[:, None] - other[None]
        values = [_KERNELS[name](difference, kernel) for name in self.kernels]
        return jnp.square(kernel.scale) * jnp.stack(values)[kernel.kind]

    def posterior(self, support: Batch, x: jax.Array, kernel: Kernel) -> Posterior:
        """Returns the distribution of noisy targets at `x: [m, dim]`, given a support set and the kernel.

        Args:
            support: support set. Examples of weight 0 are padding, and other weights count as 1.
            x: inputs of the queries.
            kernel: kernel of the task, as `kernel` returns it.

        Returns:
            The exact means and standard deviations, each query for itself.
        """
        factor, whitened, counts = self._whitened(support, kernel)
        # mean = K_*^T (K + noise^2 I)^-1 y,   variance = k_** + noise^2 - K_*^T (K + noise^2 I)^-1 K_*
        cross = counts[:, None] * self.covariance(support.x, x, kernel)
        projected = solve_triangular(factor, cross, lower=True)
        explained = jnp.sum(jnp.square(projected), 0)
        noise = self._noise(kernel)
        variance = noise + jnp.maximum(jnp.square(kernel.scale) - explained, 0)
        return Posterior(projected.T @ whitened, jnp.sqrt(variance)[:, None])

    def log_evidence(self, support: Batch, kernel: Kernel) -> jax.Array:
        """Returns the logarithm of the density of a support set's targets, given the kernel, a scalar in nats.

        With a uniform prior over kernels, the posterior probability of a kernel is proportional to its exponential.
        """
        factor, whitened, counts = self._whitened(support, kernel)
        # -y^T (K + noise^2 I)^-1 y / 2 - log det(K + noise^2 I) / 2 - n log(2 pi) / 2
        logs = jnp.sum(jnp.log(jnp.diagonal(factor)))
        return -jnp.sum(jnp.square(whitened)) / 2 - logs - jnp.sum(counts) * math.log(2 * math.pi) / 2

    def _whitened(self, support: Batch, kernel: Kernel) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the Cholesky factor of the support targets' covariance, the targets after it, and who counts."""
        x, y = support.x, support.y
        counts = jnp.ones(len(x), y.dtype) if support.weight is None else (support.weight != 0).astype(y.dtype)
        covariance = counts[:, None] * counts[None] * self.covariance(x, x, kernel)
        # padding becomes targets of 0 that are independent of everything, with variance 1
        covariance += jnp.diag(jnp.where(counts > 0, self._noise(kernel), 1))
        factor = jnp.linalg.cholesky(covariance)
        return factor, solve_triangular(factor, counts[:, None] * y, lower=True), counts

    def _noise(self, kernel: Kernel) -> jax.Array:
        """Returns the variance of the noise, with what rounding needs for a Cholesky factor to exist."""
        points = largest(self.shots) + self.queries
        return jnp.square(jnp.asarray(self.noise)) + points * jnp.finfo(kernel.scale).eps * jnp.square(kernel.scale)


def _check_shots(shots: Size) -> None:
    bounds = shots if isinstance(shots, tuple) else (shots, shots)
    check_integer(least=0, **{f"shots[{i}]" if isinstance(shots, tuple) else "shots": n for i, n in enumerate(bounds)})
    if len(bounds) != 2 or bounds[0] > bounds[1]:
        raise ValueError(f"shots must be an integer or a pair (least, most), got {shots!r}")


def _distance(difference: jax.Array, kernel: Kernel) -> jax.Array:
    """Returns the Euclidean length of differences `[n, m, dim]` in lengthscales: `[n, m]`, with derivative 0 at 0."""
    squares = jnp.sum(jnp.square(difference), -1)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0) / kernel.lengthscale


def _rbf(difference: jax.Array, kernel: Kernel) -> jax.Array:
    return jnp.exp(-jnp.sum(jnp.square(difference / kernel.lengthscale), -1) / 2)


def _matern12(difference: jax.Array, kernel: Kernel) -> jax.Array:
    return jnp.exp(-_distance(difference, kernel))


def _matern32(difference: jax.Array, kernel: Kernel) -> jax.Array:
    r = math.sqrt(3) * _distance(difference, kernel)
    return (1 + r) * jnp.exp(-r)


def _matern52(difference: jax.Array, kernel: Kernel) -> jax.Array:
    r = math.sqrt(5) * _distance(difference, kernel)
    return (1 + r + jnp.square(r) / 3) * jnp.exp(-r)


def _periodic(difference: jax.Array, kernel: Kernel) -> jax.Array:
    waves = jnp.sin(math.pi * difference / kernel.period)
    return jnp.exp(-2 * jnp.sum(jnp.square(waves / kernel.lengthscale), -1))


_KERNELS: dict[str, Callable[[jax.Array, Kernel], jax.Array]] = {
    "rbf": _rbf,
    "matern12": _matern12,
    "matern32": _matern32,
    "matern52": _matern52,
    "periodic": _periodic,
}
