"""Cost of a compiled function, without running it."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxmeta._checks import check_function
from jaxmeta.display import short_repr

_LOOK_UP = 1e-3  # seconds, which finding a program that is there takes at most, and no compilation


class Cost(NamedTuple):
    """The compiler's own figures for one call."""

    temporary_bytes: int
    """Memory for intermediate values, beside arguments and results."""
    argument_bytes: int
    """Memory of the arguments."""
    flops: float
    """Floating-point operations. The body of a loop counts once, so compare only functions with the same loops."""
    compile_seconds: float
    """Time to compile (not to trace), NaN if JAX had the compiled program already."""

    __repr__ = short_repr


def cost(fn: Callable[..., Any], *args: Any) -> Cost:
    """Compiles `fn(*args)` and reports its memory, operations and compile time.

    Args:
        fn: a function that `jax.jit` can compile, or one that is already jitted.
        args: its arguments, or `jax.ShapeDtypeStruct`s in their place.

    Returns:
        A `Cost`.

    Raises:
        TypeError: if `fn` is not a function.
        RuntimeError: if the backend reports no memory analysis.

    Example:
        >>> import jax.numpy as jnp
        >>> cost(lambda x: x @ x, jnp.ones((64, 64))).argument_bytes
        16384
    """
    check_function(fn=fn)
    jitted: Any = fn if hasattr(fn, "lower") else jax.jit(lambda *args: fn(*args))  # new, so that it is compiled again
    lowered = jitted.lower(*args)
    begin = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - begin
    memory = compiled.memory_analysis()
    if memory is None:
        raise RuntimeError(f"the {jax.default_backend()} backend reports no memory analysis")
    flops = (compiled.cost_analysis() or {}).get("flops", float("nan"))
    seconds = seconds if seconds > _LOOK_UP else float("nan")
    return Cost(memory.temp_size_in_bytes, memory.argument_size_in_bytes, flops, seconds)
