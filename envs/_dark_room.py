"""Dark room: an image of a room in which the goal is not seen."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._checks import check_integer
from jaxmeta._types import PyTree
from jaxmeta.envs._base import Outcome
from jaxmeta.envs._grid import GOLD, RED, GridEnv, draw_walk, moved, toward
from jaxmeta.envs._meta_env import State


@dataclasses.dataclass(frozen=True, kw_only=True)
class DarkRoom(GridEnv):
    """Dark room, an image of the agent in a room whose goal is not seen.

    The task is `{"goal": [2]}`, a row and a column. With `key=True` it is `{"goal": [2], "key": [2]}`. Episodes start
    in the middle. The actions are stay, up, right, down and left. Channel 0 of an observation is 1 in the agent's cell.
    Channel 1 is 1 along the walls. With `key=True` it is 1 everywhere as soon as the agent has the key, and 0 before.

    A fifth of the cells is held out: the goals of split `"test"` are where `(row + 2 * column) % 5` is 0, which is a
    cell in each five neighbors of a row or a column. Those of `"train"` are elsewhere.

    | variant       | reward                                                      | size | horizon |
    | ------------- | ----------------------------------------------------------- | ---- | ------- |
    | `ad`          | 1 for each step on the goal                                 | 9    | 20      |
    | `ad-hard`     | 1 for the first step on the goal                            | 17   | 20      |
    | `key-to-door` | 1 for the key, and 1 for the first later step on the goal   | 9    | 50      |

    Args:
        horizon: number of steps after which an episode is truncated.
        size: number of rows and columns, at least 2.
        sparse: whether only the first step on the goal pays.
        key: whether a key in another hidden cell pays once, and the goal only once and only after the key.

    Example:
        >>> env = DarkRoom(size=3)
        >>> state = env.step(env.reset(jax.random.key(0), {"goal": jnp.array([0, 1])}), jnp.array(1))
        >>> float(state.reward), state.obs.shape
        (1.0, (3, 3, 2))
        >>> print(state.obs[..., 0])
        [[0. 1. 0.]
         [0. 0. 0.]
         [0. 0. 0.]]

    References:
        Laskin et al., *In-context Reinforcement Learning with Algorithm Distillation*, ICLR 2023,
        https://arxiv.org/abs/2210.14215, where an observation is the row and the column
    """

    horizon: int = 20
    size: int = 9
    sparse: bool = False
    key: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(size=self.size, least=2)

    @property
    def observation_size(self) -> tuple[int, int, int]:
        """Shape of an observation."""
        return self.size, self.size, 2

    def draw_task(self, key: jax.Array, split: str) -> PyTree:
        """Draws the goal, and the key if there is one."""
        goal_key, key_key = jax.random.split(key)
        rows, columns = np.indices((self.size, self.size))
        held_out = (rows + 2 * columns) % 5 == 0
        goals = np.argwhere(held_out if split == "test" else ~held_out)
        task = {"goal": jax.random.choice(goal_key, jnp.asarray(goals))}
        return {**task, "key": jax.random.randint(key_key, (2,), 0, self.size, int)} if self.key else task

    def begin(self, key: jax.Array, task: PyTree) -> tuple[PyTree, jax.Array]:
        """Starts an episode in the middle, without the key."""
        cell, no = jnp.full(2, self.size // 2), jnp.array(False)
        return {"cell": cell, "has_key": no, "paid": no}, self._observe(cell, no)

    def move(self, pipeline_state: PyTree, action: jax.Array, task: PyTree) -> Outcome:
        """Moves by a cell, or stays."""
        cell = moved(pipeline_state["cell"], action, self.size)
        has_key, paid = pipeline_state["has_key"], pipeline_state["paid"]
        at_goal = jnp.all(cell == task["goal"])
        pays = at_goal & ~paid if self.sparse or self.key else at_goal
        reward = pays.astype(float)
        if self.key:
            at_key = jnp.all(cell == task["key"])
            pays = pays & has_key
            reward = pays.astype(float) + (at_key & ~has_key)
            has_key = has_key | at_key
        after = {"cell": cell, "has_key": has_key, "paid": paid | pays}
        return Outcome(
            after, self._observe(cell, has_key), reward, jnp.array(False), {"at_goal": at_goal.astype(float)}
        )

    def floor_return(self, task: PyTree) -> jax.Array:
        """Returns the return of staying in the middle, `[]`."""
        at_goal = jnp.all(task["goal"] == self.size // 2, axis=-1).astype(float)
        if not self.key:
            return at_goal if self.sparse else self.horizon * at_goal
        return jnp.all(task["key"] == self.size // 2, axis=-1) * (1 + at_goal * (self.horizon > 1))

    def oracle_action(self, state: State) -> jax.Array:
        """Returns the action that goes straight to the key, if it is missing, and then to the goal, `[]`."""
        task, now = state.info["task"], state.pipeline_state
        target = jnp.where(now["has_key"], task["goal"], task["key"]) if self.key else task["goal"]
        return toward(now["cell"], target)

    def render(self, states: Sequence[State]) -> np.ndarray:
        """Draws an episode, with a blue path, a red goal and a golden key, as an image of uint8."""
        task = jax.tree.map(np.asarray, states[0].info["task"])
        cells = np.stack([state.pipeline_state["cell"] for state in states])
        colors = {"key": GOLD, "goal": RED}
        return draw_walk(self.size, cells, {tuple(task[name].tolist()): colors[name] for name in sorted(task)[::-1]})

    def _observe(self, cell: jax.Array, has_key: jax.Array) -> jax.Array:
        agent = jnp.zeros((self.size, self.size)).at[cell[0], cell[1]].set(1)
        walls = np.ones((self.size, self.size))
        walls[1:-1, 1:-1] = 0
        second = jnp.broadcast_to(has_key, agent.shape) if self.key else jnp.asarray(walls)
        return jnp.stack([agent, second.astype(agent.dtype)], axis=-1)
