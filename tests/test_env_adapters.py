# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""Adapters to gymnax and XLand-MiniGrid, with small environments that have the same interfaces."""

from types import SimpleNamespace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import envs
from jaxmeta.testing import check_env

KEY = jax.random.key(0)


@flax.struct.dataclass
class Drift:
    """Parameters of a walk on a line, as those of gymnax."""

    step: float = 1.0
    max_steps_in_episode: int = 7


class Line:
    """Walk on a line that ends at 3, with the interface of gymnax: the limit counts as an end, as before gymnax 1.0."""

    space: Any = SimpleNamespace(n=2)

    def action_space(self, params):
        return self.space

    def reset(self, key, params):
        state = {"x": 0.1 * jax.random.uniform(key), "time": 0}
        return self.observe(state), state

    def observe(self, state):
        return jnp.stack([state["x"], jnp.sin(state["x"])])

    def step_env(self, key, state, action, params):
        change = action * 2 - 1 if hasattr(self.space, "n") else jnp.sum(action)
        state = {"x": state["x"] + params.step * change, "time": state["time"] + 1}
        done = (state["x"] > 3) | (state["time"] >= params.max_steps_in_episode)
        return self.observe(state), state, change, done, {"discount": 1.0}


class Numbers(Line):
    """Line with actions that are a matrix of numbers."""

    space = SimpleNamespace(shape=(1, 2), low=np.array([[-1.0, -10.0]]), high=np.array([[3.0, 0.0]]))


class Unbounded(Line):
    """Line with actions without bounds."""

    space = SimpleNamespace(shape=(1,), low=-np.inf, high=np.inf)


class Wrapper:
    """Wrapper as those of gymnax: it changes observations in its own `step`, and hands out the rest."""

    def __init__(self, env):
        self.env = env

    def __getattr__(self, name):
        return getattr(self.env, name)

    def reset(self, key, params):
        obs, state = self.env.reset(key, params)
        return {"line": obs, "square": jnp.ones((2, 2))}, state

    def step(self, key, state, action, params):
        obs, state, reward, done, info = self.env.step_env(key, state, action, params)
        first, start = self.env.reset(key, params)
        obs, state = jax.tree.map(lambda x, y: jnp.where(done, x, y), (first, start), (obs, state))
        return {"line": obs, "square": jnp.ones((2, 2))}, state, reward, done, jnp.array(False), info


def short_steps(key):
    return Drift(step=jax.random.uniform(key, minval=0.1, maxval=0.2))


def walk(env, task, actions):
    """Returns the states after each action."""
    state, states = env.reset(KEY, task), []
    for action in actions:
        state = env.step(state, jnp.array(action))
        states.append(state)
    return states


@pytest.mark.parametrize(
    ("inner", "size", "action_size", "discrete"),
    [
        (Line(), 2, 2, True),
        (Numbers(), 2, 2, False),
        (Wrapper(Line()), {"line": 2, "square": (2, 2)}, 2, True),
    ],
    ids=["line", "numbers", "wrapper"],
)
def test_gymnax_interface(inner, size, action_size, discrete):
    env = envs.GymnaxEnv(inner, Drift(), short_steps)
    assert (env.observation_size, env.action_size, env.discrete, env.horizon) == (size, action_size, discrete, 7)
    check_env(env, dynamics_differ=True)


def test_gymnax_ends():
    """The limit truncates, and a position above 3 terminates. No episode starts by itself."""
    env = envs.GymnaxEnv(Line(), Drift(), short_steps)
    states = walk(env, Drift(step=0.1), [1] * 7)
    assert [float(state.done) for state in states] == [0] * 6 + [1] and states[-1].info["truncation"] == 1
    states = walk(env, Drift(step=1.0), [1, 1, 1, 1])
    assert [float(state.done) for state in states] == [0, 0, 1, 1]
    assert states[-1].obs[0] > 3.9 and states[-1].info["truncation"] == 0
    longer = envs.GymnaxEnv(Line(), Drift(), short_steps, horizon=12)
    assert [float(state.done) for state in walk(longer, Drift(step=0.1), [1] * 12)] == [0] * 11 + [1]


def test_gymnax_scales_actions():
    env = envs.GymnaxEnv(Numbers(), Drift(), short_steps)
    rewards = [float(state.reward) for state in walk(env, Drift(step=0.01), [[-1, -1], [1, 1], [0, 0], [-5, 0.5]])]
    np.testing.assert_allclose(rewards, [-1 - 10, 3 + 0, 1 - 5, -1 - 2.5], rtol=1e-6)


def test_gymnax_splits():
    env = envs.GymnaxEnv(Line(), Drift(), short_steps, lambda key: short_steps(key).replace(step=jnp.array(0.5)))
    train, test = (env.sample_tasks(KEY, 50, split=split).step for split in ("train", "test"))
    assert train.min() >= 0.1 and train.max() < 0.2 and len(np.unique(train)) > 40 and (test == 0.5).all()


