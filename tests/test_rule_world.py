"""Rule world: against a copy in plain Python, exhaustive searches and counts."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import envs
from jaxmeta.envs import RuleWorld
from jaxmeta.testing import check_env

MOVES = [(-1, 0), (0, 1), (1, 0), (0, -1)]  # up, right, down, left
KEY = jax.random.key(0)


@pytest.mark.parametrize("variant", ["easy", "medium", "hard"])
def test_is_a_meta_env(variant):
    check_env(envs.make("rule-world", variant=variant, horizon=6), seen_tasks=True)


def test_is_a_meta_env_with_a_view():
    check_env(RuleWorld(view=3, horizon=4), seen_tasks=True)


class Plain:
    """Rule world in plain Python: objects are a dictionary from cells to kinds."""

    def __init__(self, size, task, agent, objects, held=-1):
        self.size, self.agent, self.objects, self.held = size, agent, dict(objects), held
        self.rules = {frozenset(rule[:2]): rule[2] for rule in np.asarray(task["rules"]).tolist()}
        self.goal = int(task["goal"])

    def step(self, action):
        """Takes one step, and returns whether the goal is reached."""
        if action < 4:
            steps = zip(self.agent, MOVES[action], strict=True)
            self.agent = tuple(min(max(x + dx, 0), self.size - 1) for x, dx in steps)
        elif action == 4 and self.held < 0 and self.agent in self.objects:
            self.held = self.objects.pop(self.agent)
            return self.held == self.goal
        elif action == 5 and self.held >= 0:
            if self.agent not in self.objects:
                self.objects[self.agent], self.held = self.held, -1
            else:
                product = self.rules.get(frozenset([self.held, self.objects[self.agent]]))
                if product is not None:
                    self.objects[self.agent], self.held = product, -1
                return product == self.goal
        return False

    def grid(self):
        """Returns the kinds of the cells."""
        grid = np.full((self.size, self.size), -1)
        for cell, kind in self.objects.items():
            grid[cell] = kind
        return grid


def plain(env, task, states, time):
    """Returns the plain copy of a state."""
    now = jax.tree.map(lambda x: x[time], states.pipeline_state)
    objects = {tuple(cell): int(now["grid"][tuple(cell)]) for cell in np.argwhere(now["grid"] >= 0).tolist()}
    return Plain(env.size, task, tuple(now["agent"].tolist()), objects, int(now["held"]))


WORLDS = {
    "take": RuleWorld(size=3, objects=3, depth=0, distractors=2),
    "one rule": RuleWorld(size=3, objects=3, depth=1, distractors=1),
    "chain": RuleWorld(size=3, objects=4, depth=2, distractors=1),
}


@pytest.mark.parametrize("name", WORLDS)
def test_rule_world_steps(name):
    env, goals, wasted = WORLDS[name], 0, 0
    tasks = env.sample_tasks(KEY, 10)
    actions = np.random.default_rng(2).choice(6, 200, p=[0.15, 0.15, 0.15, 0.15, 0.2, 0.2])
    run = jax.jit(jax.vmap(lambda task: play_on_device(env, task, actions)))
    for i in range(10):
        task, states = (jax.tree.map(lambda x, i=i: np.asarray(x[i]), tree) for tree in (tasks, run(tasks)))
        for time, action in enumerate(actions):
            world = plain(env, task, states, time)
            reached = world.step(action)
            after = plain(env, task, states, time + 1)
            assert states.reward[time + 1] == reached and world.agent == after.agent
            if reached:  # all the first objects lie elsewhere than under the agent
                assert sorted(after.objects.values()) == sorted(task["objects"].tolist())
                assert after.agent not in after.objects and after.held == -1
            else:
                assert (world.grid() == after.grid()).all() and world.held == after.held
            goals, wasted = goals + reached, wasted + (len(after.objects) + (after.held >= 0) < env.objects)
    assert goals > 0 and (wasted > 5 or name == "take")


def play_on_device(env, task, actions):
    """Returns all states of an episode, without their keys."""

    def step(state, action):
        state = env.step(state, action)
        return state, state

    first = env.reset(KEY, task)
    states = jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, jax.lax.scan(step, first, actions)[1])
    return dataclasses.replace(states, pipeline_state={k: states.pipeline_state[k] for k in ("agent", "grid", "held")})


def decoded(image, colors, shapes):
    """Returns the kinds of the objects in an observation's cells, the held kinds, and the last channel."""
    kinds = []
    for part in np.split(image[..., :-1], 2, axis=-1):
        color, shape = part[..., :colors], part[..., colors:]
        assert (color.sum(-1) == shape.sum(-1)).all() and set(np.unique(part).tolist()) <= {0, 1}
        kinds.append(np.where(color.sum(-1) > 0, shape.argmax(-1) * colors + color.argmax(-1), -1))
    assert shapes == image.shape[-1] // 2 - colors
    return *kinds, image[..., -1]


