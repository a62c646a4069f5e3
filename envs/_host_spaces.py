"""Facts about an environment of gymnasium: its name, horizon and spaces, for `HostEnv`."""

from typing import Any

import numpy as np

from jaxmeta.display import brief


def check_interface(env: Any) -> None:
    """Raises TypeError unless a value has the interface of `gymnasium.Env`."""
    names = ("reset", "step", "close", "observation_space", "action_space")
    if isinstance(env, type) or not all(hasattr(env, name) for name in names):
        raise TypeError(f"make must return an environment with the interface of gymnasium, got {brief(env)}")


def name_of(env: Any) -> str:
    """Returns the name under which gymnasium knows an environment, or that of its class."""
    spec = getattr(env, "spec", None)
    return spec.id if spec is not None else type(getattr(env, "unwrapped", env)).__name__


def horizon_of(env: Any) -> int:
    """Returns the number of steps after which gymnasium truncates an episode.

    Raises:
        ValueError: if it does not.
    """
    steps = getattr(getattr(env, "spec", None), "max_episode_steps", None)
    if steps is None:
        raise ValueError(f"horizon must be given, because {name_of(env)} has no spec with max_episode_steps")
    return steps


def observations_of(env: Any, flatten: bool) -> tuple[tuple[int, ...], np.dtype]:
    """Returns the shape of the observations, and the type in which they are sent.

    Raises:
        TypeError: if their space is not a box.
    """
    from gymnasium import spaces

    space = env.observation_space
    if not isinstance(space, spaces.Box):
        raise TypeError(
            f"observation_space of {name_of(env)} must be a Box, got {space}: "
            "wrap the environment in gymnasium.wrappers.FlattenObservation"
        )
    keeps = np.issubdtype(space.dtype, np.floating) or (space.dtype == np.uint8 and not flatten)
    return space.shape, np.dtype(space.dtype if keeps else np.float64)


def actions_of(env: Any) -> tuple[tuple[np.ndarray, np.ndarray] | int, int]:
    """Returns how actions are made from those of JAX, and how many numbers or choices there are.

    Returns:
        The middle and half the width of a box, or the first of discrete actions, and the size.

    Raises:
        TypeError: if the space is neither a box of floats nor discrete.
        ValueError: if a box has no bounds.
    """
    from gymnasium import spaces

    space = env.action_space
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.n)
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise TypeError(f"action_space of {name_of(env)} must be a Box of floats or Discrete, got {space}")
    low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(
            f"action_space of {name_of(env)} must have finite bounds, to which [-1, 1] is scaled, got {space}"
        )
    middle, half = ((high + low) / 2).astype(space.dtype), ((high - low) / 2).astype(space.dtype)
    return (middle, half), middle.size
