"""Meta-training of what runs for long, such as a learned optimizer: in windows, with an outer update after each.

A `Process` is what runs. A `GradientEstimator` says how the meta-gradient of one window is made; it has a state of its
own, unlike a `MetaGradient`, because the process goes on where the last window ended.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_optional_size, check_size, check_transformation
from jaxmeta._evolution import check_scale, noise_like, perturbed
from jaxmeta._types import Metrics, PyTree


class Process(NamedTuple):
    """A computation in time that depends on meta-parameters `theta` (any pytree), as pure functions for one run."""

    reset: Callable[[jax.Array], PyTree]
    """`(key) -> state`: a new run."""
    step: Callable[[PyTree, PyTree, jax.Array], tuple[PyTree, jax.Array]]
    """`(theta, state, key) -> (state, loss)`: one step of it, with a scalar loss."""
    horizon: int
    """After so many steps it is reset. What is minimised is the mean loss over all of them."""


class ProcessRun(NamedTuple):
    """What an estimator keeps of one run between two windows."""

    state: PyTree
    """State of the process. `persistent_evolution` has two, in a leading axis: of the two signs of the noise."""
    age: jax.Array
    """Steps since the reset."""
    noise: PyTree = ()
    """For `persistent_evolution`, the sum of the noise since the reset, like `theta`."""


class GradientEstimator(NamedTuple):
    """How a meta-gradient is made of one window of one run, as pure functions."""

    window: int
    """Steps in a window."""
    init: Callable[[Process, PyTree, jax.Array], ProcessRun]
    """`(process, theta, key) -> run`: a new one, of age 0."""
    grad: Callable[[Process, PyTree, ProcessRun, jax.Array], tuple[Metrics, PyTree, ProcessRun]]
    """`(process, theta, run, key) -> (metrics, gradient, run)`: the next window, of a run younger than the horizon."""


def truncated_backprop(window: int) -> GradientEstimator:
    """Reverse mode through one window; what came before is a constant.

    Exact if the window is the horizon. Otherwise biased towards what pays within the window, the more the shorter it
    is. Needs a differentiable process.

    Args:
        window: steps in a window; must divide the horizon.

    Returns:
        A `GradientEstimator`.

    Raises:
        ValueError: if `window` is less than 1.

    References:
        Werbos, *Backpropagation through Time: What It Does and How to Do It*, Proceedings of the IEEE, 1990,
        https://doi.org/10.1109/5.58337
    """
    check_size(window=window)

    def grad(process: Process, theta: PyTree, run: ProcessRun, key: jax.Array) -> tuple[Metrics, PyTree, ProcessRun]:
        objective = jax.value_and_grad(partial(_advance, process, window), has_aux=True)
        (loss, state), gradient = objective(theta, run.state, key)
        return {"loss": loss}, gradient, ProcessRun(state, run.age + window)

    return GradientEstimator(window, _start, grad)


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
    check_size(window=window)
    check_scale(scale)

    def grad(process: Process, theta: PyTree, run: ProcessRun, key: jax.Array) -> tuple[Metrics, PyTree, ProcessRun]:
        noise_key, key = jax.random.split(key)
        noise = noise_like(noise_key, theta)
        candidates = jax.tree.map(lambda *x: jnp.stack(x), *_pair(theta, noise, scale), theta)
        losses, states = jax.vmap(partial(_advance, process, window), (0, None, None))(candidates, run.state, key)
        gradient = _slope(losses, noise, scale)
        return {"loss": losses[2]}, gradient, ProcessRun(jax.tree.map(lambda x: x[2], states), run.age + window)

    return GradientEstimator(window, _start, grad)


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
    check_size(window=window)
    check_scale(scale)

    def init(process: Process, theta: PyTree, key: jax.Array) -> ProcessRun:
        state = process.reset(key)
        pair = jax.tree.map(lambda x: jnp.stack([x, x]), state)
        return ProcessRun(pair, jnp.zeros([], jnp.int32), jax.tree.map(jnp.zeros_like, theta))

    def grad(process: Process, theta: PyTree, run: ProcessRun, key: jax.Array) -> tuple[Metrics, PyTree, ProcessRun]:
        noise_key, key = jax.random.split(key)
        noise = noise_like(noise_key, theta)
        total = jax.tree.map(jnp.add, run.noise, noise)
        candidates = jax.tree.map(lambda *x: jnp.stack(x), *_pair(theta, noise, scale))
        losses, states = jax.vmap(partial(_advance, process, window), (0, 0, None))(candidates, run.state, key)
        return {"loss": losses.mean()}, _slope(losses, total, scale), ProcessRun(states, run.age + window, total)

    return GradientEstimator(window, init, grad)


class OuterState(NamedTuple):
    """State of `process_step`."""

    theta: PyTree
    """The meta-parameters."""
    opt_state: optax.OptState
    """State of the outer optimizer."""
    runs: ProcessRun
    """The runs, in a leading axis."""


class ProcessStep(NamedTuple):
    """Meta-training of a process, as two pure functions."""

    init: Callable[[PyTree, jax.Array], OuterState]
    """`(theta, key) -> state`."""
    step: Callable[[OuterState, jax.Array], tuple[OuterState, Metrics]]
    """`(state, key) -> (state, metrics)`: one window of every run, then one outer update."""


def process_step(
    process: Process,
    estimator: GradientEstimator,
    optimizer: optax.GradientTransformation,
    num_runs: int,
    *,
    batch_size: int | None = None,
) -> ProcessStep:
    """Builds one outer update: every run goes on by one window, their gradients are averaged.

    The runs start at ages that are spread evenly over the horizon, so that every update sees all parts of it; the first
    ones are thus cut short.

    Args:
        process: what is meta-trained.
        estimator: how: `truncated_backprop`, `truncated_evolution` or `persistent_evolution`.
        optimizer: any optax optimizer of `theta`. Gradients through long runs have outliers: clip them.
        num_runs: runs side by side, with tasks of their own.
        batch_size: runs treated at once by `jax.vmap`; `None` chooses for the backend: 1 on a CPU, all elsewhere.

    Returns:
        A `ProcessStep`, to jit and to scan.

    Raises:
        ValueError: if a number is less than 1, or the horizon is not a multiple of the window.
        TypeError: if `optimizer` is not an optax transformation.

    Example:
        >>> # A falling ball, x' = x + v, that is pushed by theta in each step and should stay near 1.
        >>> def step(theta, state, key):
        ...     x, v = state
        ...     v = v - 0.1 + theta
        ...     return (x + v, v), (x + v - 1) ** 2
        >>> process = Process(lambda key: (jnp.ones([]), jnp.zeros([])), step, horizon=20)
        >>> train = process_step(process, persistent_evolution(5), optax.adam(1e-2), num_runs=100)
        >>> state = train.init(jnp.array(0.0), jax.random.key(0))
        >>> state, metrics = jax.jit(lambda s, keys: jax.lax.scan(train.step, s, keys))(
        ...     state, jax.random.split(jax.random.key(1), 200))
        >>> round(float(state.theta), 1)
        0.1
    """
    check_size(num_runs=num_runs, horizon=process.horizon)
    check_optional_size(batch_size=batch_size)
    check_transformation(optimizer=optimizer)
    if process.horizon % estimator.window:
        raise ValueError(f"horizon must be a multiple of the window ({estimator.window}), got {process.horizon}")

    size = min(batch_size or (1 if jax.default_backend() == "cpu" else num_runs), num_runs)

    def init(theta: PyTree, key: jax.Array) -> OuterState:
        runs = jax.vmap(lambda k: estimator.init(process, theta, k))(jax.random.split(key, num_runs))
        windows = process.horizon // estimator.window
        ages = estimator.window * (jnp.arange(num_runs) * windows // num_runs)
        return OuterState(theta, optimizer.init(theta), runs._replace(age=ages.astype(jnp.int32)))

    def step(state: OuterState, key: jax.Array) -> tuple[OuterState, Metrics]:
        def window(run_and_key: tuple[ProcessRun, jax.Array]) -> tuple[Metrics, PyTree, ProcessRun]:
            run, key = run_and_key
            start_key, key = jax.random.split(key)
            over = run.age >= process.horizon
            run = jax.lax.cond(over, lambda: estimator.init(process, state.theta, start_key), lambda: run)
            return estimator.grad(process, state.theta, run, key)

        # `jax.lax.map` would batch by `vmap` even for a size of 1.
        in_batches = partial(jax.lax.map, window, batch_size=None if size == 1 else size)
        metrics, gradients, runs = in_batches((state.runs, jax.random.split(key, num_runs)))
        metrics, gradient = jax.tree.map(lambda x: jnp.mean(x, axis=0), (metrics, gradients))
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.theta)
        return OuterState(optax.apply_updates(state.theta, updates), opt_state, runs), metrics

    return ProcessStep(init, step)


def _start(process: Process, theta: PyTree, key: jax.Array) -> ProcessRun:
    del theta
    return ProcessRun(process.reset(key), jnp.zeros([], jnp.int32))


def _advance(process: Process, window: int, theta: PyTree, state: PyTree, key: jax.Array) -> tuple[jax.Array, PyTree]:
    """The mean loss of the next window, and the state after it."""
    state, losses = jax.lax.scan(partial(process.step, theta), state, jax.random.split(key, window))
    return jnp.mean(losses), state


def _pair(theta: PyTree, noise: PyTree, scale: float) -> tuple[PyTree, PyTree]:
    return perturbed(theta, noise, scale), perturbed(theta, noise, -scale)


def _slope(losses: jax.Array, noise: PyTree, scale: float) -> PyTree:
    """What one pair says of the gradient: its difference along the noise."""
    slope = (losses[0] - losses[1]) / (2 * scale)
    return jax.tree.map(lambda n: (slope * n).astype(n.dtype), noise)
