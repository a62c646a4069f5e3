"""Cost of a compiled function, without running it."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Cost(NamedTuple):
    """The compiler's own figures for one call."""

    temporary_bytes: int
    """Memory for intermediate values, beside arguments and results."""
    argument_bytes: int
    """Memory of the arguments."""
    flops: float
    """Floating-point operations. The body of a loop counts once, so compare only functions with the same loops."""
    compile_seconds: float
    """Time to compile (not to trace)."""


def cost(fn: Callable[..., Any], *args: Any) -> Cost:
    """Compiles `fn(*args)` and reports its memory, operations and compile time.

    Args:
        fn: a function that `jax.jit` can compile, or one that is already jitted.
        args: its arguments, or `jax.ShapeDtypeStruct`s in their place.

    Returns:
        A `Cost`.

    Raises:
        RuntimeError: if the backend reports no memory analysis.

    Example:
        >>> import jax.numpy as jnp
        >>> cost(lambda x: x @ x, jnp.ones((64, 64))).argument_bytes
        16384
    """
    lowered = (fn if hasattr(fn, "lower") else jax.jit(fn)).lower(*args)  # pyright: ignore[reportFunctionMemberAccess]
    begin = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - begin
    memory = compiled.memory_analysis()
    if memory is None:
        raise RuntimeError(f"the {jax.default_backend()} backend reports no memory analysis")
    flops = (compiled.cost_analysis() or {}).get("flops", float("nan"))
    return Cost(memory.temp_size_in_bytes, memory.argument_size_in_bytes, flops, seconds)
