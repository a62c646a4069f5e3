"""Optax inside jaxmeta: the marker of learned state, and the update with the extra arguments that some need."""

import inspect
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxmeta._types import PyTree
from jaxmeta.display import short_repr


@struct.dataclass
class Learned:
    """Marks a part of an optax state whose *initial* value is meta-learned.

    A learned inner optimizer is an ordinary `optax.GradientTransformation` that wraps some of its state in `Learned`.
    It composes with `optax.chain`, `optax.masked`, `optax.partition` and the rest, because to optax it is just state.

    Attributes:
        value: any pytree of arrays.
    """

    value: PyTree

    __repr__ = short_repr


def _is_learned(node: Any) -> bool:
    return isinstance(node, Learned)


def partition(state: PyTree) -> tuple[PyTree, PyTree]:
    """Splits an optax state into its learned part and the rest.

    Args:
        state: what `GradientTransformation.init` returned.

    Returns:
        `(learned, rest)`, both shaped like `state`, with `None` in place of what the other one holds. `learned` has
        no leaves if nothing in `state` is marked.

    Example:
        >>> state = {"rate": Learned(0.1), "count": 0}
        >>> partition(state)
        ({'count': None, 'rate': Learned(value=0.1)}, {'count': 0, 'rate': None})
    """
    learned = jax.tree.map(lambda node: node if _is_learned(node) else None, state, is_leaf=_is_learned)
    rest = jax.tree.map(lambda node: None if _is_learned(node) else node, state, is_leaf=_is_learned)
    return learned, rest


def combine(learned: PyTree, rest: PyTree) -> PyTree:
    """Puts a learned part back into an optax state: the inverse of `partition`.

    Args:
        learned: the first result of `partition`. A tree without leaves, such as `None` or `()`, changes nothing, so
            that what nothing was learned for fits every optimizer.
        rest: the second result of `partition`, or a whole state, whose own `Learned` are then replaced.

    Returns:
        The whole state.

    Raises:
        ValueError: if the learned values are those of another optimizer or of other parameters.

    Example:
        >>> combine({"rate": Learned(0.2), "count": None}, {"rate": Learned(0.1), "count": 0})
        {'count': 0, 'rate': Learned(value=0.2)}
    """
    if not jax.tree.leaves(learned):
        return rest

    def replaced(new: Any, old: Any) -> Any:
        if _is_learned(old) and new is not None and _shapes(new) != _shapes(old):
            raise ValueError("other shapes")
        return old if new is None else new

    try:
        return jax.tree.map(replaced, learned, rest, is_leaf=lambda node: node is None or _is_learned(node))
    except ValueError as error:
        raise _mismatch(learned, partition(rest)[0], "inner optimizer") from error


def learned_or(initial: PyTree, learned: PyTree, owner: str) -> PyTree:
    """Returns learned values of meta-parameters, or the initial values of their owner if nothing is learned.

    Raises:
        ValueError: if the learned values are those of another owner.
    """
    if not jax.tree.leaves(learned):
        return initial
    if _shapes(learned) != _shapes(initial):
        raise _mismatch(learned, initial, owner)
    return learned


def _shapes(tree: PyTree) -> Any:
    return jax.tree.structure(tree), [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]


def _mismatch(learned: PyTree, expected: PyTree, owner: str) -> ValueError:
    return ValueError(
        f"learned must fit the {owner}: it holds {_describe(learned)}, and the {owner} has {_describe(expected)}. "
        f"Meta-parameters with learned values fit learners with the same {owner}"
    )


def _describe(learned: PyTree) -> str:
    """Names the places and shapes of learned values."""
    found = [f"{jax.tree_util.keystr(path)} {[*jnp.shape(x)]}" for path, x in jax.tree.leaves_with_path(learned)]
    return f"learned values at {', '.join(found[:4])}{' ...' * (len(found) > 4)}" if found else "no learned values"


