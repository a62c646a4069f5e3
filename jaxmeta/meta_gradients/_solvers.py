"""Solvers of linear systems for implicit meta-gradients."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg as conjugate_gradient

from jaxmeta._checks import check_integer, check_not_negative, check_positive
from jaxmeta._types import PyTree

LinearSolver: TypeAlias = Callable[[Callable[[PyTree], PyTree], PyTree], PyTree]
"""`(matvec, b) -> x` with `matvec(x)` near `b`, for a symmetric `matvec` on pytrees."""


def cg(steps: int = 5, *, damping: float = 0.0) -> LinearSolver:
    """Conjugate gradients, for `implicit`.

    Args:
        steps: iterations, each one Hessian-vector product.
        damping: added to the diagonal of the matrix.

    Returns:
        `(matvec, b) -> x`.

    Raises:
        ValueError: if `steps` is less than 1 or `damping` is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> solve = cg(2)
        >>> solve(lambda x: 4.0 * x, jnp.array([8.0])).tolist()
        [2.0]
    """
    check_integer(steps=steps)
    check_not_negative(damping=damping)

    def solve(matvec: Callable[[PyTree], PyTree], b: PyTree) -> PyTree:
        def damped(x: PyTree) -> PyTree:
            return jax.tree.map(lambda y, x: y + damping * x, matvec(x), x)

        return conjugate_gradient(damped, b, maxiter=steps, tol=0.0)[0]

    return _in_one_type(solve)


def neumann(steps: int = 5, rate: float = 0.1) -> LinearSolver:
    """Truncated Neumann series, `rate * sum_k (I - rate A)^k b`, for `implicit`.

    Args:
        steps: terms after the first, each one Hessian-vector product.
        rate: less than 2 over the largest eigenvalue of the matrix, or the series diverges.

    Returns:
        `(matvec, b) -> x`.

    Raises:
        ValueError: if `steps` is less than 1 or `rate` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> solve = neumann(50, rate=0.1)
        >>> [round(x, 4) for x in solve(lambda x: 4.0 * x, jnp.array([8.0])).tolist()]
        [2.0]

    References:
        Lorraine, Vicol & Duvenaud, *Optimizing Millions of Hyperparameters by Implicit Differentiation*, 2020,
        https://arxiv.org/abs/1911.02590
    """
    check_integer(steps=steps)
    check_positive(rate=rate)

    def solve(matvec: Callable[[PyTree], PyTree], b: PyTree) -> PyTree:
        def step(_: int, x: PyTree) -> PyTree:
            return jax.tree.map(lambda x, b, ax: x + rate * (b - ax), x, b, matvec(x))

        return jax.lax.fori_loop(0, steps, step, jax.tree.map(lambda b: rate * b, b))

    return _in_one_type(solve)


def _in_one_type(solve: LinearSolver) -> LinearSolver:
    """Returns a solver that computes in the widest type of `b`, at least float32, and returns the types of `b`."""

    def solve_in_one_type(matvec: Callable[[PyTree], PyTree], b: PyTree) -> PyTree:
        dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(b))

        def widen(x: PyTree) -> PyTree:
            return jax.tree.map(lambda x: x.astype(dtype), x)

        def restore(x: PyTree) -> PyTree:
            return jax.tree.map(lambda x, b: x.astype(b.dtype), x, b)

        return restore(solve(lambda x: widen(matvec(restore(x))), widen(b)))

    return solve_in_one_type
