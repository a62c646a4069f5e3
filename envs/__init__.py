"""Meta-RL environments: pure functions of a task, on the device."""

from jaxmeta.envs._meta_env import MetaEnv as MetaEnv
from jaxmeta.envs._meta_env import State as State
