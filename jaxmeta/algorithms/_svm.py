"""The multi-class support vector machine of Crammer & Singer (2001), solved on the device, differentiated implicitly.

https://jmlr.org/papers/v2/crammer01a.html. An interior-point method on the dual; its linear systems fall apart into one
per class and one that couples them.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve


class _Point(NamedTuple):
    """A point of the interior-point method; all but the last field are `[n, ways]`."""

    dual: jax.Array
    """The dual variables `A`; each row sums to zero."""
    slack: jax.Array
    """How far below its bound each of them is; positive."""
    multiplier: jax.Array
    """Of the bounds; positive."""
    equality: jax.Array
    """Multiplier of each row's sum, `[n, 1]`."""


def crammer_singer(gram: jax.Array, one_hot: jax.Array, c: float, iterations: int) -> jax.Array:
    """The dual variables `[n, ways]` of a multi-class SVM.

    Minimizes `tr(A^T gram A) / 2 - sum(one_hot * A)` over `A <= c * one_hot` whose rows sum to zero. The derivative
    with respect to `gram` is that of the solution, by the implicit function theorem, not of the iterations.

    Args:
        gram: positive definite, `[n, n]`.
        one_hot: labels `[n, ways]`; no derivative with respect to them.
        c: the bound; the weights are `features.T @ A`.
        iterations: of the interior-point method.
    """
    return _solve(gram, jax.lax.stop_gradient(one_hot), c, iterations).dual


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _solve(gram: jax.Array, one_hot: jax.Array, c: float, iterations: int) -> _Point:
    others = one_hot.shape[1] - 1
    slack = 0.5 * c * (one_hot + (1 - one_hot) / others)
    start = _Point(c * one_hot - slack, slack, jnp.ones_like(slack), jnp.zeros_like(slack[:, :1]))
    eps = jnp.finfo(gram.dtype).eps

    def iterate(point: _Point, _: None) -> tuple[_Point, None]:
        product, gap = gram @ point.dual, jnp.mean(point.slack * point.multiplier)
        residual = one_hot - product - point.multiplier - point.equality
        # A point that is as good as the number format allows stays: slacks would become zero.
        exact = jnp.max(jnp.abs(residual)) <= 100 * eps * (1 + jnp.max(jnp.abs(product)))
        done = exact & (gap <= eps**2 * c)
        new = _predict_and_correct(gram, point, residual, gap)
        return jax.tree.map(partial(jnp.where, done), point, new), None

    return jax.lax.scan(iterate, start, None, length=iterations)[0]


@_solve.defjvp
def _solve_jvp(c: float, iterations: int, primals: Any, tangents: Any) -> tuple[_Point, _Point]:
    gram, one_hot = primals
    point = _solve(gram, one_hot, c, iterations)
    system = _Newton.factor(gram, point)
    # Only the stationarity of the Lagrangian depends on the Gram matrix.
    dual, equality = system.solve(-tangents[0] @ point.dual)
    return point, _Point(dual, -dual, system.ratio * dual, equality)


class _Newton(NamedTuple):
    """The linearized optimality conditions, reduced to the dual variables: `(gram + diag(ratio_k)) x_k + e = r_k`.

    `x_k` is a column of `x: [n, ways]`, whose rows sum to zero; `e: [n, 1]` is what makes them.
    """

    ratio: jax.Array
    """Multiplier over slack, `[n, ways]`."""
    inverses: jax.Array
    """Of each class's matrix, `[ways, n, n]`."""
    coupling: jax.Array
    """Cholesky factor of their sum, `[n, n]`."""

    @classmethod
    def factor(cls, gram: jax.Array, point: _Point) -> "_Newton":
        identity = jnp.eye(len(gram), dtype=gram.dtype)
        ratio = point.multiplier / point.slack

        def inverse(diagonal: jax.Array) -> jax.Array:
            return cho_solve((cho_factor(gram + jnp.diag(diagonal), lower=True)[0], True), identity)

        inverses = jax.vmap(inverse, 1)(ratio)
        return cls(ratio, inverses, cho_factor(jnp.sum(inverses, 0), lower=True)[0])

    def solve(self, right: jax.Array) -> tuple[jax.Array, jax.Array]:
        free = jnp.einsum("kij,jk->ik", self.inverses, right)
        equality = cho_solve((self.coupling, True), jnp.sum(free, 1, keepdims=True))
        return free - jnp.einsum("kij,jl->ik", self.inverses, equality), equality


def _predict_and_correct(gram: jax.Array, point: _Point, residual: jax.Array, gap: jax.Array) -> _Point:
    """One step of Mehrotra's method; `residual` is that of stationarity, `gap` the mean of slack times multiplier."""
    system = _Newton.factor(gram, point)

    def direction(target: jax.Array) -> _Point:
        """The Newton step towards `slack * multiplier = target` (to first order)."""
        change = target / point.slack - point.multiplier
        dual, equality = system.solve(residual - change)
        return _Point(dual, -dual, change + system.ratio * dual, equality)

    affine = direction(jnp.zeros_like(residual))
    step = _longest_step(point, affine)
    reached = jnp.mean((point.slack + step * affine.slack) * (point.multiplier + step * affine.multiplier))
    centering = (reached / gap) ** 3 * gap
    corrected = direction(centering - affine.slack * affine.multiplier)
    step = jnp.minimum(0.99 * _longest_step(point, corrected), 1.0)
    return jax.tree.map(lambda x, dx: x + step * dx, point, corrected)


def _longest_step(point: _Point, direction: _Point) -> jax.Array:
    """The longest step, at most 1 / 0.99, that keeps slack and multiplier from becoming negative."""

    def longest(x: jax.Array, dx: jax.Array) -> jax.Array:
        return jnp.min(jnp.where(dx < 0, -x / jnp.where(dx < 0, dx, -1.0), jnp.inf))

    bound = jnp.minimum(longest(point.slack, direction.slack), longest(point.multiplier, direction.multiplier))
    return jnp.minimum(bound, 1.0 / 0.99)
