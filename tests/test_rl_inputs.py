# pyright: reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false, reportAssignmentType=false
# pyright: reportCallIssue=false, reportArgumentType=false
"""Tests of what policies see and are compared with: observations of any form, normalization, baselines, scales."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shifted_particles import Shifted

import jaxmeta
from jaxmeta import envs, rl
from jaxmeta.rl import _meta_policy, _moments

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corridor(envs.BaseEnv):
    """Cell on a line of five, whose end with the reward is the task, seen as an image, a dictionary or a vector."""

    horizon: int = 6
    form: str = "image"

    @property
    def observation_size(self):
        return {"image": (5, 5, 1), "mapping": {"image": (5, 5, 1), "cell": 5}, "bytes": (5, 5, 1), "vector": 25}[
            self.form
        ]

    action_size = 2
    discrete = True

    def draw_task(self, key, split):
        return {"end": jax.random.bernoulli(key).astype(int)}

    def begin(self, key, task):
        return jnp.array(2), self.see(jnp.array(2))

    def move(self, pipeline_state, action, task):
        cell = jnp.clip(pipeline_state + 2 * action - 1, 0, 4)
        reward = (cell == 4 * task["end"]).astype(float)
        return envs.Outcome(cell, self.see(cell), reward, jnp.array(False))

    def see(self, cell):
        row = jax.nn.one_hot(cell, 5)
        image = jnp.broadcast_to(row[None, :, None], (5, 5, 1))
        whole = {"image": image, "mapping": {"image": image, "cell": row}, "vector": image.reshape(-1)}
        return (255 * image).astype(jnp.uint8) if self.form == "bytes" else whole[self.form]


@pytest.mark.parametrize("form", ["image", "mapping", "bytes", "vector"])
def test_examples_have_the_form_of_observations(form):
    env = Corridor(form=form)
    found, real = rl.example_observations(env, 3), env.reset(KEY).obs
    assert jax.tree.map(lambda x: (x.shape, x.dtype), found) == jax.tree.map(lambda x: ((3, *x.shape), x.dtype), real)


@pytest.mark.parametrize(("sides", "strides"), [((5, 3), [1]), ((9, 7), [2]), ((11, 4), [2, 2]), ((9, 5), [])])
def test_an_encoder_is_convolutions_and_concatenation(sides, strides):
    """By `jax.lax`'s convolution, or none; bytes are divided by 255, and leading axes do not matter."""
    encoder = rl.ObservationEncoder({"image": (*sides, 2), "b": 3, "a": (2, 2)}, 4, convolutions=bool(strides))
    keys = jax.random.split(KEY, 4)
    image = jax.random.randint(keys[0], (6, *sides, 2), 0, 256).astype(jnp.uint8)
    obs = {"image": image, "b": jax.random.normal(keys[1], (6, 3)), "a": jax.random.normal(keys[2], (6, 2, 2))}
    params = jax.jit(encoder.init)(keys[3], obs)
    p = params["params"]

    def conv(x, layer, stride):
        dims = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, layer["kernel"], (stride, stride), "SAME", dimension_numbers=dims)
        return jnp.maximum(y + layer["bias"].reshape(1, 1, 1, -1), 0)

    x = image / 255.0
    for number, stride in enumerate(strides):
        x = conv(x, p[f"Conv_{number}"], stride)
    x = jnp.maximum(x.reshape(6, -1) @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"].reshape(1, -1), 0)
    expected = jnp.concatenate([obs["a"].reshape(6, 4), obs["b"], x], axis=-1)
    np.testing.assert_allclose(encoder.apply(params, obs), expected, atol=1e-5)
    batched = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), obs)
    np.testing.assert_allclose(encoder.apply(params, batched).reshape(6, -1), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "obs", "message"),
    [
        ((5, 5, 1), jnp.zeros((3, 5, 4, 1)), r"obs must end with the shape \[5, 5, 1\], got \[3, 5, 4, 1\]"),
        (4, jnp.zeros((3, 5)), r"obs must end with the shape \[4\], got \[3, 5\]"),
        ({"a": 2}, jnp.zeros((3, 2)), "obs must be a mapping with a, got an array"),
        ({"a": 2}, {"b": jnp.zeros(2)}, "obs must be a mapping with a, got a mapping with b"),
        (2, {"b": jnp.zeros(2)}, "obs must be an array, got a mapping with b"),
    ],
)
def test_observations_of_another_form_are_refused(size, obs, message):
    with pytest.raises(ValueError, match=message):
        rl.ObservationEncoder(size).init(KEY, obs)


