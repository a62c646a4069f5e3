"""Physics of the bodies of brax: the only module that imports brax."""

import contextlib
import copy
import functools
import io
import os
import warnings
from collections.abc import Iterator
from typing import Any

import jax

from jaxmeta._checks import check_installed
from jaxmeta._types import PyTree

BACKENDS = ("spring", "positional", "generalized", "mjx")


class Physics:
    """Physics of a body of `brax.envs` in one of brax's simulators.

    Args:
        env: the environment of brax with the body. Its rewards are not used.
    """

    def __init__(self, env: Any) -> None:
        self._env = env

    @property
    def system(self) -> Any:
        """System of the body, a `brax.base.System` with its masses, joints and shapes."""
        return self._env.sys

    @property
    def dt(self) -> jax.Array:
        """Duration of a step in seconds, `[]`."""
        return self._env.dt

    def with_system(self, leaves: dict[str, jax.Array]) -> "Physics":
        """Returns the physics with other leaves of the system, under names such as `"link.inertia.mass"`."""
        env = copy.copy(self._env)
        env.sys = env.sys.tree_replace(leaves)
        return Physics(env)

    def init(self, position: jax.Array, velocity: jax.Array) -> PyTree:
        """Returns the state with these joint positions and velocities."""
        with _lenient():
            return self._env.pipeline_init(position, velocity)

    def step(self, state: PyTree, control: jax.Array) -> PyTree:
        """Returns the state after `dt` seconds of constant control."""
        with _lenient():
            return self._env.pipeline_step(state, control)

    def center_of_mass(self, state: PyTree) -> jax.Array:
        """Returns the center of mass of a humanoid, `[3]`."""
        with _lenient():
            return self._env._com(state)[0]

    def humanoid_observation(self, state: PyTree, control: jax.Array) -> jax.Array:
        """Returns the observation of brax's humanoid, `[244]`.

        It consists of joints, inertias and velocities of all parts, and of the actuators' forces.
        """
        with _lenient():
            return self._env._get_obs(state, control)


@functools.cache
def load(body: str, backend: str, frames: int | None = None) -> Physics:
    """Loads the physics of a body.

    Args:
        body: name of the body in `brax.envs`.
        backend: one of `BACKENDS`.
        frames: number of physics steps in a step; None for the number that brax uses.

    Raises:
        ModuleNotFoundError: if brax is not installed.
    """
    check_brax(f"the body {body!r}")
    with jax.ensure_compile_time_eval(), _lenient(), _quiet():
        from brax import envs

        options = {} if frames is None else {"n_frames": frames}
        return Physics(envs.get_environment(body, backend=backend, **options))


def check_brax(needed_by: str) -> None:
    """Raises ModuleNotFoundError if brax is not installed."""
    check_installed("brax", needed_by, extra="envs")


@contextlib.contextmanager
def _lenient() -> Iterator[None]:
    """Allows rank promotion and silences the warnings of brax and its dependencies."""
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what brax's dependencies print at import and for each body: missing optional packages, old attributes."""
    try:
        kept = os.dup(2)
    except OSError:  # a process without standard error
        kept = None
    try:
        if kept is not None:  # MuJoCo writes there from C
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 2)
            os.close(kept)
