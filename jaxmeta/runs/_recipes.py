"""How an `Experiment` builds each learner, and what its options are if left open: the values of the learner's paper."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxmeta import models
from jaxmeta.meta_gradients import cg
from jaxmeta._losses import regression
from jaxmeta.meta_gradients import MetaGradient, first_order, mixed, reverse
from jaxmeta._types import LossFn, MetaLearner
from jaxmeta.algorithms import (
    ContextTransformer,
    NeuralProcess,
    RelationNet,
    anil,
    boil,
    cavia,
    conditional_neural_process,
    fomaml,
    imaml,
    in_context,
    lr_d2,
    maml,
    maml_plus_plus,
    matching_network,
    meta_baseline,
    meta_curvature,
    meta_kfo,
    meta_sgd,
    metaoptnet,
    multi_step_weights,
    protonet,
    r2d2,
    relation_network,
    reptile,
)

if TYPE_CHECKING:
    from jaxmeta.runs._experiment import Experiment
    from jaxmeta.runs._run import Run

_SCHEDULES = {
    "constant": lambda rate, steps: optax.constant_schedule(rate),
    "linear": lambda rate, steps: optax.linear_schedule(rate, 0.0, steps),
    "cosine": optax.cosine_decay_schedule,
}


class Network(NamedTuple):
    """What a learner needs of the model."""

    loss: LossFn
    """Of its predictions."""
    method: Callable[[str], Callable[..., Any]]
    """One of its methods by name, as a function of the parameters and the method's arguments."""


class Recipe(NamedTuple):
    """One learner."""

    build: Callable[["Experiment", Network], MetaLearner | Callable[[jax.Array], MetaLearner]]
    """From an experiment without open options: what `train` takes."""
    images: Mapping[str, Any] | None
    """Options for few-shot classification, as the paper has them for Omniglot, if it can do that."""
    from_20_ways: Mapping[str, Any] = {}
    """What of it changes from 20 ways on."""
    regression: Mapping[str, Any] | None = None
    """Options for sinusoids, if it can do regression."""
    model: Callable[["Experiment", nn.Module], nn.Module] = lambda this, network: network
    """What the learner makes of the network that the options name."""


def _steps(this: "Experiment") -> dict[str, Any]:
    return {"steps": this.steps or 1, "test_steps": this.test_steps}


def make_meta_gradient(name: str | None, remat: bool = False) -> MetaGradient:
    """The meta-gradient of an option."""
    return first_order() if name == "first-order" else (mixed if name == "mixed" else reverse)(remat=remat)


def _inner_loop(this: "Experiment") -> dict[str, Any]:
    return {**_steps(this), "meta_gradient": make_meta_gradient(this.meta_gradient, this.remat)}


def _rate(this: "Experiment") -> float:
    return this.inner_rate or 0.0


def _sgd(this: "Experiment") -> optax.GradientTransformation:
    return optax.sgd(_rate(this))


def _build_maml_plus_plus(this: "Experiment", network: Network) -> Callable[[jax.Array], MetaLearner]:
    annealed, second_order_from = 0.1 * this.iterations, _FIRST_ORDER_SHARE * this.iterations

    def at_update(number: jax.Array) -> MetaLearner:
        weights = multi_step_weights(this.steps or 1, number / annealed)
        options: dict[str, Any] = {"step_weights": weights, "second_order": number >= second_order_from}
        return maml_plus_plus(network.loss, _rate(this), **_inner_loop(this), **options)

    return at_update


def _build_imaml(this: "Experiment", network: Network) -> MetaLearner:
    damped = cg(5, damping=1.0)  # the paper's code: 5 iterations, damping 1
    return imaml(network.loss, _sgd(this), **_steps(this), proximal=this.proximal or 1.0, solver=damped)


def _build_reptile(this: "Experiment", network: Network) -> MetaLearner:
    inner = optax.adam(_rate(this), b1=0.0)
    batches = {"batch_size": this.inner_batch, "test_batch_size": this.test_inner_batch}
    return reptile(network.loss, inner, this.steps or 1, test_steps=this.test_steps, **batches)


def _with_head(make: Callable[..., MetaLearner]) -> Recipe:
    """The recipe of a learner that fits a head to features: more ways in training than at test."""

    def build(this: "Experiment", network: Network) -> MetaLearner:
        return make(network.method("features"), _ways(this), test_ways=this.ways)

    return Recipe(build, _METRIC)