def gradient_learner(env, **options):
    policy = rl.CategoricalPolicy(env.action_size, (8,), encoder=rl.ObservationEncoder(env.observation_size, 8))
    collect = rl.Collector(env=env, policy=policy.apply, episodes=4, **options)
    start = jax.jit(policy.init)(KEY, rl.example_observations(env))
    return rl.promp(collect, optax.sgd(0.1), num_tasks=2), start


def recurrent_learner(env, **options):
    trial = rl.Trial(env, 2)
    encoder = rl.ObservationEncoder(trial.observation_size, 8)
    policy = rl.RecurrentPolicy(env.action_size, env.discrete, rl.GRU(8), encoder)
    start = jax.jit(policy.init)(KEY, rl.example_observations(trial), policy.empty_memory(1))
    return rl.rl2(trial, policy, num_tasks=4, minibatches=1, **options), start


@pytest.mark.parametrize("make", [gradient_learner, recurrent_learner])
def test_the_form_of_observations_does_not_change_what_is_learned(make):
    """An image alone, and the same image as bytes, give the same update."""
    found = []
    for form in ("image", "bytes"):
        training, start = make(Corridor(form=form))
        found.append(jax.jit(training.step)(training.init(start), KEY)[0].meta.params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), *found)


@pytest.mark.parametrize("make", [gradient_learner, recurrent_learner])
def test_dictionaries_are_learned_from(make):
    training, start = make(Corridor(form="mapping"))
    state, metrics = jax.jit(training.step)(training.init(start), KEY)
    moved = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), state.meta.params, start)
    assert np.median(jax.tree.leaves(moved)) > 1e-4
    assert np.isfinite(metrics["loss"])


def test_pearl_learns_from_images():
    class Steered(Corridor):
        action_size, discrete = 1, False

        def move(self, pipeline_state, action, task):
            return super().move(pipeline_state, (action[0] > 0).astype(int), task)

    env = Steered(form="mapping")
    policy = rl.LatentPolicy(1, sizes=(8,), encoder_sizes=(8,), observation_size=env.observation_size)
    start = jax.jit(policy.init)(KEY, rl.example_observations(env), policy.prior().mean)
    training = rl.pearl(env, policy, env.sample_tasks(KEY, 3), num_tasks=2, episodes=2, updates=2, batch_size=8)
    state, metrics = jax.jit(training.step)(training.init(start), KEY)
    moved = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), state.meta.params, start)
    assert min(jax.tree.leaves(moved["params"]["actor"])) > 1e-5
    assert min(max(jax.tree.leaves(moved["params"][f"see_{name}"])) for name in ("actor", "encoder", "critic_0")) > 1e-5
    assert np.isfinite(metrics["critic_error"])


def test_an_environment_that_gives_another_form_than_it_names_is_refused():
    class Wrong(Corridor):
        observation_size = (5, 5, 2)

    policy = rl.CategoricalPolicy(2, (8,), encoder=rl.ObservationEncoder((5, 5, 1)))
    params = jax.jit(policy.init)(KEY, rl.example_observations(Corridor()))
    with pytest.raises(ValueError, match=r"observation_size of Wrong must be .* got \(5, 5, 2\) and observations"):
        rl.rollout(Wrong(), policy.apply, params, {"end": jnp.array(0)}, KEY, episodes=2)


