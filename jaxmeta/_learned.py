"""The marker that makes part of an optax state a meta-parameter, and how to take it out and put it back."""

from typing import Any

import jax
from flax import struct

from jaxmeta._types import PyTree


@struct.dataclass
class Learned:
    """Marks a part of an optax state whose *initial* value is meta-learned.

    A learned inner optimizer is an ordinary `optax.GradientTransformation` that wraps some of its state in `Learned`.
    It composes with `optax.chain`, `optax.masked`, `optax.partition` and the rest, because to optax it is just state.

    Attributes:
        value: any pytree of arrays.
    """

    value: PyTree


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
    try:
        return jax.tree.map(
            lambda new, old: old if new is None else new,
            learned,
            rest,
            is_leaf=lambda node: node is None or _is_learned(node),
        )
    except ValueError as error:
        raise ValueError(
            f"learned must fit the inner optimizer: it holds {_describe(learned)}, and the optimizer's state has "
            f"{_describe(rest)}. Meta-parameters with learned values fit learners with the same inner optimizer"
        ) from error


def _describe(state: PyTree) -> str:
    """Names the places of `Learned` values in a state."""
    found = [path for path, node in jax.tree.leaves_with_path(state, is_leaf=_is_learned) if _is_learned(node)]
    names = [jax.tree_util.keystr(path) for path in found]
    return f"learned values at {', '.join(names[:4])}{' ...' * (len(names) > 4)}" if names else "no learned values"
