"""Pictures of tasks for notebooks."""

import base64
import io
from typing import Any

import numpy as np
from jax.core import Tracer

_CLASSES = 10
_EXAMPLES = 8  # of a class in a part
_HEIGHT = 48  # pixels of an image on the page, at least
_GAP = 2


def task_html(task: Any) -> str | None:
    """Returns a table of the images of a task for a notebook, or `None` if its inputs are not images.

    A row is a class. Examples of weight 0 are left out.

    Args:
        task: a `Task` whose parts are `Batch`es of images `[n, H, W, C]`, numbers in `[0, 1]` or uint8, with integer
            labels.
    """
    parts = [_images(part) for part in task]
    if any(part is None for part in parts):
        return None
    found: list[Any] = parts
    labels = sorted({label for part in found for label in part})
    rows = []
    for label in labels[:_CLASSES]:
        cells = "".join(f"<td style='padding-right:16px'>{_strip(part.get(label, []))}</td>" for part in found)
        rows.append(f"<tr><th>{label}</th>{cells}</tr>")
    if len(labels) > _CLASSES:
        rows.append(f"<tr><td colspan='3'>and {len(labels) - _CLASSES} more classes</td></tr>")
    return f"<table><tr><th>class</th><th>support</th><th>query</th></tr>{''.join(rows)}</table>"


def _images(part: Any) -> dict[int, list[np.ndarray]] | None:
    """Returns the images of each class, in uint8, or `None` if there are none."""
    x, y = getattr(part, "x", None), getattr(part, "y", None)
    if x is None or y is None or isinstance(x, Tracer) or not hasattr(x, "shape") or not hasattr(y, "shape"):
        return None
    if len(x.shape) != 4 or x.shape[-1] not in (1, 3) or np.asarray(y).dtype.kind not in "iu" or len(y.shape) != 1:
        return None
    x, y, weight = np.asarray(x), np.asarray(y), part.weight
    if x.dtype != np.uint8:
        x = np.round(255 * np.clip(x.astype(np.float32), 0, 1)).astype(np.uint8)
    kept = np.ones(len(y), bool) if weight is None else np.asarray(weight) != 0
    return {int(label): list(x[kept & (y == label)]) for label in np.unique(y[kept])}


def _strip(images: list[np.ndarray]) -> str:
    """Returns some images side by side as one element of a page."""
    if not images:
        return ""
    from PIL import Image

    shown = images[:_EXAMPLES]
    height, width, channels = shown[0].shape
    strip = np.full((height, len(shown) * (width + _GAP) - _GAP, channels), 255, np.uint8)
    for i, image in enumerate(shown):
        strip[:, i * (width + _GAP) : i * (width + _GAP) + width] = image
    file = io.BytesIO()
    Image.fromarray(strip[..., 0] if channels == 1 else strip).save(file, "PNG")
    content = base64.b64encode(file.getvalue()).decode()
    more = f" + {len(images) - len(shown)}" if len(images) > len(shown) else ""
    style = f"height:{max(_HEIGHT, height)}px;image-rendering:pixelated"
    return f"<img alt='{len(shown)} images' style='{style}' src='data:image/png;base64,{content}'>{more}"