def test_adapters_are_keys():
    """Two adapters with equal numbers are different keys of a cache, because functions and arrays have no equality."""
    one, other = (envs.GymnaxEnv(Line(), Drift(step=step), short_steps) for step in (1.0, 2.0))
    assert one == one and one != other and len({one, other, one}) == 2
    assert envs.GymVectorEnv(one, 2).reset(seed=0)[0].shape == (2, 2)


@flax.struct.dataclass
class Params:
    """Parameters as those of XLand-MiniGrid."""

    max_steps: int | None = flax.struct.field(pytree_node=False, default=5)
    ruleset: Any = None


@flax.struct.dataclass
class TimeStep:
    """Time step as that of XLand-MiniGrid."""

    state: Any
    step_type: jax.Array
    reward: jax.Array
    discount: jax.Array
    observation: Any

    def last(self):
        return self.step_type == 2


class Tiles:
    """World of one tile, which an action sets and whose right value is the rule."""

    def num_actions(self, params):
        return 3

    def reset(self, params, key):
        tile = jax.random.randint(key, (), 0, 3).astype(jnp.uint8)
        return TimeStep((tile, jnp.array(0)), jnp.uint8(0), jnp.array(0.0), jnp.array(1.0), self.observe(tile))

    def observe(self, tile) -> Any:
        return jnp.stack([tile, jnp.uint8(1)])[None, None]

    def step(self, params, timestep, action):
        tile, time = action.astype(jnp.uint8), timestep.state[1] + 1
        reached = action == params.ruleset
        over = reached | (time == params.max_steps)
        reward = jnp.where(reached, 1 - 0.9 * time / params.max_steps, 0.0)
        kind = jnp.where(over, 2, 1).astype(jnp.uint8)
        return TimeStep((tile, time), kind, reward, jnp.where(reached, 0.0, 1.0), self.observe(tile))


class Directions(Tiles):
    """The same with observations that are a dictionary."""

    def observe(self, tile):
        return {"img": super().observe(tile), "direction": jax.nn.one_hot(tile, 4)}


def some_rule(key):
    return 10 + jax.random.randint(key, (), 0, 100)  # a rule that no action fulfills


@pytest.mark.parametrize(
    ("inner", "layers", "size"),
    [
        (Tiles(), (13, 12), (1, 1, 25)),
        (Tiles(), (), (1, 1, 2)),
        (Directions(), (3, 2), {"img": (1, 1, 5), "direction": 4}),
    ],
    ids=["one-hot", "numbers", "dictionary"],
)
def test_xland_interface(inner, layers, size):
    env = envs.XLandEnv(inner, Params(), some_rule, lambda key: some_rule(key) + 200, layers=layers)
    assert (env.observation_size, env.action_size, env.discrete, env.horizon) == (size, 3, True, 5)
    check_env(env)


def test_xland_steps():
    env = envs.XLandEnv(Tiles(), Params(), some_rule, layers=(3, 2))
    states = walk(env, jnp.array(2), [0, 1, 2])
    assert [float(state.done) for state in states] == [0, 0, 1] and states[-1].info["truncation"] == 0
    assert [float(state.reward) for state in states] == pytest.approx([0, 0, 1 - 0.9 * 3 / 5])
    assert [state.obs[0, 0].tolist() for state in states] == [[1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 1, 0, 1]]
    at_limit = walk(env, jnp.array(2), [0, 0, 0, 0, 0])[-1]
    assert at_limit.done == 1 and at_limit.info["truncation"] == 1
    both = walk(env, jnp.array(2), [0, 0, 0, 0, 2])[-1]
    assert both.done == 1 and both.info["truncation"] == 0 and float(both.reward) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: envs.GymnaxEnv(Line(), object(), short_steps), ValueError, "no max_steps_in_episode"),
        (lambda: envs.GymnaxEnv(Line(), Drift(), Drift()), TypeError, "sample_task must be"),
        (lambda: envs.GymnaxEnv(Line(), Drift(), short_steps, 3), TypeError, "sample_test_task must be"),
        (lambda: envs.GymnaxEnv(Unbounded(), Drift(), short_steps), ValueError, "bounds of its actions"),
        (lambda: envs.GymnaxEnv(Line(), Drift(), short_steps, horizon=-1), ValueError, "horizon must be"),
        (lambda: envs.XLandEnv(Tiles(), Params(max_steps=None), some_rule), ValueError, "max_steps of params is None"),
        (
            lambda: envs.XLandEnv(Tiles(), Params(), some_rule, layers=(13,)).observation_size,
            ValueError,
            "layers must have 2 numbers",
        ),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
