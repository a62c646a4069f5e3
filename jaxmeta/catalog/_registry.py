"""Everything that a run can name: learners, models, meta-gradients, benchmarks and environments."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import optax
from flax import linen as nn

from jaxmeta._checks import check_choice, check_function
from jaxmeta._names import about, check_new_name
from jaxmeta._types import LossFn, MetaLearner
from jaxmeta.catalog._options import CLASSES, TASKS, Settings
from jaxmeta.display import short_repr

FEW_SHOT = " ".join(CLASSES)
"""The kinds of benchmark with classes, for `recipe`."""


class Network(NamedTuple):
    """A model and the functions that a learner needs of it."""

    model: nn.Module
    loss: LossFn
    """`(params, batch, key) -> (loss, metrics)` of its predictions."""
    head_loss: LossFn
    """Loss `(params, batch, key) -> (loss, metrics)` on a batch whose inputs are features."""
    train_features: Callable[[Any, Any, jax.Array], Any] | None
    """`(params, x, key) -> features` with dropout; `None` without dropout."""
    method: Callable[[str], Callable[..., Any]]
    """Maps the name of one of its methods to a function of the parameters and the method's arguments."""

    __repr__ = short_repr


class Recipe(NamedTuple):
    """The options that a learner has on some kinds of benchmark, with their values from a paper."""

    kinds: tuple[str, ...]
    source: str
    """Source of the values."""
    values: Mapping[str, Any]
    from_ways: int
    """Smallest number of ways for which these values hold."""

    __repr__ = short_repr


def recipe(kinds: str, source: str, *, from_ways: int = 0, **values: Any) -> Recipe:
    """Describes the options of a learner on some kinds of benchmark, separated by spaces."""
    return Recipe(tuple(kinds.split()), source, values, from_ways)


class Learner(NamedTuple):
    """A learner by its name."""

    build: Callable[..., Any]
    """Function that builds the learner.

    For few-shot tasks it is `(settings, network) -> MetaLearner`. It may also return a function from the number of
    updates to a `MetaLearner`, as `meta_step` takes it. For environments it is `(settings, env, mesh) -> Agent`.
    """
    recipes: tuple[Recipe, ...]
    about: str
    paper: str
    file: str
    trains_on: str = "tasks"
    """`"tasks"`, `"classes"` (supervised pre-training), `"features"` (pre-training, then tasks of frozen features),
    `"streams"` or `"environment"`."""
    meta_gradients: tuple[str, ...] = ()
    """Names of the meta-gradients that are defined for it."""
    models: tuple[str, ...] = ()
    """Names of the networks that it can use; all if empty."""
    needs_body: bool = False
    """True if the network must have layers before its head, which `"identity"` has not."""
    optimizer: Callable[[optax.Schedule], optax.GradientTransformation] = optax.adam
    """The outer optimizer, from its rate."""
    model: Callable[[Settings, Any, int], nn.Module] = lambda settings, network, ways: network
    """Builds the learner's model around the network that the options name."""
    dropout: bool = False
    """True if it uses the network's dropout in training."""
    has_network: bool = True
    """False if the learner's model needs no network that the options name."""


class Model(NamedTuple):
    """A model by its name."""

    build: Callable[[Settings, int], nn.Module]
    """`(settings, ways) -> network`."""
    kinds: tuple[str, ...]
    options: Mapping[str, Any]
    """The options that it has, with their defaults."""
    about: str
    paper: str
    file: str
    has_body: bool = True
    """False if the inputs are the features."""


class NamedMetaGradient(NamedTuple):
    """A meta-gradient by its name."""

    build: Callable[[Settings], Any]
    options: Mapping[str, Any]
    """The options that it has, with their defaults."""
    about: str
    paper: str
    file: str


TRAINS_ON = ("tasks", "classes", "features", "streams")
LEARNERS: dict[str, Learner] = {}
MODELS: dict[str, Model] = {}
META_GRADIENTS: dict[str, NamedMetaGradient] = {}


def description(thing: Any) -> tuple[str, str, str]:
    """Returns the first line of an object's docstring, its first reference, and its file."""
    check_function(build=thing)
    return *about(thing), inspect.getsourcefile(inspect.unwrap(thing)) or ""


def add(registry: dict[str, Any], kind: str, name: str, entry: Any) -> None:
    """Adds an entry under a new name; the same entry may be added again.

    Raises:
        ValueError: if the name is taken or is not made of lower-case letters, digits and hyphens.
    """
    check_new_name(kind, name, (known for known, e in registry.items() if not (known == name and e.file == entry.file)))
    registry[name] = entry


def register_learner(
    name: str,
    build: Callable[[Settings, Network], MetaLearner | Callable[[jax.Array], MetaLearner]],
    recipes: Sequence[Recipe],
    *,
    about: Any = None,
    trains_on: str = "tasks",
    meta_gradients: tuple[str, ...] = (),
    models: tuple[str, ...] = (),
    needs_body: bool = False,
    dropout: bool = False,
    optimizer: Callable[[optax.Schedule], optax.GradientTransformation] = optax.adam,
    model: Callable[[Settings, Any, int], nn.Module] = lambda settings, network, ways: network,
    has_network: bool = True,
) -> None:
    """Adds a few-shot learner, for `--learner name` and `Experiment(learner=name)`.

    Args:
        name: lower-case letters, digits and hyphens.
        build: `(settings, network) -> MetaLearner`. `settings` has the options of the recipe as attributes, and
            `network.loss` is a `jaxmeta.LossFn` of the run's model. For a learner that changes during training return
            a function from the number of updates so far to a `MetaLearner`, as `jaxmeta.meta_step` takes it.
        recipes: the options that the learner has on each kind of benchmark, made by `register.recipe`.
        about: object whose docstring describes the learner, such as its factory; `build` if `None`.
        trains_on: `"tasks"`; `"classes"` for a learner whose network is pre-trained as a classifier and that only
            adapts; `"features"` for one that is meta-trained on the features of such a network; `"streams"` for tasks
            whose classes come one after the other.
        meta_gradients: names of the meta-gradients that are defined for it, if a recipe has the option `meta_gradient`.
        models: names of the networks that it can use; all if empty.
        needs_body: whether the network must have layers before its head, which `"identity"` has not.
        dropout: whether it uses dropout in meta-training, through `network.train_features`.
        optimizer: the outer optimizer, a function of its rate.
        model: `(settings, network, ways) -> model`, for a learner that builds a model around the network.
        has_network: whether there is a network in its model that the option `model` names.

    Raises:
        ValueError: if the name is taken or malformed, or a kind of benchmark or of training is unknown.

    Example:
        >>> import jaxmeta
        >>> from jaxmeta import register
        >>> def build(settings, network):
        ...     return jaxmeta.maml(network.loss, optax.sgd(settings.inner_rate), settings.steps)
        >>> register.learner("my-maml", build, [
        ...     register.recipe("images", "my notes", steps=1, inner_rate=0.4, outer_rate=1e-3,
        ...                     outer_schedule="constant", num_tasks=4)])
        >>> jaxmeta.Experiment(learner="my-maml", steps=2).resolve().steps
        2
    """
    check_choice("trains_on", trains_on, TRAINS_ON)
    for each in recipes:
        for kind in each.kinds:
            check_choice("kind of a recipe", kind, TASKS)
    entry = Learner(
        build,
        tuple(recipes),
        *description(about or build),
        trains_on=trains_on,
        meta_gradients=meta_gradients,
        models=models,
        needs_body=needs_body,
        dropout=dropout,
        optimizer=optimizer,
        model=model,
        has_network=has_network,
    )
    add(LEARNERS, "learner", name, entry)
