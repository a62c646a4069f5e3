"""The multi-class support vector machine of Crammer & Singer (2001), https://jmlr.org/papers/v2/crammer01a.html.

It is solved on the device by an interior-point method on the dual problem, and differentiated implicitly. Each linear
system of the method consists of one system per class and one that couples them.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from jaxmeta.algorithms._heads import example_weights, present_classes


class _Point(NamedTuple):
    """A point of the interior-point method."""

    dual: jax.Array
    """Dual variables `A: [n, ways]`. Each row sums to zero."""
    slack: jax.Array
    """Distances `S = c * one_hot - A` of the dual variables to their bounds, `[n, ways]`, positive."""
    multiplier: jax.Array
    """Multipliers `M` of the bounds, `[n, ways]`, positive."""
    equality: jax.Array
    """Multipliers `e` of the sums of the rows, `[n, 1]`."""


def crammer_singer(gram: jax.Array, one_hot: jax.Array, c: float | jax.Array, iterations: int) -> jax.Array:
    """Returns the dual variables `[n, ways]` of a multi-class support vector machine.

    They minimize `tr(A^T gram A) / 2 - sum(one_hot * A)` over all `A <= c * one_hot` whose rows sum to zero. With
    weighted labels, the bounds have the weights and the sum has not. The dual variables of padding, and those of
    classes without examples, are no variables. They stay zero.

    The derivatives with respect to `gram` and `c` are those of the solution, by the implicit function theorem, not
    those of the iterations.

    Args:
        gram: positive definite matrix `[n, n]`.
        one_hot: labels `[n, ways]`, each row multiplied by the weight of the example, without derivative.
        c: bound of the dual variables. The weights of the classifier are `features.T @ A`.
        iterations: number of iterations of the interior-point method.
    """
    return _solve(gram, jax.lax.stop_gradient(one_hot), jnp.asarray(c, gram.dtype), iterations).dual


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _solve(gram: jax.Array, one_hot: jax.Array, c: jax.Array, iterations: int) -> _Point:
    """Runs the interior-point method from the middle of the feasible set."""
    free, target = _free(one_hot), (one_hot != 0).astype(gram.dtype)
    others = jnp.maximum(jnp.sum(present_classes(one_hot)) - 1, 1)
    slack = 0.5 * c * example_weights(one_hot)[:, None] * (target + (1 - target) / others)
    slack = jnp.where(free, slack, 1)
    dual = jnp.where(free, c * one_hot - slack, 0)
    start = _Point(dual, slack, free.astype(gram.dtype), jnp.zeros_like(slack[:, :1]))
    eps = jnp.finfo(gram.dtype).eps

    def iterate(point: _Point, _: None) -> tuple[_Point, None]:
        product, gap = gram @ point.dual, _gap(point.slack, point.multiplier, free)
        residual = jnp.where(free, target - product - point.multiplier - point.equality, 0)
        # A point that is as good as the number format allows stays, because its slacks would become zero.
        exact = jnp.max(jnp.abs(residual)) <= 100 * eps * (1 + jnp.max(jnp.abs(product)))
        done = exact & (gap <= eps**2 * c)
        new = _predict_and_correct(gram, free, point, residual, gap)
        return jax.tree.map(partial(jnp.where, done), point, new), None

    return jax.lax.scan(iterate, start, None, length=iterations)[0]


@_solve.defjvp
def _solve_jvp(iterations: int, primals: Any, tangents: Any) -> tuple[_Point, _Point]:
    """Differentiates the optimality conditions `one_hot - gram A - M - e = 0` and `M S = constant`.

    With `S = c * one_hot - A` the second one gives `dM = ratio * (dA - one_hot dc)` for `ratio = M / S`. The first one
    then is `(gram + ratio) dA + de = ratio * one_hot dc - dgram A`.
    """
    gram, one_hot, c = primals
    point = _solve(gram, one_hot, c, iterations)
    system = _Newton.factor(gram, _free(one_hot), point)
    bound = tangents[2] * one_hot
    dual, equality = system.solve(system.ratio * bound - tangents[0] @ point.dual)
    return point, _Point(dual, bound - dual, system.ratio * (dual - bound), equality)


def _free(one_hot: jax.Array) -> jax.Array:
    """Returns which dual variables `[n, ways]` are variables: those of examples and classes that count."""
    return (example_weights(one_hot) != 0)[:, None] & present_classes(one_hot)[None]


def _gap(slack: jax.Array, multiplier: jax.Array, free: jax.Array) -> jax.Array:
    """Returns the mean of slack times multiplier over the variables. The other multipliers are zero."""
    return jnp.sum(slack * multiplier) / jnp.sum(free)


class _Newton(NamedTuple):
    """The linearized optimality conditions, reduced to the dual variables: `(gram + diag(ratio_k)) x_k + e = r_k`.

    The unknowns are the columns `x_k` of `x: [n, ways]` and `e: [n, 1]`, the multipliers with which the rows of `x` sum
    to zero.
    """

    ratio: jax.Array
    """Ratios of multiplier and slack, `[n, ways]`."""
    inverses: jax.Array
    """Inverses of the matrices `gram + diag(ratio_k)` of the classes, `[ways, n, n]`."""
    coupling: jax.Array
    """Cholesky factor of the sum of the inverses, `[n, n]`."""

    @classmethod
    def factor(cls, gram: jax.Array, free: jax.Array, point: _Point) -> "_Newton":
        """Factors the matrices of the system at `point`, for the variables that are `free: [n, ways]`."""
        identity = jnp.eye(len(gram), dtype=gram.dtype)
        ratio = point.multiplier / point.slack

        def inverse(diagonal: jax.Array, free: jax.Array) -> jax.Array:
            pairs = free[:, None] & free[None]
            matrix = jnp.where(pairs, gram + jnp.diag(diagonal), identity)
            return jnp.where(pairs, cho_solve((cho_factor(matrix, lower=True)[0], True), identity), 0)

        inverses = jax.vmap(inverse, 1)(ratio, free)
        padding = jnp.diag(~jnp.any(free, 1)).astype(gram.dtype)  # so that the sum has an inverse
        return cls(ratio, inverses, cho_factor(jnp.sum(inverses, 0) + padding, lower=True)[0])

    def solve(self, right: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns `x: [n, ways]` and `e: [n, 1]` for the right-hand side `r: [n, ways]`."""
        free = jnp.einsum("kij,jk->ik", self.inverses, right)
        equality = cho_solve((self.coupling, True), jnp.sum(free, 1, keepdims=True))
        return free - jnp.einsum("kij,jl->ik", self.inverses, equality), equality


