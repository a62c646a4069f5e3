# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
"""One table of learned transformations, the checks that every row passes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import jaxmeta
from jaxmeta import Batch, Task, optim, partition
from jaxmeta.testing import check_meta_gradient, check_transform

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


class Scale(nn.Module):
    @nn.compact
    def __call__(self, gradient):
        return self.param("scale", nn.initializers.ones, gradient.shape) * gradient


class Residual(nn.Module):
    """A coordinate-wise network that starts as the identity."""

    @nn.compact
    def __call__(self, gradient):
        hidden = nn.tanh(nn.Dense(2)(gradient.reshape(-1, 1)))
        return gradient + nn.Dense(1, kernel_init=nn.initializers.zeros)(hidden).reshape(gradient.shape)


def matrix_step(rate):
    return optax.chain(optim.scale_by_kronecker(), optax.sgd(rate))


# name: (transformation, what it first multiplies a gradient by)
TRANSFORMS = {
    "rate": (optim.scale_by_learned_rate(0.1), -0.1),
    "rate-per-tensor": (optim.scale_by_learned_rate(0.1, per="tensor"), -0.1),
    "rate-per-tensor-and-step": (optim.scale_by_learned_rate(0.1, per="tensor", steps=2), -0.1),
    "curvature": (optim.scale_by_curvature(), 1.0),
    "curvature-diagonal": (optim.scale_by_curvature(max_size=2), 1.0),
    "kronecker": (optim.scale_by_kronecker(), 1.0),
    "kronecker-linear": (optim.scale_by_kronecker(2, max_size=2), 1.0),
    "kronecker-tanh": (optim.scale_by_kronecker(3, jnp.tanh), 1.0),
    "module-scale": (optim.scale_by_module(lambda shape: Scale(), KEY), 1.0),
    "module-residual": (optim.scale_by_module(lambda shape: Residual(), KEY), 1.0),
    "learn-sgd": (optim.learn(optax.sgd, positive="learning_rate", learning_rate=0.1, momentum=0.9), -0.1),
    "hypergradient": (optim.hypergradient_descent(0.1, 0.01), -0.1),
    "hypergradient-momentum": (
        optim.hypergradient_descent(0.1, 0.01, per="tensor", direction=optax.trace(0.9)),
        -0.1,
    ),
    "adaptive-momentum": (optim.adaptive(matrix_step(0.1), optax.sgd(0.01, momentum=0.9)), -0.1),
    "adaptive-learned": (
        optim.adaptive(optim.scale_by_learned_rate(0.1), optim.learn(optax.sgd, learning_rate=0.01)),
        -0.1,
    ),
    "learned-lstm": (optim.learned_lstm(optax.sgd(0.1), key=KEY, hidden=2, layers=1), -0.1),
    "learned-mlp": (optim.learned_mlp(optax.sgd(0.1, momentum=0.9), key=KEY, sizes=(4, 4)), -0.1),
}
every_transform = pytest.mark.parametrize("name", TRANSFORMS)


def random(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


PARAMS = {"conv": random(2, 1, 3, 2), "kernel": random(3, 2), "bias": random(2), "gain": random()}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in ("learned-mlp", "kronecker-tanh") else ()) for n in TRANSFORMS],
)
@pytest.mark.quick("rate*", "kronecker", "learned-lstm", "hypergradient*")
def test_check_transform(name):
    check_transform(TRANSFORMS[name][0], PARAMS)


@every_transform
def test_first_update_of_a_wide_layer_is_the_gradient_or_the_rate(name):
    """learn2learn's `ModuleTransform(Scale)` gives 7840 times the gradient here."""
    transform, factor = TRANSFORMS[name]
    grads = {"kernel": jnp.ones((784, 10)), "bias": jnp.ones(10)}
    updates = jax.jit(lambda g: transform.update(g, transform.init(g), g)[0])(grads)
    for leaf in jax.tree.leaves(updates):
        np.testing.assert_allclose(leaf, factor, rtol=1e-5)


@every_transform
@pytest.mark.quick("rate*", "learned-lstm")
def test_composes_with_masked_and_partition(name):
    """The kernel is transformed as it would be alone, the rest as if the transformation were not there."""
    transform, _ = TRANSFORMS[name]
    params = {"kernel": PARAMS["kernel"], "bias": PARAMS["bias"]}
    labels = {"kernel": "learned", "bias": "plain"}
    alone, _ = transform.update(params["kernel"], transform.init(params["kernel"]), params["kernel"])
    learned_alone, _ = partition(transform.init(params["kernel"]))
    masked = optax.masked(transform, {"kernel": True, "bias": False})
    split = optax.partition({"learned": transform, "plain": optax.identity()}, labels)
    for composed in (masked, split):
        state = composed.init(params)
        updates, _ = composed.update(params, state, params)
        np.testing.assert_allclose(updates["kernel"], alone, rtol=1e-6)
        np.testing.assert_array_equal(updates["bias"], params["bias"])
        learned, _ = partition(state)
        assert [x.shape for x in jax.tree.leaves(learned)] == [x.shape for x in jax.tree.leaves(learned_alone)]


MODEL = jaxmeta.regression(lambda p, x: p["gain"] * jnp.tanh(x @ p["kernel"] + p["bias"][None]))
MODEL_PARAMS = {name: PARAMS[name] for name in ("kernel", "bias", "gain")}
TASK = Task(Batch(random(4, 3), random(4, 2)), Batch(random(4, 3), random(4, 2)))


