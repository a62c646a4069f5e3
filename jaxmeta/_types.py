"""The values and callables that every part of jaxmeta exchanges."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp

PyTree: TypeAlias = Any
"""Any nested container of arrays (see ``jax.tree``)."""

Metrics: TypeAlias = dict[str, jax.Array]
"""Named scalars, such as ``{"loss": ..., "accuracy": ...}``."""


class Batch(NamedTuple):
    """Examples of one task."""

    x: Any
    """Inputs: `[n, ...]`."""
    y: Any
    """Targets: class indices `[n]` or regression targets `[n, ...]`."""
    weight: Any = None
    """Weight of each example: `[n]`, not negative, or booleans.

    An example of weight 0 is padding, which has no influence. `None` (default) counts all examples alike.
    """


class Task(NamedTuple):
    """One task: the data to adapt on, and the data that measure the adapted learner.

    For images both parts are a `Batch`; in general they are any two pytrees that the learner understands.
    """

    support: Any
    """Given to `MetaLearner.adapt`."""
    query: Any
    """Given to `MetaLearner.loss` after adaptation."""


class MetaParams(NamedTuple):
    """Meta-parameters: everything that the outer optimizer updates."""

    params: PyTree
    """The model's initial parameters."""
    learned: PyTree = ()
    """Learned part of the inner optimizer's state (see `jaxmeta.partition`). It has no leaves if nothing is learned."""


class LossFn(Protocol):
    """The only thing that knows the model: `(params, batch, key) -> (scalar loss, metrics)`."""

    def __call__(self, params: PyTree, batch: Any, key: jax.Array, /) -> tuple[jax.Array, Metrics]:
        """Returns the mean loss over `batch` and a dictionary of scalar metrics."""
        ...


class Sampler(Protocol):
    """Draws one task from one key. A pytree, so that it can be an argument of a jitted function."""

    def __call__(self, key: jax.Array, /) -> Task:
        """Returns one task. Batch with `jax.vmap` over keys."""
        ...


class TrainingState(NamedTuple):
    """State of a `Training` with one outer optimizer."""

    meta: Any
    """The meta-parameters, usually `MetaParams`."""
    opt_state: Any
    """State of the outer optimizer."""
    update: jax.Array
    """Number of updates so far."""


class Training(NamedTuple):
    """A training algorithm as two pure functions, to jit, to scan, to `vmap` over seeds, or to pass to `jaxmeta.loop`.

    Everything that trains is such a pair: few-shot learners, pre-training, learned optimizers and reinforcement
    learning. Each algorithm has a state of its own. All states have a field `meta`, which holds what is trained.
    """

    init: Callable[..., Any]
    """`(meta, key) -> state`: the state before the first update. Algorithms without random state ignore the key, which
    may then be left out."""
    step: Callable[..., tuple[Any, Metrics]]
    """`(state, key, *data) -> (state, metrics)`: one update, with scalar metrics."""


class MetaLearner(NamedTuple):
    """A meta-learning algorithm as four pure functions.

    All of them treat one task. Batch with `jax.vmap` or `jaxmeta.meta_step`.
    """

    init: Callable[[PyTree], MetaParams]
    """`(params) -> meta`: meta-parameters that start at the given model parameters."""
    adapt: Callable[[MetaParams, Any, jax.Array], Any]
    """`(meta, support, key) -> adapted`: the inner loop; the result is what `loss` accepts."""
    loss: Callable[[Any, Any, jax.Array], tuple[jax.Array, Metrics]]
    """`(adapted, batch, key) -> (scalar, metrics)`: the adapted learner's loss on a batch."""
    grad: Callable[[MetaParams, Task, jax.Array], tuple[Metrics, MetaParams]]
    """`(meta, task, key) -> (metrics, meta_gradient)`: a descent direction for the outer optimizer, for one task."""


def definite(tree: PyTree) -> PyTree:
    """Returns the arrays with strong types, so that a jitted step that returns them traces once."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), tree)
