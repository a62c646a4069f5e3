"""Pictures of examples, and films of episodes, as files that a page can hold."""

import io
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmeta import envs

_LARGEST = 96  # pixels along the longer side of a picture
_FRAMES = 100  # of a film
_RATE = 20.0  # states per second of a film


def picture_of(x: Any, bright: bool) -> bytes | None:
    """Returns an input as a PNG file, or `None` if it is no image `[H, W, 1 or 3]`.

    Args:
        x: the input, an image in [0, 1]. Values outside are scaled to it.
        bright: whether gray ink is bright, and is to be shown dark.
    """
    x = np.asarray(x, np.float32)
    if x.ndim != 3 or x.shape[2] not in (1, 3):
        return None
    from PIL import Image

    low, high = min(0.0, float(x.min())), max(1.0, float(x.max()))
    x = (x - low) / (high - low)
    pixels = np.round(255 * (1 - x if bright and x.shape[2] == 1 else x)).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if x.shape[2] == 1 else pixels)
    image.thumbnail((_LARGEST, _LARGEST))
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()


def film_of(env: envs.MetaEnv, states: Any) -> bytes:
    """Returns an episode as a GIF file of at most 100 frames, for an environment that can be drawn.

    Args:
        env: the environment, which has a method `render`.
        states: states of the episode, stacked on the first axis.
    """
    every = -(-len(states.done) // _FRAMES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "film.gif")
        envs.save_video(env, jax.tree.map(lambda x: x[::every], states), path, frames_per_second=_RATE / every)
        return path.read_bytes()
