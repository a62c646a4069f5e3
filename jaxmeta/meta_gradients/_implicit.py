"""Implicit meta-gradients: iMAML (Rajeswaran, Finn, Kakade & Levine 2019, https://arxiv.org/abs/1909.04630)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_function, check_positive, check_takes
from jaxmeta._noise import noise_like
from jaxmeta._types import LossFn, Metrics, PyTree
from jaxmeta.display import described
from jaxmeta.meta_gradients._reverse import reverse
from jaxmeta.meta_gradients._solvers import LinearSolver, cg
from jaxmeta.meta_gradients._unrolling import MetaGradient, Unrolled, explicit_arguments


@described
def implicit(solver: LinearSolver | None = None, *, proximal: float = 1.0) -> MetaGradient:
    """Implicit differentiation: the meta-gradient from the inner loop's end alone, whatever the way there.

    The inner loop minimizes `loss + proximal / 2 * |params - initial|^2`. At its minimum the implicit function theorem
    gives the derivative with respect to the initial parameters, `proximal * (H + proximal I)^-1` for the support loss's
    Hessian `H`, and to anything else in the loss, at the price of one linear solve. Memory does not grow with the
    number of inner steps. The learned part of an inner optimizer has no gradient: the minimum does not depend on it.
    Parameters that the inner optimizer does not move, such as those under `optax.set_to_zero`, count as constants.

    Args:
        solver: of the linear system; `cg(5)` if `None`.
        proximal: strength of the pull to the initial parameters, the paper's `lambda`; positive.

    Returns:
        A `MetaGradient`, exact up to how well the inner loop and the solver converge. The loss should not depend on
        its key: the last step's is used for the derivative.

    Raises:
        ValueError: if `proximal` is not a positive number.

    Example:
        >>> import jaxmeta
        >>> loss_fn = jaxmeta.regression(lambda w, x: x * w)
        >>> learner = jaxmeta.maml(loss_fn, optax.sgd(0.1), steps=16, meta_gradient=implicit(cg(5), proximal=2.0))

    References:
        Rajeswaran, Finn, Kakade & Levine, *Meta-Learning with Implicit Gradients*, 2019,
        https://arxiv.org/abs/1909.04630
    """
    check_positive(proximal=proximal)
    linear_solve = cg() if solver is None else solver
    check_takes(2, " (matvec, b), such as cg(5)", solver=linear_solve)
    run = reverse().unroll

    def unroll(
        loss_fn: LossFn,
        inner: optax.GradientTransformation,
        params: PyTree,
        state: optax.OptState,
        batch: Any,
        xs: PyTree,
    ) -> Unrolled:
        def proximal_loss(
            initial: PyTree, current: PyTree, batch: Any, x: Any, used: Callable[[PyTree], PyTree] = lambda tree: tree
        ) -> tuple[jax.Array, Metrics]:
            loss, metrics = loss_fn(used(current), batch, x)
            distance = optax.tree.norm(jax.tree.map(jnp.subtract, current, initial), squared=True)
            return loss + 0.5 * proximal * distance, metrics

        start, state = jax.lax.stop_gradient((params, state))
        end = jax.lax.stop_gradient(run(partial(proximal_loss, start), inner, start, state, batch, xs))
        held = _held(inner, start, state, xs)

        def moved(current: PyTree) -> PyTree:
            return jax.tree.map(jnp.where, held, params, current)

        def loss_of_moved(current: PyTree, batch: Any, x: Any) -> tuple[jax.Array, Metrics]:
            return proximal_loss(params, current, batch, x, moved)

        last = jax.tree.map(lambda x: x[-1], xs)
        return end._replace(params=moved(_stationary_point(loss_of_moved, linear_solve, end.params, batch, last)))

    return MetaGradient(unroll, partial(jax.value_and_grad, has_aux=True), end_only=True)


def _held(inner: optax.GradientTransformation, start: PyTree, state: optax.OptState, xs: PyTree) -> PyTree:
    """Returns where the optimizer holds the parameters, as `optax.masked` or a rate of zero does, as booleans.

    Such parameters are constants of the minimization and not at a minimum. They end alike on two losses whose gradients
    are opposite everywhere.
    """
    slopes = noise_like(jax.random.key(0), start)

    def end(sign: float) -> PyTree:
        def linear(params: PyTree, batch: Any, x: Any) -> tuple[jax.Array, Metrics]:
            del batch, x
            return jnp.asarray(sign * optax.tree.vdot(slopes, params)), {}

        return reverse().unroll(linear, inner, start, state, (), xs).params

    return jax.tree.map(jnp.equal, end(1.0), end(-1.0))


def implicit_argmin(
    loss: Callable[..., jax.Array], minimize: Callable[..., PyTree], solver: LinearSolver
) -> Callable[..., PyTree]:
    """Makes any solver of a minimization problem differentiable, by the implicit function theorem.

    `minimize` is run as it is and never differentiated: it may be a `while_loop`, plain NumPy (outside of `jax.jit`) or
    another library. At a minimum `x` of `loss(x, *args)` the gradient is zero and stays zero when `args` move, hence
    `dx/dargs = -H^-1 (d/dargs) grad loss` with the Hessian `H`: a derivative costs one linear solve.

    Args:
        loss: `(x, *args) -> scalar`, twice differentiable, with an invertible Hessian at the minimum. What it closes
            over is differentiated too.
        minimize: `(*args) -> x`, the minimum, any pytree; what the result is to be differentiated in must come to it
            through `args`.
        solver: of the linear system, which is symmetric: `cg(n)` is exact for `n` unknowns or more, but for rounding.

    Returns:
        `(*args) -> x`, differentiable any number of times in reverse mode, and as exact as `minimize` and `solver`.

    Raises:
        TypeError: if an argument is not callable.

    Example:
        >>> def loss(w, target, strength):
        ...     return jnp.sum((w - target) ** 2) + strength * jnp.sum(w**2)
        >>> solution = implicit_argmin(loss, lambda target, strength: target / (1 + strength), cg(2))
        >>> jax.grad(lambda strength: solution(jnp.array([4.0, 8.0]), strength).sum())(1.0).tolist()
        -3.0

    References:
        Bengio, *Gradient-Based Optimization of Hyperparameters*, Neural Computation, 2000,
        https://doi.org/10.1162/089976600300015187
    """
    check_function(loss=loss, minimize=minimize, solver=solver)

    def solution(*args: Any) -> PyTree:
        point = jax.lax.stop_gradient(minimize(*jax.lax.stop_gradient(args)))
        return _stationary_point(lambda point, args, _: (loss(point, *args), {}), solver, point, args, ())

    return solution


def _stationary_point(loss_fn: LossFn, linear_solve: LinearSolver, point: PyTree, batch: Any, x: Any) -> PyTree:
    """Returns `point`, differentiable in all else as the minimum of `loss_fn(., batch, x)` that it is."""
    loss, rest = explicit_arguments(loss_fn, point, batch, x)

    def gradient(point: PyTree, rest: tuple[jax.Array, ...]) -> PyTree:
        return jax.grad(loss)(point, *rest)

    @jax.custom_vjp
    def minimum(point: PyTree, rest: tuple[jax.Array, ...]) -> PyTree:
        return point

    def forward(point: PyTree, rest: tuple[jax.Array, ...]) -> tuple[PyTree, Any]:
        point = minimum(point, rest)  # so that a second derivative sees how the minimum moves
        return point, (point, rest)

    def backward(residuals: Any, cotangent: PyTree) -> tuple[None, tuple[Any, ...]]:
        point, rest = residuals

        def hessian_product(x: PyTree) -> PyTree:
            return jax.jvp(lambda p: gradient(p, rest), (point,), (x,))[1]

        solution = linear_solve(hessian_product, cotangent)
        _, pull_back = jax.vjp(lambda r: gradient(point, r), rest)
        return None, pull_back(jax.tree.map(jnp.negative, solution))[0]

    minimum.defvjp(forward, backward)
    return minimum(point, rest)
