"""Parts of a model's parameters, as values."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxmeta._types import PyTree
from jaxmeta.display import brief, short_repr


class Part(NamedTuple):
    """A part of some parameters: how to take it out, and how to put it back."""

    take: Callable[[PyTree], PyTree]
    """`(params) -> part`."""
    put: Callable[[PyTree, PyTree], PyTree]
    """`(part, params) -> params`, with `part` in its place."""

    __repr__ = short_repr


def named(name: str, *, inside: bool = True, argument: str = "head") -> Part:
    """Returns the parameters that have a name in their path, such as those of a layer.

    Args:
        name: key in the path of each of these parameters, such as `"head"` in the models of `jaxmeta.models`.
        inside: take these parameters (default). Otherwise take all others.
        argument: name of the argument `name` in the error message.

    Returns:
        A `Part`. Its functions raise a ValueError if no parameter or every parameter has the name.

    Example:
        >>> head = named("head")
        >>> head.take({"body": 1.0, "head": 2.0})
        {'body': None, 'head': 2.0}
        >>> head.put({"body": None, "head": 3.0}, {"body": 1.0, "head": 2.0})
        {'body': 1.0, 'head': 3.0}
    """

    def take(params: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten_with_path(params)
        chosen = [(name in _names(path)) == inside for path, _ in leaves]
        if all(chosen) or not any(chosen):
            paths = [jax.tree_util.keystr(path) for path, _ in leaves]
            raise ValueError(f"{argument} must name a part of the parameters, got {name!r}. The parameters are {paths}")
        return structure.unflatten(leaf if take else None for take, (_, leaf) in zip(chosen, leaves, strict=True))

    return Part(take, _fill)


def as_part(part: str | Part, argument: str = "head") -> Part:
    """Returns a part of the parameters that may be given by the name in their paths, see `named`."""
    if not isinstance(part, str | Part):
        raise TypeError(f"{argument} must be a name in the path of the parameters or a Part, got {brief(part)}")
    return named(part, argument=argument) if isinstance(part, str) else part


def others(part: Part) -> Part:
    """Returns the parameters that are not in a part.

    Args:
        part: a part whose `take` puts `None` in place of all others, as `named` does.

    Returns:
        A `Part`.

    Example:
        >>> others(named("head")).take({"body": 1.0, "head": 2.0})
        {'body': 1.0, 'head': None}
    """

    def take(params: PyTree) -> PyTree:
        taken = part.take(params)
        return jax.tree.map(lambda mine, leaf: leaf if mine is None else None, taken, params, is_leaf=_is_none)

    return Part(take, _fill)


def _fill(part: PyTree, params: PyTree) -> PyTree:
    """Puts the leaves of `part` that are not `None` in the place of those of `params`."""
    return jax.tree.map(lambda new, old: old if new is None else new, part, params, is_leaf=_is_none)


def _is_none(node: Any) -> bool:
    return node is None


def _names(path: tuple[Any, ...]) -> set[str]:
    return {str(getattr(entry, "key", getattr(entry, "name", entry))) for entry in path}
