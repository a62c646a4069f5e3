"""Parts of the environments on grids: moves, the way to a cell, and pictures. A cell is `(row, column)`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.envs._base import BaseEnv

MOVES = np.array([(0, 0), (-1, 0), (0, 1), (1, 0), (0, -1)])
"""Changes of the cell by the actions: stay, up, right, down, left."""

WHITE, GRAY, LIGHT_BLUE, BLUE = (255, 255, 255), (210, 210, 210), (190, 210, 250), (30, 60, 200)
RED, GOLD = (200, 30, 30), (220, 170, 30)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridEnv(BaseEnv):
    """Environment on a square grid with the actions of `MOVES`, and with a goal."""

    @property
    def action_size(self) -> int:
        """Number of actions: stay, up, right, down and left."""
        return len(MOVES)

    @property
    def discrete(self) -> bool:
        """Flag of discrete actions."""
        return True

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Name of the flag of a step that ends on the goal."""
        return ("at_goal",)


def moved(cell: jax.Array, action: jax.Array, size: int) -> jax.Array:
    """Returns the cell after one of the `MOVES`. The border of the grid stops a move."""
    return jnp.clip(cell + jnp.asarray(MOVES)[action], 0, size - 1)


def toward(cell: jax.Array, target: jax.Array) -> jax.Array:
    """Returns the action of `MOVES` that comes nearer to the target, first along the column, or 0 on it."""
    rows, columns = target - cell
    vertical, horizontal = jnp.where(rows < 0, 1, 3), jnp.where(columns < 0, 4, 2)
    return jnp.where(rows != 0, vertical, jnp.where(columns != 0, horizontal, 0))


def draw_cells(colors: np.ndarray) -> np.ndarray:
    """Returns colors `[rows, columns, 3]` as an image of uint8 of about 200 pixels, with lines between the cells."""
    pixels = max(4, 200 // len(colors))
    image = np.kron(colors, np.ones((pixels, pixels, 1))).astype(np.uint8)
    image[::pixels], image[:, ::pixels] = GRAY, GRAY
    return image


def draw_walk(size: int, cells: np.ndarray, marks: dict[tuple[int, int], tuple[int, int, int]]) -> np.ndarray:
    """Draws a walk through `cells: [n, 2]` with its end in blue, after marks in colors of their own."""
    colors = np.full((size, size, 3), WHITE, float)
    colors[tuple(cells.T)] = LIGHT_BLUE
    for cell, color in marks.items():
        colors[cell] = color
    end = tuple(cells[-1])
    colors[end] = (colors[end] + BLUE) / 2 if end in marks else BLUE  # a mark shines through
    return draw_cells(colors)
