"""Rule world: a grid with objects that make others by hidden rules, which a policy has to find out."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._checks import check_integer
from jaxmeta._types import PyTree
from jaxmeta.envs._base import BaseEnv, Outcome
from jaxmeta.envs._grid import moved
from jaxmeta.envs._meta_env import State
from jaxmeta.envs._rule_oracle import best_action
from jaxmeta.envs._rule_picture import draw_world
from jaxmeta.envs._rules import RuleSets, product_of

_MOVES, _TAKE, _PUT = 4, 4, 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleWorld(BaseEnv):
    """World on a grid, in which objects make other objects by hidden rules, and one of them is the goal.

    An object has a kind, which is a color and a shape. The actions are up, right, down, left, take and put. `take`
    picks up the object in the agent's cell, and the agent can hold one. `put` lays it down in an empty cell. On another
    object, it makes the product of the two if there is a rule for them, in either order, and else does nothing.

    The goal is a kind. A step that makes it, or takes it if it is one of the objects, pays 1. Then the first objects
    lie in new places, so that a policy that knows the rules earns more within the horizon. An episode does not end
    there: its length tells nothing about the rules, and a trial of several episodes has a fixed shape.

    The task is a rule set `{"objects": [objects], "rules": [depth + distractors, 3], "goal": []}` of kinds, which are
    integers below `colors * shapes`. A row of the rules is two kinds and their product. The first `depth` rows lead to
    the goal, each with the product of the one before. The others waste two of the objects. A policy sees the objects,
    but neither the rules nor the goal. The same set of objects never occurs in both splits: a fifth of all sets belongs
    to `"test"`, with all their rules.

    | variant  | size | objects | depth | distractors | colors, shapes | horizon | rule sets    |
    | -------- | ---- | ------- | ----- | ----------- | -------------- | ------- | ------------ |
    | `easy`   | 2    | 3       | 1     | 0           | 3, 3           | 10      | 1512         |
    | `medium` | 5    | 4       | 1     | 2           | 4, 4           | 40      | 144 million  |
    | `hard`   | 7    | 5       | 2     | 3           | 4, 5           | 80      | 14 trillion  |

    On `easy`, RL2 with `rl.GRU(64)` learned to learn in five minutes on two cores, with trials of five episodes: with
    rules of split `"test"` it earned 1.2 in the first episode and 1.9 in each of the others.

    An observation is an image of the grid. For each cell it has the color and the shape of the object there, both
    one-hot, those of the object that the agent holds, in the agent's cell, and a 1 in the agent's cell. With `view`, it
    is a square around the agent, and the last channel tells which cells belong to the grid.

    Args:
        horizon: number of steps after which an episode is truncated.
        size: number of rows and columns, at least 2.
        objects: number of objects at the beginning, all of different kinds.
        depth: number of rules that lead to the goal, less than `objects`; 0 if the goal is one of the objects.
        distractors: number of other rules.
        colors: number of colors.
        shapes: number of shapes.
        view: odd number of cells on a side of the square that is seen; 0 for the whole grid.

    Raises:
        ValueError: if a number is out of range, there are too few cells, pairs or kinds, or `view` is even.

    Example:
        >>> env = RuleWorld(size=2, objects=2, distractors=0)
        >>> task = {"objects": jnp.array([3, 5]), "rules": jnp.array([[5, 3, 8]]), "goal": jnp.array(8)}
        >>> state = env.reset(jax.random.key(0), task)
        >>> total = 0.0
        >>> for _ in range(env.horizon):
        ...     state = env.step(state, env.oracle_action(state))
        ...     total += float(state.reward)
        >>> total
        9.0

    References:
        Nikulin, Kurenkov, Zisman, Agarkov, Sinii & Kolesnikov, *XLand-MiniGrid: Scalable Meta-Reinforcement Learning
        Environments in JAX*, NeurIPS 2024, https://arxiv.org/abs/2312.12044, for larger worlds of this kind
    """

    horizon: int = 40
    size: int = 5
    objects: int = 4
    depth: int = 1
    distractors: int = 2
    colors: int = 4
    shapes: int = 4
    view: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(least=2, size=self.size, objects=self.objects)
        check_integer(colors=self.colors, shapes=self.shapes)
        check_integer(least=0, depth=self.depth, distractors=self.distractors, view=self.view)
        if self.objects >= self.size**2:
            raise ValueError(f"objects must be less than the {self.size**2} cells, got {self.objects}")
        if self.view and self.view % 2 == 0:
            raise ValueError(f"view must be odd, or 0 for the whole grid, got {self.view}")
        self.rule_sets.check()

    @property
    def rule_sets(self) -> RuleSets:
        """Distribution of the tasks."""
        return RuleSets(self.colors * self.shapes, self.objects, self.depth, self.distractors)

    @property
    def observation_size(self) -> tuple[int, int, int]:
        """Shape of an observation."""
        side = self.view or self.size
        return side, side, 2 * (self.colors + self.shapes) + 1

    @property
    def action_size(self) -> int:
        """Number of actions: up, right, down, left, take and put."""
        return 6

    @property
    def discrete(self) -> bool:
        """Flag of discrete actions."""
        return True

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draws a rule set."""
        return self.rule_sets.draw(key, split)

    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, jax.Array]:
        """Starts an episode with the agent and the objects in different cells."""
        key, agent_key, place_key = jax.random.split(key, 3)
        agent = jax.random.randint(agent_key, (2,), 0, self.size, int)
        state = {"key": key, "agent": agent, "grid": self._place(place_key, agent, task), "held": jnp.array(-1)}
        return state, self._observe(state)

    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Moves by a cell, takes an object or puts it down."""
        key, place_key = jax.random.split(pipeline_state["key"])
        agent = moved(pipeline_state["agent"], jnp.where(action < _MOVES, action + 1, 0), self.size)
        grid, held = pipeline_state["grid"], pipeline_state["held"]
        lying = grid[agent[0], agent[1]]
        takes = (action == _TAKE) & (held < 0) & (lying >= 0)
        puts = (action == _PUT) & (held >= 0)
        product = product_of(task["rules"], held, lying)
        drops, makes = puts & (lying < 0), puts & (product >= 0)
        after = jnp.where(takes, -1, jnp.where(drops, held, jnp.where(makes, product, lying)))
        reached = (takes & (lying == task["goal"])) | (makes & (product == task["goal"]))
        held = jnp.where(takes, lying, jnp.where(drops | makes, -1, held))
        state = {
            "key": key,
            "agent": agent,
            "grid": jnp.where(reached, self._place(place_key, agent, task), grid.at[agent[0], agent[1]].set(after)),
            "held": jnp.where(reached, -1, held),
        }
        return Outcome(state, self._observe(state), reached.astype(float), jnp.array(False))

    def floor_return(self, task: PyTree) -> jax.Array:
        """Returns the return of an agent that takes nothing, `[]`."""
        return jnp.zeros(jnp.shape(task["goal"]))

    def oracle_action(self, state: State) -> jax.Array:
        """Returns the action that makes the next product on the way to the goal soonest, `[]`.

        With `depth` of at most 1, no policy that knows the rules earns more. In an episode in which other objects have
        been wasted, it may do nothing useful.
        """
        return best_action(state.pipeline_state, state.info["task"], self.depth)

    def render(self, states: Sequence[State]) -> np.ndarray:
        """Draws the last state, with the agent as a frame and what it holds in a corner, as an image of uint8."""
        return draw_world(states[-1].pipeline_state, self.colors, self.shapes)

    def _place(self, key: jax.Array, agent: jax.Array, task: PyTree) -> jax.Array:
        """Returns a grid with the objects in different cells, none of them the agent's."""
        order = jax.random.uniform(key, (self.size, self.size)).at[agent[0], agent[1]].set(-1)
        _, cells = jax.lax.top_k(order.ravel(), self.objects)
        return jnp.full(self.size**2, -1).at[cells].set(task["objects"]).reshape(self.size, self.size)

    def _observe(self, state: PyTree) -> jax.Array:
        agent = state["agent"]
        here = jnp.zeros((self.size, self.size, 1)).at[agent[0], agent[1]].set(1)
        parts = [self._look(state["grid"]), here * self._look(state["held"][None, None])]
        if not self.view:
            return jnp.concatenate([*parts, here], axis=-1)
        image = jnp.concatenate([*parts, jnp.ones_like(here)], axis=-1)
        margin = self.view // 2
        padded = jnp.pad(image, ((margin, margin), (margin, margin), (0, 0)))
        return jax.lax.dynamic_slice(padded, (agent[0], agent[1], 0), self.observation_size)

    def _look(self, kind: jax.Array) -> jax.Array:
        """Returns the color and the shape of kinds, both one-hot; zeros for none."""
        color, shape = jnp.where(kind < 0, -1, kind % self.colors), jnp.where(kind < 0, -1, kind // self.colors)
        return jnp.concatenate([jax.nn.one_hot(color, self.colors), jax.nn.one_hot(shape, self.shapes)], axis=-1)
