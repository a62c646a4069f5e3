"""Environments by name."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxmeta._checks import check_choice, check_function
from jaxmeta._names import about, check_new_name, find_name
from jaxmeta.display import short_repr
from jaxmeta.envs._ant import AntDirection, AntForwardBackward, AntGoal
from jaxmeta.envs._bandits import BernoulliBandit, GaussianBandit
from jaxmeta.envs._base import BaseEnv
from jaxmeta.envs._body import BodyEnv
from jaxmeta.envs._brax import check_brax
from jaxmeta.envs._classic import CartPole, Pendulum
from jaxmeta.envs._dark_room import DarkRoom
from jaxmeta.envs._gridworld import GridNavigation
from jaxmeta.envs._half_cheetah import HalfCheetahForwardBackward, HalfCheetahVelocity
from jaxmeta.envs._humanoid import HumanoidDirection, HumanoidForwardBackward
from jaxmeta.envs._meta_env import MetaEnv
from jaxmeta.envs._particles import Particles2D
from jaxmeta.envs._random_params import HopperRandomParams, Walker2DRandomParams
from jaxmeta.envs._rule_world import RuleWorld
from jaxmeta.envs._tabular import TabularMDP

Variants = Mapping[str, Mapping[str, Any]]
"""Options of each variant. The first variant is the default."""

_NO_VARIANTS: Variants = MappingProxyType({})


class EnvInfo(NamedTuple):
    """Facts about an environment."""

    about: str
    """Description in one line."""
    paper: str
    """First reference with its link, or an empty string."""
    variants: Variants
    """Options of each variant, the default variant first. Empty if there is only one definition."""
    options: Mapping[str, Any]
    """Options with their defaults."""

    __repr__ = short_repr


class _Entry(NamedTuple):
    build: Callable[..., MetaEnv]
    variants: Variants


_REGISTRY: dict[str, _Entry] = {}


def register(name: str, build: Callable[..., MetaEnv], variants: Variants = _NO_VARIANTS) -> None:
    """Adds an environment of your own to `make`, `list_envs` and `describe`.

    Args:
        name: new name, of lower-case letters, digits and hyphens.
        build: class derived from `BaseEnv`, or function that returns an environment. All its arguments are options
            and need a default. The docstring describes the environment.
        variants: options of each variant, the default variant first.

    Raises:
        TypeError: if `build` is not a function, or one of its arguments has no default.
        ValueError: if the name is malformed or belongs to another `build`, or a variant has an unknown option.

    Example:
        >>> def two_arms(horizon=10):
        ...     \"\"\"Bandit with two arms.\"\"\"
        ...     return BernoulliBandit(arms=2, horizon=horizon)
        >>> register("two-arms", two_arms)
        >>> make("two-arms", horizon=20).action_size, describe("two-arms").about
        (2, 'Bandit with two arms.')
    """
    check_function(build=build)
    check_new_name(
        "registered environment", name, (known for known, e in _REGISTRY.items() if (known, e.build) != (name, build))
    )
    for option, default in _options(build).items():
        if default is inspect.Parameter.empty:
            raise TypeError(f"build must have a default for every argument, got {build!r} with none for {option}")
    for options in variants.values():
        _check_options(name, build, options)
    _REGISTRY[name] = _Entry(build, variants)


def list_envs() -> tuple[str, ...]:
    """Returns the names that `make` knows.

    Example:
        >>> "particles2d" in list_envs()
        True
    """
    return tuple(_REGISTRY)


def describe(name: str) -> EnvInfo:
    """Returns facts about an environment: what it is, its paper, its variants and its options.

    Args:
        name: one of `list_envs()`. Underscores and capitals are accepted.

    Returns:
        The facts. The environment is not made, so brax is not needed.

    Raises:
        ValueError: if there is no such environment. The message suggests the nearest name.

    Example:
        >>> info = describe("particles2d")
        >>> info.about, tuple(info.variants), info.options["size"]
        ('Point on the plane that must find a goal.', ('l2l', 'promp', 'promp-sparse', 'pearl'), 0.5)
    """
    build, variants = _REGISTRY[find_name("name", name, _REGISTRY)]
    return EnvInfo(*about(build), variants, _options(build))


def make(
    name: str, *, horizon: int | None = None, variant: str | None = None, backend: str | None = None, **options: Any
) -> BaseEnv:
    """Makes an environment by its name.

    Args:
        name: one of `list_envs()`. Underscores and capitals are accepted.
        horizon: number of steps after which an episode is truncated, by default that of the variant.
        variant: the definition to use, where papers differ. For most environments these are `"l2l"` (learn2learn),
            `"promp"` and `"pearl"`, see `describe(name).variants`.
        backend: simulator of brax, for environments with a body: `"spring"`, `"positional"`, `"generalized"` or
            `"mjx"`.
        **options: other options of the environment, see `describe(name).options`.

    Returns:
        The environment.

    Raises:
        ModuleNotFoundError: if the environment needs brax, which is not installed.
        ValueError: if there is no such environment, variant, backend or option.

    Example:
        >>> make("particles2d", variant="promp-sparse").reward
        'progress'
        >>> make("bandit-bernoulli", arms=3, horizon=50).action_size
        3
    """
    name = find_name("name", name, _REGISTRY)
    build, variants = _REGISTRY[name]
    given = {"horizon": horizon, "backend": backend}
    options |= {key: value for key, value in given.items() if value is not None}
    if variants:
        variant = next(iter(variants)) if variant is None else variant
        check_choice("variant", variant, tuple(variants))
        options = {**variants[variant], **options}
    elif variant is not None:
        raise ValueError(f"{name!r} has no variants, got variant={variant!r}")
    _check_options(name, build, options)
    env: Any = build(**options)
    if isinstance(env, BodyEnv):
        check_brax(name)
    return env


def _options(build: Callable[..., MetaEnv]) -> dict[str, Any]:
    """Returns the arguments of a class or function with their defaults."""
    return {name: parameter.default for name, parameter in inspect.signature(build).parameters.items()}


def _check_options(name: str, build: Callable[..., MetaEnv], options: Mapping[str, Any]) -> None:
    """Raises ValueError if an environment does not have one of the options."""
    known = _options(build)
    for option in options:
        if option not in known:
            raise ValueError(f"{name!r} has no option {option!r}: it has {', '.join(known)}")


_CORNERS = {"goals": "corners", "size": 2.0, "start": 0.2, "max_step": 0.2, "tolerance": 0.0}
_PARTICLES = {
    "l2l": {},
    "promp": {**_CORNERS, "reward": "distance"},
    "promp-sparse": {**_CORNERS, "reward": "progress"},
    "pearl": {"horizon": 20, "goals": "half-circle", "size": 1.0, "reward": "radius", "tolerance": 0.0},
}
_DIRECTIONS = {"l2l": {}, "promp": {"see_torso": False}, "pearl": {"horizon": 200}}
_VELOCITIES = {
    "promp": {"see_torso": False},
    "pearl": {"horizon": 200},
    "maml": {"horizon": 200, "max_velocity": 2.0},
}
_ROOMS = {"ad": {}, "ad-hard": {"size": 17, "sparse": True}, "key-to-door": {"horizon": 50, "key": True}}
_RULES = {
    "easy": {"horizon": 10, "size": 2, "objects": 3, "distractors": 0, "colors": 3, "shapes": 3},
    "medium": {},
    "hard": {"horizon": 80, "size": 7, "objects": 5, "depth": 2, "distractors": 3, "shapes": 5},
}
_RUNNING_ANT = {"l2l": {}, "pearl": {"horizon": 200, "min_height": 0.2}}

register("particles2d", Particles2D, _PARTICLES)
register("bandit-bernoulli", BernoulliBandit)
register("bandit-gaussian", GaussianBandit)
register("tabular", TabularMDP)
register("pendulum", Pendulum)
register("cartpole", CartPole)
register("gridworld", GridNavigation)
register("dark-room", DarkRoom, _ROOMS)
register("rule-world", RuleWorld, _RULES)
register("half-cheetah-forward-backward", HalfCheetahForwardBackward, _DIRECTIONS)
register("half-cheetah-velocity", HalfCheetahVelocity, _VELOCITIES)
register("ant-forward-backward", AntForwardBackward, _RUNNING_ANT)
register("ant-direction", AntDirection, _RUNNING_ANT)
register("ant-goal", AntGoal, {"promp": {}, "pearl": {"horizon": 200}})
register("humanoid-forward-backward", HumanoidForwardBackward)
register("humanoid-direction", HumanoidDirection)
register("walker2d-params", Walker2DRandomParams)
register("hopper-params", HopperRandomParams)
