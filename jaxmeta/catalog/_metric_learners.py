"""The learners without an inner loop of their own that a run can name: heads, in-context and pre-trained learners."""

from collections.abc import Callable

from flax import linen as nn

from jaxmeta import algorithms as alg
from jaxmeta import models
from jaxmeta._types import MetaLearner
from jaxmeta.catalog._options import Settings
from jaxmeta.catalog._registry import FEW_SHOT, Network, recipe, register_learner
from jaxmeta.losses import regression


def _with_head(make: Callable[..., MetaLearner]) -> Callable[[Settings, Network], MetaLearner]:
    """A learner that fits a head to features: more ways in training than at test."""

    def build(s: Settings, net: Network) -> MetaLearner:
        ways = s.get("train_ways", s.ways)
        return make(net.method("features"), ways, test_ways=s.ways, train_features=net.train_features)

    return build


def _relation_network(s: Settings, net: Network) -> MetaLearner:
    features, relation = net.method("features"), net.method("relation")
    return alg.relation_network(features, relation, s.ways, test_ways=s.ways)


def _in_context(s: Settings, net: Network) -> MetaLearner:
    loss_fn = regression(lambda predictor, x: predictor(x)) if s.kind == "regression" else None
    return alg.in_context(net.method("encode"), net.method("decode"), loss_fn)


def _context_transformer(s: Settings, network: nn.Module, ways: int) -> nn.Module:
    return alg.ContextTransformer(ways, backbone=network)


def _neural_process(s: Settings, net: Network) -> MetaLearner:
    return alg.conditional_neural_process(net.method("encode"), net.method("decode"))


def _prior_fitted(s: Settings, net: Network) -> MetaLearner:
    return alg.prior_fitted_network(net.method("encode"), net.method("decode"))


def _pretrained(make: Callable[..., MetaLearner]) -> Callable[[Settings, Network], MetaLearner]:
    """A learner that is trained as a classifier of all classes and only adapts."""

    def build(s: Settings, net: Network) -> MetaLearner:
        tuned = {"fine_tune": s.fine_tune} if "fine_tune" in s else {}
        return make(net.method("features"), s.ways, **tuned)

    return build


def _cosine_classifier(s: Settings, network: nn.Module, ways: int) -> nn.Module:
    return models.Classifier(network, models.CosineDense(ways))


def _leo(s: Settings, net: Network) -> MetaLearner:
    return alg.leo(s.ways, s.inner_rate, s.steps, head_rate=s.head_rate)


PRE = "pre-training as Chen et al. 2019, https://arxiv.org/abs/1904.04232"
HEAD = "Snell et al. 2017's setting of ways and queries, rate ours"
# fmt: off
HEADS = [
    recipe("images vectors", HEAD, train_ways=60, queries=5, test_queries=15, outer_rate=3e-3, outer_schedule="cosine",
           num_tasks=1),
    recipe("text", HEAD, train_ways=60, queries=5, test_queries=15, outer_rate=3e-4, outer_schedule="cosine",
           num_tasks=1),
]
register_learner("protonet", _with_head(alg.protonet), HEADS, about=alg.protonet, dropout=True)
register_learner("matching-network", _with_head(alg.matching_network), HEADS, about=alg.matching_network, dropout=True)
register_learner("r2d2", _with_head(alg.r2d2), HEADS, about=alg.r2d2, dropout=True)
register_learner("lr-d2", _with_head(alg.lr_d2), HEADS, about=alg.lr_d2, dropout=True)
register_learner("metaoptnet", _with_head(alg.metaoptnet), HEADS, about=alg.metaoptnet, dropout=True)
register_learner("meta-baseline", _with_head(alg.meta_baseline), HEADS, about=alg.meta_baseline, dropout=True)
register_learner("relation-network", _relation_network, [
    recipe(FEW_SHOT, "Sung et al. 2018, Omniglot, rate ours", queries=5, test_queries=15, outer_rate=1e-3,
           outer_schedule="cosine", num_tasks=16),
], about=alg.relation_network, model=lambda s, network, ways: alg.RelationNet(network))
register_learner("in-context", _in_context, [
    recipe(FEW_SHOT, "ours", queries=5, test_queries=15, outer_rate=1e-3, outer_schedule="cosine", num_tasks=16),
    recipe("regression", "ours", outer_rate=1e-3, outer_schedule="cosine", num_tasks=25),
], about=alg.in_context, model=_context_transformer)
register_learner("conditional-neural-process", _neural_process, [
    recipe("regression", "ours, the paper has no sinusoids", outer_rate=1e-3, outer_schedule="cosine", num_tasks=25),
], about=alg.conditional_neural_process, model=lambda s, network, ways: alg.NeuralProcess(), has_network=False)
register_learner("pfn", _prior_fitted, [
    recipe("regression", "ours", bars=100, outer_rate=1e-3, outer_schedule="cosine", num_tasks=32),
], about=alg.prior_fitted_network, model=lambda s, network, ways: alg.BarTransformer(s.bars, backbone=network))
register_learner("simpleshot", _pretrained(alg.simpleshot), [
    recipe(FEW_SHOT, "Wang et al. 2019, rate ours", queries=15, minibatch=64, outer_rate=1e-3,
           outer_schedule="cosine"),
], about=alg.simpleshot, trains_on="classes", dropout=True)
register_learner("baseline", _pretrained(alg.baseline), [
    recipe(FEW_SHOT, f"{PRE}, rate ours", queries=15, fine_tune=False, minibatch=64, outer_rate=1e-3,
           outer_schedule="cosine"),
], about=alg.baseline, trains_on="classes", dropout=True)
register_learner("baseline-plus-plus", _pretrained(alg.baseline_plus_plus), [
    recipe(FEW_SHOT, f"{PRE}, rate ours", queries=15, fine_tune=False, minibatch=64, outer_rate=1e-3,
           outer_schedule="cosine"),
], about=alg.baseline_plus_plus, trains_on="classes", dropout=True, model=_cosine_classifier)
register_learner("leo", _leo, [
    recipe(FEW_SHOT, "Rusu et al. 2019, mini-ImageNet, pre-training ours", steps=5, inner_rate=5.0, head_rate=5e-3,
           latents=64, queries=5, test_queries=15, outer_rate=1e-3, outer_schedule="cosine", num_tasks=12,
           minibatch=64, pretraining=1000),
], about=alg.leo, trains_on="features", dropout=True)
# fmt: on