def _build_relation_network(this: "Experiment", network: Network) -> MetaLearner:
    features, relation = network.method("features"), network.method("relation")
    return relation_network(features, relation, _ways(this), test_ways=this.ways)


def _build_in_context(this: "Experiment", network: Network) -> MetaLearner:
    loss_fn = regression(lambda predictor, x: predictor(x)) if this.regressing else None
    return in_context(network.method("encode"), network.method("decode"), loss_fn)


_FIRST_ORDER_SHARE = 0.3  # of MAML++'s training, as 50 of 150 epochs in its paper
_OUTER = {"outer_rate": 1e-3, "outer_schedule": "constant", "num_tasks": 32}
_FOMAML = {**_OUTER, "steps": 1, "test_steps": 3, "inner_rate": 0.4}
_MAML = {**_FOMAML, "meta_gradient": "reverse"}
_MAML_20 = {"steps": 5, "test_steps": 5, "inner_rate": 0.1, "num_tasks": 16}
_META_SGD = {**_MAML, "inner_rate": 0.1, "test_steps": 1}
_META_CURVATURE = {**_MAML, "test_steps": 1}
_MAML_PLUS_PLUS = {**_MAML, "steps": 5, "test_steps": 5, "inner_rate": 0.1, "outer_schedule": "cosine", "num_tasks": 8}
_BOIL = {**_MAML, "inner_rate": 0.5, "test_steps": 1}
_IMAML = {**_OUTER, "steps": 16, "test_steps": 16, "inner_rate": 0.1, "proximal": 2.0}
_CAVIA = {**_MAML, "inner_rate": 1.0, "steps": 2, "test_steps": 2, "context_size": 100}
_REPTILE = {
    "steps": 5,
    "test_steps": 50,
    "inner_rate": 1e-3,
    "outer_rate": 1.0,
    "outer_schedule": "linear",
    "num_tasks": 5,
    "train_shots": 10,
    "inner_batch": 10,
    "test_inner_batch": 5,
}
_REPTILE_20 = {"steps": 10, "inner_rate": 5e-4, "inner_batch": 20, "test_inner_batch": 10}

_EPISODES = {"queries": 5, "test_queries": 15, "outer_rate": 1e-3, "outer_schedule": "cosine", "num_tasks": 16}
_METRIC = {"train_ways": 60, **_EPISODES, "outer_rate": 3e-3, "num_tasks": 1}  # ProtoNets' but for the rate

# Sinusoids: the rate is that of MAML's code; its text says 0.01, with which many a test task diverges.
_FOMAML_SINUSOID = {**_FOMAML, "inner_rate": 1e-3, "test_steps": 10, "num_tasks": 25}
_MAML_SINUSOID = {**_FOMAML_SINUSOID, "meta_gradient": "reverse"}
_MAML_PLUS_PLUS_SINUSOID = {**_MAML_SINUSOID, "steps": 5, "inner_rate": 0.01, "outer_schedule": "cosine"}
_CAVIA_SINUSOID = {**_MAML_SINUSOID, "inner_rate": 1.0, "test_steps": 1, "context_size": 5}
# Ours, as the papers have no such row.
_IMAML_SINUSOID = {**_IMAML, "inner_rate": 0.01, "num_tasks": 25}
_IN_CONTEXT_SINUSOID = {"outer_rate": 1e-3, "outer_schedule": "cosine", "num_tasks": 25}
_REPTILE_SINUSOID = {
    "steps": 10,
    "test_steps": 10,
    "inner_rate": 1e-2,
    "outer_rate": 1.0,
    "outer_schedule": "linear",
    "num_tasks": 5,
}

