# pyright: reportArgumentType=false
"""What JAX's switches need of the library: states that keep their types, buffers to donate, loops without jit."""

import contextlib
import gc

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import jaxmeta
from jaxmeta import Batch, Task, data, envs, estimators, rl
from jaxmeta.training import pretrain_step

KEY = jax.random.key(0)
ENV = envs.make("particles2d", horizon=3)
TRIAL = rl.Trial(envs.make("bandit-bernoulli", horizon=3))


def gaussian():
    policy = rl.GaussianPolicy(ENV.action_size, sizes=(3,))
    obs = jax.ShapeDtypeStruct((1, ENV.observation_size), jnp.float32)
    return rl.Collector(env=ENV, policy=policy.apply, episodes=2), jax.eval_shape(policy.init, KEY, obs)


def policy_search(make):
    collect, params = gaussian()
    return make(collect), params


def recurrent():
    policy = rl.RecurrentPolicy(TRIAL.action_size, TRIAL.discrete, rl.GRU(3))
    obs = jnp.zeros((1, TRIAL.observation_size))
    params = jax.eval_shape(policy.init, KEY, obs, policy.empty_memory(1))
    return rl.rl2(TRIAL, policy, num_tasks=2, minibatches=1), params


def latent():
    policy = rl.LatentPolicy(ENV.action_size, sizes=(3,), encoder_sizes=(3,))
    training = rl.pearl(ENV, policy, ENV.sample_tasks(KEY, 2), num_tasks=2, episodes=2, updates=1, batch_size=2)
    return training, jax.eval_shape(policy.init, KEY, jnp.zeros((1, ENV.observation_size)), policy.prior().mean)


def few_shot():
    learner = jaxmeta.meta_sgd(jaxmeta.regression(lambda w, x: x * w), 0.1)
    return jaxmeta.meta_step(learner, optax.adam(0.1), 2), learner.init(jnp.ones((1, 1))), data.Sinusoid()


def pretraining():
    model = nn.Dense(2)
    params = jax.eval_shape(model.init, KEY, jnp.zeros((3, 2)))
    return pretrain_step(model, optax.adam(0.1)), params, lambda key: Batch(jnp.ones((3, 2)), jnp.zeros(3, jnp.int32))


def process(make):
    moved = estimators.Process(lambda key: jnp.zeros([]), lambda theta, x, key: (x + theta, (x - 1.0) ** 2), 4)
    return estimators.process_step(moved, make(2), optax.adam(0.1), 2), jnp.array(0.5)


TRAININGS = {
    "meta_step": few_shot,
    "pretrain": pretraining,
    "backprop": lambda: process(estimators.truncated_backprop),
    "evolution": lambda: process(estimators.truncated_evolution),
    "persistent": lambda: process(estimators.persistent_evolution),
    "maml_trpo": lambda: policy_search(lambda c: rl.maml_trpo(c, optax.sgd(0.1), num_tasks=2)),
    "promp": lambda: policy_search(lambda c: rl.promp(c, optax.sgd(0.1), num_tasks=2)),
    "maml_a2c": lambda: policy_search(lambda c: rl.maml_a2c(c, optax.sgd(0.1), num_tasks=2)),
    "e_maml": lambda: policy_search(lambda c: rl.e_maml(c, optax.sgd(0.1), num_tasks=2)),
    "multi_task_ppo": lambda: policy_search(lambda c: rl.multi_task_ppo(c, num_tasks=2)),
    "learned_discount": lambda: policy_search(
        lambda c: rl.learned_discount(c, optax.sgd(0.1), optax.adam(0.1), num_tasks=2)
    ),
    "rl2": recurrent,
    "pearl": latent,
}


@pytest.mark.parametrize("x64", [False, True], ids=["x32", "x64"])
@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.quick("promp-*", "rl2-x64", "maml_trpo-x64", "pearl-x64")
def test_a_step_keeps_the_types_of_its_state(name, x64):
    """Weak types too, because a jitted step is compiled once for each."""
    with jax.enable_x64(x64):
        training, params, *rest = TRAININGS[name]()
        before = jax.eval_shape(training.init, params, KEY)
        after, _ = jax.eval_shape(lambda state, key: training.step(state, key, *rest), before, KEY)
    found, expected = (
        {jax.tree_util.keystr(path): (x.shape, x.dtype, x.weak_type) for path, x in jax.tree.leaves_with_path(state)}
        for state in (after, before)
    )
    assert found == expected


@pytest.mark.parametrize("environment", [ENV, rl.Trial(ENV, 2), TRIAL], ids=["env", "trial", "discrete-trial"])
def test_states_of_environments_can_be_donated(environment):
    task = jax.tree.map(lambda x: x[0], environment.sample_tasks(KEY, 1))
    action = jnp.int32(0) if environment.discrete else jnp.zeros(environment.action_size)
    step = jax.jit(environment.step, donate_argnums=0)
    state = environment.reset(KEY, task)
    for _ in range(2):
        state = step(state, action)
    assert np.isfinite(state.obs).all()


META_GRADIENTS = {
    "reverse": jaxmeta.reverse(),
    "remat": jaxmeta.reverse(remat=True),
    "nested": jaxmeta.reverse(remat=2),
    "mixed": jaxmeta.mixed(remat=2),
    "first-order": jaxmeta.first_order(),
    "truncated": jaxmeta.truncated(1),
    "truncated-all": jaxmeta.truncated(0),
    "truncated-none": jaxmeta.truncated(3, remat=2),
    "implicit": jaxmeta.implicit(),
    "evolution": jaxmeta.evolution(1),
}


@pytest.mark.parametrize("name", META_GRADIENTS)
@pytest.mark.parametrize("steps", [1, 2])
def test_meta_gradients_without_jit(name, steps):
    learner = jaxmeta.maml(
        lambda w, target, key: ((w - target) ** 2, {}), optax.sgd(0.1), steps, meta_gradient=META_GRADIENTS[name]
    )
    arguments = learner.init(jnp.array(0.5)), Task(jnp.array(2.0), jnp.array(-1.0)), KEY
    compiled = jax.jit(learner.grad)(*arguments)
    with jax.disable_jit():
        eager = learner.grad(*arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), eager, compiled)


@pytest.mark.parametrize("name", META_GRADIENTS)
@pytest.mark.quick("mixed", "implicit")
@pytest.mark.slow
def test_meta_gradients_leak_no_tracers(name):
    def loss_fn(params, target, key):
        return jnp.tanh(params["body"]) * (params["head"] - target) ** 2 + 0 * jax.random.normal(key), {}

    params = {"body": jnp.array(0.5), "head": jnp.array(1.0)}
    task = Task(jnp.array(2.0), jnp.array(-1.0))
    with checking_leaks():
        for make in (jaxmeta.maml, jaxmeta.anil):
            learner = make(loss_fn, optax.sgd(0.1), 2, meta_gradient=META_GRADIENTS[name])
            _, gradient = jax.jit(learner.grad)(learner.init(params), task, KEY)
            assert np.isfinite(gradient.params["head"])


@contextlib.contextmanager
def checking_leaks():
    """Looks for tracers that leak into what is new. What other tests have left costs JAX minutes to look through."""
    gc.freeze()
    try:
        with jax.checking_leaks():
            yield
    finally:
        gc.unfreeze()