@pytest.mark.parametrize("view", [0, 3, 7])
def test_rule_world_observations(view):
    env = RuleWorld(size=4, objects=4, view=view, colors=3, shapes=5)
    actions = np.random.default_rng(3).choice(6, 100)
    task = jax.tree.map(lambda x: x[0], env.sample_tasks(KEY, 1))
    states = jax.tree.map(np.asarray, jax.jit(lambda: play_on_device(env, task, actions))())
    assert (states.pipeline_state["held"] >= 0).any()
    for time, image in enumerate(states.obs):
        world = plain(env, task, states, time)
        grid, held, here = decoded(image, 3, 5)
        row, column = world.agent
        expected_held = np.full((4, 4), -1)
        expected_held[row, column] = world.held
        expected = [world.grid(), expected_held, np.ones((4, 4))]
        if view:
            margin = view // 2
            expected = [np.pad(x, margin, constant_values=fill) for x, fill in zip(expected, (-1, -1, 0), strict=True)]
            expected = [x[row : row + view, column : column + view] for x in expected]
        else:
            expected[2] = np.zeros((4, 4))
            expected[2][row, column] = 1
        for seen, wanted in zip((grid, held, here), expected, strict=True):
            np.testing.assert_array_equal(seen, wanted)


@pytest.mark.parametrize(
    ("objects", "depth", "distractors", "kinds"),
    [(2, 0, 0, 4), (2, 1, 0, 4), (3, 0, 3, 9), (3, 1, 2, 9), (4, 2, 3, 16), (5, 4, 9, 12)],
)
def test_rule_sets(objects, depth, distractors, kinds):
    env = RuleWorld(objects=objects, depth=depth, distractors=distractors, colors=kinds, shapes=1)
    sets = {}
    for split in ("train", "test"):
        tasks = jax.tree.map(np.asarray, env.sample_tasks(KEY, 300, split=split))
        sets[split] = {frozenset(row) for row in tasks["objects"].tolist()}
        for i in range(300):
            first = set(tasks["objects"][i].tolist())
            rules, goal = tasks["rules"][i].tolist(), int(tasks["goal"][i])
            assert len(first) == objects and len(rules) == depth + distractors
            assert len({frozenset(rule[:2]) for rule in rules}) == len(rules), "two rules for the same objects"
            assert all(rule[0] != rule[1] for rule in rules)
            assert min(first) >= 0 and max([*first, goal, *np.ravel(rules).tolist()]) < kinds
            there, unused = set(first), set(first)
            for one, other, product in rules[:depth]:  # each rule uses what is there, and makes something new
                assert {one, other} <= there and product not in there
                there, unused = there | {product}, unused - {one, other}
            assert len(unused) == objects - depth - (depth > 0)
            wasted = {rule[2] for rule in rules[depth:]}
            assert all(set(rule[:2]) <= first for rule in rules[depth:]) and not wasted & there
            assert goal == rules[depth - 1][2] if depth else goal in first
    assert not sets["train"] & sets["test"] and sets["test"]


def test_all_rule_sets_are_drawn():
    """The variant `easy` has 84 sets of 3 of 9 kinds, 3 pairs of them, and 6 products."""
    env = envs.make("rule-world", variant="easy")
    found, sets = set(), {}
    for split in ("train", "test"):
        tasks = jax.tree.map(np.asarray, env.sample_tasks(KEY, 12_000, split=split))
        objects = [frozenset(row) for row in tasks["objects"].tolist()]
        rules = [(frozenset(rule[0][:2]), rule[0][2]) for rule in tasks["rules"].tolist()]
        found |= set(zip(objects, rules, strict=True))
        sets[split] = len(set(objects))
    assert len(found) == 84 * 3 * 6
    assert sets["train"] + sets["test"] == 84 and 14 <= sets["test"] <= 20


