"""Placement of a sampler's examples on one device, or divided among the devices of a mesh."""

import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmeta.data.containers import to_float
from jaxmeta.data.samplers._checks import ArrayLike

Placement: TypeAlias = Any
"""A `jax.Device` or a `jax.sharding.NamedSharding`. `Any`, because type checkers take `jax.Device` for a variable."""


def place(inputs: ArrayLike, small: tuple[np.ndarray, ...], device: Placement | None) -> tuple[jax.Array, ...]:
    """Puts the examples and the small arrays that belong to them on a device or a mesh.

    Args:
        inputs: examples: `[M, ...]`.
        small: arrays that are copied whole to every device.
        device: a device, a `NamedSharding` that divides the first axis of the inputs, or `None` for JAX's default.

    Returns:
        The inputs and the small arrays. Inputs that do not divide evenly among devices are padded with zeros.

    Raises:
        TypeError: if `device` is neither a device nor a `NamedSharding`.
        ValueError: if the sharding divides another axis, or its mesh has axes that are not of type Auto.
    """
    if device is None:
        return tuple(jnp.asarray(array) for array in (inputs, *small))
    if isinstance(device, jax.Device):
        return tuple(jax.device_put(array, device) for array in (inputs, *small))
    if not isinstance(device, NamedSharding):
        raise TypeError(f"device must be a jax.Device or a jax.sharding.NamedSharding, got {device!r}")
    mesh, spec = device.mesh, device.spec
    if any(axis is not None for axis in spec[1:]):
        raise ValueError(f"device must divide the first axis of the inputs only, got {spec}")
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise ValueError(f"the mesh must have axes of type jax.sharding.AxisType.Auto, got {mesh.axis_types}")
    axes = spec[0] if spec else ()
    axes = axes if isinstance(axes, tuple) else (axes,) if axes else ()
    padding = -len(inputs) % math.prod(mesh.shape[axis] for axis in axes)
    if padding:
        inputs = np.pad(np.asarray(inputs), [(0, padding)] + [(0, 0)] * (inputs.ndim - 1))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return (jax.device_put(inputs, device), *(jax.device_put(array, everywhere) for array in small))


def zeros_for_model(inputs: jax.Array) -> jax.Array:
    """Returns one input of zeros of a data set, as the model gets it: `[1, ...]`."""
    return to_float(jnp.zeros((1, *inputs.shape[1:]), inputs.dtype))