@every_transform
@pytest.mark.quick("rate-*", "kronecker", "hypergradient")
def test_meta_gradient_through_a_chain_equals_finite_differences(name):
    inner = optax.chain(optax.clip_by_global_norm(0.5), TRANSFORMS[name][0], optax.trace(0.5))
    check_meta_gradient(jaxmeta.maml(MODEL, inner, steps=3), MODEL_PARAMS, TASK)


@pytest.mark.parametrize("name", ["kronecker-tanh", "adaptive-momentum"])
@pytest.mark.quick("adaptive-momentum")
def test_meta_gradient_before_adam_in_mixed_mode(name):
    inner = optax.chain(TRANSFORMS[name][0], optax.adam(0.1, eps_root=1e-6))
    learner = jaxmeta.maml(MODEL, inner, steps=2, meta_gradient=jaxmeta.mixed())
    check_meta_gradient(learner, MODEL_PARAMS, TASK)


@pytest.mark.slow
def test_learned_adam():
    """Also beside bfloat16 parameters, in which 0.999 would be 1 and the bias correction a division by zero."""
    factory = partial(optax.adam, eps_root=1e-6)
    inner = optim.learn(factory, positive=("learning_rate",), learning_rate=0.1, b1=0.9, b2=0.999)
    check_meta_gradient(jaxmeta.maml(MODEL, inner, steps=2), MODEL_PARAMS, TASK)
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    ours, _ = inner.update(params, inner.init(params))
    theirs, _ = factory(0.1).update(params, factory(0.1).init(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=0.02), ours, theirs)
    assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optim.scale_by_learned_rate("x"), ValueError, "learning_rate must be a finite number, got 'x'"),
        (lambda: optim.scale_by_learned_rate(per="layer"), ValueError, "per must be one of 'weight', 'tensor', got"),
        (lambda: optim.scale_by_learned_rate(steps=0), ValueError, "steps must be an integer of at least 1, got 0"),
        (lambda: optim.scale_by_curvature(max_size=0), ValueError, "max_size must be an integer of at least 1"),
        (lambda: optim.scale_by_kronecker(0), ValueError, "layers must be an integer of at least 1, got 0"),
        (lambda: optim.scale_by_kronecker(nonlinearity=jnp.tanh), ValueError, "it needs layers of at least 2"),
        (lambda: optim.scale_by_kronecker(2, "relu"), TypeError, "nonlinearity must be a function, got"),
        (lambda: optim.scale_by_module(Scale(), KEY), TypeError, "make_module must return a module for a shape"),
        (lambda: module_init(lambda shape: jnp.tanh), TypeError, "must return a flax.linen.Module"),
        (lambda: module_init(lambda shape: nn.Dense(5)), ValueError, r"Dense, which maps \(2,\) to \(5,\)"),
        (
            lambda: module_init(lambda shape: nn.BatchNorm(use_running_average=False)),
            ValueError,
            "BatchNorm with the collections 'batch_stats', 'params'",
        ),
        (lambda: optim.learn(0.1, learning_rate=0.1), TypeError, "factory must be a function"),
        (lambda: optim.learn(optax.sgd), ValueError, "learn needs at least one hyper-parameter, factory has learning"),
        (
            lambda: optim.learn(optax.sgd, lr=0.1),
            ValueError,
            r"arguments of factory \(learning_rate, momentum, .*\), got 'lr'",
        ),
        (lambda: optim.learn(optax.sgd, momentum=0.1), TypeError, "'learning_rate', give it by functools.partial"),
        (lambda: optim.learn(optax.sgd, learning_rate=True), ValueError, "learning_rate must be a finite number"),
        (lambda: optim.learn(optax.sgd, learning_rate=np.inf), ValueError, "learning_rate must be a finite number"),
        (
            lambda: optim.learn(optax.sgd, positive="momentum", learning_rate=0.1),
            ValueError,
            r"positive must name given hyper-parameters \(learning_rate\), got 'momentum'",
        ),
        (
            lambda: optim.learn(optax.sgd, positive="learning_rate", learning_rate=0.0),
            ValueError,
            "learning_rate must be a positive number, got 0.0",
        ),
        (lambda: optim.hypergradient_descent(hyper_rate=np.nan), ValueError, "hyper_rate must be a finite number"),
        (lambda: optim.hypergradient_descent(per="weight"), ValueError, "per must be one of 'global', 'tensor'"),
        (lambda: optim.hypergradient_descent(direction=0.9), TypeError, "direction must be an optax.Gradient"),
        (lambda: optim.adaptive(optax.sgd(0.1), 0.1), TypeError, "hyper_optimizer must be an optax.Gradient"),
        (
            lambda: optim.adaptive(optax.sgd(0.1), optax.sgd(0.1)).init(jnp.ones(2)),
            ValueError,
            "transform must have jaxmeta.Learned values",
        ),
        (lambda: adaptive_without_params(), ValueError, "adaptive needs the parameters"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def module_init(make_module):
    optim.scale_by_module(make_module, KEY).init(jnp.ones(2))


def adaptive_without_params():
    transform = optim.adaptive(optim.scale_by_learned_rate(), optax.sgd(0.1))
    transform.update(jnp.ones(2), transform.init(jnp.ones(2)))