def update_with(
    optimizer: optax.GradientTransformation,
    grads: PyTree,
    state: optax.OptState,
    params: PyTree,
    *,
    value: jax.Array,
    value_fn: Callable[[PyTree], jax.Array],
    **others: Any,
) -> tuple[Any, Any]:
    """Takes a step of an optimizer, and returns `(params, state)`.

    `value`, `grad` and `value_fn` reach every optimizer that takes them: Polyak's step sizes, `reduce_on_plateau`,
    line searches, L-BFGS. Where no `value_fn` can be given, give `no_value_fn(where)`.

    A norm or a square root has no derivative at zero, so that of `optax.clip_by_global_norm` or `optax.adam` is NaN for
    a gradient of zero. There the update counts as constant in each such number, and in the value where all are zero.
    """
    seen_grads, seen_params = _nan_free(grads, params)
    # By itself: an optimizer that ignores the value must leave no pass through the loss behind.
    extra = {"value": _nan_free_value(value, grads), "grad": grads, "value_fn": value_fn, **others}
    updates, state = with_extra_args(optimizer).update(seen_grads, state, seen_params, **extra)
    return optax.apply_updates(params, updates), state


@jax.custom_vjp
def _nan_free(grads: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
    """The arguments, with a derivative of zero in place of NaN for each number that is zero or whose gradient is."""
    return grads, params


def _nan_free_forward(grads: PyTree, params: PyTree) -> tuple[Any, Any]:
    return (grads, params), (grads, params)


def _nan_free_backward(residuals: Any, cotangents: Any) -> tuple[PyTree, PyTree]:
    def clean(c: jax.Array, grad: jax.Array, x: jax.Array) -> jax.Array:
        return without_nan(c, (grad == 0) | (x == 0))

    grads, params = residuals
    of_grads, of_params = cotangents
    return jax.tree.map(clean, of_grads, grads, grads), jax.tree.map(clean, of_params, grads, params)


_nan_free.defvjp(_nan_free_forward, _nan_free_backward)


@jax.custom_vjp
def _nan_free_value(value: jax.Array, grads: PyTree) -> jax.Array:
    """The value, with a derivative of zero in place of NaN where all gradients are zero."""
    del grads
    return value


def _nan_free_value_forward(value: jax.Array, grads: PyTree) -> tuple[jax.Array, PyTree]:
    return value, grads


def _nan_free_value_backward(grads: PyTree, cotangent: jax.Array) -> tuple[jax.Array, PyTree]:
    return without_nan(cotangent, all_zero(grads)), jax.tree.map(jnp.zeros_like, grads)


_nan_free_value.defvjp(_nan_free_value_forward, _nan_free_value_backward)


def all_zero(grads: PyTree) -> jax.Array:
    """Returns whether every number of a gradient is zero."""
    return jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda grad: jnp.all(grad == 0), grads), jnp.array(True))


def without_nan(derivative: jax.Array, where: jax.Array) -> jax.Array:
    """Returns a derivative with zero in place of NaN at some places."""
    if derivative.dtype == jax.dtypes.float0:
        return derivative
    return jnp.where(where & jnp.isnan(derivative), jnp.zeros_like(derivative), derivative)


def no_value_fn(where: str) -> Callable[[PyTree], NoReturn]:
    """Builds a `value_fn` that says that optimizers which call it (line searches, `optax.lbfgs`) cannot be used."""

    def value_fn(params: PyTree) -> NoReturn:
        del params
        raise TypeError(
            f"optimizer must not evaluate the loss at other parameters in {where}, as a line search or optax.lbfgs does"
        )

    return value_fn


def with_extra_args(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer as one that takes all extra arguments, and leaves out those that it does not know.

    Its signature decides. The type of `optax.MultiSteps` hides that it takes them, and that of `optax.contrib.sam` says
    that it does.
    """
    known = inspect.signature(optimizer.update).parameters

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return optimizer.update(updates, state, params, **{name: extra[name] for name in extra if name in known})

    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values()):
        return optax.GradientTransformationExtraArgs(*optimizer)
    return optax.GradientTransformationExtraArgs(optimizer.init, update)