def soonest(world):
    """Returns the smallest number of actions after which the goal is reached, by breadth-first search."""
    seen, layer = set(), [world]
    for time in itertools.count(1):
        following = []
        for state, action in itertools.product(layer, range(6)):
            after = Plain.__new__(Plain)
            after.__dict__ = {**state.__dict__, "objects": dict(state.objects)}
            if after.step(action):
                return time
            name = after.agent, after.held, frozenset(after.objects.items())
            if name not in seen:
                seen.add(name)
                following.append(after)
        layer = following


@pytest.mark.parametrize(("name", "random"), [("take", 0), ("take", 9), ("one rule", 0), ("chain", 0)])
def test_oracle(name, random):
    """With at most one rule, the oracle reaches the goal as soon as any sequence of actions does."""
    env, number = dataclasses.replace(WORLDS[name], distractors=0, horizon=40), 12
    tasks, keys = env.sample_tasks(KEY, number), jax.random.split(KEY, number)

    def episode(task, key):
        def step(state, action):
            return env.step(state, action), None

        def best(state, _):
            after = env.step(state, env.oracle_action(state))
            return after, after.reward

        actions = jax.random.randint(key, (random,), 0, 6)
        start = jax.lax.scan(step, env.reset(key, task), actions)[0]
        world = {name: start.pipeline_state[name][None] for name in ("agent", "grid", "held")}
        start_free = dataclasses.replace(start, pipeline_state=world)
        return start_free, jax.lax.scan(best, start, length=30)[1]

    starts, rewards = jax.tree.map(np.asarray, jax.jit(jax.vmap(episode))(tasks, keys))
    for i in range(number):
        task, start = jax.tree.map(lambda x, i=i: np.asarray(x[i]), (tasks, starts))
        first = np.flatnonzero(rewards[i])[0] + 1
        if name == "chain":
            assert first <= 30
        else:
            assert first == soonest(plain(env, task, start, 0))


def test_oracle_puts_down_what_it_does_not_need():
    env = RuleWorld(size=3, objects=3, distractors=0)
    task = {"objects": jnp.array([0, 1, 2]), "rules": jnp.array([[0, 1, 5]]), "goal": jnp.array(5)}
    state = env.reset(KEY, task)
    grid = jnp.array([[0, 1, 2], [-1, -1, -1], [-1, -1, -1]])
    world = {**state.pipeline_state, "grid": grid.at[0, 2].set(-1), "held": jnp.array(2), "agent": jnp.array([0, 0])}
    state = dataclasses.replace(state, pipeline_state=world)
    actions = []
    for _ in range(6):
        actions.append(int(env.oracle_action(state)))
        state = env.step(state, jnp.array(actions[-1]))
    assert state.reward == 1 and actions == [2, 5, 0, 4, 1, 5]


def test_floor_and_picture():
    env = RuleWorld(size=3, objects=2, depth=1, distractors=0, colors=2, shapes=3)
    task = {"objects": jnp.array([0, 5]), "rules": jnp.array([[0, 5, 2]]), "goal": jnp.array(2)}
    assert float(env.floor_return(task)) == 0
    state = env.reset(KEY, task)
    grid = jnp.array([[0, -1, -1], [-1, -1, -1], [-1, -1, 5]])
    world = {"agent": jnp.array([0, 2]), "grid": grid, "held": jnp.array(2)}
    image = env.render([dataclasses.replace(state, pipeline_state=world)])
    assert image.shape == (120, 120, 3) and image.dtype == np.uint8
    red, cyan, white = [204, 20, 20], [20, 204, 204], [255, 255, 255]
    assert [image[y, x].tolist() for y, x in [(20, 20), (100, 100), (60, 60), (12, 92)]] == [red, cyan, white, red]
    assert (image[0:3, 80:120] == 0).all() and image[35, 110].tolist() == white


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objects": 1}, "objects must be an integer of at least 2, got 1"),
        ({"size": 2, "objects": 4}, "objects must be less than the 4 cells, got 4"),
        ({"view": 4}, "view must be odd, or 0 for the whole grid, got 4"),
        ({"depth": 4}, "depth must be less than objects .4., got 4"),
        ({"distractors": 6}, "distractors must be at most 5 for 4 objects, got 6"),
        ({"colors": 5, "shapes": 1}, "colors . shapes must be at least 6 for such rules, got 5"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        RuleWorld(**options)
