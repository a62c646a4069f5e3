"""The division of a model into its trained and its carried variables, for every model library."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, struct


@struct.dataclass
class Static:
    """A leaf that is no array, such as the activation function of an equinox module, as a pytree without leaves."""

    value: Any = struct.field(pytree_node=False)


def split(variables: Any) -> tuple[Any, Any]:
    """Divides the variables of a model into what is trained and what is only carried.

    Carried leaves are never adapted, optimized, decayed, perturbed or given a rate. They are

    - of Linen variables, which are a mapping with the key `"params"`: all other collections, such as `batch_stats`,
    - of an NNX module or its state: all variables that are no `nnx.Param`, such as `nnx.BatchStat` and random streams,
    - of any tree: integers, booleans, random keys, and leaves that are no arrays, such as functions.

    Args:
        variables: Linen variables, an NNX module or its `State`, an equinox module, or any pytree.

    Returns:
        `(trained, carried)`, both shaped like `variables`, with `None` in place of what the other one holds. `carried`
        is `()` if everything is trained.

    Example:
        >>> trained, carried = split({"params": {"w": jnp.ones(2)}, "batch_stats": {"mean": jnp.zeros(2)}})
        >>> trained["batch_stats"], carried["params"]
        ({'mean': None}, {'w': None})
    """
    if isinstance(variables, nnx.Module):
        variables = nnx.state(variables)
    collections = isinstance(variables, Mapping) and not isinstance(variables, nnx.State) and "params" in variables

    def carries(path: tuple[Any, ...], node: Any) -> bool:
        if isinstance(node, nnx.Variable):
            return not isinstance(node, nnx.Param)
        return (collections and path[0].key != "params") or not _is_real(node)

    paths, structure = jax.tree.flatten_with_path(variables, is_leaf=is_variable)
    parts = [(carries(path, node), node) for path, node in paths]
    if not any(carried for carried, _ in parts):
        return variables, ()
    trained = structure.unflatten(None if carried else node for carried, node in parts)
    return trained, structure.unflatten(_wrapped(node) if carried else None for carried, node in parts)


def merge(trained: Any, carried: Any) -> Any:
    """Joins what `split` divided.

    Args:
        trained: the first result of `split`, or another tree of its structure.
        carried: the second one.

    Returns:
        The variables, in the form that `split` took. Of an NNX module it is the `State`.

    Example:
        >>> trained, carried = split({"params": {"w": 1.0}, "steps": {"count": 3}})
        >>> merge(trained, carried)
        {'params': {'w': 1.0}, 'steps': {'count': 3}}
    """
    if isinstance(carried, tuple) and not carried:
        return trained

    def either(ours: Any, other: Any) -> Any:
        found = other if ours is None else ours
        return found.value if isinstance(found, Static) else found

    return jax.tree.map(either, trained, carried, is_leaf=_is_place)


def carried_like(carried: Any, variables: Any) -> Any:
    """Returns the part of some variables that `carried` holds of others: the state after a pass of the model."""

    def pick(ours: Any, other: Any) -> Any:
        return ours if ours is None or isinstance(ours, Static) else other

    if not jax.tree.leaves(carried):
        return carried
    return jax.tree.map(pick, carried, variables, is_leaf=_is_place)


def change(carried: Any, before: Any) -> Any:
    """Returns what is averaged over tasks: the changes of numbers, and no other leaf."""

    def summand(new: Any, old: Any) -> Any:
        if _is_real(new):
            return new - old
        return jnp.subtract(new, old).astype(jnp.float32) if jnp.issubdtype(new.dtype, jnp.integer) else None

    return jax.tree.map(summand, carried, before)


def changed(mean: Any, before: Any) -> Any:
    """Returns the state after an update, from the mean over tasks of their `change`."""

    def after(old: Any, new: Any) -> Any:
        if new is None:
            return old
        return old + (new if _is_real(old) else jnp.round(new).astype(old.dtype))

    return jax.tree.map(after, before, mean)


def is_variable(node: Any) -> bool:
    """Returns true for a variable of NNX, which is one place of a model, though it is a pytree itself."""
    return isinstance(node, nnx.Variable)


def _is_place(node: Any) -> bool:
    return node is None or isinstance(node, nnx.Variable | Static)


def _is_array(node: Any) -> bool:
    return isinstance(node, bool | int | float | complex) or hasattr(node, "dtype")


def _is_real(node: Any) -> bool:
    """Returns true for a leaf of numbers that have derivatives."""
    return _is_array(node) and jnp.issubdtype(jnp.result_type(node), jnp.inexact)


def _wrapped(node: Any) -> Any:
    return node if _is_array(node) or isinstance(node, nnx.Variable) else Static(node)