def test_a_linear_baseline_says_that_images_are_too_large():
    class Photo(Corridor):
        observation_size = (32, 32, 1)

        def see(self, cell):
            return jnp.zeros((32, 32, 1))

    env = Photo()
    policy = rl.CategoricalPolicy(2, (8,), encoder=rl.ObservationEncoder(env.observation_size))
    params = jax.jit(policy.init)(KEY, rl.example_observations(env))
    with pytest.raises(ValueError, match=r'baseline="linear" takes .* at most 1000 numbers, got 1024: use rl.ValueNet'):
        rl.Collector(env=env, policy=policy.apply)(params, {"end": jnp.array(0)}, KEY)


@pytest.mark.parametrize("sizes", [(3, 5), (1, 1), (4, 0)], ids=str)
def test_moments_of_parts_are_those_of_the_whole(sizes):
    data = {"a": 100 + 3 * jax.random.normal(KEY, (sum(sizes), 2)), "b": jax.random.normal(KEY, (sum(sizes),))}
    valid = jnp.arange(sum(sizes)) % 3 != 1
    moments = _moments.empty_moments(jax.tree.map(lambda x: x[0], data))
    for part in (slice(0, sizes[0]), slice(sizes[0], None)):
        moments = _moments.add_moments(moments, jax.tree.map(lambda x, part=part: x[part], data), valid[part])
    for name, x in data.items():
        kept = np.asarray(x, np.float64)[np.asarray(valid)]
        np.testing.assert_allclose(moments.mean[name], kept.mean(axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(moments.variance[name], kept.var(axis=0), rtol=1e-4, atol=1e-4)


POLICY = rl.GaussianPolicy(2, (8,))


def learner(env, **options):
    collect = rl.Collector(env=env, policy=POLICY.apply, episodes=8, **options)
    start = jax.jit(POLICY.init)(KEY, rl.example_observations(env))
    return collect, rl.promp(collect, optax.sgd(0.1), num_tasks=4), start


def test_normalized_observations_do_not_know_their_units():
    """After one update, which gathers the statistics, two environments in other units are the same."""
    found = []
    for env in (envs.Particles2D(horizon=5), Shifted(horizon=5)):
        collect, training, start = learner(env, normalize=True)
        state = training.init(start)
        state = state._replace(meta=state.meta._replace(state=collect.learn(state.meta.state, played(env), KEY)))
        state, _ = jax.jit(training.step)(state, KEY)
        curve = jax.jit(rl.adaptation_curve(collect, optax.sgd(0.1), 1))
        found.append((state.meta.params, curve(state.meta, env.sample_tasks(KEY, 2), KEY).sampled))
        assert float(state.meta.state.moments.number) > 2 * 4 * 8
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3), *found)


def played(env):
    """Returns episodes whose actions do not depend on what is seen."""
    task = jax.tree.map(lambda x: x[0], env.sample_tasks(KEY, 1))
    return rl.rollout(env, lambda params, obs: rl.DiagonalGaussian(0 * obs, 0 * obs), None, task, KEY, episodes=16)


def test_a_value_network_fits_returns():
    network = rl.ValueNetwork((32,), optimizer=optax.adam(1e-2), updates=8)
    keys = jax.random.split(KEY, 3)
    obs = jax.random.normal(keys[0], (3, 10, 8, 2))
    returns = 1000 + 50 * obs[..., 0] * obs[..., 1] - 20 * jnp.arange(10.0).reshape(1, 10, 1)
    valid = jnp.arange(10).reshape(1, 10, 1) < jnp.array([[[10]], [[4]], [[10]]])
    valid = jnp.broadcast_to(valid, returns.shape)
    state = network.init(keys[1], obs[0, 0])
    fit = jax.jit(network.fit)
    for i in range(60):
        state = fit(state, obs, jnp.where(valid, returns, 1e6), valid, jax.random.fold_in(keys[2], i))
    values = jax.vmap(lambda obs: network.values(state, obs))(obs)
    error = np.asarray(jnp.where(valid, values - returns, 0)).std() / np.asarray(returns)[np.asarray(valid)].std()
    assert error < 0.3