RECIPES: dict[str, Recipe] = {
    "maml": Recipe(lambda this, net: maml(net.loss, _sgd(this), **_inner_loop(this)), _MAML, _MAML_20, _MAML_SINUSOID),
    "fomaml": Recipe(
        lambda this, net: fomaml(net.loss, _sgd(this), **_steps(this)), _FOMAML, _MAML_20, _FOMAML_SINUSOID
    ),
    "maml-plus-plus": Recipe(_build_maml_plus_plus, _MAML_PLUS_PLUS, {}, _MAML_PLUS_PLUS_SINUSOID),
    "anil": Recipe(lambda this, net: anil(net.loss, _sgd(this), **_inner_loop(this)), _MAML, _MAML_20, _MAML_SINUSOID),
    "boil": Recipe(lambda this, net: boil(net.loss, _sgd(this), **_inner_loop(this)), _BOIL, {}, _MAML_SINUSOID),
    "meta-sgd": Recipe(
        lambda this, net: meta_sgd(net.loss, _rate(this), **_inner_loop(this)),
        _META_SGD,
        {"num_tasks": 16},
        _MAML_SINUSOID,
    ),
    "meta-curvature": Recipe(
        lambda this, net: meta_curvature(net.loss, _rate(this), **_inner_loop(this)),
        _META_CURVATURE,
        {},
        _MAML_SINUSOID,
    ),
    "meta-kfo": Recipe(
        lambda this, net: meta_kfo(net.loss, _rate(this), **_inner_loop(this)), _MAML, _MAML_20, _MAML_SINUSOID
    ),
    "imaml": Recipe(_build_imaml, _IMAML, {"steps": 25, "test_steps": 25}, _IMAML_SINUSOID),
    "cavia": Recipe(
        lambda this, net: cavia(net.loss, _sgd(this), this.context_size or 1, **_inner_loop(this)),
        _CAVIA,
        {},
        _CAVIA_SINUSOID,
    ),
    "reptile": Recipe(_build_reptile, _REPTILE, _REPTILE_20, _REPTILE_SINUSOID),
    "protonet": _with_head(protonet),
    "matching-network": _with_head(matching_network),
    "relation-network": Recipe(_build_relation_network, _EPISODES, model=lambda this, network: RelationNet(network)),
    "r2d2": _with_head(r2d2),
    "lr-d2": _with_head(lr_d2),
    "metaoptnet": _with_head(metaoptnet),
    "meta-baseline": _with_head(meta_baseline),
    "in-context": Recipe(
        _build_in_context,
        _EPISODES,
        regression=_IN_CONTEXT_SINUSOID,
        model=lambda this, network: ContextTransformer(1 if this.regressing else this.ways, backbone=network),
    ),
    "conditional-neural-process": Recipe(
        lambda this, net: conditional_neural_process(net.method("encode"), net.method("decode")),
        None,
        regression=_IN_CONTEXT_SINUSOID,
        model=lambda this, network: NeuralProcess(),
    ),
}
# The options that some learners have and others not.
SPECIFIC = (
    "train_ways",
    "steps",
    "test_steps",
    "inner_rate",
    "meta_gradient",
    "context_size",
    "proximal",
    "inner_batch",
    "test_inner_batch",
)


def build_model(this: "Experiment") -> nn.Module:
    """The model of an experiment without open options."""
    return RECIPES[this.learner].model(this, _build_network(this))


def build_optimizer(this: "Run", steps_per_update: int = 1) -> optax.GradientTransformation:
    """The outer optimizer of a run without open options."""
    schedule = _SCHEDULES[this.outer_schedule or "constant"](this.outer_rate, this.iterations * steps_per_update)
    optimizer = optax.sgd(schedule) if this.learner == "reptile" else optax.adam(schedule)
    return optimizer if this.clip is None else optax.chain(optax.clip_by_global_norm(this.clip), optimizer)


def _build_network(this: "Experiment") -> nn.Module:
    dtype = jnp.bfloat16 if this.dtype == "bfloat16" else None
    if this.model == "mlp":
        return models.MLP(dtype=dtype) if this.regressing else models.MLP((this.hidden,), _ways(this), dtype=dtype)
    if this.model == "fc":
        return models.OmniglotFC(ways=_ways(this), norm=this.norm, dtype=dtype)
    network = models.CNN4 if this.model == "cnn4" else models.OmniglotCNN
    return network(ways=_ways(this), hidden=this.hidden, norm=this.norm, dtype=dtype)


def _ways(this: "Experiment") -> int:
    """Classes per task in meta-training."""
    return this.train_ways or this.ways


def published(learner: str, ways: int, kind: str) -> dict[str, Any]:
    """The options that `learner` has, with the values of its paper."""
    recipe = RECIPES[learner]
    if kind == "regression":
        return {"model": "mlp", "shots": 10, "queries": 10, **(recipe.regression or {})}
    model = "cnn" if kind == "images" else "mlp"
    return {
        "model": model,
        "shots": 1,
        "queries": 1,
        **(recipe.images or {}),
        **(recipe.from_20_ways if ways >= 20 else {}),
    }


def learners_with(option: str) -> tuple[str, ...]:
    """The learners that an option of `SPECIFIC` applies to."""
    return tuple(name for name, recipe in RECIPES.items() if option in (recipe.images or {}))
