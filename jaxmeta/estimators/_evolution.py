"""Evolution strategies on windows of a process: truncated (Metz et al. 2019) and persistent (Vicol et al. 2021)."""

from functools import partial

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_integer, check_positive
from jaxmeta._noise import noise_like, perturbed
from jaxmeta._types import Metrics, PyTree
from jaxmeta.display import described
from jaxmeta.estimators._process import GradientEstimator, Process, ProcessRun, advance, start_run


@described
def truncated_evolution(window: int, *, scale: float = 0.01) -> GradientEstimator:
    """Antithetic evolution strategies on one window: needs no derivative, biased as `truncated_backprop`.

    The run itself goes on with the unperturbed `theta`; from where it stands, one pair of perturbations runs through
    the window. So each step is computed three times.

    Args:
        window: steps in a window; must divide the horizon.
        scale: standard deviation of the noise.

    Returns:
        A `GradientEstimator`: noisy; average it over many runs.

    Raises:
        ValueError: if `window` is less than 1 or `scale` is not positive.

    References:
        Metz, Maheswaranathan, Nixon, Freeman & Sohl-Dickstein, *Understanding and Correcting Pathologies in the
        Training of Learned Optimizers*, ICML 2019, https://arxiv.org/abs/1810.10180
    """
    check_integer(window=window)
    check_positive(scale=scale)

    def grad(process: Process, theta: PyTree, run: ProcessRun, key: jax.Array) -> tuple[Metrics, PyTree, ProcessRun]:
        noise_key, key = jax.random.split(key)
        noise = noise_like(noise_key, theta)
        candidates = jax.tree.map(lambda *x: jnp.stack(x), *_pair(theta, noise, scale), theta)
        losses, states = jax.vmap(partial(advance, process, window), (0, None, None))(candidates, run.state, key)
        gradient = _slope(losses, noise, scale)
        return {"loss": losses[2]}, gradient, ProcessRun(jax.tree.map(lambda x: x[2], states), run.age + window)

    return GradientEstimator(window, start_run, grad)


@described
def persistent_evolution(window: int, *, scale: float = 0.01) -> GradientEstimator:
    """Persistent evolution strategies (PES): windows without their bias, and without derivatives.

    Each run is a pair of processes that go on from window to window under the two signs of the noise. Every window
    draws new noise; its loss is correlated with the sum of the noise since the reset, so that it counts for what
    earlier windows did to it. The mean over the windows of a run is an unbiased gradient of its mean loss, smoothed by
    the noise; the variance grows with their number.

    Args:
        window: steps in a window; must divide the horizon. With one window to the horizon it is plain ES.
        scale: standard deviation of the noise in each window, the paper's `sigma`.

    Returns:
        A `GradientEstimator`: noisy; average it over many runs. Its `loss` is the mean of the pair's.

    Raises:
        ValueError: if `window` is less than 1 or `scale` is not positive.

    References:
        Vicol, Metz & Sohl-Dickstein, *Unbiased Gradient Estimation in Unrolled Computation Graphs with Persistent
        Evolution Strategies*, ICML 2021, https://arxiv.org/abs/2112.13835
    """
    check_integer(window=window)
    check_positive(scale=scale)

    def init(process: Process, theta: PyTree, key: jax.Array) -> ProcessRun:
        state = process.reset(key)
        pair = jax.tree.map(lambda x: jnp.stack([x, x]), state)
        return ProcessRun(pair, jnp.zeros([], jnp.int32), jax.tree.map(jnp.zeros_like, theta))

    def grad(process: Process, theta: PyTree, run: ProcessRun, key: jax.Array) -> tuple[Metrics, PyTree, ProcessRun]:
        noise_key, key = jax.random.split(key)
        noise = noise_like(noise_key, theta)
        total = jax.tree.map(jnp.add, run.noise, noise)
        candidates = jax.tree.map(lambda *x: jnp.stack(x), *_pair(theta, noise, scale))
        losses, states = jax.vmap(partial(advance, process, window), (0, 0, None))(candidates, run.state, key)
        return {"loss": losses.mean()}, _slope(losses, total, scale), ProcessRun(states, run.age + window, total)

    return GradientEstimator(window, init, grad)


def _pair(theta: PyTree, noise: PyTree, scale: float) -> tuple[PyTree, PyTree]:
    return perturbed(theta, noise, scale), perturbed(theta, noise, -scale)


def _slope(losses: jax.Array, noise: PyTree, scale: float) -> PyTree:
    """Estimates the gradient from one pair: the difference of its losses along the noise."""
    slope = (losses[0] - losses[1]) / (2 * scale)
    return jax.tree.map(lambda n: (slope * n).astype(n.dtype), noise)
