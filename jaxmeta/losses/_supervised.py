"""The passes of a model in training and at test, and the loss functions of the common tasks made from them."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import core, errors, nnx
from flax import linen as nn

from jaxmeta._checks import check_labels, check_takes
from jaxmeta._types import Batch, MetaParams, Metrics, PyTree, at_least_float32, check_batch
from jaxmeta._variables import is_variable
from jaxmeta.display import brief, described
from jaxmeta.losses._loss import Loss

Train = Callable[[PyTree, Any, jax.Array], Any]
"""A pass of training: `(params, x, key) -> outputs`."""


_MISFIT = (errors.ScopeParamShapeError, errors.ScopeParamNotFoundError, errors.ScopeCollectionNotFound)

_FLAGS = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}
"""Arguments by which Linen modules are told that they train, and their values then."""


@described
def classification(model: Any, *, train: Train | None = None) -> Loss:
    """Softmax cross-entropy with integer labels.

    Training calls a module with dropout, and lets it change its state, such as running statistics. Test calls it
    without dropout and with that state. A Linen module is told by its argument `train`, `training`, `is_training`,
    `deterministic` or `use_running_average`, and an NNX module by its methods `train` and `eval`. All random streams
    come from the key of the loss.

    Args:
        model: a Linen module, an NNX module, or a function `(params, x) -> logits [n, ways]`. Half precision is
            widened to float32.
        train: `(params, x, key) -> logits`, which replaces a function in training, for a model with dropout.

    Returns:
        A `Loss`: `(params, batch, key) -> (mean cross-entropy in nats, {"accuracy": share in [0, 1]})`, whose `predict`
        gives logits. The means have the weights of the batch. When called with concrete labels, it raises a
        `ValueError` if one is not from 0 to `ways - 1`.

    Raises:
        TypeError: if `model` is none of these, or `train` is given beside a module.

    Example:
        >>> loss_fn = classification(lambda w, x: x @ w)
        >>> batch = Batch(jnp.eye(2), jnp.array([0, 1]))
        >>> loss, metrics = loss_fn(10.0 * jnp.eye(2), batch, jax.random.key(0))
        >>> float(metrics["accuracy"])
        1.0
    """
    return _supervised(model, train, cross_entropy)


@described
def regression(model: Any, *, train: Train | None = None) -> Loss:
    """Mean squared error.

    Args:
        model: see `classification`. Predictions have the shape of the targets.
        train: see `classification`.

    Returns:
        A `Loss`: `(params, batch, key) -> (mean squared error, {})`, a mean with the weights of the batch.

    Raises:
        TypeError: if `model` is none of these, or `train` is given beside a module.

    Example:
        >>> loss_fn = regression(lambda w, x: w * x)
        >>> float(loss_fn(jnp.array(2.0), Batch(jnp.ones((3, 1)), jnp.zeros((3, 1))), jax.random.key(0))[0])
        4.0
    """
    return _supervised(model, train, squared_error)


def weighted_mean(values: jax.Array, weight: jax.Array | None, axis: int | None = None) -> jax.Array:
    """Mean of the examples' values with `Batch.weight`, for a loss of your own.

    A value of weight 0 has no influence, not even if it is infinite. The mean is 0 if all weights are.

    Args:
        values: values of each example, `[n, ...]`.
        weight: weights `[n]`, not negative, or booleans. `None` counts all examples alike.
        axis: `None` (default) for the mean of all values, or 0 for that over the examples.

    Returns:
        The mean: a scalar, or `[...]` with `axis=0`.

    Example:
        >>> float(weighted_mean(jnp.array([2.0, 4.0, jnp.inf]), jnp.array([3, 1, 0])))
        2.5
    """
    if weight is None:
        return jnp.mean(values, axis)
    weights = jnp.broadcast_to(jnp.reshape(weight, (-1, *[1] * (values.ndim - 1))), values.shape).astype(values.dtype)
    total = jnp.sum(weights, axis)
    return jnp.sum(weights * jnp.where(weights > 0, values, 0), axis) / jnp.where(total > 0, total, 1)


def cross_entropy(logits: jax.Array, batch: Batch) -> tuple[jax.Array, Metrics]:
    """Returns the mean cross-entropy and the accuracy of logits `[n, ways]`."""
    if not hasattr(logits, "ndim") or logits.ndim < 2:
        raise ValueError(f"model must return logits [n, ways], got {brief(logits)}")
    logits = at_least_float32(logits)
    check_labels(batch.y, logits.shape[-1], batch.weight, logits.shape[:-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.y)
    correct = (jnp.argmax(logits, axis=-1) == batch.y).astype(jnp.float32)
    return weighted_mean(losses, batch.weight), {"accuracy": weighted_mean(correct, batch.weight)}


def squared_error(prediction: jax.Array, batch: Batch) -> tuple[jax.Array, Metrics]:
    """Returns the mean squared error, and no metrics."""
    if jnp.shape(prediction) != jnp.shape(batch.y):
        raise ValueError(f"model must return the targets' shape {jnp.shape(batch.y)}, got {brief(prediction)}")
    prediction = at_least_float32(prediction)
    return weighted_mean(jnp.square(prediction - batch.y), batch.weight), {}


def _supervised(
    model: Any, train: Train | None, measure: Callable[[jax.Array, Batch], tuple[jax.Array, Metrics]]
) -> Loss:
    """Builds the loss of a model from the loss of its outputs."""
    passes = forward(model, train)

    def in_training(variables: PyTree, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics, PyTree]:
        check_batch(batch)
        outputs, after = passes.train(variables, batch.x, key)
        return *measure(outputs, batch), after

    def at_test(variables: PyTree, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        del key
        check_batch(batch)
        return measure(passes.test(variables, batch.x), batch)

    return Loss(in_training, at_test, passes.test)


class Forward(NamedTuple):
    """A model as two functions."""

    train: Callable[[PyTree, Any, jax.Array], tuple[Any, PyTree]]
    """`(variables, x, key) -> (outputs, variables after the pass)`."""
    test: Callable[[PyTree, Any], Any]
    """`(variables, x) -> outputs`."""


def forward(
    model: Any,
    train: Callable[[PyTree, Any, jax.Array], Any] | None = None,
    *,
    method: str | None = None,
    argument: str = "model",
) -> Forward:
    """Returns the passes of a model.

    Args:
        model: a function `(params, x) -> outputs`, a Linen module or an NNX module.
        train: `(params, x, key) -> outputs`, which replaces the function in training.
        method: name of a method to call instead of the module itself, if the module has it.
        argument: name of the argument `model` in error messages.

    Raises:
        TypeError: if `model` is none of these, or `train` is given beside a module.
    """
    module = isinstance(model, nn.Module | nnx.Module)
    if module and train is not None:
        raise TypeError("train is for a model that is a function: a module knows training from test itself")
    called = method if method is not None and hasattr(model, method) else "__call__"
    if isinstance(model, nnx.Module):
        return _nnx(model, called)
    if isinstance(model, nn.Module):
        return _explained(_linen(model, called))
    if not callable(model) or isinstance(model, type):
        hint = ": make one" if isinstance(model, type) else ""
        raise TypeError(
            f"{argument} must be a function (params, x) -> outputs, a Linen or an NNX module, got {brief(model)}{hint}"
        )
    check_takes(2, " (params, x)", **{argument: model})
    if train is None:
        return _explained(Forward(lambda variables, x, key: (model(variables, x), variables), model))
    check_takes(3, " (params, x, key)", train=train)
    return _explained(Forward(lambda variables, x, key: (train(variables, x, key), variables), model))


def _explained(passes: Forward) -> Forward:
    """Returns passes that say which inputs the parameters do not fit."""

    def explain(run: Callable[..., Any]) -> Callable[..., Any]:
        def explained(variables: PyTree, x: Any, *key: jax.Array) -> Any:
            if isinstance(variables, MetaParams):
                raise TypeError(
                    "the parameters of the model are needed, got MetaParams: learner.adapt(meta, support, key) returns "
                    "those of a task, and meta.variables are the initial ones"
                )
            try:
                return run(variables, x, *key)
            except _MISFIT as error:
                reason = str(error).partition(" (https:")[0].rstrip(".")
                raise ValueError(
                    f"the model's parameters do not fit inputs {brief(x)}: {reason}. They come from "
                    "model.init(key, example), whole and with an example of these inputs"
                ) from error

        return explained

    return Forward(*map(explain, passes))


def has_modes(model: nn.Module | nnx.Module) -> bool:
    """Returns true for a module that tells training from test: one of NNX, or of Linen with an argument for it."""
    return isinstance(model, nnx.Module) or bool(_flags(model, "__call__"))


def _flags(model: nn.Module, method: str) -> dict[str, Any]:
    """Returns the arguments that tell a method of a Linen module to train."""
    known = inspect.signature(getattr(type(model), method)).parameters
    return {name: value for name, value in _FLAGS.items() if name in known}


def _linen(model: nn.Module, method: str) -> Forward:
    """The passes of a Linen module: collections but `params` change in training, and `rngs` come from the key."""
    training = _flags(model, method)
    testing: dict[str, Any] = {name: not value for name, value in training.items()}

    def train(variables: Any, x: Any, key: jax.Array) -> tuple[Any, Any]:
        carried = [name for name in variables if name != "params"]
        rngs = {"params": key, "dropout": key}
        outputs, after = model.apply(variables, x, **training, rngs=rngs, mutable=carried, method=method)
        return outputs, core.copy(variables, after)  # a FrozenDict stays one

    return Forward(train, lambda variables, x: model.apply(variables, x, **testing, method=method))


def _nnx(model: nnx.Module, method: str) -> Forward:
    """The passes of an NNX module: its `train()` and `eval()`, with random streams that come from the key."""
    training, testing = nnx.clone(model), nnx.clone(model)
    training.train()
    testing.eval()
    train_graph, test_graph = nnx.graphdef(training), nnx.graphdef(testing)

    def train(variables: Any, x: Any, key: jax.Array) -> tuple[Any, Any]:
        module = nnx.merge(train_graph, _reseeded(variables, key))
        outputs = getattr(module, method)(x)
        return outputs, _with_streams_of(nnx.state(module), variables)

    def test(variables: Any, x: Any) -> Any:
        return getattr(nnx.merge(test_graph, _copied(variables)), method)(x)

    return Forward(train, test)


def _copied(state: Any) -> Any:
    """Returns a copy of a state, whose variables may change in the current trace."""
    return jax.tree.map(lambda variable: variable.copy(), state, is_leaf=is_variable)


def _reseeded(state: Any, key: jax.Array) -> Any:
    """Returns such a copy, whose random streams start from `key`."""
    streams = 0

    def reseed(variable: Any) -> Any:
        nonlocal streams
        if not isinstance(variable, nnx.RngKey):
            return variable
        streams += 1
        return variable.replace(jax.random.fold_in(key, streams))

    return jax.tree.map(reseed, _copied(state), is_leaf=is_variable)


def _with_streams_of(state: Any, before: Any) -> Any:
    """Returns a state with the random streams of another one."""

    def pick(new: Any, old: Any) -> Any:
        return old if isinstance(new, nnx.RngState) else new

    return jax.tree.map(pick, state, before, is_leaf=is_variable)
