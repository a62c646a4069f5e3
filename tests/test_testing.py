# pyright: reportArgumentType=false
"""The checks of `jaxmeta.testing` find what is wrong, and say what it is."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from jax.core import Tracer

import jaxmeta
from jaxmeta import Learned, Task, data, optim
from jaxmeta.testing import check_learner, check_meta_gradient, check_sampler, check_transform

SAMPLER = data.Sinusoid(shots=5, queries=5)
LEARNER = jaxmeta.maml(jaxmeta.regression(lambda p, x: x * p["w"] + p["b"]), optax.sgd(0.01))
PARAMS = {"w": jnp.float32(1.0), "b": jnp.float32(2.0)}


def with_grad(change):
    """The learner with `change(metrics, gradient)` instead of what its `grad` returns."""
    return LEARNER._replace(grad=lambda meta, task, key: change(*LEARNER.grad(meta, task, key)))


def scaled(factor):
    return with_grad(lambda metrics, gradient: (metrics, jax.tree.map(lambda g: factor() * g, gradient)))


def adapted(change):
    """The learner with `change(meta, adapted)` instead of what its `adapt` returns."""
    return LEARNER._replace(adapt=lambda meta, *rest: change(meta, LEARNER.adapt(meta, *rest)))


@jax.custom_batching.custom_vmap
def of_its_batch(x):
    """The identity of one value, and the mean of a batch of values for each of them."""
    return x


@of_its_batch.def_vmap
def _of_its_batch_under_vmap(axis_size, in_batched, x):
    return jnp.broadcast_to(x.mean(0, keepdims=True), x.shape), True


def on_the_host(x):
    return jax.pure_callback(
        lambda x: np.asarray(x), jax.ShapeDtypeStruct((), jnp.float32), x, vmap_method="sequential"
    )


def weakly_typed(params):
    """Starts with a state that takes the type of what is added to it."""
    return LEARNER.init(params)._replace(state=jnp.full((), 2.0))


def with_the_same_state(meta, task, key):
    metrics, gradient = LEARNER.grad(meta._replace(state=()), task, key)
    return metrics, gradient._replace(state=meta.state)


COUNTER = itertools.count(1)

BROKEN_LEARNERS = {
    "type": (
        with_grad(lambda metrics, gradient: (metrics, jax.tree.map(lambda g: g.astype(jnp.float16), gradient))),
        r"the meta-gradient: type float16\[\] of .params\['b'\] differs from bfloat16\[\] of meta",
    ),
    "type in bfloat16": (
        with_grad(lambda metrics, gradient: (metrics, jax.tree.map(lambda g: g.astype(jnp.float32), gradient))),
        r"the meta-gradient: type float32\[\] of .params\['b'\] differs from bfloat16\[\] of meta",
    ),
    "structure": (
        with_grad(lambda metrics, gradient: (metrics, gradient.params)),
        r"the meta-gradient: structure PyTreeDef\(\{'b': \*, 'w': \*\}\) differs from",
    ),
    "metric": (
        with_grad(lambda metrics, gradient: ({**metrics, "bias": gradient.params["b"][None]}, gradient)),
        r"metric 'bias' is no scalar, its shape is \(1,\)",
    ),
    "loss": (
        LEARNER._replace(loss=lambda p, batch, key: ((batch.y - p["b"])[:, 0], {})),
        r"metric 'loss' is no scalar, its shape is \(5,\)",
    ),
    "adapted type": (
        adapted(lambda meta, adapted: jax.tree.map(lambda x: x.astype(jnp.float16), adapted)),
        r"the adapted parameters: type float16\[\] of \['b'\] differs from float32\[\] of the initial ones",
    ),
    "retrace": (
        LEARNER._replace(init=weakly_typed, grad=with_the_same_state),
        "an update was traced 2 times in two calls: the types of its results differ from its arguments'",
    ),
    "host": (
        with_grad(lambda metrics, gradient: ({**metrics, "loss": on_the_host(metrics["loss"])}, gradient)),
        "a compiled update moves values between host and device",
    ),
    "counter": (scaled(lambda: next(COUNTER)), "or is not a pure function"),
    "batch": (
        with_grad(lambda metrics, gradient: (metrics, jax.tree.map(lambda g: of_its_batch(g) ** 3, gradient))),
        "the learner treats tasks in a batch differently",
    ),
    "sign": (scaled(lambda: -1), r"meta-training did not lower the query loss: \d+\.\d+ before it, \d+\.\d+ after it"),
    "nan": (scaled(lambda: jnp.nan), "meta-training did not lower the query loss: .* nan after it"),
    "no adaptation": (
        adapted(lambda meta, adapted: meta.params),
        "adapting to a task is no better for its support set than adapting to another task",
    ),
    "wrong adaptation": (
        adapted(lambda meta, adapted: jax.tree.map(lambda p, a: 2 * p - a, meta.params, adapted)),
        "adapting to a task is no better for its support set than adapting to another task",
    ),
}


@pytest.mark.parametrize("name", BROKEN_LEARNERS)
@pytest.mark.quick("sign", "retrace", "adapted type")
def test_check_learner_finds(name):
    learner, message = BROKEN_LEARNERS[name]
    with pytest.raises(AssertionError, match=message):
        check_learner(learner, PARAMS, SAMPLER)


def test_check_learner_passes_what_they_were_made_from():
    check_learner(LEARNER, PARAMS, SAMPLER)


@pytest.mark.parametrize(
    "learner",
    [
        scaled(lambda: 1.001),
        jaxmeta.fomaml(jaxmeta.regression(lambda p, x: x * p["w"] + p["b"]), optax.sgd(0.01)),
        with_grad(lambda metrics, gradient: ({"loss": metrics["loss"] ** 2}, gradient)),
    ],
    ids=["scaled", "first order", "another loss"],
)
def test_check_meta_gradient_finds(learner):
    with pytest.raises(AssertionError, match="the meta-gradient differs from finite differences"):
        check_meta_gradient(learner, PARAMS, jax.jit(SAMPLER)(jax.random.key(0)))


@struct.dataclass
class Uniform:
    """Tasks that are uniform numbers, from `draw(key)`."""

    high: jax.Array
    draw: Callable = struct.field(pytree_node=False)

    def __call__(self, key):
        number = self.high * self.draw(key)
        return Task(number, number)


class Unregistered:
    def __call__(self, key):
        return Task(*jax.random.uniform(key, (2,)))


BROKEN_SAMPLERS = {
    "key": (Uniform(jnp.float32(2.0), lambda key: 1.0), "two keys give the same task"),
    "pytree": (Unregistered(), "Unregistered is no pytree of arrays: register its class"),
    "batch": (
        Uniform(jnp.float32(2.0), lambda key: jax.random.uniform(key) + of_its_batch(jax.random.uniform(key))),
        "the tasks of several keys under vmap differ from those of single keys",
    ),
    "counter": (
        Uniform(jnp.float32(2.0), lambda key: next(COUNTER) + jax.random.uniform(key)),
        "the tasks of several keys under vmap differ from those of single keys",
    ),
    "direct": (
        Uniform(jnp.float32(2.0), lambda key: jax.random.uniform(key) + (not isinstance(key, Tracer))),
        "a compiled call differs from a direct one",
    ),
}


@pytest.mark.parametrize("name", BROKEN_SAMPLERS)
def test_check_sampler_finds(name):
    sampler, message = BROKEN_SAMPLERS[name]
    with pytest.raises(AssertionError, match=message):
        check_sampler(sampler)


@pytest.mark.parametrize("sampler", [Uniform(jnp.float32(2.0), jax.random.uniform), SAMPLER])
def test_check_sampler_passes(sampler):
    check_sampler(sampler)


def rated(update, rate=0.1):
    """A transformation with a learned rate, and an update of its own."""
    return optax.GradientTransformation(lambda params: {"rate": Learned(jnp.float32(rate))}, update)


def times_rate(gradient, state, params=None):
    return jax.tree.map(lambda g: (-state["rate"].value * g).astype(g.dtype), gradient), state


BROKEN_TRANSFORMS = {
    "nothing learned": (optax.sgd(0.1), "the state has no Learned value"),
    "type": (
        rated(lambda g, state, params=None: (jax.tree.map(lambda g: state["rate"].value * g, g), state)),
        r"the updates: type float32\[2\] of \['w'\] differs from bfloat16\[2\] of the gradients",
    ),
    "state": (
        rated(lambda g, state, params=None: (g, {"rate": Learned(jnp.float16(1))})),
        r"the state after an update: type float16\[\] of \['rate'\].value differs from float32\[\] of the state before",
    ),
    "unused": (rated(lambda g, state, params=None: (g, state)), "the updates do not depend on the Learned value"),
    "not differentiable": (
        rated(lambda g, state, params=None: times_rate(g, {"rate": Learned(jnp.sqrt(0 * state["rate"].value))})),
        r"the updates do not depend differentiably on the Learned value .*\['rate'\].value",
    ),
    "counter": (
        rated(lambda g, state, params=None: times_rate(jax.tree.map(lambda g: next(COUNTER) * g, g), state)),
        "two updates in a compiled scan differ from two calls of a compiled update",
    ),
}


@pytest.mark.parametrize("name", BROKEN_TRANSFORMS)
def test_check_transform_finds(name):
    transform, message = BROKEN_TRANSFORMS[name]
    with pytest.raises(AssertionError, match=message):
        check_transform(transform, {"w": jnp.array([1.0, 2.0])})


def test_check_transform_passes():
    check_transform(rated(times_rate), {"w": jnp.array([1.0, 2.0])})
    check_transform(optim.scale_by_learned_rate(0.1), {"w": jnp.array([1.0, 2.0])})
