"""Factories whose values show the call that made them, and which answer wrong arguments in full."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import optax
from flax import linen as nn
from flax import nnx

from jaxmeta.display._short import brief, short_repr
from jaxmeta.elsewhere import ARGUMENTS

P = ParamSpec("P")
T = TypeVar("T")


def described(factory: Callable[P, T]) -> Callable[P, T]:
    """Makes the values of a factory show its name and those of its arguments that are no functions.

    The values are of a subclass of the named tuple, with the same fields. One that is changed by `_replace`, or comes
    out of `jax.tree.map`, shows its fields again. Arguments that the factory does not have are answered with those that
    it has.

    Args:
        factory: a function that returns a named tuple, such as a `MetaLearner`.

    Returns:
        The factory, with the same signature.

    Example:
        >>> import jaxmeta, optax
        >>> jaxmeta.maml(jaxmeta.regression(lambda w, x: w * x), optax.sgd(0.1), 5, meta_gradient=jaxmeta.first_order())
        maml(steps=5, meta_gradient=first_order())
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            hints = [f"{name!r}: {ARGUMENTS[name]}" for name in kwargs if name in ARGUMENTS]
            hints = hints if not set(signature.parameters) & set(kwargs) & set(ARGUMENTS) else []
            known = ", ".join(signature.parameters)
            raise TypeError(". ".join([f"{factory.__name__}() {error}", *hints, f"Arguments: {known}"])) from None
        made: Any = factory(*args, **kwargs)
        value = tuple.__new__(_showing(getattr(type(made), "described_kind", type(made))), made)
        value.__dict__["call"] = factory.__name__, given
        return value

    return make


@functools.cache
def _showing(kind: type) -> type:
    """Returns the subclass of a named tuple that shows how a value was made."""

    def show(value: Any) -> str:
        if "call" not in value.__dict__:
            return short_repr(value)
        name, given = value.__dict__["call"]
        given.apply_defaults()
        told = [f"{argument}={brief(found)}" for argument, found in given.arguments.items() if _tells(found)]
        return f"{name}({', '.join(told)})"

    return type(kind.__name__, (kind,), {"__repr__": show, "__module__": kind.__module__, "described_kind": kind})


def _tells(value: Any) -> bool:
    """Returns whether an argument says more than that it is there."""
    if isinstance(value, nn.Module | nnx.Module):
        return True
    if value is None or value is False or callable(value) or isinstance(value, optax.GradientTransformation):
        return hasattr(type(value), "described_kind") and not callable(value)
    return not (isinstance(value, tuple | dict) and not value)
