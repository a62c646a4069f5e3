"""The values and callables that every part of jaxmeta exchanges."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._variables import merge, split
from jaxmeta.display import brief, short_repr, task_html

PyTree: TypeAlias = Any
"""Any nested container of arrays (see ``jax.tree``)."""

Metrics: TypeAlias = dict[str, jax.Array]
"""Named scalars, such as ``{"loss": ..., "accuracy": ...}``."""


class _Pair(NamedTuple):
    """Inputs and targets, as `Batch` has them."""

    x: Any
    """Inputs: `[n, ...]`."""
    y: Any
    """Targets: class indices `[n]` or regression targets `[n, ...]`."""


class WeightedBatch(NamedTuple):
    """Examples with weights, which `Batch(x, y, weight)` makes."""

    x: Any
    """Inputs: `[n, ...]`."""
    y: Any
    """Targets: class indices `[n]` or regression targets `[n, ...]`."""
    weight: Any
    """Weight of each example: `[n]`, not negative, or booleans. An example of weight 0 is padding without influence."""

    __repr__ = short_repr


class Batch(_Pair):
    """Examples of one task, a pair `(x, y)`.

    `Batch(x, y, weight)` with weights `[n]` is a `WeightedBatch`. Weights are not negative, or booleans. An example of
    weight 0 is padding, which has no influence. Without weights all examples count alike.

    Example:
        >>> x, y = Batch(jnp.zeros((2, 3)), jnp.array([0, 1]))
        >>> Batch(x, y).weight is None, Batch(x, y, jnp.array([1.0, 0.0])).weight.tolist()
        (True, [1.0, 0.0])
    """

    __slots__ = ()

    def __new__(cls, x: Any, y: Any, weight: Any = None) -> Any:
        """Makes a pair, or with weights a `WeightedBatch`."""
        return super().__new__(cls, x, y) if weight is None else WeightedBatch(x, y, weight)

    @property
    def weight(self) -> Any:
        """None, which counts all examples alike."""
        return None

    __repr__ = short_repr


class Task(NamedTuple):
    """One task: the data to adapt on, and the data that measure the adapted learner.

    For images both parts are a `Batch`; in general they are any two pytrees that the learner understands.
    """

    support: Any
    """Given to `MetaLearner.adapt`."""
    query: Any
    """Given to `MetaLearner.loss` after adaptation."""

    __repr__ = short_repr
    _repr_html_ = task_html


class MetaParams(NamedTuple):
    """Meta-parameters: everything that the outer optimizer updates."""

    params: PyTree
    """The model's initial parameters, which the outer optimizer trains."""
    learned: PyTree = ()
    """Learned part of the inner optimizer's state (see `jaxmeta.partition`), trained too. `()` for none."""
    state: PyTree = ()
    """The state that the model carries and no optimizer sees, such as running statistics (see `jaxmeta.split`).

    In a meta-gradient it is the state after the task."""

    __repr__ = short_repr

    @classmethod
    def of(cls, variables: Any) -> "MetaParams":
        """Returns meta-parameters of a model alone, with its trained and carried variables in their places."""
        params, state = split(variables)
        return cls(params, state=state)

    @property
    def variables(self) -> PyTree:
        """The model's parameters and its state as one tree, in the form that `MetaLearner.init` took."""
        return merge(self.params, self.state)


class LossFn(Protocol):
    """The only thing that knows the model: `(params, batch, key) -> (scalar loss, metrics)`.

    A plain function does for most models. `jaxmeta.Loss` tells training from test.
    """

    def __call__(self, params: PyTree, batch: Any, key: jax.Array, /) -> tuple[jax.Array, Metrics]:
        """Returns the mean loss over `batch` and a dictionary of scalar metrics."""
        ...


class Sampler(Protocol):
    """Draws one task from one key. A pytree, so that it can be an argument of a jitted function."""

    def __call__(self, key: jax.Array, /) -> Task:
        """Returns one task. Batch with `jax.vmap` over keys."""
        ...


class Details(NamedTuple):
    """Everything that `evaluate` knows of its tasks beside the metrics, given with `details=True`."""

    outputs: Any
    """Predictions of `MetaLearner.predict` for the queries, such as logits `[num_tasks, n, ways]`.

    `None` if the learner does not know its model."""
    y: Any
    """Labels or targets of the queries: `[num_tasks, n, ...]`."""
    weight: Any
    """Weights of the queries, `[num_tasks, n]`, or `None` if they all count alike."""
    class_ids: Any
    """Number of the class that each label stands for, `[num_tasks, ways]`: label 2 of task 7 is `class_ids[7, 2]`.

    A number is an index of the sampler's `class_names`, if it has any. `None` if the sampler has no method
    `class_ids`."""
    steps: Any
    """Metrics before the first inner step and after each one, `[num_tasks, steps + 1]`.

    `None` for learners without inner steps."""

    __repr__ = short_repr


class TrainingState(NamedTuple):
    """State of a `Training` with one outer optimizer."""

    meta: Any
    """The meta-parameters, usually `MetaParams`."""
    opt_state: Any
    """State of the outer optimizer."""
    update: jax.Array
    """Number of updates so far."""

    __repr__ = short_repr


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

    __repr__ = short_repr


def call_adapted(adapted: Any, x: Any) -> Any:
    """Calls the result of `MetaLearner.adapt`, which many learners make a function of inputs."""
    if not callable(adapted):
        raise TypeError(
            "predict needs to know the model: give the learner a loss that has `predict`, such as "
            "jaxmeta.classification(model), jaxmeta.regression(model) or jaxmeta.Loss(train, test, predict)"
        )
    return adapted(x)


