"""Training runs as a process, to meta-train a learned optimizer on (Andrychowicz et al. 2016).

https://arxiv.org/abs/1606.04474.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from jaxmeta._adapt import unroll
from jaxmeta._checks import check_integer, check_through_steps, check_transformation
from jaxmeta._learned import combine, partition
from jaxmeta._types import LossFn, PyTree
from jaxmeta._variables import split
from jaxmeta.display import short_repr
from jaxmeta.estimators._process import Process
from jaxmeta.meta_gradients import MetaGradient


class Problem(NamedTuple):
    """A training problem of a family; all problems of one family have the same shapes."""

    params: PyTree
    """Initial parameters."""
    batch: Any
    """Data that the loss depends on beside the parameters, usually a `jaxmeta.Batch`."""

    __repr__ = short_repr


class TrainingRun(NamedTuple):
    """State of the process that `optimizer_training` makes."""

    params: PyTree
    """The parameters in training."""
    rest: PyTree
    """The optimizer's state without its `Learned` part, which is `theta`."""
    batch: Any
    """The problem's data."""

    __repr__ = short_repr


def optimizer_training(
    optimizer: optax.GradientTransformation,
    loss_fn: LossFn,
    sample: Callable[[jax.Array], Problem],
    *,
    horizon: int,
    meta_gradient: MetaGradient | None = None,
) -> Process:
    """Training runs with a learned optimizer on problems of a family, as a process to meta-train.

    Its meta-parameters `theta` are the learned part of the optimizer's state, as everywhere:
    `theta, _ = jaxmeta.partition(optimizer.init(params))`. The loss of a step is the loss before its update. `theta` is
    used in every step: an optimizer that itself changes its `Learned` values in training (`optim.adaptive`) loses these
    changes. Of a model's variables the optimizer sees the trained part, the first result of `jaxmeta.split`.

    Args:
        optimizer: an optax transformation with `Learned` values, such as `optim.learned_mlp(...)`.
        loss_fn: `(params, batch, key) -> (scalar, metrics)`, a random part of `batch` by the key for minibatches.
        sample: `(key) -> Problem`.
        horizon: steps of a training run.
        meta_gradient: how derivatives go through a step, for `truncated_backprop`: `first_order()` takes the inner
            gradients as constants as Andrychowicz et al. do; `reverse()` if `None`.

    Returns:
        A `Process`.

    Raises:
        TypeError: if `optimizer` is not an optax transformation.
        ValueError: if `horizon` is less than 1, or if `meta_gradient` is `implicit()` or `evolution()`.

    Example:
        >>> import jax.numpy as jnp, jaxmeta
        >>> from jaxmeta import estimators
        >>> def sample(key):  # w should become what the data say
        ...     return Problem(jnp.zeros(3), jax.random.normal(key, (3,)))
        >>> loss_fn = lambda w, target, key: (jnp.sum((w - target) ** 2), {})
        >>> optimizer = jaxmeta.optim.scale_by_learned_rate(0.01)
        >>> process = optimizer_training(optimizer, loss_fn, sample, horizon=10)
        >>> train = estimators.process_step(process, estimators.truncated_backprop(5), optax.adam(0.01), num_runs=8)
        >>> theta, _ = jaxmeta.partition(optimizer.init(jnp.zeros(3)))
        >>> state, metrics = jax.jit(lambda s, keys: jax.lax.scan(train.step, s, keys))(
        ...     train.init(theta, jax.random.key(0)), jax.random.split(jax.random.key(1), 300))
        >>> bool(jnp.all(state.meta.rate.value > 0.2))
        True

    References:
        Andrychowicz et al., *Learning to Learn by Gradient Descent by Gradient Descent*, NeurIPS 2016,
        https://arxiv.org/abs/1606.04474
    """
    check_transformation(optimizer=optimizer)
    check_integer(horizon=horizon)
    check_through_steps(meta_gradient)

    def reset(key: jax.Array) -> TrainingRun:
        params, batch = sample(key)
        return TrainingRun(params, partition(optimizer.init(split(params)[0]))[1], batch)

    def step(theta: PyTree, run: TrainingRun, key: jax.Array) -> tuple[TrainingRun, jax.Array]:
        state = combine(theta, run.rest)
        end = unroll(loss_fn, optimizer, run.params, run.batch, key[None], state=state, meta_gradient=meta_gradient)
        return TrainingRun(end.params, partition(end.state)[1], run.batch), end.losses[0]

    return Process(reset, step, horizon)
