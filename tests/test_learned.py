# pyright: reportArgumentType=false
import jax
import jax.numpy as jnp
import optax
import pytest

import jaxmeta
from jaxmeta import Learned, combine, optim, partition
from jaxmeta.testing import check_learner

PARAMS = {"body": jnp.ones((2, 3)), "head": jnp.ones(3)}
RATE = optim.scale_by_learned_rate(0.1)
STATES = {
    "plain": optax.adam(1e-3),
    "learned": RATE,
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.trace(0.9), RATE),
    "masked": optax.masked(RATE, {"body": True, "head": False}),
    "partition": optax.partition({"a": RATE, "b": optax.sgd(0.1)}, {"body": "a", "head": "b"}),
    "inject": optax.inject_hyperparams(optax.sgd)(0.1),
}


@pytest.mark.parametrize("name", STATES)
def test_combine_inverts_partition(name):
    state = STATES[name].init(PARAMS)
    learned, rest = partition(state)
    restored = combine(learned, rest)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert all(a is b for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True))
    has_rates = name in ("learned", "chain", "masked", "partition")
    assert bool(jax.tree.leaves(learned)) == has_rates
    assert len(jax.tree.leaves(learned)) + len(jax.tree.leaves(rest)) == len(jax.tree.leaves(state))


def test_combine_replaces_learned_values_in_a_whole_state():
    state = {"rate": Learned(jnp.zeros(2)), "none": None, "count": jnp.array(3)}
    learned, _ = partition({"rate": Learned(jnp.ones(2)), "none": None, "count": jnp.array(0)})
    combined = combine(learned, state)
    assert combined["rate"].value.tolist() == [1.0, 1.0]
    assert combined["count"] == 3
    assert combined["none"] is None


def test_combine_with_nothing_learned_keeps_the_state():
    state = STATES["chain"].init(PARAMS)
    assert jax.tree.structure(combine(None, state)) == jax.tree.structure(state)


def test_masked_rates_exist_only_where_they_are_used():
    learned, _ = partition(STATES["masked"].init(PARAMS))
    assert [leaf.shape for leaf in jax.tree.leaves(learned)] == [(2, 3)]


def test_learned_rate_starts_as_plain_gradient_descent():
    grads = jax.tree.map(lambda p: 2 * p, PARAMS)
    ours, _ = RATE.update(grads, RATE.init(PARAMS))
    theirs, _ = optax.sgd(0.1).update(grads, optax.sgd(0.1).init(PARAMS))
    assert jax.tree.all(jax.tree.map(jnp.allclose, ours, theirs))


@pytest.mark.parametrize("rate", [float("nan"), float("inf")])
def test_learned_rate_must_be_finite(rate):
    with pytest.raises(ValueError, match=r"learning_rate must be a finite number"):
        optim.scale_by_learned_rate(rate)


def test_outer_optimizer_updates_the_learned_part():
    loss_fn = jaxmeta.regression(lambda w, x: x * w)
    learner = jaxmeta.maml(loss_fn, optax.chain(optax.clip_by_global_norm(10.0), RATE))
    meta = learner.init(jnp.array([[1.0]]))
    training = jaxmeta.meta_step(learner, optax.adam(1e-2), num_tasks=2)
    state, _ = training.step(training.init(meta), jax.random.key(0), jaxmeta.data.Sinusoid())
    before, after = (jax.tree.leaves(m.learned)[0] for m in (meta, state.meta))
    assert not jnp.allclose(before, after)


def test_weakly_typed_learned_values_do_not_retrace_the_step():
    def init(params):
        return Learned(jax.tree.map(lambda p: jnp.full(p.shape, 0.01), params))

    def update(updates, state, params=None):
        return jax.tree.map(lambda u, rate: -rate * u, updates, state.value), state

    learner = jaxmeta.maml(jaxmeta.regression(lambda w, x: x * w), optax.GradientTransformation(init, update))
    check_learner(learner, jnp.array([[1.0]]), jaxmeta.data.Sinusoid())
