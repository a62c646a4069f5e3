# pyright: reportArgumentType=false
"""T-Net's inner loop on a linear model by hand, and that it starts as MAML."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import Batch, data, models

KEY = jax.random.key(0)


@pytest.mark.slow
def test_a_warp_layer_preconditions_the_inner_gradient():
    """Predictions `x W T`: `W T` moves by its own gradient times `T^T T`; `T` stays, and is meta-learned."""
    random = np.random.default_rng(0)
    x, y, weight, warp = (random.normal(size=size) for size in [(7, 3), (7, 2), (3, 4), (4, 2)])
    rate, product = 0.1, weight @ warp
    for _ in range(2):
        gradient = 2 * x.T @ (x @ product - y) / y.size
        product = product - rate * gradient @ warp.T @ warp
    with jax.enable_x64(True):
        learner = jaxmeta.tnet(jaxmeta.regression(lambda p, x: x @ p["weight"] @ p["warp"]), optax.sgd(rate), steps=2)
        meta = learner.init({"weight": jnp.asarray(weight), "warp": jnp.asarray(warp)})
        task = jaxmeta.Task(Batch(x, y), Batch(x[::-1], y))
        adapted = learner.adapt(meta, task.support, KEY)
        _, grads = learner.grad(meta, task, KEY)
        adapted, grads = jax.tree.map(np.asarray, (adapted, grads))
    np.testing.assert_array_equal(adapted["warp"], warp)
    np.testing.assert_allclose(adapted["weight"] @ adapted["warp"], product, rtol=1e-12)
    assert np.all(grads.params["warp"] != 0)


@pytest.mark.slow
def test_with_warp_layers_as_they_start_it_is_maml():
    sampler = data.Sinusoid(shots=5, queries=5)
    task = sampler(KEY)
    adapted, gradients = {}, {}
    for warp, make in [(False, jaxmeta.maml), (True, jaxmeta.tnet)]:
        model = models.MLP(sizes=(6, 4), warp=warp)
        learner = make(jaxmeta.regression(model.apply), optax.sgd(0.05), steps=2)
        meta = learner.init(jax.jit(model.init)(KEY, sampler.example))
        adapted[warp], gradients[warp] = jax.jit(
            lambda meta, learner=learner: (learner.adapt(meta, task.support, KEY), learner.grad(meta, task, KEY))
        )(meta)
    for warped, plain in [(adapted[True], adapted[False]), (gradients[True][1].params, gradients[False][1].params)]:
        layers = jax.tree.leaves_with_path(warped)
        assert sum(path[-1].key == "warp" for path, _ in layers) == 2
        others = [leaf for path, leaf in layers if path[-1].key != "warp"]
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), others, jax.tree.leaves(plain)
        )


@pytest.mark.parametrize("params", [{"w": jnp.ones(1)}, {"warp": jnp.ones(1)}], ids=["none", "all"])
def test_warp_must_name_a_part_of_the_parameters(params):
    with pytest.raises(ValueError, match="warp must name a part of the parameters, got 'warp'"):
        jaxmeta.tnet(jaxmeta.regression(lambda p, x: x), optax.sgd(0.1)).init(params)