class MetaLearner(NamedTuple):
    """A meta-learning algorithm as five pure functions, and a sixth one for learners with inner steps.

    All of them treat one task. Batch with `jax.vmap` or `jaxmeta.meta_step`.
    """

    init: Callable[[PyTree], MetaParams]
    """`(variables) -> meta`: meta-parameters that start at the given parameters, in the form that the model's library
    gives: Linen variables, an NNX module or its state, an equinox module, or any pytree (see `jaxmeta.split`)."""
    adapt: Callable[[MetaParams, Any, jax.Array], Any]
    """`(meta, support, key) -> adapted`: the inner loop; the result is what `loss` accepts."""
    loss: Callable[[Any, Any, jax.Array], tuple[jax.Array, Metrics]]
    """`(adapted, batch, key) -> (scalar, metrics)`: the adapted learner's loss on a batch."""
    grad: Callable[[MetaParams, Task, jax.Array], tuple[Metrics, MetaParams]]
    """`(meta, task, key) -> (metrics, meta_gradient)`: a descent direction for the outer optimizer, for one task. Its
    `state` holds the model's state after the task."""
    predict: Callable[[Any, Any], Any] = call_adapted
    """`(adapted, x) -> predictions`: what the adapted learner says about inputs `[n, ...]`, such as logits."""
    follow: Callable[[MetaParams, Task, jax.Array, jax.Array], tuple[Any, Metrics]] | None = None
    """`(meta, task, adapt_key, loss_key) -> (adapted, metrics)`: `adapt`, with the metrics of `loss` on the query set
    before the first inner step and after each one, `[steps + 1]`. `None` for learners without inner steps."""

    __repr__ = short_repr


def predictions_of(learner: MetaLearner, adapted: Any, query: Any) -> Any:
    """Returns the predictions for the inputs of a batch, or `None` if the learner does not know its model."""
    knows_model = learner.predict is not call_adapted or callable(adapted)
    return learner.predict(adapted, query.x) if knows_model and hasattr(query, "x") else None


def class_ids_of(sampler: Any, key: jax.Array) -> jax.Array | None:
    """Returns the number of the class of each label in the task of a key, or `None` if the sampler does not know."""
    find = getattr(sampler, "class_ids", None)
    return None if find is None else find(key)


def with_loss(loss: jax.Array, metrics: Metrics) -> Metrics:
    """Returns the metrics together with the loss.

    Raises:
        ValueError: if a metric is named `"loss"` or is not a scalar.
    """
    if "loss" in metrics:
        raise ValueError("metrics must not have the name 'loss', which is the loss itself")
    for name, value in metrics.items():
        if jnp.ndim(value):
            raise ValueError(f"metrics must be scalars, got shape {jnp.shape(value)} for {name!r}")
    return {"loss": loss, **metrics}


def is_key(leaf: Any) -> bool:
    """Returns true for a random key with a type of its own."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def definite(tree: PyTree) -> PyTree:
    """Returns the arrays with strong types, so that a jitted step that returns them traces once."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), tree)


def at_least_float32(tree: PyTree) -> PyTree:
    """Widens values of half precision to float32, such as the outputs of a model before a loss or a linear solve."""

    def widen(x: jax.Array) -> jax.Array:
        return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(widen, tree)


def check_meta(meta: Any) -> None:
    """Raises TypeError unless a value is `MetaParams`."""
    if isinstance(meta, MetaParams):
        return
    hint = "pass its field meta" if hasattr(meta, "meta") else "learner.init(params) makes them of parameters"
    raise TypeError(f"meta must be MetaParams, got {brief(meta)}: {hint}")


def check_task(task: Any) -> Any:
    """Returns a task, such as what a sampler drew, and raises TypeError unless it is a `Task`."""
    if not isinstance(task, Task):
        raise TypeError(f"task must be a jaxmeta.Task(support, query), got {brief(task)}")
    return task


def check_batch(batch: Any) -> None:
    """Raises TypeError unless a value is a `Batch` of arrays."""
    if not isinstance(batch, Batch | WeightedBatch) and not all(hasattr(batch, name) for name in ("x", "y", "weight")):
        hint = ": pass its part support or query" if isinstance(batch, Task) else ": write jaxmeta.Batch(x, y)"
        raise TypeError(f"batch must be a Batch, got {brief(batch)}{hint}")
    for name, value in {"x": batch.x, "y": batch.y}.items():
        leaves = [value] if isinstance(value, list) else jax.tree.leaves(value) or [value]
        strange = [leaf for leaf in leaves if not isinstance(leaf, np.ndarray | np.generic | jax.Array | int | float)]
        if strange:
            raise TypeError(f"batch.{name} must be of arrays, got {brief(strange[0])}: jnp.asarray makes one")


def check_key(key: Any) -> None:
    """Raises TypeError unless a value is one random key, of the new or the old kind."""
    old = hasattr(key, "dtype") and key.dtype == np.uint32 and key.ndim == 1
    if not old and not (is_key(key) and key.ndim == 0):
        raise TypeError(f"key must be one random key, such as jax.random.key(0), got {brief(key)}")


def check_state(state: Any) -> None:
    """Raises TypeError unless a value is a `TrainingState`."""
    if not isinstance(state, TrainingState):
        raise TypeError(f"state must be a TrainingState, got {brief(state)}: training.init(meta) makes one")
