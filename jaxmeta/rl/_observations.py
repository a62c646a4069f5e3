"""Observations of any form: vectors, arrays such as images, and dictionaries of them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta._checks import check_integer
from jaxmeta._types import PyTree
from jaxmeta.envs import MetaEnv
from jaxmeta.models import Conv


def example_observations(env: MetaEnv, n: int = 1) -> PyTree:
    """Returns `n` observations of zeros with the shapes and types of an environment's, to initialize a network.

    Args:
        env: the environment.
        n: number of observations.

    Returns:
        A pytree with leading axis `[n]`, `[n, observation_size]` for an environment with vectors.

    Raises:
        ValueError: if `n` is less than 1.

    Example:
        >>> from jaxmeta import envs
        >>> example_observations(envs.make("particles2d")).shape
        (1, 2)
    """
    check_integer(n=n)
    obs = jax.eval_shape(env.reset, jax.random.key(0)).obs
    return jax.tree.map(lambda x: jnp.zeros((n, *x.shape), x.dtype), obs)


class ObservationEncoder(nn.Module):
    """Encoder of observations of any form as vectors: convolutions for images, concatenation for the rest.

    An image `[height, width, channels]` goes through a convolution of 16 channels, then ones of 32, and a linear layer,
    with ReLU after each. Their stride is 2 until no side is longer than 5. Integers of 8 bits are divided by 255. Other
    arrays are flattened, and the parts of a dictionary are encoded one by one.

    Attributes:
        size: the environment's `observation_size`: a number, a shape, or a mapping from names to these.
        features: number of features of an image.
        convolutions: whether an image goes through convolutions. Without them there is only the linear layer, which is
            several times faster, and better for a small grid in which it matters where something is.

    Raises:
        ValueError: if `features` is less than 1, or observations have another form.

    Example:
        >>> encoder = ObservationEncoder({"image": (9, 9, 3), "goal": 2}, features=32)
        >>> obs = {"image": jnp.zeros((4, 9, 9, 3), jnp.uint8), "goal": jnp.zeros((4, 2))}
        >>> params = encoder.init(jax.random.key(0), obs)
        >>> encoder.apply(params, obs).shape
        (4, 34)
    """

    size: Any
    features: int = 64
    convolutions: bool = True

    def __post_init__(self) -> None:
        check_integer(features=self.features)
        super().__post_init__()

    @nn.compact
    def __call__(self, obs: PyTree) -> jax.Array:
        """Returns features `[..., n]` of observations with leading axes `[...]`."""
        parts = over_observation(self._encode, self.size, obs)
        return jnp.concatenate(jax.tree.leaves(parts), axis=-1)

    def _encode(self, shape: tuple[int, ...], obs: jax.Array) -> jax.Array:
        axes = obs.ndim - len(shape)
        if axes < 0 or obs.shape[axes:] != shape:
            raise ValueError(f"obs must end with the shape {list(shape)}, got {list(obs.shape)}")
        if not jnp.issubdtype(obs.dtype, jnp.floating):
            obs = obs.astype(float) / (255 if obs.dtype == jnp.uint8 else 1)
        if len(shape) != 3:
            return obs.reshape(*obs.shape[:axes], math.prod(shape))
        x = self._convolve(obs) if self.convolutions else obs
        return nn.relu(nn.Dense(self.features)(x.reshape(*x.shape[:axes], -1)))

    def _convolve(self, image: jax.Array) -> jax.Array:
        x = nn.relu(Conv(16, (3, 3), strides=_stride(image))(image))
        while (stride := _stride(x)) > 1:
            x = nn.relu(Conv(32, (3, 3), strides=stride)(x))
        return x


def _stride(image: jax.Array) -> int:
    """Returns the stride of the next convolution over an image."""
    return 2 if max(image.shape[-3:-1]) > 5 else 1


def over_observation(fn: Callable[[tuple[int, ...], Any], Any], size: Any, obs: PyTree) -> PyTree:
    """Calls `fn(shape, part)` for each part of an observation of some `observation_size`.

    Raises:
        ValueError: if the observation is not of this form.
    """
    if isinstance(size, Mapping):
        if not isinstance(obs, Mapping) or set(obs) != set(size):
            found = f"a mapping with {', '.join(map(str, obs))}" if isinstance(obs, Mapping) else "an array"
            raise ValueError(f"obs must be a mapping with {', '.join(map(str, size))}, got {found}")
        return {name: over_observation(fn, size[name], obs[name]) for name in size}
    if isinstance(obs, Mapping):
        raise ValueError(f"obs must be an array, got a mapping with {', '.join(map(str, obs))}")
    return fn((size,) if isinstance(size, int) else tuple(size), obs)


_MOST_FEATURES = 1000
"""Numbers in an observation that a linear baseline takes: its matrix has the square of twice as many."""


def flat_observations(obs: PyTree) -> jax.Array:
    """Returns observations `[T, E, ...]` as vectors `[T, E, n]`, for the linear baseline.

    Raises:
        ValueError: if they have too many numbers.
    """
    parts = [x.reshape(*x.shape[:2], -1) for x in jax.tree.leaves(obs)]
    parts = [x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float) for x in parts]
    flat = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
    if flat.shape[-1] > _MOST_FEATURES:
        raise ValueError(
            f'baseline="linear" takes observations of at most {_MOST_FEATURES} numbers, got {flat.shape[-1]}: use '
            "rl.ValueNetwork(encoder=rl.ObservationEncoder(env.observation_size))"
        )
    return flat
