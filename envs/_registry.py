"""Environments by name."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxmeta._checks import check_choice
from jaxmeta.envs._ant import AntDirection, AntForwardBackward, AntGoal
from jaxmeta.envs._bandits import BernoulliBandit, GaussianBandit
from jaxmeta.envs._base import BaseEnv
from jaxmeta.envs._classic import CartPole, Pendulum
from jaxmeta.envs._half_cheetah import HalfCheetahForwardBackward, HalfCheetahVelocity
from jaxmeta.envs._humanoid import HumanoidDirection, HumanoidForwardBackward
from jaxmeta.envs._particles import Particles2D
from jaxmeta.envs._random_params import HopperRandomParams, Walker2DRandomParams
from jaxmeta.envs._tabular import TabularMDP


class _Entry(NamedTuple):
    build: type[BaseEnv]
    variants: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    """Options of each variant; the first is the default."""


_CORNERS = {"goals": "corners", "size": 2.0, "start": 0.2, "max_step": 0.2, "tolerance": 0.0}
_RUNNING_ANT = {"l2l": {}, "pearl": {"horizon": 200, "min_height": 0.2}}
_REGISTRY: dict[str, _Entry] = {
    "particles2d": _Entry(
        Particles2D,
        {
            "l2l": {},
            "promp": {**_CORNERS, "reward": "distance"},
            "promp-sparse": {**_CORNERS, "reward": "progress"},
            "pearl": {"horizon": 20, "goals": "half-circle", "size": 1.0, "reward": "radius", "tolerance": 0.0},
        },
    ),
    "bandit-bernoulli": _Entry(BernoulliBandit),
    "bandit-gaussian": _Entry(GaussianBandit),
    "tabular": _Entry(TabularMDP),
    "pendulum": _Entry(Pendulum),
    "cartpole": _Entry(CartPole),
    "half-cheetah-forward-backward": _Entry(
        HalfCheetahForwardBackward, {"l2l": {}, "promp": {"see_torso": False}, "pearl": {"horizon": 200}}
    ),
    "half-cheetah-velocity": _Entry(
        HalfCheetahVelocity,
        {"promp": {"see_torso": False}, "pearl": {"horizon": 200}, "maml": {"horizon": 200, "max_velocity": 2.0}},
    ),
    "ant-forward-backward": _Entry(AntForwardBackward, _RUNNING_ANT),
    "ant-direction": _Entry(AntDirection, _RUNNING_ANT),
    "ant-goal": _Entry(AntGoal, {"promp": {}, "pearl": {"horizon": 200}}),
    "humanoid-forward-backward": _Entry(HumanoidForwardBackward),
    "humanoid-direction": _Entry(HumanoidDirection),
    "walker2d-params": _Entry(Walker2DRandomParams),
    "hopper-params": _Entry(HopperRandomParams),
}


def list_envs() -> tuple[str, ...]:
    """Return the names that `make` knows.

    Example:
        >>> "particles2d" in list_envs()
        True
    """
    return tuple(_REGISTRY)


def make(
    name: str, *, horizon: int | None = None, variant: str | None = None, backend: str | None = None, **options: Any
) -> BaseEnv:
    """Make an environment.

    Args:
        name: one of `list_envs()`.
        horizon: steps until an episode is truncated; by default the variant's.
        variant: whose definition: for most, where papers differ, "l2l" (learn2learn), "promp" or "pearl".
        backend: brax's physics, for environments with a body: "spring", "positional", "generalized" or "mjx".
        **options: other arguments of the environment's class.

    Returns:
        The environment.

    Raises:
        ValueError: if there is no such environment, variant, backend or option.

    Example:
        >>> make("particles2d", variant="promp-sparse").reward
        'progress'
        >>> make("bandit-bernoulli", arms=3, horizon=50).action_size
        3
    """
    check_choice("name", name, list_envs())
    build, variants = _REGISTRY[name]
    given = {"horizon": horizon, "backend": backend}
    options |= {key: value for key, value in given.items() if value is not None}
    if variants:
        variant = next(iter(variants)) if variant is None else variant
        check_choice("variant", variant, tuple(variants))
        options = {**variants[variant], **options}
    elif variant is not None:
        raise ValueError(f"{name!r} has no variants, got variant={variant!r}")
    known = [field.name for field in dataclasses.fields(build)]
    for key in options:
        if key not in known:
            raise ValueError(f"{name!r} has no option {key!r}: it has {', '.join(known)}")
    return build(**options)
