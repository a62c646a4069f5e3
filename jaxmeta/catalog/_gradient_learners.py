"""The learners with an inner loop of gradient steps that a run can name, with the values of their papers."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxmeta import algorithms as alg
from jaxmeta import models, optim
from jaxmeta._types import Batch, MetaLearner, Metrics
from jaxmeta.catalog._lookup import build_meta_gradient
from jaxmeta.catalog._meta_gradients import ALL, AT_THE_END, UNROLLED
from jaxmeta.catalog._options import Settings
from jaxmeta.catalog._registry import FEW_SHOT, Network, recipe, register_learner
from jaxmeta.losses import weighted_mean
from jaxmeta.meta_gradients import cg

_FIRST_ORDER_SHARE = 0.3  # of MAML++'s training, as 50 of 150 epochs in its paper
MAML = "Finn et al. 2017, https://arxiv.org/abs/1703.03400"
SINE = "MAML's code (the paper's text says 0.01, with which many test tasks diverge)"
PLAIN = ("cnn", "cnn4", "fc", "mlp")  # have warp layers and take a context
OURS = "ours, the paper has no such experiment"


def _inner_loop(s: Settings) -> dict[str, Any]:
    return {"steps": s.steps, "test_steps": s.test_steps, "meta_gradient": build_meta_gradient(s)}


def _of(make: Callable[..., MetaLearner]) -> Callable[[Settings, Network], MetaLearner]:
    """A learner `make(loss, inner, ...)` with SGD inside."""
    return lambda s, net: make(net.loss, optax.sgd(s.inner_rate), **_inner_loop(s))


def _by_rate(make: Callable[..., MetaLearner]) -> Callable[[Settings, Network], MetaLearner]:
    """A learner `make(loss, inner_rate, ...)`."""
    return lambda s, net: make(net.loss, s.inner_rate, **_inner_loop(s))


def _fomaml(s: Settings, net: Network) -> MetaLearner:
    return alg.fomaml(net.loss, optax.sgd(s.inner_rate), s.steps, test_steps=s.test_steps)


def _maml_plus_plus(s: Settings, net: Network) -> Callable[[jax.Array], MetaLearner]:
    annealed, second_order_from = 0.1 * s.iterations, _FIRST_ORDER_SHARE * s.iterations

    def at_update(number: jax.Array) -> MetaLearner:
        weights = alg.multi_step_weights(s.steps, number / annealed)
        second_order: Any = number >= second_order_from
        return alg.maml_plus_plus(
            net.loss, s.inner_rate, **_inner_loop(s), step_weights=weights, second_order=second_order
        )

    return at_update


def _anil_kfo(s: Settings, net: Network) -> MetaLearner:
    """ANIL with Kronecker factors: the inner gradients of the head go through `jaxmeta.optim.scale_by_kronecker`.

    References:
        Arnold, Iqbal & Sha, *When MAML Can Adapt Fast and How to Assist When It Cannot*, AISTATS 2021,
        https://arxiv.org/abs/1910.13603
    """
    inner = optax.chain(optim.scale_by_kronecker(layers=s.layers), optax.sgd(s.inner_rate))
    return alg.anil(net.loss, inner, **_inner_loop(s))


def _imaml(s: Settings, net: Network) -> MetaLearner:
    damped = cg(s.solver_steps, damping=1.0)  # ours: the authors' code has 22 in this form
    steps = {"steps": s.steps, "test_steps": s.test_steps}
    return alg.imaml(net.loss, optax.sgd(s.inner_rate), **steps, proximal=s.proximal, solver=damped)


def _reptile(s: Settings, net: Network) -> MetaLearner:
    inner = optax.adam(s.inner_rate, b1=0.0)
    if s.kind == "regression":  # steps on the whole support set
        return alg.reptile(net.loss, inner, s.steps, test_steps=s.test_steps)
    batches = {"batch_size": s.inner_batch, "test_batch_size": s.test_inner_batch}
    return alg.reptile(net.loss, inner, s.steps, test_steps=s.test_steps, **batches)


def _cavia(s: Settings, net: Network) -> MetaLearner:
    return alg.cavia(net.loss, optax.sgd(s.inner_rate), s.context_size, **_inner_loop(s))


def _oml(s: Settings, net: Network) -> MetaLearner:
    inner = optax.sgd(s.inner_rate)
    return alg.oml(net.method("features"), net.head_loss, inner, meta_gradient=build_meta_gradient(s))


def _proto_maml(s: Settings, net: Network) -> MetaLearner:
    return alg.proto_maml(net.method("features"), net.loss, optax.sgd(s.inner_rate), **_inner_loop(s))


def _ml3(s: Settings, net: Network) -> MetaLearner:
    losses = net.method("losses")

    def learned_loss(params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        return weighted_mean(losses(params, batch.x, batch.y), batch.weight), {}

    return alg.ml3(learned_loss, net.loss, optax.sgd(s.inner_rate), **_inner_loop(s))


# fmt: off
register_learner("maml", _of(alg.maml), [
    recipe(FEW_SHOT, f"{MAML}, Omniglot 5-way", steps=1, test_steps=3, inner_rate=0.4, meta_gradient="reverse",
           outer_rate=1e-3, outer_schedule="constant", num_tasks=32),
    recipe(FEW_SHOT, f"{MAML}, Omniglot 20-way", from_ways=20, steps=5, test_steps=5, inner_rate=0.1,
           meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=16),
    recipe("regression", SINE, steps=1, test_steps=10, inner_rate=1e-3, meta_gradient="reverse", outer_rate=1e-3,
           outer_schedule="constant", num_tasks=25),
], about=alg.maml, meta_gradients=ALL)
register_learner("fomaml", _fomaml, [
    recipe(FEW_SHOT, f"{MAML}, Omniglot 5-way", steps=1, test_steps=3, inner_rate=0.4, outer_rate=1e-3,
           outer_schedule="constant", num_tasks=32),
    recipe(FEW_SHOT, f"{MAML}, Omniglot 20-way", from_ways=20, steps=5, test_steps=5, inner_rate=0.1,
           outer_rate=1e-3, outer_schedule="constant", num_tasks=16),
    recipe("regression", SINE, steps=1, test_steps=10, inner_rate=1e-3, outer_rate=1e-3, outer_schedule="constant",
           num_tasks=25),
], about=alg.fomaml)
register_learner("maml-plus-plus", _maml_plus_plus, [
    recipe(FEW_SHOT, "Antoniou et al. 2019, Omniglot", steps=5, test_steps=5, inner_rate=0.1,
           meta_gradient="reverse", outer_rate=1e-3, outer_schedule="cosine", num_tasks=8),
    recipe("regression", OURS, steps=5, test_steps=5, inner_rate=0.01, meta_gradient="reverse", outer_rate=3e-4,
           outer_schedule="cosine", clip=1.0, num_tasks=25),
], about=alg.maml_plus_plus, meta_gradients=UNROLLED)
register_learner("anil", _of(alg.anil), [
    recipe(FEW_SHOT, "Raghu et al. 2020, Omniglot, as MAML", steps=1, test_steps=3, inner_rate=0.4,
           meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=32),
    recipe(FEW_SHOT, "Raghu et al. 2020, Omniglot 20-way, as MAML", from_ways=20, steps=5, test_steps=5,
           inner_rate=0.1, meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=16),
    recipe("regression", f"{OURS}: as MAML", steps=1, test_steps=10, inner_rate=1e-3, meta_gradient="reverse",
           outer_rate=1e-3, outer_schedule="constant", num_tasks=25),
], about=alg.anil, needs_body=True, meta_gradients=AT_THE_END)
register_learner("anil-kfo", _anil_kfo, [
    recipe(FEW_SHOT, "Arnold et al. 2021, rates as MAML", steps=1, test_steps=3, inner_rate=0.4, layers=1,
           meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=32),
    recipe("regression", f"{OURS}: as MAML", steps=1, test_steps=10, inner_rate=1e-3, layers=1,
           meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=25),
], needs_body=True, meta_gradients=UNROLLED)
register_learner("boil", _of(alg.boil), [
    recipe("images vectors", "Oh et al. 2021, CIFAR-FS", steps=1, test_steps=1, inner_rate=0.5, meta_gradient="reverse",
           outer_rate=1e-3, outer_schedule="constant", num_tasks=32),
    recipe("text", "Oh et al. 2021, CIFAR-FS; its head must not start at zero", model="mlp", steps=1, test_steps=1,
           inner_rate=0.5, meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=32),
    recipe("regression", f"{OURS}: as MAML", steps=1, test_steps=10, inner_rate=1e-3, meta_gradient="reverse",
           outer_rate=1e-3, outer_schedule="constant", num_tasks=25),
], about=alg.boil, needs_body=True, meta_gradients=AT_THE_END)
register_learner("proto-maml", _proto_maml, [
    recipe(FEW_SHOT, "Triantafillou et al. 2020, rates as MAML", steps=5, test_steps=5, inner_rate=0.1,
           meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=16),
], about=alg.proto_maml, needs_body=True, meta_gradients=UNROLLED)
register_learner("ml3", _ml3, [
    recipe(FEW_SHOT, f"Bechtle et al. 2020, rates {OURS}", steps=1, test_steps=3, inner_rate=0.4,
           meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=32),
    recipe("regression", f"Bechtle et al. 2020, rates {OURS}", steps=1, test_steps=1, inner_rate=1e-2,
           meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=25),
], about=alg.ml3, meta_gradients=("reverse", "mixed", "truncated", "evolution"),
   model=lambda s, network, ways: models.WithLoss(network, models.LossMLP()))
register_learner("meta-sgd", _by_rate(alg.meta_sgd), [
    recipe(FEW_SHOT, "Li et al. 2017, Omniglot", steps=1, test_steps=1, inner_rate=0.1, meta_gradient="reverse",
           outer_rate=1e-3, outer_schedule="constant", num_tasks=32),
    recipe(FEW_SHOT, "Li et al. 2017, Omniglot 20-way", from_ways=20, steps=1, test_steps=1, inner_rate=0.1,
           meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=16),
    recipe("regression", "Li et al. 2017, sinusoid, rates as MAML", steps=1, test_steps=1, inner_rate=1e-3,
           meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=25),
], about=alg.meta_sgd, meta_gradients=(*UNROLLED, "evolution"))
register_learner("meta-curvature", _by_rate(alg.meta_curvature), [
    recipe(FEW_SHOT, "Park & Oliva 2019, Omniglot, as MAML", steps=1, test_steps=1, inner_rate=0.4,
           meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=32),
    recipe("regression", f"{OURS}: as MAML", steps=1, test_steps=10, inner_rate=1e-3, meta_gradient="reverse",
           outer_rate=1e-3, outer_schedule="constant", num_tasks=25),
], about=alg.meta_curvature, meta_gradients=UNROLLED)
register_learner("meta-kfo", _by_rate(alg.meta_kfo), [
    recipe(FEW_SHOT, "Arnold et al. 2021, rates as MAML", steps=1, test_steps=3, inner_rate=0.4,
           meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=32),
    recipe(FEW_SHOT, "Arnold et al. 2021, rates as MAML, 20-way", from_ways=20, steps=5, test_steps=5,
           inner_rate=0.1, meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=16),
    recipe("regression", f"{OURS}: as MAML", steps=1, test_steps=10, inner_rate=1e-3, meta_gradient="reverse",
           outer_rate=1e-3, outer_schedule="constant", num_tasks=25),
], about=alg.meta_kfo, meta_gradients=UNROLLED)
register_learner("tnet", _of(alg.tnet), [
    recipe(FEW_SHOT, "Lee & Choi 2018, rates as MAML", steps=1, test_steps=3, inner_rate=0.4,
           meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=32),
    recipe("regression", "Lee & Choi 2018, rates as MAML", steps=1, test_steps=10, inner_rate=1e-3,
           meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=25),
], about=alg.tnet, meta_gradients=AT_THE_END, models=PLAIN, model=lambda s, network, ways: network.clone(warp=True))
register_learner("imaml", _imaml, [
    recipe(FEW_SHOT, "Rajeswaran et al. 2019, Omniglot 5-way", steps=16, test_steps=16, inner_rate=0.1,
           proximal=2.0, solver_steps=5, outer_rate=1e-3, outer_schedule="constant", num_tasks=32),
    recipe(FEW_SHOT, "Rajeswaran et al. 2019, Omniglot 20-way", from_ways=20, steps=25, test_steps=25,
           inner_rate=0.1, proximal=2.0, solver_steps=5, outer_rate=1e-3, outer_schedule="constant", num_tasks=32),
    recipe("regression", OURS, steps=16, test_steps=16, inner_rate=0.01, proximal=2.0, solver_steps=5,
           outer_rate=1e-3, outer_schedule="constant", num_tasks=25),
], about=alg.imaml)
register_learner("cavia", _cavia, [
    recipe(FEW_SHOT, "Zintgraf et al. 2019, mini-ImageNet", steps=2, test_steps=2, inner_rate=1.0,
           context_size=100, meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=32),
    recipe("regression", "Zintgraf et al. 2019, sinusoid", steps=1, test_steps=1, inner_rate=1.0, context_size=5,
           meta_gradient="reverse", outer_rate=1e-3, outer_schedule="constant", num_tasks=25),
], about=alg.cavia, meta_gradients=AT_THE_END, models=PLAIN)
register_learner("reptile", _reptile, [
    recipe(FEW_SHOT, "Nichol et al. 2018, Omniglot 5-way", steps=5, test_steps=50, inner_rate=1e-3,
           train_shots=10, inner_batch=10, test_inner_batch=5, outer_rate=1.0, outer_schedule="linear", num_tasks=5),
    recipe(FEW_SHOT, "Nichol et al. 2018, Omniglot 20-way", from_ways=20, steps=10, test_steps=50,
           inner_rate=5e-4, train_shots=10, inner_batch=20, test_inner_batch=10, outer_rate=1.0,
           outer_schedule="linear", num_tasks=5),
    recipe("regression", OURS, steps=10, test_steps=10, inner_rate=1e-2, outer_rate=1.0, outer_schedule="linear",
           num_tasks=5),
], about=alg.reptile, optimizer=optax.sgd)
register_learner("oml", _oml, [
    recipe(FEW_SHOT, "Javed & White 2019, rates ours", inner_rate=0.03,
           norm="layer", meta_gradient="reverse", outer_rate=1e-3, outer_schedule="cosine", num_tasks=8),
    recipe("regression", OURS, inner_rate=0.01, meta_gradient="reverse", outer_rate=1e-3, outer_schedule="cosine",
           num_tasks=25),
], about=alg.oml, needs_body=True, trains_on="streams", meta_gradients=UNROLLED)
# fmt: on