def _predict_and_correct(
    gram: jax.Array, free: jax.Array, point: _Point, residual: jax.Array, gap: jax.Array
) -> _Point:
    """Takes one step of Mehrotra's predictor-corrector method.

    Args:
        gram: positive definite matrix `[n, n]`.
        free: which dual variables are variables, `[n, ways]`.
        point: point before the step.
        residual: residual of the stationarity, `one_hot - gram A - M - e`.
        gap: mean of slack times multiplier.
    """
    system = _Newton.factor(gram, free, point)

    def direction(target: jax.Array) -> _Point:
        """Returns the Newton step towards `slack * multiplier = target`, to first order."""
        change = jnp.where(free, target / point.slack - point.multiplier, 0)
        dual, equality = system.solve(residual - change)
        return _Point(dual, -dual, change + system.ratio * dual, equality)

    affine = direction(jnp.zeros_like(residual))
    step = _longest_step(point, affine)
    reached = _gap(point.slack + step * affine.slack, point.multiplier + step * affine.multiplier, free)
    centering = (reached / gap) ** 3 * gap
    corrected = direction(centering - affine.slack * affine.multiplier)
    step = jnp.minimum(0.99 * _longest_step(point, corrected), 1.0)
    return jax.tree.map(lambda x, dx: x + step * dx, point, corrected)


def _longest_step(point: _Point, direction: _Point) -> jax.Array:
    """Returns the longest step, at most 1 / 0.99, at which slack and multiplier are not negative."""

    def longest(x: jax.Array, dx: jax.Array) -> jax.Array:
        return jnp.min(jnp.where(dx < 0, -x / jnp.where(dx < 0, dx, -1.0), jnp.inf))

    bound = jnp.minimum(longest(point.slack, direction.slack), longest(point.multiplier, direction.multiplier))
    return jnp.minimum(bound, 1.0 / 0.99)
