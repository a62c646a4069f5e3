"""Processes that run for long, and estimators of the meta-gradient of one window of them."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta._types import Metrics, PyTree
from jaxmeta.display import short_repr


class Process(NamedTuple):
    """A computation in time that depends on meta-parameters `theta` (any pytree), as pure functions for one run."""

    reset: Callable[[jax.Array], PyTree]
    """`(key) -> state`: a new run."""
    step: Callable[[PyTree, PyTree, jax.Array], tuple[PyTree, jax.Array]]
    """`(theta, state, key) -> (state, loss)`: one step of it, with a scalar loss."""
    horizon: int
    """After so many steps it is reset. What is minimized is the mean loss over all of them."""

    __repr__ = short_repr


class ProcessRun(NamedTuple):
    """State of one run between two windows."""

    state: PyTree
    """State of the process. `persistent_evolution` has two, in a leading axis: of the two signs of the noise."""
    age: jax.Array
    """Steps since the reset."""
    noise: PyTree = ()
    """For `persistent_evolution`, the sum of the noise since the reset, like `theta`."""

    __repr__ = short_repr


class GradientEstimator(NamedTuple):
    """Estimator of a meta-gradient from one window of one run, as pure functions."""

    window: int
    """Steps in a window."""
    init: Callable[[Process, PyTree, jax.Array], ProcessRun]
    """`(process, theta, key) -> run`: a new one, of age 0."""
    grad: Callable[[Process, PyTree, ProcessRun, jax.Array], tuple[Metrics, PyTree, ProcessRun]]
    """`(process, theta, run, key) -> (metrics, gradient, run)`: the next window, of a run younger than the horizon."""

    __repr__ = short_repr


def start_run(process: Process, theta: PyTree, key: jax.Array) -> ProcessRun:
    del theta
    return ProcessRun(process.reset(key), jnp.zeros([], jnp.int32))


def advance(process: Process, window: int, theta: PyTree, state: PyTree, key: jax.Array) -> tuple[jax.Array, PyTree]:
    """The mean loss of the next window, and the state after it."""
    state, losses = jax.lax.scan(partial(process.step, theta), state, jax.random.split(key, window))
    return jnp.mean(losses), state
