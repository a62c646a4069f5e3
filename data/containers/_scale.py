"""The numbers in which inputs reach a model: the one place that scales images, and that looks at them."""

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmeta._checks import channels_first

_BYTE = np.float32(1 / 255)
_SAMPLE = 256  # examples that are looked at
_BRIGHT = 16  # no image that was scaled or normalized has such numbers


def to_float(x: Any) -> Any:
    """Converts images in uint8 to float32 in [0, 1] and returns others unchanged, bit for bit alike in NumPy and JAX.

    Args:
        x: an array, or anything else, which is returned as it is.
    """
    if getattr(x, "dtype", None) != np.uint8:
        return x
    return x.astype(np.float32 if isinstance(x, np.ndarray) else jnp.float32) * _BYTE


def warn_of_inputs(inputs: Any) -> None:
    """Warns of inputs that cannot be meant: NaN, images with the channels first, or from 0 to 255 but not in uint8.

    Args:
        inputs: an array `[M, ...]`.
    """
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind == "f" and np.isnan(np.min(inputs)):
        rows = np.flatnonzero(np.isnan(inputs.reshape(len(inputs), -1)).any(1))
        warnings.warn(f"inputs have NaN in {len(rows)} of {len(inputs)} examples, first in {rows[0]}", stacklevel=2)
    if channels_first(inputs.shape):
        warnings.warn(
            f"inputs of shape {inputs.shape} look like images with the channels first, and the models of jaxmeta take "
            "[M, H, W, C]: x.transpose(0, 2, 3, 1) puts the channels last",
            stacklevel=2,
        )
    if inputs.ndim != 4 or inputs.shape[-1] not in (1, 3) or inputs.dtype in (np.uint8, np.bool_):
        return
    some = np.asarray(inputs[:_SAMPLE])
    if some.min() >= 0 and _BRIGHT < some.max() <= 255 and not jnp.issubdtype(some.dtype, jnp.complexfloating):
        warnings.warn(
            f"these look like images from 0 to 255 in {inputs.dtype}, which reach the model as they are: pass uint8, "
            "which becomes [0, 1], or divide by 255",
            stacklevel=2,
        )
