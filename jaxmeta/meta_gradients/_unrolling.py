"""Inner loops, and derivatives through them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import optax
from jax.extend import core

from jaxmeta._checks import check_integer
from jaxmeta._learned import update_with
from jaxmeta._types import LossFn, PyTree
from jaxmeta.display import short_repr

Objective = Callable[[PyTree, jax.Array], tuple[jax.Array, Any]]


class Unrolled(NamedTuple):
    """The end of an inner loop."""

    params: PyTree
    """The adapted parameters."""
    state: optax.OptState
    """The inner optimizer's last state."""
    losses: jax.Array
    """The loss before each step, `[steps]`."""

    __repr__ = short_repr


class MetaGradient(NamedTuple):
    """Way to compute a meta-gradient, as two pure functions."""

    unroll: Callable[[LossFn, optax.GradientTransformation, PyTree, optax.OptState, Any, PyTree], Unrolled]
    """`(loss_fn, inner, params, state, batch, xs) -> Unrolled`: the inner loop. `xs` holds one entry per step (leading
    axis `[steps]`), and step `i` minimizes `loss_fn(params, batch, xs[i])`; usually `xs` are the steps' keys."""
    value_and_grad: Callable[[Objective], Callable[[PyTree, jax.Array], tuple[tuple[jax.Array, Any], PyTree]]]
    """Turns `(meta, key) -> (loss, auxiliary)` into `(meta, key) -> ((loss, auxiliary), gradient)`."""
    end_only: bool = False
    """True if derivatives go through the end of the loop alone, as those of `implicit`.

    What depends on the way there, such as learned rates or a loss after every step, then has none."""
    values_only: bool = False
    """True if the derivative comes from values of the whole objective, as that of `evolution`.

    An inner loop alone, as in `jaxmeta.adapt`, is then differentiated as with `reverse`."""
    inner_constant: bool = False
    """True if all inner gradients count as constants, as in `first_order`.

    What only the inner loss depends on, such as a learned loss, then has no derivative."""

    __repr__ = short_repr


ValueAndGrad = Callable[[LossFn], Callable[[PyTree, Any, Any], tuple[jax.Array, PyTree]]]


def run_inner_loop(
    value_and_grad: ValueAndGrad,
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    params: PyTree,
    state: optax.OptState,
    batch: Any,
    xs: PyTree,
    remat: bool | int = False,
    update: Callable[..., tuple[PyTree, optax.OptState]] = update_with,
) -> Unrolled:
    """Runs the inner loop, given how the inner gradient is made; see `MetaGradient.unroll` for the other arguments.

    `remat` recomputes each step in the backward pass; a number also keeps the parameters of every so many steps only.
    `update` takes the optimizer's step.
    """
    loss_and_grads = value_and_grad(loss_fn)

    def step(carry: tuple[PyTree, optax.OptState], x: Any) -> tuple[tuple[PyTree, optax.OptState], jax.Array]:
        params, state = carry
        loss, grads = loss_and_grads(params, batch, x)

        def value_fn(other: PyTree) -> jax.Array:
            return loss_fn(other, batch, x)[0] + _undifferentiable(params)

        return update(inner, grads, state, params, value=loss, value_fn=value_fn), loss

    body = jax.checkpoint(step) if remat else step
    steps = jax.tree.leaves(xs)[0].shape[0]
    if steps == 0:  # `jax.disable_jit` has no scan of length 0
        x = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
        loss = jax.eval_shape(step, (params, state), x)[1]
        return Unrolled(params, state, jnp.zeros(0, loss.dtype))
    if steps == 1:
        # In a scan `vmap` would copy the initial parameters, which tasks share, for each of them.
        (params, state), loss = body((params, state), jax.tree.map(lambda x: x[0], xs))
        return Unrolled(params, state, loss[None])
    scan = partial(jax.lax.scan, body)
    if isinstance(remat, bool) or remat > steps:
        (params, state), losses = scan((params, state), xs)
        return Unrolled(params, state, losses)

    # Checkpoints of checkpoints: whole segments of `remat` steps, then what is left over.
    whole = steps - steps % remat
    segments = jax.tree.map(lambda x: x[:whole].reshape(whole // remat, remat, *x.shape[1:]), xs)
    (params, state), losses = jax.lax.scan(jax.checkpoint(scan), (params, state), segments)
    rest = jax.tree.map(lambda x: x[whole:], xs)
    last = run_inner_loop(value_and_grad, loss_fn, inner, params, state, batch, rest, bool(remat), update)
    return last._replace(losses=jnp.concatenate([losses.reshape(-1), last.losses]))


@jax.custom_jvp
def _undifferentiable(params: PyTree) -> float:
    """Zero, whose derivative raises: the search of a line search is a `while_loop`, without reverse mode."""
    del params
    return 0.0


@_undifferentiable.defjvp
def _raise(primals: Any, tangents: Any) -> NoReturn:
    raise TypeError(
        "inner must not be a line search or optax.lbfgs where the meta-gradient goes through the inner loop. Choose "
        "another optimizer, or meta_gradient=implicit() or evolution(), or a learner such as reptile"
    )


def by_autodiff(value_and_grad: ValueAndGrad, remat: bool | int = False) -> MetaGradient:
    check_remat(remat)
    return MetaGradient(partial(run_inner_loop, value_and_grad, remat=remat), partial(jax.value_and_grad, has_aux=True))


def check_remat(remat: bool | int) -> None:
    if not isinstance(remat, bool):
        check_integer(remat=remat)


def explicit_arguments(
    loss_fn: LossFn, params: PyTree, batch: Any, x: Any
) -> tuple[Callable[..., jax.Array], tuple[jax.Array, ...]]:
    """The loss as a function `(params, *rest) -> scalar` of all that it depends on, and that `rest`.

    What `loss_fn` closes over becomes an argument too: a custom derivative sees arguments only. The batch is closed
    over, so that a loss which is called outside of `jax.jit` can look at its values.
    """

    def scalar_loss(params: PyTree) -> jax.Array:
        return loss_fn(params, batch, x)[0]

    closed = jax.make_jaxpr(scalar_loss)(params)  # `jax.closure_convert` leaves integers and booleans behind
    program, consts = closed.jaxpr, tuple(closed.consts)

    def loss(params: PyTree, *rest: jax.Array) -> jax.Array:
        return core.jaxpr_as_fun(core.ClosedJaxpr(program, rest))(*jax.tree.leaves(params))[0]

    return loss, consts
