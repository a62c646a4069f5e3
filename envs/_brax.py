"""Bodies and their physics: the one place that imports brax."""

import contextlib
import copy
import functools
import warnings
from collections.abc import Iterator
from typing import Any

import jax

from jaxmeta._types import PyTree

BACKENDS = ("spring", "positional", "generalized", "mjx")


class Physics:
    """A body of `brax.envs` in one of brax's simulators, without brax's rewards.

    Args:
        env: brax's environment of the body.
    """

    def __init__(self, env: Any) -> None:
        self._env = env

    @property
    def system(self) -> Any:
        """The `brax.base.System`: masses, joints, shapes."""
        return self._env.sys

    @property
    def dt(self) -> jax.Array:
        """Seconds that a step lasts, `[]`."""
        return self._env.dt

    def with_system(self, leaves: dict[str, jax.Array]) -> "Physics":
        """The same body with other leaves of its system, under names such as "link.inertia.mass"."""
        env = copy.copy(self._env)
        env.sys = env.sys.tree_replace(leaves)
        return Physics(env)

    def init(self, position: jax.Array, velocity: jax.Array) -> PyTree:
        """The state with these joint positions and velocities."""
        with _lenient():
            return self._env.pipeline_init(position, velocity)

    def step(self, state: PyTree, control: jax.Array) -> PyTree:
        """The state after `dt` of constant control."""
        with _lenient():
            return self._env.pipeline_step(state, control)

    def center_of_mass(self, state: PyTree) -> jax.Array:
        """Of a humanoid, `[3]`."""
        with _lenient():
            return self._env._com(state)[0]

    def humanoid_observation(self, state: PyTree, control: jax.Array) -> jax.Array:
        """Joints, inertias and velocities of all parts, and the forces of actuators, `[244]`."""
        with _lenient():
            return self._env._get_obs(state, control)


@functools.cache
def load(body: str, backend: str, frames: int | None = None) -> Physics:
    """Load a body.

    Args:
        body: name in `brax.envs`.
        backend: one of `BACKENDS`.
        frames: steps of physics in a step; None for brax's own number.
    """
    with jax.ensure_compile_time_eval(), _lenient():
        from brax import envs

        options = {} if frames is None else {"n_frames": frames}
        return Physics(envs.get_environment(body, backend=backend, **options))


@contextlib.contextmanager
def _lenient() -> Iterator[None]:
    """What brax's code needs: it promotes ranks, and it and what it imports warn that they are unmaintained."""
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        warnings.simplefilter("ignore")
        yield
