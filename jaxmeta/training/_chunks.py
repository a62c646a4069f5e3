"""Compiled chunks of updates, and what is said when a number in them is not finite."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._types import Metrics, PyTree, Training
from jaxmeta.training._log import Snapshot

_LARGE = 2**26  # bytes


def chunk_runner(
    training: Training, data: tuple[Any, ...], key: jax.Array, skip_nonfinite: bool, donate: bool
) -> Callable[[Snapshot, int, int], tuple[Snapshot, dict[str, float]]]:
    """A function that runs `size` updates after update `start` as one program.

    It raises FloatingPointError if a metric or a meta-parameter is not finite. With `skip_nonfinite` it drops such
    updates, and raises only if it has dropped all of them. With `donate` the new state takes the memory of the old one.
    """

    def run(state: Any, key: jax.Array, numbers: jax.Array, data: tuple[Any, ...]) -> Any:
        def body(state: Any, number: jax.Array) -> tuple[Any, Metrics]:
            new, metrics = training.step(state, jax.random.fold_in(key, number), *data)
            if not skip_nonfinite:
                return new, metrics
            finite = jnp.stack(jax.tree.leaves(jax.tree.map(_is_finite, (new.meta, metrics)))).all()
            new = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
            return new, {**metrics, "skipped": 1.0 - finite}

        state, metrics = jax.lax.scan(body, state, numbers)
        return state, metrics, jax.tree.map(_is_finite, state.meta)

    compiled = jax.jit(run, donate_argnums=0 if donate else ())

    def run_chunk(snapshot: Snapshot, start: int, size: int) -> tuple[Snapshot, dict[str, float]]:
        numbers = np.arange(start, start + size, dtype=np.int32)
        new, metrics, finite = compiled(snapshot.state, key, numbers, data)
        values = {name: np.asarray(value, np.float64) for name, value in metrics.items()}
        skipped = values.pop("skipped") > 0 if skip_nonfinite else np.zeros(size, bool)
        if skipped.all():
            raise _not_finite(f"every update from {start + 1} to {start + size} gave a NaN or infinite value", start)
        values = {name: value[~skipped] for name, value in values.items()}
        _check_finite(values, finite, start, start + size)
        averages = {f"train/{name}": float(value.mean()) for name, value in values.items()}
        if skip_nonfinite:
            averages["train/skipped"] = float(skipped.sum())
        return snapshot._replace(state=new), averages

    return run_chunk


def is_large(state: PyTree) -> bool:
    """Tells whether a state is so large that it should not exist twice."""
    return sum(x.nbytes for x in _arrays(state)) >= _LARGE


def is_gone(state: PyTree) -> bool:
    """Tells whether a newer state has taken the memory of this one."""
    return any(x.is_deleted() for x in _arrays(state))


def copied(tree: PyTree) -> PyTree:
    """Returns a tree whose arrays have memory of their own."""
    return jax.tree.map(lambda x: jnp.copy(x) if isinstance(x, jax.Array) else x, tree)


def _arrays(tree: PyTree) -> list[jax.Array]:
    return [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]


def _is_finite(x: jax.Array) -> jax.Array:
    return jnp.isfinite(x).all() if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.asarray(True)


def _check_finite(metrics: Mapping[str, np.ndarray], finite: PyTree, start: int, end: int) -> None:
    first = {name: start + 1 + int(np.argmin(np.isfinite(v))) for name, v in metrics.items() if not _all_finite(v)}
    bad = [jax.tree_util.keystr(path) for path, good in jax.tree.leaves_with_path(finite) if not good]
    if first:
        name = min(first, key=first.__getitem__)
        what = f"{name} became NaN or infinite at update {first[name]}"
    elif bad:
        what = f"meta{bad[0]} became NaN or infinite by update {end}"
    else:
        return
    raise _not_finite(what, start)


def _not_finite(what: str, start: int) -> FloatingPointError:
    return FloatingPointError(
        f"{what}. The state after update {start} is the last one known to be good. Try a smaller inner or outer "
        "learning rate, or optax.clip_by_global_norm in the outer optimizer. If this is the first update, the inner "
        "optimizer may have no derivative where it starts, as optax.contrib.dog: try first_order() or another one"
    )


def _all_finite(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all())
