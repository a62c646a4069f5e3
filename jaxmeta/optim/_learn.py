"""Learned hyper-parameters of any optax optimizer."""

import inspect
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_function, check_number, check_positive
from jaxmeta._learned import Learned
from jaxmeta._types import PyTree
from jaxmeta.display import described, short_repr


class LearnState(NamedTuple):
    """State of `learn`."""

    hyperparams: Learned
    """Hyper-parameters by name, scalars. Those that must stay positive are held as logarithms."""
    inner: optax.OptState
    """State of the optimizer."""

    __repr__ = short_repr


@described
def learn(
    factory: Callable[..., optax.GradientTransformation],
    *,
    positive: str | Sequence[str] = (),
    **hyperparams: float | jax.Array,
) -> optax.GradientTransformationExtraArgs:
    """Turns hyper-parameters of any optax factory into meta-parameters.

    The factory is called in each update with the current values, so it must accept arrays for them, as it must for
    `optax.inject_hyperparams`.

    Args:
        factory: function that makes an optax transformation, such as `optax.sgd`. Give it the arguments that are not
            learned by `functools.partial`, such as `partial(optax.adam, eps_root=1e-8)`.
        positive: names of hyper-parameters that must stay positive. Their logarithms are learned.
        **hyperparams: initial values of the learned hyper-parameters, by the names of the factory's own arguments. They
            are held in float32 or wider, because 0.999 is 1 in bfloat16.

    Returns:
        A transformation whose state holds the hyper-parameters as `Learned`.

    Raises:
        TypeError: if `factory` is not callable or misses an argument.
        ValueError: if there is no hyper-parameter, one is not an argument of `factory` or not a finite number, or
            `positive` names one that is missing or not positive. From `init`, if the initial state of the optimizer
            holds a hyper-parameter, as that of `optax.inject_hyperparams` does.

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
            name: jnp.asarray(_logarithm(value) if name in positive else value, dtype)
            for name, value in hyperparams.items()
        }
        check_not_in_state(values, params)
        return LearnState(Learned(values), make(values).init(params))

    def check_not_in_state(values: dict[str, jax.Array], params: PyTree) -> None:
        jaxpr = jax.make_jaxpr(lambda values: make(values).init(params))(values).jaxpr
        reached = {id(x) for x in jaxpr.invars}
        for equation in jaxpr.eqns:
            if any(id(x) in reached for x in equation.invars):
                reached |= {id(x) for x in equation.outvars}
        if any(id(x) in reached for x in jaxpr.outvars):
            raise ValueError(
                "factory must not keep the hyper-parameters in its initial state, as optax.inject_hyperparams does: "
                "updates would use those and not the learned ones. Give the factory that it wraps"
            )

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any) -> tuple[PyTree, Any]:
        new, inner = make(state.hyperparams.value).update(updates, state.inner, params, **extra_args)
        return _cast_like(new, updates), LearnState(state.hyperparams, _cast_like(inner, state.inner))

    return optax.GradientTransformationExtraArgs(init, update)


def _logarithm(value: Any) -> Any:
    """Returns the logarithm of a number, an array or a tracer, that of a number in double precision."""
    return math.log(value) if isinstance(value, numbers.Real) else jnp.log(value)


def _cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """Casts each leaf of `tree` to the type of its counterpart in `like`."""
    return jax.tree.map(lambda x, old: jnp.asarray(x, jnp.result_type(old)), tree, like)


def _check_hyperparams(factory: Any, positive: tuple[str, ...], hyperparams: dict[str, Any]) -> None:
    """Raises unless the factory can be called with these hyper-parameters, which are numbers."""
    check_function(factory=factory)
    signature = inspect.signature(factory)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    allowed = ", ".join(name for name, parameter in signature.parameters.items() if parameter.kind in named)
    if not hyperparams:
        raise ValueError(f"learn needs at least one hyper-parameter, factory has {allowed}")
    for name, value in hyperparams.items():
        if name not in signature.parameters or signature.parameters[name].kind not in named:
            raise ValueError(f"hyperparams must be arguments of factory ({allowed}), got {name!r}")
        check_number(**{name: value})
    for name in positive:
        if name not in hyperparams:
            raise ValueError(f"positive must name given hyper-parameters ({', '.join(hyperparams)}), got {name!r}")
        check_positive(**{name: hyperparams[name]})
    try:
        signature.bind(**hyperparams)
    except TypeError as error:
        raise TypeError(f"factory has a {error}, give it by functools.partial") from error
