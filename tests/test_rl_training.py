"""Small trainings: they learn, work under `vmap` over seeds, resume from checkpoints, and use memory within trials."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import envs, optim, rl
from jaxmeta.envs import State
from jaxmeta.rl._meta_policy import batch_sizes

KEY = jax.random.key(0)


class Aim:
    """Environment of two steps, with minus the squared distance of the action to the task, -1 or 1, as reward.

    The task is not observed.
    """

    observation_size, action_size, discrete, horizon = 1, 1, False, 2

    def sample_tasks(self, key, n, *, split="train"):
        return jax.random.rademacher(jax.random.fold_in(key, split == "test"), (n,), float)

    def reset(self, key, task=None):
        zero = jnp.zeros(())
        return State(zero, jnp.ones(1), zero, zero, {}, {"task": task, "steps": zero, "truncation": zero})

    def step(self, state, action):
        steps = state.info["steps"] + 1
        over = jnp.where(steps >= self.horizon, 1.0, 0.0)
        reward = -((action[0] - state.info["task"]) ** 2)
        return State(steps, state.obs, reward, over, {}, {**state.info, "steps": steps, "truncation": over})


def policy(params, obs):
    """Policy whose mean is a parameter and whose deviation is 0.5."""
    mean = jnp.broadcast_to(params["mean"], obs.shape)
    return rl.DiagonalGaussian(mean, jnp.full_like(mean, jnp.log(0.5)))


COLLECT = rl.Collector(env=Aim(), policy=policy, episodes=32)
START = {"mean": jnp.array([0.8])}


@pytest.fixture(scope="module")
def trained():
    """Trains two seeds at once, with learned rates (Meta-SGD)."""
    training = rl.maml_trpo(COLLECT, optim.scale_by_learned_rate(0.1), num_tasks=8, optimizer=optax.adam(0.05))
    step = jax.jit(jax.vmap(training.step))
    states = jax.tree.map(lambda x: jnp.stack([x, x]), training.init(START))
    returns = []
    for i in range(60):
        keys = jax.vmap(partial(jax.random.fold_in, data=i))(jax.random.split(KEY, 2))
        states, metrics = step(states, keys)
        returns.append(metrics["return_1"])
    return training, states, np.array(returns)


def test_meta_training_finds_the_middle_and_larger_steps(trained):
    _, states, returns = trained
    assert (np.abs(states.meta.params["mean"]) < 0.4).all()  # from 0.8
    assert (states.meta.learned.rate.value["mean"] > 0.3).all()  # from 0.1
    assert (returns[-10:].mean(axis=0) > returns[:10].mean(axis=0) + 1).all()


def test_seeds_side_by_side_equal_one_alone(trained):
    training, states, _ = trained
    one = jax.tree.map(lambda x: x[1], states)
    both, _ = jax.jit(jax.vmap(training.step))(states, jax.random.split(KEY, 2))
    alone, metrics = jax.jit(training.step)(one, jax.random.split(KEY, 2)[1])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1], y, rtol=1e-4, atol=1e-5), both, alone)
    assert {"loss", "return_0", "return_1", "entropy", "kl"} == set(metrics)


def test_the_adaptation_curve(trained):
    """The closed form of a return is -2 (0.25 + distance^2), and that of the mode -2 distance^2."""
    _, states, _ = trained
    meta = jax.tree.map(lambda x: x[0], states.meta)
    run = jax.jit(rl.adaptation_curve(COLLECT, optim.scale_by_learned_rate(0.1), 1))
    task = COLLECT.env.sample_tasks(KEY, 50, split="test")
    curve = run(meta, task, KEY)
    assert curve.sampled.shape == curve.mode.shape == (50, 2)
    distance = (meta.params["mean"][0] - task) ** 2
    np.testing.assert_allclose(curve.mode[:, 0], -2 * distance, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(curve.sampled[:, 0].mean(), -2 * (0.25 + distance.mean()), rtol=0.1)
    assert curve.sampled[:, 1].mean() > curve.sampled[:, 0].mean() + 1
    jax.tree.map(np.testing.assert_array_equal, curve, run(meta, task, KEY))


def test_without_inner_steps_the_curve_is_its_first_column(trained):
    _, states, _ = trained
    meta = jax.tree.map(lambda x: x[0], states.meta)
    task = COLLECT.env.sample_tasks(KEY, 3, split="test")
    curve = jax.jit(rl.adaptation_curve(COLLECT, optax.sgd(0.1), 0))(meta._replace(learned=()), task, KEY)
    assert curve.sampled.shape == (3, 1)
    np.testing.assert_allclose(curve.mode[:, 0], -2 * (meta.params["mean"][0] - task) ** 2, rtol=1e-4, atol=1e-5)


def test_the_loop_resumes_from_a_checkpoint_and_keeps_the_best(tmp_path):
    training = rl.multi_task_ppo(COLLECT, num_tasks=2, epochs=2, optimizer=optax.sgd(0.1))
    seen = []

    def validate(meta):
        seen.append(float(meta.params["mean"][0]))
        return {"return": -abs(seen[-1] - seen[min(1, len(seen) - 1)]) - (len(seen) == 1)}  # the second is the best

    run = partial(jaxmeta.loop, training, START, KEY, log_every=2, validate_every=2, progress=False)
    whole = run(iterations=4, validate=validate, monitor="return")
    assert len(set(seen)) == 3
    assert (whole.step, float(whole.meta.params["mean"][0])) == (2, seen[1])
    assert (int(whole.state.update), float(whole.state.meta.params["mean"][0])) == (4, seen[2])

    run(iterations=2, folder=tmp_path)
    again = run(iterations=4, folder=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, whole.state, again.state)
    assert [record["step"] for record in again.history] == [2, 4]


def test_the_loop_trains_all_seeds_of_a_vmapped_training(trained):
    """Both functions of a `Training` are batched, and the metrics are averaged, because the loop logs scalars."""
    training, *_ = trained
    init, step = jax.vmap(training.init, (0, None)), jax.vmap(training.step)

    def step_of_all(states, key):
        states, metrics = step(states, jax.random.split(key, 2))
        return states, jax.tree.map(jnp.mean, metrics)

    starts = {"mean": jnp.array([[0.8], [-0.5]])}
    seeds = jaxmeta.Training(init, step_of_all)
    done = jaxmeta.loop(seeds, starts, KEY, iterations=2, log_every=2, validate_every=2, progress=False)
    assert done.state.update.tolist() == [2, 2]

    state = training.init({"mean": starts["mean"][1]})
    for i in range(2):
        state, _ = jax.jit(training.step)(state, jax.random.split(jax.random.fold_in(KEY, i), 2)[1])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1], y, rtol=1e-4, atol=1e-5), done.meta, state.meta)


@pytest.mark.parametrize("meta_gradient", [jaxmeta.reverse(), jaxmeta.evolution(8, scale=0.3)], ids=["maml", "es-maml"])
@pytest.mark.quick("maml")
def test_learners_of_the_core_learn_from_episodes(meta_gradient):
    learner = jaxmeta.maml(rl.policy_gradient(COLLECT), optax.sgd(0.1), meta_gradient=meta_gradient)
    trained = jaxmeta.train(
        learner,
        optax.adam(0.1),
        learner.init(START),
        rl.EnvTasks(COLLECT.env),
        KEY,
        iterations=40,
        num_tasks=8,
        batch_size=8,
        log_every=40,
        validate_every=40,
        progress=False,
    )
    assert abs(float(trained.meta.params["mean"][0])) < 0.6  # from 0.8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of brax, when it is imported
def test_a_meta_iteration_with_a_body():
    env = envs.make("half-cheetah-forward-backward", horizon=5)
    body = rl.GaussianPolicy(env.action_size)
    collect = rl.Collector(env=env, policy=body.apply, episodes=2)
    training = rl.promp(collect, optax.sgd(0.1), num_tasks=2)
    with jax.numpy_rank_promotion("allow"):
        start = jax.jit(body.init)(KEY, jnp.zeros((1, env.observation_size)))
        state, metrics = jax.jit(training.step)(training.init(start), KEY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, metrics)))
    assert metrics["kl"] > 0


def test_cavia_adapts_a_context_by_episodes():
    def with_context(p, obs):
        return policy({"mean": p.params["mean"] + p.context}, obs)

    collect = rl.Collector(env=COLLECT.env, policy=with_context, episodes=32)
    learner = jaxmeta.cavia(rl.policy_gradient(collect), optax.sgd(0.3), context_size=1, steps=3)
    adapt = jax.jit(jax.vmap(learner.adapt, (None, 0, None)))
    adapted = adapt(learner.init({"mean": jnp.zeros(1)}), jnp.array([-1.0, 1.0]), KEY)
    assert adapted.context[0, 0] < -0.3 and adapted.context[1, 0] > 0.3
    np.testing.assert_array_equal(adapted.params["mean"], 0)


BATCHED = {
    "promp": lambda **o: rl.promp(COLLECT, optax.sgd(0.1), epochs=2, optimizer=optax.sgd(0.1), **o),
    "maml-trpo": lambda **o: rl.maml_trpo(COLLECT, optax.sgd(0.1), **o),
    "e-maml": lambda **o: rl.e_maml(COLLECT, optax.sgd(0.1), **o),
    "learned-discount": lambda **o: rl.learned_discount(COLLECT, optax.sgd(0.1), optax.sgd(0.1), **o),
}


@pytest.mark.parametrize(
    ("name", "batch_size"), [("promp", 1), ("promp", 2), ("maml-trpo", 2), ("e-maml", 1), ("learned-discount", 2)]
)
@pytest.mark.quick("promp-1")
def test_batches_of_tasks_change_memory_and_no_number(name, batch_size):
    """Five tasks at once, one by one, and in pairs with one left over."""
    found, memory = [], []
    for size in (5, batch_size):
        training = BATCHED[name](num_tasks=5, batch_size=size)
        args = training.init(START), KEY
        compiled: Any = jax.jit(training.step).lower(*args).compile()
        found.append(compiled(*args))
        memory.append(compiled.memory_analysis().temp_size_in_bytes)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *found)
    assert memory[0] > memory[1] or batch_size > 1


@pytest.mark.parametrize(
    ("carried", "names"),
    [
        ({"batch_stats": {"mean": jnp.zeros(1)}}, r"\['batch_stats'\]\['mean'\]"),
        ({"count": jnp.int32(3)}, r"\['count'\]"),
    ],
)
@pytest.mark.parametrize("name", [*BATCHED, "rl2"])
def test_what_a_policy_would_only_carry_is_refused(name, carried, names):
    training = rl.rl2(TRIAL, NETWORK, num_tasks=4) if name == "rl2" else BATCHED[name](num_tasks=2)
    with pytest.raises(ValueError, match=f"params of a policy must be .* got also {names}"):
        training.init({"params": START, **carried})


@pytest.mark.parametrize(("backend", "played", "differentiated"), [("cpu", 16384, 1), ("gpu", 16384, 16384)])
def test_batches_by_default(backend, played, differentiated, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert batch_sizes(COLLECT, 10**6, None, None) == (played, differentiated)  # 32 episodes of 2 steps
    assert batch_sizes(COLLECT, 8, 3, None) == (3, 3)
    assert batch_sizes(COLLECT, 8, None, jaxmeta.task_mesh(2)) == (8, 8)


class WithoutReward(Aim):
    """Environment in which nothing can be won."""

    def step(self, state, action):
        return dataclasses.replace(super().step(state, action), reward=jnp.zeros(()))


def test_tasks_without_reward_leave_the_policy_where_it_is():
    """Though the clipped gradients of the inner loop are zero."""
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    collect = rl.Collector(env=WithoutReward(), policy=policy, episodes=4)
    training = rl.promp(collect, inner, num_tasks=2, epochs=1)
    state, metrics = jax.jit(training.step)(training.init(START), KEY)
    np.testing.assert_array_equal(state.meta.params["mean"], START["mean"])
    assert all(np.isfinite(metrics[name]) for name in metrics)


@pytest.mark.parametrize("outer", [optax.lbfgs(), optax.polyak_sgd(0.1)], ids=["lbfgs", "polyak"])
def test_outer_optimizers_that_take_the_loss(outer):
    training = rl.maml_a2c(COLLECT, optax.sgd(0.1), optimizer=outer, num_tasks=2)
    state = training.init({"mean": jnp.zeros(1)}, jax.random.key(0))
    after, _ = jax.eval_shape(training.step, state, jax.random.key(1))
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_trainings_reject():
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        rl.promp(COLLECT, optax.sgd(0.1), batch_size=0)
    with pytest.raises(ValueError, match="batch_size must be None with a mesh, whose devices compute at once, got 2"):
        rl.promp(COLLECT, optax.sgd(0.1), batch_size=2, mesh=jaxmeta.task_mesh(2))
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, got 0"):
        rl.promp(COLLECT, optax.sgd(0.1), 0)
    with pytest.raises(TypeError, match="inner must be an optax.GradientTransformation"):
        rl.maml_trpo(COLLECT, 0.1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="num_tasks must be an integer of at least 2, got 1"):
        rl.e_maml(COLLECT, optax.sgd(0.1), num_tasks=1)
    with pytest.raises(ValueError, match="kl_penalty must be a number of at least 0, got -1"):
        rl.promp(COLLECT, optax.sgd(0.1), kl_penalty=-1)
    with pytest.raises(ValueError, match="exploration must be a number of at least 0, got nan"):
        rl.e_maml(COLLECT, optax.sgd(0.1), exploration=float("nan"))
    for meta_gradient in (jaxmeta.implicit(), jaxmeta.evolution()):
        with pytest.raises(ValueError, match="meta_gradient must go through the inner steps here"):
            rl.promp(COLLECT, optax.sgd(0.1), meta_gradient=meta_gradient)
    with pytest.raises(ValueError, match="clip must be a positive number, got 0"):
        rl.clipped(0.0)
    with pytest.raises(ValueError, match="discount must be a number from 0 to 1, got 1.5"):
        rl.Collector(env=Aim(), policy=policy, discount=1.5)
    with pytest.raises(ValueError, match=r"num_tasks must be a multiple of minibatches \(4\), got 6"):
        rl.rl2(TRIAL, NETWORK, num_tasks=6)
    with pytest.raises(ValueError, match="episodes must be an integer of at least 1, got 0"):
        rl.Trial(Aim(), 0)


# ----------------------------------------------------------------------------------------------------------- trials


class Noisy(Aim):
    """Environment whose first observation is random, while the next ones count the steps."""

    def reset(self, key, task=None):
        return dataclasses.replace(super().reset(key, task), obs=jax.random.uniform(key, (1,)))

    def step(self, state, action):
        after = super().step(state, action)
        return dataclasses.replace(after, obs=after.info["steps"][None])


def test_a_trial_is_episodes_of_new_resets_and_shows_what_happened():
    trial = rl.Trial(Noisy(), episodes=3)
    assert (trial.observation_size, trial.action_size, trial.horizon) == (4, 1, 6)

    def act(params, obs):
        return rl.DiagonalGaussian(obs[..., :1], jnp.zeros_like(obs[..., :1]))

    data = rl.rollout(trial, act, None, jnp.array(1.0), KEY, episodes=2)
    assert data.valid.all()
    np.testing.assert_array_equal(data.terminated[:, 0], np.arange(6) == 5)
    assert not data.truncated.any()
    starts = np.asarray(data.obs[::2, :, 0])  # one of every episode, all different
    assert len(np.unique(starts)) == 6
    np.testing.assert_array_equal(data.obs[1::2, :, 0], 1)
    np.testing.assert_array_equal(data.obs[0, :, 1:], 0)
    np.testing.assert_array_equal(data.obs[1:, :, 1], data.action[:-1, :, 0])
    np.testing.assert_array_equal(data.obs[1:, :, 2], data.reward[:-1])
    np.testing.assert_array_equal(data.obs[1:, 0, 3], [0, 1, 0, 1, 0])
    np.testing.assert_allclose(data.reward, -((data.action[..., 0] - 1) ** 2), rtol=1e-6)


TRIAL = rl.Trial(envs.make("bandit-bernoulli", arms=2, horizon=6))
NETWORK = rl.RecurrentPolicy(TRIAL.action_size, TRIAL.discrete, rl.GRU(8))


@pytest.mark.slow
def test_the_memory_in_an_update_is_that_of_the_episode():
    """The first gradient step sees the policy that played, so there is no divergence."""
    start = jax.jit(NETWORK.init)(KEY, jnp.zeros((1, TRIAL.observation_size)), NETWORK.empty_memory(1))
    noisy = jax.tree.map(lambda x: x + 0.5 * jax.random.normal(KEY, x.shape), start)
    once = rl.rl2(TRIAL, NETWORK, num_tasks=4, epochs=1, minibatches=1, optimizer=optax.sgd(0.1))
    state, metrics = jax.jit(once.step)(once.init(noisy), KEY)
    np.testing.assert_allclose(metrics["kl"], 0, atol=1e-6)
    assert metrics["entropy"] < 0.99 * np.log(2)
    assert all(np.abs(x - y).max() > 0 for x, y in zip(*map(jax.tree.leaves, (state.meta.params, noisy)), strict=True))


@pytest.mark.slow
def test_numbers_of_rl2_may_be_traced():
    start = jax.jit(NETWORK.init)(KEY, jnp.zeros((1, TRIAL.observation_size)), NETWORK.empty_memory(1))

    def moved(discount, trace_decay, clip, value_weight, entropy_weight):
        numbers = {"discount": discount, "trace_decay": trace_decay, "clip": clip, "value_weight": value_weight}
        training = rl.rl2(TRIAL, NETWORK, num_tasks=4, minibatches=2, entropy_weight=entropy_weight, **numbers)
        return training.step(training.init(start), KEY)[0].meta

    numbers = tuple(jnp.array([[0.9, 0.95, 0.2, 0.5, 0.01], [0.5, 0.0, 0.01, 0.0, 1.0]]).T)
    both = jax.jit(jax.vmap(moved))(*numbers)
    for i in range(2):
        alone = jax.jit(moved)(*(x[i] for x in numbers))
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-3, atol=1e-5), both, alone)


@pytest.mark.slow
def test_rl2_learns_to_use_its_observations():
    """The arms pay 1 and 0 in either order, so that one pull is enough for 5.5 of 6. Random pulls get 3."""

    class Sure(envs.BernoulliBandit):
        def draw_task(self, key, split):
            first = jax.random.bernoulli(key).astype(float)
            return {"means": jnp.stack([first, 1 - first])}

    trial = rl.Trial(Sure(arms=2, horizon=6))
    start = jax.jit(NETWORK.init)(KEY, jnp.zeros((1, trial.observation_size)), NETWORK.empty_memory(1))
    training = rl.rl2(trial, NETWORK, num_tasks=64, discount=0.9, minibatches=1, optimizer=optax.adam(0.02))
    done = jaxmeta.loop(training, start, KEY, iterations=60, log_every=10, validate_every=10, progress=False)
    assert done.history[0]["train/return"] < 4.5
    assert done.history[-1]["train/return"] > 5.2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "episodes", "num_tasks", "least"),
    [("bandit-bernoulli", 1, 256, 66.0), ("particles2d", 2, 64, -20.0)],
)
def test_rl2_learns_with_its_defaults(name, episodes, num_tasks, least):
    """Sixty updates: random pulls give 50, and a particle that stays at the origin -77 in two episodes."""
    trial = rl.Trial(envs.make(name, horizon=100), episodes)
    policy = rl.RecurrentPolicy(trial.action_size, trial.discrete, rl.GRU(64))
    start = jax.jit(policy.init)(KEY, jnp.zeros((1, trial.observation_size)), policy.empty_memory(1))
    training = rl.rl2(trial, policy, num_tasks=num_tasks)
    done = jaxmeta.loop(training, start, KEY, iterations=60, log_every=10, validate_every=10, progress=False)
    assert done.history[-1]["train/return"] > least
