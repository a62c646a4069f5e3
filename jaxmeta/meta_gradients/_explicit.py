"""Functions whose closure is an argument, so that a custom derivative sees what they close over."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core


def explicit_closure(function: Callable[..., Any], *args: Any) -> tuple[Callable[..., Any], tuple[jax.Array, ...]]:
    """Turns a function of `args` into one that takes the arrays it closes over as its first argument.

    Args:
        function: any traceable function.
        args: arguments, whose values do not matter.

    Returns:
        `(closure, *args) -> result`, and `closure`.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    structure = jax.tree.structure(shape)

    def explicit(closure: tuple[jax.Array, ...], *args: Any) -> Any:
        program = core.ClosedJaxpr(closed.jaxpr, closure)
        return structure.unflatten(core.jaxpr_as_fun(program)(*jax.tree.leaves(args)))

    # A number of Python that was closed over is one still, and has no shape.
    places = zip(closed.consts, closed.jaxpr.constvars, strict=True)
    return explicit, tuple(x if isinstance(x, jax.Array) else jnp.asarray(x, place.aval.dtype) for x, place in places)
