"""Learned hyper-parameters of any optax optimizer."""

import inspect
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._learned import Learned
from jaxmeta._types import PyTree


class LearnState(NamedTuple):
    """State of `learn`."""

    hyperparams: Learned
    """The hyper-parameters by name, scalars; the logarithm of the positive ones."""
    inner: optax.OptState
    """State of the optimizer."""


def learn(
    factory: Callable[..., optax.GradientTransformation],
    *,
    positive: str | Sequence[str] = (),
    **hyperparams: float,
) -> optax.GradientTransformationExtraArgs:
    """Makes hyper-parameters of any optax factory meta-parameters.

    The factory is called in each update with the current values, so it must accept arrays for them, as
    `optax.inject_hyperparams` demands too.

    Args:
        factory: makes an optax transformation, e.g. `optax.sgd`. Give it arguments that are not learned by
            `functools.partial`, e.g. `partial(optax.adam, eps_root=1e-8)`.
        positive: names of hyper-parameters that must stay positive: their logarithm is learned.
        **hyperparams: where the learned ones start, by the names of the factory's own arguments. They are held in
            float32 or wider: 0.999 is 1 in bfloat16.

    Returns:
        A transformation whose state holds the hyper-parameters as `Learned`.

    Raises:
        TypeError: if `factory` is not callable or misses an argument, or a hyper-parameter is not a number.
        ValueError: if none is given, one is not an argument of `factory` or not finite, or `positive` names one that is
            not given or not positive.

    Example:
        >>> inner = learn(optax.sgd, positive="learning_rate", learning_rate=0.5, momentum=0.9)
        >>> params = jnp.array([1.0, 2.0])
        >>> updates, state = inner.update(params, inner.init(params))
        >>> updates.tolist()
        [-0.5, -1.0]
        >>> sorted(state.hyperparams.value)
        ['learning_rate', 'momentum']
    """
    positive = (positive,) if isinstance(positive, str) else tuple(positive)
    _check_hyperparams(factory, positive, hyperparams)

    def make(values: dict[str, jax.Array]) -> optax.GradientTransformationExtraArgs:
        now = {name: jnp.exp(value) if name in positive else value for name, value in values.items()}
        return optax.with_extra_args_support(factory(**now))

    def init(params: PyTree) -> Any:
        dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
        values = {
            name: jnp.asarray(math.log(value) if name in positive else value, dtype)
            for name, value in hyperparams.items()
        }
        return LearnState(Learned(values), make(values).init(params))

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any) -> tuple[PyTree, Any]:
        new, inner = make(state.hyperparams.value).update(updates, state.inner, params, **extra_args)
        return _cast_like(new, updates), LearnState(state.hyperparams, _cast_like(inner, state.inner))

    return optax.GradientTransformationExtraArgs(init, update)


def _cast_like(tree: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(lambda x, old: jnp.asarray(x, jnp.result_type(old)), tree, like)


def _check_hyperparams(factory: Any, positive: tuple[str, ...], hyperparams: dict[str, Any]) -> None:
    if not callable(factory):
        raise TypeError(f"factory must be a function that makes an optax transformation, got {factory!r}")
    signature = inspect.signature(factory)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    allowed = ", ".join(name for name, parameter in signature.parameters.items() if parameter.kind in named)
    if not hyperparams:
        raise ValueError(f"learn needs at least one hyper-parameter; factory has {allowed}")
    for name, value in hyperparams.items():
        if name not in signature.parameters or signature.parameters[name].kind not in named:
            raise ValueError(f"hyperparams must be arguments of factory: {allowed}; got {name!r}")
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name} must be a number to be learned, got {value!r}")
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value!r}")
    for name in positive:
        if name not in hyperparams:
            raise ValueError(
                f"positive must name hyper-parameters that are given: {', '.join(hyperparams)}; got {name!r}"
            )
        if hyperparams[name] <= 0:
            raise ValueError(f"{name} must be positive, got {hyperparams[name]!r}")
    try:
        signature.bind(**hyperparams)
    except TypeError as error:
        raise TypeError(f"factory has a {error}: give it by functools.partial") from error