@pytest.mark.parametrize("baseline", ["none", "linear", "network"])
def test_a_baseline_makes_advantages_smaller_and_no_baseline_is_the_return(baseline):
    env = envs.Particles2D(horizon=5)
    network = rl.ValueNetwork((8,))
    given = network if baseline == "network" else baseline
    collect, training, start = learner(env, baseline=given)
    state = training.init(start)
    for i in range(2):
        state, _ = jax.jit(training.step)(state, jax.random.key(i))
    task = jax.tree.map(lambda x: x[0], env.sample_tasks(KEY, 1))
    samples = jax.jit(lambda meta: collect.at(meta.state)(meta.params, task, KEY))(state.meta)
    data = samples.trajectory
    ended = data.terminated | data.truncated
    returns = rl.discounted_returns(data.reward, ended, discount=collect.discount)
    if baseline == "none":
        np.testing.assert_allclose(samples.advantage, rl.normalize(returns, data.valid), atol=1e-5)
    elif baseline == "network":
        values = network.values(state.meta.state.value, data.obs)
        np.testing.assert_allclose(samples.advantage, rl.normalize(returns - values, data.valid), atol=1e-3)
        assert float(state.meta.state.value.returns.number) == 2 * 4 * 2 * 8 * 5
    else:
        values = rl.linear_baseline(data.obs, returns, data.valid)
        np.testing.assert_allclose(samples.advantage, rl.normalize(returns - values, data.valid), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "part"), [({"normalize": True}, "normalize=True"), ({"baseline": rl.ValueNetwork()}, "a ValueNetwork")]
)
def test_a_collector_without_its_state_is_refused(options, part):
    collect, _, start = learner(envs.Particles2D(horizon=3), **options)
    for call in (lambda: rl.policy_gradient(collect), lambda: collect(start, {"goal": jnp.zeros(2)}, KEY)):
        with pytest.raises(ValueError, match=f"collect must be without a state here, got {part}"):
            call()
    with pytest.raises(ValueError, match="state must be that of this collector, such as meta.state, got ()"):
        collect.at(())


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match="baseline must be one of 'linear', 'none', got 'value'"):
        learner(envs.Particles2D(), baseline="value")


def test_a_recurrent_policy_scales_rewards_and_keeps_its_statistics():
    env = Shifted(horizon=4)
    trial = rl.Trial(env, 2)
    policy = rl.RecurrentPolicy(2, False, rl.GRU(8))
    start = jax.jit(policy.init)(KEY, rl.example_observations(trial), policy.empty_memory(1))
    training = rl.rl2(trial, policy, num_tasks=4, minibatches=1, normalize=True)
    state, metrics = training.init(start), {}
    for i in range(3):
        state, metrics = jax.jit(training.step)(state, jax.random.key(i))
    kept = state.meta.state
    assert float(kept.observations.number) == 3 * 4 * 8
    assert np.abs(kept.observations.mean[:2] - 60).max() < 60
    assert float(kept.returns.variance) > 0
    assert metrics["value_error"] < 20
    curve = jax.jit(rl.trial_curve(trial, policy))(state.meta, env.sample_tasks(KEY, 2), KEY)
    plain = jax.jit(rl.trial_curve(trial, policy))(state.meta._replace(state=()), env.sample_tasks(KEY, 2), KEY)
    assert np.abs(curve.mode - plain.mode).max() > 1e-4  # the policy sees by the statistics


def test_scaled_actions_reach_the_environment_and_its_oracle():
    plain = envs.make("particles2d", horizon=10)
    env = envs.ScaledActions(plain, 0.25)
    state = env.reset(KEY)
    for scaled, action in (([2.0, -1.0], [0.5, -0.25]), ([9.0, 0.0], [1.0, 0.0])):
        np.testing.assert_allclose(env.step(state, jnp.array(scaled)).obs, plain.step(state, jnp.array(action)).obs)
    np.testing.assert_allclose(env.oracle_action(state), 4 * plain.oracle_action(state))
    assert env.render([state, state]).shape == (200, 200, 3)
    assert (env.horizon, env.observation_size, hash(env) == hash(envs.ScaledActions(plain, 0.25))) == (10, 2, True)
    with pytest.raises(ValueError, match="env must have continuous actions, got"):
        envs.ScaledActions(envs.make("cartpole"), 0.1)
    with pytest.raises(ValueError, match="scale must be a positive number, got 0"):
        envs.ScaledActions(plain, 0)


