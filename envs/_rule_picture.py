"""Pictures of a rule world."""

import colorsys

import numpy as np

from jaxmeta._types import PyTree
from jaxmeta.envs._grid import GRAY, WHITE

_PIXELS = 40  # of a side of a cell


def draw_world(world: PyTree, colors: int, shapes: int) -> np.ndarray:
    """Draws a rule world as an image `[height, width, 3]` of uint8.

    Args:
        world: `{"agent": [2], "grid": [size, size], "held": []}`, see `RuleWorld`.
        colors: number of colors.
        shapes: number of shapes. A shape is a star with one more ray than the shape before, beginning with a disk.
    """
    grid, (row, column) = np.asarray(world["grid"]), np.asarray(world["agent"])
    image = np.full((len(grid) * _PIXELS, len(grid) * _PIXELS, 3), WHITE, np.uint8)
    for cell in np.ndindex(grid.shape):
        _draw(_tile(image, *cell), int(grid[cell]), colors, shapes)
    image[::_PIXELS], image[:, ::_PIXELS] = GRAY, GRAY
    tile = _tile(image, int(row), int(column))
    for frame in (tile[:3], tile[-3:], tile[:, :3], tile[:, -3:]):
        frame[:] = 0
    half = _PIXELS // 2
    _draw(tile[3:half, 3:half], int(world["held"]), colors, shapes)
    return image


def _tile(image: np.ndarray, row: int, column: int) -> np.ndarray:
    return image[row * _PIXELS : (row + 1) * _PIXELS, column * _PIXELS : (column + 1) * _PIXELS]


def _draw(tile: np.ndarray, kind: int, colors: int, shapes: int) -> None:
    """Draws an object into a square part of an image; nothing for -1."""
    if kind < 0:
        return
    shape, color = divmod(kind, colors)
    y, x = np.meshgrid(*[np.linspace(-1, 1, len(tile))] * 2, indexing="ij")
    rays = shape + 1 if shape else 0
    edge = 0.55 + (0.25 * np.cos(rays * np.arctan2(x, -y)) if rays else 0)
    tile[np.hypot(x, y) < edge] = np.multiply(255, colorsys.hsv_to_rgb(color / colors, 0.9, 0.8))
