"""Meta-RL environments: pure functions of a task, on the device."""

import importlib
import typing

from jaxmeta.envs._ant import AntDirection as AntDirection
from jaxmeta.envs._ant import AntForwardBackward as AntForwardBackward
from jaxmeta.envs._ant import AntGoal as AntGoal
from jaxmeta.envs._bandits import BernoulliBandit as BernoulliBandit
from jaxmeta.envs._bandits import GaussianBandit as GaussianBandit
from jaxmeta.envs._base import BaseEnv as BaseEnv
from jaxmeta.envs._base import Outcome as Outcome
from jaxmeta.envs._base import TaskView as TaskView
from jaxmeta.envs._classic import CartPole as CartPole
from jaxmeta.envs._classic import Pendulum as Pendulum
from jaxmeta.envs._half_cheetah import HalfCheetahForwardBackward as HalfCheetahForwardBackward
from jaxmeta.envs._half_cheetah import HalfCheetahVelocity as HalfCheetahVelocity
from jaxmeta.envs._humanoid import HumanoidDirection as HumanoidDirection
from jaxmeta.envs._humanoid import HumanoidForwardBackward as HumanoidForwardBackward
from jaxmeta.envs._meta_env import MetaEnv as MetaEnv
from jaxmeta.envs._meta_env import State as State
from jaxmeta.envs._particles import Particles2D as Particles2D
from jaxmeta.envs._random_params import HopperRandomParams as HopperRandomParams
from jaxmeta.envs._random_params import Walker2DRandomParams as Walker2DRandomParams
from jaxmeta.envs._registry import list_envs as list_envs
from jaxmeta.envs._registry import make as make
from jaxmeta.envs._render import save_html as save_html
from jaxmeta.envs._render import save_video as save_video
from jaxmeta.envs._tabular import TabularMDP as TabularMDP

if typing.TYPE_CHECKING:
    from jaxmeta.envs._gymnasium import GymEnv as GymEnv
    from jaxmeta.envs._gymnasium_vector import AsyncVectorEnv as AsyncVectorEnv
    from jaxmeta.envs._gymnasium_vector import GymVectorEnv as GymVectorEnv
    from jaxmeta.envs._metaworld import MetaWorld as MetaWorld

_NEED_GYMNASIUM = {
    "GymEnv": "_gymnasium",
    "AsyncVectorEnv": "_gymnasium_vector",
    "GymVectorEnv": "_gymnasium_vector",
    "MetaWorld": "_metaworld",
}


def __getattr__(name: str) -> typing.Any:
    """Import gymnasium when a class that needs it is asked for."""
    if name in _NEED_GYMNASIUM:
        return getattr(importlib.import_module(f"jaxmeta.envs.{_NEED_GYMNASIUM[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