@pytest.mark.parametrize("discrete", [False, True])
def test_only_the_context_adapts_in_cavia(discrete):
    """After an inner step the weights are the same, and the actions are those of moved biases."""
    env = envs.make("tabular", horizon=4) if discrete else envs.make("particles2d", horizon=4)
    policy = (rl.CategoricalPolicy if discrete else rl.GaussianPolicy)(env.action_size, (8,), context_size=3)
    start = jax.jit(policy.init)(KEY, rl.example_observations(env))
    is_context = lambda params: jax.tree.map_with_path(lambda path, _: path[-1].key == "context", params)  # noqa: E731
    inner = optax.partition({True: optax.sgd(10.0), False: optax.set_to_zero()}, is_context)
    collect = rl.Collector(env=env, policy=policy.apply, episodes=4)
    task = jax.tree.map(lambda x: x[0], env.sample_tasks(KEY, 1))
    adaptation = _meta_policy.Inner(collect, inner, rl.ratio, 1)
    params, _ = jax.jit(lambda meta: _meta_policy.collect_and_adapt(adaptation, meta, task, KEY))(
        jaxmeta.MetaParams(start)
    )
    before, after = (jax.tree.map(lambda x, i=i: x[i], params)["params"] for i in range(2))
    moved = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), before, after)
    assert moved.pop("context") > 1e-3
    assert max(jax.tree.leaves(moved)) == 0
    training = rl.promp(collect, inner, num_tasks=2)
    state, _ = jax.jit(training.step)(training.init(start), KEY)
    changed = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), state.meta.params, start)
    assert min(jax.tree.leaves(changed)) > 1e-5  # the outer update reaches all of them


OPTIONS = [
    ("promp", "particles2d", {"normalize": True, "baseline": "value", "init_std": 0.5, "action_scale": 0.5}),
    ("maml-trpo", "cartpole", {"normalize": True, "baseline": "value"}),
    ("multi-task-ppo", "tabular", {"baseline": "none"}),
    ("promp", "particles2d", {"context_size": 3}),
    ("maml-trpo", "particles2d", {"context_size": 3, "learned_rates": True}),
    ("maml-a2c", "tabular", {"surrogate": "dice", "learned_rates": True}),
    ("rl2", "particles2d", {"normalize": True, "memory": "linear", "init_std": 0.5}),
    ("rl2", "tabular", {"memory": "transformer"}),
    ("pearl", "particles2d", {"normalize": True}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("learner", "benchmark", "options"), OPTIONS, ids=lambda x: str(x)[:14])
def test_options_of_policies_train_evaluate_and_load(learner, benchmark, options, tmp_path):
    small = {"iterations": 2, "num_tasks": 2, "episodes": 2, "test_tasks": 2, "validation_tasks": 2, "horizon": 5}
    experiment = jaxmeta.Experiment(benchmark=benchmark, learner=learner, hidden=8, **small, **options)
    result = experiment.run(tmp_path / "run", progress=False)
    jax.tree.map(np.testing.assert_array_equal, jaxmeta.load_run(tmp_path / "run").meta, result.trained.meta)
    assert np.isfinite(result.test["return"].mean)


@pytest.mark.parametrize("option", [{"action_scale": 0.1}, {"init_std": 0.1}], ids=str)
def test_options_of_continuous_actions_are_refused_for_discrete_ones(option, tmp_path):
    (name,) = option
    with pytest.raises(ValueError, match=f"{name} needs continuous actions, and those of cartpole are discrete"):
        jaxmeta.Experiment(benchmark="cartpole", learner="promp", **option).run(tmp_path / "run")
