"""The table of all few-shot learners, for what must hold for each of them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxmeta
from jaxmeta import models


def methods(model, *names) -> Any:
    """Functions of the parameters, one for each method of a Linen module."""
    return tuple(functools.partial(model.apply, method=name) for name in names)


def head_loss(params, batch, key):
    """The loss of the head alone, on features."""
    head = params["params"]["head"]
    return jaxmeta.classification(lambda _, x: x @ head["kernel"] + head["bias"][None])(params, batch, key)


def in_context(params, x):
    """The network with the context added to each input."""
    return MODEL.apply(params.params, x + params.context[None])


def learned_loss(params, batch, key):
    """The mean of the learned loss."""
    losses: Any = WITH_LOSS.apply(params, batch.x, batch.y, method="losses")
    return jaxmeta.weighted_mean(losses, batch.weight), {}


WAYS = 4  # of the models and of the learners without ways
MODEL = models.MLP(sizes=(6,), out=WAYS, activation=jnp.tanh)
WARPED, WITH_LOSS = MODEL.clone(warp=True), models.WithLoss(MODEL, models.LossMLP((6,)))
(FEATURES,) = methods(MODEL, "features")
CONTEXT, RELATION = jaxmeta.FullContext(MODEL, steps=2), jaxmeta.RelationNet(MODEL, hidden=6)
PROCESS, TRANSFORMER = jaxmeta.NeuralProcess(1, (6, 6), (6,)), jaxmeta.ContextTransformer(WAYS, 8, 2, 2, MODEL)
PRIOR_FITTED = jaxmeta.BarTransformer(6, 8, 2, 2)
WITH_CONTEXT, *CONTEXTS = methods(CONTEXT, "features", "support", "query")
RELATE = methods(RELATION, "features", "relation")
LOSS, SGD = jaxmeta.classification(MODEL.apply), optax.sgd(0.1)

HEADS = {  # name: (function from the ways to a learner, model)
    "protonet": (lambda ways: jaxmeta.protonet(FEATURES, ways), MODEL),
    "protonet-cosine": (lambda ways: jaxmeta.protonet(FEATURES, ways, distance="cosine"), MODEL),
    "matching-network": (lambda ways: jaxmeta.matching_network(FEATURES, ways), MODEL),
    "full-context": (
        lambda ways: jaxmeta.matching_network(
            WITH_CONTEXT, ways, support_context=CONTEXTS[0], query_context=CONTEXTS[1]
        ),
        CONTEXT,
    ),
    "relation-network": (lambda ways: jaxmeta.relation_network(RELATE[0], RELATE[1], ways), RELATION),
    "r2d2": (lambda ways: jaxmeta.r2d2(FEATURES, ways), MODEL),
    "lr-d2": (lambda ways: jaxmeta.lr_d2(FEATURES, ways), MODEL),
    "metaoptnet": (lambda ways: jaxmeta.metaoptnet(FEATURES, ways, label_smoothing=0.1), MODEL),
    "simpleshot": (lambda ways: jaxmeta.simpleshot(FEATURES, ways, center=jnp.full(6, 0.1)), MODEL),
    "meta-baseline": (lambda ways: jaxmeta.meta_baseline(FEATURES, ways), MODEL),
    "baseline": (lambda ways: jaxmeta.baseline(FEATURES, ways, SGD, 3), MODEL),
    "baseline++": (lambda ways: jaxmeta.baseline_plus_plus(FEATURES, ways, SGD, 3), MODEL),
    "fine-tuning": (lambda ways: jaxmeta.baseline(FEATURES, ways, SGD, 3, fine_tune=True), MODEL),
}
GRADIENTS = {  # name: (function from an inner rate and a number of steps to a learner, model)
    "maml": (lambda rate, steps: jaxmeta.maml(LOSS, optax.sgd(rate), steps), MODEL),
    "fomaml": (lambda rate, steps: jaxmeta.fomaml(LOSS, optax.sgd(rate), steps), MODEL),
    "maml++": (lambda rate, steps: jaxmeta.maml_plus_plus(LOSS, rate, steps), MODEL),
    "meta-sgd": (lambda rate, steps: jaxmeta.meta_sgd(LOSS, rate, steps), MODEL),
    "meta-curvature": (lambda rate, steps: jaxmeta.meta_curvature(LOSS, rate, steps), MODEL),
    "meta-kfo": (lambda rate, steps: jaxmeta.meta_kfo(LOSS, rate, steps), MODEL),
    "imaml": (lambda rate, steps: jaxmeta.imaml(LOSS, optax.sgd(rate), steps), MODEL),
    "anil": (lambda rate, steps: jaxmeta.anil(LOSS, optax.sgd(rate), steps), MODEL),
    "boil": (lambda rate, steps: jaxmeta.boil(LOSS, optax.sgd(rate), steps), MODEL),
    "tnet": (lambda rate, steps: jaxmeta.tnet(jaxmeta.classification(WARPED.apply), optax.sgd(rate), steps), WARPED),
    "cavia": (lambda rate, steps: jaxmeta.cavia(jaxmeta.classification(in_context), optax.sgd(rate), 5, steps), MODEL),
    "proto-maml": (lambda rate, steps: jaxmeta.proto_maml(FEATURES, LOSS, optax.sgd(rate), steps), MODEL),
    "ml3": (
        lambda rate, steps: jaxmeta.ml3(learned_loss, jaxmeta.classification(WITH_LOSS.apply), optax.sgd(rate), steps),
        WITH_LOSS,
    ),
    "reptile": (lambda rate, steps: jaxmeta.reptile(LOSS, optax.sgd(rate), steps), MODEL),
    "leo": (lambda rate, steps: jaxmeta.leo(WAYS, rate, steps, head_steps=steps, dropout=0.0), None),
}
OTHERS = {  # name: (learner, model)
    "oml": (jaxmeta.oml(FEATURES, head_loss, SGD), MODEL),
    "in-context": (jaxmeta.in_context(*methods(TRANSFORMER, "encode", "decode")), TRANSFORMER),
    "neural-process": (jaxmeta.conditional_neural_process(*methods(PROCESS, "encode", "decode")), PROCESS),
    "prior-fitted-network": (jaxmeta.prior_fitted_network(*methods(PRIOR_FITTED, "encode", "decode")), PRIOR_FITTED),
}
REGRESSORS = ("neural-process", "prior-fitted-network")
NAMES = (*HEADS, *GRADIENTS, *OTHERS)


def learner_of(name, rate=0.1, steps=2):
    """Returns a learner and its model."""
    if name in HEADS:
        make, model = HEADS[name]
        return make(WAYS), model
    if name in OTHERS:
        return OTHERS[name]
    make, model = GRADIENTS[name]
    return make(rate, steps), model


@functools.cache
def parameters(model: Any, dtype: Any = jnp.float64):
    """Initial parameters of a model with five inputs. `None` is LEO's."""
    key, x = jax.random.key(0), jnp.zeros((1, 5))
    params = jaxmeta.leo_params(key, 5, 4) if model is None else jax.jit(model.init)(key, x)
    return jax.tree.map(lambda x: x.astype(dtype), params)
