"""Work that is the same in every inner step, done once."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core

from jaxmeta._types import LossFn, Metrics, PyTree


def hoisted(loss_fn: LossFn, params: PyTree, batch: Any, key: Any) -> LossFn:
    """Returns `loss_fn` for a fixed batch, with all that does not depend on the parameters or the key computed here.

    The result is equal. Derivatives with respect to what `loss_fn` closes over pass once through what was computed
    here, and not once per inner step. So a body that does not adapt costs one pass and one backward pass.

    Args:
        loss_fn: `(params, batch, key) -> (loss, metrics)`.
        params: parameters, for their shapes.
        batch: the batch of all steps.
        key: a key, for its type.

    Returns:
        A loss that ignores its batch.
    """

    def traced(params: PyTree, key: Any) -> tuple[jax.Array, Metrics]:
        return loss_fn(params, batch, key)

    closed, shapes = jax.make_jaxpr(traced, return_shape=True)(params, key)
    closed = jax.make_jaxpr(lambda *leaves: _inlined(closed.jaxpr, closed.consts, leaves))(
        *jax.tree.leaves((params, key))
    )
    structure = jax.tree.structure(shapes)
    early, late, needed = _divide(closed.jaxpr)
    values = core.jaxpr_as_fun(core.ClosedJaxpr(early, closed.consts))() if needed else []

    def rest(params: PyTree, batch: Any, key: Any) -> tuple[jax.Array, Metrics]:
        del batch
        leaves = jax.tree.leaves((params, key))
        return structure.unflatten(core.jaxpr_as_fun(core.ClosedJaxpr(late, values))(*leaves))

    return rest


def _inlined(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Evaluates a program with the functions inlined that `jax.jit` compiled, such as the whole model."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    for equation in jaxpr.eqns:
        if equation.primitive.name in ("jit", "pjit"):
            inner = equation.params["jaxpr"]
            found = _inlined(inner.jaxpr, inner.consts, [read(v) for v in equation.invars])
        else:
            used = [*dict.fromkeys(v for v in equation.invars if not isinstance(v, core.Literal))]
            names = jaxpr.debug_info.with_unknown_names()
            one = jaxpr.replace(constvars=[], invars=used, outvars=equation.outvars, eqns=[equation], debug_info=names)
            found = core.jaxpr_as_fun(core.ClosedJaxpr(one, []))(*map(read, used))
        values.update(zip(equation.outvars, found, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _divide(jaxpr: Any) -> tuple[Any, Any, list[Any]]:
    """Divides a program into what depends on its arguments and what does not, and the values that pass between."""
    depends = set(jaxpr.invars)
    early, late = [], []
    for equation in jaxpr.eqns:
        mine = depends.intersection(v for v in equation.invars if not isinstance(v, core.Literal))
        if mine or equation.effects:
            depends.update(equation.outvars)
            late.append(equation)
        else:
            early.append(equation)
    used = [v for equation in late for v in equation.invars] + list(jaxpr.outvars)
    needed = list(dict.fromkeys(v for v in used if not isinstance(v, core.Literal) and v not in depends))
    return (
        jaxpr.replace(invars=[], outvars=needed, eqns=early, debug_info=jaxpr.debug_info.with_unknown_names()),
        jaxpr.replace(constvars=needed, eqns=late),
        needed,
    )
